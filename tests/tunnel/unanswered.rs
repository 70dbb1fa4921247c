//! A data channel that is dead and does not look it: a router has forgotten its connection. Whoever gets it has a
//! deadline, too.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::common::service::Local;
use super::common::tunnel::{Build, Kind, Link, Role};
use super::common::{announce, visitor};
use super::line::Line;
use super::line::crowd::first_served;
use super::line::middlebox::Gone;
use super::line::tunnel::Tunnel;
use super::line::weather::Weather;

const SECOND: Duration = Duration::from_secs(1);

/// The server's machine has this long for what only takes time because it is slow.
const SLACK: Duration = Duration::from_secs(3);

/// A visitor of a service that speaks first says nothing.
fn visit(addr: SocketAddr, word: &[u8], patience: Duration) -> (std::io::Result<u8>, Duration) {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.write_all(word).unwrap();
    let mut byte = [0];
    let answer = stream.read_exact(&mut byte).map(|()| byte[0]);
    (answer, begun.elapsed())
}

fn tunnel(test: &str, lines: &str) -> Option<Tunnel> {
    let line = Line::new(test, 1)?;
    line.set(Weather::delay(10));
    let greet = |mut stream: TcpStream| {
        let _ = stream.write_all(b"!").and_then(|()| stream.read(&mut [0]));
    };
    let (echo, greeting) = (line.client.run(Local::echo), line.client.run(|| Local::tcp(greet)));
    let services = [("echo", Kind::Tcp, echo.addr), ("greeting", Kind::Tcp, greeting.addr)];
    // They serve as long as this process lives.
    std::mem::forget((echo, greeting));
    let mut tunnel = Tunnel::new(line, Build::Ours, Link::tcp(), &services);
    tunnel.plan.server_lines += lines;
    Some(tunnel)
}

/// Neither one who has spoken, and may not be moved, nor one who listens waits longer than a visitor may.
#[test]
fn nobody_waits_for_ever_on_a_forgotten_channel() {
    let test = "tunnel::unanswered::nobody_waits_for_ever_on_a_forgotten_channel";
    let Some(mut tunnel) = tunnel(test, "visitor_timeout = 5\n") else { return };
    tunnel.start_both();
    let (site, addrs) = (tunnel.line.server.clone(), [0, 1].map(|n| tunnel.plan.services[n].visitors));
    first_served(&site, addrs[0], 20 * SECOND).expect("a visitor is served");
    // An established connection is another matter: it outlives a cut as it would without a tunnel.
    let mut old = site.run(|| visitor::connect(addrs[0]));
    old.write_all(b"1").unwrap();
    old.read_exact(&mut [0]).unwrap();
    tunnel.line.cut(true);
    std::thread::scope(|scope| {
        for (addr, word) in [(addrs[0], &b"hello"[..]), (addrs[1], b"")] {
            let site = &site;
            scope.spawn(move || {
                let (answer, after) = site.run(|| visit(addr, word, 60 * SECOND));
                announce(&format!("a visitor on a cut line who says {word:?}: {answer:?} after {after:.1?}"));
                assert!(visitor::is_reset(&answer.unwrap_err()));
                assert!((4 * SECOND..5 * SECOND + SLACK + SLACK).contains(&after), "{after:?}");
            });
        }
        old.write_all(b"2").unwrap();
    });
    let log = tunnel.process(Role::Server).stderr();
    assert!(log.contains("the client's machine acknowledged nothing in time"), "{log}");
    tunnel.line.cut(false);
    old.read_exact(&mut [0]).unwrap();
}

/// Who has said nothing gets another channel, as soon as there is one that is alive.
#[test]
fn a_visitor_on_a_forgotten_channel_is_moved() {
    let test = "tunnel::unanswered::a_visitor_on_a_forgotten_channel_is_moved";
    let Some(mut tunnel) = tunnel(test, "visitor_timeout = 20\n") else { return };
    tunnel.heartbeat(2);
    tunnel.start_both();
    let (site, addr) = (tunnel.line.server.clone(), tunnel.plan.services[1].visitors);
    first_served(&site, tunnel.visitors(), 20 * SECOND).expect("a visitor is served");
    tunnel.line.forget(Gone::Silently);
    let (answer, after) = site.run(|| visit(addr, b"", 60 * SECOND));
    announce(&format!(
        "a visitor who says nothing, after a router has forgotten all: {answer:?} after {after:.1?}"
    ));
    assert_eq!(answer.ok(), Some(b'!'));
    assert!(after < 20 * SECOND, "{after:?}");
}
