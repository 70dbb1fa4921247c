//! A second client of a service: it replaces the first, or is refused while the first is alive.

use std::io::{ErrorKind, Read};

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use super::common::process::Process;
use super::common::raw::{AUTH_FAILED, Control, ONE, ZERO, rest, take};
use super::common::service::Local;
use super::common::tunnel::{Build, Kind, Link, Plan, Role, Service};
use super::common::{announce, net, skip, visitor};
use super::line::Line;
use super::line::middlebox::Gone;
use super::line::tunnel::Tunnel;

const SECOND: Duration = Duration::from_secs(1);

fn plan(on_duplicate: &str) -> (Plan, Local) {
    let local = Local::echo();
    let mut plan = Plan::new(Link::tcp(), vec![Service::tcp("echo", local.addr)]);
    plan.server_lines = format!("on_duplicate = {on_duplicate:?}\n");
    (plan, local)
}

fn open(plan: &Plan) -> Control {
    Control::open(plan.server_addr, "echo", &plan.server_token)
}

/// Whether the server still holds the channel: nothing but commands comes.
fn is_held(client: &Control) -> bool {
    client.stream.set_nonblocking(true).unwrap();
    let mut commands = [0; 1024];
    loop {
        match (&client.stream).read(&mut commands) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
    }
}

/// Two clients take turns: three times at once, then the newcomer must wait, and the incumbent serves.
#[test]
fn clients_that_replace_each_other_are_slowed_down() {
    let (plan, _local) = plan("replace");
    let server = plan.start_server(Build::Ours);
    let mut incumbent = open(&plan).accepted();
    for _ in 0..3 {
        let begun = Instant::now();
        incumbent = open(&plan).accepted();
        assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    }
    for wait in [SECOND, 2 * SECOND] {
        let begun = Instant::now();
        let newcomer = open(&plan);
        std::thread::sleep(wait / 2);
        assert!(is_held(&incumbent));
        incumbent = newcomer.accepted();
        let waited = begun.elapsed();
        assert!(waited >= wait && waited < wait + SECOND, "{waited:?}");
    }
    server.wait_for("client held back for 2s");
    // A newcomer who gives up takes nobody's place, and does not lengthen the wait of the next.
    drop(open(&plan));
    let begun = Instant::now();
    let newcomer = open(&plan);
    std::thread::sleep(SECOND / 2);
    assert!(is_held(&incumbent));
    // When the incumbent leaves, nobody waits any more.
    drop(incumbent);
    let newcomer = newcomer.accepted();
    assert!(begun.elapsed() < 3 * SECOND, "{:?}", begun.elapsed());
    assert!(is_held(&newcomer));
    let log = server.stderr();
    let line = log.lines().find(|line| line.contains("client held back")).unwrap();
    assert!(line.contains(" peer=127.0.0.1:") && line.contains(" incumbent=127.0.0.1:"), "{line}");
}

/// Three of them: two wait, and not each of the two has the place for a moment only.
#[test]
fn newcomers_who_wait_do_not_replace_each_other_at_once() {
    let (plan, _local) = plan("replace");
    let server = plan.start_server(Build::Ours);
    let _replaced: Vec<_> = (0..4).map(|_| open(&plan).accepted()).collect();
    let begun = Instant::now();
    let first = open(&plan);
    server.wait_for("client held back for 1s");
    // Whose turn comes first is known.
    std::thread::sleep(SECOND / 5);
    let second = open(&plan);
    let first = first.accepted();
    assert!(begun.elapsed() >= SECOND, "{:?}", begun.elapsed());
    let second = second.accepted();
    assert!(begun.elapsed() >= 2 * SECOND, "{:?}", begun.elapsed());
    net::wait("who is replaced is not told", || !is_held(&first));
    assert!(is_held(&second));
}

/// Whoever has the token may come as often as it likes: the first few times are told one by one, the others later.
#[test]
fn who_comes_again_and_again_does_not_flood_the_log() {
    let (plan, _local) = plan("replace");
    let server = plan.start_server(Build::Ours);
    for times in 1..=40 {
        drop(open(&plan).accepted());
        if times <= 30 {
            server.wait_for_times("client lost", times);
        }
    }
    let mut incumbents: Vec<_> = (0..4).map(|_| open(&plan).accepted()).collect();
    for _ in 0..30 {
        drop(open(&plan));
    }
    incumbents.push(open(&plan).accepted());
    let log = server.log();
    let count = |what| log.lines().filter(|line| line.contains(what) && !line.contains("DEBUG")).count();
    assert!(count("client connected") <= 30 && count("client lost") == 30, "{log}");
    // Each takeover has its line.
    assert!(count("client replaced another") >= 4 && count("client held back") == 10, "{log}");
}

