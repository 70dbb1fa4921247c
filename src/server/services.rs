//! The services that run: started, changed and ended as the configuration says. One task, which no peer can hold up.
//!
//! What it keeps: a service that a reload does not name is not touched; an established relay is never touched; an address
//! that cannot be bound is tried again until it can, or until a reload wants another, and the service keeps its old
//! address until then.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::listener::{Listeners, bind_all};
use super::registry::{Event, Service, Sockets};
use super::service::{Rules, TcpService};
use super::tokens::Tokens;
use super::{Settings, Shared, datagrams};
use crate::backoff::Backoff;
use crate::config::{self, Endpoint, Host, ServerKind, ServerService, diff};
use crate::reload::Outcome;
use crate::tasks::Scope;
use crate::transport::{Acceptor, tcp};

/// Events that wait for a service's task.
const MAX_EVENTS: usize = 1024;

/// A reload waits this long, in all, for names of addresses to resolve; then they are resolved behind its back.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest pause before an address is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A new configuration, and who waits for what comes of it.
pub struct Order {
    /// All of it.
    pub config: config::Server,
    /// Of its transport.
    pub acceptor: Acceptor,
    /// Where to say what was done.
    pub answer: oneshot::Sender<Outcome>,
}

/// Sockets that could be bound after all.
struct Bound {
    config: Arc<ServerService>,
    sockets: Sockets,
}

/// All services of a server.
pub struct Services {
    shared: Arc<Shared>,
    config: config::Server,
    running: BTreeMap<Arc<str>, Running>,
    bound: (mpsc::Sender<Bound>, mpsc::Receiver<Bound>),
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
    retries: Option<Scope>,
}

