//! The addresses of services: bound, exchanged, tried again.
//!
//! What it keeps: a service has its old address until it has the new one, unless another is to have it; a service that
//! waits for a name, or for an address to be free, holds up no other.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::super::listener::{Listeners, bind_all, resolve_or_wait};
use super::super::registry::{Event, Sockets};
use super::{Running, Services};
use crate::backoff::Backoff;
use crate::config::{Endpoint, Host, ServerKind, ServerService, quoted};
use crate::tasks::Scope;
use crate::transport::tcp;

/// A reload waits this long, in all, for names of addresses to resolve; then they are resolved behind its back.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// And this long for each of them.
const NAME_TIMEOUT: Duration = Duration::from_secs(1);

/// And this long for sockets to be closed that were given up: no service's client can hold it up for longer.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest pause before an address is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Sockets that could be bound after all.
pub(super) struct Bound {
    config: Arc<ServerService>,
    sockets: Sockets,
}

/// A task that tries to bind an address.
pub(super) struct Retries {
    scope: Scope,
    /// Cancelled when it has ended: it holds no sockets any more.
    ended: CancellationToken,
}

/// A service whose address could not be bound, and why.
type Failed = (Arc<ServerService>, io::Error);

impl Services {
    /// Binds what is to be bound and is not; what fails, by key. When it is done former addresses are free.
    pub(super) async fn bind_missing(&mut self) -> Vec<(String, String)> {
        let is_missing = |running: &&Running| running.address.as_ref() != Some(&running.config.bind_addr);
        let mut missing: Vec<_> =
            self.running.values().filter(is_missing).map(|running| running.config.clone()).collect();
        // Those whose address is known wait for no name.
        missing.sort_by_key(|service| matches!(service.bind_addr.host, Host::Name(_)));
        let deadline = Instant::now() + RESOLVE_TIMEOUT;
        let failed = self.bind_each(missing, deadline).await;
        let failed = self.make_way(failed, deadline).await;
        let faults: Vec<_> =
            failed.iter().map(|(service, fault)| (key(&service.name), fault.to_string())).collect();
        let named = failed.iter().map(|(service, fault)| (service.name.clone(), fault.to_string().into()));
        self.unbound.set(named.collect());
        for (service, _) in failed {
            self.retry(service);
        }
        self.all_left().await;
        faults
    }

    /// Those whose address could not be bound.
    async fn bind_each(&mut self, services: Vec<Arc<ServerService>>, deadline: Instant) -> Vec<Failed> {
        let mut failed = Vec::new();
        for service in services {
            let until = deadline.min(Instant::now() + NAME_TIMEOUT);
            match timeout_at(until, bind_now(&service)).await.unwrap_or_else(|_| Err(unresolved())) {
                Ok(sockets) => self.listen(&service.name, Some((sockets, service.bind_addr.clone()))).await,
                Err(fault) => failed.push((service, fault)),
            }
        }
        failed
    }

    /// Services may swap their addresses: those that are in the way of others, and are to move anyway, give up theirs
    /// first, and get them back if they could not move.
    async fn make_way(&mut self, failed: Vec<Failed>, deadline: Instant) -> Vec<Failed> {
        let in_the_way = self.in_the_way(&failed);
        for (name, _) in &in_the_way {
            self.listen(name, None).await;
        }
        if failed.iter().any(is_in_use) {
            self.all_left().await;
        }
        let (again, mut failed): (Vec<_>, Vec<_>) = failed.into_iter().partition(is_in_use);
        failed
            .extend(self.bind_each(again.into_iter().map(|(service, _)| service).collect(), deadline).await);
        for (name, address) in in_the_way {
            if self.running.get(&name).is_some_and(|running| running.address.is_none()) {
                self.restore(&name, address).await;
            }
        }
        failed
    }

    /// Those among these services that hold what another of them wants, or what a new address of their own overlaps.
    fn in_the_way(&self, failed: &[Failed]) -> Vec<(Arc<str>, Endpoint)> {
        let mut wanted: HashMap<(bool, u16), Vec<&Host>> = HashMap::new();
        for (service, _) in failed.iter().filter(|failed| is_in_use(failed)) {
            let hosts = wanted.entry((is_tcp(service), service.bind_addr.port)).or_default();
            hosts.push(&service.bind_addr.host);
        }
        let holders = failed.iter().filter_map(|(service, _)| {
            let held = self.running.get(&service.name)?.address.clone()?;
            let hosts = wanted.get(&(is_tcp(service), held.port))?;
            hosts.iter().any(|host| may_overlap(host, &held.host)).then(|| (service.name.clone(), held))
        });
        holders.collect()
    }

    async fn restore(&mut self, name: &Arc<str>, address: Endpoint) {
        let Some(running) = self.running.get(name) else { return };
        let service = ServerService { bind_addr: address.clone(), ..(*running.config).clone() };
        let bound = timeout_at(Instant::now() + NAME_TIMEOUT, bind_now(&service)).await;
        match bound.unwrap_or_else(|_| Err(unresolved())) {
            Ok(sockets) => self.listen(name, Some((sockets, address))).await,
            Err(error) => tracing::error!(service = %name, %error, "its former address is lost, too"),
        }
    }

