//! Hours of mixed visitors over every transport: nothing may grow, nobody may hang.
//!
//! `RATHOLE_SOAK_SECONDS=3600 cargo test --test soak -- --ignored` (docs/testing.md). What a process holds is sampled
//! from outside: memory, descriptors, threads. Tasks cannot be seen there; one that is left over holds memory, and a
//! descriptor as a rule.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../line/mod.rs"]
mod line;
mod load;
mod samples;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use common::certs::{Certs, KeyKind};
use common::keys::KeyPair;
use common::service::Local;
use common::tunnel::{Build, Kind, Link, Plan, Role};
use line::Line;
use line::crowd::{Outcome, first_served};
use line::middlebox::Gone;
use line::tunnel::Tunnel;
use line::weather::Weather;
use load::Load;
use samples::Samples;

/// Shorter runs tell nothing: there must be some periods to judge.
const SHORTEST: u64 = 8 * PERIOD.as_secs();

/// Time between two samples.
const EVERY: Duration = Duration::from_secs(2);

/// How often the guest's client is stopped or killed, and started again.
const RESTART: Duration = Duration::from_secs(45);

/// How often all connections between server and clients are reset. What the processes hold goes up and down with that,
/// as UDP visitors are remembered for 60 s and idle ones stay for 20 s: a whole period is one sample.
const PERIOD: Duration = Duration::from_secs(90);

fn duration() -> Duration {
    let given = std::env::var("RATHOLE_SOAK_SECONDS").ok();
    let seconds = given.map_or(3600, |text| text.parse().expect("RATHOLE_SOAK_SECONDS is a number"));
    assert!(
        seconds >= SHORTEST,
        "RATHOLE_SOAK_SECONDS: at least {SHORTEST}, or growth cannot be told from a start"
    );
    Duration::from_secs(seconds)
}

/// Server, client and visitors for `time`, and what became of it.
fn soak(link: Link, time: Duration) {
    let name = format!("soak, {}", link.name);
    let Some(line) = Line::new(&name, 1) else { return };
    line.set(Weather { loss: 0.002, ..Weather::delay(5) });
    let (tcp, udp) = (line.client.hold(Local::echo), line.client.hold(Local::udp_echo));
    let services =
        [("tcp", Kind::Tcp, tcp.addr), ("udp", Kind::Udp, udp.addr), ("guest", Kind::Tcp, tcp.addr)];
    let mut tunnel = Tunnel::new(line, Build::Ours, link.clone(), &services);
    tunnel.heartbeat(2);
    tunnel.start(Role::Server);
    // The guest is served by a client of its own, which comes and goes; the other one lasts.
    let guest = tunnel.plan.services.pop().expect("there are three");
    let guest_addr = guest.visitors;
    tunnel.start(Role::Client);
    let site = tunnel.line.client.clone();
    // Made in the site: it looks for free ports there.
    let guest_plan = site.run(|| {
        let mut plan = Plan::new(link, vec![guest]);
        plan.server_addr = tunnel.plan.server_addr;
        plan
    });
    let start_guest = || site.run(|| guest_plan.start_client(Build::Ours));
    let mut guest = start_guest();
    let [tcp_addr, udp_addr] = [0, 1].map(|at| tunnel.plan.services[at].visitors);
    first_served(&tunnel.line.server, tcp_addr, Duration::from_secs(30)).expect("a visitor is served");

    let load = Load::start(&tunnel.line.server, tcp_addr, guest_addr, udp_addr);
    let (server, client) = tunnel.processes();
    let mut samples =
        [Samples::new("server", server.id(), PERIOD), Samples::new("client", client.id(), PERIOD)];
    let begun = Instant::now();
    let (mut restarts, mut resets) = (0, 0);
    while begun.elapsed() < time {
        std::thread::sleep(EVERY);
        samples.iter_mut().for_each(|samples| samples.take(begun.elapsed()));
        if begun.elapsed() > RESTART * (restarts + 1) {
            restarts += 1;
            guest.signal(if restarts % 2 == 0 { Signal::SIGKILL } else { Signal::SIGTERM });
            guest.wait();
            guest = start_guest();
        }
        if begun.elapsed() > PERIOD * (resets + 1) {
            resets += 1;
            tunnel.line.forget(Gone::WithReset);
        }
    }
    let tally = load.finish();
    common::announce(&format!("{name}: {restarts} restarts of the guest, {resets} resets; {tally}"));
    samples.iter().for_each(|samples| common::announce(&format!("{name}, {samples}")));
    let (server, client) = tunnel.processes();
    let logs = [("server", server), ("client", client)].map(|(role, process)| {
        let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("soak-{}-{role}.log", name.replace([',', ' '], "-")));
        std::fs::write(&file, process.log()).unwrap();
        file
    });
    drop(tunnel);
    let wrong =
        [Outcome::Stuck, Outcome::Corrupt, Outcome::CutShort].map(|outcome| tally.list(outcome)).concat();
    assert!(wrong.is_empty(), "{name}:\n{wrong}logs: {logs:?}");
    let (served, all) = (tally.count(Outcome::Served), tally.visits.len());
    assert!(served * 20 >= all * 19, "{name}: only {served} of {all} were served; logs: {logs:?}");
    let growth: Vec<_> = samples.iter().flat_map(Samples::growth).collect();
    assert!(growth.is_empty(), "{name}: {growth:#?}; logs: {logs:?}");
}

/// All transports at the same time.
#[test]
#[ignore = "takes an hour (RATHOLE_SOAK_SECONDS); part of the full run, docs/testing.md"]
fn nothing_grows() {
    let time = duration();
    let program = Build::Ours.program();
    let mut links = vec![Link::tcp()];
    let certs = Certs::new(KeyKind::Ec);
    if cfg!(feature = "tls") && common::certs::can_be_made("soak") {
        links.push(Link::tls(&certs, &certs.p12_modern));
    }
    if cfg!(feature = "noise") {
        let (server, client) = (KeyPair::from(&program), KeyPair::from(&program));
        links.push(Link::noise("Noise_NK_25519_ChaChaPoly_BLAKE2s", &server, &client, true));
    }
    if cfg!(feature = "websocket") {
        links.push(Link::websocket());
    }
    std::thread::scope(|scope| {
        for link in links {
            scope.spawn(|| soak(link, time));
        }
    });
}
