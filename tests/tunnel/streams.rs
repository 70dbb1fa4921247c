//! TCP services: no byte lost, doubled or reordered; ends and resets are passed on as what they are.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::common::service::Local;
use super::common::tunnel::{Link, Plan, Service};
use super::common::visitor::{self, connect, random};
use super::common::{PATIENCE, net};
use super::{Links, start};

#[test]
fn visitors_are_served_over_every_transport() {
    Links::new().each(|link| {
        let (echo, digest) = (Local::echo(), Local::digest());
        let services = vec![Service::tcp("echo", echo.addr), Service::tcp("digest", digest.addr)];
        let plan = Plan::new(link.clone(), services);
        let _running = start(&plan);
        let [echo, digest] = [0, 1].map(|i: usize| plan.services[i].visitors);
        visitor::ping_pong(echo, 200);
        visitor::echo(echo, &random(1, 3 << 20), true);
        std::thread::scope(|scope| {
            for seed in 0..20 {
                scope.spawn(move || visitor::echo(echo, &random(seed, 100_000 + seed as usize), true));
            }
        });
        // The answer comes after the visitor's end: on websocket, too.
        for size in [0, 1, 8192, 65_519, 65_536, 1_000_003] {
            visitor::half_close(digest, &random(size, size as usize));
        }
    });
}

#[test]
fn a_service_may_end_first() {
    Links::new().each(|link| {
        let (heard, hears) = mpsc::channel();
        // Says something, ends its direction, then listens to all that the visitor says.
        let local = Local::tcp(move |mut stream| {
            stream.write_all(b"220 ready\r\n").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut bytes = Vec::new();
            let end = stream.read_to_end(&mut bytes).map_err(|error| error.kind());
            let _ = heard.send((bytes, end));
        });
        let plan = Plan::new(link.clone(), vec![Service::tcp("smtp", local.addr)]);
        let _running = start(&plan);
        let mut stream = connect(plan.services[0].visitors);
        let mut greeting = String::new();
        stream.read_to_string(&mut greeting).expect("the greeting and its end");
        assert_eq!(greeting, "220 ready\r\n");
        let said = random(5, 400_000);
        stream.write_all(&said).expect("the other direction is open");
        stream.shutdown(Shutdown::Write).unwrap();
        let (bytes, end) = hears.recv_timeout(PATIENCE).expect("the service got the visitor's end");
        assert!(bytes == said, "{} bytes of {} arrived", bytes.len(), said.len());
        assert!(end.is_ok(), "{end:?}");
    });
}

#[test]
fn both_directions_at_full_speed() {
    const SIZE: usize = 12 << 20;
    Links::new().each(|link| {
        let (heard, hears) = mpsc::channel();
        let local = Local::tcp(move |stream| {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    (&stream).write_all(&random(100, SIZE)).expect("the service writes");
                    stream.shutdown(Shutdown::Write).unwrap();
                });
                let mut bytes = Vec::new();
                (&stream).read_to_end(&mut bytes).expect("the service reads");
                let _ = heard.send(bytes);
            });
        });
        let plan = Plan::new(link.clone(), vec![Service::tcp("bulk", local.addr)]);
        let _running = start(&plan);
        let stream = connect(plan.services[0].visitors);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (&stream).write_all(&random(200, SIZE)).expect("the visitor writes");
                stream.shutdown(Shutdown::Write).unwrap();
            });
            let mut bytes = Vec::new();
            (&stream).read_to_end(&mut bytes).expect("the visitor reads");
            assert!(bytes == random(100, SIZE), "down: {} bytes", bytes.len());
        });
        let bytes = hears.recv_timeout(PATIENCE).expect("the service is done");
        assert!(bytes == random(200, SIZE), "up: {} bytes", bytes.len());
    });
}

/// A reader that stops reads nothing on: the writer must be held back, and no byte lost.
#[test]
fn a_slow_reader_holds_the_writer_back() {
    Links::new().each(|link| {
        let local = Local::tcp(|mut stream| {
            let _ = stream.write_all(&random(7, 24 << 20));
        });
        let plan = Plan::new(link.clone(), vec![Service::tcp("bulk", local.addr)]);
        let (client, server) = start(&plan);
        let mut stream = connect(plan.services[0].visitors);
        let mut bytes = vec![0; 1000];
        stream.read_exact(&mut bytes).unwrap();
        // Until nothing moves any more: then what is on the way must be in sockets, not in our memory.
        let mut last = 0;
        net::wait("the stream does not come to rest", || {
            std::thread::sleep(Duration::from_millis(200));
            let queued = SockRef::from(&stream).recv_buffer_size().unwrap();
            let rest = peeked(&stream, queued);
            std::mem::replace(&mut last, rest) == rest && rest > 0
        });
        for process in [&client, &server] {
            let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
            let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            let rss: usize = rss.trim().trim_end_matches(" kB").parse().unwrap();
            assert!(rss < 20_000, "{}: {rss} kB resident while a visitor does not read", link.name);
        }
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        bytes.extend(rest);
        assert!(bytes == random(7, 24 << 20), "{} bytes", bytes.len());
    });
}

