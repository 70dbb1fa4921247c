//! Tests: a peer that breaks the rules after the handshake, or comes with more than the handshake.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::record::{Content, HEADER, Keys, MAX_PLAIN, OVERHEAD};
use super::testing::{Bench, endpoint};
use super::tests::{handshake, providers, tcp_pair, tls_pair};
use super::{Acceptor, Connector, Stream};

/// Records that a peer sends: content type and plain bytes.
type Records<'r> = &'r [(Content, &'r [u8])];

/// Who sends them (the client?), in which versions (1.3?), and what they are.
type Case<'r> = (&'r [bool], &'r [bool], &'r str, Records<'r>);

/// An acceptor and a connector for each version.
pub(super) struct Parties {
    tls12: (Acceptor, Connector),
    tls13: (Acceptor, Connector),
}

impl Parties {
    pub(super) fn new() -> Self {
        let bench = Bench::new();
        let of = |name: &str| {
            let is =
                |provider: &CryptoProvider| format!("{:?}", provider.cipher_suites[0].suite()).contains(name);
            let provider = providers().into_iter().find(is).unwrap();
            let acceptor = Acceptor::with(&bench.pem("leaf.pem", "leaf.key"), provider.clone()).unwrap();
            let connector =
                Connector::with(&bench.client("ca.pem"), &endpoint("localhost"), provider).unwrap();
            (acceptor, connector)
        };
        Parties { tls12: of("ECDSA_WITH_AES_128"), tls13: of("TLS13_AES_128") }
    }

    pub(super) fn get(&self, tls13: bool) -> &(Acceptor, Connector) {
        if tls13 { &self.tls13 } else { &self.tls12 }
    }

    async fn pair(&self, tls13: bool) -> (Stream, Stream) {
        let (acceptor, connector) = self.get(tls13);
        tls_pair(acceptor, connector).await
    }
}

impl Stream {
    /// Seals and sends anything, as an evil peer would.
    async fn send_raw(&mut self, content: Content, message: &[u8]) {
        let mut room = vec![0; message.len() + OVERHEAD];
        let begin = self.send.plain_offset();
        room[begin..begin + message.len()].copy_from_slice(message);
        let length = self.send.seal(content, &mut room, message.len()).unwrap();
        self.tcp.write_all(&room[..length]).await.unwrap();
    }

    fn change_send_key(&mut self) {
        self.send = Keys::new(true, self.updates.as_mut().unwrap().next_send().unwrap()).unwrap();
    }
}

#[tokio::test]
async fn what_may_not_follow_the_handshake_ends_it() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    use Content::{Alert, Data, Handshake};
    let parties = Parties::new();
    let ticket = [&[4, 0, 0, 20][..], &[0; 20]].concat();
    let two_updates = [24, 0, 0, 1, 0, 24, 0, 0, 1, 0];
    let cases: [Case<'_>; 16] = [
        (&[true], &[true, false], "a ticket to a server", &[(Handshake, &ticket)]),
        (&[false], &[false], "a ticket in TLS 1.2", &[(Handshake, &ticket)]),
        (&[true], &[true, false], "the head of a long message", &[(Handshake, &[4, 1, 0xff, 0xff])]),
        (&[true], &[true, false], "HelloRequest to a server", &[(Handshake, &[0, 0, 0, 0])]),
        (&[false], &[true], "HelloRequest in TLS 1.3", &[(Handshake, &[0, 0, 0, 0])]),
        (&[true], &[true, false], "a renegotiation", &[(Handshake, &[1, 0, 0, 2, 3, 3])]),
        (&[true, false], &[true, false], "Finished", &[(Handshake, &[20, 0, 0, 2, 3, 3])]),
        (&[true, false], &[true, false], "a KeyUpdate with a false wish", &[(Handshake, &[24, 0, 0, 1, 2])]),
        (&[true, false], &[true, false], "an empty KeyUpdate", &[(Handshake, &[24, 0, 0, 0])]),
        (&[true, false], &[true, false], "a KeyUpdate and more", &[(Handshake, &two_updates)]),
        (&[true, false], &[false], "a KeyUpdate in TLS 1.2", &[(Handshake, &[24, 0, 0, 1, 0])]),
        (&[true, false], &[true, false], "data in a message", &[(Handshake, &[24, 0]), (Data, b"x")]),
        (&[true, false], &[true, false], "an empty message", &[(Handshake, &[])]),
        (&[true, false], &[true, false], "an empty alert", &[(Alert, &[])]),
        (&[true, false], &[true, false], "a long alert", &[(Alert, &[1, 0, 0])]),
        (&[true, false], &[true, false], "a fatal alert", &[(Alert, &[2, 40])]),
    ];
    for (clients, versions, what, records) in cases {
        for (client_sends, tls13) in
            clients.iter().flat_map(|client| versions.iter().map(|tls13| (*client, *tls13)))
        {
            let (client, server) = parties.pair(tls13).await;
            let (mut evil, mut good) = if client_sends { (client, server) } else { (server, client) };
            evil.send_raw(Data, b"before").await;
            for (content, message) in records {
                evil.send_raw(*content, message).await;
            }
            evil.send_raw(Data, b"after").await;
            let mut heard = Vec::new();
            let end = timeout(Duration::from_secs(10), good.read_to_end(&mut heard)).await.unwrap();
            let place = format!("{what}, client sends: {client_sends}, TLS 1.3: {tls13}");
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::InvalidData, "{place}");
            assert_eq!(heard, b"before", "{place}");
            assert!(good.write(b"x").await.is_err(), "{place}");
            drop(good);
            let told = evil.read(&mut [0; 9]).await;
            if what == "a fatal alert" {
                assert!(matches!(told, Ok(0)), "an alert is not answered by one: {told:?}");
            } else {
                assert!(told.unwrap_err().to_string().contains("alert 20"), "{place}");
            }
        }
    }
}