    /// Gives a service other sockets, or none. Its former ones are closed soon: [`Services::all_left`].
    async fn listen(&mut self, name: &Arc<str>, sockets: Option<(Sockets, Endpoint)>) {
        let Some(running) = self.running.get_mut(name) else { return };
        let (sockets, address) = match sockets {
            Some((sockets, address)) => (sockets, Some(address)),
            None => (no_sockets(running.config.kind), None),
        };
        running.address = address;
        let (done, closed) = oneshot::channel();
        // If its task has ended, its sockets are closed.
        let _ = running.events.send(Event::Listen(sockets, done)).await;
        self.leaving.push(closed);
    }

    /// Waits until all sockets are closed that were given up, but not for ever: what is held by those that are not cannot be
    /// bound, and is tried again.
    async fn all_left(&mut self) {
        let until = Instant::now() + LEAVE_TIMEOUT;
        for closed in self.leaving.drain(..) {
            if timeout_at(until, closed).await.is_err() {
                return tracing::warn!("some sockets that were given up are not closed yet");
            }
        }
    }

    /// Tries on behind everybody's back.
    fn retry(&mut self, service: Arc<ServerService>) {
        let Some(running) = self.running.get_mut(&service.name) else { return };
        let (scope, ended) = (self.scope.child(), CancellationToken::new());
        running.retries = Some(Retries { scope: scope.clone(), ended: ended.clone() });
        let (at_end, bound) = (ended.drop_guard(), self.bound.0.clone());
        scope.spawn_until_drain(async move {
            let _at_end = at_end;
            let mut backoff = Backoff::new(LONGEST_PAUSE);
            loop {
                sleep(backoff.pause(Duration::ZERO, fastrand::f64())).await;
                match bind_now(&service).await {
                    Ok(sockets) => {
                        let _ = bound.send(Bound { config: service, sockets }).await;
                        return;
                    }
                    Err(error) => tracing::debug!(service = %service.name, %error, "still not bound"),
                }
            }
        });
    }

    /// What they have bound in the meantime is taken, or closed: it must not be in the way of what comes now.
    pub(super) async fn stop_retries(&mut self) {
        let stopped: Vec<_> =
            self.running.values_mut().filter_map(|running| running.retries.take()).collect();
        stopped.iter().for_each(|retries| retries.scope.cut());
        for retries in stopped {
            retries.ended.cancelled().await;
        }
        while let Ok(bound) = self.bound.1.try_recv() {
            self.bound_at_last(bound).await;
        }
    }

    pub(super) async fn bound_at_last(&mut self, Bound { config, sockets }: Bound) {
        let Some(running) = self.running.get_mut(&config.name) else { return };
        running.retries = None;
        self.unbound.change(|unbound| drop(unbound.remove(&config.name)));
        tracing::info!(service = %config.name, address = %config.bind_addr, "service listens at last");
        self.listen(&config.name, Some((sockets, config.bind_addr.clone()))).await;
    }
}

/// Binds a service's address; a name that does not resolve is waited for.
pub async fn bind(service: &ServerService) -> io::Result<Sockets> {
    let addresses = resolve_or_wait(&service.bind_addr, &key(&service.name)).await;
    bind_to(service, addresses)
}

/// Binds a service's address, if its name resolves now.
async fn bind_now(service: &ServerService) -> io::Result<Sockets> {
    bind_to(service, tcp::resolve(&service.bind_addr).await?)
}

fn bind_to(service: &ServerService, addresses: Vec<SocketAddr>) -> io::Result<Sockets> {
    let what = key(&service.name);
    match service.kind {
        ServerKind::Tcp { .. } => {
            let listeners = bind_all(addresses, &what, tcp::listen, TcpListener::local_addr)?;
            Ok(Sockets::Tcp(Listeners::new(listeners)))
        }
        ServerKind::Udp => {
            let sockets = bind_all(addresses, &what, tcp::bind_udp, UdpSocket::local_addr)?;
            Ok(Sockets::Udp(sockets.into_iter().map(Arc::new).collect()))
        }
    }
}

pub(super) fn no_sockets(kind: ServerKind) -> Sockets {
    match kind {
        ServerKind::Tcp { .. } => Sockets::Tcp(Listeners::new(Vec::new())),
        ServerKind::Udp => Sockets::Udp(Vec::new()),
    }
}

fn unresolved() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "its name does not resolve yet")
}

fn is_in_use((_, fault): &Failed) -> bool {
    fault.kind() == io::ErrorKind::AddrInUse
}

fn is_tcp(service: &ServerService) -> bool {
    matches!(service.kind, ServerKind::Tcp { .. })
}

/// The key to blame when a service's address cannot be bound.
pub fn key(name: &str) -> String {
    format!("server.services.{}.bind_addr", quoted(name))
}

/// Whether one cannot be bound while the other is, on the same port.
fn may_overlap(one: &Host, other: &Host) -> bool {
    let any = |host: &Host| match host {
        Host::Ip(ip) => ip.is_unspecified(),
        // What it resolves to is not known.
        Host::Name(_) => true,
    };
    any(one) || any(other) || one == other
}
