//! The whole server and client, as processes, while everything around them is killed, stopped and cut at random.
//!
//! For each transport, with TCP and UDP services, whatever the schedule:
//! - a TCP visitor gets its own bytes back, or the beginning of them and an end; never others, and never nothing at
//!   all until its deadline; a UDP visitor gets only datagrams that it sent itself;
//! - once the chaos is over, a visitor of each service is served within [`RECOVERY`];
//! - when the visitors are gone nothing of them is left: both processes hold their listeners, live connections to
//!   each other, and what they held before.
//!
//! `RATHOLE_SEED=n` repeats the schedule of a failure as far as the machine lets it; `RATHOLE_CHAOS_SECONDS=n` makes it
//! longer.

#![cfg(all(feature = "tls", feature = "noise", feature = "websocket"))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod held;
mod mischief;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};

use common::certs::{Certs, KeyKind};
use common::keys::KeyPair;
use common::process::Process;
use common::service::Local;
use common::tunnel::{Build, Link, Plan, Role, Service};
use common::visitor::{self, UdpVisitor};
use crowd::Crowd;
use held::Held;
use mischief::Mischief;

/// The longest way back: a pause between two attempts (1.2 s), a handshake that must time out (2 s), and a slow machine.
const RECOVERY: Duration = Duration::from_secs(20);

/// Data channels that a service may have in stock.
const STOCK: usize = 30;

/// What the tunnel is made of.
struct Stage {
    plan: Plan,
    link: Mischief,
    server: Option<Process>,
    client: Option<Process>,
    /// The local service resets whoever comes.
    rude: Arc<AtomicBool>,
    /// Strangers who say nothing, or nonsense.
    strangers: Vec<TcpStream>,
    done: BTreeMap<&'static str, usize>,
    log: Vec<String>,
    begun: Instant,
}

impl Stage {
    fn build(link: Link) -> (Self, [Local; 2]) {
        let rude = Arc::new(AtomicBool::new(false));
        let is_rude = rude.clone();
        let echo = Local::tcp(move |stream| {
            if is_rude.load(SeqCst) {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                return;
            }
            common::service::echo(stream);
        });
        let datagrams = Local::udp_echo();
        let services = vec![
            Service::tcp("one", echo.addr),
            Service::tcp("two", echo.addr),
            Service::udp("datagrams", datagrams.addr),
        ];
        let mut plan = Plan::new(link, services);
        for service in &mut plan.services {
            service.server_lines = format!("max_channels = {STOCK}\n");
        }
        plan.server_lines = "heartbeat_interval = 1\nhandshake_timeout = 2\nvisitor_timeout = 4\n".to_owned();
        plan.client_lines = "heartbeat_timeout = 3\nhandshake_timeout = 2\nretry_interval = 1\n".to_owned();
        let link = Mischief::before(plan.server_addr);
        let mut stage = Stage {
            plan,
            link,
            server: None,
            client: None,
            rude,
            strangers: Vec::new(),
            done: BTreeMap::new(),
            log: Vec::new(),
            begun: Instant::now(),
        };
        stage.start_server();
        stage.start_client();
        (stage, [echo, datagrams])
    }

    fn start_server(&mut self) {
        self.server = Some(self.plan.start_server(Build::Ours));
    }

    fn start_client(&mut self) {
        let toml =
            self.plan.client_toml().replace(&self.plan.server_addr.to_string(), &self.link.addr.to_string());
        self.client = Some(Build::Ours.start(Role::Client, &self.plan.write("client.toml", &toml)));
    }

    fn process(&self, role: Role) -> &Process {
        let process = match role {
            Role::Server => &self.server,
            Role::Client => &self.client,
        };
        process.as_ref().unwrap()
    }

    /// One act, chosen at random.
    fn act(&mut self, random: &mut Rng) {
        let moment = Duration::from_millis(random.u64(20..800));
        let role = if random.bool() { Role::Server } else { Role::Client };
        let what = match random.u8(..100) {
            0..12 => {
                match role {
                    Role::Server => drop(self.server.take()),
                    Role::Client => drop(self.client.take()),
                }
                // The other one meets an empty place for a while.
                std::thread::sleep(moment);
                match role {
                    Role::Server => self.start_server(),
                    Role::Client => self.start_client(),
                }
                if role == Role::Server { "server killed" } else { "client killed" }
            }
            12..30 => {
                self.process(role).signal(SIGSTOP);
                std::thread::sleep(moment);
                self.process(role).signal(SIGCONT);
                if role == Role::Server { "server stopped" } else { "client stopped" }
            }
            30..45 => {
                self.link.stall(true);
                std::thread::sleep(moment);
                self.link.stall(false);
                "link stalled"
            }
            45..55 => {
                self.link.cut_all();
                "all connections cut"
            }
            55..75 => {
                self.link.cut_one(random);
                "a connection cut"
            }
            75..82 => {
                self.link.refuse(true);
                std::thread::sleep(moment);
                self.link.refuse(false);
                "new connections refused"
            }
            82..90 => {
                self.rude.store(true, SeqCst);
                std::thread::sleep(moment);
                self.rude.store(false, SeqCst);
                "local service rude"
            }
            _ => {
                self.stranger(random);
                "a stranger"
            }
        };
        *self.done.entry(what).or_default() += 1;
        self.log.push(format!("{:6.2?} {what} {moment:?}", self.begun.elapsed()));
    }

