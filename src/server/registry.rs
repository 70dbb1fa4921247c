//! Who is who: services by digest, sessions by key. One short lock, which never leaves this file.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

use super::control::Demand;
use super::listener::Listeners;
use super::service::Rules;
use super::tokens::Tokens;
use crate::config::{Secret, ServerService};
use crate::tasks::Scope;
use crate::transport::Stream;
use crate::wire::{ServiceDigest, SessionKey};

/// Names a session within this process; a later one has a greater number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(u64);

/// What a service's task is told.
#[derive(Debug)]
pub enum Event {
    /// A client was authenticated; an earlier session of the service is over.
    ClientCame {
        /// Its session.
        session: SessionId,
        /// Where channels are asked for.
        demand: Arc<Demand>,
    },
    /// A session's control channel is gone, and no other has taken its place.
    ClientWent {
        /// Its session.
        session: SessionId,
        /// Whether that is because its token is good no more: then no new visitor may come to that client.
        revoked: bool,
    },
    /// A data channel of a session.
    Channel(SessionId, Stream),
    /// A visitor whose channel failed before any of the visitor's bytes was written.
    Returned(super::visitor::Visitor),
    /// Other rules from now on: a reload.
    Configured(Box<Rules>),
    /// Other sockets from now on. Visitors who have connected to the former ones, and were not accepted yet, are served as
    /// all others; soon those are closed, and then the other end is told.
    Listen(Sockets, oneshot::Sender<()>),
}

/// Where a service's visitors come.
#[derive(Debug)]
pub enum Sockets {
    /// Of a TCP service.
    Tcp(Listeners),
    /// Of a UDP service.
    Udp(Vec<Arc<UdpSocket>>),
}

/// A service, as a handshake needs it.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its configuration.
    pub config: Arc<ServerService>,
    /// What authenticates its client.
    pub tokens: Arc<Tokens>,
    /// Its task.
    pub events: mpsc::Sender<Event>,
    /// What lives as long as the service does.
    pub scope: Scope,
}

/// An authenticated session.
#[derive(Debug)]
struct Session {
    id: SessionId,
    /// What it was authenticated with.
    token: Secret,
    service: Service,
    client: SocketAddr,
    scope: Scope,
    demand: Arc<Demand>,
}

/// A session to be.
#[derive(Debug)]
pub struct NewSession {
    /// The service's digest.
    pub digest: ServiceDigest,
    /// What its data channels present.
    pub key: SessionKey,
    /// What it was authenticated with.
    pub token: Secret,
    /// The service.
    pub service: Service,
    /// The client's address.
    pub client: SocketAddr,
    /// Ends its control channel.
    pub scope: Scope,
    /// Where its channels are asked for.
    pub demand: Arc<Demand>,
}

/// The current session of a service, as a newcomer sees it.
#[derive(Debug)]
pub struct Incumbent {
    /// Which.
    pub session: SessionId,
    /// Its client's address.
    pub client: SocketAddr,
    /// Drains when its control channel is to end.
    pub scope: Scope,
    /// For its pulse.
    pub demand: Arc<Demand>,
    /// Whether it was authenticated with the token that the service has now.
    pub is_present: bool,
}

/// A session that has lost its place.
#[derive(Debug)]
#[must_use = "its control channel is open until it is cut"]
pub struct Replaced {
    /// Which.
    pub session: SessionId,
    /// Its client's address.
    pub client: SocketAddr,
    scope: Scope,
}

impl Replaced {
    /// Ends its control channel.
    pub fn cut(self) {
        self.scope.cut();
    }
}

/// Whose place a session may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Whoever is there.
    Anyone,
    /// This session's, or a free one: somebody else may have come in the meantime.
    Only(Option<SessionId>),
    /// This session's, whose client is dead: then it does not count that it knew the present token.
    Dead(SessionId),
}

/// Why a session cannot begin.
#[derive(Debug, PartialEq, Eq)]
pub enum Denied {
    /// Another session than was thought has the place.
    Taken,
    /// The client at this address knows the present token, the newcomer only an earlier one.
    Outdone(SocketAddr),
    /// Its token is good no more, or its service is gone: a reload was faster.
    Revoked,
}

/// Where a data channel goes.
#[derive(Debug)]
pub struct Route {
    /// Whose it is.
    pub session: SessionId,
    /// To which service.
    pub service: Service,
}

/// All services and sessions of a server.
#[derive(Debug, Default)]
pub struct Registry(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last_session: u64,
    services: HashMap<ServiceDigest, Service>,
    /// The current session of each service.
    current: HashMap<ServiceDigest, SessionKey>,
    sessions: HashMap<SessionKey, Session>,
}

impl Registry {
    /// Adds a service.
    pub fn add(&self, service: Service) {
        let digest = ServiceDigest::of(&service.config.name);
        self.lock().services.insert(digest, service);
    }

    /// The service with this digest.
    pub fn service(&self, digest: &ServiceDigest) -> Option<Service> {
        self.lock().services.get(digest).cloned()
    }

    /// The current session of a service.
    pub fn incumbent(&self, digest: &ServiceDigest) -> Option<Incumbent> {
        let inner = self.lock();
        let session = inner.sessions.get(inner.current.get(digest)?)?;
        let present = inner.services.get(digest);
        Some(Incumbent {
            session: session.id,
            client: session.client,
            scope: session.scope.clone(),
            demand: session.demand.clone(),
            is_present: present.is_some_and(|present| present.tokens.is_present(&session.token)),
        })
    }

