//! UDP services.

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::common::raw::{FakeServer, ONE, put};
use super::common::service::Local;
use super::common::skip;
use super::common::tunnel::{Build, Link, Plan, Service};
use super::common::visitor::random;
use super::hand::{Datagrams, ask, frame, sockets, udp_visitor};
use super::{Outcome, many_descriptors, seconds, until, verdict};

situations! {
    "D6" => a_datagram_from_port_0_disturbs_nobody,
    "D7" => visitors_outlive_a_local_service_that_was_away,
    "D8" => many_visitors_take_few_sockets,
    "D9" => a_flood_does_not_wedge_the_service,
    "D16" => large_datagrams_are_whole,
}

/// Somebody sends with source port 0, to which nothing can be answered. A visitor's mapping is its port at the service.
fn a_datagram_from_port_0_disturbs_nobody(build: Build) -> Outcome {
    if !nix::unistd::geteuid().is_root() {
        skip("defects: a_datagram_from_port_0_disturbs_nobody", "a raw socket needs root");
        return Ok("skipped: a raw socket needs root".to_owned());
    }
    let local = Datagrams::new(|socket, _, from| drop(socket.send_to(&from.port().to_be_bytes(), from)));
    let plan = Plan::new(Link::tcp(), vec![Service::udp("udp", local.addr)]);
    let _running = plan.start(build, build);
    let visitors = plan.services[0].visitors;
    let visitor = udp_visitor(visitors);
    let short = Duration::from_millis(200);
    let mut mapping = None;
    until(Duration::from_secs(10), || {
        mapping = ask(&visitor, b"first", short);
        mapping.is_some()
    });
    assert!(mapping.is_some(), "the visitor is not served");
    let raw = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::UDP));
    // Source port 0, length of header and "zero", no checksum.
    let datagram = [&[0, 0][..], &visitors.port().to_be_bytes(), &[0, 12, 0, 0], b"zero"].concat();
    raw.unwrap().send_to(&datagram, &SocketAddr::new(visitors.ip(), 0).into()).unwrap();
    let mut answers: Vec<_> = (0..15).map(|_| ask(&visitor, b"again", short)).collect();
    let lost = answers.iter().filter(|answer| answer.is_none()).count();
    until(Duration::from_secs(10), || {
        answers.push(ask(&visitor, b"again", short));
        answers.iter().any(Option::is_some)
    });
    let last = answers.iter().flatten().last();
    let mappings = match last {
        None => "it is served no more",
        _ if last == mapping.as_ref() => "its mapping is kept",
        _ => "its mapping is lost",
    };
    let passed = lost <= 1 && last == mapping.as_ref();
    verdict(passed, format!("15 datagrams of another visitor: {lost} lost, {mappings}"))
}

