//! Keys and certificates are replaced while the other side has, or wants, the old ones.
#![cfg(all(
    feature = "server",
    feature = "client",
    feature = "tls",
    feature = "noise",
    feature = "websocket"
))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::certs::{Certs, KeyKind, can_be_made};
use common::values::{client_config, led_to, offered, server_config};
use rathole::client::Client;
use rathole::config::{self, ClientTransport, Noise, ServerTransport, TlsClient, TlsServer};
use rathole::server::Server;
use rathole::tasks::Scope;
use rathole::transport::noise::Keypair;
use rathole::transport::{Acceptor, Connector};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Patterns in which the server has a key, and the client may know it.
const SERVER_HAS: [&str; 8] = ["NK", "NX", "XK", "XX", "KK", "KX", "IK", "IX"];

/// Patterns in which the client has a key and shows it, or shows in the first message which one it has.
const CLIENT_SHOWS: [&str; 8] = ["XN", "XK", "XX", "KK", "IN", "IK", "IX", "K1K"];

/// Patterns in which a server cannot know which of its client's keys is meant before it has answered.
const CLIENT_HIDES: [&str; 4] = ["KN", "KX", "K1N", "K1X"];

/// Patterns in which the client's first message shows which of the server's keys it knows.
const SERVER_KNOWN: [&str; 4] = ["NK", "XK", "KK", "IK"];

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(300)
}

fn localhost(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn client(transport: ClientTransport) -> Connector {
    client_of(transport, localhost(1))
}

fn client_of(transport: ClientTransport, server: SocketAddr) -> Connector {
    Connector::new(&config::Client { transport, ..client_config(server, []) }).unwrap()
}

fn keys(pattern: &str, own: &Keypair, peer: Option<&Keypair>) -> Noise {
    Noise {
        pattern: format!("Noise_{pattern}_25519_ChaChaPoly_BLAKE2s"),
        local_private_key: Some(own.private.clone()),
        remote_public_key: peer.map(|peer| peer.public),
    }
}

fn noise_client(pattern: &str, own: &Keypair, server: Option<&Keypair>) -> Connector {
    client(ClientTransport::Noise(keys(pattern, own, server)))
}

fn noise_server(pattern: &str, own: &Keypair, client: Option<&Keypair>) -> Acceptor {
    Acceptor::new(&ServerTransport::Noise(keys(pattern, own, client))).unwrap()
}

fn pairs<const N: usize>() -> [Keypair; N] {
    std::array::from_fn(|_| Keypair::generate().unwrap())
}

/// What it takes the place of is good for five minutes.
fn after(mut new: Connector, old: &Connector) -> Connector {
    new.succeed(old, true, soon());
    new
}

fn server_after(mut new: Acceptor, old: &Acceptor) -> Acceptor {
    new.succeed(old, true, soon());
    new
}

/// Whether bytes come back from a server. None of it is ever silent: it ends.
async fn reaches(connector: &Connector, acceptor: &Acceptor) -> bool {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = acceptor.clone();
    let server = tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = acceptor.accept(tcp).await {
                let mut four = [0; 4];
                if stream.read_exact(&mut four).await.is_ok() {
                    let _ = stream.write_all(&four).await;
                    let _ = stream.flush().await;
                }
            }
        }
    });
    let talk = async {
        let mut stream = connector.connect(&[address], true).await?;
        stream.write_all(b"ping").await?;
        stream.flush().await?;
        let mut four = [0; 4];
        stream.read_exact(&mut four).await?;
        std::io::Result::Ok(four == *b"ping")
    };
    let talked = timeout(Duration::from_secs(20), talk).await.expect("neither a yes nor a no");
    server.abort();
    talked.unwrap_or(false)
}

