//! A peer that is gone without a word is noticed within two heartbeats, by both sides.

use std::time::{Duration, Instant};

use super::common::process::Process;
use super::common::service::Local;
use super::common::tunnel::{Build, Kind, Link};
use super::common::{announce, net};
use super::line::Line;
use super::line::crowd::first_served;
use super::line::middlebox::Gone;
use super::line::tunnel::Tunnel;
use super::s;

/// Seconds between heartbeats.
const HEARTBEAT: u32 = 2;

/// For a busy machine.
const MARGIN: Duration = Duration::from_millis(1500);

/// Until one of `lines` is written.
fn until(process: &Process, lines: &[&str]) -> Duration {
    let begun = Instant::now();
    net::wait(&format!("no line with one of {lines:?}"), || {
        let log = process.log();
        lines.iter().any(|line| log.contains(line))
    });
    begun.elapsed()
}

/// Both notice that nothing passes any more after `strike`: the server within two heartbeats, the client within so many.
fn noticed(what: &str, by_client_within: u32, strike: fn(&Line)) {
    let Some(line) = Line::new(&format!("faults::noticed: {what}"), 1) else { return };
    let local = line.client.hold(Local::echo);
    let mut tunnel = Tunnel::new(line, Build::Ours, Link::tcp(), &[("echo", Kind::Tcp, local.addr)]);
    tunnel.heartbeat(HEARTBEAT);
    tunnel.start_both();
    first_served(&tunnel.line.server, tunnel.visitors(), s(30)).expect("a visitor is served");
    strike(&tunnel.line);
    let (server, client) = tunnel.processes();
    let (by_client, by_server) = std::thread::scope(|scope| {
        let by_server = scope.spawn(|| until(server, &["client lost", "client replaced another"]));
        (until(client, &["no control channel"]), by_server.join().unwrap())
    });
    announce(&format!(
        "{what}: noticed by the client after {by_client:.1?}, by the server after {by_server:.1?}"
    ));
    let limit = |heartbeats: u32| s((heartbeats * HEARTBEAT).into()) + MARGIN;
    assert!(by_client <= limit(by_client_within), "{what}: the client notices after {by_client:?}");
    assert!(by_server <= limit(2), "{what}: the server notices after {by_server:?}");
}

#[test]
fn a_cut_cable() {
    noticed("cut cable", 2, |line| line.cut(true));
}

#[test]
fn a_line_that_only_goes_to_the_client() {
    // One more: the client hears the server until that has given up, and can know nothing.
    noticed("nothing to the server", 3, |line| line.cut_ways(false, true));
}

#[test]
fn a_line_that_only_goes_to_the_server() {
    noticed("nothing to the client", 2, |line| line.cut_ways(true, false));
}

#[test]
fn a_router_that_forgot() {
    noticed("NAT table flush", 2, |line| line.forget(Gone::Silently));
}
