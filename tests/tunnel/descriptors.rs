//! Too few open files: what there is goes to those who need it most, and it is said.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::common::process::Process;
use super::common::service::Local;
use super::common::tunnel::{Build, Link, Plan, Role, Service, start_with};
use super::common::visitor::{self, served};
use super::common::{PATIENCE, announce, net};

/// Services that share a local one.
fn plan(services: usize, local: &Local) -> Plan {
    let services = (0..services).map(|n| Service::tcp(&format!("service {n}"), local.addr)).collect();
    Plan::new(Link::tcp(), services)
}

fn open_files(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().count()
}

/// A visitor; None: it was reset at once.
fn come(addr: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Some(stream)
}

/// Forty services, and no descriptor for idle channels beside their listeners and control channels: all are served, for
/// nothing is kept in store. That there are too few is said, at the start and at a reload.
#[test]
fn services_are_served_though_nothing_can_be_kept_in_store() {
    let local = Local::echo();
    let mut plan = plan(40, &local);
    let server = plan.start_server_with(128);
    server.wait_for("40 services need at least 152 open files, but the limit is 128");
    let _client = plan.start_client(Build::Ours);
    server.wait_for_times("client connected", 40);
    let before = open_files(&server);
    for round in 0..2 {
        for service in &plan.services {
            let visitor = served(service.visitors);
            assert!(visitor.is_ok(), "round {round}, {}: {visitor:?}\n{}", service.name, server.log());
        }
    }
    net::wait("channels are kept", || open_files(&server) <= before);
    assert!(!server.log().contains("cannot accept"), "{}", server.log());
    plan.services.push(Service::tcp("one more", local.addr));
    plan.write("server.toml", &plan.server_toml());
    server.signal(Signal::SIGHUP);
    server.wait_for("41 services need at least 155 open files, but the limit is 128");
    visitor::wait_served(plan.services[0].visitors);
    assert_eq!(server.log().matches("raise it (LimitNOFILE=").count(), 2, "{}", server.log());
}

/// Visitors of three services wait for clients that are not there. All of them together hold but a part of the
/// descriptors, and none of the services takes the others' share; so clients get in, and who waits is served.
#[test]
fn waiting_visitors_leave_descriptors_for_those_who_serve_them() {
    const WAITING: usize = (200 - 32 - 3 * 3) / 3;
    let local = Local::echo();
    let mut plan = plan(3, &local);
    plan.server_lines = "visitor_timeout = 60\n".to_owned();
    let server = plan.start_server_with(200);
    let before = open_files(&server);
    let crowd: Vec<Vec<_>> = plan
        .services
        .iter()
        .map(|service| (0..80).filter_map(|_| come(service.visitors)).collect())
        .collect();
    server.wait_for_times("visitors refused", 3);
    server.wait_for_times("reason=\"in all services together, as many visitors wait", 3);
    // Those who are not refused by now wait.
    let waits = |stream: &&TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let waits = (&mut &**stream)
            .read(&mut [0])
            .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false).unwrap();
        waits
    };
    let waiting = || crowd.iter().map(|crowd| crowd.iter().filter(waits).count()).collect::<Vec<_>>();
    net::wait("more wait than may", || waiting().iter().sum::<usize>() <= WAITING);
    let held = open_files(&server) - before;
    let waiting = waiting();
    announce(&format!("of 3 times 80 visitors {waiting:?} wait, and {held} descriptors are held"));
    assert!(held <= WAITING + 3 && waiting.iter().all(|waiting| *waiting >= 2), "{waiting:?}, {held}");
    let begun = Instant::now();
    let _client = plan.start_client(Build::Ours);
    server.wait_for_times("client connected", 3);
    for stream in crowd.iter().flat_map(|crowd| crowd.iter().filter(waits)) {
        (&mut &*stream).write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        (&mut &*stream).read_exact(&mut answer).unwrap_or_else(|error| panic!("{error}\n{}", server.log()));
    }
    announce(&format!("clients came and all were served after {:.0?}", begun.elapsed()));
    assert!(!server.log().contains("cannot accept"), "{}", server.log());
}

