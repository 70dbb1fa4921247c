//! What the fuzz targets of `fuzz/` run, and `cargo test` over their seeds: each takes any bytes, and panics if what
//! is promised of the code that takes a peer's or a file's bytes does not hold.
//!
//! Not part of the library: it is compiled for cargo-fuzz (`cfg(fuzzing)`) and for the unit tests. The targets that
//! must see the inside of a module are in files `fuzzing.rs` within it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable
)]
// A small build has not all targets.
#![allow(dead_code)]

mod config;
mod input;
#[cfg(feature = "proxy")]
mod proxy;
mod sockets;
#[cfg(test)]
mod tests;
mod wire;

pub(crate) use input::{Input, pieces};
pub(crate) use sockets::{block_on, fed, pair, read_all};

use crate::relay::fuzzing as relay;
#[cfg(feature = "noise")]
use crate::transport::noise::fuzzing as noise;
#[cfg(feature = "tls")]
use crate::transport::tls::fuzzing as tls;
#[cfg(feature = "websocket")]
use crate::transport::websocket::fuzzing as websocket;

/// Takes any bytes.
type Target = fn(&[u8]);

/// Every target, by the name of its file in `fuzz/fuzz_targets`.
const TARGETS: &[(&str, Target)] = &[
    ("config", config::files),
    ("config_diff", config::difference),
    #[cfg(feature = "noise")]
    ("noise_handshake", noise::handshake),
    #[cfg(feature = "noise")]
    ("noise_records", noise::records),
    #[cfg(feature = "proxy")]
    ("proxy_replies", proxy::replies),
    #[cfg(feature = "tls")]
    ("tls_handshake", tls::handshake),
    #[cfg(feature = "tls")]
    ("tls_records", tls::records),
    ("udp_frames", relay::frames),
    ("udp_outbox", relay::outbox),
    #[cfg(feature = "websocket")]
    ("websocket_frames", websocket::frames),
    #[cfg(feature = "websocket")]
    ("websocket_upgrade", websocket::upgrade),
    ("wire", wire::messages),
];

/// Runs one target.
///
/// # Panics
/// If there is none of that name, or if something promised does not hold.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    target(bytes);
}
