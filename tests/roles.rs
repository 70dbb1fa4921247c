//! The two roles in one process, through the library: what a visitor sees.
#![cfg(all(feature = "server", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use common::values::{at, client_config, eventually, led_to, offered, server_config, token, within};
use rathole::client::Client;
use rathole::config;
use rathole::counters::Counters;
use rathole::server::Server;
use rathole::tasks::Scope;
use rathole::transport::{Acceptor, Connector};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const NAME: &str = "echo";

fn localhost(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn one_service() -> config::Server {
    server_config(localhost(0), [offered(NAME, localhost(0))])
}

/// A running server and client in front of `local`.
struct Tunnel {
    visitors: SocketAddr,
    counters: Arc<Counters>,
    scope: Scope,
}

impl Tunnel {
    async fn start(server: config::Server, client_token: u8, local: u16) -> Tunnel {
        let scope = Scope::new();
        let counters = Arc::new(Counters::default());
        let acceptor = Acceptor::new(&server.transport).unwrap();
        let server = Server::bind(server, acceptor, counters.clone()).await.unwrap();
        let control = server.control_addr().unwrap();
        let visitors = server.service_addr(NAME).unwrap();
        scope.spawn(server.run(scope.clone()));
        let mut service = led_to(NAME, localhost(local));
        service.token = token(client_token);
        let config = client_config(control, [service]);
        let connector = Connector::new(&config).unwrap();
        scope.spawn(Client::new(config, connector, Arc::default()).run(scope.clone()));
        Tunnel { visitors, counters, scope }
    }
}

#[tokio::test]
async fn a_visitor_is_served_and_half_close_is_kept() {
    let local = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tunnel = Tunnel::start(one_service(), 1, local.local_addr().unwrap().port()).await;
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
    assert_eq!(tunnel.counters.up.load(Relaxed), 8);
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_the_visitor_reset() {
    let mut config = one_service();
    config.visitor_timeout = Duration::ZERO;
    let tunnel = Tunnel::start(config, 2, 1).await;
    eventually("a refusal", || tunnel.counters.rejected.load(Relaxed) > 0).await;
    let mut visitor = TcpStream::connect(tunnel.visitors).await.unwrap();
    let reset = within(visitor.read(&mut [0])).await.unwrap_err();
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    tunnel.scope.cut();
    within(tunnel.scope.ended()).await;
}

#[tokio::test]
async fn an_occupied_address_is_an_error_that_names_it() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = one_service();
    config.bind_addr = at(other.local_addr().unwrap());
    let error = Server::bind(config, Acceptor::Tcp, Arc::default()).await.err().unwrap();
    assert_eq!(error.key, "server.bind_addr");
    assert!(error.message.contains(&other.local_addr().unwrap().to_string()), "{error}");
}
