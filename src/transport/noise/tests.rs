//! Ours against ours, over real sockets.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, split};
use tokio::net::TcpListener;

use super::session::{Cipher, Session};
use super::*;
use crate::config::Secret;
use crate::transport::STRANGER;

const PATTERNS: [&str; 35] = [
    "NN", "NK", "NX", "XN", "XK", "XX", "KN", "KK", "KX", "IN", "IK", "IX", "NK1", "NX1", "X1N", "X1K",
    "XK1", "X1K1", "X1X", "XX1", "X1X1", "K1N", "K1K", "KK1", "K1K1", "K1X", "KX1", "K1X1", "I1N", "I1K",
    "IK1", "I1K1", "I1X", "IX1", "I1X1",
];

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let two = listener.accept().await.unwrap().0;
    one.set_nodelay(true).unwrap();
    two.set_nodelay(true).unwrap();
    (one, two)
}

/// Two ends with the keys of a handshake that nobody made.
async fn streams() -> (Stream, Stream) {
    let (one, two) = sockets().await;
    (resume(one, 1, 2), resume(two, 2, 1))
}

fn resume(tcp: TcpStream, send: u8, receive: u8) -> Stream {
    Stream::resume(tcp, Session::new(Cipher::ChaChaPoly, [send; 32], [receive; 32]))
}

/// Records as the other end of `resume(_, 2, 1)` sends them.
fn records(payloads: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut session = Session::new(Cipher::ChaChaPoly, [1; 32], [2; 32]);
    let seal = |payload: &&[u8]| {
        let mut out = vec![0; session::sealed_len(payload.len())];
        let (taken, used) = session.seal(payload, &mut out).unwrap();
        assert_eq!((taken, used), (payload.len(), out.len()));
        out
    };
    payloads.iter().map(seal).collect()
}

/// Whether a read would have to wait now.
async fn would_wait(stream: &mut Stream, buf: &mut [u8]) -> bool {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(buf)).is_pending())).await
}

fn settings(pattern: &str, private: Option<&Keypair>, pin: Option<[u8; 32]>) -> config::Noise {
    config::Noise {
        pattern: pattern.to_owned(),
        local_private_key: private.map(|pair| pair.private.clone()),
        remote_public_key: pin,
    }
}

fn name(pattern: &str) -> String {
    format!("Noise_{pattern}_25519_ChaChaPoly_BLAKE2s")
}

async fn handshake(client: config::Noise, server: config::Noise) -> (io::Result<Stream>, io::Result<Stream>) {
    let (one, two) = sockets().await;
    let (connector, acceptor) = (Connector::new(&client).unwrap(), Acceptor::new(&server).unwrap());
    tokio::join!(connector.connect(one), acceptor.accept(two))
}

#[tokio::test]
async fn every_pattern_cipher_and_hash_carries_bytes() {
    let (ours, theirs) = (Keypair::generate().unwrap(), Keypair::generate().unwrap());
    let mut count = 0;
    for pattern in PATTERNS {
        for cipher in ["ChaChaPoly", "AESGCM"] {
            for hash in ["BLAKE2s", "BLAKE2b", "SHA256", "SHA512"] {
                let name = format!("Noise_{pattern}_25519_{cipher}_{hash}");
                let client = settings(&name, Some(&ours), Some(theirs.public));
                let server = settings(&name, Some(&theirs), Some(ours.public));
                let (client, server) = handshake(client, server).await;
                let (mut client, mut server) = (client.unwrap(), server.unwrap());
                let mut four = [0; 4];
                client.write_all(b"ping").await.unwrap();
                server.read_exact(&mut four).await.unwrap();
                assert_eq!(&four, b"ping", "{name}");
                server.write_all(b"pong").await.unwrap();
                client.read_exact(&mut four).await.unwrap();
                assert_eq!(&four, b"pong", "{name}");
                count += 1;
            }
        }
    }
    assert_eq!(count, 35 * 2 * 4);
}