#[tokio::test]
async fn what_may_follow_the_handshake_is_harmless() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    use Content::{Alert, Data, Handshake};
    let parties = Parties::new();
    let ticket = [&[4, 0, 0, 200][..], &[7; 200]].concat();
    let cases: [(bool, Records<'_>); 5] = [
        (true, &[(Handshake, &ticket), (Handshake, &ticket[..9]), (Handshake, &ticket[9..])]),
        (true, &[(Data, &[]), (Data, &[])]),
        (true, &[(Alert, &[1, 90])]),
        (false, &[(Handshake, &[0, 0, 0, 0]), (Data, &[])]),
        (false, &[(Alert, &[1, 100]), (Alert, &[1, 90])]),
    ];
    for (tls13, records) in cases {
        let (mut client, mut server) = parties.pair(tls13).await;
        for (content, message) in records {
            server.send_raw(*content, message).await;
        }
        server.write_all(b"after").await.unwrap();
        server.shutdown().await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"after");
    }
}

#[tokio::test]
async fn unsealed_records_after_the_handshake_end_it() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let parties = Parties::new();
    for tls13 in [true, false] {
        for record in
            [&[20, 3, 3, 0, 1, 1][..], &[21, 3, 3, 0, 2, 1, 0], &[23, 3, 3, 0, 0], &[24, 3, 3, 0, 1, 1]]
        {
            let (mut client, mut server) = parties.pair(tls13).await;
            client.tcp.write_all(record).await.unwrap();
            let fault = server.read(&mut [0; 9]).await.unwrap_err();
            assert_eq!(fault.kind(), io::ErrorKind::InvalidData, "{record:?}");
        }
    }
}

/// Records that carry nothing cost time: no poll may spend much of it on one peer.
#[tokio::test]
async fn a_flood_of_empty_records_lets_others_have_their_turn() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let parties = Parties::new();
    for tls13 in [true, false] {
        let (mut client, mut server) = parties.pair(tls13).await;
        let mut flood = Vec::new();
        for _ in 0..2000 {
            let mut room = [0; OVERHEAD];
            let length = client.send.seal(Content::Data, &mut room, 0).unwrap();
            flood.extend_from_slice(&room[..length]);
        }
        client.tcp.write_all(&flood).await.unwrap();
        client.write_all(b"after").await.unwrap();
        let (mut room, mut yields) = ([0; 9], 0);
        let heard = std::future::poll_fn(|cx| {
            let mut buf = ReadBuf::new(&mut room);
            let polled = Pin::new(&mut server).poll_read(cx, &mut buf);
            yields += usize::from(polled.is_pending() && !server.incoming.is_drained());
            polled.map_ok(|()| buf.filled().len())
        });
        assert_eq!(timeout(Duration::from_secs(10), heard).await.unwrap().unwrap(), 5);
        assert!(yields >= 10, "{yields}");
    }
}

