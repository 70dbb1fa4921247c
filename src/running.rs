//! The roles that run, and what a new configuration does to them.

use std::time::Duration;

use crate::instance::Plan;
#[cfg(feature = "hot-reload")]
use crate::status::Status;

/// What reaches the roles while they run.
pub struct Running {
    /// The server, if it runs.
    #[cfg(all(feature = "server", feature = "hot-reload"))]
    pub server: Option<rathole::server::Handle>,
    /// The client, if it runs.
    #[cfg(all(feature = "client", feature = "hot-reload"))]
    pub client: Option<rathole::client::Handle>,
    /// How long relays may go on after a stop signal.
    pub grace: Duration,
    /// How all of it is.
    #[cfg(feature = "hot-reload")]
    pub status: Status,
    /// The server's services that lack their address; None: it does not run.
    #[cfg(feature = "hot-reload")]
    pub unbound: Option<rathole::latest::Latest<rathole::reload::Unbound>>,
}

impl Running {
    /// Nothing yet of what is planned.
    pub fn new(plan: &Plan) -> Running {
        Running {
            #[cfg(all(feature = "server", feature = "hot-reload"))]
            server: None,
            #[cfg(all(feature = "client", feature = "hot-reload"))]
            client: None,
            grace: plan.grace(),
            #[cfg(feature = "hot-reload")]
            status: Status::new(plan.services()),
            #[cfg(feature = "hot-reload")]
            unbound: None,
        }
    }

    /// Hands a new configuration to the roles. What they did, by role; a role that should start or end is left as it is,
    /// for that needs a restart.
    #[cfg(feature = "hot-reload")]
    pub async fn reload(&mut self, plan: Plan) -> Vec<(&'static str, rathole::reload::Outcome)> {
        let grace = plan.grace();
        let services = plan.services();
        let Plan { server: _server, client: _client } = plan;
        let mut outcomes = Vec::new();
        let mut needs_restart = Vec::new();
        #[cfg(feature = "server")]
        match (&self.server, _server) {
            (Some(handle), Some((config, acceptor))) => {
                outcomes.push(("server", handle.reload(config, acceptor).await))
            }
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => needs_restart.push("server"),
        }
        #[cfg(feature = "client")]
        match (&self.client, _client) {
            (Some(handle), Some((config, connector))) => {
                outcomes.push(("client", handle.reload(config, connector).await))
            }
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => needs_restart.push("client"),
        }
        // The grace of a half that should not run any more is not known.
        self.grace = if needs_restart.is_empty() { grace } else { grace.max(self.grace) };
        let restart = |half: &'static str| {
            let needs_restart = vec![half.to_owned()];
            (half, rathole::reload::Outcome { needs_restart, ..Default::default() })
        };
        outcomes.extend(needs_restart.into_iter().map(restart));
        self.status.on_reload(&services, &outcomes);
        self.look_at_addresses();
        outcomes
    }

    /// Completes when the status has changed by itself: an address could be bound after all. Cancel safe.
    #[cfg(feature = "hot-reload")]
    pub async fn news(&mut self) {
        if let Some(unbound) = &mut self.unbound {
            if unbound.changed().await {
                return self.look_at_addresses();
            }
        }
        std::future::pending().await
    }

    #[cfg(feature = "hot-reload")]
    fn look_at_addresses(&mut self) {
        if let Some(unbound) = &mut self.unbound {
            unbound.look(|unbound| self.status.on_unbound(unbound));
        }
    }
}