#[tokio::test]
async fn a_client_with_the_new_pin_believes_the_old_server_too() {
    for pattern in SERVER_HAS {
        let [own, old, new, other] = pairs();
        let before = noise_client(pattern, &own, Some(&old));
        let without = noise_client(pattern, &own, Some(&new));
        let both = after(noise_client(pattern, &own, Some(&new)), &before);
        let [old, new, other] = [old, new, other].map(|key| noise_server(pattern, &key, Some(&own)));
        assert!(!reaches(&without, &old).await && reaches(&without, &new).await, "{pattern}");
        // There and back: what worked last is only tried first.
        for server in [&old, &old, &new, &new, &old] {
            assert!(reaches(&both, server).await, "{pattern}");
        }
        assert!(!reaches(&both, &other).await, "{pattern}: anybody is believed");
    }
}

#[tokio::test]
async fn another_reload_neither_ends_nor_prolongs_the_grace() {
    let [own, old, new] = pairs();
    let before = noise_client("NK", &own, Some(&old));
    let server = noise_server("NK", &old, None);
    let fresh = || noise_client("NK", &own, Some(&new));
    let both = after(fresh(), &before);
    let mut again = fresh();
    again.succeed(&both, false, soon());
    assert!(reaches(&again, &server).await);
    // A grace of zero revokes at once what had a longer one.
    let mut revoked = fresh();
    revoked.succeed(&again, false, Instant::now());
    assert!(!reaches(&revoked, &server).await);
    // A shorter time left is not made longer.
    let mut short = fresh();
    short.succeed(&before, true, Instant::now() + Duration::from_millis(50));
    let mut later = fresh();
    later.succeed(&short, false, soon());
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert!(!reaches(&later, &server).await);
}

#[tokio::test]
async fn a_client_with_a_new_key_falls_back_on_its_old_one() {
    for pattern in ["XX", "IK", "KK"] {
        let [server, old, new] = pairs();
        let acceptor = noise_server(pattern, &server, Some(&old));
        let without = noise_client(pattern, &new, Some(&server));
        assert!(!reaches(&without, &acceptor).await, "{pattern}");
        let both = after(without, &noise_client(pattern, &old, Some(&server)));
        // In XX the client is done before the server has seen the key: it learns of the refusal too late.
        assert_eq!(reaches(&both, &acceptor).await, pattern != "XX", "{pattern}");
    }
}

#[tokio::test]
async fn a_server_with_the_new_pin_takes_the_old_client_too() {
    for pattern in CLIENT_SHOWS.into_iter().chain(CLIENT_HIDES) {
        let [own, old, new, other] = pairs();
        let before = noise_server(pattern, &own, Some(&old));
        let both = server_after(noise_server(pattern, &own, Some(&new)), &before);
        let without = noise_server(pattern, &own, Some(&new));
        let [old, new, other] = [old, new, other].map(|key| noise_client(pattern, &key, Some(&own)));
        assert!(!reaches(&old, &without).await && reaches(&new, &without).await, "{pattern}");
        assert!(reaches(&new, &both).await, "{pattern}");
        assert_eq!(reaches(&old, &both).await, CLIENT_SHOWS.contains(&pattern), "{pattern}");
        assert!(!reaches(&other, &both).await, "{pattern}: anybody is taken");
    }
}

#[tokio::test]
async fn a_server_with_a_new_key_is_reached_by_clients_that_know_the_old_one() {
    for pattern in SERVER_KNOWN {
        let [client, old, new, other] = pairs();
        let server = server_after(
            noise_server(pattern, &new, Some(&client)),
            &noise_server(pattern, &old, Some(&client)),
        );
        assert!(reaches(&noise_client(pattern, &client, Some(&old)), &server).await, "{pattern}");
        assert!(reaches(&noise_client(pattern, &client, Some(&new)), &server).await, "{pattern}");
        assert!(!reaches(&noise_client(pattern, &client, Some(&other)), &server).await, "{pattern}");
    }
}

#[tokio::test]
async fn a_server_s_grace_has_an_end() {
    let [own, old, new] = pairs();
    let mut server = noise_server("XX", &own, Some(&new));
    server.succeed(&noise_server("XX", &own, Some(&old)), true, Instant::now());
    assert!(!reaches(&noise_client("XX", &old, Some(&own)), &server).await);
    assert!(reaches(&noise_client("XX", &new, Some(&own)), &server).await);
}

