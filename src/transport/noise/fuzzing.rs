//! Fuzz targets: the handshake's messages, and the records after it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::io;

use tokio::io::AsyncReadExt;

use super::session::{Cipher, Session};
use super::{Acceptor, Connector, Role, Stream};
use crate::config::{Noise, Secret};
use crate::fuzzing::{Input, block_on, fed, pair, pieces, read_all};
use crate::transport::noise::public_key;

/// The keys of the golden vectors, so that recorded handshakes lead on.
const SERVER: [u8; 32] = [0x11; 32];
const CLIENT: [u8; 32] = [0x22; 32];
const EPHEMERAL: [[u8; 32]; 2] = [[0x33; 32], [0x44; 32]];

const PATTERNS: [&str; 8] = [
    "Noise_NK_25519_ChaChaPoly_BLAKE2s",
    "Noise_KK_25519_ChaChaPoly_BLAKE2s",
    "Noise_XX_25519_ChaChaPoly_BLAKE2s",
    "Noise_IK_25519_AESGCM_SHA256",
    "Noise_NN_25519_AESGCM_SHA512",
    "Noise_XK_25519_ChaChaPoly_BLAKE2b",
    "Noise_X1X1_25519_ChaChaPoly_BLAKE2s",
    "Noise_NX_25519_ChaChaPoly_BLAKE2s",
];

/// Whatever a peer says, as client or server, in whatever pieces: the handshake ends, and either nothing is given out
/// or the peer has the keys.
pub(crate) fn handshake(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let how = input.byte();
    let cuts = input.cuts();
    let said = input.rest();
    let role = if how & 1 == 0 { Role::Initiator } else { Role::Responder };
    let pattern = PATTERNS[usize::from(how >> 1) % PATTERNS.len()];
    let whole = read_after_handshake(role, pattern, &[said]);
    let cut = read_after_handshake(role, pattern, &pieces(said, &cuts));
    match (&whole, &cut) {
        (Ok(bytes), Ok(same)) => assert_eq!(bytes, same),
        (Err(fault), Err(same)) => assert_eq!(fault.to_string(), same.to_string()),
        other => panic!("whole and cut: {other:?}"),
    }
    if let Err(fault) = whole {
        assert!(!fault.to_string().contains(char::is_control), "{fault}");
    }
}

