//! The golden vectors P1 to P6: what a client says to a proxy, byte by byte. P2, P5 and P6 assert our documented
//! differences from rathole 0.5.
#![cfg(feature = "proxy")]
#![allow(clippy::unwrap_used)]

use rathole::config::{Endpoint, Host, Proxy, ProxyKind, Secret};
use rathole::transport::proxy::handshake;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The bytes of a vector.
fn vector(name: &str) -> Vec<u8> {
    let all: serde_json::Value = serde_json::from_str(include_str!("protocol-v1-vectors.json")).unwrap();
    let entry = all["vectors"].as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap();
    let hex = entry["hex"].as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn proxy(kind: ProxyKind, credentials: Option<(&str, &str)>) -> Proxy {
    Proxy {
        kind,
        endpoint: Endpoint { host: Host::Ip("127.0.0.1".parse().unwrap()), port: 1 },
        credentials: credentials.map(|(user, password)| (user.to_owned(), Secret::new(password))),
    }
}

fn remote(host: &str) -> Endpoint {
    let host = host.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::Ip);
    Endpoint { host, port: 4242 }
}

/// Plays a proxy that hears exactly `hear` and answers, in turns; then checks that the tunnel's first bytes, which
/// come together with the last answer, are all there and that the client has sent nothing else.
async fn play(proxy: &Proxy, remote: &Endpoint, turns: Vec<(Vec<u8>, Vec<u8>)>) {
    assert!(!turns.is_empty());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    let playing = async {
        let last = turns.len() - 1;
        for (turn, (hear, answer)) in turns.into_iter().enumerate() {
            let mut heard = vec![0; hear.len()];
            far.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, hear, "turn {turn}: {}", String::from_utf8_lossy(&heard));
            let tunnel: &[u8] = if turn == last { b"tunnel" } else { b"" };
            far.write_all(&[&answer, tunnel].concat()).await.unwrap();
        }
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"done");
    };
    let asking = async {
        handshake(proxy, &mut client, remote).await.unwrap();
        let mut tunnel = [0; 6];
        client.read_exact(&mut tunnel).await.unwrap();
        assert_eq!(&tunnel, b"tunnel");
        client.write_all(b"done").await.unwrap();
        client.shutdown().await.unwrap();
    };
    tokio::join!(playing, asking);
}

const OK: &[u8] = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n";
const REPLY: &[u8] = &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0];

#[tokio::test]
async fn p1_http_connect() {
    let turns = vec![(vector("P1_http_connect"), OK.to_vec())];
    play(&proxy(ProxyKind::Http, None), &remote("localhost"), turns).await;
}

/// Difference: 0.5 sends user and password as written in the URL (`us%40er:p%3Ass`), ours decoded (`us@er:p:ss`).
/// Everything else is the same, and what 0.5 sent is what ours would send for those very words.
#[tokio::test]
async fn p2_http_connect_with_decoded_credentials() {
    let theirs = vector("P2_http_connect_basic_auth");
    let as_written = proxy(ProxyKind::Http, Some(("us%40er", "p%3Ass")));
    play(&as_written, &remote("localhost"), vec![(theirs.clone(), OK.to_vec())]).await;
    let text = String::from_utf8(theirs).unwrap();
    // base64("us@er:p:ss")
    let ours = text.replace("dXMlNDBlcjpwJTNBc3M=", "dXNAZXI6cDpzcw==");
    assert_ne!(ours, text);
    let decoded = proxy(ProxyKind::Http, Some(("us@er", "p:ss")));
    play(&decoded, &remote("localhost"), vec![(ours.into_bytes(), OK.to_vec())]).await;
}

#[tokio::test]
async fn p3_socks5_by_name() {
    let turns =
        vec![(vector("P3_socks5_greeting"), vec![5, 0]), (vector("P3_socks5_connect"), REPLY.to_vec())];
    play(&proxy(ProxyKind::Socks5, None), &remote("localhost"), turns).await;
}

