//! What one party does to the others: floods, scarcity, senseless settings. Everybody else is still served.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, ToSocketAddrs};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use super::common::process::Process;
use super::common::raw::{Control, connect, rest};
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Role, Service};
use super::common::visitor::{self, UdpVisitor, random};
use super::common::{announce, net};
use super::{Links, start};

/// Lets this process have as many descriptors as it may.
pub fn many_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

#[test]
fn three_hundred_visitors_at_once() {
    many_descriptors();
    let local = Local::echo();
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    let _running = start(&plan);
    let mut visitors: Vec<_> = (0..300).map(|_| visitor::connect(plan.services[0].visitors)).collect();
    for round in 0..3u8 {
        for (i, stream) in visitors.iter_mut().enumerate() {
            stream.write_all(&[round, i as u8, (i >> 8) as u8]).unwrap();
        }
        for (i, stream) in visitors.iter_mut().enumerate() {
            let mut answer = [0; 3];
            stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("visitor {i}: {error}"));
            assert_eq!(answer, [round, i as u8, (i >> 8) as u8]);
        }
    }
}

/// Silent strangers take every descriptor; when their deadline has come, all is well again (D2).
#[test]
fn strangers_take_all_descriptors() {
    let local = Local::echo();
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    plan.server_lines = "handshake_timeout = 2\n".to_owned();
    let config = plan.write("server.toml", &plan.server_toml());
    let mut command = Command::new("sh");
    command.arg("-c").arg("ulimit -n 64 && exec \"$0\" server \"$1\"").arg(Build::Ours.program()).arg(config);
    let mut server = Process::start("server with 64 descriptors", command);
    net::wait_listening(plan.server_addr);
    let silent: Vec<_> = (0..80).map(|_| connect(plan.server_addr)).collect();
    let _client = plan.start_client(Build::Ours);
    visitor::wait_served(plan.services[0].visitors);
    for stream in &silent {
        rest(stream);
    }
    assert!(server.is_running());
    visitor::echo(plan.services[0].visitors, &random(1, 50_000), true);
}

/// Strangers cannot make the server hold much (D3).
#[test]
fn strangers_take_little_memory() {
    many_descriptors();
    Links::new().each(|link| {
        let mut plan = Plan::new(link.clone(), vec![Service::tcp("echo", ([127, 0, 0, 1], 9).into())]);
        plan.server_lines = "handshake_timeout = 20\n".to_owned();
        let server = plan.start_server(Build::Ours);
        let before = rss(&server);
        let upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n\x82\xff\0\0\0\0\0\xff\xff\xff\0\0\0\0";
        let strangers: Vec<_> = (0..200)
            .map(|i| {
                let mut stream = connect(plan.server_addr);
                stream.set_nonblocking(true).unwrap();
                let _ = match i % 3 {
                    0 => stream.write(&[&[0xff, 0xff][..], &random(i, 60_000)].concat()),
                    1 => stream.write(&[&[0x16, 3, 1, 0x40, 0][..], &random(i, 16_000)].concat()),
                    _ => stream.write(&[&upgrade[..], &random(i, 60_000)].concat()),
                };
                stream
            })
            .collect();
        // The most that it holds in the next second.
        let begun = Instant::now();
        let mut most = before;
        while begun.elapsed() < Duration::from_secs(1) {
            most = most.max(rss(&server));
            std::thread::sleep(Duration::from_millis(20));
        }
        let grown = most - before;
        assert!(grown < 200 * 40, "{}: 200 strangers cost {grown} kB", link.name);
        drop(strangers);
    });
}

/// A tenant floods its own service with data channels; another's is not delayed (D4).
#[test]
fn a_tenant_s_channels_do_not_delay_another_s() {
    many_descriptors();
    let local = Local::echo();
    let mut plan = Plan::new(
        Link::tcp(),
        vec![Service::tcp("a", ([127, 0, 0, 1], 9).into()), Service::tcp("b", local.addr)],
    );
    let server = plan.start_server(Build::Ours);
    let control = Control::open(plan.server_addr, "a", &plan.server_token).accepted();
    let flood: Vec<_> = (0..3000).map(|_| control.data(plan.server_addr)).collect();
    plan.services.remove(0);
    let _client = plan.start_client(Build::Ours);
    let begun = Instant::now();
    visitor::wait_served(plan.services[0].visitors);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(flood);
    drop(server);
}

/// One UDP visitor floods and takes no answers; thirty others are served while and after (D9).
#[test]
fn a_flooding_udp_visitor_does_not_starve_others() {
    let local = Local::udp_echo();
    let plan = Plan::new(Link::tcp(), vec![Service::udp("udp", local.addr)]);
    let _running = start(&plan);
    let addr = plan.services[0].visitors;
    let mut others: Vec<_> = (0..30).map(|_| UdpVisitor::new(addr)).collect();
    others[0].wait_served();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let flooder = UdpVisitor::new(addr);
            let datagram = random(1, 1400);
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                (0..200).for_each(|_| flooder.send(&datagram));
            }
        });
        // While: some may be lost, none is starved.
        for (i, visitor) in others.iter_mut().enumerate() {
            visitor.echo(format!("during the flood, {i}").as_bytes());
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    for (i, visitor) in others.iter_mut().enumerate() {
        visitor.wait_served();
        visitor.echo(format!("after the flood, {i}").as_bytes());
    }
}