#[tokio::test]
async fn what_checked_less_before_is_not_used_again() {
    let [own, old, new, stranger] = pairs();
    // No pin before, one now.
    let client = after(noise_client("XX", &own, Some(&new)), &noise_client("XX", &own, None));
    assert!(!reaches(&client, &noise_server("XX", &old, None)).await);
    let server = server_after(noise_server("XX", &own, Some(&new)), &noise_server("XX", &own, None));
    assert!(!reaches(&noise_client("XX", &stranger, Some(&own)), &server).await);
    // A pattern that proves nothing before, one that does now.
    let client = after(noise_client("NK", &own, Some(&new)), &noise_client("NN", &own, Some(&new)));
    assert!(!reaches(&client, &noise_server("NN", &old, None)).await);
    // No check now: then a pin of before refuses nobody.
    let server = server_after(noise_server("XX", &own, None), &noise_server("XX", &own, Some(&old)));
    assert!(reaches(&noise_client("XX", &stranger, Some(&own)), &server).await);
    // Another server than before: its key is not this one's.
    let mut client = noise_client("NK", &own, Some(&new));
    client.succeed(
        &client_of(ClientTransport::Noise(keys("NK", &own, Some(&old))), localhost(2)),
        true,
        soon(),
    );
    assert!(!reaches(&client, &noise_server("NK", &old, None)).await);
    // Another transport.
    let plain = client_of(ClientTransport::Tcp, localhost(1));
    let client = after(noise_client("NK", &own, Some(&new)), &plain);
    assert!(!reaches(&client, &Acceptor::Tcp).await);
}

/// Three identities, each with its own CA.
struct Identities([Certs; 3]);

impl Identities {
    fn new() -> Self {
        Identities(std::array::from_fn(|_| Certs::new(KeyKind::Ec)))
    }

    fn server(&self, which: usize) -> TlsServer {
        let Certs { chain, key, .. } = &self.0[which];
        TlsServer::Pem {
            cert: std::fs::read(chain).unwrap(),
            key: config::Secret::new(std::fs::read(key).unwrap()),
        }
    }

    fn client(&self, which: usize) -> TlsClient {
        TlsClient { hostname: None, trusted_root: Some(std::fs::read(&self.0[which].ca).unwrap()) }
    }
}

#[tokio::test]
async fn a_client_with_the_new_root_believes_the_old_certificate_too() {
    if !can_be_made("rotation of roots") {
        return;
    }
    let identities = Identities::new();
    for websocket in [false, true] {
        let client = |which| {
            let tls = identities.client(which);
            client(match websocket {
                false => ClientTransport::Tls(tls),
                true => ClientTransport::WebSocket { tls: Some(tls) },
            })
        };
        let server = |which| {
            let tls = identities.server(which);
            Acceptor::new(&match websocket {
                false => ServerTransport::Tls(tls),
                true => ServerTransport::WebSocket { tls: Some(tls) },
            })
            .unwrap()
        };
        let (old, new, other) = (server(0), server(1), server(2));
        assert!(!reaches(&client(1), &old).await);
        let both = after(client(1), &client(0));
        for server in [&old, &old, &new, &new, &old] {
            assert!(reaches(&both, server).await, "websocket {websocket}");
        }
        assert!(!reaches(&both, &other).await, "websocket {websocket}: anybody is believed");
        let mut revoked = client(1);
        revoked.succeed(&both, false, Instant::now());
        assert!(!reaches(&revoked, &old).await && reaches(&revoked, &new).await);
    }
    // From ws to wss there is no way back.
    let plain = client(ClientTransport::WebSocket { tls: None });
    let secure = after(client(ClientTransport::WebSocket { tls: Some(identities.client(1)) }), &plain);
    let server = Acceptor::new(&ServerTransport::WebSocket { tls: None }).unwrap();
    assert!(reaches(&plain, &server).await && !reaches(&secure, &server).await);
}