/// Visitors that are served hold every descriptor. The next one is reset, it does not wait in silence; and another client
/// gets in, because some descriptors are kept for it.
#[test]
fn visitors_that_take_all_descriptors_do_not_keep_a_client_out() {
    let local = Local::echo();
    let plan = plan(2, &local);
    let server = plan.start_server_with(64);
    let toml = plan.client_toml();
    let (of_both, second) = toml.split_at(toml.find("[client.services.\"service 1\"]").unwrap());
    let head = &of_both[..of_both.find("[client.services.\"service 0\"]").unwrap()];
    let _first = Build::Ours.start(Role::Client, &plan.write("first.toml", of_both));
    let addr = plan.services[0].visitors;
    visitor::wait_served(addr);
    let mut crowd = Vec::new();
    let begun = loop {
        let begun = Instant::now();
        match served(addr) {
            Ok(stream) => crowd.push(stream),
            Err(error) => {
                assert!(visitor::is_reset(&error), "{error}");
                break begun;
            }
        }
        assert!(crowd.len() < 64);
    };
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    server.wait_for("cannot accept connections: they are reset");
    let config = plan.write("second.toml", &format!("{head}{second}"));
    let begun = Instant::now();
    let _second = Build::Ours.start(Role::Client, &config);
    server.wait_for_times("client connected", 2);
    let took = begun.elapsed();
    announce(&format!("a client where {} visitors had all descriptors: {took:.0?}", crowd.len()));
    // The want is over: nobody is reset any more, though all listeners have met it.
    drop(crowd);
    for service in &plan.services {
        visitor::wait_served(service.visitors);
        assert!(visitor::try_echo(service.visitors, b"hello").is_ok());
    }
}

/// Whatever the limit: the program says that it is too low, and ends with the exit code of what fails at the start; or
/// it runs, and visitors are served or reset. It never panics, and it stops when it is told to.
#[test]
fn any_limit_of_open_files_is_enough_or_is_said_to_be_too_low() {
    let local = Local::echo();
    let next = AtomicUsize::new(3);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let open_files = next.fetch_add(1, SeqCst);
                    if open_files > 40 {
                        return;
                    }
                    for apart in [true, false] {
                        tunnel_with(open_files, apart, &local);
                    }
                }
            });
        }
    });
}

fn tunnel_with(open_files: usize, apart: bool, local: &Local) {
    let mut plan = plan(1, local);
    plan.server_lines = "visitor_timeout = 2\n".to_owned();
    let (server, client) = (plan.server_toml(), plan.client_toml());
    let configs = match apart {
        true => vec![plan.write("server.toml", &server), plan.write("client.toml", &client)],
        false => vec![plan.write("both.toml", &format!("{server}{client}"))],
    };
    let mut running: Vec<_> = configs.iter().map(|config| start_with(open_files, config)).collect();
    let addr = plan.services[0].visitors;
    let ended = |process: &mut Process| !process.is_running();
    net::wait("the server neither listens nor ends", || net::listens(addr) || ended(&mut running[0]));
    if open_files == 40 {
        visitor::wait_served(addr);
    }
    if !ended(&mut running[0]) {
        // Served or reset, with what there is: no visitor is left in silence.
        (0..5).for_each(|_| {
            drop(served(addr).inspect_err(|error| assert!(visitor::is_reset(error), "{error}")))
        });
    }
    for process in &mut running {
        net::wait("it says nothing", || !process.log().is_empty() || ended(process));
        // It may have ended by itself.
        let told = process.is_running();
        if told {
            process.signal(Signal::SIGTERM);
        }
        let (status, log) = (process.wait(), process.stderr());
        assert!(!log.contains("panicked"), "{open_files} open files: {log}");
        match status.code() {
            Some(0) if told => {}
            Some(1 | 78) => assert!(log.contains("error: ") && log.contains("os error 24"), "{log}"),
            // Not even the libraries could be loaded.
            Some(127) => assert!(log.contains("shared librar"), "{log}"),
            _ => panic!("{open_files} open files: {status}\n{log}"),
        }
    }
}
