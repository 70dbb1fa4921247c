//! Our client, driven by a server made of bytes: golden ones, then all that a hostile server may do.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::common::process::Process;
use super::common::raw::{AUTH_FAILED, FakeServer, ONE, ZERO, hello, put, rest, take, unhex};
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Service};

pub(super) const TOKEN: &str = "s3cret-token";

/// The nonce of A2.
pub(super) fn nonce() -> [u8; 32] {
    std::array::from_fn(|i| i as u8)
}

/// A client with one service, its server, and its files.
pub(super) fn client(service: Service, lines: &str) -> (FakeServer, Process, Plan) {
    let mut plan = Plan::new(Link::tcp(), vec![service]);
    plan.client_token = TOKEN.to_owned();
    plan.client_lines = format!("{lines}retry_interval = 1\n");
    let server = FakeServer::listen(plan.server_addr);
    let client = plan.start_client(Build::Ours);
    (server, client, plan)
}

/// The client has come back and does its work: a visitor by hand.
pub(super) fn still_serves(server: &FakeServer) {
    let (control, key) = server.accept_control("svc-tcp", TOKEN, nonce());
    serve_one(server, &control, &key);
}

/// A visitor by hand, over a channel that is asked for now.
pub(super) fn serve_one(server: &FakeServer, control: &TcpStream, key: &[u8; 32]) {
    let data = server.data(control, key);
    // The command and the visitor's first bytes in one segment.
    put(&data, &[&ZERO[..], b"hello"].concat());
    assert_eq!(&take::<5>(&data), b"hello");
    data.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&data), b"");
}

#[test]
fn golden_bytes_tcp() {
    let local = Local::echo();
    let (server, _client, _plan) = client(Service::tcp("svc-tcp", local.addr), "");
    let control = server.accept();
    // A1, A2, A3, A4, A6, A7, A8, as they stand in the vectors.
    assert_eq!(
        take::<37>(&control)[..],
        unhex("000000000194c71dde7a2702b309bc225059a8af6f0e7e451124b3ad6f1d5e16b63c5091f2")[..]
    );
    put(&control, &unhex("0000000001000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"));
    assert_eq!(
        take::<32>(&control)[..],
        unhex("4e2687192361d6199fd096a87d88972ee7b7e2199c96ff7f4de37cb3399d2300")[..]
    );
    // Ack and command in one piece; a heartbeat between, which nobody answers.
    put(&control, &[ZERO, ONE, ZERO].concat());
    let data = server.accept();
    assert_eq!(
        take::<37>(&data)[..],
        unhex("01000000014e2687192361d6199fd096a87d88972ee7b7e2199c96ff7f4de37cb3399d2300")[..]
    );
    put(&data, &[&ZERO[..], b"bytes in the command's own segment"].concat());
    assert_eq!(&take::<34>(&data), b"bytes in the command's own segment");
    // One request, one channel; nothing more is said on the control channel.
    control.set_nonblocking(true).unwrap();
    assert!(control.peek(&mut [0]).is_err(), "the client spoke on its control channel, or closed it");
}

/// The server may have given an idle channel to a visitor just before it sees that the client is leaving.
#[test]
fn a_visitor_on_its_way_to_a_stopping_client_is_served() {
    let local = Local::echo();
    let (server, mut client, _plan) = client(Service::tcp("svc-tcp", local.addr), "");
    let (control, key) = server.accept_control("svc-tcp", TOKEN, nonce());
    let (late, idle) = (server.data(&control, &key), server.data(&control, &key));
    client.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(rest(&control), b"", "the control channel's end");
    put(&late, &[&ZERO[..], b"hello"].concat());
    assert_eq!(&take::<5>(&late), b"hello");
    late.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&late), b"");
    // The other one is not kept for ever, although this server never closes it.
    assert_eq!(rest(&idle), b"");
    assert_eq!(client.wait().code(), Some(0));
}

