//! A server that asks for more than is good: what is dialled, what waits for a visitor and what waits for its turn is
//! bounded, nothing that was taken is dropped, and the log stays short.

use std::time::{Duration, Instant};

use super::common::net;
use super::common::raw::{FakeServer, ZERO, hello, put, rest, take};
use super::common::service::Local;
use super::common::tunnel::{Build, Service};
use super::common::visitor;
use super::fake_server::{TOKEN, client, nonce, serve_one, sockets_of};
use super::limits::many_descriptors;
use super::silence::Silent;

/// Data channels dialled at a time, waiting for a visitor, and requests that wait for their turn.
const DIALS: usize = 64;
const IDLE: usize = 1024;
const QUEUE: usize = 4096;

const TOO_MANY: &str =
    "the server asks for data channels faster than it takes them: 4096 requests are waiting";

/// A server that asks without end (D15): channels at once are bounded, and the client lives.
#[test]
fn a_flood_of_requests() {
    let local = Local::echo();
    let (server, mut client, _plan) = client(Service::tcp("svc-tcp", local.addr), "");
    let (control, _) = server.accept_control("svc-tcp", TOKEN, nonce());
    let mut flood = &control;
    let _ = std::io::Write::write_all(&mut flood, &ZERO.repeat(100_000));
    let begun = Instant::now();
    let mut most = 0;
    while begun.elapsed() < Duration::from_secs(2) {
        assert!(client.is_running());
        most = most.max(sockets_of(client.id()));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(most < 2000, "{most} sockets at once");
    drop(control);
    // Whatever still waits to be accepted is of the flood; in the end comes a new control channel.
    let mut open = Vec::new();
    loop {
        let stream = server.accept();
        let first: [u8; 37] = take(&stream);
        if first[0] == 0 {
            put(&stream, &hello(0, 1, &nonce()));
            break;
        }
        open.push(stream);
    }
}

#[test]
fn dials_are_64_at_a_time_and_4096_more_wait() {
    let local = Local::echo();
    let (server, mut client, mut plan) = client(Service::tcp("svc-tcp", local.addr), "");
    let (control, _) = server.accept_control("svc-tcp", TOKEN, nonce());
    drop(server);
    let silent = Silent::on(plan.server_addr);
    put(&control, &ZERO.repeat(DIALS));
    net::wait("the dials do not come", || net::dials(plan.server_addr) == DIALS);
    put(&control, &ZERO.repeat(QUEUE));
    // All of it was read, nothing was too much, and nothing more is dialled.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        assert_eq!(net::dials(plan.server_addr), DIALS);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!client.stderr().contains("no control channel"), "{}", client.stderr());
    put(&control, &ZERO);
    assert_eq!(rest(&control), b"");
    client.wait_for(TOO_MANY);
    assert!(client.is_running());
    // With the session everything that waited is over, and the client is there again.
    net::wait("dials of a session that is over", || net::dials(plan.server_addr) <= 1);
    drop(silent);
    plan.server_token = TOKEN.to_owned();
    let _server = plan.start_server(Build::Ours);
    visitor::wait_served(plan.services[0].visitors);
}

#[test]
fn channels_that_wait_for_a_visitor_are_1024_and_no_request_is_dropped() {
    many_descriptors();
    let local = Local::echo();
    let (server, client, _plan) = client(Service::tcp("svc-tcp", local.addr), "");
    let (control, key) = server.accept_control("svc-tcp", TOKEN, nonce());
    let next = || {
        let stream = server.accept();
        assert_eq!(take::<37>(&stream)[..], hello(1, 1, &key));
        stream
    };
    let mut idle = Vec::new();
    for batch in [400, 400, IDLE - 800] {
        put(&control, &ZERO.repeat(batch));
        idle.extend((0..batch).map(|_| next()));
    }
    // No more than these, until one of them has its visitor; then exactly one more.
    put(&control, &ZERO.repeat(QUEUE));
    for _ in 0..20 {
        assert!(server.nobody_for(Duration::from_millis(50)), "more than {IDLE} channels wait");
        let visited = idle.pop().unwrap();
        put(&visited, &[&ZERO[..], b"hello"].concat());
        assert_eq!(&take::<5>(&visited), b"hello");
        idle.insert(0, next());
    }
    // Twenty got their turn, so twenty more may wait, and not one more.
    put(&control, &ZERO.repeat(20));
    assert!(server.nobody_for(Duration::from_millis(500)));
    assert!(!client.stderr().contains("no control channel"), "{}", client.stderr());
    put(&control, &ZERO);
    assert_eq!(rest(&control), b"");
    client.wait_for(TOO_MANY);
}

/// A firewall that lets the first connection live only.
#[test]
fn dials_that_all_fail_are_told_in_few_lines() {
    let local = Local::echo();
    let (server, mut client, plan) = client(Service::tcp("svc-tcp", local.addr), "");
    let (control, _) = server.accept_control("svc-tcp", TOKEN, nonce());
    drop(server);
    for _ in 0..3 {
        put(&control, &ZERO.repeat(200));
        std::thread::sleep(Duration::from_millis(100));
    }
    // Each is given up within 10 s; the queue needs some rounds.
    client.wait_for("no data channel");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(12) {
        assert!(client.is_running());
        std::thread::sleep(Duration::from_millis(100));
    }
    let log = client.stderr();
    let lines: Vec<_> =
        log.lines().filter(|line| line.contains(" WARN ") || line.contains(" INFO ")).collect();
    let told: Vec<_> = lines.iter().filter(|line| line.contains("no data channel")).collect();
    assert!((1..=4).contains(&told.len()), "{told:#?}");
    assert!(
        told.iter().all(|line| line.contains(&plan.server_addr.to_string()) && line.contains("failures=")),
        "{told:#?}"
    );
    assert!(lines.len() < 12, "{lines:#?}");
    // When dials get through, the same control channel is of use again.
    let server = FakeServer::listen(plan.server_addr);
    let key = super::common::raw::sha256(&[TOKEN.as_bytes(), &nonce()]);
    // What still waits comes first.
    while !server.nobody_for(Duration::from_secs(3)) {
        server.accept();
    }
    serve_one(&server, &control, &key);
}
