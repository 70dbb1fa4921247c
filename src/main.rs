//! The process: argv -> command -> configuration -> listeners -> run -> exit code.
//!
//! What it decides: what a command line asks for, and which exit code answers it. What it never does: carry a
//! byte. stdout holds results only; log lines and errors go to stderr.

// Lean builds have an entry of their own (`lean`): std's costs 14 kB.
#![cfg_attr(all(panic = "abort", not(feature = "cli"), target_os = "linux"), no_main)]
// Nothing that a peer, a file or the environment can reach may panic. The tests may (clippy.toml).
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::string_slice)]
#![deny(clippy::panic, clippy::unreachable, clippy::todo, clippy::unimplemented)]

// Plans of both roles are read in every build; one without the role refuses to run them.
#[cfg_attr(not(all(feature = "server", feature = "client")), allow(dead_code))]
mod adhoc;
mod cli;
#[cfg(all(feature = "cli", feature = "server", feature = "client", feature = "noise"))]
mod demo;
mod instance;
#[cfg(feature = "hot-reload")]
mod live;
mod log;
mod process;
// Below all others, with the library's `sys`.
#[cfg(all(panic = "abort", not(feature = "cli"), target_os = "linux"))]
#[path = "sys/lean.rs"]
mod lean;
mod reader;
mod running;
#[cfg(feature = "hot-reload")]
mod status;
mod stopping;
#[cfg(feature = "hot-reload")]
mod summary;
#[cfg(feature = "hot-reload")]
mod watch;

use std::ffi::OsString;

#[cfg(not(all(panic = "abort", not(feature = "cli"), target_os = "linux")))]
fn main() -> std::process::ExitCode {
    run(std::env::args_os()).code().into()
}

fn run(args: impl IntoIterator<Item = OsString>) -> cli::Exit {
    // Whoever reloads does not know how far the start has come.
    process::hold_hangups();
    match cli::parse(args) {
        Ok(command) => {
            if !matches!(command, cli::Command::Run(_)) {
                process::release_hangups();
            }
            cli::run(command)
        }
        Err(stop) => stop.print(),
    }
}
