//! Who may visit a service, and how many: allow, deny, max_visitors, max_waiting, max_channels.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use super::common::process::Process;
use super::common::raw::{Control, ZERO, put, rest, take};
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Service};
use super::common::visitor::{self, UdpVisitor};
use super::common::{PATIENCE, net};
use super::start;

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// A visitor with this address.
fn from(source: &str, to: SocketAddr) -> io::Result<TcpStream> {
    let source: SocketAddr = format!("{source}:0").parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&source.into())?;
    socket.connect(&to.into())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// The visitor must be reset, without a byte.
fn must_be_reset(visitor: io::Result<TcpStream>) {
    let mut visitor = match visitor {
        Ok(visitor) => visitor,
        Err(error) => return assert!(visitor::is_reset(&error), "{error}"),
    };
    let (bytes, end) = visitor::read_until_closed(&mut visitor);
    assert!(bytes.is_empty() && end.as_ref().is_err_and(visitor::is_reset), "{bytes:?} {end:?}");
}

fn echoes(visitor: io::Result<TcpStream>) {
    let mut visitor = visitor.unwrap();
    visitor.write_all(b"let me in").unwrap();
    let mut answer = [0; 9];
    visitor.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"let me in");
}

fn lines(server: &Process, level: &str, words: &str) -> Vec<String> {
    let log = server.stderr();
    log.lines().filter(|line| line.contains(level) && line.contains(words)).map(str::to_owned).collect()
}

#[test]
fn allow_and_deny_are_obeyed_before_a_channel_is_spent() {
    let local = Local::echo();
    let mut plan =
        Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr), Service::tcp("all", local.addr)]);
    plan.services[0].server_lines =
        "allow = [\"127.1.0.0/16\", \"127.0.0.1\"]\ndeny = [\"127.1.9.0/24\"]\n".to_owned();
    let (client, server) = start(&plan);
    let [echo, all] = [plan.services[0].visitors, plan.services[1].visitors];
    visitor::wait_served(echo);
    visitor::wait_served(all);
    let dialled = client.log().matches("visitor ended").count();
    for good in ["127.1.0.1", "127.1.255.255", "127.0.0.1"] {
        echoes(from(good, echo));
    }
    for bad in ["127.1.9.0", "127.1.9.255", "127.2.0.1", "127.0.0.2"] {
        for _ in 0..5 {
            must_be_reset(from(bad, echo));
        }
        echoes(from(bad, all));
    }
    // No visitor of the twenty came to the client; the seven others did.
    client.wait_for_times("visitor ended", dialled + 7);
    assert_eq!(client.log().matches("visitor ended").count(), dialled + 7);
    // A line for the first, and the rest is counted; each only at debug.
    let told = lines(&server, "INFO", "not allowed");
    assert!(
        matches!(&told[..], [line] if line.contains("service=echo") && line.contains("count=1")),
        "{told:#?}"
    );
    assert_eq!(lines(&server, "DEBUG", "visitor refused").len(), 20);
    assert_eq!(lines(&server, "", "visitor=127.1.9.255:").len(), 6, "five refused, one served elsewhere");
}

/// A visitor over IPv4 is matched by IPv4 prefixes, whatever the socket.
#[test]
fn a_dual_stack_listener_sees_ipv4_visitors() {
    if !net::has_ipv6() {
        return super::common::announce(
            "SKIPPED tunnel::gate::a_dual_stack_listener_sees_ipv4_visitors: no ::1",
        );
    }
    let local = Local::echo();
    let mut service = Service::tcp("echo", local.addr);
    service.visitors = net::address_on(Ipv6Addr::UNSPECIFIED.into());
    service.server_lines = "allow = [\"::1\", \"127.3.0.0/16\"]\n".to_owned();
    let plan = Plan::new(Link::tcp(), vec![service]);
    let _running = start(&plan);
    let port = plan.services[0].visitors.port();
    visitor::wait_served((Ipv6Addr::LOCALHOST, port).into());
    let v4 = (Ipv4Addr::LOCALHOST, port).into();
    echoes(from("127.3.0.1", v4));
    must_be_reset(from("127.4.0.1", v4));
}

