//! Fuzz targets: the upgrade, and the frames after it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::io;

use tokio::io::AsyncReadExt;

use super::carrier::Carrier;
use super::frame::{Decoder, End, Kind, MAX_HEADER, Violation, header};
use super::stream::Role;
use super::{Acceptor, Stream, mask, upgrade};
use crate::fuzzing::{Input, block_on, fed, pair, pieces, read_all};

/// A head is judged the same however it comes in pieces, and the bytes behind it are frames; what our server answers to
/// a request it accepts, our client accepts; a refusal is one line and an HTTP answer.
pub(crate) fn upgrade(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let is_client = input.byte() & 1 == 0;
    let cuts = input.cuts();
    let said = input.rest();
    if is_client {
        let whole = answered(&[said]);
        let cut = answered(&pieces(said, &cuts));
        assert_eq!(whole.is_ok(), cut.is_ok());
        match whole {
            Ok(rest) => assert!(said.ends_with(&rest) && cut == Ok(rest)),
            Err(why) => assert!(!why.contains(char::is_control), "{why:?}"),
        }
        return;
    }
    let whole = accepted(&[said]);
    let cut = accepted(&pieces(said, &cuts));
    match (whole, cut) {
        (Ok((got, fault)), Ok((same, other))) => {
            assert_eq!(got, same);
            assert_eq!(fault.is_some(), other.is_some());
            let end = said.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            let request = upgrade::check_request(&said[..end]).unwrap();
            let answer = upgrade::response(&request);
            // The client's own form of the key; another one is not what our client sends.
            if let Ok(key) = base64_16(&request.key) {
                assert_eq!(upgrade::check_response(answer.as_bytes(), key), Ok(request.half_close));
            }
        }
        (Err(fault), Err(other)) => {
            for fault in [fault, other] {
                assert!(!fault.to_string().contains(char::is_control), "{fault}");
            }
        }
        (whole, cut) => panic!("whole and cut: {whole:?} {cut:?}"),
    }
}

fn base64_16(text: &str) -> Result<[u8; 16], ()> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let key: [u8; 16] = STANDARD.decode(text).map_err(drop)?.try_into().map_err(drop)?;
    if STANDARD.encode(key) == text { Ok(key) } else { Err(()) }
}

/// What follows the answer to our request with the RFC's key; or why it is refused.
fn answered(said: &[&[u8]]) -> Result<Vec<u8>, String> {
    block_on(async {
        let (mut tcp, mut peer) = pair();
        let read = async {
            let judged = upgrade::read_head(&mut tcp, b"HTTP/1.", upgrade::MAX_RESPONSE)
                .await
                .map_err(|fault| fault.to_string())?;
            let (head, mut rest) = judged.map_err(|refused| refused.why)?;
            upgrade::check_response(&head, *b"the sample nonce").map_err(|refused| refused.why)?;
            tcp.read_to_end(&mut rest).await.map_err(|fault| fault.to_string())?;
            Ok(rest)
        };
        fed(read, &mut peer, said).await
    })
}

/// What our server reads from a client that says this.
fn accepted(said: &[&[u8]]) -> io::Result<(Vec<u8>, Option<io::Error>)> {
    block_on(async {
        let (tcp, mut peer) = pair();
        let read = async {
            let mut stream = Acceptor::new(None).unwrap().accept(tcp).await?;
            let mut got = Vec::new();
            let fault = stream.read_to_end(&mut got).await.err();
            Ok((got, fault))
        };
        fed(read, &mut peer, said).await
    })
}

/// Frames give the same bytes, pongs and end however they are cut, and those that a plain reading gives; so does the
/// stream above.
pub(crate) fn frames(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let how = input.byte();
    let (from_client, half_close) = (how & 1 == 0, how & 2 == 0);
    let early = input.word();
    let room = 1 + input.word();
    let cuts = input.cuts();
    let said = if how & 4 == 0 { input.rest().to_vec() } else { built(from_client, input) };
    let expected = plainly(&said, from_client, half_close);
    assert_eq!(decoded(&[&said], from_client, half_close), expected);
    assert_eq!(decoded(&pieces(&said, &cuts), from_client, half_close), expected);

    let (early, later) = said.split_at(early.min(said.len()));
    for room in [room, 3] {
        if room < 100 && said.len() > 20_000 {
            continue;
        }
        let (got, fault) = read(early, &pieces(later, &cuts), from_client, half_close, room);
        assert_eq!(got.len(), expected.payload.len());
        assert!(got == expected.payload, "other bytes than in the frames");
        match (expected.end, expected.violation) {
            (Some(_), None) => assert!(fault.is_none(), "{fault:?}"),
            (None, Some(_)) => assert!(fault.is_some()),
            // It depends on the cuts whether what comes behind the end is looked at.
            (Some(_), Some(_)) => {}
            // An end of the connection without one of the stream is a fault where the peer would have said one.
            (None, None) => assert!(fault.is_some() || !half_close),
        }
    }
}