/// retry_interval = 0 is clamped, not obeyed: upstream tries 700 times a second (S12).
#[test]
fn retry_interval_0_is_no_busy_loop() {
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", ([127, 0, 0, 1], 9).into())]);
    plan.client_lines = "retry_interval = 0\n".to_owned();
    let server = TcpListener::bind(plan.server_addr).unwrap();
    let client = plan.start_client(Build::Ours);
    let begun = Instant::now();
    server.set_nonblocking(true).unwrap();
    let mut attempts = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        match server.accept() {
            // Closed at once.
            Ok(_) => attempts += 1,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    assert!((1..=12).contains(&attempts), "{attempts} attempts in 3 s:\n{}", client.stderr());
}

#[test]
fn types_that_do_not_match_are_told() {
    let (local, udp) = (Local::echo(), Local::udp_echo());
    // The client's services have each other's type.
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("one", local.addr), Service::udp("two", udp.addr)]);
    let toml = plan.client_toml();
    let swapped = toml
        .replace("\"tcp\"\nlocal", "\"x\"\nlocal")
        .replace("\"udp\"", "\"tcp\"")
        .replace("\"x\"", "\"udp\"");
    assert_ne!(toml, swapped);
    let mut server = plan.start_server(Build::Ours);
    let mut client = Build::Ours.start(Role::Client, &plan.write("client.toml", &swapped));
    UdpVisitor::new(plan.services[1].visitors).send(b"hello");
    let (bytes, _) = visitor::connect_and_read(plan.services[0].visitors);
    assert!(bytes.is_empty());
    client.wait_for("make both the same");
    assert!(server.is_running() && client.is_running());
}

#[test]
fn a_takeover_is_told_with_both_addresses() {
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", ([127, 0, 0, 1], 9).into())]);
    let server = plan.start_server(Build::Ours);
    let first = Control::open(plan.server_addr, "echo", &plan.server_token).accepted();
    let second = Control::open(plan.server_addr, "echo", &plan.server_token).accepted();
    server.wait_for("client replaced another");
    let log = server.stderr();
    let line = log.lines().find(|line| line.contains("replaced")).unwrap();
    for stream in [&first.stream, &second.stream] {
        let addr = stream.local_addr().unwrap().to_string();
        assert!(line.contains(&addr), "{addr} is not in: {line}");
    }
    assert!(line.contains("WARN"), "{line}");
}

/// Names that do not resolve: tried again, told, and no obstacle to an orderly end.
#[test]
fn names_that_do_not_resolve() {
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", ([127, 0, 0, 1], 9).into())]);
    let name = "no-such-host.invalid:2333";
    let addr = plan.server_addr.to_string();
    for (role, toml) in [(Role::Server, plan.server_toml()), (Role::Client, plan.client_toml())] {
        let config = plan.write("unresolved.toml", &toml.replace(&addr, name));
        let mut process = Build::Ours.start(role, &config);
        process.wait_for("no-such-host.invalid");
        process.wait_for("WARN");
        assert!(process.is_running(), "{role:?}");
        process.signal(Signal::SIGTERM);
        assert_eq!(process.wait_within(Duration::from_secs(8)).code(), Some(0), "{role:?}");
    }
    // A service's name that does not resolve does not stop the others, nor the client.
    let local = Local::echo();
    plan.services.push(Service::tcp("good", local.addr));
    let _server = plan.start_server(Build::Ours);
    let toml = plan.client_toml().replace("\"127.0.0.1:9\"", "\"no-such-host.invalid:9\"");
    let client = Build::Ours.start(Role::Client, &plan.write("client.toml", &toml));
    visitor::wait_served(plan.services[1].visitors);
    let (bytes, end) = visitor::connect_and_read(plan.services[0].visitors);
    assert!(bytes.is_empty() && end.is_err_and(|error| visitor::is_reset(&error)));
    client.wait_for("no-such-host.invalid");
}

#[test]
fn ipv6_between_server_and_client() {
    if !net::has_ipv6() {
        return announce("SKIPPED tunnel::limits::ipv6_between_server_and_client: no ::1 here");
    }
    Links::new().each(|link| {
        let local = Local::echo();
        let mut plan = Plan::new(link.clone(), vec![Service::tcp("echo", local.addr)]);
        plan.server_addr = net::address_on(Ipv6Addr::LOCALHOST.into());
        let _running = start(&plan);
        visitor::echo(plan.services[0].visitors, &random(1, 100_000), true);
    });
}

/// The server's name has several addresses, and it listens on one of them only.
#[test]
fn every_address_of_the_server_s_name_is_tried() {
    let port = net::address_on([127, 0, 0, 1].into()).port();
    let addresses: Vec<_> = ("localhost", port).to_socket_addrs().unwrap().collect();
    for addr in &addresses {
        if addr.is_ipv6() && !net::has_ipv6() {
            continue;
        }
        let local = Local::echo();
        let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
        plan.server_addr = *addr;
        let _server = plan.start_server(Build::Ours);
        let toml = plan.client_toml().replace(&addr.to_string(), &format!("localhost:{port}"));
        let _client = Build::Ours.start(Role::Client, &plan.write("client.toml", &toml));
        visitor::wait_served(plan.services[0].visitors);
    }
}

#[test]
fn the_line_for_each_visitor_can_be_left_out() {
    let local = Local::echo();
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    let config = plan.write("server.toml", &plan.server_toml());
    let mut command = Command::new(Build::Ours.program());
    command.arg("server").arg(config).arg("--no-visitor-log");
    let mut server = Process::start("server", command);
    net::wait_listening(plan.server_addr);
    let client = plan.start_client(Build::Ours);
    visitor::wait_served(plan.services[0].visitors);
    client.wait_for("visitor ended");
    server.signal(Signal::SIGTERM);
    server.wait();
    assert!(server.stderr().contains("client connected"), "{}", server.stderr());
    assert!(!server.stderr().contains("visitor ended"), "{}", server.stderr());
}

/// Resident memory in kB.
fn rss(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