/// A byte that `from` writes must not come out of `to`.
async fn assert_refused(from: io::Result<Stream>, to: io::Result<Stream>, what: &str) {
    let Ok(mut to) = to else { return };
    if let Ok(mut from) = from {
        let _ = from.write_all(b"secret").await;
    }
    let mut byte = [0];
    let got = to.read(&mut byte).await;
    assert!(!matches!(got, Ok(1)), "{what}: a byte came through");
}

#[tokio::test]
async fn wrong_pins_are_refused_in_both_roles() {
    let [ours, theirs, other] = [(); 3].map(|()| Keypair::generate().unwrap());
    let (mut clients, mut servers) = (0, 0);
    for pattern in PATTERNS {
        let has_key =
            |initiator| parse(&name(pattern)).unwrap().handshake.pattern.needs_local_static_key(initiator);
        if has_key(false) {
            let client = settings(&name(pattern), Some(&ours), Some(other.public));
            let server = settings(&name(pattern), Some(&theirs), Some(ours.public));
            let (client, server) = handshake(client, server).await;
            assert!(client.is_err(), "{pattern}: the client takes a false server");
            assert_refused(client, server, pattern).await;
            clients += 1;
        }
        if has_key(true) {
            let client = settings(&name(pattern), Some(&ours), Some(theirs.public));
            let server = settings(&name(pattern), Some(&theirs), Some(other.public));
            let (client, server) = handshake(client, server).await;
            assert_refused(client, server, pattern).await;
            servers += 1;
        }
    }
    assert_eq!((clients, servers), (28, 30));
}

#[tokio::test]
async fn a_transmitted_wrong_key_is_named() {
    let [ours, theirs, other] = [(); 3].map(|()| Keypair::generate().unwrap());
    for pattern in ["XX", "NX", "IX", "KX"] {
        let client = settings(&name(pattern), Some(&ours), Some(other.public));
        let server = settings(&name(pattern), Some(&theirs), Some(ours.public));
        let error = handshake(client, server).await.0.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{pattern}: {error}");
    }
    for pattern in ["XX", "XK", "IK", "XN"] {
        let client = settings(&name(pattern), Some(&ours), Some(theirs.public));
        let server = settings(&name(pattern), Some(&theirs), Some(other.public));
        let error = handshake(client, server).await.1.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{pattern}: {error}");
    }
}

#[test]
fn settings_that_cannot_work_name_their_key() {
    let key = Keypair::generate().unwrap();
    let long = Keypair { private: Secret::new(vec![1; 33]), public: [0; 32] };
    let short = Keypair { private: Secret::new(vec![1; 31]), public: [0; 32] };
    let nk = name("NK");
    for pattern in [
        "",
        "Noise",
        "nonsense",
        "Noise_N_25519_ChaChaPoly_BLAKE2s",
        "Noise_K_25519_ChaChaPoly_BLAKE2s",
        "Noise_X_25519_ChaChaPoly_BLAKE2s",
        "Noise_NKpsk0_25519_ChaChaPoly_BLAKE2s",
        "Noise_XXfallback_25519_ChaChaPoly_BLAKE2s",
        "Noise_NK_448_ChaChaPoly_BLAKE2s",
        "Noise_NK_25519_XChaChaPoly_BLAKE2s",
        "Noise_NK_25519_ChaChaPoly_MD5",
        "Noise_NK_25519_ChaChaPoly_BLAKE2s_x",
    ] {
        let error = Acceptor::new(&settings(pattern, Some(&key), None)).unwrap_err();
        assert_eq!(error.key, "noise.pattern", "{pattern}: {error}");
        assert!(error.message.contains(config::DEFAULT_NOISE_PATTERN), "{error}");
    }
    for wrong in [&long, &short] {
        let error = Acceptor::new(&settings(&nk, Some(wrong), None)).unwrap_err();
        assert_eq!(error.key, "noise.local_private_key", "{error}");
    }
    let pins =
        [(Role::Initiator, "NK"), (Role::Initiator, "KK"), (Role::Responder, "KN"), (Role::Responder, "KK")];
    for (role, pattern) in pins {
        let error = Party::new(&settings(&name(pattern), Some(&key), None), role).unwrap_err();
        assert_eq!(error.key, "noise.remote_public_key", "{pattern}: {error}");
        let error = Party::new(&settings(&name(pattern), Some(&key), Some([0; 32])), role).unwrap_err();
        assert_eq!(error.key, "noise.remote_public_key", "{pattern}: {error}");
    }
}