#[test]
fn golden_bytes_udp() {
    let local = Local::udp_echo();
    let (server, _client, _plan) = client(Service::udp("svc-udp", local.addr), "");
    let control = server.accept();
    assert_eq!(
        take::<37>(&control)[..],
        unhex("0000000001adc9f9285f1b29f64d10161f1b6d82c607be1cc80acaa939519fcca99ade652d")[..]
    );
    put(&control, &unhex("0000000001a0a1a2a3a4a5a6a7a8a9aaabacadaeaf101112131415161718191a1b1c1d1e1f"));
    assert_eq!(
        take::<32>(&control)[..],
        unhex("50a9b84b2b856e528f8533c2c0d1b4f63b969cdf025cad92d211d5b3c56a9492")[..]
    );
    put(&control, &[ZERO, ZERO, ZERO].concat());
    // Upstream's server asks for two and uses the first; both must stay open.
    let [first, second] = [(); 2].map(|()| {
        let data = server.accept();
        assert_eq!(
            take::<37>(&data)[..],
            unhex("010000000150a9b84b2b856e528f8533c2c0d1b4f63b969cdf025cad92d211d5b3c56a9492")[..]
        );
        data
    });
    put(&first, &ONE);
    // B6, B8, B10: IPv4, IPv6, empty; the echo has the same bytes.
    for frame in [
        "0c00000000c00002073412050068656c6c6f",
        "180100000020010db8000000000000000000010002cdab0300736978",
        "0c00000000c000020734120000",
    ] {
        let frame = unhex(frame);
        // In two pieces, the cut within the header.
        put(&first, &frame[..7]);
        put(&first, &frame[7..]);
        let mut answer = vec![0; frame.len()];
        std::io::Read::read_exact(&mut &first, &mut answer).unwrap();
        assert_eq!(answer, frame);
    }
    second.set_nonblocking(true).unwrap();
    assert!(second.peek(&mut [0]).is_err(), "the unused channel was closed");
}

#[test]
fn wrong_hellos_and_verdicts_are_survived_and_told() {
    let local = Local::echo();
    let (server, client, _plan) = client(Service::tcp("svc-tcp", local.addr), "");
    let wrong: [(&str, Vec<u8>); 6] = [
        ("version 2", hello(0, 2, &[1; 32])),
        ("version 0", hello(0, 0, &[1; 32])),
        ("a data hello", hello(1, 1, &[1; 32])),
        ("tag 7", hello(7, 1, &[1; 32])),
        ("http", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec()),
        ("half a hello", hello(0, 1, &[1; 32])[..20].to_vec()),
    ];
    for (what, bytes) in wrong {
        let control = server.accept();
        take::<37>(&control);
        put(&control, &bytes);
        // It may have hung up already.
        let _ = control.shutdown(Shutdown::Write);
        assert_eq!(rest(&control), b"", "{what}: the client went on");
    }
    for verdict in [AUTH_FAILED, ONE, [3, 0, 0, 0], [0xff; 4]] {
        let control = server.accept();
        take::<37>(&control);
        put(&control, &hello(0, 1, &nonce()));
        take::<32>(&control);
        put(&control, &verdict);
        assert_eq!(rest(&control), b"", "{verdict:?}: the client went on");
    }
    still_serves(&server);
    let log = client.stderr();
    assert!(log.contains("token"), "a wrong token is not called one:\n{log}");
    assert!(log.contains("svc-tcp"), "{log}");
    assert!(!log.contains(TOKEN) && !log.contains("panicked"), "{log}");
}

#[test]
fn an_unknown_command_ends_the_channel() {
    let local = Local::echo();
    let (server, _client, _plan) = client(Service::tcp("svc-tcp", local.addr), "");
    for command in [[2, 0, 0, 0], [0, 0, 0, 1], [0xff; 4]] {
        let (control, _) = server.accept_control("svc-tcp", TOKEN, nonce());
        put(&control, &command);
        assert_eq!(rest(&control), b"");
    }
    let (control, key) = server.accept_control("svc-tcp", TOKEN, nonce());
    for command in [[2, 0, 0, 0], [0xff; 4]] {
        let data = server.data(&control, &key);
        put(&data, &command);
        assert_eq!(rest(&data), b"", "an unknown data command");
    }
    // That was the data channels' fault alone.
    serve_one(&server, &control, &key);
}

#[test]
fn silence_has_an_end_everywhere() {
    let local = Local::echo();
    let (server, client, _plan) =
        client(Service::tcp("svc-tcp", local.addr), "handshake_timeout = 1\nheartbeat_timeout = 1\n");
    // Before the server's hello.
    let silent = server.accept();
    take::<37>(&silent);
    assert_eq!(rest(&silent), b"");
    // An established channel without heartbeats.
    let (control, key) = server.accept_control("svc-tcp", TOKEN, nonce());
    let idle = server.data(&control, &key);
    assert_eq!(rest(&control), b"");
    // Its idle channels end with it; a heartbeat in time keeps it.
    assert_eq!(rest(&idle), b"");
    let (control, key) = server.accept_control("svc-tcp", TOKEN, nonce());
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(400));
        put(&control, &ONE);
    }
    serve_one(&server, &control, &key);
    client.wait_for("heartbeat");
}

