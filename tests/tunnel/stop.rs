//! SIGTERM and SIGINT: no new visitors, a period of grace for relays, exit 0 with a line that says what was cut.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::common::net;
use super::common::process::Process;
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Role, Service};
use super::common::visitor::{self, connect};
use super::start;

/// A tunnel with one established relay.
struct Relayed {
    plan: Plan,
    client: Process,
    server: Process,
    visitor: TcpStream,
    _local: Local,
}

fn relayed(grace: u32) -> Relayed {
    let local = Local::echo();
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    plan.server_lines = format!("shutdown_grace = {grace}\n");
    plan.client_lines = plan.server_lines.clone();
    let (client, server) = start(&plan);
    let mut visitor = connect(plan.services[0].visitors);
    ping(&mut visitor).expect("the relay is up");
    Relayed { plan, client, server, visitor, _local: local }
}

fn ping(visitor: &mut TcpStream) -> std::io::Result<()> {
    visitor.write_all(b"ping")?;
    visitor.read_exact(&mut [0; 4])
}

#[test]
fn an_idle_process_ends_at_once() {
    for (role, signal) in [
        (Role::Server, Signal::SIGTERM),
        (Role::Server, Signal::SIGINT),
        (Role::Client, Signal::SIGTERM),
        (Role::Client, Signal::SIGINT),
    ] {
        let local = Local::echo();
        let plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
        let (client, server) = start(&plan);
        visitor::wait_served(plan.services[0].visitors);
        let mut process = if role == Role::Server { server } else { client };
        process.signal(signal);
        // Well below the grace of 3 s: nobody needs it.
        let begun = Instant::now();
        assert_eq!(process.wait().code(), Some(0), "{role:?} {signal}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}

#[test]
fn a_relay_has_its_grace_and_is_then_cut() {
    for role in [Role::Server, Role::Client] {
        let Relayed { plan, mut client, mut server, mut visitor, _local } = relayed(2);
        let process = if role == Role::Server { &mut server } else { &mut client };
        let begun = Instant::now();
        process.signal(Signal::SIGTERM);
        if role == Role::Server {
            // No new visitors.
            net::wait_closed(plan.services[0].visitors);
            assert!(TcpStream::connect(plan.services[0].visitors).is_err());
        }
        ping(&mut visitor).expect("within its grace a relay works");
        assert_eq!(process.wait().code(), Some(0), "{role:?}");
        let took = begun.elapsed();
        assert!((Duration::from_millis(1500)..Duration::from_secs(10)).contains(&took), "{role:?}: {took:?}");
        assert!(visitor.read(&mut [0]).map_or(true, |n| n == 0), "{role:?}: still relayed");
        let log = process.stderr();
        let last = log.lines().last().unwrap_or_default();
        assert!(
            last.contains('1') && last.contains("cut"),
            "{role:?}: the last line does not say what was cut: {last}"
        );
    }
}

/// A visitor whose local service does not answer has its grace like others, and no more.
#[test]
fn a_visitor_whose_service_does_not_answer_is_cut_too() {
    // A backlog that is full: the kernel drops what asks.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    silent.listen(0).unwrap();
    let local = silent.local_addr().unwrap().as_socket().unwrap();
    let _filling = connect(local);
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("silent", local)]);
    plan.client_lines = "shutdown_grace = 1\n".to_owned();
    let (mut client, server) = start(&plan);
    let mut visitor = connect(plan.services[0].visitors);
    visitor.write_all(b"anybody?").unwrap();
    net::wait("the client does not dial", || net::dials(local) > 0);
    let begun = Instant::now();
    client.signal(Signal::SIGTERM);
    assert_eq!(client.wait().code(), Some(0));
    let took = begun.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_millis(2500)).contains(&took), "{took:?}");
    assert!(client.stderr().contains("1 relay was cut"), "{}", client.stderr());
    let (bytes, end) = visitor::read_until_closed(&mut visitor);
    assert!(bytes.is_empty() && end.is_err_and(|error| visitor::is_reset(&error)), "not a reset");
    drop(server);
}

#[test]
fn a_relay_that_ends_in_its_grace_ends_the_wait() {
    for role in [Role::Server, Role::Client] {
        let Relayed { plan, mut client, mut server, mut visitor, _local } = relayed(60);
        let process = if role == Role::Server { &mut server } else { &mut client };
        process.signal(Signal::SIGTERM);
        if role == Role::Server {
            net::wait_closed(plan.services[0].visitors);
        }
        ping(&mut visitor).unwrap();
        assert!(process.is_running(), "{role:?}");
        drop(visitor);
        let begun = Instant::now();
        assert_eq!(process.wait().code(), Some(0), "{role:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{role:?}: {:?}", begun.elapsed());
    }
}

#[test]
fn grace_0_is_at_once() {
    let Relayed { mut server, mut client, .. } = relayed(0);
    for process in [&mut client, &mut server] {
        let begun = Instant::now();
        process.signal(Signal::SIGTERM);
        assert_eq!(process.wait().code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    for role in [Role::Server, Role::Client] {
        let Relayed { plan, mut client, mut server, mut visitor, _local } = relayed(60);
        let process = if role == Role::Server { &mut server } else { &mut client };
        process.signal(Signal::SIGTERM);
        if role == Role::Server {
            net::wait_closed(plan.services[0].visitors);
        } else {
            // Two signals that come together are one: the first must have been seen.
            process.wait_for("stop");
        }
        ping(&mut visitor).expect("within its grace a relay works");
        process.signal(Signal::SIGTERM);
        process.wait_within(Duration::from_secs(5));
    }
}

#[test]
fn an_occupied_port_ends_the_start_with_1_and_its_name() {
    let local = Local::echo();
    for which in ["clients", "visitors", "datagrams"] {
        let udp = which == "datagrams";
        let service = if udp { Service::udp("s", local.addr) } else { Service::tcp("s", local.addr) };
        let plan = Plan::new(Link::tcp(), vec![service]);
        let taken = if which == "clients" { plan.server_addr } else { plan.services[0].visitors };
        let _tcp = (!udp).then(|| std::net::TcpListener::bind(taken).unwrap());
        let _udp = udp.then(|| std::net::UdpSocket::bind(taken).unwrap());
        let config = plan.write("server.toml", &plan.server_toml());
        let mut server = Build::Ours.start(Role::Server, &config);
        assert_eq!(server.wait().code(), Some(1), "{which}");
        let log = server.stderr();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&taken.to_string())).collect();
        assert!(!lines.is_empty(), "{which}: no line names {taken}:\n{log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}