#[test]
fn what_is_legal_but_weak_is_warned_of() {
    let key = Keypair::generate().unwrap();
    let warned =
        |pattern, private, pin, role| warnings(&settings(&name(pattern), private, pin), role).join("\n");
    assert_eq!(warned("NK", None, Some(key.public), Role::Initiator), "");
    assert_eq!(warned("NK", Some(&key), None, Role::Responder), "");
    assert!(warned("NK", None, None, Role::Responder).contains("noise.local_private_key"));
    assert!(warned("NK", Some(&key), Some(key.public), Role::Responder).contains("not checked"));
    assert!(warned("XX", Some(&key), None, Role::Initiator).contains("any server"));
}

#[tokio::test]
async fn without_a_private_key_each_start_makes_one() {
    let theirs = Keypair::generate().unwrap();
    let client = settings(&name("XK"), None, Some(theirs.public));
    let server = settings(&name("XK"), Some(&theirs), None);
    let (client, server) = handshake(client, server).await;
    assert!(client.is_ok() && server.is_ok());
    let unnamed = settings(&name("NK"), None, None);
    let keys = [(); 2].map(|()| Acceptor::new(&unnamed).unwrap().public_key());
    assert_ne!(keys[0], keys[1]);
}

#[tokio::test]
async fn one_direction_ends_and_the_other_goes_on() {
    let (mut one, mut two) = streams().await;
    one.write_all(b"request").await.unwrap();
    one.shutdown().await.unwrap();
    let mut got = Vec::new();
    two.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"request");
    two.write_all(b"response").await.unwrap();
    two.shutdown().await.unwrap();
    got.clear();
    one.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"response");
}

