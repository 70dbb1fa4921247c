//! What came of a reload, for the log and the status: values only.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Services whose address could not be bound, and why; they are tried again and again.
pub type Unbound = BTreeMap<Arc<str>, Arc<str>>;

/// What a role did with a new configuration. Everything is done that can be done without an end to anything that is
/// established; the rest is named here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Services that are new.
    pub added: Vec<Arc<str>>,
    /// Services that are gone.
    pub removed: Vec<Arc<str>>,
    /// Services that are another way now.
    pub changed: Vec<Arc<str>>,
    /// Keys outside of services that were taken over, for example `server.handshake_timeout`.
    pub settings: Vec<String>,
    /// Keys that only a restart takes over, for example `server.bind_addr`. The old value is in force.
    pub needs_restart: Vec<String>,
    /// What could not be done, by key, and why: it is tried again, or waits for the next reload.
    pub failed: Vec<(String, String)>,
}

impl Outcome {
    /// For a role that has ended meanwhile, or never began.
    pub fn not_running(role: &str) -> Self {
        let why = format!("the {role} is not running");
        Outcome { failed: vec![(role.to_owned(), why)], ..Outcome::default() }
    }

    /// Whether nothing was different.
    pub fn is_nothing(&self) -> bool {
        *self == Outcome::default()
    }
}
