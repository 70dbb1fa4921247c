//! UDP services.

use std::net::{Ipv6Addr, UdpSocket};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::common::net;
use super::common::process::Process;
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Role, Service};
use super::common::visitor::{UdpVisitor, random};
use super::{Links, start};

/// From nothing to all that UDP over IPv4 can carry.
const SIZES: [usize; 11] = [0, 1, 2, 100, 1472, 2048, 2049, 9000, 16_384, 60_000, 65_507];

#[test]
fn datagrams_of_every_size_over_every_transport() {
    Links::new().each(|link| {
        let local = Local::udp_echo();
        let plan = Plan::new(link.clone(), vec![Service::udp("udp", local.addr)]);
        let _running = start(&plan);
        let visitors = plan.services[0].visitors;
        std::thread::scope(|scope| {
            for seed in 0..3 {
                scope.spawn(move || {
                    let mut visitor = UdpVisitor::new(visitors);
                    visitor.wait_served();
                    for size in SIZES {
                        visitor.echo(&random(seed * 100_000 + size as u64, size));
                    }
                    visitor.expect_silence(Duration::from_millis(100));
                });
            }
        });
    });
}

#[test]
fn many_visitors_do_not_mix() {
    let local = Local::udp_echo();
    let plan = Plan::new(Link::tcp(), vec![Service::udp("udp", local.addr)]);
    let _running = start(&plan);
    let mut visitors: Vec<_> = (0..200).map(|_| UdpVisitor::new(plan.services[0].visitors)).collect();
    visitors[0].wait_served();
    for round in 0..3 {
        for (i, visitor) in visitors.iter_mut().enumerate() {
            visitor.echo(format!("visitor {i}, round {round}").as_bytes());
        }
    }
    let lost: usize = visitors.iter().map(|visitor| visitor.lost).sum();
    assert!(lost <= 3, "{lost} of 600 datagrams on an idle loopback were lost");
}

/// A burst waits in sockets, not in the void. (16 of the default size would keep two or three of these.)
#[test]
fn a_burst_of_large_datagrams_is_kept() {
    let most: usize = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap().trim().parse().unwrap();
    if most < 4 << 20 {
        return super::common::announce(
            "SKIPPED tunnel::datagrams::a_burst_of_large_datagrams_is_kept: rmem_max",
        );
    }
    let local = Local::udp_echo();
    let plan = Plan::new(Link::tcp(), vec![Service::udp("burst", local.addr)]);
    let (_client, server) = start(&plan);
    UdpVisitor::new(plan.services[0].visitors).wait_served();
    // The server cannot read while it is stopped: all must wait in its socket.
    server.signal(nix::sys::signal::Signal::SIGSTOP);
    let visitor = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&visitor).set_recv_buffer_size(4 << 20).unwrap();
    visitor.connect(plan.services[0].visitors).unwrap();
    for n in 0..6 {
        visitor.send(&[n; 60_000]).unwrap();
    }
    server.signal(nix::sys::signal::Signal::SIGCONT);
    visitor.set_read_timeout(Some(super::common::PATIENCE)).unwrap();
    for n in 0..6 {
        let mut datagram = vec![0; 65_536];
        let len = visitor.recv(&mut datagram).unwrap_or_else(|error| panic!("{n} of 6 came back: {error}"));
        assert_eq!(datagram[..len], [n; 60_000]);
    }
}

#[test]
fn ipv6_on_either_side() {
    if !net::has_ipv6() {
        return super::common::announce("SKIPPED tunnel::datagrams::ipv6_on_either_side: no ::1 here");
    }
    let local6 = Local::udp_echo_on(UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap());
    let local4 = Local::udp_echo();
    let mut six = Service::udp("six", local6.addr);
    six.visitors = net::address_on(Ipv6Addr::LOCALHOST.into());
    let mut mixed = Service::udp("mixed", local4.addr);
    mixed.visitors = net::address_on(Ipv6Addr::UNSPECIFIED.into());
    let plan = Plan::new(Link::tcp(), vec![six, mixed]);
    let _running = start(&plan);
    let mixed_port = plan.services[1].visitors.port();
    for addr in [
        plan.services[0].visitors,
        ([127, 0, 0, 1], mixed_port).into(),
        (Ipv6Addr::LOCALHOST, mixed_port).into(),
    ] {
        let mut visitor = UdpVisitor::new(addr);
        visitor.wait_served();
        for size in SIZES {
            visitor.echo(&random(size as u64, size));
        }
    }
}

