//! Ours against ours, and against a peer that writes raw frames.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, split};
use tokio::net::TcpListener;

use super::frame::{Decoder, Kind, MAX_HEADER};
use super::*;

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let two = listener.accept().await.unwrap().0;
    one.set_nodelay(true).unwrap();
    two.set_nodelay(true).unwrap();
    (one, two)
}

fn connector() -> Connector {
    let remote = config::Endpoint { host: config::Host::Name("server.test".to_owned()), port: 2333 };
    Connector::new(None, &remote).unwrap()
}

/// Client and server, after a real upgrade.
async fn streams() -> (Stream, Stream) {
    let (one, two) = sockets().await;
    let (connector, acceptor) = (connector(), Acceptor::new(None).unwrap());
    let (client, server) = tokio::join!(connector.connect(one), acceptor.accept(two));
    (client.unwrap(), server.unwrap())
}

/// One of ours, in `role`, and its peer's bare socket.
async fn against_raw(role: Role, half_close: bool) -> (Stream, TcpStream) {
    let (one, two) = sockets().await;
    (Stream::new(Carrier::Plain(one), role, half_close, &[]), two)
}

/// A frame as the peer of `role` sends it.
fn frame_to(role: Role, first: u8, payload: &[u8]) -> Vec<u8> {
    let key = (role == Role::Server).then_some([9, 8, 7, 6]);
    let mut header = [0; MAX_HEADER];
    let len = frame::header(Kind::Binary, payload.len(), key, &mut header);
    header[0] = first;
    let mut payload = payload.to_vec();
    if let Some(key) = key {
        mask::apply(&mut payload, key, 0);
    }
    [&header[..len], &payload].concat()
}

async fn read_all(stream: &mut Stream, room: usize) -> (Vec<u8>, io::Result<()>) {
    let (mut got, mut buf) = (Vec::new(), vec![0; room]);
    loop {
        match stream.read(&mut buf).await {
            Ok(0) => return (got, Ok(())),
            Ok(n) => got.extend_from_slice(&buf[..n]),
            Err(error) => return (got, Err(error)),
        }
    }
}

async fn would_wait(stream: &mut Stream) -> bool {
    let mut buf = [0; 64];
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(&mut buf)).is_pending()))
        .await
}

/// The next frame from our side: its first byte and its payload.
async fn next_frame(raw: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    raw.read_exact(&mut head).await.unwrap();
    let len = match head[1] & 0x7f {
        126 => usize::from(raw.read_u16().await.unwrap()),
        127 => raw.read_u64().await.unwrap() as usize,
        short => usize::from(short),
    };
    let mut key = [0; 4];
    if head[1] & 0x80 != 0 {
        raw.read_exact(&mut key).await.unwrap();
    }
    let mut payload = vec![0; len];
    raw.read_exact(&mut payload).await.unwrap();
    mask::apply(&mut payload, key, 0);
    (head[0], payload)
}

#[tokio::test]
async fn one_direction_ends_and_the_other_goes_on() {
    let (mut client, mut server) = streams().await;
    assert!(client.can_half_close() && server.can_half_close());
    client.write_all(b"request").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server, 64).await.0, b"request");
    server.write_all(b"response").await.unwrap();
    server.shutdown().await.unwrap();
    let (got, end) = read_all(&mut client, 64).await;
    assert_eq!(got, b"response");
    end.unwrap();
    assert_eq!(client.write_all(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);

    // And with the server first.
    let (mut client, mut server) = streams().await;
    server.write_all(b"greeting").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client, 3).await.0, b"greeting");
    client.write_all(b"answer").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server, 3).await.0, b"answer");
}

#[tokio::test]
async fn a_cut_between_two_of_ours_is_no_end() {
    let (mut client, server) = streams().await;
    drop(server);
    let (got, end) = read_all(&mut client, 64).await;
    assert_eq!((got, end.unwrap_err().kind()), (Vec::new(), io::ErrorKind::UnexpectedEof));
}

