//! Configurations as values, and waiting, for tests that run the roles in their own process.

use std::net::SocketAddr;
use std::time::Duration;

use rathole::config::{
    self, ClientKind, ClientService, ClientTransport, Endpoint, Host, Secret, ServerKind, ServerService,
    ServerTransport, TcpOptions,
};

use super::PATIENCE;

/// A token of many.
pub fn token(n: u8) -> Secret {
    Secret::new(format!("a token that is long enough {n}"))
}

/// As a configuration has it.
pub fn at(address: SocketAddr) -> Endpoint {
    Endpoint { host: Host::Ip(address.ip()), port: address.port() }
}

/// A server's service.
pub fn offered(name: &str, address: SocketAddr) -> ServerService {
    ServerService {
        name: name.into(),
        bind_addr: at(address),
        token: token(1),
        nodelay: true,
        kind: ServerKind::Tcp { proxy_protocol: None },
        limits: config::Limits::DEFAULT,
        access: config::Access::default(),
    }
}

/// A client's service.
pub fn led_to(name: &str, local: SocketAddr) -> ClientService {
    ClientService {
        name: name.into(),
        local_addr: at(local),
        kind: ClientKind::Tcp,
        token: token(1),
        nodelay: true,
        retry_interval: Duration::from_secs(1),
    }
}

/// A server of these services.
pub fn server_config(
    control: SocketAddr,
    services: impl IntoIterator<Item = ServerService>,
) -> config::Server {
    config::Server {
        bind_addr: at(control),
        transport: ServerTransport::Tcp,
        tcp: TcpOptions::default(),
        heartbeat_interval: Some(Duration::from_secs(30)),
        handshake_timeout: Duration::from_secs(5),
        shutdown_grace: Duration::from_secs(3),
        visitor_timeout: Duration::from_secs(10),
        on_duplicate: config::OnDuplicate::Replace,
        token_grace: config::DEFAULT_TOKEN_GRACE,
        max_unauthenticated: config::MaxUnauthenticated::DEFAULT,
        services: services.into_iter().map(|service| (service.name.clone(), service)).collect(),
    }
}

/// A client of these services.
pub fn client_config(
    control: SocketAddr,
    services: impl IntoIterator<Item = ClientService>,
) -> config::Client {
    config::Client {
        remote_addr: at(control),
        transport: ClientTransport::Tcp,
        tcp: TcpOptions::default(),
        proxy: None,
        heartbeat_timeout: Some(Duration::from_secs(40)),
        handshake_timeout: Duration::from_secs(5),
        shutdown_grace: Duration::from_secs(3),
        token_grace: config::DEFAULT_TOKEN_GRACE,
        services: services.into_iter().map(|service| (service.name.clone(), service)).collect(),
    }
}

/// What must not last.
pub async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("not in time")
}

/// Looks until it holds, for events that nothing announces.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < until, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
