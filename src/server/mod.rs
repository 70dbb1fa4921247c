//! The server: it has the public address; clients dial in, visitors come.
//!
//! ```text
//! listener  accepts, and does nothing else
//! door      where strangers wait: gate (how many, pure), strangers (failed authentications, pure), junk (the rest, pure)
//! session   one connection until it is known for a control or a data channel
//! admission a second client of a service: takeovers (who takes turns must wait, pure), pulse (is the first one alive)
//! forgetful a map that forgets what is of no use any more (pure)
//! services  starts, changes and ends services: what a reload does
//! tokens    a service's token, and those it had before (pure)
//! registry  services and sessions, behind one short lock
//! control   an authenticated control channel: commands out
//! service   one TCP service: visitors and channels meet in the pool
//! pool      who gets whom (pure), with requests (what was asked of the client) and stock (how many to keep idle)
//! idle      channels that wait for a visitor, watched
//! budget    what of the open files is for idle channels and for visitors that wait, of all services
//! seats     how many visitors a service has
//! visitor   StartForward, the relay, the log line
//! answer    whether the client's machine has acknowledged StartForward
//! datagrams one UDP service
//! refusals  visitors that are refused, told in few lines (pure)
//! ```

mod admission;
mod answer;
mod budget;
mod control;
mod datagrams;
mod door;
mod forgetful;
mod gate;
mod idle;
mod junk;
mod listener;
mod pool;
mod proxy_header;
mod pulse;
mod refusals;
mod registry;
mod requests;
mod seats;
mod seldom;
mod service;
mod services;
mod session;
mod stock;
mod strangers;
mod takeovers;
mod tokens;
mod visitor;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::config::{self, ServerService};
use crate::counters::Counters;
use crate::latest::{Latest, Source};
use crate::reload::{Outcome, Unbound};
use crate::tasks::Scope;
use crate::transport::{Acceptor, tcp};
use budget::Budget;
use door::Door;
use listener::{Listeners, bind_all, resolve_or_wait};
use registry::{Registry, SessionId, Sockets};
use services::{Order, Services};
use takeovers::Takeovers;

/// What new connections are treated by: a reload replaces it whole.
struct Settings {
    /// Without its services.
    config: config::Server,
    acceptor: Acceptor,
}

impl Settings {
    /// `config` keeps its services.
    fn new(config: &mut config::Server, acceptor: Acceptor) -> Self {
        let services = std::mem::take(&mut config.services);
        let without = config.clone();
        config.services = services;
        Settings { config: without, acceptor }
    }
}

/// What the tasks of a server share.
struct Shared {
    settings: Mutex<Arc<Settings>>,
    registry: Registry,
    counters: Arc<Counters>,
    door: Arc<Door>,
    takeovers: Mutex<Takeovers<SessionId>>,
    /// What all services share.
    budget: Arc<Budget>,
}

impl Shared {
    /// The present settings; who holds on to them keeps them, whatever is reloaded.
    fn settings(&self) -> Arc<Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The guard is never held across an await. A panic elsewhere leaves the table whole.
    fn takeovers(&self) -> MutexGuard<'_, Takeovers<SessionId>> {
        self.takeovers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server whose listeners are all bound: it may call itself ready.
pub struct Server {
    shared: Shared,
    config: config::Server,
    control: Listeners,
    services: Vec<(Arc<ServerService>, Sockets)>,
    orders: (mpsc::Sender<Order>, mpsc::Receiver<Order>),
    unbound: (Source<Unbound>, Latest<Unbound>),
}

/// Gives a running server another configuration.
#[derive(Clone)]
pub struct Handle {
    orders: mpsc::Sender<Order>,
    unbound: Latest<Unbound>,
}

impl Handle {
    /// Replaces the configuration. Services that are the same in both are not touched, and no relay is. An address that
    /// cannot be bound is a failure of its service alone: it is tried again and again.
    pub async fn reload(&self, config: config::Server, acceptor: Acceptor) -> Outcome {
        let (answer, outcome) = oneshot::channel();
        // Either fails when the server has ended.
        match self.orders.send(Order { config, acceptor, answer }).await {
            Ok(()) => outcome.await.ok(),
            // The order is in the error, with the other end of `outcome`: that is not waited for.
            Err(_) => None,
        }
        .unwrap_or_else(|| Outcome::not_running("server"))
    }

    /// The services that lack their address, as it is now and will be.
    pub fn unbound(&self) -> Latest<Unbound> {
        self.unbound.clone()
    }
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
        mut config: config::Server,
        acceptor: Acceptor,
        counters: Arc<Counters>,
    ) -> Result<Server, StartError> {
        // Before something fails for the want of it.
        budget::warn_if_short(config.services.len());
        let budget = Arc::new(Budget::new(config.services.len()));
        let at = |key: String| move |error: io::Error| StartError { key, message: error.to_string() };
        let addresses = resolve_or_wait(&config.bind_addr, "server.bind_addr").await;
        let control = bind_all(addresses, "server.bind_addr", tcp::listen, TcpListener::local_addr)
            .map_err(at("server.bind_addr".to_owned()))?;
        let mut services = Vec::with_capacity(config.services.len());
        for service in config.services.values() {
            let sockets = services::bind(service).await.map_err(at(services::key(&service.name)))?;
            services.push((Arc::new(service.clone()), sockets));
        }
        let shared = Shared {
            settings: Mutex::new(Arc::new(Settings::new(&mut config, acceptor))),
            registry: Registry::default(),
            door: Arc::new(Door::new(counters.clone())),
            counters,
            takeovers: Mutex::default(),
            budget,
        };
        Ok(Server {
            shared,
            config,
            control: Listeners::for_clients(control),
            services,
            orders: mpsc::channel(1),
            unbound: Source::new(Unbound::default()),
        })
    }

    /// For reloads while it runs.
    pub fn handle(&self) -> Handle {
        Handle { orders: self.orders.0.clone(), unbound: self.unbound.1.clone() }
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
        let Server { shared, config, mut control, services, orders: (_keep_open, orders), unbound } = self;
        tracing::info!(
            address = ?control.addresses(),
            transport = config.transport.name(),
            services = services.len(),
            "server is listening"
        );
        let shared = Arc::new(shared);
        let mut running = Services::new(shared.clone(), config, unbound.0, scope.clone());
        for (service, sockets) in services {
            running.start(service, sockets);
        }
        scope.spawn(running.run(orders));
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

/// Completes then; without a time, never.
async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
