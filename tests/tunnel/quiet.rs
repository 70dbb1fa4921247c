//! What goes on for long is told in few lines: at once, then once a minute; of each single case debug tells.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::common::process::Process;
use super::common::raw::{Control, FakeServer, ONE, ZERO, hello, put, take};
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Service};
use super::common::{net, visitor};

/// A night without a server would fill a disk: so many services, each tried again and again.
const SERVICES: usize = 20;

fn services(local: &Local) -> Vec<Service> {
    (0..SERVICES).map(|n| Service::tcp(&format!("service-{n:02}"), local.addr)).collect()
}

fn lines(process: &Process, level: &str, words: &str) -> Vec<String> {
    let log = process.stderr();
    let fits = |line: &&str| line.contains(&format!(" {level} ")) && line.contains(words);
    log.lines().filter(fits).map(str::to_owned).collect()
}

/// What a client may say about a reason: at once, and once a minute.
fn allowed(since: Instant) -> usize {
    1 + since.elapsed().as_secs() as usize / 60
}

fn client(local: &Local) -> (Plan, Process) {
    let mut plan = Plan::new(Link::tcp(), services(local));
    plan.client_lines = "retry_interval = 1\n".to_owned();
    let client = plan.start_client(Build::Ours);
    (plan, client)
}

#[test]
fn an_absent_server_is_told_once_and_not_for_each_attempt() {
    let (local, begun) = (Local::echo(), Instant::now());
    let (plan, client) = client(&local);
    client.wait_for_times("no control channel", 5 * SERVICES);
    let refused = lines(&client, "WARN", "Connection refused");
    assert!(refused[0].contains("no control channel, next attempt in "), "{refused:#?}");
    assert!(refused.len() <= allowed(begun), "{refused:#?}");
    // Another reason is told at once, and once.
    let server = FakeServer::listen(plan.server_addr);
    for _ in 0..2 * SERVICES {
        drop(server.accept());
    }
    client.wait_for_times("the server hung up in the handshake", 2 * SERVICES);
    for reason in ["the server hung up in the handshake", "Connection refused"] {
        let told = lines(&client, "WARN", reason);
        assert!((1..=allowed(begun)).contains(&told.len()), "{told:#?}");
    }
    drop(server);
    // That each is there, and each loss, is news.
    let mut server = plan.start_server(Build::Ours);
    client.wait_for_times("connected to the server", SERVICES);
    server.kill();
    net::wait("each loss is told", || {
        lines(&client, "WARN", "no control channel, next attempt in").len() >= SERVICES
    });
    client.wait_for_times("no control channel", 12 * SERVICES);
    let told = lines(&client, "WARN", "no control channel").len();
    assert!(told <= SERVICES + 4 * allowed(begun), "{}", client.log());
}

#[test]
#[ignore = "takes a minute; part of the full run, docs/testing.md"]
fn an_absent_server_is_told_of_once_a_minute_with_a_count() {
    let local = Local::echo();
    let (_plan, client) = client(&local);
    client.wait_for("no control channel, next attempt");
    let begun = Instant::now();
    let again = || lines(&client, "WARN", "attempts since the last line");
    while again().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(75), "{}", client.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(begun.elapsed() >= Duration::from_secs(59), "{:?}", begun.elapsed());
    let again = again();
    let [line] = &again[..] else { panic!("{again:#?}") };
    assert!(line.contains("services=20"), "{line}");
    let count = line.split_once("no control channel: ").unwrap().1.split(' ').next().unwrap();
    let (told, attempts) =
        (count.parse::<usize>().unwrap(), lines(&client, "DEBUG", "no control channel").len());
    // Each but the first of the minute and this one was told at debug.
    assert!(told.abs_diff(attempts) <= SERVICES, "{told} {attempts}");
    assert_eq!(lines(&client, "WARN", "no control channel").len(), 2);
}

/// Says yes to a client, and gives the channel.
fn accept(server: &FakeServer) -> TcpStream {
    let stream = server.accept();
    let _hello: [u8; 37] = take(&stream);
    put(&stream, &hello(0, 1, &[7; 32]));
    let _auth: [u8; 32] = take(&stream);
    put(&stream, &ZERO);
    stream
}

/// A server, or what plays one on the way, that takes everybody and soon drops them.
#[test]
fn control_channels_that_never_last_are_told_together() {
    let (local, begun) = (Local::echo(), Instant::now());
    let (plan, client) = client(&local);
    let server = FakeServer::listen(plan.server_addr);
    for _ in 0..6 * SERVICES {
        drop(accept(&server));
    }
    client.wait_for_times("connected to the server", 6 * SERVICES);
    let connected = lines(&client, "INFO", "connected to the server").len();
    assert_eq!(connected, 2 * SERVICES, "{}", client.log());
    let lost = lines(&client, "WARN", "no control channel");
    // Once for each service, and once for each reason: there may be another while nobody listened yet.
    assert!((SERVICES..=SERVICES + 2 * allowed(begun)).contains(&lost.len()), "{lost:#?}");
    assert!(lines(&client, "DEBUG", "no control channel").len() >= 3 * SERVICES);
}

