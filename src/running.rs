//! The roles that run, and what a new configuration does to them.

use std::time::Duration;

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
}

impl Running {
    /// No role yet.
    pub fn new(grace: Duration) -> Self {
        Running {
            #[cfg(all(feature = "server", feature = "hot-reload"))]
            server: None,
            #[cfg(all(feature = "client", feature = "hot-reload"))]
            client: None,
            grace,
        }
    }

    /// Hands a new configuration to the roles. What they did, by role; a role that should start or end is left as it is,
    /// for that needs a restart.
    #[cfg(feature = "hot-reload")]
    pub async fn reload(
        &mut self,
        plan: crate::instance::Plan,
    ) -> Vec<(&'static str, rathole::reload::Outcome)> {
        let grace = plan.grace();
        let crate::instance::Plan { server: _server, client: _client } = plan;
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
        outcomes
    }
}
