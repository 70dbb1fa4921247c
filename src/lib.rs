//! rathole: a reverse proxy for NAT traversal.
//!
//! A *server* with a public address takes *visitors* for its *services*; a *client* behind NAT dials out to it and
//! connects each visitor to a *local service*. Reading order: [`wire`] (the protocol), [`config`], [`transport`],
//! [`relay`], then the roles: `server`, `client`.

pub mod backoff;
#[cfg(feature = "client")]
pub mod client;
pub mod config;
pub mod counters;
pub mod relay;
pub mod reload;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod sys;
pub mod tasks;
pub mod transport;
pub mod wire;