/// Reads and writes of all sizes at once in both directions; what arrives is compared by its hash.
#[tokio::test]
async fn big_transfers_arrive_whole() {
    const TOTAL: usize = 3 << 20;
    for largest in [100, 9_000, 70_000, 300_000] {
        let (one, two) = streams().await;
        let ((read1, write1), (read2, write2)) = (split(one), split(two));
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

/// A peer that does not read: the writer is told to wait, nothing is lost, and no buffer stays.
#[tokio::test]
async fn a_slow_reader_makes_the_writer_wait() {
    let (mut one, mut two) = streams().await;
    let chunk = vec![5; 100_000];
    let mut written = 0;
    // Ends by itself: the sockets' buffers are finite.
    while let Poll::Ready(n) = poll_fn(|cx| Poll::Ready(Pin::new(&mut one).poll_write(cx, &chunk))).await {
        written += n.unwrap();
    }
    assert!(one.capacity() > 0);
    let reader = tokio::spawn(async move {
        let mut got = Vec::new();
        two.read_to_end(&mut got).await.unwrap();
        (got, two)
    });
    one.flush().await.unwrap();
    assert_eq!(one.capacity(), 0);
    one.shutdown().await.unwrap();
    let (got, two) = reader.await.unwrap();
    assert_eq!(got.len(), written);
    assert!(got.iter().all(|byte| *byte == 5));
    assert_eq!(two.capacity(), 0);
}

#[tokio::test]
async fn an_idle_stream_holds_no_buffer() {
    let (mut one, mut two) = streams().await;
    one.write_all(&[1; 41]).await.unwrap();
    let mut four = [0; 4];
    two.read_exact(&mut four).await.unwrap();
    assert!(two.capacity() > 0, "the rest of the record is here");
    two.read_exact(&mut [0; 37]).await.unwrap();
    assert_eq!((one.capacity(), two.capacity()), (0, 0));
    assert!(would_wait(&mut two, &mut four).await);
    assert_eq!(two.capacity(), 0);
}

#[tokio::test]
async fn every_truncation_is_noticed() {
    let records = records(&[b"first", b"second record"]);
    let bytes = records.concat();
    for room in [3, 100_000] {
        for cut in 0..=bytes.len() {
            let (mut raw, two) = sockets().await;
            let mut two = resume(two, 2, 1);
            raw.write_all(&bytes[..cut]).await.unwrap();
            drop(raw);
            let mut got = Vec::new();
            let mut buf = vec![0; room];
            let end = loop {
                match two.read(&mut buf).await {
                    Ok(0) => break Ok(()),
                    Ok(n) => got.extend_from_slice(&buf[..n]),
                    Err(error) => break Err(error.kind()),
                }
            };
            let boundary = cut == 0 || cut == records[0].len() || cut == bytes.len();
            let expect = if boundary { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof) };
            assert_eq!(end, expect, "cut at {cut}");
            let whole = if cut < records[0].len() {
                0
            } else if cut < bytes.len() {
                5
            } else {
                18
            };
            assert_eq!(got, b"firstsecond record"[..whole], "cut at {cut}");
        }
    }
}

/// The same bytes in two pieces, cut anywhere.
#[tokio::test]
async fn records_may_arrive_in_pieces() {
    let bytes = records(&[b"first", b"second record"]).concat();
    for room in [2, 100_000] {
        for cut in 1..bytes.len() {
            let (mut raw, two) = sockets().await;
            let mut two = resume(two, 2, 1);
            raw.write_all(&bytes[..cut]).await.unwrap();
            let mut buf = vec![0; room];
            let mut got = Vec::new();
            // What can be read of the first piece is read before the second is sent.
            let first = if cut < 23 { 0 } else { 5 };
            two.tcp().readable().await.unwrap();
            while got.len() < first {
                let n = two.read(&mut buf).await.unwrap();
                got.extend_from_slice(&buf[..n]);
            }
            assert!(would_wait(&mut two, &mut buf).await, "cut at {cut}");
            raw.write_all(&bytes[cut..]).await.unwrap();
            drop(raw);
            two.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"firstsecond record", "cut at {cut}");
            assert_eq!(two.capacity(), 0);
        }
    }
}

/// A stranger who begins the longest record must not make us keep more than he sends.
#[tokio::test]
async fn a_part_of_a_record_takes_about_as_much_memory_as_was_sent() {
    for room in [40, 100_000] {
        for sent in [2, 100, 5_000, 20_000, 65_000] {
            let (mut raw, two) = sockets().await;
            let mut two = resume(two, 2, 1);
            let mut part = vec![0; sent];
            part[..2].fill(0xff);
            raw.write_all(&part).await.unwrap();
            let mut buf = vec![0; room];
            while two.waiting() < sent {
                two.tcp().readable().await.unwrap();
                assert!(would_wait(&mut two, &mut buf).await);
            }
            assert!(two.capacity() <= (2 * sent).max(4096), "{} for {sent}", two.capacity());
        }
    }
}

