//! The services that run: started, changed and ended as the configuration says. One task, which no peer can hold up.
//!
//! What it keeps: a service that a reload does not name is not touched; an established relay is never touched; an address
//! that cannot be bound is tried again until it can, or until a reload wants another, and the service keeps its old
//! address until then.

mod binding;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::registry::{Event, Service, Sockets};
use super::service::{Rules, TcpService};
use super::tokens::Tokens;
use super::{Settings, Shared, budget, datagrams, until};
use crate::config::diff;
use crate::config::{self, Endpoint, ServerService};
use crate::latest::Source;
use crate::reload::{Outcome, Unbound};
use crate::tasks::Scope;
use crate::transport::Acceptor;
use binding::{Bound, Retries, no_sockets};
pub use binding::{bind, key};

/// Events that wait for a service's task.
const MAX_EVENTS: usize = 1024;

/// A new configuration, and who waits for what comes of it.
pub struct Order {
    /// All of it.
    pub config: config::Server,
    /// Of its transport.
    pub acceptor: Acceptor,
    /// Where to say what was done.
    pub answer: oneshot::Sender<Outcome>,
}

/// All services of a server.
pub struct Services {
    shared: Arc<Shared>,
    config: config::Server,
    running: BTreeMap<Arc<str>, Running>,
    bound: (mpsc::Sender<Bound>, mpsc::Receiver<Bound>),
    /// Each completes when sockets that were given up are closed: at the latest, a reload waits for that.
    leaving: Vec<oneshot::Receiver<()>>,
    /// Those that lack their address, for who tells of them.
    unbound: Source<Unbound>,
    scope: Scope,
}

struct Running {
    config: Arc<ServerService>,
    events: mpsc::Sender<Event>,
    /// The address that its sockets have; None: it has no sockets.
    address: Option<Endpoint>,
    /// Cancelled when its task has ended and its sockets are closed.
    closed: CancellationToken,
    /// Its attempts to bind an address, if it lacks one.
    retries: Option<Retries>,
}

impl Services {
    /// None runs yet.
    pub fn new(shared: Arc<Shared>, config: config::Server, unbound: Source<Unbound>, scope: Scope) -> Self {
        Services {
            shared,
            config,
            running: BTreeMap::new(),
            bound: mpsc::channel(1),
            leaving: Vec::new(),
            unbound,
            scope,
        }
    }

    /// Starts a service on sockets that are bound.
    pub fn start(&mut self, config: Arc<ServerService>, sockets: Sockets) {
        let address = Some(config.bind_addr.clone());
        self.launch(config, sockets, address);
    }