#[test]
#[ignore = "takes a minute; part of the full run, docs/testing.md"]
fn a_control_channel_that_lasts_at_last_is_told() {
    let local = Local::echo();
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    plan.client_lines = "retry_interval = 1\n".to_owned();
    let client = plan.start_client(Build::Ours);
    let server = FakeServer::listen(plan.server_addr);
    let connected = || lines(&client, "INFO", "connected to the server").len();
    let lost = || lines(&client, "WARN", "no control channel").len();
    for _ in 0..4 {
        drop(accept(&server));
    }
    let mut channel = accept(&server);
    client.wait_for_times("connected to the server", 5);
    let (connected_before, lost_before, begun) = (connected(), lost(), Instant::now());
    while connected() == connected_before {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", client.log());
        // A heartbeat: else it would not last.
        put(&channel, &ONE);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(begun.elapsed() >= Duration::from_secs(29), "{:?}", begun.elapsed());
    // And all is as at the beginning: the next two are told at once.
    for n in 1..=2 {
        drop(channel);
        net::wait("the loss is told", || lost() == lost_before + n);
        channel = accept(&server);
        net::wait("the next is told", || connected() == connected_before + 1 + n);
    }
}

/// A port on the internet without a client is knocked at all the time.
#[test]
fn visitors_without_a_client_are_told_together() {
    let local = Local::echo();
    let mut plan =
        Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr), Service::tcp("other", local.addr)]);
    plan.server_lines = "visitor_timeout = 0\n".to_owned();
    let server = plan.start_server(Build::Ours);
    for service in &plan.services {
        for _ in 0..10 {
            let (_, end) = visitor::connect_and_read(service.visitors);
            assert!(end.is_err_and(|error| visitor::is_reset(&error)));
        }
    }
    net::wait("each is told at debug", || lines(&server, "DEBUG", "visitor refused").len() == 20);
    let told = lines(&server, "INFO", "no client");
    assert_eq!(told.len(), 2, "one for each service: {told:#?}");
    assert!(
        told.iter().all(|line| line.contains("visitors refused") && line.contains("count=1")),
        "{told:#?}"
    );
}

/// A client that is there and brings no channel: its visitors have waited for nothing.
#[test]
fn visitors_without_a_channel_are_told_together() {
    let local = Local::echo();
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    plan.server_lines = "visitor_timeout = 1\n".to_owned();
    let server = plan.start_server(Build::Ours);
    let _client = Control::open(plan.server_addr, "echo", &plan.server_token).accepted();
    server.wait_for("client connected");
    let waiting: Vec<TcpStream> = (0..20).map(|_| visitor::connect(plan.services[0].visitors)).collect();
    for mut stream in waiting {
        let (_, end) = visitor::read_until_closed(&mut stream);
        assert!(end.is_err_and(|error| visitor::is_reset(&error)));
    }
    let refused = || lines(&server, "DEBUG", "visitor refused");
    net::wait("each is told at debug", || refused().len() == 20);
    let reason = "reason=\"no data channel in time\"";
    assert!(refused().iter().all(|line| line.contains(reason)), "{:#?}", refused());
    let told = lines(&server, "INFO", "visitors refused");
    assert!(
        matches!(&told[..], [line] if line.contains(reason) && line.ends_with(&format!("count=1 {reason}"))),
        "{told:#?}"
    );
    // What was counted in silence is told at the end, at the latest.
    server.signal(Signal::SIGTERM);
    server.wait_for("count=19");
    let told = lines(&server, "INFO", "visitors refused");
    assert!(
        matches!(&told[..], [_, line] if line.contains(reason) && line.contains("count=19")),
        "{told:#?}"
    );
}

/// Whoever visits a service that is down could fill the client's log, and each of them up to three times.
#[test]
fn a_local_service_that_is_down_is_told_once() {
    let (begun, mut plan) =
        (Instant::now(), Plan::new(Link::tcp(), vec![Service::tcp("down", net::address())]));
    plan.client_lines = "retry_interval = 1\n".to_owned();
    let _server = plan.start_server(Build::Ours);
    let client = plan.start_client(Build::Ours);
    client.wait_for("connected to the server");
    for _ in 0..10 {
        let (bytes, end) = visitor::connect_and_read(plan.services[0].visitors);
        assert!(bytes.is_empty() && visitor::is_reset(&end.unwrap_err()));
    }
    client.wait_for_times("local service unreachable", 10);
    let told = lines(&client, "WARN", "local service unreachable");
    assert!((1..=allowed(begun)).contains(&told.len()), "{told:#?}");
    assert!(told[0].contains("service=down local=") && told[0].contains("Connection refused"), "{told:#?}");
}
