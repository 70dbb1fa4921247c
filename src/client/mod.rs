//! The client: it dials out to the server and connects visitors to local services.
//!
//! ```text
//! control  one for each service: connect, authenticate, obey, reconnect
//! session  one authenticated control channel: what the server asks for is done
//! limits   what a server may ask for
//! troubles why there is no control channel, or local service, in few lines
//! data     one data channel: dial, wait for its visitor, connect to the local service, relay
//! ```

mod control;
mod data;
mod limits;
mod session;
mod troubles;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::config::{self, ClientService, diff};
use crate::counters::Counters;
use crate::latest::{Inbox, Outbox, Source};
use crate::reload::Outcome;
use crate::tasks::Scope;
use crate::transport::Connector;
use troubles::Troubles;

/// A client; nothing is opened before [`Client::run`].
pub struct Client {
    config: config::Client,
    connector: Connector,
    counters: Arc<Counters>,
    orders: Inbox<Order>,
}

/// How the server is reached, and how long anything may take. A reload replaces it whole.
struct Settings {
    /// Without its services: each has a [`Wanted`].
    config: config::Client,
    connector: Connector,
}

/// What a service's tasks are to do: a reload replaces it, and they see that.
#[derive(Clone)]
struct Wanted {
    settings: Arc<Settings>,
    service: Arc<ClientService>,
}

/// What the tasks of a client share.
struct Shared {
    counters: Arc<Counters>,
    /// Where relays live: they outlast control channels.
    relays: Scope,
    troubles: Mutex<Troubles>,
    unreachable: Mutex<Troubles>,
}

impl Shared {
    /// With control channels.
    fn troubles(&self) -> MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With local services.
    fn unreachable(&self) -> MutexGuard<'_, Troubles> {
        self.unreachable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A new configuration, and who waits for what comes of it.
struct Order {
    config: config::Client,
    connector: Connector,
    answer: oneshot::Sender<Outcome>,
}

/// Gives a running client another configuration.
#[derive(Clone)]
pub struct Handle(Outbox<Order>);

impl Handle {
    /// Replaces the configuration. Services that are the same in both are not touched, and no relay is; where the way
    /// to the server, or a token, is another one, the new control channel is there before the old one is closed.
    pub async fn reload(&self, config: config::Client, connector: Connector) -> Outcome {
        let (answer, outcome) = oneshot::channel();
        // Either fails when the client has ended.
        let outcome = match self.0.send(Order { config, connector, answer }).await {
            true => outcome.await.ok(),
            false => None,
        };
        outcome.unwrap_or_else(|| Outcome::not_running("client"))
    }
}

impl Client {
    /// Of resolved parts.
    pub fn new(config: config::Client, connector: Connector, counters: Arc<Counters>) -> Self {
        Client { config, connector, counters, orders: Inbox::default() }
    }

    /// For reloads while it runs.
    pub fn handle(&self) -> Handle {
        Handle(self.orders.outbox())
    }

    /// Serves until the scope drains; what is still relayed then belongs to the scope.
    pub async fn run(self, scope: Scope) {
        let Client { config, connector, counters, mut orders } = self;
        tracing::info!(
            server = %config.remote_addr,
            transport = config.transport.name(),
            services = config.services.len(),
            "client is starting"
        );
        let shared = Shared {
            counters,
            relays: scope.clone(),
            troubles: Mutex::default(),
            unreachable: Mutex::default(),
        };
        let mut services = Services::new(shared, config, connector);
        services.start_missing();
        loop {
            tokio::select! {
                biased;
                () = scope.draining() => break,
                Order { config, connector, answer } = orders.next_order() => {
                    // Who asked may have lost interest.
                    let _ = answer.send(services.change(config, connector));
                }
            }
        }
    }
}

impl Settings {
    fn of(config: &mut config::Client, connector: Connector) -> Arc<Settings> {
        let services = std::mem::take(&mut config.services);
        let without = config.clone();
        config.services = services;
        Arc::new(Settings { config: without, connector })
    }
}

/// The services that run.
struct Services {
    shared: Arc<Shared>,
    scope: Scope,
    config: config::Client,
    settings: Arc<Settings>,
    running: BTreeMap<Arc<str>, Running>,
}

struct Running {
    wanted: Source<Wanted>,
    scope: Scope,
}

impl Services {
    fn new(shared: Shared, mut config: config::Client, connector: Connector) -> Self {
        let settings = Settings::of(&mut config, connector);
        let scope = shared.relays.clone();
        Services { shared: Arc::new(shared), scope, config, settings, running: BTreeMap::new() }
    }

    fn start_missing(&mut self) {
        for service in self.config.services.values() {
            if self.running.contains_key(&service.name) {
                continue;
            }
            let wanted = Wanted { settings: self.settings.clone(), service: Arc::new(service.clone()) };
            let (wanted, watched) = Source::new(wanted);
            let own = self.scope.child();
            own.spawn_until_drain(control::run(self.shared.clone(), watched, own.clone()));
            self.running.insert(service.name.clone(), Running { wanted, scope: own });
        }
    }

    fn end(&mut self, name: &str) {
        if let Some(running) = self.running.remove(name) {
            running.scope.drain();
        }
    }

    /// Makes the services what the new configuration says.
    fn change(&mut self, mut config: config::Client, mut connector: Connector) -> Outcome {
        let changes = diff::client(&self.config, &config);
        let until = Instant::now() + config.token_grace;
        connector.succeed(&self.settings.connector, config.transport != self.config.transport, until);
        self.settings = Settings::of(&mut config, connector);
        self.config = config;
        // Who has changed something wants to know whether it helps.
        *self.shared.troubles() = Troubles::default();
        *self.shared.unreachable() = Troubles::default();
        // A session is of one type for as long as it lives.
        let other_kind = changes.changed.iter().filter(|(_, change)| change.kind).map(|(name, _)| name);
        for name in changes.removed.iter().chain(other_kind) {
            self.end(name);
        }
        for (name, running) in &self.running {
            let concerned = !changes.settings.is_empty() || changes.changed.contains_key(name);
            if let Some(service) = self.config.services.get(name).filter(|_| concerned) {
                let service = Arc::new(service.clone());
                running.wanted.set(Wanted { settings: self.settings.clone(), service });
            }
        }
        self.start_missing();
        Outcome {
            added: changes.added,
            removed: changes.removed,
            changed: changes.changed.into_keys().collect(),
            settings: changes.settings.into_iter().map(|key| format!("client.{key}")).collect(),
            ..Outcome::default()
        }
    }
}
