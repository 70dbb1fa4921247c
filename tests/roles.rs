//! The two roles in one process, through the library: what a visitor sees.
#![cfg(all(feature = "server", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rathole::client::Client;
use rathole::config::{
    self, ClientKind, ClientService, ClientTransport, Endpoint, Host, Secret, ServerKind, ServerService,
    ServerTransport, TcpOptions,
};
use rathole::counters::Counters;
use rathole::server::Server;
use rathole::tasks::Scope;
use rathole::transport::{Acceptor, Connector};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const LOCALHOST: Host = Host::Ip(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

fn at(port: u16) -> Endpoint {
    Endpoint { host: LOCALHOST, port }
}

fn server_config(token: &str) -> config::Server {
    let name: Arc<str> = "echo".into();
    let service = ServerService {
        name: name.clone(),
        bind_addr: at(0),
        token: Secret::new(token),
        nodelay: true,
        kind: ServerKind::Tcp { proxy_protocol: None },
        limits: rathole::config::Limits::DEFAULT,
        access: rathole::config::Access::default(),
    };
    config::Server {
        bind_addr: at(0),
        transport: ServerTransport::Tcp,
        tcp: TcpOptions::default(),
        heartbeat_interval: Some(Duration::from_secs(30)),
        handshake_timeout: Duration::from_secs(5),
        shutdown_grace: Duration::from_secs(3),
        visitor_timeout: Duration::from_secs(10),
        on_duplicate: rathole::config::OnDuplicate::Replace,
        token_grace: rathole::config::DEFAULT_TOKEN_GRACE,
        max_unauthenticated: rathole::config::MaxUnauthenticated::DEFAULT,
        services: BTreeMap::from([(name, service)]),
    }
}

fn client_config(server: u16, local: u16, token: &str) -> config::Client {
    let name: Arc<str> = "echo".into();
    let service = ClientService {
        name: name.clone(),
        local_addr: at(local),
        kind: ClientKind::Tcp,
        token: Secret::new(token),
        nodelay: true,
        retry_interval: Duration::from_secs(1),
    };
    config::Client {
        remote_addr: at(server),
        transport: ClientTransport::Tcp,
        tcp: TcpOptions::default(),
        proxy: None,
        heartbeat_timeout: Some(Duration::from_secs(40)),
        handshake_timeout: Duration::from_secs(5),
        shutdown_grace: Duration::from_secs(3),
        token_grace: rathole::config::DEFAULT_TOKEN_GRACE,
        services: BTreeMap::from([(name, service)]),
    }
}

/// A running server and client in front of `local`.
struct Tunnel {
    visitors: std::net::SocketAddr,
    counters: Arc<Counters>,
    scope: Scope,
}

async fn tunnel(local: u16, client_token: &str) -> Tunnel {
    let scope = Scope::new();
    let counters = Arc::new(Counters::default());
    let config = server_config("a sufficiently long token");
    let acceptor = Acceptor::new(&config.transport).unwrap();
    let server = Server::bind(config, acceptor, counters.clone()).await.unwrap();
    let control = server.control_addr().unwrap();
    let visitors = server.service_addr("echo").unwrap();
    scope.spawn(server.run(scope.clone()));
    let config = client_config(control.port(), local, client_token);
    let connector = Connector::new(&config).unwrap();
    let client = Client::new(config, connector, Arc::new(Counters::default()));
    scope.spawn(client.run(scope.clone()));
    Tunnel { visitors, counters, scope }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what).await.expect("not in time")
}

#[tokio::test]
async fn a_visitor_is_served_and_half_close_is_kept() {
    let local = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tunnel = tunnel(local.local_addr().unwrap().port(), "a sufficiently long token").await;
    tokio::spawn(async move {
        let (mut tcp, _) = local.accept().await.unwrap();
        let mut all = Vec::new();
        // The answer begins only after the visitor's end of stream.
        tcp.read_to_end(&mut all).await.unwrap();
        all.reverse();
        tcp.write_all(&all).await.unwrap();
    });
    let mut visitor = TcpStream::connect(tunnel.visitors).await.unwrap();
    visitor.write_all(b"stressed").await.unwrap();
    visitor.shutdown().await.unwrap();
    let mut answer = String::new();
    within(visitor.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "desserts");
    tunnel.scope.drain();
    within(tunnel.scope.ended()).await;
    assert_eq!(tunnel.counters.up.load(std::sync::atomic::Ordering::Relaxed), 8);
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_the_visitor_reset() {
    let mut config = server_config("right");
    config.visitor_timeout = Duration::ZERO;
    let tunnel = tunnel(1, "wrong").await;
    let counters = tunnel.counters.clone();
    within(async {
        while counters.rejected.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    tunnel.scope.cut();
    within(tunnel.scope.ended()).await;
}

#[tokio::test]
async fn an_occupied_address_is_an_error_that_names_it() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = server_config("a sufficiently long token");
    config.bind_addr = at(other.local_addr().unwrap().port());
    let error = Server::bind(config, Acceptor::Tcp, Arc::default()).await.err().unwrap();
    assert_eq!(error.key, "server.bind_addr");
    assert!(error.message.contains(&other.local_addr().unwrap().to_string()), "{error}");
}