/// What the peer has said in records, up to the first fault in one.
fn read_after_handshake(role: Role, pattern: &str, said: &[&[u8]]) -> io::Result<Vec<u8>> {
    block_on(async {
        let (tcp, mut peer) = pair();
        let (own, other) = if role.is_initiator() { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
        let settings = Noise {
            pattern: pattern.to_owned(),
            local_private_key: Some(Secret::new(own.to_vec())),
            remote_public_key: public_key(&other),
        };
        let shaken = async {
            match role {
                Role::Initiator => {
                    let connector = Connector::new(&settings).unwrap().with_fixed_ephemeral(EPHEMERAL[0]);
                    connector.connect(tcp).await
                }
                Role::Responder => {
                    let acceptor = Acceptor::new(&settings).unwrap().with_fixed_ephemeral(EPHEMERAL[1]);
                    acceptor.accept(tcp).await
                }
            }
        };
        let read = async {
            let mut got = Vec::new();
            let _ = shaken.await?.read_to_end(&mut got).await;
            Ok(got)
        };
        fed(read, &mut peer, said).await
    })
}

/// Sealed payloads, between them whatever a man in the middle does: what is read is what was sealed, up to the first
/// byte that was meddled with, and then a fault and nothing more. Cuts and buffers make no difference.
pub(crate) fn records(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let how = input.byte();
    let cipher = if how & 1 == 0 { Cipher::ChaChaPoly } else { Cipher::AesGcm };
    let room = 1 + input.word() * 3;
    let cuts = input.cuts();
    let sealed = Sealed::by(cipher, input);
    let cut = pieces(&sealed.wire, &cuts);
    for buffer in [room, 3, 256 * 1024] {
        // A tiny buffer for much would take long.
        if buffer < 100 && sealed.wire.len() > 20_000 {
            continue;
        }
        // A stranger may not send long records.
        let (got, _) = read_records(cipher, false, &cut, buffer);
        assert!(sealed.good.starts_with(&got), "bytes that nobody sealed");
        let (got, fault) = read_records(cipher, true, &cut, buffer);
        assert_eq!(got.len(), sealed.good.len());
        assert!(got == sealed.good, "other bytes than were sealed");
        assert_eq!(fault.is_some(), sealed.meddled, "{fault:?}");
        if let Some(fault) = fault {
            assert!(!fault.to_string().contains(char::is_control), "{fault}");
        }
    }
}

struct Sealed {
    wire: Vec<u8>,
    /// What must be read.
    good: Vec<u8>,
    /// A fault must follow.
    meddled: bool,
}

impl Sealed {
    fn by(cipher: Cipher, mut input: Input<'_>) -> Self {
        let mut session = Session::new(cipher, [1; 32], [2; 32]);
        let mut sealed = Sealed { wire: Vec::new(), good: Vec::new(), meddled: false };
        while !input.is_empty() && sealed.wire.len() < 150_000 {
            match input.byte() {
                // A payload of this many bytes, into this much room.
                what @ 0..128 => {
                    let payload = vec![what; input.word()];
                    let mut out = vec![0; input.word() * 2];
                    let (taken, used) = session.seal(&payload, &mut out).unwrap();
                    assert!(taken <= payload.len() && (taken == payload.len() || out.len() - used <= 18));
                    sealed.add(&out[..used], &payload[..taken]);
                }
                // A small payload.
                what @ 128..160 => {
                    let payload = vec![what; usize::from(input.byte())];
                    let mut out = vec![0; payload.len() + 18];
                    let (taken, used) = session.seal(&payload, &mut out).unwrap();
                    assert_eq!(taken, payload.len());
                    sealed.add(&out[..used], &payload);
                }
                160..192 => sealed.meddle(input.some()),
                // A bit of the last bytes is turned over.
                192..224 => {
                    let back = input.word();
                    if let Some(at) = sealed.wire.len().checked_sub(back + 1).filter(|_| !sealed.meddled) {
                        // Everything from the record on that it is in is lost; which one that is says a second reading.
                        sealed.wire[at] ^= 1 << (back % 8);
                        let mut wire = sealed.wire.clone();
                        let opened = Session::new(cipher, [2; 32], [1; 32]).open(&mut wire);
                        assert!(opened.plain <= sealed.good.len());
                        sealed.good.truncate(opened.plain);
                        sealed.meddled = true;
                    }
                }
                // The last bytes come again.
                224..=255 => {
                    let back = input.word().min(sealed.wire.len());
                    let again = sealed.wire[sealed.wire.len() - back..].to_vec();
                    sealed.meddle(&again);
                }
            }
        }
        sealed
    }

    fn add(&mut self, wire: &[u8], payload: &[u8]) {
        self.wire.extend_from_slice(wire);
        if !self.meddled {
            self.good.extend_from_slice(payload);
        }
    }

    fn meddle(&mut self, wire: &[u8]) {
        self.wire.extend_from_slice(wire);
        self.meddled |= !wire.is_empty();
    }
}

/// All that is read with a buffer of this size, and the fault in the end. After the fault nothing more comes.
fn read_records(
    cipher: Cipher,
    trusted: bool,
    said: &[&[u8]],
    buffer: usize,
) -> (Vec<u8>, Option<io::Error>) {
    block_on(async {
        let (tcp, mut peer) = pair();
        let stream = Stream::resume(tcp, Session::new(cipher, [2; 32], [1; 32]));
        let mut stream = if trusted { stream } else { stream.distrust() };
        fed(read_all(&mut stream, buffer), &mut peer, said).await
    })
}
