//! What a running server and client do with another configuration: both in this process, changed through their handles.

#![cfg(all(feature = "server", feature = "client", feature = "hot-reload"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;

mod addresses;
mod client_side;
mod limits;
mod log;
mod peer;
mod queue;
mod random;
mod services;
mod storm;
mod tokens;
mod traffic;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rathole::client::Client;
use rathole::config::{
    self, ClientKind, ClientService, Endpoint, Host, ServerKind, ServerService, ServerTransport,
};
use rathole::counters::Counters;
use rathole::reload::Outcome;
use rathole::server::Server;
use rathole::tasks::Scope;
use rathole::transport::{Acceptor, Connector};
use rathole::{client, server};

use common::net;
use common::values::{at, client_config, eventually, led_to, offered, server_config, token, within};

/// Held for writing while a process is started: between fork and exec it has every socket of this one, and an address
/// that was just given up is still in use. Held for reading by reloads, which must find such addresses free.
static FORKS: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

/// Runs a test of this program again, in a process of its own with this variable; what it wrote. It must be good.
fn alone(test: &str, variable: &str) -> String {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(variable, "1");
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let forks = FORKS.blocking_write();
    let child = command.spawn().unwrap();
    drop(forks);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text.into_owned()
}

/// A running server and client. The configurations are what they were given last; change them and reload.
struct Tunnel {
    server: config::Server,
    client: config::Client,
    server_handle: server::Handle,
    client_handle: client::Handle,
    server_counters: Arc<Counters>,
    client_scope: Scope,
    scope: Scope,
}

impl Tunnel {
    /// With TCP services of these names, in front of these local services.
    async fn start(services: &[(&str, SocketAddr)]) -> Tunnel {
        let control = net::address();
        let (mut server, mut client) = (server_config(control, []), client_config(control, []));
        for (name, local) in services {
            server.services.insert((*name).into(), offered(name, net::address()));
            client.services.insert((*name).into(), led_to(name, *local));
        }
        Tunnel::start_with(server, client).await
    }

    /// Of whole configurations; each TCP service has its client then.
    async fn start_with(server: config::Server, client: config::Client) -> Tunnel {
        log::collect();
        let scope = Scope::new();
        let server_counters = Arc::new(Counters::default());
        let acceptor = Acceptor::new(&server.transport).unwrap();
        let running = Server::bind(server.clone(), acceptor, server_counters.clone()).await.unwrap();
        let server_handle = running.handle();
        scope.spawn(running.run(scope.clone()));
        let client_scope = scope.child();
        let client_handle = start_client(&client, &client_scope);
        let tunnel =
            Tunnel { server, client, server_handle, client_handle, server_counters, client_scope, scope };
        tunnel.wait_for_clients(tunnel.client.services.len()).await;
        tunnel
    }

    fn visitors(&self, name: &str) -> SocketAddr {
        address(&self.server.services[name].bind_addr)
    }

    fn offered(&mut self, name: &str) -> &mut ServerService {
        self.server.services.get_mut(name).unwrap()
    }

    fn led_to(&mut self, name: &str) -> &mut ClientService {
        self.client.services.get_mut(name).unwrap()
    }

    /// Gives the server its configuration, as it is now.
    async fn reload_server(&self) -> Outcome {
        let acceptor = Acceptor::new(&self.server.transport).unwrap();
        let _no_forks = FORKS.read().await;
        within(self.server_handle.reload(self.server.clone(), acceptor)).await
    }

    /// The same, with nothing failed and nothing left for a restart.
    async fn reload_server_well(&self) -> Outcome {
        let outcome = self.reload_server().await;
        assert!(outcome.failed.is_empty() && outcome.needs_restart.is_empty(), "{outcome:?}");
        outcome
    }

    /// Gives the client its configuration, as it is now.
    async fn reload_client(&self) -> Outcome {
        let connector = Connector::new(&self.client).unwrap();
        within(self.client_handle.reload(self.client.clone(), connector)).await
    }

    /// Kills the client, relays and all, and starts it anew.
    async fn restart_client(&mut self) {
        self.client_scope.cut();
        self.client_scope = self.scope.child();
        self.client_handle = start_client(&self.client, &self.client_scope);
    }

    /// Control channels that the server has.
    fn channels(&self) -> u64 {
        self.server_counters.channels.load(Relaxed)
    }

    /// Waits until so many more visitors have come and been led on.
    async fn serves(&self, more: u64) {
        let visitors = || self.server_counters.visitors.load(Relaxed);
        let enough = visitors() + more;
        eventually("visitors", || visitors() >= enough).await;
    }

    async fn wait_for_clients(&self, count: usize) {
        eventually(&format!("{count} control channels"), || self.channels() == count as u64).await;
    }

    async fn end(self) {
        self.scope.cut();
        within(self.scope.ended()).await;
    }
}

fn start_client(config: &config::Client, scope: &Scope) -> client::Handle {
    let connector = Connector::new(config).unwrap();
    let client = Client::new(config.clone(), connector, Arc::default());
    let handle = client.handle();
    scope.spawn(client.run(scope.clone()));
    handle
}

fn address(endpoint: &Endpoint) -> SocketAddr {
    match &endpoint.host {
        Host::Ip(ip) => SocketAddr::new(*ip, endpoint.port),
        Host::Name(name) => panic!("{name} is a name"),
    }
}

fn names(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| (*name).into()).collect()
}