/// Who shows a certificate that the client believes, but has another key.
#[tokio::test]
async fn a_believed_certificate_without_its_key_is_refused() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let bench = Bench::new();
    bench.leaf("evil", "ca", "DNS:localhost");
    let for_rsa =
        |provider: &CryptoProvider| format!("{:?}", provider.cipher_suites[0].suite()).contains("_RSA_");
    for provider in providers().into_iter().filter(|provider| !for_rsa(provider)) {
        let provider = Arc::new(provider);
        let certificate = CertificateDer::from_pem_slice(&bench.read("leaf.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(&bench.read("evil.key")).unwrap();
        let key = provider.key_provider.load_private_key(key).unwrap();
        let identity = CertifiedKey::new(vec![certificate], key);
        let config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        let acceptor = Acceptor { config: Arc::new(config) };
        for root in ["leaf.pem", "ca.pem"] {
            let connector = Connector::new(&bench.client(root), &endpoint("localhost")).unwrap();
            let (client, server) = handshake(&acceptor, &connector).await;
            let suite = provider.cipher_suites[0].suite();
            assert!(server.is_err(), "{suite:?}");
            let fault = client.unwrap_err().to_string();
            assert!(fault.contains("BadSignature"), "{suite:?} {root}: {fault}");
        }
    }
}

/// Holds back what `from` sends behind its first `at_once` records until there are `together`, then lets all pass.
async fn hold(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, at_once: usize, together: usize) {
    let mut records = Vec::new();
    while let Some(record) = next_record(&mut from).await {
        records.push(record);
        if records.len() <= at_once || records.len() >= together {
            let from = if records.len() == together { at_once } else { records.len() - 1 };
            to.write_all(&records[from..].concat()).await.unwrap();
        }
    }
    let _ = to.shutdown().await;
}

/// A whole record, or what is left at the end.
pub(super) async fn next_record(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut record = vec![0; HEADER];
    from.read_exact(&mut record).await.ok()?;
    record.resize(HEADER + usize::from(u16::from_be_bytes([record[3], record[4]])), 0);
    from.read_exact(&mut record[HEADER..]).await.ok()?;
    Some(record)
}

/// What the peer sends in the same breath as its last message of the handshake belongs to the connection.
#[tokio::test]
async fn what_comes_together_with_the_end_of_the_handshake_counts() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let parties = Parties::new();
    // The client's: ClientHello; ChangeCipherSpec, Finished, KeyUpdate, data.
    let (acceptor, connector) = parties.get(true);
    let ((near, middle1), (middle2, far)) = (tcp_pair().await, tcp_pair().await);
    let ((client_out, to_client), (server_out, to_server)) = (middle1.into_split(), middle2.into_split());
    let client = async {
        let mut stream = connector.connect(near).await.unwrap();
        stream.send_raw(Content::Handshake, &[24, 0, 0, 1, 1]).await;
        stream.change_send_key();
        stream.write_all(b"hello").await.unwrap();
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"answer");
    };
    let server = async {
        let mut stream = acceptor.accept(far).await.unwrap();
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
        stream.write_all(b"answer").await.unwrap();
        stream.flush().await.unwrap();
    };
    let all = async {
        tokio::join!(client, server, hold(client_out, to_server, 1, 5), hold(server_out, to_client, 99, 0))
    };
    timeout(Duration::from_secs(10), all).await.unwrap();

    // The server's, in TLS 1.2: four records; ChangeCipherSpec, Finished, data, close_notify.
    let (acceptor, connector) = parties.get(false);
    let ((near, middle1), (middle2, far)) = (tcp_pair().await, tcp_pair().await);
    let ((client_out, to_client), (server_out, to_server)) = (middle1.into_split(), middle2.into_split());
    let client = async {
        let mut stream = connector.connect(near).await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"hello");
    };
    let server = async {
        let mut stream = acceptor.accept(far).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    };
    let all = async {
        tokio::join!(client, server, hold(client_out, to_server, 99, 0), hold(server_out, to_client, 1, 5))
    };
    timeout(Duration::from_secs(10), all).await.unwrap();
}

/// A stranger's hello of any length: a server keeps little of it.
#[tokio::test]
async fn a_long_client_hello_is_refused_early() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let parties = Parties::new();
    let (near, mut far) = tcp_pair().await;
    // A message of 64 KiB in records of 16 KiB, the last byte missing: nothing to act on, so only its length counts.
    let mut bytes = Vec::new();
    let message = [&[1, 0, 0xff, 0xf0][..], &vec![0; 0xffef]].concat();
    for part in message.chunks(MAX_PLAIN) {
        bytes.extend_from_slice(&[22, 3, 1, (part.len() >> 8) as u8, part.len() as u8]);
        bytes.extend_from_slice(part);
    }
    let (mut reading, mut writing) = far.split();
    let mut answer = Vec::new();
    let (accepted, _, _) = tokio::join!(
        timeout(Duration::from_secs(10), parties.tls13.0.accept(near)),
        writing.write_all(&bytes),
        reading.read_to_end(&mut answer)
    );
    assert!(accepted.expect("refused without an end to wait for").is_err());
}