#[tokio::test]
async fn p4_socks5_ipv4_literal_goes_as_a_name() {
    let turns =
        vec![(vector("P4_socks5_ip_greeting"), vec![5, 0]), (vector("P4_socks5_ip_connect"), REPLY.to_vec())];
    play(&proxy(ProxyKind::Socks5, None), &remote("127.0.0.1"), turns).await;
}

/// Difference: as P2, `us@er` and `p:ss` where 0.5 sends `us%40er` and `p%3Ass`.
#[tokio::test]
async fn p5_socks5_with_decoded_credentials() {
    let turns = |login: Vec<u8>| {
        vec![
            (vector("P5_socks5_auth_greeting"), vec![5, 2]),
            (login, vec![1, 0]),
            (vector("P5_socks5_auth_connect"), REPLY.to_vec()),
        ]
    };
    let theirs = vector("P5_socks5_auth_userpass");
    let ours = b"\x01\x05us@er\x04p:ss".to_vec();
    assert_ne!(theirs, ours);
    let as_written = proxy(ProxyKind::Socks5, Some(("us%40er", "p%3Ass")));
    play(&as_written, &remote("localhost"), turns(theirs)).await;
    let decoded = proxy(ProxyKind::Socks5, Some(("us@er", "p:ss")));
    play(&decoded, &remote("localhost"), turns(ours)).await;
}

/// Difference: 0.5 sends the name `[::1]`, which no proxy resolves; ours sends the address (ATYP 04).
#[tokio::test]
async fn p6_socks5_ipv6_literal_goes_as_an_address() {
    let theirs = vector("P6_socks5_v6literal_connect");
    assert_eq!(theirs[3..10], *b"\x03\x05[::1]");
    let mut ours = vec![5, 1, 0, 4];
    ours.extend([0; 15]);
    ours.push(1);
    ours.extend(&theirs[10..]);
    let turns = vec![(vector("P6_socks5_v6literal_greeting"), vec![5, 0]), (ours, REPLY.to_vec())];
    play(&proxy(ProxyKind::Socks5, None), &remote("::1"), turns).await;
}

#[tokio::test]
async fn an_ipv6_literal_keeps_its_brackets_for_an_http_proxy() {
    let ours = b"CONNECT [::1]:4242 HTTP/1.1\r\nHost: [::1]:4242\r\nProxy-Connection: Keep-Alive\r\n\r\n";
    let turns = vec![(ours.to_vec(), b"HTTP/1.0 200 OK\r\n\r\n".to_vec())];
    play(&proxy(ProxyKind::Http, None), &remote("::1"), turns).await;
}

/// The whole way: a connector whose server's name only the proxy knows.
#[tokio::test]
async fn the_proxy_resolves_the_servers_name() {
    use rathole::config::{Client, ClientTransport, TcpOptions};
    use std::time::Duration;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut way = proxy(ProxyKind::Socks5, None);
    way.endpoint.port = listener.local_addr().unwrap().port();
    let client = Client {
        remote_addr: Endpoint { host: Host::Name("nowhere.invalid".to_owned()), port: 4242 },
        transport: ClientTransport::Tcp,
        tcp: TcpOptions::default(),
        proxy: Some(way),
        heartbeat_timeout: None,
        handshake_timeout: Duration::from_secs(5),
        token_grace: Duration::from_secs(300),
        shutdown_grace: Duration::ZERO,
        services: Default::default(),
    };
    let connector = rathole::transport::Connector::new(&client).unwrap();
    let addresses = connector.resolve().await.unwrap();
    let playing = async {
        let (mut far, _) = listener.accept().await.unwrap();
        far.read_exact(&mut [0; 3]).await.unwrap();
        far.write_all(&[5, 0]).await.unwrap();
        let mut request = [0; 5 + 15 + 2];
        far.read_exact(&mut request).await.unwrap();
        assert_eq!(request[5..20], *b"nowhere.invalid");
        far.write_all(&[REPLY, b"hello"].concat()).await.unwrap();
        far
    };
    let (stream, _far) = tokio::join!(connector.connect(&addresses, true), playing);
    let mut hello = [0; 5];
    stream.unwrap().read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
}