/// Frames with right masks and lengths, whatever else is wrong with them.
fn built(from_client: bool, mut input: Input<'_>) -> Vec<u8> {
    let mut wire = Vec::new();
    while !input.is_empty() && wire.len() < 150_000 {
        let first = input.byte();
        let len = if first & 0x20 == 0 { usize::from(input.byte() % 126) } else { input.word() };
        let first = first & !0x20;
        let key = (from_client != (input.byte() == 0xff)).then_some([first, 1, 2, 3]);
        let mut head = [0; MAX_HEADER];
        let used = header(Kind::Binary, len, key, &mut head);
        head[0] = first;
        let mut payload: Vec<u8> = (0..len).map(|n| n as u8 ^ first).collect();
        if let Some(key) = key {
            mask::apply(&mut payload, key, 0);
        }
        wire.extend_from_slice(&head[..used]);
        wire.extend_from_slice(&payload);
    }
    wire
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    payload: Vec<u8>,
    violation: Option<Violation>,
    end: Option<End>,
    /// The last one.
    pong: Option<Vec<u8>>,
}

fn decoded(pieces: &[&[u8]], from_client: bool, half_close: bool) -> Found {
    let mut decoder = Decoder::new(from_client, half_close);
    let mut found = Found::default();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let (plain, violation) = decoder.decode(&mut piece);
        found.payload.extend_from_slice(&piece[..plain]);
        found.violation = violation;
        if violation.is_some() {
            break;
        }
    }
    found.end = decoder.end();
    assert_eq!(decoder.has_pong(), {
        found.pong = decoder.take_pong();
        found.pong.is_some()
    });
    found
}

/// RFC 6455, section 5.2, over all bytes at once.
fn plainly(bytes: &[u8], from_client: bool, half_close: bool) -> Found {
    let mut found = Found::default();
    let (mut at, mut in_message, mut is_empty) = (0, false, true);
    while found.end != Some(End::Close) {
        let Some(&[first, second]) = bytes.get(at..at + 2).and_then(|two| two.first_chunk()) else { break };
        let masked = second & 0x80 != 0;
        let (extended, masks) = (
            match second & 0x7f {
                126 => 2,
                127 => 8,
                _ => 0,
            },
            if masked { 4 } else { 0 },
        );
        let Some(rest) = bytes.get(at + 2..at + 2 + extended + masks) else { break };
        at += 2 + extended + masks;
        let len = match extended {
            0 => u64::from(second & 0x7f),
            _ => rest[..extended].iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
        };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        let is_control = opcode >= 8;
        found.violation = match opcode {
            _ if first & 0x70 != 0 => Some(Violation::Reserved),
            3..=7 | 11..=15 => Some(Violation::Reserved),
            1 => Some(Violation::Text),
            0 if !in_message => Some(Violation::Fragments),
            2 if in_message => Some(Violation::Fragments),
            _ if from_client && !masked => Some(Violation::Unmasked),
            _ if !from_client && masked => Some(Violation::Masked),
            _ if is_control && len > 125 => Some(Violation::TooLong),
            _ if len > 16 << 20 => Some(Violation::TooLong),
            _ if is_control && !fin => Some(Violation::Fragments),
            _ if !is_control && found.end.is_some() => Some(Violation::AfterEnd),
            _ => None,
        };
        if found.violation.is_some() {
            break;
        }
        let key: [u8; 4] = rest[extended..].first_chunk().copied().unwrap_or_default();
        let here = bytes.len().min(at + len as usize);
        let payload = bytes[at..here].iter().enumerate().map(|(n, byte)| byte ^ key[n % 4]);
        if !is_control {
            found.payload.extend(payload.clone());
        }
        if here < at + len as usize {
            break;
        }
        at = here;
        match opcode {
            8 => found.end = Some(End::Close),
            9 => found.pong = Some(payload.collect()),
            10 => {}
            _ => {
                is_empty &= len == 0;
                in_message = !fin;
                if fin {
                    if half_close && is_empty {
                        found.end = Some(End::HalfClose);
                    }
                    is_empty = true;
                }
            }
        }
    }
    found
}

/// All that is read with a buffer of this size, and the fault in the end.
fn read(
    early: &[u8],
    later: &[&[u8]],
    from_client: bool,
    half_close: bool,
    room: usize,
) -> (Vec<u8>, Option<io::Error>) {
    block_on(async {
        let (tcp, mut peer) = pair();
        let role = if from_client { Role::Server } else { Role::Client };
        let mut stream = Stream::new(Carrier::Plain(tcp), role, half_close, early);
        fed(read_all(&mut stream, room), &mut peer, later).await
    })
}
