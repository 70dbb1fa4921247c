//! Keys and certificates are replaced by reloads, the checking end first, while visitors come: none notices.
#![cfg(all(feature = "server", feature = "client", feature = "tls", feature = "noise"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use common::certs::{Certs, KeyKind, can_be_made};
use common::values::{client_config, led_to, offered, server_config};
use rathole::client::Client;
use rathole::config::{self, ClientTransport, Noise, Secret, ServerTransport, TlsClient, TlsServer};
use rathole::reload::Outcome;
use rathole::server::Server;
use rathole::tasks::Scope;
use rathole::transport::noise::Keypair;
use rathole::transport::{Acceptor, Connector};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

const NAME: &str = "stream";

fn localhost(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn server_of(transport: ServerTransport) -> config::Server {
    config::Server { transport, ..server_config(localhost(0), [offered(NAME, localhost(0))]) }
}

fn client_of(transport: ClientTransport, server: SocketAddr, local: SocketAddr) -> config::Client {
    config::Client { transport, ..client_config(server, [led_to(NAME, local)]) }
}

/// Sends, for each byte it gets, as many bytes as the byte says, one after the other.
async fn local_service() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                while let Ok(count) = tcp.read_u8().await {
                    for at in 0..count {
                        if tcp.write_u8(at).await.is_err() {
                            return;
                        }
                        if count > 1 {
                            sleep(Duration::from_millis(5)).await;
                        }
                    }
                }
            });
        }
    });
    address
}

async fn ask(visitor: &mut TcpStream, count: u8) -> std::io::Result<()> {
    visitor.write_u8(count).await?;
    for at in 0..count {
        assert_eq!(visitor.read_u8().await?, at);
    }
    Ok(())
}

/// Visitors that come all the time, and what became of them.
#[derive(Default)]
struct Visitors {
    served: AtomicU32,
    stop: AtomicBool,
}

impl Visitors {
    /// A new one every 20 ms, each for one byte, until told to stop; fails with the first that is not served.
    async fn come(self: Arc<Self>, address: SocketAddr) {
        let mut all = tokio::task::JoinSet::new();
        while !self.stop.load(Relaxed) {
            let visitors = self.clone();
            all.spawn(async move {
                let mut visitor = TcpStream::connect(address).await.unwrap();
                let served = timeout(Duration::from_secs(30), ask(&mut visitor, 1)).await;
                served.expect("a visitor hangs").expect("a visitor was cut");
                visitors.served.fetch_add(1, Relaxed);
            });
            sleep(Duration::from_millis(20)).await;
        }
        while let Some(visitor) = all.join_next().await {
            visitor.unwrap();
        }
    }

