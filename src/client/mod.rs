//! TEMPORARY, branch `cli` only: the client's interface. The lead replaces it at merge.
#![allow(missing_docs)]
use crate::{config, counters::Counters, tasks::Scope, transport};
use std::sync::Arc;
pub struct Client;
impl Client {
    pub fn new(_: config::Client, _: transport::Connector, _: Arc<Counters>) -> Client {
        Client
    }
    pub async fn run(self, scope: Scope) {
        scope.draining().await;
    }
}
