//! rathole: a reverse proxy for NAT traversal.
//!
//! A *server* with a public address takes *visitors* for its *services*; a *client* behind NAT dials out to it and
//! connects each visitor to a *local service*. Reading order: [`wire`] (the protocol), [`config`], [`transport`],
//! [`relay`], then the roles: `server`, `client`.

// Nothing that a peer, a file or the environment can reach may panic. The tests may (clippy.toml).
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::string_slice)]
#![deny(clippy::panic, clippy::unreachable, clippy::todo, clippy::unimplemented)]

pub mod backoff;
#[cfg(feature = "client")]
pub mod client;
pub mod config;
pub mod counters;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
pub mod latest;
pub mod relay;
pub mod reload;
#[cfg(feature = "server")]
pub mod server;
#[cfg(any(feature = "server", feature = "cli"))]
pub mod sys;
pub mod tasks;
pub mod transport;
pub mod wire;