    /// Waits until `more` have been served from now on.
    async fn served(&self, more: u32) {
        let until = self.served.load(Relaxed) + more;
        let enough = async {
            while self.served.load(Relaxed) < until {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(60), enough).await.expect("visitors are not served any more");
    }
}

fn only_the_transport(outcome: &Outcome, role: &str) {
    let settings = vec![format!("{role}.transport")];
    assert_eq!(*outcome, Outcome { settings, ..Outcome::default() });
}

/// One side of a rotation: what is replaced, with a configuration before and after it.
struct Rotation {
    server: [ServerTransport; 2],
    client: [ClientTransport; 2],
    /// Which side checks what is replaced.
    client_first: bool,
}

async fn rotate(rotation: Rotation) {
    let Rotation { server: [old_server, new_server], client: [old_client, new_client], client_first } =
        rotation;
    let scope = Scope::new();
    let config = server_of(old_server.clone());
    let server = Server::bind(config, Acceptor::new(&old_server).unwrap(), Arc::default()).await.unwrap();
    let (control, address) = (server.control_addr().unwrap(), server.service_addr(NAME).unwrap());
    let at_server = server.handle();
    scope.spawn(server.run(scope.clone()));
    let local = local_service().await;
    let config = client_of(old_client, control, local);
    let connector = Connector::new(&config).unwrap();
    let client = Client::new(config, connector, Arc::default());
    let at_client = client.handle();
    scope.spawn(client.run(scope.clone()));

    let visitors = Arc::new(Visitors::default());
    let coming = tokio::spawn(visitors.clone().come(address));
    let mut long = TcpStream::connect(address).await.unwrap();
    ask(&mut long, 2).await.unwrap();
    visitors.served(20).await;
    let reload_client = async || {
        let config = client_of(new_client.clone(), control, local);
        let connector = Connector::new(&config).unwrap();
        only_the_transport(&at_client.reload(config, connector).await, "client");
    };
    let reload_server = async || {
        // The addresses are those of the start: port 0 is what the configuration says.
        let config = server_of(new_server.clone());
        let acceptor = Acceptor::new(&new_server).unwrap();
        only_the_transport(&at_server.reload(config, acceptor).await, "server");
    };
    if client_first {
        reload_client().await;
    } else {
        reload_server().await;
    }
    visitors.served(40).await;
    ask(&mut long, 2).await.unwrap();
    if client_first {
        reload_server().await;
    } else {
        reload_client().await;
    }
    // While both happens a download goes on.
    ask(&mut long, 200).await.unwrap();
    visitors.served(40).await;
    visitors.stop.store(true, Relaxed);
    coming.await.unwrap();
    scope.cut();
    scope.ended().await;
}

fn keys(pattern: &str, own: &Keypair, peer: &Keypair) -> Noise {
    Noise {
        pattern: format!("Noise_{pattern}_25519_ChaChaPoly_BLAKE2s"),
        local_private_key: Some(own.private.clone()),
        remote_public_key: Some(peer.public),
    }
}

#[tokio::test]
async fn the_server_s_noise_key() {
    for pattern in ["IK", "XX"] {
        let [client, old, new] = [(); 3].map(|()| Keypair::generate().unwrap());
        rotate(Rotation {
            server: [&old, &new].map(|key| ServerTransport::Noise(keys(pattern, key, &client))),
            client: [&old, &new].map(|key| ClientTransport::Noise(keys(pattern, &client, key))),
            client_first: true,
        })
        .await;
    }
}

#[tokio::test]
async fn the_client_s_noise_key() {
    for pattern in ["IK", "KK", "XX"] {
        let [server, old, new] = [(); 3].map(|()| Keypair::generate().unwrap());
        rotate(Rotation {
            server: [&old, &new].map(|key| ServerTransport::Noise(keys(pattern, &server, key))),
            client: [&old, &new].map(|key| ClientTransport::Noise(keys(pattern, key, &server))),
            client_first: false,
        })
        .await;
    }
}

/// Where the client knows the server's key beforehand, the order does not matter between two of ours, and neither does
/// it to a client that cannot have two pins.
#[tokio::test]
async fn the_server_s_noise_key_the_server_first() {
    let [client, old, new] = [(); 3].map(|()| Keypair::generate().unwrap());
    rotate(Rotation {
        server: [&old, &new].map(|key| ServerTransport::Noise(keys("IK", key, &client))),
        client: [&old, &new].map(|key| ClientTransport::Noise(keys("IK", &client, key))),
        client_first: false,
    })
    .await;
}

#[tokio::test]
async fn the_certificate_and_its_root() {
    if !can_be_made("rotation of certificates") {
        return;
    }
    let [old, new] = [Certs::new(KeyKind::Ec), Certs::new(KeyKind::Ec)];
    let read = |path: &std::path::Path| std::fs::read(path).unwrap();
    let server =
        |certs: &Certs| TlsServer::Pem { cert: read(&certs.chain), key: Secret::new(read(&certs.key)) };
    let client = |certs: &Certs| TlsClient { hostname: None, trusted_root: Some(read(&certs.ca)) };
    rotate(Rotation {
        server: [&old, &new].map(|certs| ServerTransport::Tls(server(certs))),
        client: [&old, &new].map(|certs| ClientTransport::Tls(client(certs))),
        client_first: true,
    })
    .await;
}
