//! Our server, driven by a client made of bytes: the golden ones of protocol-v1-vectors.json, and wrong ones.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::common::PATIENCE;
use super::common::process::Process;
use super::common::raw::{AUTH_FAILED, Control, ONE, ZERO, connect, hello, put, rest, take, unhex};
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Service};
use super::common::visitor;

/// Name and token of the golden vectors A and B.
const TOKEN: &str = "s3cret-token";

fn serve() -> (Plan, Process) {
    let nowhere = ([127, 0, 0, 1], 9).into();
    let mut plan =
        Plan::new(Link::tcp(), vec![Service::tcp("svc-tcp", nowhere), Service::udp("svc-udp", nowhere)]);
    plan.server_token = TOKEN.to_owned();
    plan.client_token = TOKEN.to_owned();
    plan.server_lines = "heartbeat_interval = 1\nhandshake_timeout = 2\nvisitor_timeout = 5\n".to_owned();
    let server = plan.start_server(Build::Ours);
    (plan, server)
}

/// The server is alive and serves: a whole visitor, by hand.
fn still_serves(plan: &Plan) {
    let control = Control::open(plan.server_addr, "svc-tcp", TOKEN).accepted();
    assert_eq!(take(&control.stream), ZERO, "CreateDataChannel");
    let data = control.data(plan.server_addr);
    let mut visitor = visitor::connect(plan.services[0].visitors);
    visitor.write_all(b"PING").unwrap();
    assert_eq!(
        take::<8>(&data)[..],
        [&ZERO[..], b"PING"].concat()[..],
        "StartForwardTcp and the visitor's bytes (C7)"
    );
    put(&data, b"PONG");
    let mut answer = [0; 4];
    visitor.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"PONG");
}

#[test]
fn tcp_by_hand() {
    let (plan, _server) = serve();
    still_serves(&plan);
    // A1, byte by byte: messages may come in any pieces.
    let stream = connect(plan.server_addr);
    for byte in unhex("000000000194c71dde7a2702b309bc225059a8af6f0e7e451124b3ad6f1d5e16b63c5091f2") {
        put(&stream, &[byte]);
    }
    let challenge: [u8; 37] = take(&stream);
    assert_eq!(challenge[..5], [0, 0, 0, 0, 1]);
    // Each handshake has its own nonce.
    let other = connect(plan.server_addr);
    put(&other, &unhex("000000000194c71dde7a2702b309bc225059a8af6f0e7e451124b3ad6f1d5e16b63c5091f2"));
    assert_ne!(take::<37>(&other), challenge);
}

#[test]
fn eight_channels_are_asked_for_then_heartbeats() {
    let (plan, _server) = serve();
    let control = Control::open(plan.server_addr, "svc-tcp", TOKEN).accepted();
    for i in 0..8 {
        assert_eq!(take(&control.stream), ZERO, "CreateDataChannel {i} (C5)");
    }
    let channels: Vec<_> = (0..8).map(|_| control.data(plan.server_addr)).collect();
    // Nothing is said on an idle channel, and silence on the control channel is filled (C6).
    let begun = Instant::now();
    assert_eq!(take(&control.stream), ONE, "HeartBeat");
    assert_eq!(take(&control.stream), ONE, "HeartBeat");
    let took = begun.elapsed();
    assert!((Duration::from_millis(1500)..Duration::from_secs(6)).contains(&took), "{took:?}");
    for channel in &channels {
        channel.set_nonblocking(true).unwrap();
        assert!(channel.peek(&mut [0]).is_err(), "an idle channel was closed, or got a byte");
    }
}

#[test]
fn a_wrong_token_and_an_unknown_service_get_the_same_answer() {
    let (plan, server) = serve();
    for (service, token) in
        [("svc-tcp", "wrong"), ("svc-tcp", ""), ("nobody", TOKEN), ("nobody", ""), ("", "")]
    {
        let control = Control::open(plan.server_addr, service, token);
        assert_eq!(rest(&control.stream), AUTH_FAILED, "{service:?} {token:?}: Ack, then the end");
    }
    let log = server.stderr();
    assert!(!log.contains(TOKEN), "{log}");
    // Auth is read before the verdict: without it there is none (C12 is our difference).
    let stream = connect(plan.server_addr);
    put(&stream, &hello(0, 1, &[9; 32]));
    take::<37>(&stream);
    assert_eq!(rest(&stream), b"", "only the deadline ends an unfinished handshake");
    still_serves(&plan);
}

#[test]
fn a_wrong_session_key_is_refused_without_a_word() {
    let (plan, _server) = serve();
    let control = Control::open(plan.server_addr, "svc-tcp", TOKEN).accepted();
    let wrong = Control { stream: connect(plan.server_addr), key: [3; 32] };
    assert_eq!(rest(&wrong.data(plan.server_addr)), b"");
    // The key dies with its control channel: after a takeover the old one opens nothing.
    let key = control.key;
    let newer = Control::open(plan.server_addr, "svc-tcp", TOKEN).accepted();
    let old = Control { stream: connect(plan.server_addr), key };
    assert_eq!(rest(&old.data(plan.server_addr)), b"");
    rest(&control.stream);
    assert_eq!(take(&newer.stream), ZERO);
}

#[test]
fn a_request_that_is_not_fulfilled_does_not_hang_the_visitor() {
    let (plan, _server) = serve();
    let _control = Control::open(plan.server_addr, "svc-tcp", TOKEN).accepted();
    let begun = Instant::now();
    let (bytes, end) = visitor::connect_and_read(plan.services[0].visitors);
    assert!(bytes.is_empty());
    assert!(end.is_err_and(|error| visitor::is_reset(&error)));
    // visitor_timeout is 5 s.
    let took = begun.elapsed();
    assert!((Duration::from_secs(3)..Duration::from_secs(12)).contains(&took), "{took:?}");
}

