//! The bad line (tests/line) does what the tests that stand on it believe.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
mod line;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use common::PATIENCE;
use common::service::Local;
use common::visitor::{is_reset, random};
use line::crowd::{Outcome, visit};
use line::middlebox::{Gone, Middlebox, Verdict};
use line::site::Held;
use line::weather::Weather;
use line::{CLIENT, CLIENT_MOVED, Line};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// An echo at the client's end, for connections across the line.
fn echo(line: &Line) -> Held<Local> {
    line.client.hold(|| Local::tcp_on(TcpListener::bind((CLIENT, 0)).unwrap(), common::service::echo))
}

/// A connection from the server's end to an echo at the client's end.
fn connect(line: &Line, echo: &Local) -> TcpStream {
    let stream = line.server.run(|| common::visitor::connect(echo.addr));
    stream.set_nodelay(true).unwrap();
    stream
}

fn round_trip(mut stream: &TcpStream) -> Duration {
    let begun = Instant::now();
    stream.write_all(b"ping").unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    begun.elapsed()
}

/// Sends datagrams one way; which came, in their order.
fn datagrams(line: &Line, count: u16) -> Vec<u16> {
    let receiver = line.client.run(|| UdpSocket::bind((CLIENT, 0)).unwrap());
    let sender = line.server.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    receiver.set_read_timeout(Some(MS(1000))).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut came, mut datagram) = (Vec::new(), [0; 2]);
            while receiver.recv(&mut datagram).is_ok() {
                came.push(u16::from_be_bytes(datagram));
            }
            came
        });
        for number in 0..count {
            sender.send(&number.to_be_bytes()).unwrap();
            std::thread::sleep(Duration::from_micros(200));
        }
        reader.join().unwrap()
    })
}

#[test]
fn fine_weather_carries_all_and_delay_is_added() {
    let Some(line) = Line::new("line_itself::fine_weather", 1) else { return };
    let echo = echo(&line);
    let bytes = random(1, 4 << 20);
    assert_eq!(line.server.run(|| visit(echo.addr, &bytes, PATIENCE)), Outcome::Served);
    let stream = connect(&line, &echo);
    let quick = (0..10).map(|_| round_trip(&stream)).min().unwrap();
    assert!(quick < MS(20), "{quick:?}");
    line.set(Weather::delay(60));
    let slow = (0..3).map(|_| round_trip(&stream)).min().unwrap();
    assert!((MS(120)..MS(170)).contains(&slow), "{slow:?}");
}

#[test]
fn frames_are_lost_doubled_and_overtaken() {
    let Some(line) = Line::new("line_itself::frames_are_lost", 2) else { return };
    let all: Vec<u16> = (0..2000).collect();
    assert_eq!(datagrams(&line, 2000), all);
    line.set(Weather { loss: 0.1, ..Weather::default() });
    let came = datagrams(&line, 2000).len();
    assert!((1700..1900).contains(&came), "{came} of 2000 at 10 % loss");
    line.set(Weather { duplicate: 0.1, ..Weather::default() });
    let came = datagrams(&line, 2000).len();
    assert!((2100..2300).contains(&came), "{came} of 2000 with 10 % doubled");
    line.set(Weather { jitter: MS(10), ..Weather::delay(5) });
    assert_eq!(datagrams(&line, 2000), all, "jitter alone keeps the order");
    line.set(Weather { jitter: MS(10), reorder: 0.1, ..Weather::delay(5) });
    let came = datagrams(&line, 2000);
    assert_eq!(came.len(), 2000);
    let overtaken = came.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!(overtaken > 20, "{overtaken} of 2000 with 10 % late");
}

#[test]
fn a_rate_limits_throughput() {
    let Some(line) = Line::new("line_itself::a_rate", 3) else { return };
    line.set(Weather { rate: 4_000_000, ..Weather::delay(5) });
    let echo = echo(&line);
    let begun = Instant::now();
    let bytes = random(3, 1 << 20);
    assert_eq!(line.server.run(|| visit(echo.addr, &bytes, PATIENCE)), Outcome::Served);
    // 8.4 Mbit, both ways at once.
    let time = begun.elapsed();
    assert!((MS(2000)..MS(4000)).contains(&time), "{time:?}");
    // Slow is not stuck.
    assert_eq!(line.server.run(|| visit(echo.addr, &bytes, MS(1500))), Outcome::Served);
}

#[test]
fn a_cut_is_silent_in_each_direction_and_mends() {
    let Some(line) = Line::new("line_itself::a_cut", 4) else { return };
    let echo = echo(&line);
    let mut stream = connect(&line, &echo);
    round_trip(&stream);
    for (to_client, to_server) in [(true, true), (true, false), (false, true)] {
        line.cut_ways(to_client, to_server);
        stream.set_read_timeout(Some(MS(300))).unwrap();
        stream.write_all(b"ping").unwrap();
        let error = stream.read(&mut [0; 4]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
        line.cut(false);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
    }
}

#[test]
fn a_router_forgets_old_connections_and_carries_new_ones() {
    let Some(line) = Line::new("line_itself::a_router", 5) else { return };
    let echo = echo(&line);
    let mut stream = connect(&line, &echo);
    round_trip(&stream);
    line.forget(Gone::Silently);
    stream.set_read_timeout(Some(MS(500))).unwrap();
    stream.write_all(b"ping").unwrap();
    let error = stream.read(&mut [0; 4]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
    let mut stream = connect(&line, &echo);
    round_trip(&stream);
    line.forget(Gone::WithReset);
    stream.write_all(b"ping").unwrap();
    let error = stream.read(&mut [0; 4]).unwrap_err();
    assert!(is_reset(&error), "{error}");
    round_trip(&connect(&line, &echo));
}

#[test]
fn a_forgotten_connection_may_be_opened_again() {
    let frame = |flags: u8| {
        let mut frame = vec![0; 54];
        frame[12] = 8;
        (frame[14], frame[23], frame[47]) = (0x45, 6, flags);
        frame
    };
    let (syn, ack) = (frame(0x02), frame(0x10));
    let mut middlebox = Middlebox::default();
    let passes = |middlebox: &mut Middlebox, frame| matches!(middlebox.on_frame(frame), Verdict::Pass);
    assert!(passes(&mut middlebox, &syn) && passes(&mut middlebox, &ack));
    middlebox.forget(Gone::Silently);
    assert!(!passes(&mut middlebox, &ack));
    assert!(passes(&mut middlebox, &syn) && passes(&mut middlebox, &ack));
}

#[test]
fn a_site_moves() {
    let Some(line) = Line::new("line_itself::a_site_moves", 6) else { return };
    let echo =
        line.client.hold(|| Local::tcp_on(TcpListener::bind("0.0.0.0:0").unwrap(), common::service::echo));
    let at = |host: std::net::Ipv4Addr| (host, echo.addr.port()).into();
    assert_eq!(line.server.run(|| visit(at(CLIENT), b"here", PATIENCE)), Outcome::Served);
    Line::move_site(&line.client, CLIENT, CLIENT_MOVED);
    assert_eq!(line.server.run(|| visit(at(CLIENT_MOVED), b"there", PATIENCE)), Outcome::Served);
    assert_eq!(line.server.run(|| visit(at(CLIENT), b"here", MS(500))), Outcome::Stuck);
}
