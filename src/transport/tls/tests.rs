use std::pin::Pin;
use std::process::Stdio;
use std::task::Poll;

use rustls::crypto::CryptoProvider;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::testing::{Bench, endpoint};
use super::{Acceptor, Connector, Stream, provider};
use crate::config::TlsClient;
use crate::transport::STRANGER;

/// Both ends of a loopback connection.
pub(super) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), async { listener.accept().await });
    (near.unwrap(), far.unwrap().0)
}

pub(super) async fn handshake(
    acceptor: &Acceptor,
    connector: &Connector,
) -> (std::io::Result<Stream>, std::io::Result<Stream>) {
    let (near, far) = tcp_pair().await;
    tokio::join!(connector.connect(near), acceptor.accept(far))
}

/// A client, and a server that does not know it yet.
async fn stranger_pair(acceptor: &Acceptor, connector: &Connector) -> (Stream, Stream) {
    let (client, server) = handshake(acceptor, connector).await;
    (client.unwrap(), server.unwrap())
}

pub(super) async fn tls_pair(acceptor: &Acceptor, connector: &Connector) -> (Stream, Stream) {
    let (client, mut server) = stranger_pair(acceptor, connector).await;
    server.trust();
    (client, server)
}

/// A provider for every cipher suite, of both versions.
pub(super) fn providers() -> Vec<CryptoProvider> {
    let all = provider();
    let one =
        |suite: &rustls::SupportedCipherSuite| CryptoProvider { cipher_suites: vec![*suite], ..all.clone() };
    all.cipher_suites.iter().map(one).collect()
}

pub(super) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

/// Everything there and back: sizes around every limit, both directions at once, and half-close from either end.
async fn exercise(first: Stream, second: Stream) {
    async fn talk(stream: Stream, send: Vec<u8>, expect: Vec<u8>) -> Stream {
        let (mut read, mut write) = tokio::io::split(stream);
        let sending = async {
            for part in send.chunks(100_001) {
                write.write_all(part).await.unwrap();
            }
            write.flush().await.unwrap();
        };
        let receiving = async {
            let mut received = vec![0; expect.len()];
            read.read_exact(&mut received).await.unwrap();
            assert!(received == expect, "bytes differ");
        };
        tokio::join!(sending, receiving);
        read.unsplit(write)
    }
    let (mut first, mut second) = (first, second);
    for length in [1, 16_383, 16_384, 16_385, 65_536, 65_537, 3_000_000] {
        let (there, back) = (noise(length, 1), noise(length, 2));
        (first, second) =
            tokio::join!(talk(first, there.clone(), back.clone()), talk(second, back.clone(), there.clone()));
    }
    assert!(!first.incoming.holds_buffer() && !second.incoming.holds_buffer());
    assert!(first.outgoing.is_empty() && second.outgoing.is_empty());
    half_close(first, second).await;
}

/// `first` ends its direction; the other still carries.
async fn half_close(mut first: Stream, mut second: Stream) {
    first.write_all(b"last words").await.unwrap();
    first.shutdown().await.unwrap();
    assert!(first.write_all(b"too late").await.is_err());
    let mut heard = Vec::new();
    second.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"last words");
    let answer = noise(300_000, 3);
    let (sent, heard) = tokio::join!(
        async {
            second.write_all(&answer).await?;
            second.shutdown().await
        },
        async {
            let mut heard = Vec::new();
            first.read_to_end(&mut heard).await.map(|_| heard)
        }
    );
    sent.unwrap();
    assert!(heard.unwrap() == answer);
}