#[test]
fn a_client_that_goes_is_seen_at_once() {
    let (plan, server) = serve();
    let control = Control::open(plan.server_addr, "svc-tcp", TOKEN).accepted();
    server.wait_for("client connected");
    drop(control);
    server.wait_for("client lost");
    still_serves(&plan);
}

#[test]
fn a_client_that_speaks_on_its_control_channel_is_dropped() {
    let (plan, _server) = serve();
    let control = Control::open(plan.server_addr, "svc-tcp", TOKEN).accepted();
    put(&control.stream, b"?");
    rest(&control.stream);
    still_serves(&plan);
}

/// A UDP service's data channel by hand.
fn udp_channel(plan: &Plan) -> (Control, TcpStream) {
    let control = Control::open(plan.server_addr, "svc-udp", TOKEN).accepted();
    let channel = next_udp_channel(plan, &control);
    (control, channel)
}

fn next_udp_channel(plan: &Plan, control: &Control) -> TcpStream {
    loop {
        // Heartbeats may come between.
        if take::<4>(&control.stream) == ZERO {
            let data = control.data(plan.server_addr);
            assert_eq!(take(&data), ONE, "StartForwardUdp (B5), without waiting for a visitor");
            return data;
        }
    }
}

/// A frame for an IPv4 visitor.
fn frame(visitor: std::net::SocketAddr, payload: &[u8]) -> Vec<u8> {
    let std::net::IpAddr::V4(ip) = visitor.ip() else { panic!("IPv4 expected") };
    let len = (payload.len() as u16).to_le_bytes();
    [&[12, 0, 0, 0, 0][..], &ip.octets(), &visitor.port().to_le_bytes(), &len, payload].concat()
}

fn udp_visitor(plan: &Plan) -> UdpSocket {
    let visitor = UdpSocket::bind("127.0.0.1:0").unwrap();
    visitor.connect(plan.services[1].visitors).unwrap();
    visitor.set_read_timeout(Some(PATIENCE)).unwrap();
    visitor
}

/// Sends until the frame comes out of the channel: what was sent before the channel was there may be lost.
fn frame_of(visitor: &UdpSocket, channel: &TcpStream, payload: &[u8]) {
    let expected = frame(visitor.local_addr().unwrap(), payload);
    visitor.send(payload).unwrap();
    let mut got = vec![0; expected.len()];
    let mut channel = channel;
    channel.read_exact(&mut got).unwrap();
    assert_eq!(got, expected);
}

#[test]
fn udp_by_hand() {
    let (plan, _server) = serve();
    let (_control, channel) = udp_channel(&plan);
    let visitor = udp_visitor(&plan);
    let me = visitor.local_addr().unwrap();
    for payload in [&b"hello"[..], b"", b"world!", &[7; 65_507]] {
        frame_of(&visitor, &channel, payload);
        put(&channel, &frame(me, payload));
        let mut answer = vec![0; 65_536];
        let n = visitor.recv(&mut answer).unwrap();
        assert_eq!(&answer[..n], payload);
    }
}

/// What must not be sent is dropped, one by one, and nothing else suffers (D6, S14).
#[test]
fn udp_replies_that_must_not_be_sent() {
    let (plan, server) = serve();
    let (_control, channel) = udp_channel(&plan);
    let visitor = udp_visitor(&plan);
    let me = visitor.local_addr().unwrap();
    frame_of(&visitor, &channel, b"hello");
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let evil = [
        frame(stranger.local_addr().unwrap(), b"never asked"),
        frame(([127, 0, 0, 1], 0).into(), b"port 0"),
        frame(([255, 255, 255, 255], 53).into(), b"broadcast"),
        frame(me, &[1; 65_535]),
        [&[24, 1, 0, 0, 0][..], &[0; 15], &[1], &[0x75, 0x90], &[3, 0], b"six"].concat(),
        // A longer header than needed is tolerated, its surplus skipped: this one is for us.
        [&[14, 0, 0, 0, 0, 127, 0, 0, 1][..], &me.port().to_le_bytes(), &[4, 0], &[9, 9], b"good"].concat(),
    ];
    for bytes in evil {
        put(&channel, &bytes);
    }
    let mut answer = [0; 64];
    let n = visitor.recv(&mut answer).expect("the good one after the evil ones");
    assert_eq!(&answer[..n], b"good");
    assert!(stranger.recv(&mut answer).is_err(), "the server sent to somebody who had not written");
    frame_of(&visitor, &channel, b"the channel lives on");
    drop(server);
}

#[test]
fn a_malformed_frame_ends_the_channel_and_another_is_asked_for() {
    let (plan, _server) = serve();
    let visitor = udp_visitor(&plan);
    for bad in [
        &[0u8][..],
        &[11; 12],
        &[12, 2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
        &[23, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    ] {
        let (control, channel) = udp_channel(&plan);
        frame_of(&visitor, &channel, b"hello");
        put(&channel, bad);
        rest(&channel);
        // On the same control channel.
        let channel = next_udp_channel(&plan, &control);
        frame_of(&visitor, &channel, b"served again");
    }
}

#[test]
fn our_own_client_works_beside_all_this() {
    let (local, udp) = (Local::echo(), Local::udp_echo());
    let (mut plan, _server) = serve();
    let _strangers: Vec<_> = (0..50).map(|_| connect(plan.server_addr)).collect();
    plan.services[0].local = local.addr;
    plan.services[1].local = udp.addr;
    let _client = plan.start_client(Build::Ours);
    visitor::wait_served(plan.services[0].visitors);
    visitor::UdpVisitor::new(plan.services[1].visitors).wait_served();
}