    fn stranger(&mut self, random: &mut Rng) {
        let Ok(stream) = TcpStream::connect(self.plan.server_addr) else { return };
        let junk: Vec<u8> = (0..random.usize(..300)).map(|_| random.u8(..)).collect();
        stream.set_nonblocking(true).unwrap();
        // It may be thrown out before it has said all.
        let _ = std::io::Write::write(&mut &stream, &junk);
        self.strangers.push(stream);
    }
}

fn chaos(link: Link) {
    let name = link.name.clone();
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let seed = number("RATHOLE_SEED").unwrap_or(1);
    let seconds = number("RATHOLE_CHAOS_SECONDS").unwrap_or(8);
    let (mut stage, _services) = Stage::build(link);
    let [one, two, datagrams] = [0, 1, 2].map(|n| stage.plan.services[n].visitors);
    for addr in [one, two] {
        visitor::wait_served(addr);
    }
    UdpVisitor::new(datagrams).wait_served();
    let before = [Role::Server, Role::Client].map(|role| Held::at_rest(stage.process(role).id()));

    let mut random = Rng::with_seed(seed);
    let crowd = Crowd::start(&[one, two, two], datagrams, &mut random);
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        stage.act(&mut random);
        std::thread::sleep(Duration::from_millis(random.u64(0..400)));
    }
    stage.strangers.clear();
    let healed = Instant::now();
    let context =
        |stage: &Stage| format!("{name}, RATHOLE_SEED={seed}; what was done:\n{}", stage.log.join("\n"));

    let recovered = recovered(&[one, two], datagrams, healed);
    assert!(
        recovered.is_ok(),
        "{} is not served {RECOVERY:?} after it, {}",
        recovered.unwrap_err(),
        context(&stage)
    );
    let seen = crowd.finish();
    assert!(seen.wrong.is_empty(), "{}; {}", seen.wrong.join("\n"), context(&stage));
    assert!(seen.served > 0 && seen.datagrams > 0, "nobody was ever served, {}", context(&stage));

    for (role, before) in [Role::Server, Role::Client].into_iter().zip(before) {
        let left = nothing_left(&stage, role, &before);
        assert!(left.is_ok(), "{role:?} still holds {}, {}", left.unwrap_err(), context(&stage));
    }
    common::announce(&format!(
        "chaos {name}, seed {seed}: {} visitors served, {} got an end, {} of {} datagrams; slowest {:.1?}; \
         served again after {:.1?}; {:?}",
        seen.served,
        seen.failed,
        seen.datagrams,
        seen.datagrams_sent,
        seen.slowest,
        recovered.unwrap(),
        stage.done
    ));
}

/// How long it takes until every service serves; or the one that does not.
fn recovered(tcp: &[SocketAddr], udp: SocketAddr, since: Instant) -> Result<Duration, SocketAddr> {
    for addr in tcp {
        while visitor::try_echo(*addr, b"again?").is_err() {
            if since.elapsed() > RECOVERY {
                return Err(*addr);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let visitor = UdpVisitor::new(udp);
    while !visitor.try_echo(b"again?", Duration::from_millis(200)) {
        if since.elapsed() > RECOVERY {
            return Err(udp);
        }
    }
    Ok(since.elapsed())
}

/// Waits until a process holds nothing of any visitor; or what it holds.
fn nothing_left(stage: &Stage, role: Role, before: &Held) -> Result<(), String> {
    let until = Instant::now() + RECOVERY;
    loop {
        let held = Held::by(stage.process(role).id());
        let surplus = held.surplus(role, &stage.plan, stage.link.addr, before);
        if surplus.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(surplus.join(", "));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn over_tcp() {
    chaos(Link::tcp());
}

#[test]
fn over_tls() {
    if common::certs::can_be_made("over_tls") {
        let certs = Certs::new(KeyKind::Ec);
        chaos(Link::tls_pem(&certs));
    }
}

#[test]
fn over_noise() {
    let [server, client] = [(); 2].map(|()| KeyPair::from(&Build::Ours.program()));
    chaos(Link::noise("Noise_KK_25519_ChaChaPoly_BLAKE2s", &server, &client, true));
}

#[test]
fn over_websocket() {
    chaos(Link::websocket());
}

#[test]
fn over_websocket_with_tls() {
    if common::certs::can_be_made("over_websocket_with_tls") {
        let certs = Certs::new(KeyKind::Ec);
        chaos(Link::websocket_tls(&certs, &certs.p12_modern));
    }
}
