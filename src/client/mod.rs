//! The client: it dials out to the server and connects visitors to local services.
//!
//! ```text
//! control  one for each service: connect, authenticate, obey, reconnect
//! data     one data channel: dial, wait for its visitor, connect to the local service, relay
//! limits   what a server may ask
//! ```

mod control;
mod data;
mod limits;

use std::sync::Arc;

use crate::config;
use crate::counters::Counters;
use crate::tasks::Scope;
use crate::transport::Connector;

/// A client; nothing is opened before [`Client::run`].
pub struct Client {
    config: config::Client,
    connector: Connector,
    counters: Arc<Counters>,
}

/// What the tasks of a client share.
struct Shared {
    config: config::Client,
    connector: Connector,
    counters: Arc<Counters>,
    /// Where relays live: they outlast control channels.
    relays: Scope,
}

impl Client {
    /// Of resolved parts.
    pub fn new(config: config::Client, connector: Connector, counters: Arc<Counters>) -> Self {
        Client { config, connector, counters }
    }

    /// Serves until the scope drains; what is still relayed then belongs to the scope.
    pub async fn run(self, scope: Scope) {
        let Client { config, connector, counters } = self;
        tracing::info!(
            server = %config.remote_addr,
            transport = config.transport.name(),
            services = config.services.len(),
            "client is starting"
        );
        let services: Vec<_> = config.services.values().cloned().map(Arc::new).collect();
        let shared = Arc::new(Shared { config, connector, counters, relays: scope.clone() });
        for service in services {
            let own = scope.child();
            let shared = shared.clone();
            scope.spawn_until_drain(control::run(shared, service, own));
        }
        scope.draining().await;
    }
}
