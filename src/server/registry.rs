//! Who is who: services by digest, sessions by key. One short lock, which never leaves this file.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::control::Demand;
use crate::config::ServerService;
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
    /// A session's control channel is gone.
    ClientWent(SessionId),
    /// A data channel of a session.
    Channel(SessionId, Stream),
    /// A visitor whose channel failed before any of the visitor's bytes was written.
    Returned(super::visitor::Visitor),
}

/// A service, as a handshake needs it.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its configuration.
    pub config: Arc<ServerService>,
    /// Its task.
    pub events: mpsc::Sender<Event>,
    /// What lives as long as the service does.
    pub scope: Scope,
}

/// An authenticated session.
#[derive(Debug)]
struct Session {
    id: SessionId,
    service: Service,
    client: SocketAddr,
    scope: Scope,
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

    /// Makes a session the current one of its service; `scope` ends its control channel. An earlier one is cut, and
    /// its client's address returned.
    pub fn begin(
        &self,
        digest: ServiceDigest,
        key: SessionKey,
        service: Service,
        client: SocketAddr,
        scope: Scope,
    ) -> (SessionId, Option<SocketAddr>) {
        let mut inner = self.lock();
        inner.last_session += 1;
        let id = SessionId(inner.last_session);
        let replaced = inner.current.insert(digest, key).and_then(|old| inner.sessions.remove(&old));
        inner.sessions.insert(key, Session { id, service, client, scope });
        drop(inner);
        let replaced = replaced.map(|session| {
            session.scope.cut();
            session.client
        });
        (id, replaced)
    }

    /// Forgets a session whose control channel has ended, unless another took its place.
    pub fn end(&self, digest: &ServiceDigest, key: &SessionKey, id: SessionId) {
        let mut inner = self.lock();
        if inner.sessions.get(key).is_some_and(|session| session.id == id) {
            inner.sessions.remove(key);
            inner.current.remove(digest);
        }
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