/// A visitor that has sent datagrams of these sizes, each once, and got them back.
fn counted(visitors: std::net::SocketAddr, sizes: &[usize]) -> UdpVisitor {
    UdpVisitor::new(visitors).wait_served();
    for _ in 0..5 {
        let mut visitor = UdpVisitor::new(visitors);
        for (n, size) in sizes.iter().enumerate() {
            visitor.echo(&random(n as u64, *size));
        }
        if visitor.lost == 0 {
            return visitor;
        }
    }
    panic!("5 times on an idle loopback, datagrams were lost");
}

fn stop(process: &mut Process) {
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn one_line_for_each_visitor_of_datagrams() {
    for first in [Role::Client, Role::Server] {
        let local = Local::udp_echo();
        let plan = Plan::new(Link::tcp(), vec![Service::udp("counted", local.addr)]);
        let (mut client, mut server) = start(&plan);
        let visitor = counted(plan.services[0].visitors, &[1000, 0, 234]);
        let (client_reason, server_reason) = match first {
            Role::Client => {
                stop(&mut client);
                // Without a client its visitors are still known, and still have its address in their line.
                server.wait_for("UDP data channel ended");
                stop(&mut server);
                ("cut by the stop of this client", "cut by the stop of this server")
            }
            Role::Server => {
                stop(&mut server);
                // The process goes on, the visitor does not.
                client.wait_for(&format!("visitor={} ", visitor.addr()));
                stop(&mut client);
                ("data channel ended", "cut by the stop of this server")
            }
        };
        let peer = format!("peer={}", plan.server_addr);
        for (process, peer, reason) in
            [(&client, &*peer, client_reason), (&server, "peer=127.0.0.1:", server_reason)]
        {
            let reason = format!("reason={reason:?}");
            let log = process.stderr();
            let me = format!("visitor={} ", visitor.addr());
            let lines: Vec<_> =
                log.lines().filter(|line| line.contains("visitor ended") && line.contains(&me)).collect();
            let [line] = lines[..] else { panic!("{first:?} stopped first, {me}: {lines:?}\n{log}") };
            for field in [
                "INFO",
                "service=counted ",
                peer,
                "bytes=2468 ",
                "up=1234 ",
                "down=1234 ",
                "duration=",
                &*reason,
            ] {
                assert!(line.contains(field), "{first:?} stopped first, {field}: {line}");
            }
            assert_eq!(process.stdout(), "", "standard output is for results");
        }
    }
}

#[test]
fn the_line_for_each_visitor_of_datagrams_can_be_left_out() {
    let local = Local::udp_echo();
    let plan = Plan::new(Link::tcp(), vec![Service::udp("quiet", local.addr)]);
    let mut command = Build::Ours.command(Role::Server, &plan.write("server.toml", &plan.server_toml()));
    command.arg("--no-visitor-log");
    let mut server = Process::start("server", command);
    net::wait_bound_udp(plan.services[0].visitors);
    let mut command = Build::Ours.command(Role::Client, &plan.write("client.toml", &plan.client_toml()));
    command.env("RUST_LOG", "info,rathole::visitor=off");
    let mut client = Process::start("client", command);
    UdpVisitor::new(plan.services[0].visitors).wait_served();
    for process in [&mut client, &mut server] {
        stop(process);
        assert!(process.stderr().contains("INFO"), "{}", process.stderr());
        assert!(!process.stderr().contains("visitor ended"), "{}", process.stderr());
    }
}
