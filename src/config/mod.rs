//! The configuration: resolved types. Nothing optional in them "must be set".
//!
//! What it decides: what a configuration file means. What it never does: open a socket, resolve a name,
//! read a clock. Files that a configuration names are read through [`files::Files`], so that a check in a build
//! sandbox can refuse them. Meanings and defaults are those of rathole 0.5 (protocol-v1.md, section 4)
//! but where `docs/config.md` says otherwise. The types stand in `server` and `client`, `endpoint`, `carrier` and
//! `proxy`.

mod access;
mod carrier;
mod check;
mod clash;
mod client;
pub mod diff;
mod endpoint;
pub mod files;
pub mod fragments;
mod given;
mod hint;
mod keys;
mod load;
mod merge;
mod noise;
mod printable;
mod problem;
mod proxy;
#[cfg(feature = "cli")]
pub mod schema;
pub mod secret;
mod section;
mod server;
mod service;
mod shape;
mod source;
mod transport;

pub use access::{Access, Prefix};
pub use carrier::{
    ClientTransport, DEFAULT_NOISE_PATTERN, Noise, ServerTransport, TcpOptions, TlsClient, TlsServer,
};
pub use client::{Client, ClientKind, ClientService};
pub use endpoint::{Endpoint, Host};
pub use files::{Files, NoFiles, RegularFiles, SystemFiles};
pub use load::{Loaded, Request, RoleChoice, inspect, load};
pub use printable::{Printable, is_printable};
pub use problem::{Problem, Report, Severity};
pub use proxy::{Proxy, ProxyKind};
pub use secret::Secret;
pub use section::quoted;
pub use server::{
    DEFAULT_TOKEN_GRACE, Limits, MaxUnauthenticated, OnDuplicate, ProxyProtocol, Server, ServerKind,
    ServerService,
};

/// A whole resolved configuration: at least one role is present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The `[server]` half, when this process is to run it.
    pub server: Option<Server>,
    /// The `[client]` half, when this process is to run it.
    pub client: Option<Client>,
}
