//! Servers that take a connection and then say nothing, or too little, at each step: the client waits for none of them
//! for ever, says what it waited for, and tries again.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::Links;
use super::common::raw::{FakeServer, ZERO, hello, put, rest, take};
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Service};
use super::common::visitor;
use super::fake_server::{TOKEN, client, nonce, serve_one, still_serves};

/// A listener that neither takes nor refuses a connection.
pub(super) struct Silent {
    /// Where it is.
    pub(super) addr: SocketAddr,
    _listener: socket2::Socket,
    _filling: TcpStream,
}

impl Silent {
    /// Its address may be that of connections which go on.
    pub(super) fn on(addr: SocketAddr) -> Self {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.set_reuse_address(true).unwrap();
        listener.bind(&addr.into()).unwrap();
        listener.listen(0).unwrap();
        // The kernel drops what comes when the backlog is full.
        let filling = TcpStream::connect(addr).unwrap();
        Silent { addr, _listener: listener, _filling: filling }
    }
}

const TOO_LONG: &str = "connecting to the server, or the handshake with it, took too long";

#[test]
fn a_handshake_has_one_deadline() {
    Links::new().each(|link| {
        let local = Local::echo();
        let mut plan = Plan::new(link.clone(), vec![Service::tcp("echo", local.addr)]);
        plan.client_lines = "handshake_timeout = 2\n".to_owned();
        let silent = Silent::on(plan.server_addr);
        let client = plan.start_client(Build::Ours);
        client.wait_for(TOO_LONG);
        drop(silent);
        let server = FakeServer::listen(plan.server_addr);
        let stream = server.accept();
        assert!(!rest(&stream).is_empty(), "{}: nothing was said", link.name);
        client.wait_for_times(TOO_LONG, 2);
        drop(server);
        let _server = plan.start_server(Build::Ours);
        visitor::wait_served(plan.services[0].visitors);
    });
}

#[test]
fn a_dripping_server_is_not_waited_for() {
    let local = Local::echo();
    let (server, client, _plan) = client(Service::tcp("svc-tcp", local.addr), "handshake_timeout = 2\n");
    let control = server.accept();
    take::<37>(&control);
    let begun = Instant::now();
    for byte in hello(0, 1, &nonce()) {
        if std::io::Write::write_all(&mut &control, &[byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    rest(&control);
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    client.wait_for(TOO_LONG);
    still_serves(&server);
}

#[test]
fn a_verdict_and_a_data_channel_have_deadlines() {
    let local = Local::echo();
    let (server, client, plan) = client(Service::tcp("svc-tcp", local.addr), "");
    // No verdict.
    let control = server.accept();
    take::<37>(&control);
    put(&control, &hello(0, 1, &nonce()));
    take::<32>(&control);
    assert_eq!(rest(&control), b"");
    client.wait_for("the server's answer took too long");
    // No way for a data channel; the control channel does not suffer.
    let (control, key) = server.accept_control("svc-tcp", TOKEN, nonce());
    drop(server);
    let silent = Silent::on(plan.server_addr);
    put(&control, &ZERO);
    client.wait_for("no answer within 10 s");
    drop(silent);
    let server = FakeServer::listen(plan.server_addr);
    let data = server.data(&control, &key);
    drop(data);
    serve_one(&server, &control, &key);
}

/// A server that takes the client and soon drops it, again and again, is not tried at the shortest pace for ever.
#[test]
fn only_a_stable_connection_resets_the_pauses() {
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("svc-tcp", ([127, 0, 0, 1], 9).into())]);
    plan.client_token = TOKEN.to_owned();
    plan.client_lines = "retry_interval = 20\n".to_owned();
    let server = FakeServer::listen(plan.server_addr);
    let client = plan.start_client(Build::Ours);
    for _ in 0..3 {
        let (control, _) = server.accept_control("svc-tcp", TOKEN, nonce());
        std::thread::sleep(Duration::from_millis(3500));
        drop(control);
    }
    client.wait_for_times("no control channel", 3);
    let log = client.log();
    let pauses: Vec<u64> = log
        .lines()
        .filter_map(|line| line.split_once("next attempt in ")?.1.split_once("ms")?.0.parse().ok())
        .collect();
    // 0.5 s, 1.5 s, 4.5 s, each within a fifth.
    assert!(matches!(pauses[..], [_, _, 3600..=5400]), "{pauses:?}");
}