    /// Whether a service's present token is this one.
    pub fn is_present(&self, digest: &ServiceDigest, token: &Secret) -> bool {
        self.lock().services.get(digest).is_some_and(|service| service.tokens.is_present(token))
    }

    /// Gives a service another configuration. A token that it replaces is good for as long as `grace`; the addresses of
    /// clients whose token is good no more, and whose control channels were closed for that, are returned.
    pub fn configure(&self, config: Arc<ServerService>, grace: Duration, now: Instant) -> Vec<SocketAddr> {
        let digest = ServiceDigest::of(&config.name);
        let mut inner = self.lock();
        let Inner { services, current, sessions, .. } = &mut *inner;
        let Some(service) = services.get_mut(&digest) else { return Vec::new() };
        Arc::make_mut(&mut service.tokens).set(&config.token, grace, now);
        service.config = config.clone();
        if let Some(session) = current.get(&digest).and_then(|key| sessions.get_mut(key)) {
            session.service.config = config;
        }
        inner.close_revoked(&digest, now)
    }

    /// Closes the control channels of clients whose token is good no more; by service, their addresses.
    pub fn expire(&self, now: Instant) -> Vec<(Arc<str>, SocketAddr)> {
        let mut inner = self.lock();
        let mut ended = Vec::new();
        for (digest, service) in &mut inner.services {
            if service.tokens.next_end().is_some_and(|end| end <= now) {
                Arc::make_mut(&mut service.tokens).expire(now);
                ended.push((*digest, service.config.name.clone()));
            }
        }
        let mut closed = Vec::new();
        for (digest, name) in ended {
            closed.extend(inner.close_revoked(&digest, now).into_iter().map(|client| (name.clone(), client)));
        }
        closed
    }

    /// When [`Registry::expire`] has something to do next.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.lock().services.values().filter_map(|service| service.tokens.next_end()).min()
    }

    /// Forgets a service and closes its control channel. Its relays go on.
    pub fn remove(&self, name: &str) {
        let digest = ServiceDigest::of(name);
        let mut inner = self.lock();
        let service = inner.services.remove(&digest);
        let key = inner.current.remove(&digest);
        key.and_then(|key| inner.sessions.remove(&key));
        drop(inner);
        if let Some(service) = service {
            service.scope.drain();
        }
    }

    /// Makes a session the current one of its service. An earlier one is returned: the caller cuts it. Nothing that was
    /// found out before counts: a reload may have come since.
    pub fn begin(
        &self,
        new: NewSession,
        over: Over,
        now: Instant,
    ) -> Result<(SessionId, Option<Replaced>), Denied> {
        let NewSession { digest, key, token, service, client, scope, demand } = new;
        let mut inner = self.lock();
        let Some(present) = inner.services.get(&digest) else { return Err(Denied::Revoked) };
        if !present.events.same_channel(&service.events) || !present.tokens.is_good(&token, now) {
            return Err(Denied::Revoked);
        }
        if let Some(old) = inner.current.get(&digest).and_then(|key| inner.sessions.get(key)) {
            let outdone = present.tokens.is_present(&old.token) && !present.tokens.is_present(&token);
            match over {
                Over::Dead(expected) if old.id == expected => {}
                _ if outdone => return Err(Denied::Outdone(old.client)),
                Over::Only(expected) if Some(old.id) != expected => return Err(Denied::Taken),
                Over::Dead(_) => return Err(Denied::Taken),
                Over::Anyone | Over::Only(_) => {}
            }
        }
        let service = Service { config: present.config.clone(), ..service };
        inner.last_session += 1;
        let id = SessionId(inner.last_session);
        let replaced = inner.current.insert(digest, key).and_then(|old| inner.sessions.remove(&old));
        inner.sessions.insert(key, Session { id, token, service, client, scope, demand });
        drop(inner);
        let replaced =
            replaced.map(|Session { id, client, scope, .. }| Replaced { session: id, client, scope });
        Ok((id, replaced))
    }

    /// Forgets a session whose control channel has ended; says whether its service has none now: another may have taken
    /// its place.
    pub fn end(&self, digest: &ServiceDigest, key: &SessionKey, id: SessionId) -> bool {
        let mut inner = self.lock();
        if inner.sessions.get(key).is_some_and(|session| session.id == id) {
            inner.sessions.remove(key);
            inner.current.remove(digest);
        }
        !inner.current.contains_key(digest)
    }

    /// Whether a token is good for a service.
    pub fn is_good(&self, digest: &ServiceDigest, token: &Secret, now: Instant) -> bool {
        self.lock().services.get(digest).is_some_and(|service| service.tokens.is_good(token, now))
    }

    /// Where a data channel with this key goes.
    pub fn route(&self, key: &SessionKey) -> Option<Route> {
        let inner = self.lock();
        let session = inner.sessions.get(key)?;
        Some(Route { session: session.id, service: session.service.clone() })
    }

    /// A panic elsewhere leaves the maps whole: each change is one call.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn close_revoked(&mut self, digest: &ServiceDigest, now: Instant) -> Vec<SocketAddr> {
        let Some(service) = self.services.get(digest) else { return Vec::new() };
        let revoked = self.current.get(digest).copied().filter(|key| {
            self.sessions.get(key).is_some_and(|session| !service.tokens.is_good(&session.token, now))
        });
        let Some(key) = revoked else { return Vec::new() };
        self.current.remove(digest);
        let session = self.sessions.remove(&key);
        session
            .into_iter()
            .map(|session| {
                session.scope.cut();
                session.client
            })
            .collect()
    }
}
