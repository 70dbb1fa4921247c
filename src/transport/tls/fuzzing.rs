//! Fuzz targets: what comes instead of a handshake, and the records after one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::io;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ConnectionTrafficSecrets as Secrets, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::handshake::{Established, KeyUpdates};
use super::record::{Content, Keys, MAX_PLAIN, OVERHEAD};
use super::{Acceptor, Connector, Stream, provider};
use crate::fuzzing::{Input, block_on, fed, pair, pieces};
use crate::transport::STRANGER;

/// Has no certificate: a client's hello is all that can be judged, but that to the end.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

thread_local! {
    static ENDS: (Acceptor, Connector) = {
        let provider = Arc::new(provider());
        let server = ServerConfig::builder_with_provider(provider.clone());
        let server = server.with_protocol_versions(rustls::ALL_VERSIONS).unwrap();
        let client = ClientConfig::builder_with_provider(provider);
        let client = client.with_protocol_versions(rustls::ALL_VERSIONS).unwrap();
        let client = client.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let server = server.with_no_client_auth().with_cert_resolver(Arc::new(Nobody));
        let name = ServerName::try_from("server.test").unwrap();
        (Acceptor { config: Arc::new(server) }, Connector { config: Arc::new(client), name })
    };
}

/// Whatever a peer without keys says, in whatever pieces, the handshake ends with one line.
pub(crate) fn handshake(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let is_client = input.byte() & 1 == 0;
    let cuts = input.cuts();
    let said = input.rest();
    let (acceptor, connector) = ENDS.with(Clone::clone);
    for said in [vec![said], pieces(said, &cuts)] {
        let done = block_on(async {
            let (tcp, mut peer) = pair();
            let shaken =
                async { if is_client { connector.connect(tcp).await } else { acceptor.accept(tcp).await } };
            fed(shaken, &mut peer, &said).await
        });
        let fault = done.map(drop).expect_err("a handshake with a peer who has no keys").to_string();
        assert!(!fault.contains(char::is_control), "{fault:?}");
    }
}

/// Keys as TLS 1.3 changes them, but by number. The two ends differ in the direction only.
struct Numbered {
    suite: Suite,
    receive: u32,
    send: u32,
}

impl KeyUpdates for Numbered {
    fn next_receive(&mut self) -> io::Result<(u64, Secrets)> {
        self.receive += 1;
        Ok((0, self.suite.secrets(self.receive)))
    }

