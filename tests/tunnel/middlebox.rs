//! What answers instead of the server: captive portals, web servers, SSH, proxies. One line says what was seen and
//! what to look at; the client goes on trying, and is there when the server is.

use std::io::Read;
use std::net::{Shutdown, TcpStream};

use super::Links;
use super::common::net;
use super::common::process::Process;
use super::common::raw::{FakeServer, put, rest};
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Service};
use super::common::visitor;

/// What comes.
struct Answer {
    bytes: &'static [u8],
    /// Whether whoever answers then waits for more.
    waits: bool,
    /// What the line must say: over plain TCP, TLS, Noise, WebSocket.
    told: [&'static str; 4],
}

const NO_TLS: &str = "the server does not speak TLS: is its transport another one";
const NO_NOISE: &str = "the peer does not speak Noise, or another pattern or key";
const NO_UPGRADE: &str = "the server refuses the WebSocket upgrade: it answered with bytes that are no HTTP";

const ANSWERS: &[Answer] = &[
    Answer {
        bytes: b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Please log in.</html>\r\n",
        waits: false,
        told: [
            "the peer speaks HTTP: a web server, a captive portal",
            NO_TLS,
            r#"begins with "HT""#,
            "200 OK (a web server or a captive portal",
        ],
    },
    Answer {
        bytes: b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/login\r\nContent-Length: 0\r\n\r\n",
        waits: true,
        told: ["the peer speaks HTTP", NO_TLS, NO_NOISE, "302 Found (a web server or a captive portal"],
    },
    Answer {
        bytes: b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        waits: false,
        told: [
            "the peer speaks HTTP",
            NO_TLS,
            NO_NOISE,
            "502 Bad Gateway (the web server in front does not reach",
        ],
    },
    Answer {
        bytes: b"HTTP/1.1 404 \x1b[31m\r\n\r\n",
        waits: false,
        told: ["the peer speaks HTTP", NO_TLS, NO_NOISE, "no HTTP response"],
    },
    Answer {
        bytes: b"SSH-2.0-OpenSSH_9.2\r\n",
        waits: true,
        told: ["the peer is an SSH server: is the port right?", NO_TLS, NO_NOISE, NO_UPGRADE],
    },
    Answer {
        bytes: b"220 mail.example ESMTP\r\n",
        waits: true,
        told: [
            "the peer does not speak rathole's protocol, or another transport",
            NO_TLS,
            NO_NOISE,
            NO_UPGRADE,
        ],
    },
    // A TLS alert.
    Answer {
        bytes: b"\x15\x03\x03\x00\x02\x02\x28",
        waits: true,
        told: [
            "the peer speaks TLS: is its transport tls",
            "the server refused TLS (HandshakeFailure)",
            NO_NOISE,
            NO_UPGRADE,
        ],
    },
    // A Noise message of 48 bytes, of which ten come.
    Answer {
        bytes: b"\x30\0ten bytes.",
        waits: false,
        told: [
            "the peer does not speak rathole's protocol",
            NO_TLS,
            "the peer closed the connection in the Noise handshake",
            NO_UPGRADE,
        ],
    },
    Answer {
        bytes: b"",
        waits: false,
        told: [
            "the server hung up in the handshake: is its transport another one?",
            "the server closed the connection during the TLS handshake; does it speak TLS?",
            "the peer closed the connection in the Noise handshake",
            "the peer closed the connection in the WebSocket upgrade",
        ],
    },
];

#[test]
fn whatever_answers_is_named_in_one_line() {
    Links::new().each(|link| {
        let local = Local::echo();
        let plan = Plan::new(link.clone(), vec![Service::tcp("echo", local.addr)]);
        let server = FakeServer::listen(plan.server_addr);
        let mut client = plan.start_client(Build::Ours);
        let kind = match link.name.as_str() {
            "tcp" => 0,
            name if name.contains("tls") => 1,
            name if name.starts_with("noise") => 2,
            _ => 3,
        };
        for (i, answer) in ANSWERS.iter().enumerate() {
            give(&server.accept(), answer);
            let line = told(&client, i);
            assert!(
                line.contains(answer.told[kind]),
                "{}: {:?} is not in: {line}",
                link.name,
                answer.told[kind]
            );
            assert!(!line.contains('\x1b'), "{line}");
        }
        assert!(client.is_running() && !client.stderr().contains("panicked"));
        drop(server);
        let _server = plan.start_server(Build::Ours);
        visitor::wait_served(plan.services[0].visitors);
    });
}

/// Answers whatever the client says first, and takes the end.
fn give(stream: &TcpStream, answer: &Answer) {
    let mut first = [0; 2048];
    assert!({ stream }.read(&mut first).unwrap() > 0, "the client says nothing");
    put(stream, answer.bytes);
    if !answer.waits {
        // It may have hung up already.
        let _ = stream.shutdown(Shutdown::Write);
    }
    rest(stream);
}

/// The line about the attempt of this number: there is one for each.
fn told(client: &Process, number: usize) -> String {
    client.wait_for_times("no control channel", number + 1);
    let log = client.log();
    log.lines().filter(|line| line.contains("no control channel")).nth(number).unwrap().to_owned()
}

/// A proxy that says no, in HTTP and in the language of another.
#[test]
#[cfg(feature = "proxy")]
fn a_proxy_s_refusal_is_told() {
    let portal: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n<html>Please log in, and then read all of this page.</html>";
    let cases: [(&str, &[u8], &str); 9] = [
        (
            "http",
            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 5\r\n\r\n<htm>",
            "it wants credentials (407): write http://USER:PASSWORD@HOST:PORT",
        ),
        (
            "http",
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\n<htm>",
            "it forbids this host or port (403)",
        ),
        ("http", b"HTTP/1.1 503 Service Unavailable\r\n\r\n<html>", "it cannot reach it (503)"),
        ("http", b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", "it answers with status 302"),
        ("http", portal, "the peer speaks HTTP: a web server, a captive portal"),
        ("http", b"SSH-2.0-OpenSSH_9.2\r\n", "its answer is not HTTP; is it an HTTP proxy?"),
        ("http", b"", "closed the connection instead of connecting"),
        ("socks5", b"HTTP/1.1 400 Bad Request\r\n\r\n", "its answer is not SOCKS5; is it a SOCKS5 proxy?"),
        ("socks5", b"\x05\xff", "it wants credentials: write socks5://USER:PASSWORD@HOST:PORT"),
    ];
    for (scheme, bytes, expected) in cases {
        let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", ([127, 0, 0, 1], 9).into())]);
        let proxy = net::address();
        plan.proxy = Some(format!("{scheme}://{proxy}"));
        let server = FakeServer::listen(proxy);
        let mut client = plan.start_client(Build::Ours);
        for number in 0..2 {
            give(&server.accept(), &Answer { bytes, waits: false, told: [""; 4] });
            let line = told(&client, number);
            assert!(line.contains(expected), "{expected:?} is not in: {line}");
        }
        assert!(client.is_running());
    }
}