/// In words: in a random sequence of rotations, the checking end first, with other reloads in between, a client always
/// reaches its server.
#[tokio::test]
async fn random_rotations_never_lose_a_client() {
    for seed in 0..10 {
        let mut random = fastrand::Rng::with_seed(seed);
        let pattern = ["NK", "XX", "IK", "KK"][random.usize(..4)];
        let [mut client_key, mut server_key] = pairs();
        let mut client = noise_client(pattern, &client_key, Some(&server_key));
        let mut server = noise_server(pattern, &server_key, Some(&client_key));
        for step in 0..8 {
            match random.usize(..4) {
                0 => {
                    let new = Keypair::generate().unwrap();
                    client = after(noise_client(pattern, &client_key, Some(&new)), &client);
                    assert!(reaches(&client, &server).await, "seed {seed} step {step} {pattern}: pin");
                    server = server_after(noise_server(pattern, &new, Some(&client_key)), &server);
                    server_key = new;
                }
                1 => {
                    let new = Keypair::generate().unwrap();
                    server = server_after(noise_server(pattern, &server_key, Some(&new)), &server);
                    assert!(reaches(&client, &server).await, "seed {seed} step {step} {pattern}: client's");
                    client = after(noise_client(pattern, &new, Some(&server_key)), &client);
                    client_key = new;
                }
                2 => {
                    let mut again = noise_client(pattern, &client_key, Some(&server_key));
                    again.succeed(&client, false, soon());
                    client = again;
                }
                _ => {
                    let mut again = noise_server(pattern, &server_key, Some(&client_key));
                    again.succeed(&server, false, soon());
                    server = again;
                }
            }
            assert!(reaches(&client, &server).await, "seed {seed} step {step} {pattern}");
        }
    }
}

/// A server with one service, `echo`, at these ports.
async fn serve(transport: ServerTransport, control: u16, visitors: u16) -> (Scope, SocketAddr, SocketAddr) {
    let acceptor = Acceptor::new(&transport).unwrap();
    let services = [offered("echo", localhost(visitors))];
    let config = config::Server { transport, ..server_config(localhost(control), services) };
    let server = Server::bind(config, acceptor, Arc::default()).await.unwrap();
    let addresses = (server.control_addr().unwrap(), server.service_addr("echo").unwrap());
    let scope = Scope::new();
    scope.spawn(server.run(scope.clone()));
    (scope, addresses.0, addresses.1)
}

async fn visit(visitors: SocketAddr) {
    let talk = async {
        let mut visitor = TcpStream::connect(visitors).await?;
        visitor.write_all(b"ping").await?;
        let mut four = [0; 4];
        visitor.read_exact(&mut four).await?;
        std::io::Result::Ok(four)
    };
    let echoed = timeout(Duration::from_secs(30), talk).await.expect("no answer");
    assert_eq!(&echoed.unwrap(), b"ping");
}

/// One client process, first in front of a server with the old key, then of one with the new.
#[tokio::test]
async fn a_client_serves_visitors_before_and_after_the_server_s_key_is_replaced() {
    let [own, old, new] = pairs();
    let transport = |key| ServerTransport::Noise(keys("NK", key, None));
    let (server, control, visitors) = serve(transport(&old), 0, 0).await;
    let local = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let local_addr = local.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = local.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = tcp.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let noise = |pin| ClientTransport::Noise(keys("NK", &own, Some(pin)));
    let before = client_of(noise(&old), control);
    let services = [led_to("echo", local_addr)];
    let config = config::Client { transport: noise(&new), ..client_config(control, services) };
    let connector = after(Connector::new(&config).unwrap(), &before);
    let client = Scope::new();
    client.spawn(Client::new(config, connector, Arc::default()).run(client.clone()));
    for _ in 0..12 {
        visit(visitors).await;
    }
    server.cut();
    server.ended().await;
    let (server, _, visitors) = serve(transport(&new), control.port(), visitors.port()).await;
    for _ in 0..12 {
        visit(visitors).await;
    }
    for scope in [client, server] {
        scope.cut();
        scope.ended().await;
    }
}
