//! The server: it has the public address; clients dial in, visitors come.
//!
//! ```text
//! listener  accepts, and does nothing else
//! door      where strangers wait: gate (how many, pure), strangers (failed authentications, pure), junk (the rest, pure)
//! session   one connection until it is known for a control or a data channel
//! admission a second client of a service: takeovers (who takes turns must wait, pure), pulse (is the first one alive)
//! registry  services and sessions, behind one short lock
//! control   an authenticated control channel: commands out
//! service   one TCP service: visitors and channels meet in the pool
//! pool      who gets whom (pure)
//! visitor   StartForward, the relay, the log line
//! datagrams one UDP service
//! ```

mod admission;
mod control;
mod datagrams;
mod door;
mod gate;
mod junk;
mod listener;
mod pool;
mod proxy_header;
mod pulse;
mod registry;
mod seldom;
mod service;
mod session;
mod strangers;
mod takeovers;
mod visitor;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;

use crate::config::{self, ServerKind, ServerService};
use crate::counters::Counters;
use crate::tasks::Scope;
use crate::transport::{Acceptor, tcp};
use door::Door;
use listener::{Listeners, bind_all};
use registry::{Registry, Service};
use takeovers::Takeovers;

/// Events that wait for a service's task.
const MAX_EVENTS: usize = 1024;

/// What new connections are treated by: a reload replaces it whole.
struct Settings {
    config: config::Server,
    acceptor: Acceptor,
}

/// What the tasks of a server share.
struct Shared {
    settings: Mutex<Arc<Settings>>,
    registry: Registry,
    counters: Arc<Counters>,
    door: Arc<Door>,
    takeovers: Mutex<Takeovers>,
}

impl Shared {
    /// The present settings; who holds on to them keeps them, whatever is reloaded.
    fn settings(&self) -> Arc<Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The guard is never held across an await. A panic elsewhere leaves the table whole.
    fn takeovers(&self) -> MutexGuard<'_, Takeovers> {
        self.takeovers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server whose listeners are all bound: it may call itself ready.
pub struct Server {
    shared: Shared,
    control: Listeners,
    services: Vec<(Arc<ServerService>, Sockets)>,
}

enum Sockets {
    Tcp(Listeners),
    Udp(Vec<Arc<UdpSocket>>),
}

/// Why a server cannot start.
#[derive(Debug)]
pub struct StartError {
    /// The key to blame, for example `server.services.ssh.bind_addr`.
    pub key: String,
    /// What failed.
    pub message: String,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

impl std::error::Error for StartError {}

impl Server {
    /// Binds all listeners. A name that does not resolve (yet) is waited for, with a warning at each attempt; an
    /// address that cannot be bound is an error.
    pub async fn bind(
        config: config::Server,
        acceptor: Acceptor,
        counters: Arc<Counters>,
    ) -> Result<Server, StartError> {
        let at = |key: String| move |error: io::Error| StartError { key, message: error.to_string() };
        let control = bind_all(&config.bind_addr, "server.bind_addr", tcp::listen, TcpListener::local_addr)
            .await
            .map_err(at("server.bind_addr".to_owned()))?;
        let mut services = Vec::with_capacity(config.services.len());
        for service in config.services.values() {
            let key = format!("server.services.{}.bind_addr", service.name);
            let address = &service.bind_addr;
            let sockets = match service.kind {
                ServerKind::Tcp { .. } => bind_all(address, &key, tcp::listen, TcpListener::local_addr)
                    .await
                    .map(|listeners| Sockets::Tcp(Listeners::new(listeners))),
                ServerKind::Udp => bind_all(address, &key, tcp::bind_udp, UdpSocket::local_addr)
                    .await
                    .map(|sockets| Sockets::Udp(sockets.into_iter().map(Arc::new).collect())),
            };
            services.push((Arc::new(service.clone()), sockets.map_err(at(key))?));
        }
        let shared = Shared {
            settings: Mutex::new(Arc::new(Settings { config, acceptor })),
            registry: Registry::default(),
            door: Arc::new(Door::new(counters.clone())),
            counters,
            takeovers: Mutex::default(),
        };
        Ok(Server { shared, control: Listeners::for_clients(control), services })
    }

    /// Where clients connect: the first of its addresses.
    pub fn control_addr(&self) -> Option<SocketAddr> {
        self.control.addresses().first().copied()
    }

    /// Where a service's visitors come: the first of its addresses.
    pub fn service_addr(&self, name: &str) -> Option<SocketAddr> {
        let (_, sockets) = self.services.iter().find(|(service, _)| &*service.name == name)?;
        match sockets {
            Sockets::Tcp(listeners) => listeners.addresses().first().copied(),
            Sockets::Udp(sockets) => sockets.first().and_then(|socket| socket.local_addr().ok()),
        }
    }

    /// Serves until the scope drains; what is still relayed then belongs to the scope.
    pub async fn run(self, scope: Scope) {
        let Server { shared, mut control, services } = self;
        let settings = shared.settings();
        tracing::info!(
            address = ?control.addresses(),
            transport = settings.config.transport.name(),
            services = services.len(),
            "server is listening"
        );
        let shared = Arc::new(shared);
        for (service, sockets) in services {
            start_service(&shared, &settings.config, service, sockets, &scope);
        }
        let door = shared.door.clone();
        scope.spawn_until_drain(door.clone().tell());
        loop {
            let (tcp, peer) = tokio::select! {
                () = scope.draining() => break,
                accepted = control.accept(&door) => accepted,
            };
            let guest = door.enter(peer, shared.settings().config.max_unauthenticated);
            scope.spawn_until_drain(session::serve(shared.clone(), tcp, peer, guest));
        }
        door.tell_rest();
    }
}

fn start_service(
    shared: &Shared,
    server: &config::Server,
    config: Arc<ServerService>,
    sockets: Sockets,
    scope: &Scope,
) {
    let (sender, events) = mpsc::channel(MAX_EVENTS);
    let weak = sender.downgrade();
    let own = scope.child();
    shared.registry.add(Service { config: config.clone(), events: sender, scope: own.clone() });
    let counters = shared.counters.clone();
    match (sockets, config.kind) {
        (Sockets::Tcp(listeners), kind) => {
            let ServerKind::Tcp { proxy_protocol } = kind else { return };
            let service = service::TcpService {
                config,
                proxy_protocol,
                tcp: server.tcp,
                visitor_timeout: server.visitor_timeout,
                counters,
                events: weak,
                relays: scope.clone(),
                door: shared.door.clone(),
            };
            scope.spawn(service.run(listeners, events, own));
        }
        (Sockets::Udp(sockets), _) => {
            let service = datagrams::UdpService { config, sockets, counters };
            scope.spawn(service.run(events, own));
        }
    }
}
