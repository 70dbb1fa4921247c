//! The interop matrix: ours and rathole 0.5.0 at either end, over every transport, TCP and UDP.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::certs::{Certs, KeyKind};
use common::forward::Forward;
use common::keys::KeyPair;
use common::service::Local;
use common::tunnel::{Build, Link, Plan, Service};
use common::visitor;

#[test]
fn smoke() {
    let echo = Local::echo();
    let udp = Local::udp_echo();
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", echo.addr), Service::udp("udp", udp.addr)]);
    let (client, server) = plan.start(Build::Peer, Build::Peer);
    visitor::wait_served(plan.services[0].visitors);
    let mut v = visitor::UdpVisitor::new(plan.services[1].visitors);
    v.wait_served();
    println!("{}\n{}", server.log(), client.log());
    let _ = (Forward::http(true), KeyPair::from(&Build::Peer.program()), Certs::new(KeyKind::Rsa));
}