/// Nor does a stop wait for the kernel of a client that was replaced, and whose link is cut.
#[test]
fn a_stop_does_not_wait_for_who_was_replaced() {
    let test = "tunnel::duplicates::a_stop_does_not_wait_for_who_was_replaced";
    let Some(line) = Line::new(test, 1) else { return };
    let services = [("echo", Kind::Tcp, ([127, 0, 0, 1], 9).into())];
    let tunnel = Tunnel::new(line, Build::Ours, Link::tcp(), &services);
    let config = tunnel.plan.write("server.toml", &tunnel.plan.server_toml());
    let site = tunnel.line.server.clone();
    let command = || Process::start("server on a line", Build::Ours.command(Role::Server, &config));
    let mut server = site.run(command);
    server.wait_for("server is listening");
    let incumbent = tunnel.line.client.run(|| open(&tunnel.plan).accepted());
    assert_eq!(take::<32>(&incumbent.stream), [0; 32], "the pool's requests");
    tunnel.line.cut(true);
    let _newcomer = site.run(|| open(&tunnel.plan).accepted());
    let begun = Instant::now();
    server.signal(Signal::SIGTERM);
    server.wait();
    announce(&format!("a stop after a takeover from a client behind a cut: {:.1?}", begun.elapsed()));
    assert!(begun.elapsed() < SECOND * 3 / 2, "{:?}", begun.elapsed());
}

/// Sixteen may wait for a place, and get it within five seconds. More are sent away, and nobody of them all is in the way
/// of another service.
#[test]
fn newcomers_who_wait_are_bounded() {
    let (mut plan, local) = plan("replace");
    plan.services.push(Service::tcp("other", local.addr));
    let _server = plan.start_server(Build::Ours);
    let _replaced: Vec<_> = (0..4).map(|_| open(&plan).accepted()).collect();
    let begun = Instant::now();
    let newcomers: Vec<_> = (0..40).map(|_| open(&plan)).collect();
    let (burst, begun) = (begun.elapsed(), Instant::now());
    let _other = Control::open(plan.server_addr, "other", &plan.server_token).accepted();
    assert!(newcomers.iter().any(still_waits), "it came after them all");
    assert!(begun.elapsed() < 3 * SECOND, "{:?}", begun.elapsed());
    let answers: Vec<_> = newcomers.iter().map(answer).collect();
    assert!(answers.iter().flatten().all(|answer| *answer == ZERO), "{answers:?}");
    assert!(answers.iter().flatten().count() >= 16, "{answers:?}");
    // On a busy machine they may come so slowly that the first are in before the last.
    assert!(answers[39].is_none() || burst >= SECOND, "{burst:?}: {answers:?}");
    assert!(begun.elapsed() < 8 * SECOND, "{:?}", begun.elapsed());
}