#[tokio::test]
async fn every_cipher_suite_carries_and_half_closes_in_both_roles() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let bench = Bench::new();
    bench.openssl("req -newkey rsa:2048 -nodes -subj /CN=rsa -keyout rsa.key -out rsa.csr");
    bench.sign("rsa", "ca", "subjectAltName=DNS:localhost");
    let mut worked = 0;
    for provider in providers() {
        let rsa = format!("{:?}", provider.cipher_suites[0].suite()).contains("_RSA_");
        let name = if rsa { "rsa" } else { "leaf" };
        let identity = bench.pem(&format!("{name}.pem"), &format!("{name}.key"));
        let acceptor = Acceptor::with(&identity, provider.clone()).unwrap();
        let connector = Connector::with(&bench.client("ca.pem"), &endpoint("localhost"), provider).unwrap();
        let (client, server) = tls_pair(&acceptor, &connector).await;
        exercise(client, server).await;
        let (client, server) = tls_pair(&acceptor, &connector).await;
        half_close(server, client).await;
        worked += 1;
    }
    assert_eq!(worked, 9);
}

#[tokio::test]
async fn a_bare_tcp_end_is_an_orderly_end_but_not_inside_a_record() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let bench = Bench::new();
    let acceptor = Acceptor::new(&bench.pem("leaf.pem", "leaf.key")).unwrap();
    let connector = Connector::new(&bench.client("ca.pem"), &endpoint("localhost")).unwrap();
    let (mut client, mut server) = tls_pair(&acceptor, &connector).await;
    client.write_all(b"bye").await.unwrap();
    drop(client);
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"bye");

    let (client, mut server) = tls_pair(&acceptor, &connector).await;
    let mut bare = client.tcp;
    bare.write_all(&[23, 3, 3, 0, 100, 1, 2]).await.unwrap();
    drop(bare);
    let fault = server.read(&mut [0; 10]).await.unwrap_err();
    assert_eq!(fault.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn an_altered_record_fails_both_ends_after_what_came_before_it() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let bench = Bench::new();
    let acceptor = Acceptor::new(&bench.pem("leaf.pem", "leaf.key")).unwrap();
    let connector = Connector::new(&bench.client("ca.pem"), &endpoint("localhost")).unwrap();
    let (mut client, mut server) = tls_pair(&acceptor, &connector).await;
    client.write_all(b"good").await.unwrap();
    client.tcp.write_all(&[[23, 3, 3, 0, 100].to_vec(), vec![7; 100]].concat()).await.unwrap();
    let mut buf = [0; 100];
    server.read_exact(&mut buf[..4]).await.unwrap();
    let fault = server.read(&mut buf).await.unwrap_err();
    assert!(fault.to_string().contains("altered"), "{fault}");
    assert!(server.read(&mut buf).await.is_err());
    assert!(server.write(b"x").await.is_err());
    let fault = client.read(&mut buf).await.unwrap_err();
    assert!(fault.to_string().contains("alert 20"), "{fault}");
}

#[tokio::test]
async fn keys_change_when_they_are_worn_out() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let bench = Bench::new();
    let acceptor = Acceptor::new(&bench.pem("leaf.pem", "leaf.key")).unwrap();
    let connector = Connector::new(&bench.client("ca.pem"), &endpoint("localhost")).unwrap();
    let (mut client, mut server) = tls_pair(&acceptor, &connector).await;
    // The server wants the client to change its key, too.
    server
        .outgoing
        .push_message(&mut server.send, super::record::Content::Handshake, &[24, 0, 0, 1, 1])
        .unwrap();
    server.send =
        super::record::Keys::new(true, server.updates.as_mut().unwrap().next_send().unwrap()).unwrap();
    for round in 0..3u8 {
        server.write_all(&[round; 50_000]).await.unwrap();
        server.flush().await.unwrap();
        let mut heard = vec![0; 50_000];
        client.read_exact(&mut heard).await.unwrap();
        assert!(heard.iter().all(|byte| *byte == round));
        assert_eq!(client.owes_key_update, round == 0);
        client.write_all(&[round; 50_000]).await.unwrap();
        assert!(!client.owes_key_update);
        server.read_exact(&mut heard).await.unwrap();
        assert!(heard.iter().all(|byte| *byte == round));
    }
}

