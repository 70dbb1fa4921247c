//! Weak networks: over each transport, nobody hangs while the line is cut again and again (part of every run), and how
//! much gets through bad lines beside direct TCP and rathole 0.5.0 (`cargo test --test weak -- --ignored`, see
//! docs/testing.md).

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../line/mod.rs"]
mod line;

mod cuts;
mod matrix;
mod meter;

use common::certs::{Certs, KeyKind};
use common::keys::KeyPair;
use common::tunnel::{Build, Link};

/// The transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Plain.
    Tcp,
    /// rustls.
    Tls,
    /// NK.
    Noise,
    /// Plain.
    WebSocket,
}

/// All of them.
pub const TRANSPORTS: [Transport; 4] =
    [Transport::Tcp, Transport::Tls, Transport::Noise, Transport::WebSocket];

impl Transport {
    /// The tables of both sides, and the certificates that they name; None: it cannot be had here, which was said.
    pub fn link(self, test: &str) -> Option<(Link, Option<Certs>)> {
        match self {
            Transport::Tcp => Some((Link::tcp(), None)),
            Transport::WebSocket if cfg!(feature = "websocket") => Some((Link::websocket(), None)),
            Transport::Noise if cfg!(feature = "noise") => {
                let program = Build::Ours.program();
                let (server, client) = (KeyPair::from(&program), KeyPair::from(&program));
                Some((Link::noise("Noise_NK_25519_ChaChaPoly_BLAKE2s", &server, &client, true), None))
            }
            Transport::Tls if cfg!(feature = "tls") && common::certs::can_be_made(test) => {
                let certs = Certs::new(KeyKind::Ec);
                let link = Link::tls(&certs, &certs.p12_modern);
                Some((link, Some(certs)))
            }
            _ => None,
        }
    }
}

/// What is random in a run: RATHOLE_SEED, or `otherwise`.
pub fn seed(otherwise: u64) -> u64 {
    let given = std::env::var("RATHOLE_SEED").ok();
    given.map_or(otherwise, |text| text.parse().expect("RATHOLE_SEED is a number"))
}
