//! Strangers at the server's door: garbage, half messages, silence. Each connection ends, nobody else notices.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::common::raw::{connect, hello, rest};
use super::common::service::Local;
use super::common::tunnel::{Plan, Service};
use super::common::visitor::{self, random};
use super::{Links, start};

/// What strangers say, and whether they end their direction afterwards.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("version 0", hello(0, 0, &[1; 32])),
        ("version 2", hello(0, 2, &[1; 32])),
        ("version 255", hello(1, 255, &[1; 32])),
        ("tag 2", hello(2, 1, &[1; 32])),
        ("tag 0xffffffff", [[0xff; 4].as_slice(), &[1], &[1; 32]].concat()),
        ("zeros", vec![0; 4096]),
        ("noise", random(1, 100_000)),
        ("http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("websocket", b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n\x81\xffgarbage".to_vec()),
        ("an endless header", [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'a'; 200_000]].concat()),
        ("ssh", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("a TLS record of its largest size", [&[0x16, 3, 1, 0x40, 0][..], &random(2, 0x4000)].concat()),
        ("a broken ClientHello", [&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3][..], &[0; 64]].concat()),
        ("a Noise message of its largest size", [&[0xff, 0xff][..], &random(3, 65_535)].concat()),
        ("an empty Noise message", vec![0, 0, 0, 0]),
    ]
}

/// Says something, then is silent; the server may have closed already. Then the connection must end.
fn say(addr: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(addr);
    let _ = stream.write_all(bytes);
    stream
}

#[test]
fn garbage_half_messages_and_silence() {
    Links::new().each(|link| {
        let local = Local::echo();
        let mut plan = Plan::new(link.clone(), vec![Service::tcp("echo", local.addr)]);
        plan.server_lines = "handshake_timeout = 1\n".to_owned();
        let (mut client, mut server) = start(&plan);
        let visitors = plan.services[0].visitors;
        visitor::wait_served(visitors);
        let addr = plan.server_addr;
        let garbage = garbage();
        std::thread::scope(|scope| {
            for (what, bytes) in &garbage {
                scope.spawn(move || {
                    // Whole, half, without the last byte, and nothing at all.
                    for len in [bytes.len(), bytes.len() / 2, bytes.len() - 1, 0] {
                        let begun = Instant::now();
                        rest(&say(addr, &bytes[..len]));
                        let took = begun.elapsed();
                        assert!(took < Duration::from_secs(10), "{what}, {len} bytes: open for {took:?}");
                    }
                });
            }
            // Meanwhile everybody else is served.
            for _ in 0..5 {
                visitor::echo(visitors, &random(4, 50_000), true);
            }
        });
        assert!(server.is_running() && client.is_running());
        visitor::echo(visitors, b"after all that", true);
        assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
    });
}

/// Silent connections delay nobody (D1): upstream takes its clients one by one, 5 s each.
#[test]
fn silence_delays_no_client() {
    Links::new().each(|link| {
        let local = Local::echo();
        let mut plan = Plan::new(link.clone(), vec![Service::tcp("echo", local.addr)]);
        plan.server_lines = "handshake_timeout = 20\n".to_owned();
        let server = plan.start_server(super::common::tunnel::Build::Ours);
        let _silent: Vec<_> = (0..40).map(|_| connect(plan.server_addr)).collect();
        let begun = Instant::now();
        let _client = plan.start_client(super::common::tunnel::Build::Ours);
        visitor::wait_served(plan.services[0].visitors);
        assert!(begun.elapsed() < Duration::from_secs(10), "{}: {:?}", link.name, begun.elapsed());
        drop(server);
    });
}

/// A client that fails to authenticate again and again is told so in the log, not a line each.
#[test]
fn strangers_do_not_flood_the_log() {
    let local = Local::echo();
    let plan = Plan::new(super::Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    let config = plan.write("server.toml", &plan.server_toml());
    let mut command = super::Build::Ours.command(super::common::tunnel::Role::Server, &config);
    command.env("RUST_LOG", "info");
    let server = super::Process::start("server", command);
    super::common::net::wait_listening(plan.server_addr);
    for _ in 0..200 {
        rest(&say(plan.server_addr, &hello(0, 9, &[1; 32])));
    }
    for _ in 0..50 {
        let control = super::common::raw::Control::open(plan.server_addr, "echo", "wrong");
        rest(&control.stream);
    }
    server.wait_for("authentication failed");
    let lines = server.stderr().lines().count();
    assert!(lines < 30, "250 strangers made {lines} lines at info:\n{}", server.stderr());
}
