//! Visitors, and the data channels that they are given.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::common::net;
use super::common::process::Process;
use super::common::raw::connect;
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Role, Service};
use super::common::visitor;
use super::hand::{control, count_asked, obey};
use super::{Outcome, echo_once, ended, seconds, served, until, verdict};

situations! {
    "D11" => lost_requests_hang_no_visitor,
    "D12" => channels_that_died_idle_are_given_to_nobody,
    "D13" => a_client_that_left_is_seen,
    "S18" => the_service_can_learn_the_visitor_s_address,
    "S18" => visitors_can_be_refused_by_address,
}

const NOWHERE: ([u8; 4], u16) = ([127, 0, 0, 1], 9);

fn plan() -> Plan {
    Plan::new(Link::tcp(), vec![Service::tcp("echo", NOWHERE.into())])
}

/// A client loses what it was asked for at first, the first visitor's request too; then it does what it is asked for.
fn lost_requests_hang_no_visitor(build: Build) -> Outcome {
    let plan = plan();
    let _server = plan.start_server(build);
    let control = Arc::new(control(&plan, "echo"));
    let first_requests = count_asked(&control, Duration::from_secs(1));
    let visitors = plan.services[0].visitors;
    net::wait_listening(visitors);
    let patience = Duration::from_secs(20);
    let visit = move || {
        let begun = std::time::Instant::now();
        echo_once(visitors, b"hello", patience).map(|()| begun.elapsed())
    };
    let first = std::thread::spawn(visit);
    let lost = first_requests + count_asked(&control, Duration::from_secs(1));
    obey(&control, plan.server_addr);
    let second = std::thread::spawn(visit);
    let results = [first, second].map(|thread| thread.join().unwrap());
    let word = |result: &std::io::Result<Duration>| match result {
        Ok(time) => format!("served after {}", seconds(*time)),
        Err(error) if visitor::is_reset(error) => "reset".to_owned(),
        Err(_) => "hangs for 20 s".to_owned(),
    };
    let words = format!("{lost} requests lost; {}, {}", word(&results[0]), word(&results[1]));
    verdict(results.iter().all(Result::is_ok), words)
}

/// The channels of the pool are closed, by the client or by something on the way; then eight visitors come.
fn channels_that_died_idle_are_given_to_nobody(build: Build) -> Outcome {
    let plan = plan();
    let _server = plan.start_server(build);
    let control = Arc::new(control(&plan, "echo"));
    let visitors = plan.services[0].visitors;
    net::wait_listening(visitors);
    for _ in 0..count_asked(&control, Duration::from_secs(1)) {
        drop(control.data(plan.server_addr));
    }
    obey(&control, plan.server_addr);
    let served = (0..8).filter(|_| echo_once(visitors, b"hello", Duration::from_secs(10)).is_ok()).count();
    verdict(served == 8, format!("{served} of 8 visitors are served"))
}

/// A client closes its control channel; what becomes of a visitor that comes then, and of one that comes later.
fn a_client_that_left_is_seen(build: Build) -> Outcome {
    let plan = plan();
    let _server = plan.start_server(build);
    let gone = control(&plan, "echo");
    let visitors = plan.services[0].visitors;
    net::wait_listening(visitors);
    drop(gone);
    let limit = Duration::from_secs(20);
    let early = end_of_visit(visitors, limit);
    let late = end_of_visit(visitors, limit);
    let word = |end: Option<Duration>| {
        end.map_or("hangs for 20 s".to_owned(), |end| format!("ended after {}", seconds(end)))
    };
    let words = format!("a visitor is {}, the next {}", word(early), word(late));
    verdict(early.is_some() && late.is_some(), words.replace("is hangs", "hangs"))
}

fn end_of_visit(addr: SocketAddr, limit: Duration) -> Option<Duration> {
    match TcpStream::connect(addr) {
        Ok(stream) => ended(&stream, limit),
        // Refused, or reset so early that this reports it.
        Err(_) => Some(Duration::ZERO),
    }
}

/// Starts a server with a key in its service that 0.5.0 may not know; Err: it has ended.
fn start_with(build: Build, plan: &mut Plan, line: &str) -> Result<Process, String> {
    plan.services[0].server_lines = format!("{line}\n");
    let mut server = build.start(Role::Server, &plan.write("server.toml", &plan.server_toml()));
    until(Duration::from_secs(10), || !server.is_running() || net::listens(plan.server_addr));
    if server.is_running() { Ok(server) } else { Err(format!("no such key ({line})")) }
}

/// The service is told who its visitor is.
fn the_service_can_learn_the_visitor_s_address(build: Build) -> Outcome {
    let local = Local::echo();
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    let _server = start_with(build, &mut plan, "proxy_protocol = \"v1\"")?;
    let _client = plan.start_client(build);
    let visitors = plan.services[0].visitors;
    net::wait_listening(visitors);
    let mut visitor = connect(visitors);
    let own = visitor.local_addr().unwrap();
    let expected =
        format!("PROXY TCP4 {} {} {} {}\r\n", own.ip(), visitors.ip(), own.port(), visitors.port());
    let mut head = vec![0; expected.len()];
    visitor.read_exact(&mut head).map_err(|error| error.to_string())?;
    let head = String::from_utf8_lossy(&head).into_owned();
    verdict(head == expected, "the service reads the visitor's address in a PROXY header".to_owned())
}

/// A list of addresses that are not welcome.
fn visitors_can_be_refused_by_address(build: Build) -> Outcome {
    let local = Local::echo();
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    let visitors = plan.services[0].visitors;
    {
        let _server = start_with(build, &mut plan, "deny = [\"127.0.0.0/8\"]")?;
        let _client = plan.start_client(build);
        net::wait_listening(visitors);
        let (bytes, end) = visitor::connect_and_read(visitors);
        if !bytes.is_empty() || end.is_ok() {
            return Err("a denied visitor is not reset".to_owned());
        }
    }
    let _server = start_with(build, &mut plan, "deny = [\"192.0.2.0/24\"]\nallow = [\"127.0.0.0/8\"]")?;
    let _client = plan.start_client(build);
    match served(visitors, Duration::from_secs(10)) {
        Some(_) => Ok("the denied are reset, the allowed served".to_owned()),
        None => Err("an allowed visitor is not served".to_owned()),
    }
}