#[tokio::test]
async fn a_stranger_and_a_resting_connection_hold_no_large_buffer() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let bench = Bench::new();
    let acceptor = Acceptor::new(&bench.pem("leaf.pem", "leaf.key")).unwrap();
    let connector = Connector::new(&bench.client("ca.pem"), &endpoint("localhost")).unwrap();
    let (mut client, mut server) = stranger_pair(&acceptor, &connector).await;
    // As many short records as the kernels hold, and a reader who takes a hello.
    client.write_all(&[1; 37]).await.unwrap();
    for _ in 0..200 {
        client.write_all(&noise(1000, 1)).await.unwrap();
    }
    let mut word = [0; 37];
    server.read_exact(&mut word).await.unwrap();
    assert!(!server.incoming.holds_buffer());
    assert!(server.incoming.held() <= STRANGER, "{}", server.incoming.held());
    server.trust();
    let mut rest = vec![0; 200_000];
    server.read_exact(&mut rest).await.unwrap();
    assert_eq!(server.incoming.held(), 0);
}

/// A long record is taken only from a peer that is authenticated; of a stranger's record no more than `STRANGER` is
/// held.
#[tokio::test]
async fn a_stranger_s_record_is_bounded() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let bench = Bench::new();
    let acceptor = Acceptor::new(&bench.pem("leaf.pem", "leaf.key")).unwrap();
    let connector = Connector::new(&bench.client("ca.pem"), &endpoint("localhost")).unwrap();
    for (plain, good) in [(STRANGER - 100, true), (STRANGER + 1, false)] {
        for trusted in [true, false] {
            let (mut client, mut server) = stranger_pair(&acceptor, &connector).await;
            if trusted {
                server.trust();
            }
            client.write_all(&noise(plain, 1)).await.unwrap();
            let heard = server.read_exact(&mut vec![0; plain]).await;
            assert_eq!(heard.is_ok(), good || trusted, "{plain} {trusted}");
            if let Err(fault) = heard {
                assert!(fault.to_string().contains("before it was authenticated"), "{fault}");
            }
        }
    }
    let (client, mut server) = stranger_pair(&acceptor, &connector).await;
    let mut bare = client.tcp;
    let length = (STRANGER - 5) as u16;
    let unfinished = [&[23, 3, 3][..], &length.to_be_bytes(), &vec![0; STRANGER - 6]].concat();
    bare.write_all(&unfinished).await.unwrap();
    let mut word = [0; 37];
    let read = tokio::time::timeout(std::time::Duration::from_millis(200), server.read(&mut word)).await;
    assert!(read.is_err(), "{read:?}");
    assert!((STRANGER - 1..=STRANGER).contains(&server.incoming.held()), "{}", server.incoming.held());
}

#[tokio::test]
async fn slices_are_joined_into_full_records() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let bench = Bench::new();
    let acceptor = Acceptor::new(&bench.pem("leaf.pem", "leaf.key")).unwrap();
    let connector = Connector::new(&bench.client("ca.pem"), &endpoint("localhost")).unwrap();
    let (mut client, mut server) = tls_pair(&acceptor, &connector).await;
    let data = noise(40_000, 9);
    let slices: Vec<_> = data.chunks(1000).map(std::io::IoSlice::new).collect();
    assert_eq!(client.write_vectored(&slices).await.unwrap(), 40_000);
    let mut heard = vec![0; 40_000];
    server.read_exact(&mut heard).await.unwrap();
    assert!(heard == data);
}

#[tokio::test]
async fn garbage_and_half_messages_are_told_plainly() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let bench = Bench::new();
    let acceptor = Acceptor::new(&bench.pem("leaf.pem", "leaf.key")).unwrap();
    let connector = Connector::new(&bench.client("ca.pem"), &endpoint("localhost")).unwrap();
    let mut cases: Vec<(Vec<u8>, &str)> = vec![
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), "does not speak TLS"),
        (b"SSH-2.0-OpenSSH_9.7\r\n".to_vec(), "does not speak TLS"),
        (vec![0; 1000], "does not speak TLS"),
        (vec![0x16, 3, 1, 2, 0, 1], "closed the connection during"),
        (vec![], "closed the connection during"),
    ];
    for seed in 0..100 {
        let mut bytes = noise(600, seed);
        bytes[..3].copy_from_slice(&[0x16, 3, 1]);
        bytes[3..5].copy_from_slice(&500u16.to_be_bytes());
        cases.push((bytes, ""));
    }
    for (bytes, expected) in cases {
        for as_server in [true, false] {
            let (near, mut far) = tcp_pair().await;
            let peer = async {
                // The other side may hang up in the middle.
                let _ = far.write_all(&bytes).await;
                let _ = far.shutdown().await;
                let _ = far.read_to_end(&mut Vec::new()).await;
            };
            let ours = async {
                match as_server {
                    true => acceptor.accept(near).await.unwrap_err(),
                    false => connector.connect(near).await.unwrap_err(),
                }
            };
            let (fault, ()) = tokio::join!(ours, peer);
            assert!(fault.to_string().contains(expected), "{fault} for {bytes:?}");
        }
    }
}

