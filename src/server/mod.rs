//! The server: it has the public address; clients dial in, visitors come.
//!
//! ```text
//! listener  accepts, and does nothing else
//! session   one connection until it is known for a control or a data channel
//! registry  services and sessions, behind one short lock
//! control   an authenticated control channel: commands out
//! service   one TCP service: visitors and channels meet in the pool
//! pool      who gets whom (pure), with requests (what was asked of the client) and stock (how many to keep idle)
//! idle      channels that wait for a visitor, watched
//! budget    idle channels of all services
//! seats     how many visitors a service has
//! visitor   StartForward, the relay, the log line
//! datagrams one UDP service
//! refusals  visitors that are refused, told in few lines (pure)
//! strangers failed authentications, told in few lines (pure)
//! ```

mod budget;
mod control;
mod datagrams;
mod idle;
mod listener;
mod pool;
mod proxy_header;
mod refusals;
mod registry;
mod requests;
mod seats;
mod service;
mod session;
mod stock;
mod strangers;
mod visitor;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::config::{self, ServerKind, ServerService};
use crate::counters::Counters;
use crate::tasks::Scope;
use crate::transport::{Acceptor, tcp};
use budget::Budget;
use listener::{Listeners, bind_all};
use registry::{Registry, Service};
use strangers::{Line, Strangers};

/// Connections in their handshake, all together; more are closed at once.
const MAX_HANDSHAKES: usize = 4096;

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
    /// What all services may keep idle.
    budget: Arc<Budget>,
    strangers: Mutex<Strangers>,
    stranger_came: Notify,
}

impl Shared {
    /// The present settings; who holds on to them keeps them, whatever is reloaded.
    fn settings(&self) -> Arc<Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The guard is never held across an await. A panic elsewhere leaves the table whole.
    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
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
            counters,
            budget: Arc::new(Budget::of_process()),
            strangers: Mutex::default(),
            stranger_came: Notify::new(),
        };
        Ok(Server { shared, control: Listeners::new(control), services })
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
        scope.spawn_until_drain(tell_of_strangers(shared.clone()));
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        loop {
            let (tcp, peer) = tokio::select! {
                () = scope.draining() => break,
                accepted = control.accept() => accepted,
            };
            let Ok(permit) = handshakes.clone().try_acquire_owned() else {
                Counters::add(&shared.counters.rejected, 1);
                tracing::debug!(%peer, "connection closed: too many are in their handshake");
                continue;
            };
            let shared = shared.clone();
            scope.spawn_until_drain(async move {
                session::serve(shared, tcp, peer).await;
                drop(permit);
            });
        }
    }
}

/// Tells, from time to time, of failed authentications that were only counted. Sleeps while there are none.
async fn tell_of_strangers(shared: Arc<Shared>) {
    loop {
        shared.stranger_came.notified().await;
        while !shared.strangers().is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let lines = shared.strangers().on_time(Instant::now());
            lines.iter().for_each(tell);
        }
    }
}

/// What was only counted is told without its reasons.
fn tell(line: &Line) {
    let failures = line.failures;
    match line.address {
        Some(peer) => tracing::info!(%peer, failures, "authentication failed, more than once"),
        None => tracing::info!(failures, "authentication failed, from many more addresses"),
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
    match sockets {
        Sockets::Tcp(listeners) => {
            let rules = service::Rules::new(server, config);
            let (budget, relays) = (shared.budget.clone(), scope.clone());
            let service = service::TcpService { rules, budget, counters, events: weak, relays };
            scope.spawn(service.run(listeners, events, own));
        }
        Sockets::Udp(sockets) => {
            let service = datagrams::UdpService::new(config, sockets, counters);
            scope.spawn(service.run(events, own));
        }
    }
}