    fn next_send(&mut self) -> io::Result<(u64, Secrets)> {
        self.send += 1;
        Ok((0, self.suite.secrets(self.send)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Suite {
    tls13: bool,
    gcm: bool,
}

impl Suite {
    fn secrets(self, number: u32) -> Secrets {
        let (key, iv) = (AeadKey::from(repeated::<32>(number)), Iv::copy(&repeated::<12>(number)));
        if self.gcm { Secrets::Aes256Gcm { key, iv } } else { Secrets::Chacha20Poly1305 { key, iv } }
    }

    fn keys(self, number: u32) -> Keys {
        Keys::new(self.tls13, (0, self.secrets(number))).unwrap()
    }
}

/// Another one for each number: a key that came again would open what was sealed long before.
fn repeated<const N: usize>(number: u32) -> [u8; N] {
    let bytes = number.to_be_bytes();
    std::array::from_fn(|n| bytes[n % bytes.len()])
}

/// Records by a peer who has the keys and may do anything with them, and bytes by one who has not. What is read is
/// the beginning of what was sent as data, all of it if nothing was wrong; behind a record that was meddled with
/// nothing is read. A stranger may send less at a time.
pub(crate) fn records(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let how = input.byte();
    let suite = Suite { tls13: how & 1 == 0, gcm: how & 2 == 0 };
    let is_client = how & 4 == 0;
    let trusted = is_client || how & 8 == 0;
    let early = input.word();
    let cuts = input.cuts();
    let mut sent = Sent::by(suite, is_client, input);
    if !trusted && sent.longest > STRANGER {
        (sent.is_orderly, sent.meddled) = (false, false);
    }
    let (early, later) = sent.wire.split_at(early.min(sent.wire.len()));
    for buffer in [7, 5000, 128 * 1024] {
        if buffer < 100 && sent.wire.len() > 20_000 {
            continue;
        }
        let (got, fault) = read((suite, is_client, trusted), early, &pieces(later, &cuts), buffer);
        assert!(sent.data.starts_with(&got), "bytes that nobody sent");
        assert!(!sent.is_orderly || (got == sent.data && fault.is_none()), "{} {fault:?}", got.len());
        assert!(!sent.meddled || fault.is_some());
        if let Some(fault) = fault {
            assert!(!fault.to_string().contains(char::is_control), "{fault}");
        }
    }
}

struct Sent {
    wire: Vec<u8>,
    /// What may be read.
    data: Vec<u8>,
    /// Nothing was sent that may be refused.
    is_orderly: bool,
    /// Bytes that no key fits came while everything before them was in order.
    meddled: bool,
    /// Bytes of the longest record.
    longest: usize,
}

impl Sent {
    fn by(suite: Suite, to_client: bool, mut input: Input<'_>) -> Self {
        let mut peer = Peer { suite, number: 1, sequence: 0, keys: suite.keys(1) };
        let mut sent =
            Sent { wire: Vec::new(), data: Vec::new(), is_orderly: true, meddled: false, longest: 0 };
        while !input.is_empty() && sent.wire.len() < 100_000 {
            let before = sent.wire.len();
            match input.byte() {
                what @ 0..96 => {
                    let plain = vec![what; input.word() % (MAX_PLAIN + 1)];
                    let padding = usize::from(input.byte()).min(MAX_PLAIN - plain.len());
                    sent.wire.extend(peer.seal(Content::Data, &plain, padding));
                    if !sent.meddled {
                        sent.data.extend_from_slice(&plain);
                    }
                }
                // The key is changed by the book.
                wish @ 96..128 if suite.tls13 => {
                    sent.wire.extend(peer.seal(Content::Handshake, &[24, 0, 0, 1, wish % 2], 0));
                    peer.change_key();
                }
                // A session ticket.
                96..144 if suite.tls13 && to_client => {
                    let body = input.some();
                    let head = [4, 0, 0, body.len() as u8];
                    sent.wire.extend(peer.seal(Content::Handshake, &[&head, body].concat(), 0));
                }
                96..160 => {
                    sent.is_orderly = false;
                    sent.wire.extend(peer.seal(Content::Handshake, input.some(), 0));
                }
                160..192 => {
                    sent.is_orderly = false;
                    sent.wire.extend(peer.seal(Content::Alert, input.some(), 0));
                }
                192..224 => {
                    let junk = input.some();
                    sent.wire.extend_from_slice(junk);
                    sent.meddle(!junk.is_empty());
                }
                // The last bytes come again.
                224..=255 => {
                    let back = input.word().min(sent.wire.len());
                    let again = sent.wire[sent.wire.len() - back..].to_vec();
                    sent.wire.extend_from_slice(&again);
                    sent.meddle(back > 0);
                }
            }
            sent.longest = sent.longest.max(sent.wire.len() - before);
        }
        sent
    }

    fn meddle(&mut self, done: bool) {
        self.meddled |= done && self.is_orderly;
        self.is_orderly &= !done;
    }
}

/// Who seals: in TLS 1.3 by other code than the one that is tested.
struct Peer {
    suite: Suite,
    number: u32,
    sequence: u64,
    keys: Keys,
}

impl Peer {
    fn change_key(&mut self) {
        self.number += 1;
        self.sequence = 0;
        self.keys = self.suite.keys(self.number);
    }

    fn seal(&mut self, content: Content, plain: &[u8], padding: usize) -> Vec<u8> {
        if !self.suite.tls13 {
            let mut room = vec![0; plain.len() + OVERHEAD];
            let begin = self.keys.plain_offset();
            room[begin..begin + plain.len()].copy_from_slice(plain);
            let length = self.keys.seal(content, &mut room, plain.len()).unwrap();
            room.truncate(length);
            return room;
        }
        let kind = match content {
            Content::Alert => 21,
            Content::Handshake => 22,
            Content::Data => 23,
        };
        let mut inner = [plain, &[kind], &vec![0; padding]].concat();
        let length = inner.len() + 16;
        let header = [23, 3, 3, (length >> 8) as u8, length as u8];
        let mut nonce: [u8; 12] = repeated(self.number);
        nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(to, from)| *to ^= from);
        self.sequence += 1;
        let algorithm: &'static Algorithm = if self.suite.gcm { &AES_256_GCM } else { &CHACHA20_POLY1305 };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, &repeated::<32>(self.number)).unwrap());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut inner).unwrap();
        [&header[..], &inner, tag.as_ref()].concat()
    }
}

/// All that is read with a buffer of this size, and the fault in the end.
fn read(
    (suite, is_client, trusted): (Suite, bool, bool),
    early: &[u8],
    later: &[&[u8]],
    buffer: usize,
) -> (Vec<u8>, Option<io::Error>) {
    block_on(async {
        let (tcp, mut peer) = pair();
        let updates = Numbered { suite, receive: 1, send: 1_000_001 };
        let established = Established {
            receive: suite.keys(1),
            send: suite.keys(1_000_001),
            updates: suite.tls13.then(|| Box::new(updates) as Box<dyn KeyUpdates>),
            sealed: early.to_vec(),
            is_client,
        };
        let mut stream = Stream::new(tcp, established);
        if trusted {
            stream.trust();
        }
        let read = async {
            let (mut got, mut buffer) = (Vec::new(), vec![0; buffer]);
            let read = loop {
                match stream.read(&mut buffer).await {
                    Ok(0) => {
                        assert!(matches!(stream.read(&mut buffer).await, Ok(0)), "more after the end");
                        break (got, None);
                    }
                    Ok(n) => got.extend_from_slice(&buffer[..n]),
                    Err(fault) => {
                        assert!(stream.read(&mut buffer).await.is_err(), "no fault after a fault");
                        break (got, Some(fault));
                    }
                }
            };
            // Writing never panics either, whatever the peer did.
            let _ = stream.write_all(b"answer").await;
            let _ = stream.shutdown().await;
            read
        };
        fed(read, &mut peer, later).await
    })
}
