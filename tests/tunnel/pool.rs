//! Data channels and visitors, driven by a client made of bytes: what dies, what is lost, what is moved, what is not.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use socket2::SockRef;

use super::common::process::Process;
use super::common::raw::{Control, ONE, ZERO, put, rest, take};
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Service};
use super::common::visitor;
use super::common::{PATIENCE, net};
use super::start;

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// A server with one service, which keeps `channels` idle, and its client by hand.
fn serve(channels: usize) -> (Plan, Process, Control) {
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("pool", NOWHERE)]);
    plan.services[0].server_lines = format!("max_channels = {channels}\n");
    plan.server_lines = "heartbeat_interval = 1\n".to_owned();
    let server = plan.start_server(Build::Ours);
    let control = Control::open(plan.server_addr, "pool", &plan.server_token).accepted();
    (plan, server, control)
}

/// Waits for a request for a data channel; heartbeats may come between.
fn asked(control: &Control) {
    while take::<4>(&control.stream) != ZERO {}
}

/// Requests that come until there are none for `quiet`.
fn requests(control: &Control, quiet: Duration) -> usize {
    control.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let (mut count, mut last) = (0, Instant::now());
    while last.elapsed() < quiet {
        let mut command = [0; 4];
        match (&control.stream).read_exact(&mut command) {
            Ok(()) if command == ONE => {}
            Ok(()) => (count, last) = (count + 1, Instant::now()),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}")
            }
        }
    }
    control.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    count
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

fn is_open(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let open = stream.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    open
}

/// An idle channel is watched: another is asked for when it dies, not when a visitor comes (D12).
#[test]
fn an_idle_channel_that_dies_is_replaced_without_a_visitor() {
    let (plan, _server, control) = serve(1);
    asked(&control);
    type Death = fn(TcpStream);
    let deaths: [Death; 3] = [drop, reset, |stream| {
        put(&stream, b"?");
        rest(&stream);
    }];
    for death in deaths {
        let channel = control.data(plan.server_addr);
        // It is idle once it was given to the pool: nothing announces that but that it is not asked for again.
        std::thread::sleep(Duration::from_millis(100));
        death(channel);
        asked(&control);
    }
    let channel = control.data(plan.server_addr);
    let mut visitor = visitor::connect(plan.services[0].visitors);
    assert_eq!(take(&channel), ZERO);
    put(&channel, b"alive");
    visitor.read_exact(&mut [0; 5]).unwrap();
}

/// Who opens and closes at once is asked again, but not without end.
#[test]
fn a_client_that_closes_what_it_opens_is_no_busy_loop() {
    let (plan, server, control) = serve(8);
    let begun = Instant::now();
    let mut count = 0;
    control.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    while begun.elapsed() < Duration::from_secs(4) {
        let mut command = [0; 4];
        if (&control.stream).read_exact(&mut command).is_ok() && command == ZERO {
            count += 1;
            drop(control.data(plan.server_addr));
        }
    }
    // 16 are free, then 2 in a second, in batches of 8.
    assert!((16..=40).contains(&count), "asked for {count} channels in 4 s:\n{}", server.log());
}

/// A visitor that has said nothing is moved when its channel is reset, at most twice, and then reset itself.
#[test]
fn a_silent_visitor_is_moved_to_another_channel_twice() {
    let (plan, _server, control) = serve(1);
    let silent = || visitor::connect(plan.services[0].visitors);
    let mut visitor = silent();
    for _ in 0..2 {
        let channel = control.data(plan.server_addr);
        assert_eq!(take(&channel), ZERO);
        reset(channel);
    }
    let channel = control.data(plan.server_addr);
    assert_eq!(take(&channel), ZERO);
    put(&channel, b"welcome");
    let mut answer = [0; 7];
    visitor.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"welcome");
    drop(channel);
    // The third failure is the visitor's.
    let mut visitor = silent();
    for _ in 0..3 {
        let channel = control.data(plan.server_addr);
        assert_eq!(take(&channel), ZERO);
        reset(channel);
    }
    let (bytes, end) = visitor::read_until_closed(&mut visitor);
    assert!(bytes.is_empty() && end.is_err_and(|error| visitor::is_reset(&error)));
}

/// No request is executed twice: once a byte of the visitor's may have been read, a reset is a reset.
#[test]
fn a_visitor_that_has_spoken_is_not_moved() {
    let (plan, _server, control) = serve(1);
    let mut visitor = visitor::connect(plan.services[0].visitors);
    visitor.write_all(b"transfer 100").unwrap();
    let channel = control.data(plan.server_addr);
    let mut command = [0; 16];
    (&channel).read_exact(&mut command).unwrap();
    assert_eq!(command[4..], *b"transfer 100");
    let spare = control.data(plan.server_addr);
    reset(channel);
    let (bytes, end) = visitor::read_until_closed(&mut visitor);
    assert!(bytes.is_empty() && end.is_err_and(|error| visitor::is_reset(&error)));
    // Nor is one that has got something.
    let mut visitor = visitor::connect(plan.services[0].visitors);
    assert_eq!(take(&spare), ZERO);
    put(&spare, b"220 ");
    visitor.read_exact(&mut [0; 4]).unwrap();
    reset(spare);
    let (bytes, end) = visitor::read_until_closed(&mut visitor);
    assert!(bytes.is_empty() && end.is_err_and(|error| visitor::is_reset(&error)));
}