/// Fifty visitors write to a local service that is not there; then it is.
fn visitors_outlive_a_local_service_that_was_away(build: Build) -> Outcome {
    let reserved = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = reserved.local_addr().unwrap();
    drop(reserved);
    let plan = Plan::new(Link::tcp(), vec![Service::udp("udp", addr)]);
    let _running = plan.start(build, build);
    let visitors: Vec<_> = (0..50).map(|_| udp_visitor(plan.services[0].visitors)).collect();
    for _ in 0..5 {
        for visitor in &visitors {
            (0..10).for_each(|_| drop(visitor.send(b"is anybody there?")));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let _local = Local::udp_echo_on(UdpSocket::bind(addr).unwrap());
    let served = Mutex::new(0);
    std::thread::scope(|scope| {
        for visitor in &visitors {
            scope.spawn(|| {
                let patience = Duration::from_millis(500);
                if until(Duration::from_secs(6), || ask(visitor, b"hello", patience).is_some()).is_some() {
                    *served.lock().unwrap() += 1;
                }
            });
        }
    });
    let served = served.into_inner().unwrap();
    verdict(served == 50, format!("{served} of 50 visitors are served when the service is back"))
}

/// A server's visitors, 5000 of them by hand, in front of a client; then their data channel ends.
fn many_visitors_take_few_sockets(build: Build) -> Outcome {
    many_descriptors();
    let local = Local::udp_echo();
    let plan = Plan::new(Link::tcp(), vec![Service::udp("udp", local.addr)]);
    let server = FakeServer::listen(plan.server_addr);
    let client = plan.start_client(build);
    let (control, key) = server.accept_control("udp", &plan.client_token, [7; 32]);
    let channel = server.data(&control, &key);
    put(&channel, &ONE);
    let reader = channel.try_clone().unwrap();
    std::thread::spawn(move || std::io::copy(&mut &reader, &mut std::io::sink()));
    for batch in 0..50u32 {
        let frames = (0..100).flat_map(|i| {
            let [_, a, b, c] = (batch * 100 + i).to_be_bytes();
            frame(SocketAddr::from(([10, a, b, c], 4000)), b"x")
        });
        put(&channel, &frames.collect::<Vec<u8>>());
    }
    // Until no more come.
    let mut most = 0;
    until(Duration::from_secs(15), || {
        let before = most;
        std::thread::sleep(Duration::from_millis(500));
        most = most.max(sockets(&client));
        before == most && most > 10
    });
    channel.shutdown(std::net::Shutdown::Both).unwrap();
    let gone = until(Duration::from_secs(10), || sockets(&client) < 20);
    let then =
        gone.map_or("kept for more than 10 s".to_owned(), |time| format!("gone {} later", seconds(time)));
    let words = format!("5000 visitors take {most} sockets; their channel ends: {then}");
    verdict(most < 3000 && gone.is_some(), words)
}

/// One visitor floods while it and thirty others receive without end; then all is quiet, and another comes.
fn a_flood_does_not_wedge_the_service(build: Build) -> Outcome {
    let receivers: Arc<Mutex<HashSet<SocketAddr>>> = Arc::default();
    let known = receivers.clone();
    let local = Datagrams::new(move |socket, datagram, from| match datagram {
        b"subscribe" => drop(known.lock().unwrap().insert(from)),
        b"ping" => drop(socket.send_to(b"pong", from)),
        _ => {}
    });
    let plan = Plan::new(Link::tcp(), vec![Service::udp("udp", local.addr)]);
    let _running = plan.start(build, build);
    let visitors = plan.services[0].visitors;
    let witness = udp_visitor(visitors);
    let ready =
        until(Duration::from_secs(10), || ask(&witness, b"ping", Duration::from_millis(200)).is_some());
    assert!(ready.is_some(), "no visitor is served");
    let others: Vec<_> = (0..31).map(|_| udp_visitor(visitors)).collect();
    let subscribed = until(Duration::from_secs(10), || {
        others.iter().for_each(|other| drop(other.send(b"subscribe")));
        receivers.lock().unwrap().len() == others.len()
    });
    assert!(subscribed.is_some(), "the receivers are not known");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let receivers: Vec<_> = receivers.lock().unwrap().iter().copied().collect();
            while !stop.load(SeqCst) {
                receivers.iter().for_each(|to| drop(local.socket.send_to(&[7; 1400], to)));
            }
        });
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                (0..200).for_each(|_| drop(others[0].send(&[7; 1400])));
            }
        });
        std::thread::sleep(Duration::from_secs(5));
        stop.store(true, SeqCst);
    });
    let back = until(Duration::from_secs(15), || {
        let visitor = udp_visitor(visitors);
        ask(&visitor, b"ping", Duration::from_millis(500)).is_some()
    });
    match back {
        Some(time) => Ok(format!("after the flood a visitor is served within {}", seconds(time))),
        None => Err("15 s after the flood nobody is served".to_owned()),
    }
}

/// Datagrams of more than 2048 bytes, there and back.
fn large_datagrams_are_whole(build: Build) -> Outcome {
    let local = Local::udp_echo();
    let plan = Plan::new(Link::tcp(), vec![Service::udp("udp", local.addr)]);
    let _running = plan.start(build, build);
    let visitor = udp_visitor(plan.services[0].visitors);
    let sizes = [2048, 2049, 9000, 65_507];
    let whole = sizes.map(|size| {
        let datagram = random(size as u64, size);
        // The first ones may be lost; what comes back must be all.
        let mut longest = 0;
        let whole = until(Duration::from_secs(5), || {
            let answer = ask(&visitor, &datagram, Duration::from_millis(300));
            longest = answer.as_ref().map_or(longest, Vec::len);
            answer.is_some_and(|answer| answer == datagram)
        });
        (whole.is_some(), longest)
    });
    let words = sizes.iter().zip(whole).map(|(size, (_, longest))| format!("{size} come back as {longest}"));
    let words = words.collect::<Vec<_>>().join(", ");
    verdict(whole.iter().all(|(whole, _)| *whole), words)
}
