//! TEMPORARY, branch `cli` only: the server's interface. The lead replaces it at merge.
#![allow(missing_docs)]
use crate::{config, counters::Counters, tasks::Scope, transport};
use std::{net::SocketAddr, sync::Arc};
pub struct Server(SocketAddr);
pub struct StartError {
    pub key: String,
    pub message: String,
}
impl Server {
    pub async fn bind(
        _: config::Server,
        _: transport::Acceptor,
        _: Arc<Counters>,
    ) -> Result<Server, StartError> {
        Ok(Server(([127, 0, 0, 1], 0).into()))
    }
    pub fn control_addr(&self) -> Option<SocketAddr> {
        Some(self.0)
    }
    pub fn service_addr(&self, _: &str) -> Option<SocketAddr> {
        Some(self.0)
    }
    pub async fn run(self, scope: Scope) {
        scope.draining().await;
    }
}
