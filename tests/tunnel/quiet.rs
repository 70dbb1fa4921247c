//! What goes on for long is told in few lines: at once, then once a minute; of each single case debug tells.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::common::process::Process;
use super::common::raw::FakeServer;
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

fn client(local: &Local) -> (Plan, Process) {
    let mut plan = Plan::new(Link::tcp(), services(local));
    plan.client_lines = "retry_interval = 1\n".to_owned();
    let client = plan.start_client(Build::Ours);
    (plan, client)
}

#[test]
fn an_absent_server_is_told_once_and_not_for_each_attempt() {
    let local = Local::echo();
    let (plan, client) = client(&local);
    client.wait_for_times("no control channel", 5 * SERVICES);
    let refused = lines(&client, "WARN", "Connection refused");
    assert!(
        matches!(&refused[..], [line] if line.contains("no control channel, next attempt in ")),
        "{refused:#?}"
    );
    // Another reason is told at once, and once.
    let server = FakeServer::listen(plan.server_addr);
    for _ in 0..2 * SERVICES {
        drop(server.accept());
    }
    client.wait_for_times("the server hung up in the handshake", 2 * SERVICES);
    assert_eq!(lines(&client, "WARN", "the server hung up in the handshake").len(), 1);
    assert_eq!(lines(&client, "WARN", "Connection refused").len(), 1);
    drop(server);
    // That each is there, and each loss, is news.
    let mut server = plan.start_server(Build::Ours);
    client.wait_for_times("connected to the server", SERVICES);
    server.kill();
    net::wait("each loss is told", || {
        lines(&client, "WARN", "no control channel, next attempt in").len() >= SERVICES
    });
    client.wait_for_times("no control channel", 12 * SERVICES);
    assert!(lines(&client, "WARN", "no control channel").len() <= SERVICES + 4, "{}", client.log());
}

#[test]
#[ignore = "takes a minute; part of the full run, docs/testing.md"]
fn an_absent_server_is_told_of_once_a_minute_with_a_count() {
    let local = Local::echo();
    let (_plan, client) = client(&local);
    client.wait_for("no control channel, next attempt");
    let begun = Instant::now();
    let again = || lines(&client, "WARN", "attempts in the last minute");
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
    // No client has been there for as long as visitors wait for one, or nearly.
    let waiting: Vec<TcpStream> = (0..20).map(|_| visitor::connect(plan.services[0].visitors)).collect();
    for mut stream in waiting {
        let (_, end) = visitor::read_until_closed(&mut stream);
        assert!(end.is_err_and(|error| visitor::is_reset(&error)));
    }
    net::wait("each is told at debug", || lines(&server, "DEBUG", "visitor refused").len() == 20);
    let told = lines(&server, "INFO", "visitors refused");
    assert!((1..=2).contains(&told.len()), "one for each reason: {told:#?}");
}