/// Until the peer is authenticated a record is bounded, and so is what is held of it.
#[tokio::test]
async fn a_stranger_s_record_is_bounded() {
    for (payload, good) in [(STRANGER - 18, true), (STRANGER - 17, false)] {
        for trusted in [true, false] {
            let (mut raw, two) = sockets().await;
            let mut two = resume(two, 2, 1).distrust();
            if trusted {
                two.trust();
            }
            raw.write_all(&records(&[&vec![7; payload]])[0]).await.unwrap();
            let read = two.read_exact(&mut vec![0; payload]).await;
            assert_eq!(read.is_ok(), good || trusted, "{payload} {trusted}");
            drop(raw);
            assert_eq!(two.read(&mut [0]).await.is_err(), !good && !trusted);
        }
    }
    for seed in 0..50 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut raw, two) = sockets().await;
        let mut two = resume(two, 2, 1).distrust();
        let payloads: Vec<_> = (0..20).map(|_| vec![7; random.usize(1..STRANGER - 18)]).collect();
        let whole: Vec<_> = payloads.iter().map(Vec::as_slice).collect();
        let bytes = records(&whole).concat();
        // A part of it, and a reader who takes a hello, if it is there.
        raw.write_all(&bytes[..random.usize(1..bytes.len())]).await.unwrap();
        two.tcp().readable().await.unwrap();
        for _ in 0..5 {
            let _ = would_wait(&mut two, &mut [0; 37]).await;
        }
        assert!(two.capacity() <= 3 * STRANGER, "{}", two.capacity());
    }
}

#[tokio::test]
async fn a_changed_byte_anywhere_gives_no_plaintext() {
    let good = records(&[b"first"]).concat();
    for at in 2..good.len() {
        for room in [16, 100_000] {
            let (mut raw, two) = sockets().await;
            let mut two = resume(two, 2, 1);
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            raw.write_all(&bytes).await.unwrap();
            let mut buf = vec![0; room];
            for _ in 0..2 {
                let error = two.read(&mut buf).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "byte {at}: {error}");
            }
            assert!(!buf.windows(5).any(|window| window == b"first"));
        }
    }
}

#[tokio::test]
async fn an_empty_record_is_nothing_and_an_empty_frame_an_error() {
    use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[1; 32]).unwrap());
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut []).unwrap();
    let empty = [&[16, 0][..], tag.as_ref()].concat();
    for room in [16, 100_000] {
        let (mut raw, two) = sockets().await;
        let mut two = resume(two, 2, 1);
        raw.write_all(&empty).await.unwrap();
        // The second record: its nonce follows the empty one's.
        raw.write_all(&records(&[b"unused", b"data"])[1]).await.unwrap();
        raw.write_all(&[0, 0]).await.unwrap();
        let mut buf = vec![0; room];
        assert_eq!(two.read(&mut buf).await.unwrap(), 4);
        assert_eq!(&buf[..4], b"data");
        let error = two.read(&mut buf).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }
}

#[tokio::test]
async fn a_peer_that_is_not_noise_is_told_apart() {
    let server = Acceptor::new(&settings(&name("NK"), Some(&Keypair::generate().unwrap()), None)).unwrap();
    let tls = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0; 100]].concat();
    let wrong = [&[48, 0][..], &[9; 48]].concat();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &tls, &wrong, b"SSH-2.0-x\r\n", &[0; 50], &[255; 50]] {
        let (mut raw, two) = sockets().await;
        raw.write_all(garbage).await.unwrap();
        // `raw` stays open: no end helps to notice.
        let error = server.accept(two).await.unwrap_err();
        assert!(error.to_string().contains("does not speak Noise"), "{error}");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
    for cut in [0, 1, 2, 49] {
        let (mut raw, two) = sockets().await;
        raw.write_all(&wrong[..cut]).await.unwrap();
        drop(raw);
        let error = server.accept(two).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
    }
}

#[tokio::test]
async fn an_ephemeral_key_without_secret_is_refused() {
    let server = Acceptor::new(&settings(&name("NN"), None, None)).unwrap();
    let (mut raw, two) = sockets().await;
    raw.write_all(&[&[32, 0][..], &[0; 32]].concat()).await.unwrap();
    let error = server.accept(two).await.unwrap_err();
    assert!(error.to_string().contains("degenerate"), "{error}");
}

#[test]
fn debug_shows_no_key() {
    let key = Keypair { private: Secret::new(vec![171; 32]), public: [0; 32] };
    let shown = format!("{:?}", Acceptor::new(&settings(&name("NK"), Some(&key), None)).unwrap());
    assert!(shown.contains("Noise_NK") && !shown.contains("171"), "{shown}");
}
