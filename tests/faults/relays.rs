//! Visitors whose connection is lost on the way, without a word: they are told, by a reset.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use super::common::service::Local;
use super::common::tunnel::{Build, Kind, Link, Role};
use super::common::visitor::is_reset;
use super::common::{announce, net};
use super::line::Line;
use super::line::crowd::first_served;
use super::line::middlebox::Gone;
use super::line::old_kernel;
use super::line::tunnel::Tunnel;
use super::s;

/// A connection at rest is given up after 2 s of silence and 9 probes, one each second: 11 s.
const KEEPALIVE: &str = "keepalive_secs = 2\nkeepalive_interval = 1\n";

/// What the visitor does, and on which kernel.
#[derive(Clone, Copy, PartialEq)]
enum Case {
    AtRest,
    Speaks,
    SpeaksOnOldKernel,
}

/// A visitor who is served, then loses the way to the client. How long until it is told; None: not within `limit`.
fn told(build: Build, case: Case, limit: Duration) -> Option<Duration> {
    let line = Line::new("faults::relays", 1)?;
    let mut link = Link::tcp();
    link.server += &format!("[server.transport.tcp]\n{KEEPALIVE}");
    link.client += &format!("[client.transport.tcp]\n{KEEPALIVE}");
    let local = line.client.hold(Local::echo);
    let mut tunnel = Tunnel::new(line, build, link, &[("echo", Kind::Tcp, local.addr)]);
    tunnel.heartbeat(2);
    match case {
        Case::SpeaksOnOldKernel => old_kernel::run(|| tunnel.start_both()),
        Case::AtRest | Case::Speaks => tunnel.start_both(),
    }
    let (site, addr) = (tunnel.line.server.clone(), tunnel.visitors());
    first_served(&site, addr, s(30)).expect("a visitor is served");
    let mut stream = site.run(|| super::common::visitor::connect(addr));
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    tunnel.line.forget(Gone::Silently);
    let begun = Instant::now();
    if case != Case::AtRest {
        stream.write_all(b"anybody there?").unwrap();
    }
    stream.set_read_timeout(Some(limit)).unwrap();
    match stream.read(&mut [0]) {
        Err(error) if is_reset(&error) => {
            let after = begun.elapsed();
            if case == Case::SpeaksOnOldKernel {
                let server = tunnel.process(Role::Server);
                net::wait("the reason must be said", || server.log().contains("failed: no answer for "));
            }
            Some(after)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        other => panic!("{build:?}: a lost connection must be told by a reset, not by {other:?}"),
    }
}

fn ours(case: Case, limit: Duration) {
    if Line::new("faults::relays", 1).is_none() {
        return;
    }
    let name = match case {
        Case::AtRest => "a visitor at rest",
        Case::Speaks => "a visitor who had sent something",
        Case::SpeaksOnOldKernel => "a visitor who had sent something, on an older kernel",
    };
    let after = told(Build::Ours, case, limit + s(5));
    announce(&format!("{name} is told of a lost connection after {after:.1?}"));
    assert!(after.is_some_and(|after| after <= limit), "{name}: not told within {limit:?}");
}

#[test]
fn a_visitor_at_rest_is_told() {
    ours(Case::AtRest, s(11 + 4));
}

/// What was sent is sent again and again before it is given up.
#[test]
#[ignore = "takes a minute; part of the full run, docs/testing.md"]
fn a_visitor_who_had_sent_something_is_told() {
    ours(Case::Speaks, s(42 + 8));
}

/// There 36 s are borne, and up to three quarters of it more.
#[test]
#[ignore = "takes a minute; part of the full run, docs/testing.md"]
fn a_visitor_who_had_sent_something_is_told_on_an_older_kernel() {
    ours(Case::SpeaksOnOldKernel, s(63 + 7));
}