impl Services {
    /// None runs yet.
    pub fn new(shared: Arc<Shared>, config: config::Server, scope: Scope) -> Self {
        Services { shared, config, running: BTreeMap::new(), bound: mpsc::channel(1), scope }
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
                    let outcome = self.change(config, acceptor).await;
                    // Who asked may have lost interest.
                    let _ = answer.send(outcome);
                }
                Some(Bound { config, sockets }) = self.bound.1.recv() => self.bound_at_last(config, sockets).await,
                () = until(expiry) => {
                    for (service, peer) in self.shared.registry.expire(std::time::Instant::now()) {
                        tell_revoked(&service, peer);
                    }
                }
            }
        }
    }

    /// Makes the services what the new configuration says.
    async fn change(&mut self, mut config: config::Server, mut acceptor: Acceptor) -> Outcome {
        let before = self.shared.settings();
        let changes = diff::server(&self.config, &config);
        if changes.needs_restart.iter().any(|key| key.starts_with("transport")) {
            config.transport = self.config.transport.clone();
            acceptor = before.acceptor.clone();
        }
        config.bind_addr = self.config.bind_addr.clone();
        let until = std::time::Instant::now() + config.token_grace;
        acceptor.succeed(&before.acceptor, config.transport != self.config.transport, until);
        self.shared.set(Settings::new(&mut config, acceptor));
        let old = std::mem::replace(&mut self.config, config);
        self.end_some(&changes).await;
        // A grace that is over for all: also for services that are the same.
        let revoke = self.config.token_grace.is_zero() && !old.token_grace.is_zero();
        self.configure_some(&changes, rules_differ(&old, &self.config), revoke).await;
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
            if let Some(running) = self.running.remove(name) {
                if let Some(retries) = running.retries {
                    retries.cut();
                }
                ending.push(running.closed);
            }
        }
        for closed in ending {
            closed.cancelled().await;
        }
    }

    /// Starts new services, without sockets for now, and tells changed ones of their new rules.
    async fn configure_some(&mut self, changes: &diff::Changes, all: bool, revoke: bool) {
        let grace = self.config.token_grace;
        let services: Vec<_> = self.config.services.values().cloned().collect();
        for service in services {
            let name = service.name.clone();
            let changed = changes.changed.get(&name);
            if !self.running.contains_key(&name) {
                let none = match service.kind {
                    ServerKind::Tcp { .. } => Sockets::Tcp(Listeners::new(Vec::new())),
                    ServerKind::Udp => Sockets::Udp(Vec::new()),
                };
                self.launch(Arc::new(service), none, None);
                continue;
            }
            if changed.is_none() && !all && !revoke {
                continue;
            }
            let service = Arc::new(service);
            if changed.is_some() || revoke {
                let now = std::time::Instant::now();
                for peer in self.shared.registry.configure(service.clone(), grace, now) {
                    tell_revoked(&name, peer);
                }
            }
            let rules = Rules::new(&self.config, service.clone());
            if let Some(running) = self.running.get_mut(&name) {
                running.config = service;
                // Its task takes events at once: it waits for nobody.
                let _ = running.events.send(Event::Configured(Box::new(rules))).await;
            }
        }
    }

    /// Binds what is to be bound and is not; what fails, by key. Services may swap their addresses: those that are in
    /// each other's way give up theirs first, and get them back if that was in vain.
    async fn bind_missing(&mut self) -> Vec<(String, String)> {
        let deadline = Instant::now() + RESOLVE_TIMEOUT;
        let mut missing: Vec<Arc<ServerService>> = Vec::new();
        for running in self.running.values_mut() {
            if let Some(retries) = running.retries.take() {
                retries.cut();
            }
            if running.address.as_ref() != Some(&running.config.bind_addr) {
                missing.push(running.config.clone());
            }
        }
        // Each round but the last binds one or more.
        loop {
            let before = missing.len();
            missing =
                self.bind_each(missing, deadline).await.into_iter().map(|(service, _)| service).collect();
            if missing.is_empty() || missing.len() == before {
                break;
            }
        }
        let in_the_way = self.in_the_way(&missing);
        for name in in_the_way.keys() {
            self.listen(name, None).await;
        }
        let failed = self.bind_each(missing, deadline).await;
        for (name, address) in in_the_way {
            if self.running.get(&name).is_some_and(|running| running.address.is_none()) {
                self.restore(&name, address).await;
            }
        }
        let faults = failed.iter().map(|(service, fault)| (key(&service.name), fault.to_string())).collect();
        for (service, _) in failed {
            self.retry(service);
        }
        faults
    }

    /// Those whose address could not be bound.
    async fn bind_each(
        &mut self,
        services: Vec<Arc<ServerService>>,
        deadline: Instant,
    ) -> Vec<(Arc<ServerService>, io::Error)> {
        let mut failed = Vec::new();
        for service in services {
            let unresolved = || io::Error::new(io::ErrorKind::NotFound, "its name does not resolve yet");
            let bound = timeout_at(deadline, bind(&service)).await.unwrap_or_else(|_| Err(unresolved()));
            match bound {
                Ok(sockets) => self.listen(&service.name, Some((sockets, service.bind_addr.clone()))).await,
                Err(fault) => failed.push((service, fault)),
            }
        }
        failed
    }

    /// Services that are to move, and hold what one that is to move wants.
    fn in_the_way(&self, missing: &[Arc<ServerService>]) -> BTreeMap<Arc<str>, Endpoint> {
        let is_wanted = |held: &Endpoint| missing.iter().any(|service| may_overlap(&service.bind_addr, held));
        let holders = missing.iter().filter_map(|service| {
            let held = self.running.get(&service.name)?.address.clone()?;
            is_wanted(&held).then(|| (service.name.clone(), held))
        });
        holders.collect()
    }

    async fn restore(&mut self, name: &Arc<str>, address: Endpoint) {
        let Some(running) = self.running.get(name) else { return };
        let service = ServerService { bind_addr: address.clone(), ..(*running.config).clone() };
        match timeout_at(Instant::now() + RESOLVE_TIMEOUT, bind(&service)).await {
            Ok(Ok(sockets)) => self.listen(name, Some((sockets, address))).await,
            Ok(Err(error)) => tracing::error!(service = %name, %error, "its former address is lost, too"),
            Err(_) => tracing::error!(service = %name, %address, "its former address is lost, too"),
        }
    }

    /// Gives a service other sockets, or none, and waits until its former ones are closed.
    async fn listen(&mut self, name: &Arc<str>, sockets: Option<(Sockets, Endpoint)>) {
        let Some(running) = self.running.get_mut(name) else { return };
        let (sockets, address) = match (sockets, running.config.kind) {
            (Some((sockets, address)), _) => (sockets, Some(address)),
            (None, ServerKind::Tcp { .. }) => (Sockets::Tcp(Listeners::new(Vec::new())), None),
            (None, ServerKind::Udp) => (Sockets::Udp(Vec::new()), None),
        };
        running.address = address;
        let (done, closed) = oneshot::channel();
        if running.events.send(Event::Listen(sockets, done)).await.is_ok() {
            let _ = closed.await;
        }
    }

    /// Tries on behind everybody's back.
    fn retry(&mut self, service: Arc<ServerService>) {
        let Some(running) = self.running.get_mut(&service.name) else { return };
        let scope = self.scope.child();
        running.retries = Some(scope.clone());
        let bound = self.bound.0.clone();
        scope.clone().spawn_until_drain(async move {
            let mut backoff = Backoff::new(LONGEST_PAUSE);
            loop {
                sleep(backoff.pause(Duration::ZERO, fastrand::f64())).await;
                match bind(&service).await {
                    Ok(sockets) => {
                        let _ = bound.send(Bound { config: service, sockets }).await;
                        return;
                    }
                    Err(error) => tracing::debug!(service = %service.name, %error, "still not bound"),
                }
            }
        });
    }

    async fn bound_at_last(&mut self, config: Arc<ServerService>, sockets: Sockets) {
        let running = self.running.get_mut(&config.name);
        let Some(running) = running.filter(|running| running.config.bind_addr == config.bind_addr) else {
            return;
        };
        running.retries = None;
        tracing::info!(service = %config.name, address = %config.bind_addr, "service listens at last");
        self.listen(&config.name, Some((sockets, config.bind_addr.clone()))).await;
    }

    fn launch(&mut self, config: Arc<ServerService>, sockets: Sockets, address: Option<Endpoint>) {
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let own = self.scope.child();
        let shared = &self.shared;
        let tokens = Tokens::new(config.token.clone());
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

/// Binds a service's address; a name that does not resolve is waited for.
pub async fn bind(service: &ServerService) -> io::Result<Sockets> {
    let (address, what) = (&service.bind_addr, key(&service.name));
    match service.kind {
        ServerKind::Tcp { .. } => {
            let listeners = bind_all(address, &what, tcp::listen, TcpListener::local_addr).await?;
            Ok(Sockets::Tcp(Listeners::new(listeners)))
        }
        ServerKind::Udp => {
            let sockets = bind_all(address, &what, tcp::bind_udp, UdpSocket::local_addr).await?;
            Ok(Sockets::Udp(sockets.into_iter().map(Arc::new).collect()))
        }
    }
}

/// The key to blame when a service's address cannot be bound.
pub fn key(name: &str) -> String {
    format!("server.services.{name}.bind_addr")
}

/// Whether one cannot be bound while the other is. (TCP and UDP are never in each other's way; a needless pause of a
/// service that moves anyway does no harm.)
fn may_overlap(one: &Endpoint, other: &Endpoint) -> bool {
    let any = |host: &Host| match host {
        Host::Ip(ip) => ip.is_unspecified(),
        // What it resolves to is not known.
        Host::Name(_) => true,
    };
    one.port == other.port && (any(&one.host) || any(&other.host) || one.host == other.host)
}

/// Whether services that are the same in both are run by other rules.
fn rules_differ(old: &config::Server, new: &config::Server) -> bool {
    old.tcp != new.tcp || old.visitor_timeout != new.visitor_timeout
}

fn tell_revoked(service: &str, peer: SocketAddr) {
    tracing::warn!(%service, %peer, "control channel closed: its client knows only a token that is good no more");
}

async fn until(at: Option<std::time::Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