/// Sockets that a process has.
pub(super) fn sockets_of(process: u32) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|to| to.to_string_lossy().starts_with("socket:")).count()
}

#[test]
fn malformed_datagrams_end_their_channel_only() {
    let local = Local::udp_echo();
    let (server, _client, _plan) = client(Service::udp("svc-udp", local.addr), "");
    let (control, key) = server.accept_control("svc-udp", TOKEN, nonce());
    for bad in [&[0u8][..], &[11; 12], &[12, 2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]] {
        let data = server.data(&control, &key);
        put(&data, &ONE);
        put(&data, bad);
        assert_eq!(rest(&data), b"");
    }
    let data = server.data(&control, &key);
    put(&data, &ONE);
    let frame = unhex("0c00000000c00002073412050068656c6c6f");
    put(&data, &frame);
    assert_eq!(take::<18>(&data)[..], frame[..]);
}

/// More visitors than the flow table holds: memory and sockets stay bounded, the newest are served (D8).
#[test]
fn a_flood_of_udp_visitors() {
    let local = Local::udp_echo();
    let (server, mut client, _plan) = client(Service::udp("svc-udp", local.addr), "");
    let (control, key) = server.accept_control("svc-udp", TOKEN, nonce());
    let data = server.data(&control, &key);
    put(&data, &ONE);
    let frame = |i: u32| {
        let addr = SocketAddr::from((i.wrapping_mul(2_654_435_761).to_be_bytes(), 1 + (i % 60_000) as u16));
        let std::net::IpAddr::V4(ip) = addr.ip() else { unreachable!() };
        [&[12, 0, 0, 0, 0][..], &ip.octets(), &addr.port().to_le_bytes(), &[1, 0], b"x"].concat()
    };
    let reader = data.try_clone().unwrap();
    // Answers are taken as they come: nobody here is slow.
    let taker = std::thread::spawn(move || {
        let mut last = Vec::new();
        let mut chunk = [0; 64 << 10];
        while let Ok(n @ 1..) = std::io::Read::read(&mut &reader, &mut chunk) {
            last.extend_from_slice(&chunk[..n]);
            let surplus = last.len().saturating_sub(18 * 20_000);
            last.drain(..surplus);
            if last.windows(6).any(|w| w == [0x07, 0x34, 0x12, 1, 0, b'!']) {
                return true;
            }
        }
        false
    });
    for batch in 0..50 {
        let frames: Vec<u8> = (0..400).flat_map(|i| frame(batch * 400 + i)).collect();
        put(&data, &frames);
        assert!(client.is_running());
    }
    let sockets = sockets_of(client.id());
    assert!(sockets < 5000, "{sockets} sockets for 20,000 visitors");
    // A last one, again and again: a datagram may be lost.
    for _ in 0..100 {
        put(&data, &[&[12, 0, 0, 0, 0, 192, 0, 2, 7, 0x34, 0x12, 1, 0][..], b"!"].concat());
        if taker.is_finished() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = data.shutdown(Shutdown::Both);
    assert!(taker.join().unwrap(), "the newest visitor is not served");
}

/// Whatever answers a WebSocket upgrade, the client lives (S2: upstream is killed by it).
#[test]
#[cfg(feature = "websocket")]
fn a_refused_upgrade_is_survived() {
    let local = Local::echo();
    let plan = Plan::new(Link::websocket(), vec![Service::tcp("svc-tcp", local.addr)]);
    let server = FakeServer::listen(plan.server_addr);
    let mut client = plan.start_client(Build::Ours);
    let answers: [&[u8]; 9] = [
        b"",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1/\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n<html>",
        b"\xff\xfe\x00garbage\r\n\r\n",
        b"HTTP/1.1 101",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ];
    for answer in answers {
        let stream = server.accept();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(take::<1>(&stream));
        }
        put(&stream, answer);
        // It may have hung up already.
        let _ = stream.shutdown(Shutdown::Write);
        rest(&stream);
        assert!(client.is_running());
    }
    drop(server);
    let _server = plan.start_server(Build::Ours);
    super::common::visitor::wait_served(plan.services[0].visitors);
    assert!(!client.stderr().contains("panicked"));
}
