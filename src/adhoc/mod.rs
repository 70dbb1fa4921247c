//! A server or a client without a file: everything is on the command line but the secrets.
//!
//! What it decides: what the other side's command is. What it never does: take or print a secret that was given;
//! only a token made here is printed, because nobody knows it yet. Encrypted unless told otherwise.

mod client;
mod key_file;
mod plan;
mod server;
mod token;

use std::time::Duration;

pub use client::run_client;
pub use plan::{ClientPlan, PlanArgs, ServerPlan};
pub use server::run_server;

use crate::cli::{Exit, output};

/// The settings that nobody gives here: the configuration's defaults (docs/config.md).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);
const VISITOR_TIMEOUT: Duration = Duration::from_secs(10);
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(40);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A shorter token can be guessed by who has seen one handshake.
const SHORT_TOKEN: usize = 16;

/// Says what is wrong in one line.
fn refuse(message: &str, exit: Exit) -> Exit {
    output::complain(&format!("error: {message}\n"));
    exit
}