#[test]
fn allow_and_deny_are_obeyed_by_datagrams() {
    let local = Local::udp_echo();
    let mut plan = Plan::new(Link::tcp(), vec![Service::udp("udp", local.addr)]);
    plan.services[0].server_lines = "deny = [\"127.5.0.0/16\"]\n".to_owned();
    let (_client, server) = start(&plan);
    let mut good = UdpVisitor::new(plan.services[0].visitors);
    good.wait_served();
    let bad = UdpSocket::bind("127.5.0.1:0").unwrap();
    bad.connect(plan.services[0].visitors).unwrap();
    for _ in 0..20 {
        bad.send(b"let me in").unwrap();
        good.echo(b"me too");
    }
    server.wait_for("not allowed");
    let told = lines(&server, "INFO", "not allowed");
    assert!(
        matches!(&told[..], [line] if line.contains("service=udp") && line.contains("count=")),
        "{told:#?}"
    );
    bad.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(bad.recv(&mut [0; 9]).is_err());
    assert!(!server.log().contains("visitor=127.5.0.1"), "it is no visitor");
    // What was counted in silence is told at the end, at the latest.
    server.signal(Signal::SIGTERM);
    net::wait("all are told", || sum(&lines(&server, "INFO", "not allowed")) == 20);
}

/// All that these lines count.
fn sum(lines: &[String]) -> u64 {
    let count = |line: &String| line.split_once("count=")?.1.split(' ').next()?.parse::<u64>().ok();
    lines.iter().filter_map(count).sum()
}

#[test]
fn max_visitors_counts_those_served_and_those_who_wait() {
    let local = Local::echo();
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    plan.services[0].server_lines = "max_visitors = 3\n".to_owned();
    let (_client, server) = start(&plan);
    let addr = plan.services[0].visitors;
    visitor::wait_served(addr);
    net::wait("no visitor's end is told", || server.log().contains("visitor ended"));
    let mut there: Vec<_> = (0..3).map(|_| visitor::connect(addr)).collect();
    for stream in &mut there {
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    for _ in 0..5 {
        must_be_reset(from("127.0.0.1", addr));
    }
    let told = lines(&server, "WARN", "max_visitors are there");
    assert!(matches!(&told[..], [line] if line.contains("service=echo")), "{told:#?}");
    // When one leaves there is room for one.
    drop(there.pop());
    visitor::wait_served(addr);
}

#[test]
fn max_waiting_is_obeyed_and_those_who_wait_are_served() {
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("slow", NOWHERE)]);
    plan.services[0].server_lines = "max_waiting = 4\n".to_owned();
    let server = plan.start_server(Build::Ours);
    let control = Control::open(plan.server_addr, "slow", &plan.server_token).accepted();
    server.wait_for("client connected");
    let addr = plan.services[0].visitors;
    let waiting: Vec<_> = (0..4).map(|_| visitor::connect(addr)).collect();
    let begun = Instant::now();
    must_be_reset(from("127.0.0.1", addr));
    assert!(begun.elapsed() < Duration::from_secs(5), "at once: {:?}", begun.elapsed());
    server.wait_for("max_waiting visitors wait");
    for mut visitor in waiting {
        let data = control.data(plan.server_addr);
        assert_eq!(take(&data), ZERO);
        put(&data, b"served");
        let mut answer = [0; 6];
        visitor.read_exact(&mut answer).unwrap();
    }
}

#[test]
fn max_channels_is_obeyed() {
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("few", NOWHERE)]);
    plan.services[0].server_lines = "max_channels = 3\n".to_owned();
    let server = plan.start_server(Build::Ours);
    let control = Control::open(plan.server_addr, "few", &plan.server_token).accepted();
    for _ in 0..3 {
        assert_eq!(take(&control.stream), ZERO);
    }
    control.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!((&control.stream).read(&mut [0; 4]).is_err(), "more than max_channels are asked for");
    let channels: Vec<_> = (0..10).map(|_| control.data(plan.server_addr)).collect();
    server.wait_for("data channels closed");
    net::wait("the surplus is not closed", || {
        let open = |stream: &&TcpStream| {
            stream.set_nonblocking(true).unwrap();
            stream.peek(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        channels.iter().filter(open).count() == 3
    });
    assert_eq!(lines(&server, "WARN", "max_channels").len(), 1);
    drop(control);
    channels.iter().for_each(|channel| {
        channel.set_nonblocking(false).unwrap();
        rest(channel);
    });
}

/// A UDP table of three: the newest are kept, the one in use stays, and that is told once.
#[test]
fn max_visitors_of_a_udp_service() {
    let local = Local::udp_echo();
    let mut plan = Plan::new(Link::tcp(), vec![Service::udp("udp", local.addr)]);
    plan.services[0].server_lines = "max_visitors = 3\n".to_owned();
    let (_client, server) = start(&plan);
    let mut kept = UdpVisitor::new(plan.services[0].visitors);
    kept.wait_served();
    for _ in 0..10 {
        UdpVisitor::new(plan.services[0].visitors).echo(b"one of many");
        kept.echo(b"still here");
    }
    server.wait_for_times("pushed out", 8);
    let told = lines(&server, "WARN", "visitors pushed out by newer ones");
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(
        !server
            .log()
            .lines()
            .any(|line| line.contains("visitor ended") && line.contains(&kept.addr().to_string()))
    );
}
