//! Who has the token of one service, or two who have the same.

use std::net::UdpSocket;
use std::time::Duration;

use super::common::net;
use super::common::raw::{ONE, put, take};
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Service};
use super::hand::{ask, asked, control, frame, udp_visitor};
use super::{Outcome, many_descriptors, seconds, served, until, verdict};

situations! {
    "D4" => a_flood_of_data_channels_freezes_no_other_service,
    "D10" => a_stalled_udp_channel_is_taken_over,
    "S14" => a_tenant_cannot_send_to_whom_it_likes,
    "S19" => a_takeover_is_told_with_both_addresses,
}

/// More channels of one service than any queue holds; then the client of another comes.
fn a_flood_of_data_channels_freezes_no_other_service(build: Build) -> Outcome {
    many_descriptors();
    let local = Local::echo();
    let nowhere = ([127, 0, 0, 1], 9).into();
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("a", nowhere), Service::tcp("b", local.addr)]);
    let _server = plan.start_server(build);
    let control = control(&plan, "a");
    let _flood: Vec<_> = (0..4150).map(|_| control.data(plan.server_addr)).collect();
    plan.services.remove(0);
    let _client = plan.start_client(build);
    match served(plan.services[0].visitors, Duration::from_secs(10)) {
        Some(time) => Ok(format!("the other service is served after {}", seconds(time))),
        None => Err("the other service is not served within 10 s".to_owned()),
    }
}

/// A client's machine is gone, its UDP channel full; then the client comes back.
fn a_stalled_udp_channel_is_taken_over(build: Build) -> Outcome {
    let local = Local::udp_echo();
    let plan = Plan::new(Link::tcp(), vec![Service::udp("udp", local.addr)]);
    let _server = plan.start_server(build);
    let gone = control(&plan, "udp");
    assert!(asked(&gone, Duration::from_secs(10)));
    let channel = gone.data(plan.server_addr);
    assert_eq!(take(&channel), ONE);
    // From now on it reads nothing. Visitors write until its window is closed, and then as much as the server buffers.
    let visitor = udp_visitor(plan.services[0].visitors);
    let own = channel.local_addr().unwrap();
    let flood = || (0..500).for_each(|_| drop(visitor.send(&[7; 1400])));
    const WINDOW_PROBE: u8 = 4;
    let stalled = until(Duration::from_secs(20), || {
        flood();
        net::timer(plan.server_addr, own) == Some(WINDOW_PROBE)
    });
    assert!(stalled.is_some(), "the channel does not stall");
    (0..40).for_each(|_| flood());

    let _client = plan.start_client(build);
    let back = until(Duration::from_secs(15), || {
        let visitor = udp_visitor(plan.services[0].visitors);
        ask(&visitor, b"hello", Duration::from_millis(300)).is_some()
    });
    match back {
        Some(time) => Ok(format!("served after {}", seconds(time))),
        None => Err("not served within 15 s".to_owned()),
    }
}

/// The client answers a visitor that never was.
fn a_tenant_cannot_send_to_whom_it_likes(build: Build) -> Outcome {
    let plan = Plan::new(Link::tcp(), vec![Service::udp("udp", ([127, 0, 0, 1], 9).into())]);
    let _server = plan.start_server(build);
    let control = control(&plan, "udp");
    assert!(asked(&control, Duration::from_secs(10)));
    let channel = control.data(plan.server_addr);
    assert_eq!(take(&channel), ONE);
    // A visitor that is one, so that the way is known to be open.
    let visitor = udp_visitor(plan.services[0].visitors);
    let me = visitor.local_addr().unwrap();
    visitor.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let victim = UdpSocket::bind("127.0.0.1:0").unwrap();
    let open = until(Duration::from_secs(10), || {
        let _ = visitor.send(b"hello");
        put(&channel, &frame(me, b"answer"));
        visitor.recv(&mut [0; 64]).is_ok()
    });
    assert!(open.is_some(), "the visitor gets no answer");
    for _ in 0..5 {
        put(&channel, &frame(victim.local_addr().unwrap(), b"cannon"));
    }
    victim.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    match victim.recv(&mut [0; 64]) {
        Ok(_) => Err("an address that never wrote gets datagrams from the server".to_owned()),
        Err(_) => Ok("an address that never wrote gets nothing".to_owned()),
    }
}

/// Two clients, one service.
fn a_takeover_is_told_with_both_addresses(build: Build) -> Outcome {
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", ([127, 0, 0, 1], 9).into())]);
    let server = plan.start_server(build);
    let clients = [(); 2].map(|()| control(&plan, "echo"));
    let addresses = clients.each_ref().map(|client| client.stream.local_addr().unwrap().to_string());
    let told = until(Duration::from_secs(5), || {
        let told =
            |line: &str| line.contains("WARN") && addresses.iter().all(|address| line.contains(address));
        server.log().lines().any(told)
    });
    let words = if told.is_some() { "a warning has both addresses" } else { "no warning has both addresses" };
    verdict(told.is_some(), words.to_owned())
}