/// An orderly end after StartForward is what the service says: passed on, and no second channel is spent.
#[test]
fn an_orderly_end_is_an_answer() {
    let (plan, _server, control) = serve(1);
    let mut visitor = visitor::connect(plan.services[0].visitors);
    let channel = control.data(plan.server_addr);
    assert_eq!(take(&channel), ZERO);
    let spare = control.data(plan.server_addr);
    drop(channel);
    assert_eq!(visitor.read(&mut [0; 1]).unwrap(), 0);
    assert!(is_open(&spare), "a second channel was used");

    // The same with a client of ours: a service that closes without a word is called once.
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let local = Local::tcp(move |stream| {
        counter.fetch_add(1, SeqCst);
        drop(stream);
    });
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("mute", local.addr)]);
    let (client, _server) = start(&plan);
    client.wait_for("connected to the server");
    for expected in 1..=5 {
        let mut visitor = visitor::connect(plan.services[0].visitors);
        assert_eq!(visitor.read(&mut [0; 1]).unwrap(), 0, "an end, not a reset");
        assert_eq!(calls.load(SeqCst), expected);
    }
}

/// A request that the client has lost is made again while its visitor still waits (D11).
#[test]
fn a_lost_request_is_made_again_in_time() {
    let (plan, _server, control) = serve(1);
    asked(&control);
    let begun = Instant::now();
    let mut visitor = visitor::connect(plan.services[0].visitors);
    asked(&control);
    assert_eq!(requests(&control, Duration::from_millis(1500)), 0);
    // Both were lost; the server cannot know, but it can wonder.
    asked(&control);
    let took = begun.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(7)).contains(&took), "{took:?}");
    let channel = control.data(plan.server_addr);
    assert_eq!(take(&channel), ZERO);
    put(&channel, b"at last");
    visitor.read_exact(&mut [0; 7]).unwrap();
}

/// A visitor that left while it waited costs no channel.
#[test]
fn a_visitor_that_left_costs_no_channel() {
    let (plan, server, control) = serve(1);
    asked(&control);
    let addr = plan.services[0].visitors;
    let visitors: Vec<_> = (0..5).map(|_| visitor::connect(addr)).collect();
    (0..5).for_each(|_| asked(&control));
    visitors.into_iter().for_each(reset);
    let mut stays = visitor::connect(addr);
    asked(&control);
    let channel = control.data(plan.server_addr);
    assert_eq!(take(&channel), ZERO);
    put(&channel, b"for who stays");
    let mut answer = [0; 13];
    stays.read_exact(&mut answer).unwrap();
    server.wait_for_times("visitor left while it waited", 5);
}

/// Fifty at once are asked for at once, and as many are kept for the next fifty.
#[test]
fn the_pool_grows_with_demand() {
    let (plan, _server, control) = serve(1024);
    assert_eq!(requests(&control, Duration::from_millis(500)), 8);
    let addr = plan.services[0].visitors;
    let first: Vec<_> = (0..50).map(|_| visitor::connect(addr)).collect();
    let more = requests(&control, Duration::from_millis(500));
    assert!((80..=110).contains(&more), "50 wait, 52 are to be kept, 8 are asked for: {more} more");
    let channels: Vec<_> = (0..8 + more).map(|_| control.data(plan.server_addr)).collect();
    let started = || channels.iter().filter(|channel| has_start(channel)).count();
    net::wait("fifty are not served", || started() == 50);
    // The next fifty wait for nothing: not one of them needs a request to be fulfilled.
    let second: Vec<_> = (0..50).map(|_| visitor::connect(addr)).collect();
    net::wait("the next fifty are not served", || started() == 100);
    drop((first, second));
}

/// What is kept in store is no more than a quarter of the descriptors that the service itself does not need, nor the pipes
/// of relays (12 of 200); alone, it has two thirds of that. Visitors need the rest.
#[test]
fn the_store_leaves_descriptors_for_visitors() {
    const STORE: usize = 26;
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("pool", NOWHERE)]);
    let server = plan.start_server_with(200);
    let control = Control::open(plan.server_addr, "pool", &plan.server_token).accepted();
    // Thirty come in one moment, however slow this machine is: all of them are there when the server looks.
    let addr = plan.services[0].visitors;
    server.signal(Signal::SIGSTOP);
    let visitors: Vec<_> = (0..30).map(|_| visitor::connect(addr)).collect();
    server.signal(Signal::SIGCONT);
    let channel = || {
        asked(&control);
        control.data(plan.server_addr)
    };
    // That is worth more in store.
    let mut channels: Vec<_> = (0..visitors.len() + STORE).map(|_| channel()).collect();
    let started = || channels.iter().filter(|channel| has_start(channel)).count();
    net::wait("some are not served", || started() == visitors.len());
    assert_eq!(requests(&control, Duration::from_millis(500)), 0);
    // More than were asked for are not kept.
    channels.extend((0..20).map(|_| control.data(plan.server_addr)));
    let open = || channels.iter().filter(|channel| is_open(channel) && !has_start(channel)).count();
    net::wait("the store is not what it should be", || open() == STORE);
    assert_eq!(requests(&control, Duration::from_millis(500)), 0);
    assert_eq!(open(), STORE);
}

fn has_start(channel: &TcpStream) -> bool {
    channel.set_nonblocking(true).unwrap();
    let mut command = [0; 4];
    let peeked: io::Result<usize> = channel.peek(&mut command);
    peeked.is_ok_and(|n| n == 4 && command == ZERO)
}
