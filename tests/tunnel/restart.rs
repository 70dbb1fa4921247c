//! Either side may go and come again; what is established and need not end does not end.

use std::io::{Read, Write};

use nix::sys::signal::Signal;

use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Service};
use super::common::visitor::{self, UdpVisitor, connect};
use super::{Links, start};

#[test]
fn the_client_restarts_over_every_transport() {
    Links::new().each(|link| {
        let (local, udp) = (Local::echo(), Local::udp_echo());
        let plan =
            Plan::new(link.clone(), vec![Service::tcp("echo", local.addr), Service::udp("udp", udp.addr)]);
        let (mut client, _server) = start(&plan);
        let (tcp, udp) = (plan.services[0].visitors, plan.services[1].visitors);
        let mut visitor = UdpVisitor::new(udp);
        for _ in 0..3 {
            visitor::wait_served(tcp);
            // The same UDP visitor, each time.
            visitor.wait_served();
            client.kill();
            client = plan.start_client(Build::Ours);
            // Not one of them is refused.
            visitor::echo(tcp, b"hello", true);
        }
        visitor.wait_served();
    });
}

#[test]
fn the_server_restarts_over_every_transport() {
    Links::new().each(|link| {
        let (local, udp) = (Local::echo(), Local::udp_echo());
        let plan =
            Plan::new(link.clone(), vec![Service::tcp("echo", local.addr), Service::udp("udp", udp.addr)]);
        let (_client, mut server) = start(&plan);
        let (tcp, udp) = (plan.services[0].visitors, plan.services[1].visitors);
        let mut visitor = UdpVisitor::new(udp);
        for round in 0..2 {
            visitor::wait_served(tcp);
            visitor.wait_served();
            if round == 0 {
                server.kill();
            } else {
                server.signal(Signal::SIGTERM);
                assert_eq!(server.wait().code(), Some(0));
            }
            server = plan.start_server(Build::Ours);
            super::common::net::wait_listening(tcp);
            // It waits for the client, which comes back by itself.
            visitor::echo(tcp, b"hello", true);
        }
        visitor.wait_served();
    });
}

#[test]
fn the_client_may_come_first() {
    let local = Local::echo();
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    let client = plan.start_client(Build::Ours);
    // It says whom it cannot reach.
    client.wait_for(&plan.server_addr.to_string());
    let _server = plan.start_server(Build::Ours);
    visitor::wait_served(plan.services[0].visitors);
}

#[test]
fn a_second_client_takes_over_and_relays_of_the_first_go_on() {
    let (first, second) = (Local::echo(), Local::tcp(|mut stream| drop(stream.write_all(b"second"))));
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", first.addr)]);
    let (_client, _server) = start(&plan);
    let addr = plan.services[0].visitors;
    visitor::wait_served(addr);
    let mut old = connect(addr);
    let ping = |stream: &mut std::net::TcpStream| {
        stream.write_all(b"ping").unwrap();
        stream.read_exact(&mut [0; 4]).expect("an established relay was cut by a takeover");
    };
    ping(&mut old);
    plan.services[0].local = second.addr;
    let config = plan.write("second.toml", &plan.client_toml());
    let _second = Build::Ours.start(super::common::tunnel::Role::Client, &config);
    super::common::net::wait("the second client is not used", || {
        let mut stream = connect(addr);
        let _ = stream.write_all(b"who is");
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).is_ok() && &answer == b"second"
    });
    ping(&mut old);
}
