//! What goes on for long is told in few lines: at once, then once a minute; of each single case debug tells.

use std::net::TcpStream;

use super::common::process::Process;
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Service};
use super::common::{net, visitor};

fn lines(process: &Process, level: &str, words: &str) -> Vec<String> {
    let log = process.stderr();
    let fits = |line: &&str| line.contains(&format!(" {level} ")) && line.contains(words);
    log.lines().filter(fits).map(str::to_owned).collect()
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