/// Feeds lines to a child and returns what it prints.
struct Openssl {
    child: tokio::process::Child,
    out: BufReader<tokio::process::ChildStdout>,
    err: BufReader<tokio::process::ChildStderr>,
}

impl Openssl {
    fn new(bench: &Bench, arguments: &str) -> Self {
        let mut child = tokio::process::Command::new("openssl")
            .current_dir(bench.path(""))
            .args(arguments.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let err = BufReader::new(child.stderr.take().unwrap());
        Openssl { child, out, err }
    }

    async fn say(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(line.as_bytes()).await.unwrap();
    }

    async fn hear(&mut self, wanted: &str) -> String {
        loop {
            let (mut line, mut other) = (String::new(), String::new());
            let count = tokio::select! {
                count = self.out.read_line(&mut line) => count,
                count = self.err.read_line(&mut other) => count,
            };
            assert_ne!(count.unwrap(), 0, "openssl ended before {wanted:?}");
            let line = line + &other;
            if line.contains(wanted) {
                return line;
            }
        }
    }
}

/// Reads until the peer has changed its key and asked for ours.
async fn await_key_update(stream: &mut Stream) {
    let mut room = [0; 10];
    std::future::poll_fn(|cx| {
        let mut buf = ReadBuf::new(&mut room);
        assert!(Pin::new(&mut *stream).poll_read(cx, &mut buf).is_pending());
        if stream.owes_key_update { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[tokio::test]
async fn openssl_as_client_with_key_updates() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let bench = Bench::new();
    let acceptor = Acceptor::new(&bench.pem("leaf.pem", "leaf.key")).unwrap();
    for version in ["tls1_2", "tls1_3"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let arguments = format!("s_client -connect {address} -CAfile ca.pem -verify_return_error -{version}");
        let mut peer = Openssl::new(&bench, &arguments);
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(acceptor.accept(tcp).await.unwrap());
        for round in 0..3 {
            if version == "tls1_3" {
                // A line with K alone: a key update that asks for ours.
                peer.say("K\n").await;
                peer.hear("KEYUPDATE").await;
            }
            peer.say(&format!("hello {round}\n")).await;
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            assert_eq!(line, format!("hello {round}\n"));
            stream.write_all(format!("answer {round}\n").as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            peer.hear(&format!("answer {round}")).await;
        }
        peer.say("Q\n").await;
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0, "{version}");
    }
}

/// Ours against ours would not notice a nonce that both make wrong.
#[tokio::test]
async fn openssl_opens_and_seals_with_every_cipher_suite() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let bench = Bench::new();
    bench.openssl("req -newkey rsa:2048 -nodes -subj /CN=rsa -keyout rsa.key -out rsa.csr");
    bench.sign("rsa", "ca", "subjectAltName=DNS:localhost");
    for provider in providers() {
        let suite = format!("{:?}", provider.cipher_suites[0].suite());
        let name = if suite.contains("_RSA_") { "rsa" } else { "leaf" };
        let identity = bench.pem(&format!("{name}.pem"), &format!("{name}.key"));
        let acceptor = Acceptor::with(&identity, provider).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let arguments = format!("s_client -connect {} -CAfile ca.pem", listener.local_addr().unwrap());
        let mut peer = Openssl::new(&bench, &arguments);
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(acceptor.accept(tcp).await.unwrap());
        for round in 0..3 {
            let long = "x".repeat(round * 400);
            peer.say(&format!("hello {long}\n")).await;
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            assert_eq!(line, format!("hello {long}\n"), "{suite}");
            stream.write_all(format!("answer {round} {long}\n").as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            peer.hear(&format!("answer {round} {long}")).await;
        }
    }
}

#[tokio::test]
async fn openssl_as_server_with_tickets_and_key_updates() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let bench = Bench::new();
    let connector = Connector::new(&bench.client("ca.pem"), &endpoint("localhost")).unwrap();
    for version in ["tls1_2", "tls1_3"] {
        let arguments = format!("s_server -accept 127.0.0.1:0 -cert leaf.pem -key leaf.key -{version}");
        let mut peer = Openssl::new(&bench, &arguments);
        let accepting = peer.hear("ACCEPT").await;
        let address = accepting.trim().rsplit(' ').next().unwrap().to_owned();
        let mut stream =
            BufReader::new(connector.connect(TcpStream::connect(address).await.unwrap()).await.unwrap());
        for round in 0..3 {
            stream.write_all(format!("hello {round}\n").as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            peer.hear(&format!("hello {round}")).await;
            if version == "tls1_3" {
                peer.say("K\n").await;
                await_key_update(stream.get_mut()).await;
            }
            peer.say(&format!("answer {round}\n")).await;
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            assert_eq!(line, format!("answer {round}\n"));
        }
        stream.shutdown().await.unwrap();
        // s_server ends the connection in turn.
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0, "{version}");
    }
}

#[tokio::test]
async fn openssl_before_tls12_is_told_plainly() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let bench = Bench::new();
    let acceptor = Acceptor::new(&bench.pem("leaf.pem", "leaf.key")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _peer = Openssl::new(&bench, &format!("s_client -connect {address} -tls1_1 -cipher ALL:@SECLEVEL=0"));
    let (tcp, _) = listener.accept().await.unwrap();
    let fault = acceptor.accept(tcp).await.unwrap_err();
    assert!(fault.to_string().contains("neither TLS 1.2 nor 1.3"), "{fault}");
}

#[tokio::test]
async fn a_name_in_the_certificate_decides() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let bench = Bench::new();
    bench.leaf("other", "ca", "DNS:other.example,IP:10.0.0.1");
    let acceptor = Acceptor::new(&bench.pem("other.pem", "other.key")).unwrap();
    for (hostname, remote, works) in [
        (None, "other.example", true),
        (None, "10.0.0.1", true),
        (Some("other.example"), "127.0.0.1", true),
        (Some("10.0.0.1"), "localhost", true),
        (None, "localhost", false),
        (None, "10.0.0.2", false),
        (Some("wrong.example"), "other.example", false),
    ] {
        let settings = TlsClient { hostname: hostname.map(str::to_owned), ..bench.client("ca.pem") };
        let connector = Connector::new(&settings, &endpoint(remote)).unwrap();
        let (client, _) = handshake(&acceptor, &connector).await;
        match client {
            Ok(_) => assert!(works, "{hostname:?} {remote}"),
            Err(fault) => {
                assert!(!works, "{fault}");
                let name = hostname.unwrap_or(remote);
                assert!(fault.to_string().contains(&format!("not valid for {name}, only for")), "{fault}");
                assert!(fault.to_string().contains("other.example"), "{fault}");
            }
        }
    }
}

#[test]
fn a_hostname_that_is_none_is_refused() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let bench = Bench::new();
    for name in ["", "a b", "http://x", "x:1", "*.example"] {
        let settings = TlsClient { hostname: Some(name.to_owned()), ..bench.client("ca.pem") };
        assert_eq!(Connector::new(&settings, &endpoint("a")).unwrap_err().key, "tls.hostname", "{name:?}");
    }
    let fault = Connector::new(&bench.client("ca.pem"), &endpoint("not a name")).unwrap_err();
    assert!(fault.message.contains("remote_addr"), "{fault}");
}

#[tokio::test]
async fn what_is_believed() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let bench = Bench::new();
    bench.authority("ca2");
    bench.leaf("leaf2", "ca2", "DNS:localhost");
    let join = |name: &str, parts: &[&str]| {
        std::fs::write(bench.path(name), parts.iter().flat_map(|part| bench.read(part)).collect::<Vec<_>>())
            .unwrap();
    };
    join("both.pem", &["ca2.pem", "ca.pem"]);
    // An intermediate, sent along.
    bench.openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=mid -keyout mid.key -out mid.csr",
    );
    bench.sign("mid", "ca", "basicConstraints=critical,CA:TRUE");
    bench.leaf("low", "mid", "DNS:localhost");
    join("chain.pem", &["low.pem", "mid.pem"]);
    // Self-signed, as people make them: CA:TRUE.
    let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost";
    bench.openssl(&format!("{new} -addext subjectAltName=DNS:localhost -keyout self.key -out self.pem"));
    bench.openssl(&format!(
        "{new} -addext subjectAltName=DNS:localhost -addext basicConstraints=CA:FALSE -keyout own.key -out own.pem"
    ));
    bench.openssl(&format!("{new} -keyout bare.key -out bare.pem"));
    join("many.pem", &["ca2.pem", "self.pem"]);

    for (cert, key, root, expected) in [
        ("leaf.pem", "leaf.key", "ca.pem", ""),
        ("leaf.pem", "leaf.key", "both.pem", ""),
        ("leaf2.pem", "leaf2.key", "both.pem", ""),
        ("leaf.pem", "leaf.key", "ca2.pem", "unknown authority"),
        ("chain.pem", "low.key", "ca.pem", ""),
        ("low.pem", "low.key", "ca.pem", "unknown authority"),
        ("self.pem", "self.key", "self.pem", ""),
        ("self.pem", "self.key", "many.pem", ""),
        ("self.pem", "self.key", "ca.pem", "a CA's own"),
        ("own.pem", "own.key", "own.pem", ""),
        ("leaf.pem", "leaf.key", "leaf.pem", ""),
        ("bare.pem", "bare.key", "bare.pem", "no subjectAltName"),
    ] {
        let acceptor = Acceptor::new(&bench.pem(cert, key)).unwrap();
        let connector = Connector::new(&bench.client(root), &endpoint("localhost")).unwrap();
        let (client, server) = handshake(&acceptor, &connector).await;
        match client {
            Ok(_) => assert!(expected.is_empty(), "{cert} {root}"),
            Err(fault) => {
                assert!(
                    !expected.is_empty() && fault.to_string().contains(expected),
                    "{cert} {root}: {fault}"
                );
                let told = server.err().unwrap().to_string();
                assert!(told.contains("does not believe"), "{told}");
            }
        }
        // A pinned certificate is still checked for its name.
        let connector = Connector::new(&bench.client(root), &endpoint("elsewhere")).unwrap();
        assert!(handshake(&acceptor, &connector).await.0.is_err(), "{cert} {root}");
    }
}

/// Runs in a child whose environment names the roots.
#[tokio::test]
#[ignore = "started by system_roots_come_from_the_environment"]
async fn system_roots_child() {
    let settings = TlsClient { hostname: None, trusted_root: None };
    let connector = Connector::new(&settings, &endpoint("localhost")).unwrap();
    let port: u16 = std::env::var("TEST_PORT").unwrap().parse().unwrap();
    let mut stream = connector.connect(TcpStream::connect(("127.0.0.1", port)).await.unwrap()).await.unwrap();
    stream.write_all(b"trusted").await.unwrap();
    stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn system_roots_come_from_the_environment() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let bench = Bench::new();
    let acceptor = Acceptor::new(&bench.pem("leaf.pem", "leaf.key")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "transport::tls::tests::system_roots_child"])
        .env("SSL_CERT_FILE", bench.path("ca.pem"))
        .env("TEST_PORT", listener.local_addr().unwrap().port().to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (tcp, _) = listener.accept().await.unwrap();
    let mut heard = Vec::new();
    acceptor.accept(tcp).await.unwrap().read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"trusted");
    assert!(child.wait().await.unwrap().success());
}
