//! Changes while it runs, and stopping.

use std::io::{Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::common::process::Process;
use super::common::raw::{FakeServer, ZERO, connect, hello, put, rest, take};
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Role, Service};
use super::common::{net, visitor};
use super::hand::{accept_within, accepts, accepts_in_time, control, still_open};
use super::{Outcome, echo_once, served, until, verdict};

situations! {
    "D5" => a_silent_connection_does_not_pin_what_was_before_a_reload,
    "S2" => a_second_half_kills_nobody,
    "S5" => the_half_that_is_not_run_may_change,
    "S6" => sigterm_leaves_relays_their_grace,
    "S9" => a_changed_service_is_connected_once,
}

const NOWHERE: ([u8; 4], u16) = ([127, 0, 0, 1], 9);

/// Says that a file has changed. 0.5.0 has no word for it: it watches.
fn tell(build: Build, process: &Process) {
    if build == Build::Ours {
        process.signal(Signal::SIGHUP);
    }
}

/// Waits for the word of a build that it has taken up a change.
fn reloaded(build: Build, process: &Process) {
    let word = if build == Build::Ours { "reloaded" } else { "configuration change" };
    let said = || process.log().to_lowercase().contains(word);
    assert!(until(Duration::from_secs(15), said).is_some(), "the change is not noticed");
}

/// A stranger is connected and silent; a key of `[server]` changes; then twenty visitors come.
fn a_silent_connection_does_not_pin_what_was_before_a_reload(build: Build) -> Outcome {
    let local = Local::echo();
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    let (_client, server) = plan.start(build, build);
    let visitors = plan.services[0].visitors;
    visitor::wait_served(visitors);
    let _silent = connect(plan.server_addr);
    // The next one is accepted after it.
    assert!(!accepts(&plan, "nobody"));
    plan.server_lines = "heartbeat_interval = 20\n".to_owned();
    plan.write("server.toml", &plan.server_toml());
    tell(build, &server);
    reloaded(build, &server);
    let back = served(visitors, Duration::from_secs(10)).is_some();
    let served = (0..20).filter(|_| echo_once(visitors, b"hello", Duration::from_secs(2)).is_ok()).count();
    verdict(back && served == 20, format!("{served} of 20 visitors after the reload are served"))
}

/// Run without a role, a file that had one half gets the other.
fn a_second_half_kills_nobody(build: Build) -> Outcome {
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", NOWHERE.into())]);
    let config = plan.write("both.toml", &plan.server_toml());
    let mut command = Command::new(build.program());
    command.arg(&config).env("RUST_LOG", "debug").env("NO_COLOR", "1");
    let mut server = Process::start("rathole FILE", command);
    net::wait_listening(plan.server_addr);
    let control = control(&plan, "echo");
    let other = net::address();
    let half = plan.client_toml().replace(&plan.server_addr.to_string(), &other.to_string());
    plan.write("both.toml", &format!("{}{half}", plan.server_toml()));
    tell(build, &server);
    until(Duration::from_secs(5), || !server.is_running());
    if !server.is_running() {
        return Err(format!("ends: {}", server.wait()));
    }
    verdict(still_open(&control), "runs on, its clients stay".to_owned())
}

/// One file for both; the client's half changes, then a service is added to the server's.
fn the_half_that_is_not_run_may_change(build: Build) -> Outcome {
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", NOWHERE.into())]);
    let client = plan.client_toml();
    let write =
        |plan: &Plan, client: &str| plan.write("both.toml", &format!("{}{client}", plan.server_toml()));
    let config = write(&plan, &client);
    let server = build.start(Role::Server, &config);
    net::wait_listening(plan.server_addr);
    let control = control(&plan, "echo");
    let changed = client.replace("[client]\n", "[client]\nheartbeat_timeout = 50\n");
    assert_ne!(changed, client);
    write(&plan, &changed);
    tell(build, &server);
    // Nothing need be said of this; the next change is seen after it.
    until(Duration::from_secs(3), || !still_open(&control));
    plan.services.push(Service::tcp("added", NOWHERE.into()));
    write(&plan, &changed);
    tell(build, &server);
    let added = accepts_in_time(&plan, "added", Duration::from_secs(15));
    match (added.is_some(), still_open(&control)) {
        (true, true) => Ok("clients stay connected".to_owned()),
        (true, false) => Err("clients are cut".to_owned()),
        (false, _) => Err("a service that is added is not taken up".to_owned()),
    }
}

/// A visitor is being served when the server is told to stop.
fn sigterm_leaves_relays_their_grace(build: Build) -> Outcome {
    let local = Local::echo();
    let plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    let (_client, mut server) = plan.start(build, build);
    let mut visitor = visitor::connect(plan.services[0].visitors);
    let ping = |visitor: &mut std::net::TcpStream| {
        visitor.write_all(b"ping")?;
        visitor.read_exact(&mut [0; 4])
    };
    ping(&mut visitor).unwrap();
    server.signal(Signal::SIGTERM);
    // No new visitors: the signal was seen.
    net::wait_closed(plan.services[0].visitors);
    let works = ping(&mut visitor).is_ok();
    drop(visitor);
    let status = server.wait();
    let relay = if works { "goes on" } else { "is cut" };
    verdict(works && status.success(), format!("a relay {relay}; then {status}"))
}

/// A client's service changes while it waits to try again; what the server sees.
fn a_changed_service_is_connected_once(build: Build) -> Outcome {
    let local = Local::echo();
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", NOWHERE.into())]);
    plan.client_lines = "retry_interval = 3\n".to_owned();
    let server = FakeServer::listen(plan.server_addr);
    let client = plan.start_client(build);
    // After three failures it waits for seconds.
    (0..3).for_each(|_| drop(server.accept()));
    plan.services[0].local = local.addr;
    plan.write("client.toml", &plan.client_toml());
    tell(build, &client);
    let begun = Instant::now();
    let (mut controls, mut closed) = (Vec::new(), 0);
    while begun.elapsed() < Duration::from_secs(8) {
        let Some(stream) = accept_within(&server, Duration::from_secs(1)) else { continue };
        assert_eq!(take::<37>(&stream)[0], 0, "a data channel that nobody asked for");
        let nonce = [7; 32];
        put(&stream, &hello(0, 1, &nonce));
        let mut key = [0; 32];
        match (&stream).read_exact(&mut key) {
            Ok(()) => {
                put(&stream, &ZERO);
                controls.push((stream, key));
            }
            Err(_) => closed += 1,
        }
    }
    let handshakes = controls.len() + closed;
    if handshakes > 1 {
        return Err(format!("{handshakes} handshakes"));
    }
    // The settings that hold are the new ones.
    let Some((control, _)) = controls.pop() else { return Err("never connected again".to_owned()) };
    put(&control, &ZERO);
    let data = server.accept();
    take::<37>(&data);
    put(&data, &[&ZERO[..], b"hello"].concat());
    data.shutdown(std::net::Shutdown::Write).unwrap();
    let new = rest(&data) == b"hello";
    let settings = if new { "new" } else { "old" };
    verdict(new, format!("1 handshake, the {settings} settings hold"))
}