/// A peer without our subprotocol: empty messages mean nothing, and the end is a Close.
#[tokio::test]
async fn a_peer_that_is_not_ours_is_closed_at_the_very_end() {
    for role in [Role::Client, Role::Server] {
        let (mut ours, mut raw) = against_raw(role, false).await;
        assert!(!ours.can_half_close());
        let bytes =
            [frame_to(role, 0x82, b""), frame_to(role, 0x82, b"data"), frame_to(role, 0x88, b"")].concat();
        raw.write_all(&bytes).await.unwrap();
        let (got, end) = read_all(&mut ours, 64).await;
        assert_eq!(got, b"data");
        end.unwrap();
        ours.write_all(b"last").await.unwrap();
        ours.shutdown().await.unwrap();
        assert_eq!(next_frame(&mut raw).await, (0x82, b"last".to_vec()));
        assert_eq!(next_frame(&mut raw).await, (0x88, vec![3, 232]));
        assert_eq!(raw.read(&mut [0]).await.unwrap(), 0);
        // The bare end of TCP between two messages is an end, too: rathole 0.5 often just closes.
        let (mut ours, mut raw) = against_raw(role, false).await;
        raw.write_all(&frame_to(role, 0x82, b"data")).await.unwrap();
        drop(raw);
        let (got, end) = read_all(&mut ours, 64).await;
        assert_eq!(got, b"data");
        end.unwrap();
    }
}

#[tokio::test]
async fn after_both_directions_comes_a_close() {
    let (mut ours, mut raw) = against_raw(Role::Server, true).await;
    raw.write_all(&frame_to(Role::Server, 0x82, b"")).await.unwrap();
    read_all(&mut ours, 64).await.1.unwrap();
    ours.shutdown().await.unwrap();
    assert_eq!(next_frame(&mut raw).await, (0x82, vec![]));
    assert_eq!(next_frame(&mut raw).await.0, 0x88);
}

/// Fragments, empty frames, Pings within messages, long headers: cut into two pieces anywhere, read with small and
/// large buffers, the payload is the same.
#[tokio::test]
async fn any_fragmentation_in_any_pieces() {
    let long = vec![b'x'; 300];
    for role in [Role::Client, Role::Server] {
        let bytes = [
            frame_to(role, 0x02, b""),
            frame_to(role, 0x00, b"one "),
            frame_to(role, 0x89, b"ping"),
            frame_to(role, 0x00, b""),
            frame_to(role, 0x80, b"two "),
            frame_to(role, 0x8a, b"pong"),
            frame_to(role, 0x82, &long),
            frame_to(role, 0x82, b" three"),
            frame_to(role, 0x02, b""),
            frame_to(role, 0x80, b""),
        ]
        .concat();
        let expect = [b"one two ", &long[..], b" three"].concat();
        for cut in 0..bytes.len() {
            for half_close in [true, false] {
                let mut decoder = Decoder::new(role == Role::Server, half_close);
                let mut got = Vec::new();
                for part in [&bytes[..cut], &bytes[cut..]] {
                    let mut part = part.to_vec();
                    let (n, violation) = decoder.decode(&mut part);
                    assert_eq!(violation, None);
                    got.extend_from_slice(&part[..n]);
                }
                assert_eq!(got, expect, "cut at {cut}");
                assert_eq!(decoder.end().is_some(), half_close);
                assert!(decoder.is_between());
                assert_eq!(decoder.take_pong(), Some(b"ping".to_vec()));
            }
        }
        for room in [1, 5, 100_000] {
            let (mut ours, mut raw) = against_raw(role, true).await;
            raw.write_all(&bytes).await.unwrap();
            let (got, end) = read_all(&mut ours, room).await;
            assert_eq!(got, expect);
            end.unwrap();
            assert_eq!(next_frame(&mut raw).await, (0x8a, b"ping".to_vec()));
            assert_eq!(ours.capacity(), 0);
        }
    }
}