fn peeked(stream: &TcpStream, at_most: usize) -> usize {
    stream.peek(&mut vec![0; at_most]).unwrap()
}

#[test]
fn a_service_s_reset_reaches_the_visitor() {
    Links::new().each(|link| {
        let local = Local::reset();
        let plan = Plan::new(link.clone(), vec![Service::tcp("reset", local.addr)]);
        let _running = start(&plan);
        let mut stream = connect(plan.services[0].visitors);
        stream.write_all(b"x").unwrap();
        let (bytes, end) = visitor::read_until_closed(&mut stream);
        assert!(bytes.is_empty());
        let error = end.expect_err("the service's reset came as an orderly end");
        assert!(visitor::is_reset(&error), "{error}");
    });
}

#[test]
fn a_visitor_s_reset_reaches_the_service() {
    Links::new().each(|link| {
        let (heard, hears) = mpsc::channel();
        let local = Local::tcp(move |mut stream| {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            stream.write_all(&byte).unwrap();
            let _ = heard.send(stream.read(&mut byte).map_err(|error| error.kind()));
        });
        let plan = Plan::new(link.clone(), vec![Service::tcp("reset", local.addr)]);
        let _running = start(&plan);
        let mut stream = connect(plan.services[0].visitors);
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).expect("the relay is up");
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        let end = hears.recv_timeout(PATIENCE).expect("the service heard nothing");
        assert_eq!(end, Err(ErrorKind::ConnectionReset));
    });
}

/// A service that refuses a request by its first bytes answers and closes: its kernel sends the answer, and a reset
/// right behind it, as not all was read. A visitor who is still sending must find the answer, as without a tunnel.
#[test]
fn an_early_answer_is_not_lost_to_the_reset_behind_it() {
    const ANSWER: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\n";
    Links::new().each(|link| {
        let local = Local::tcp(|mut stream| {
            let _ = stream.read(&mut [0; 1000]);
            let _ = stream.write_all(ANSWER);
        });
        let plan = Plan::new(link.clone(), vec![Service::tcp("early", local.addr)]);
        let _running = start(&plan);
        for round in 0..20 {
            let mut stream = connect(plan.services[0].visitors);
            let sent = (0..400).try_for_each(|_| stream.write_all(&[b'z'; 32 << 10]));
            let (bytes, end) = visitor::read_until_closed(&mut stream);
            assert!(
                bytes == ANSWER,
                "{}, round {round}: {} bytes of the answer, then {end:?}; sending: {sent:?}",
                link.name,
                bytes.len()
            );
            assert!(sent.is_err() || end.is_err(), "{}: the reset is passed on", link.name);
        }
    });
}

#[test]
fn a_local_service_that_is_down_is_a_reset_and_a_warning() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("down", nobody)]);
    let (client, _server) = start(&plan);
    let begun = Instant::now();
    let (bytes, end) = visitor::connect_and_read(plan.services[0].visitors);
    assert!(bytes.is_empty());
    assert!(end.is_err_and(|error| visitor::is_reset(&error)), "not a reset");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    client.wait_for(&nobody.to_string());
    assert!(client.stderr().contains("WARN"), "{}", client.stderr());
}

#[test]
fn one_line_for_each_visitor() {
    let local = Local::echo();
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("counted", local.addr)]);
    let (client, server) = start(&plan);
    let mut stream = connect(plan.services[0].visitors);
    let me = stream.local_addr().unwrap();
    stream.write_all(&[7; 1234]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    for process in [&server, &client] {
        process.wait_for("visitor ended");
        let log = process.stderr();
        let line = log.lines().find(|line| line.contains("visitor ended")).unwrap();
        for field in
            ["service=counted ", "peer=", "bytes=2468 ", "up=1234 ", "down=1234 ", "duration=", "reason="]
        {
            assert!(line.contains(field), "{field}: {line}");
        }
        assert_eq!(process.stdout(), "", "standard output is for results");
    }
    assert!(server.stderr().contains(&me.to_string()), "the visitor's address is not in the server's log");
}

/// Keepalive and nodelay on all four sockets of a relay, as `ss` shows them.
#[test]
fn visitors_and_local_services_have_keepalive() {
    let (arrived, arrives) = mpsc::channel();
    let local = Local::tcp(move |stream| {
        let _ = arrived.send(stream.peer_addr().unwrap());
        super::common::service::echo(stream);
    });
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("keep", local.addr)]);
    let _running = start(&plan);
    let mut stream = connect(plan.services[0].visitors);
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let client_end = arrives.recv_timeout(PATIENCE).unwrap();
    // Timer kind 2 in the kernel's table is keepalive: of the server's end of the visitor's connection,
    // and of the client's end of the local one.
    for (own, other) in [(plan.services[0].visitors, stream.local_addr().unwrap()), (client_end, local.addr)]
    {
        net::wait(&format!("no keepalive timer on {own} - {other}"), || net::timer(own, other) == Some(2));
    }
}
