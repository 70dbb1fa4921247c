//! What the integration tests share: real processes, real sockets on loopback, throw-away keys, and deadlines on all.
//!
//! - [`process`]: a running program, its output, its end.
//! - [`net`]: addresses that no other test uses; waiting until somebody listens.
//! - [`certs`], [`keys`]: TLS and Noise identities.
//! - [`tunnel`]: configuration files, and a server and a client that were given them.
//! - [`service`]: local services behind a tunnel. [`visitor`]: what visitors do and expect.
//! - [`values`]: configurations as values, and waiting, for roles in the test's own process.
//! - [`raw`]: the protocol by hand.
//! - [`forward`]: SOCKS5 and HTTP CONNECT proxies. [`nginx`]: a real one. [`recipe`]: docs/recipes.md.

#![allow(dead_code)]

pub mod certs;
pub mod forward;
pub mod keys;
pub mod net;
pub mod nginx;
pub mod process;
pub mod raw;
pub mod recipe;
pub mod service;
pub mod tunnel;
pub mod values;
pub mod visitor;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// After this long, what has not happened will not happen. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Prints past the test runner's capture, so that it is seen when the tests pass, too.
pub fn announce(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
}

/// Says why a test cannot run here; where everything is required (CI) that is a failure.
pub fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("RATHOLE_REQUIRE_ALL").is_none(), "{test}: {why}");
    announce(&format!("SKIPPED {test}: {why}"));
}

/// Whether a program is here; if not, `test` is skipped, which is said. (Debian's package has the program's name.)
pub fn has(program: &str, test: &str) -> bool {
    let there = is_here(program);
    if !there {
        skip(test, &format!("no {program} here (Debian: apt-get install {program})"));
    }
    there
}

/// Whether a program can be started.
pub fn is_here(program: &str) -> bool {
    std::process::Command::new(program).arg("--version").output().is_ok()
}

/// rathole 0.5.0, if it is there.
pub fn peer() -> Option<PathBuf> {
    let path = match std::env::var_os("RATHOLE_PEER") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/bin/rathole"),
    };
    path.is_file().then_some(path)
}

/// How to get [`peer`].
pub const PEER_HINT: &str =
    "no rathole 0.5.0 here; build it with `cargo install rathole --version 0.5.0 --root target/peers`";
