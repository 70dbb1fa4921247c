//! The log, always on stderr. Full builds format with tracing-subscriber, lean ones with [`lean`]; lines look alike.
//!
//! What it decides: which lines are seen (`RUST_LOG`, else a default level). What it never does: mask a secret; no
//! caller gives it one.

#[cfg(feature = "cli")]
mod fields;
#[cfg(not(feature = "cli"))]
mod lean;

use std::env::{self, VarError};

/// Of the log line for each ended visitor.
const VISITOR: &str = "rathole::visitor";

/// Starts it. `level` holds unless `RUST_LOG` says otherwise; without `visitor_log` ended visitors are not logged.
pub fn init(level: &str, visitor_log: bool) {
    let (wish, unreadable) = match env::var("RUST_LOG") {
        Ok(wish) if !wish.trim().is_empty() => (wish, false),
        Ok(_) | Err(VarError::NotPresent) => (level.to_owned(), false),
        Err(VarError::NotUnicode(_)) => (level.to_owned(), true),
    };
    let suffix = if visitor_log { String::new() } else { format!(",{VISITOR}=off") };
    let refused = start(&format!("{wish}{suffix}"), &format!("{level}{suffix}"));
    if unreadable {
        tracing::warn!("RUST_LOG is not UTF-8; it is taken as {level}");
    } else if let Some(why) = refused {
        tracing::warn!("RUST_LOG makes no sense ({why}); it is taken as {level}");
    }
}

/// Says why if `wish` was refused and `fallback` taken.
#[cfg(feature = "cli")]
fn start(wish: &str, fallback: &str) -> Option<String> {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;

    let (filter, refused) = match EnvFilter::try_new(wish) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(fallback), Some(error.to_string())),
    };
    let colours =
        std::io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .fmt_fields(fields::Fields)
        .log_internal_errors(false)
        .init();
    refused
}

/// Says why if `wish` was refused and `fallback` taken.
#[cfg(not(feature = "cli"))]
fn start(wish: &str, fallback: &str) -> Option<String> {
    let (filter, refused) = match lean::Filter::parse(wish) {
        Ok(filter) => (filter, None),
        Err(why) => (lean::Filter::parse(fallback).unwrap_or_default(), Some(why)),
    };
    // Fails only if there is a log already.
    let _ = tracing::subscriber::set_global_default(lean::Log::new(filter));
    refused
}