    /// Takes orders until the scope drains.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let scope = self.scope.clone();
        loop {
            let expiry = self.shared.registry.next_expiry();
            tokio::select! {
                biased;
                () = scope.draining() => return,
                Some(Order { config, acceptor, answer }) = orders.recv() => {
                    tokio::select! {
                        biased;
                        // A stop waits for no name to resolve.
                        () = scope.draining() => return,
                        // Who asked may have lost interest.
                        outcome = self.change(config, acceptor) => drop(answer.send(outcome)),
                    }
                }
                Some(bound) = self.bound.1.recv() => self.bound_at_last(bound).await,
                () = until(expiry.map(Into::into)) => {
                    for (service, peer) in self.shared.registry.expire(std::time::Instant::now()) {
                        tell_revoked(&service, peer);
                    }
                }
            }
        }
    }

    /// Makes the services what the new configuration says.
    async fn change(&mut self, config: config::Server, mut acceptor: Acceptor) -> Outcome {
        self.stop_retries().await;
        let before = self.shared.settings();
        let changes = diff::server(&self.config, &config);
        let new_transport = config.transport.clone();
        let mut config = diff::without_restart(&self.config, config);
        if config.transport == new_transport {
            let until = std::time::Instant::now() + config.token_grace;
            acceptor.succeed(&before.acceptor, config.transport != self.config.transport, until);
        } else {
            acceptor = before.acceptor.clone();
        }
        self.shared.set(Settings::new(&mut config, acceptor));
        let old = std::mem::replace(&mut self.config, config);
        budget::warn_if_short(self.config.services.len());
        let before = self.shared.budget.at_first();
        self.shared.budget.set_services(self.config.services.len());
        let shares_differ = before != self.shared.budget.at_first();
        self.end_some(&changes).await;
        self.configure_some(&changes, &old, shares_differ).await;
        let failed = self.bind_missing().await;
        Outcome {
            added: changes.added,
            removed: changes.removed,
            changed: changes.changed.into_keys().collect(),
            settings: changes.settings.into_iter().map(|key| format!("server.{key}")).collect(),
            needs_restart: changes.needs_restart.into_iter().map(|key| format!("server.{key}")).collect(),
            failed,
        }
    }

    /// Ends services that are gone, or that are others of the same name, and waits until their sockets are closed.
    async fn end_some(&mut self, changes: &diff::Changes) {
        let others = changes.changed.iter().filter(|(_, change)| change.kind).map(|(name, _)| name);
        let mut ending = Vec::new();
        for name in changes.removed.iter().chain(others) {
            self.shared.registry.remove(name);
            ending.extend(self.running.remove(name).map(|running| running.closed));
        }
        for closed in ending {
            closed.cancelled().await;
        }
    }

    /// Starts new services, without sockets for now, and tells those that run of what is other for them.
    async fn configure_some(&mut self, changes: &diff::Changes, old: &config::Server, shares_differ: bool) {
        let grace = self.config.token_grace;
        let (rules_differ, grace_differs) = (rules_differ(old, &self.config), grace != old.token_grace);
        let is_concerned = |service: &&ServerService| {
            let changed = changes.changed.contains_key(&service.name);
            changed
                || rules_differ
                || grace_differs
                || shares_differ
                || !self.running.contains_key(&service.name)
        };
        let concerned: Vec<_> = self.config.services.values().filter(is_concerned).cloned().collect();
        for service in concerned {
            let service = Arc::new(service);
            let Some(running) = self.running.get_mut(&service.name) else {
                let none = no_sockets(service.kind);
                self.launch(service, none, None);
                continue;
            };
            running.config = service.clone();
            let now = std::time::Instant::now();
            for peer in self.shared.registry.configure(service.clone(), grace, now) {
                tell_revoked(&service.name, peer);
            }
            let rules = Rules::new(&self.config, service);
            // Its task takes events at once: it waits for nobody.
            let _ = running.events.send(Event::Configured(Box::new(rules))).await;
        }
    }

    fn launch(&mut self, config: Arc<ServerService>, sockets: Sockets, address: Option<Endpoint>) {
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let own = self.scope.child();
        let shared = &self.shared;
        let tokens = Arc::new(Tokens::new(config.token.clone()));
        let service = Service { config: config.clone(), tokens, events: sender.clone(), scope: own.clone() };
        shared.registry.add(service);
        let closed = CancellationToken::new();
        let at_end = closed.clone().drop_guard();
        let counters = shared.counters.clone();
        let rules = Rules::new(&self.config, config.clone());
        match sockets {
            Sockets::Tcp(listeners) => {
                let (relays, door) = (self.scope.clone(), shared.door.clone());
                let budget = shared.budget.clone();
                let service =
                    TcpService { rules, budget, counters, events: sender.downgrade(), relays, door };
                self.scope.spawn(async move {
                    let _at_end = at_end;
                    service.run(listeners, events, own).await;
                });
            }
            Sockets::Udp(sockets) => {
                let service = datagrams::UdpService::new(config.clone(), self.scope.clone(), counters);
                self.scope.spawn(async move {
                    let _at_end = at_end;
                    service.run(sockets, events, own).await;
                });
            }
        }
        let name = config.name.clone();
        self.running.insert(name, Running { config, events: sender, address, closed, retries: None });
    }
}

impl Shared {
    fn set(&self, settings: Settings) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }
}

/// Whether services that are the same in both are run by other rules.
fn rules_differ(old: &config::Server, new: &config::Server) -> bool {
    old.tcp != new.tcp || old.visitor_timeout != new.visitor_timeout
}

fn tell_revoked(service: &str, peer: SocketAddr) {
    tracing::warn!(%service, %peer, "control channel closed: its client knows only a token that is good no more");
}