/// Whether there is no answer yet, nor an end.
fn still_waits(client: &Control) -> bool {
    client.stream.set_nonblocking(true).unwrap();
    let answer = client.stream.peek(&mut [0]);
    client.stream.set_nonblocking(false).unwrap();
    answer.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// The answer; None: the server closes without one.
fn answer(client: &Control) -> Option<[u8; 4]> {
    let mut answer = [0; 4];
    (&client.stream).read_exact(&mut answer).is_ok().then_some(answer)
}

/// A single client that finds nothing but its own dead channels, because a router on the way forgets them: nobody
/// replaces anybody, so it never waits.
#[test]
fn a_single_client_behind_dead_channels_is_not_held_back() {
    let test = "tunnel::duplicates::a_single_client_behind_dead_channels_is_not_held_back";
    for (how, pause) in [(Gone::Silently, SECOND * 6 / 10), (Gone::WithReset, SECOND * 11 / 10)] {
        let Some(line) = Line::new(test, 1) else { return };
        let tunnel =
            Tunnel::new(line, Build::Ours, Link::tcp(), &[("echo", Kind::Tcp, ([127, 0, 0, 1], 9).into())]);
        let config = tunnel.plan.write("server.toml", &tunnel.plan.server_toml());
        let command = || Process::start("server on a line", Build::Ours.command(Role::Server, &config));
        let server = tunnel.line.server.run(command);
        server.wait_for("server is listening");
        let (plan, line) = (&tunnel.plan, &tunnel.line);
        let mut dead = Vec::new();
        let waits: Vec<_> = (0..10)
            .map(|_| {
                let begun = Instant::now();
                let client = line.client.run(|| open(plan).accepted());
                let waited = begun.elapsed();
                // Nothing is under way any more, nor its acknowledgement: else the server would hear of the reset.
                assert_eq!(take::<32>(&client.stream), [0; 32], "the pool's requests");
                std::thread::sleep(SECOND / 10);
                dead.push(client);
                line.forget(how);
                // What a client waits at least before it connects again.
                std::thread::sleep(pause);
                waited
            })
            .collect();
        let log = server.stderr();
        announce(&format!("a single client behind channels that went {how:?}: {waits:.0?}"));
        assert_eq!(log.matches("client replaced another").count(), 9, "{log}");
        assert!(!log.contains("client held back"), "{log}");
        // Two live clients on the same line are held back.
        let begun = Instant::now();
        let _live: Vec<_> = (0..5).map(|_| line.client.run(|| open(plan).accepted())).collect();
        assert!(begun.elapsed() >= SECOND, "{:?}", begun.elapsed());
    }
}

/// Who knows only a token that was replaced a moment ago does not take the place of who knows the present one, while that
/// one is alive.
#[test]
fn an_old_token_replaces_only_the_dead() {
    let test = "tunnel::duplicates::an_old_token_replaces_only_the_dead";
    for on_duplicate in ["replace", "refuse"] {
        let Some(line) = Line::new(test, 1) else { return };
        let services = [("echo", Kind::Tcp, ([127, 0, 0, 1], 9).into())];
        let mut tunnel = Tunnel::new(line, Build::Ours, Link::tcp(), &services);
        tunnel.plan.server_lines = format!("on_duplicate = {on_duplicate:?}\n");
        let config = tunnel.plan.write("server.toml", &tunnel.plan.server_toml());
        let site = tunnel.line.server.clone();
        let command = || Process::start("server on a line", Build::Ours.command(Role::Server, &config));
        let server = site.run(command);
        server.wait_for("server is listening");
        let addr = tunnel.plan.server_addr;
        let old = std::mem::replace(&mut tunnel.plan.server_token, "the token that came after it".to_owned());
        tunnel.plan.write("server.toml", &tunnel.plan.server_toml());
        server.signal(Signal::SIGHUP);
        server.wait_for("reloaded");

        let incumbent = tunnel.line.client.run(|| open(&tunnel.plan).accepted());
        assert_eq!(take::<32>(&incumbent.stream), [0; 32], "the pool's requests");
        let newcomer = || site.run(|| Control::open(addr, "echo", &old));
        assert_eq!(take(&newcomer().stream), AUTH_FAILED, "{on_duplicate}");
        // The heartbeat that the newcomer was worth must be acknowledged before nothing is any more.
        assert_eq!(take(&incumbent.stream), ONE, "{on_duplicate}");
        std::thread::sleep(SECOND / 10);
        tunnel.line.cut(true);
        let begun = Instant::now();
        assert!(is_held(&newcomer().accepted()), "{on_duplicate}");
        announce(&format!("an old token after a cut, {on_duplicate}: {:.1?}", begun.elapsed()));
        assert!(begun.elapsed() < 4 * SECOND, "{on_duplicate}: {:?}", begun.elapsed());
    }
}

/// Two real clients: the service is there all the time.
#[test]
fn two_clients_with_one_token_do_not_flap() {
    let (plan, _local) = plan("replace");
    let server = plan.start_server(Build::Ours);
    let _clients = [plan.start_client(Build::Ours), plan.start_client(Build::Ours)];
    visitor::wait_served(plan.services[0].visitors);
    let until = Instant::now() + 15 * SECOND;
    let mut served = 0;
    while Instant::now() < until {
        visitor::echo(plan.services[0].visitors, b"hello", true);
        served += 1;
        std::thread::sleep(SECOND / 50);
    }
    let takeovers = server.stderr().matches("client replaced another").count();
    announce(&format!("two clients with one token: {takeovers} takeovers and {served} visitors in 15 s"));
    assert!((1..=8).contains(&takeovers), "{}", server.stderr());
}

#[test]
fn a_second_client_is_refused_while_the_first_is_alive() {
    let (plan, _local) = plan("refuse");
    let server = plan.start_server(Build::Ours);
    let incumbent = open(&plan).accepted();
    assert_eq!(take::<32>(&incumbent.stream), [0; 32], "the pool's requests");
    let newcomers: Vec<_> = (0..8).map(|_| open(&plan)).collect();
    let begun = Instant::now();
    for newcomer in &newcomers {
        assert_eq!(take(&newcomer.stream), AUTH_FAILED);
        assert!(rest(&newcomer.stream).is_empty());
    }
    assert!(begun.elapsed() < 2 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(take(&incumbent.stream), ONE, "a heartbeat for the newcomers");
    assert!(is_held(&incumbent));
    server.wait_for("client refused: another one is alive");
    let log = server.stderr();
    let line = log.lines().find(|line| line.contains("client refused")).unwrap();
    for stream in [&newcomers[0].stream, &incumbent.stream] {
        let addr = stream.local_addr().unwrap().to_string();
        assert!(line.contains(&addr) || line.contains(" peer=127.0.0.1:"), "{addr} is not in: {line}");
    }
    assert!(line.contains(&format!("incumbent={}", incumbent.stream.local_addr().unwrap())), "{line}");
    assert_eq!(log.matches("client refused").count(), 1, "once a minute: {log}");
    // It is no failed authentication: nobody is to be banned for it.
    assert!(!log.contains("authentication failed"), "{log}");
    drop(incumbent);
    server.wait_for("client lost");
    assert!(is_held(&open(&plan).accepted()));
}

/// A process that stands still has a kernel that answers: it is alive. One that was killed is not.
#[test]
fn a_stopped_client_is_alive_and_a_killed_one_is_not() {
    let (plan, _local) = plan("refuse");
    let server = plan.start_server(Build::Ours);
    let mut first = plan.start_client(Build::Ours);
    visitor::wait_served(plan.services[0].visitors);
    first.signal(Signal::SIGSTOP);
    let refused = open(&plan);
    assert_eq!(take(&refused.stream), AUTH_FAILED);
    first.kill();
    server.wait_for("client lost");
    let begun = Instant::now();
    let _second = plan.start_client(Build::Ours);
    server.wait_for_times("client connected", 2);
    visitor::wait_served(plan.services[0].visitors);
    assert!(begun.elapsed() < 2 * SECOND, "{:?}", begun.elapsed());
}

/// `ip` with arguments, in the calling thread's network namespace.
fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// The incumbent's link is cut: no end, no reset, nothing is acknowledged. Of eight newcomers one gets its place, two
/// seconds later; the others find that one alive.
#[test]
fn a_client_behind_a_cut_link_is_replaced() {
    let test = "tunnel::duplicates::a_client_behind_a_cut_link_is_replaced";
    if !super::common::has("unshare", test) || Command::new("ip").arg("-V").output().is_err() {
        return skip(test, "no ip here (Debian: apt-get install iproute2)");
    }
    // Namespaces belong to threads: that of this one has the server, the other one the incumbent.
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        return skip(test, &format!("no network namespace can be made: {error}"));
    }
    let (mut plan, _local) = plan("refuse");
    plan.server_addr = ([10, 77, 0, 1], 2333).into();
    let (to_far, far_hears) = std::sync::mpsc::channel::<()>();
    let (far_says, from_far) = std::sync::mpsc::channel();
    let (server_addr, token) = (plan.server_addr, plan.server_token.clone());
    let far = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        far_says.send(nix::unistd::gettid()).unwrap();
        far_hears.recv().unwrap();
        ip("addr add 10.77.0.2/24 dev far");
        ip("link set far up");
        let incumbent = Control::open(server_addr, "echo", &token).accepted();
        far_says.send(nix::unistd::gettid()).unwrap();
        far_hears.recv().unwrap();
        ip("link set far down");
        far_says.send(nix::unistd::gettid()).unwrap();
        let _ = far_hears.recv();
        drop(incumbent);
    });
    let tid = from_far.recv().unwrap();
    ip("link set lo up");
    ip(&format!("link add near type veth peer name far netns {tid}"));
    ip("addr add 10.77.0.1/24 dev near");
    ip("link set near up");
    let config = plan.write("server.toml", &plan.server_toml());
    let server = Process::start("server in a namespace", Build::Ours.command(Role::Server, &config));
    server.wait_for("server is listening");
    to_far.send(()).unwrap();
    from_far.recv().unwrap();
    // Alive as yet.
    let refused = open(&plan);
    assert_eq!(take(&refused.stream), AUTH_FAILED);
    to_far.send(()).unwrap();
    from_far.recv().unwrap();
    let begun = Instant::now();
    let newcomers: Vec<_> = (0..8).map(|_| open(&plan)).collect();
    let answers: Vec<[u8; 4]> = newcomers.iter().map(|newcomer| take(&newcomer.stream)).collect();
    let took = begun.elapsed();
    announce(&format!("a client behind a cut link is replaced after {took:.1?}"));
    assert!(took >= 2 * SECOND && took < 5 * SECOND, "{took:?}");
    let admitted = answers.iter().filter(|answer| **answer == ZERO).count();
    assert_eq!(admitted, 1, "{answers:?}");
    assert!(answers.iter().all(|answer| [ZERO, AUTH_FAILED].contains(answer)), "{answers:?}");
    server.wait_for("client replaced another");
    let log = server.stderr();
    let line = log.lines().find(|line| line.contains("client replaced another")).unwrap();
    assert!(line.contains("peer=10.77.0.1:") && line.contains("replaced=10.77.0.2:"), "{line}");
    drop(to_far);
    far.join().unwrap();
}
