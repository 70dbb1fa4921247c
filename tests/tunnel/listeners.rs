//! A service's listener: bound before the server is ready, there as long as its config entry, client or no client.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Service};
use super::common::visitor::{self, connect};
use super::common::{announce, net};
use super::start;

fn plan(local: &Local, visitor_timeout: u32) -> Plan {
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    plan.server_lines = format!("visitor_timeout = {visitor_timeout}\n");
    plan
}

/// Writes, and has it answered.
fn answered(stream: &mut TcpStream) {
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).expect("a waiting visitor is served when the client comes");
    assert_eq!(&answer, b"hello");
}

/// A visitor who must be reset; how long it took.
fn reset_after(addr: SocketAddr) -> Duration {
    let begun = Instant::now();
    let (bytes, end) = visitor::connect_and_read(addr);
    assert!(bytes.is_empty());
    let error = end.expect_err("closed in order: the visitor would take it for an empty answer");
    assert!(visitor::is_reset(&error), "{error}");
    begun.elapsed()
}

#[test]
fn a_visitor_who_comes_before_the_first_client_waits_for_it() {
    let local = Local::echo();
    let plan = plan(&local, 20);
    let server = plan.start_server(Build::Ours);
    let addr = plan.services[0].visitors;
    net::wait_listening(addr);
    let mut early = connect(addr);
    early.write_all(b"hello").unwrap();
    let _client = plan.start_client(Build::Ours);
    answered(&mut early);
    drop(server);
}

#[test]
fn a_visitor_who_comes_while_the_client_restarts_waits_for_it() {
    let local = Local::echo();
    let plan = plan(&local, 20);
    let (mut client, server) = start(&plan);
    let addr = plan.services[0].visitors;
    visitor::wait_served(addr);
    // Killed: its idle channels are dead, and visitors must not be given to them.
    client.kill();
    let mut early: Vec<_> = (0..12).map(|_| connect(addr)).collect();
    for stream in &mut early {
        stream.write_all(b"hello").unwrap();
    }
    let _client = plan.start_client(Build::Ours);
    for stream in &mut early {
        answered(stream);
    }
    drop(server);
}

#[test]
fn without_a_client_for_longer_than_visitor_timeout_visitors_are_reset_at_once() {
    let local = Local::echo();
    let plan = plan(&local, 2);
    let server = plan.start_server(Build::Ours);
    let addr = plan.services[0].visitors;
    net::wait_listening(addr);
    // The server has just started: this one waits, but not forever.
    let waited = reset_after(addr);
    assert!((Duration::from_millis(1000)..Duration::from_secs(8)).contains(&waited), "{waited:?}");
    // Now there has been no client for long enough.
    for _ in 0..3 {
        let waited = reset_after(addr);
        assert!(waited < Duration::from_millis(1000), "{waited:?}");
    }
    server.wait_for("visitor refused");
    // And when one comes, all is well.
    let _client = plan.start_client(Build::Ours);
    visitor::wait_served(addr);
}

#[test]
fn visitor_timeout_0_means_no_wait_without_a_client() {
    let local = Local::echo();
    let plan = plan(&local, 0);
    let _server = plan.start_server(Build::Ours);
    let addr = plan.services[0].visitors;
    net::wait_listening(addr);
    let waited = reset_after(addr);
    assert!(waited < Duration::from_millis(1000), "{waited:?}");
    let _client = plan.start_client(Build::Ours);
    visitor::wait_served(addr);
}

#[test]
fn listeners_are_bound_and_kept_without_any_client() {
    let (local, udp) = (Local::echo(), Local::udp_echo());
    let mut plan =
        Plan::new(Link::tcp(), vec![Service::tcp("tcp", local.addr), Service::udp("udp", udp.addr)]);
    plan.server_lines = "visitor_timeout = 1\n".to_owned();
    let _server = plan.start_server(Build::Ours);
    let (tcp, udp) = (plan.services[0].visitors, plan.services[1].visitors);
    net::wait_listening(tcp);
    net::wait_bound_udp(udp);
    let mut client = plan.start_client(Build::Ours);
    visitor::wait_served(tcp);
    client.kill();
    // At any moment after, also when the server has noticed.
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert!(net::listens(tcp), "the listener went with its client");
        net::wait_bound_udp(udp);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// With more visitors than descriptors the server says so once, not twenty times a second, and serves again when they go.
#[test]
fn running_out_of_descriptors_does_not_flood_the_log() {
    let local = Local::echo();
    let plan = plan(&local, 1);
    let server = plan.start_server_with(48);
    let _client = plan.start_client(Build::Ours);
    let addr = plan.services[0].visitors;
    net::wait_listening(addr);
    visitor::wait_served(addr);
    // Who is served holds two descriptors; who finds none is reset, some of them so soon that they are never connected.
    let mut crowd = Vec::new();
    while crowd.len() < 48 && !server.log().contains("cannot accept connections") {
        let Ok(visitor) = visitor::served(addr) else { break };
        crowd.push(visitor);
    }
    server.wait_for("cannot accept connections");
    crowd.extend((0..20).filter_map(|_| std::net::TcpStream::connect(addr).ok()));
    // Some twenty attempts.
    std::thread::sleep(Duration::from_secs(1));
    // Of its two listeners each may say so once.
    let complaints = server.stderr().matches("cannot accept connections").count();
    assert!(complaints <= 2, "{}", server.stderr());
    drop(crowd);
    visitor::wait_served(addr);
}

#[test]
fn an_unspecified_ipv6_address_serves_both_families() {
    if !net::has_ipv6() {
        return announce(
            "SKIPPED tunnel::listeners::an_unspecified_ipv6_address_serves_both_families: no ::1 here",
        );
    }
    let local = Local::echo();
    let mut plan = plan(&local, 10);
    plan.services[0].visitors = net::address_on(Ipv6Addr::UNSPECIFIED.into());
    let port = plan.services[0].visitors.port();
    let _running = start(&plan);
    for host in [SocketAddr::from(([127, 0, 0, 1], port)), (Ipv6Addr::LOCALHOST, port).into()] {
        visitor::echo(host, b"hello", true);
    }
}

#[test]
fn a_name_binds_every_address_it_has() {
    let local = Local::echo();
    let mut plan = plan(&local, 10);
    let port = net::address_on([127, 0, 0, 1].into()).port();
    plan.services[0].visitors = ([127, 0, 0, 1], port).into();
    let toml = plan.server_toml().replace(&format!("127.0.0.1:{port}"), &format!("localhost:{port}"));
    assert!(toml.contains("localhost"));
    let config = plan.write("server.toml", &toml);
    let _server = Build::Ours.start(super::common::tunnel::Role::Server, &config);
    let _client = plan.start_client(Build::Ours);
    let addresses: Vec<_> = format!("localhost:{port}").to_socket_addrs().unwrap().collect();
    assert!(!addresses.is_empty());
    for addr in addresses {
        if addr.is_ipv6() && !net::has_ipv6() {
            continue;
        }
        net::wait_listening(addr);
        visitor::echo(addr, b"hello", true);
    }
}