#[tokio::test]
async fn every_truncation_is_noticed() {
    let bytes = [frame_to(Role::Server, 0x02, b"one"), frame_to(Role::Server, 0x80, b"two")].concat();
    for half_close in [true, false] {
        for cut in 0..=bytes.len() {
            let (mut ours, mut raw) = against_raw(Role::Server, half_close).await;
            raw.write_all(&bytes[..cut]).await.unwrap();
            drop(raw);
            let end = read_all(&mut ours, 64).await.1.map_err(|error| error.kind());
            let whole = !half_close && (cut == 0 || cut == bytes.len());
            assert_eq!(end, if whole { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof) }, "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn what_breaks_the_rules_is_refused() {
    let other = |role| if role == Role::Server { Role::Client } else { Role::Server };
    for role in [Role::Client, Role::Server] {
        let mask = if role == Role::Server { 0x80 } else { 0 };
        let wrong: Vec<(Vec<u8>, &str)> = vec![
            (frame_to(other(role), 0x82, b"x"), "mask"),
            (frame_to(role, 0x81, b"x"), "text"),
            (frame_to(role, 0x83, b"x"), "reserved"),
            (frame_to(role, 0x8b, b"x"), "reserved"),
            (frame_to(role, 0xc2, b"x"), "reserved"),
            (frame_to(role, 0x80, b"x"), "fragments"),
            (frame_to(role, 0x09, b"x"), "fragments"),
            ([frame_to(role, 0x02, b"x"), frame_to(role, 0x82, b"x")].concat(), "fragments"),
            (frame_to(role, 0x89, &[0; 126]), "125"),
            (frame_to(role, 0x88, &[0; 126]), "125"),
            ([&[0x82, mask | 127][..], &((16u64 << 20) + 1).to_be_bytes(), &[0; 4]].concat(), "16 MiB"),
            ([&[0x82, mask | 127][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat(), "16 MiB"),
        ];
        for (bytes, why) in wrong {
            for room in [1, 64] {
                let (mut ours, mut raw) = against_raw(role, false).await;
                raw.write_all(&[frame_to(role, 0x82, b"good"), bytes.clone()].concat()).await.unwrap();
                let (got, end) = read_all(&mut ours, room).await;
                let error = end.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                assert!(error.to_string().contains(why), "{error} for {bytes:02x?}");
                assert_eq!(&got[..4], b"good");
                assert!(ours.read(&mut [0; 9]).await.is_err(), "it stays broken");
            }
        }
    }
    let mut decoder = Decoder::new(false, true);
    let mut bytes = [frame_to(Role::Client, 0x82, b""), frame_to(Role::Client, 0x82, b"x")].concat();
    assert_eq!(decoder.decode(&mut bytes), (0, Some(frame::Violation::AfterEnd)));
}

/// A frame at the limit arrives in pieces and is never held.
#[tokio::test]
async fn a_frame_of_16_mib_is_streamed() {
    let payload = vec![7; 16 << 20];
    let bytes = frame_to(Role::Server, 0x82, &payload);
    let (mut ours, mut raw) = against_raw(Role::Server, false).await;
    let write = async {
        raw.write_all(&bytes).await.unwrap();
        drop(raw);
    };
    let read = async {
        let (mut n, mut buf) = (0, vec![0; 10_000]);
        loop {
            match ours.read(&mut buf).await.unwrap() {
                0 => return n,
                got => n += got,
            }
            assert_eq!(ours.capacity(), 0);
        }
    };
    assert_eq!(tokio::join!(write, read).1, payload.len());
}

/// Many Pings, nothing read from us meanwhile: the answers do not pile up, and bytes still pass.
#[tokio::test]
async fn a_flood_of_pings_is_answered_within_bounds() {
    let (mut ours, mut raw) = against_raw(Role::Server, false).await;
    let pings = frame_to(Role::Server, 0x89, &[1; 125]).repeat(8 * 1024);
    let write = async {
        for _ in 0..8 {
            raw.write_all(&pings).await.unwrap();
        }
        raw.write_all(&frame_to(Role::Server, 0x82, b"data")).await.unwrap();
    };
    let read = async {
        let mut buf = [0; 1000];
        assert_eq!(ours.read(&mut buf).await.unwrap(), 4);
        assert_eq!(&buf[..4], b"data");
        assert!(ours.capacity() <= 8 * 1024, "{}", ours.capacity());
    };
    tokio::join!(write, read);
    // The frames that were sent are whole ones.
    let drain = async {
        let (first, payload) = next_frame(&mut raw).await;
        assert_eq!((first, payload.len()), (0x8a, 125));
        while next_frame(&mut raw).await.0 == 0x8a {}
    };
    let end = async {
        ours.write_all(b"end").await.unwrap();
        ours.flush().await.unwrap();
    };
    tokio::join!(drain, end);
}

/// An answer never cuts into a frame that is half sent.
/// Nobody writes, the socket is full: the reader itself has to come back to its answer.
#[tokio::test]
async fn a_pong_that_found_no_room_is_sent_when_there_is_some() {
    let (mut ours, mut raw) = against_raw(Role::Server, false).await;
    let mut filled = 0;
    while let Ok(n) = ours.tcp().try_write(&[0; 65_536]) {
        filled += n;
    }
    raw.write_all(&frame_to(Role::Server, 0x89, b"now")).await.unwrap();
    ours.tcp().readable().await.unwrap();
    assert!(would_wait(&mut ours).await);
    assert!(ours.capacity() > 0, "the answer has found room");
    let peer = async {
        raw.read_exact(&mut vec![0; filled]).await.unwrap();
        assert_eq!(next_frame(&mut raw).await, (0x8a, b"now".to_vec()));
        raw.write_all(&frame_to(Role::Server, 0x82, b"data")).await.unwrap();
    };
    let mut buf = [0; 64];
    let both = async { tokio::join!(peer, ours.read(&mut buf)).1 };
    let n = tokio::time::timeout(std::time::Duration::from_secs(10), both).await.unwrap().unwrap();
    assert_eq!(&buf[..n], b"data");
}

#[tokio::test]
async fn a_ping_amid_a_slow_write_is_answered_behind_it() {
    for role in [Role::Server, Role::Client] {
        let (mut ours, mut raw) = against_raw(role, false).await;
        let chunk = vec![5; 300_000];
        let mut written = 0;
        while let Poll::Ready(n) = poll_fn(|cx| Poll::Ready(Pin::new(&mut ours).poll_write(cx, &chunk))).await
        {
            written += n.unwrap();
        }
        raw.write_all(&frame_to(role, 0x89, b"now")).await.unwrap();
        ours.tcp().readable().await.unwrap();
        assert!(would_wait(&mut ours).await);
        let read = async {
            let (mut n, mut pongs) = (0, 0);
            while n < written || pongs == 0 {
                match next_frame(&mut raw).await {
                    (0x82, payload) => n += payload.len(),
                    (0x8a, payload) => {
                        assert_eq!(payload, b"now");
                        pongs += 1;
                    }
                    other => panic!("{other:02x?}"),
                }
            }
            (n, pongs)
        };
        let flush = async { ours.flush().await.unwrap() };
        let ((n, pongs), ()) = tokio::join!(read, flush);
        assert_eq!((n, pongs), (written, 1));
        assert_eq!(ours.capacity(), 0);
    }
}

/// Reads and writes of all sizes at once in both directions; what arrives is compared by its hash.
#[tokio::test]
async fn big_transfers_arrive_whole() {
    const TOTAL: usize = 3 << 20;
    for largest in [100, 9_000, 70_000, 300_000] {
        let (client, server) = streams().await;
        let ((read1, write1), (read2, write2)) = (split(client), split(server));
        let total = if largest == 100 { TOTAL / 16 } else { TOTAL };
        let sent = async |mut to: tokio::io::WriteHalf<Stream>, seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut hash = Sha256::new();
            let mut left = total;
            while left > 0 {
                let mut chunk = vec![0; random.usize(1..=largest).min(left)];
                random.fill(&mut chunk);
                to.write_all(&chunk).await.unwrap();
                hash.update(&chunk);
                left -= chunk.len();
            }
            to.shutdown().await.unwrap();
            hash.finalize()
        };
        let received = async |mut from: tokio::io::ReadHalf<Stream>, seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut buf = vec![0; largest];
            let mut hash = Sha256::new();
            loop {
                let size = random.usize(1..=largest);
                match from.read(&mut buf[..size]).await.unwrap() {
                    0 => return hash.finalize(),
                    n => hash.update(&buf[..n]),
                }
            }
        };
        let (up, down, at2, at1) =
            tokio::join!(sent(write1, 1), sent(write2, 2), received(read2, 3), received(read1, 4));
        assert_eq!(up, at2, "chunks up to {largest}");
        assert_eq!(down, at1, "chunks up to {largest}");
    }
}

#[tokio::test]
async fn an_idle_stream_holds_no_buffer() {
    let (mut client, mut server) = streams().await;
    client.write_all(&[1; 37]).await.unwrap();
    server.read_exact(&mut [0; 4]).await.unwrap();
    assert_eq!((client.capacity(), server.capacity()), (0, 0));
    server.read_exact(&mut [0; 33]).await.unwrap();
    assert!(would_wait(&mut server).await);
    assert_eq!((client.capacity(), server.capacity()), (0, 0));
}

/// Frames that come together with the request or the answer are not lost.
#[tokio::test]
async fn bytes_behind_the_upgrade_belong_to_the_frames() {
    let (mut raw, two) = sockets().await;
    let request = upgrade::request("x", [0; 16]);
    raw.write_all(&[request.as_bytes(), &frame_to(Role::Server, 0x82, b"early")].concat()).await.unwrap();
    let mut server = Acceptor::new(None).unwrap().accept(two).await.unwrap();
    let mut five = [0; 5];
    server.read_exact(&mut five).await.unwrap();
    assert_eq!(&five, b"early");
    assert_eq!(server.capacity(), 0);

    let (one, mut raw) = sockets().await;
    let answer = async {
        let (request, len) = upgrade::read_head(&mut raw, b"GET ", 4096).await.unwrap().unwrap();
        let accepted = upgrade::check_request(&request[..len]).unwrap();
        let early = frame_to(Role::Client, 0x82, b"early");
        raw.write_all(&[upgrade::response(&accepted).as_bytes(), &early].concat()).await.unwrap();
    };
    let connector = connector();
    let (client, ()) = tokio::join!(connector.connect(one), answer);
    client.unwrap().read_exact(&mut five).await.unwrap();
    assert_eq!(&five, b"early");
}

#[tokio::test]
async fn a_client_that_is_no_websocket_gets_an_answer_and_an_end() {
    for (request, answer) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 426 "),
        ("POST / HTTP/1.1\r\n", "HTTP/1.1 400 "),
        ("\u{16}\u{3}\u{1}", "HTTP/1.1 400 "),
    ] {
        let (mut raw, two) = sockets().await;
        raw.write_all(request.as_bytes()).await.unwrap();
        let error = Acceptor::new(None).unwrap().accept(two).await.unwrap_err();
        assert!(error.to_string().contains("does not speak WebSocket"), "{error}");
        let mut got = String::new();
        raw.read_to_string(&mut got).await.unwrap();
        assert!(got.starts_with(answer), "{got}");
    }
    let (raw, two) = sockets().await;
    drop(raw);
    let error = Acceptor::new(None).unwrap().accept(two).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(error.to_string().contains("closed the connection"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_no_websocket_is_one_clear_error() {
    let html = "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n<html>secret</html>";
    for (answer, why) in
        [(html, "502 Bad Gateway"), ("SSH-2.0-x\r\n", "no HTTP"), ("", "closed the connection")]
    {
        let (one, mut raw) = sockets().await;
        let server = async {
            upgrade::read_head(&mut raw, b"GET ", 4096).await.unwrap().unwrap();
            raw.write_all(answer.as_bytes()).await.unwrap();
            drop(raw);
        };
        let connector = connector();
        let (client, ()) = tokio::join!(connector.connect(one), server);
        let error = client.unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains('\n') && !error.contains("secret"), "{error}");
    }
}
