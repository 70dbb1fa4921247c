//! What can happen, and how long it takes until a visitor is served again.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::common::service::Local;
use super::common::tunnel::{Build, Kind, Link, Role};
use super::line::crowd::{Crowd, Manners, Outcome, first_served, visit};
use super::line::middlebox::Gone;
use super::line::site::Site;
use super::line::tunnel::Tunnel;
use super::line::weather::Weather;
use super::line::{CLIENT, CLIENT_MOVED, Line};
use super::s;

/// What has not recovered after this long does not recover, for the comparison.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A visitor after the recovery expects service within this time.
const VISITOR: Duration = Duration::from_secs(5);

/// How long a tunnel works before the fault.
const SETTLED: Duration = Duration::from_secs(1);

/// Something that happens to a running tunnel.
pub struct Fault {
    /// For people.
    pub name: String,
    /// Ours recovers within this time. Generous: machines that run tests are busy.
    pub limit: Duration,
    /// Seconds between heartbeats; None: the defaults of the program.
    pub heartbeat: Option<u32>,
    /// Changes the set-up before anything is started.
    pub prepare: Box<dyn Fn(&mut Tunnel) + Sync>,
    /// Starts what runs before the fault; a visitor is served then, unless `begins_down`.
    pub begin: fn(&mut Tunnel),
    /// The tunnel cannot serve before the fault ends.
    pub begins_down: bool,
    /// The fault, from beginning to end.
    pub strike: Box<dyn Fn(&mut Tunnel) + Sync>,
}

/// How it went.
pub struct Recovery {
    /// From the end of the fault until a visitor is served, and [`IN_A_ROW`] more after it.
    pub after: Option<Duration>,
    /// How many were not served although one before them was.
    pub lost: usize,
}

/// So many served visitors, one after the other, are a recovery: one may have been lucky.
const IN_A_ROW: usize = 20;

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.after {
            None => write!(f, "not within {} s", PATIENCE.as_secs())?,
            Some(after) => write!(f, "{:.1} s", after.as_secs_f64())?,
        }
        if self.lost > 0 {
            write!(f, ", {} visitors lost between others", self.lost)?;
        }
        Ok(())
    }
}

impl Fault {
    /// One that strikes a running tunnel, with heartbeats every 2 s.
    pub fn new(name: impl Into<String>, strike: impl Fn(&mut Tunnel) + Sync + 'static) -> Self {
        Fault {
            name: name.into(),
            limit: s(15),
            heartbeat: Some(2),
            prepare: Box::new(|_| {}),
            begin: Tunnel::start_both,
            begins_down: false,
            strike: Box::new(strike),
        }
    }

    /// Makes it happen; None: it cannot be made to happen on this machine, which was said.
    pub fn run(&self, build: Build, limit: Duration) -> Option<Recovery> {
        let line = Line::new(&format!("faults: {}", self.name), 1)?;
        // A path as they are.
        line.set(Weather::delay(5));
        let local = line.client.hold(Local::echo);
        let mut tunnel = Tunnel::new(line, build, Link::tcp(), &[("echo", Kind::Tcp, local.addr)]);
        if let Some(seconds) = self.heartbeat {
            tunnel.heartbeat(seconds);
        }
        (self.prepare)(&mut tunnel);
        (self.begin)(&mut tunnel);
        let (site, addr) = (tunnel.line.server.clone(), tunnel.visitors());
        if !self.begins_down {
            first_served(&site, addr, PATIENCE).expect("a visitor is served before the fault");
        }
        let manners = Manners { every: Duration::from_millis(500), deadline: VISITOR, most: 1000, seed: 1 };
        let during = Crowd::start(&site, addr, manners);
        // Channels for those who come next are made.
        std::thread::sleep(SETTLED);
        (self.strike)(&mut tunnel);
        let recovery = Self::recovery(&site, addr, limit);
        during.finish();
        if recovery.after.is_none() || recovery.lost > 0 {
            let (server, client) = tunnel.processes();
            eprintln!(
                "--- {}: {build:?} server:\n{}--- client:\n{}---",
                self.name,
                server.log(),
                client.log()
            );
        }
        Some(recovery)
    }

    /// Watches visitors until all is well.
    fn recovery(site: &Site, addr: SocketAddr, limit: Duration) -> Recovery {
        let (ended, mut lost) = (Instant::now(), 0);
        while let Some(left) = limit.checked_sub(ended.elapsed()) {
            let before = ended.elapsed();
            let Some(first) = first_served(site, addr, left) else { break };
            let served = || site.run(|| visit(addr, b"and now?", VISITOR)) == Outcome::Served;
            let in_a_row = (0..IN_A_ROW).take_while(|_| served()).count();
            if in_a_row == IN_A_ROW {
                return Recovery { after: Some(before + first), lost };
            }
            lost += 1;
        }
        Recovery { after: None, lost }
    }
}

fn restart(role: Role, signal: Signal) -> impl Fn(&mut Tunnel) {
    move |tunnel| {
        tunnel.process(role).signal(signal);
        tunnel.process(role).wait();
        tunnel.start(role);
    }
}

/// SIGTERM, then started again.
pub fn server_restart() -> Fault {
    Fault::new("server restart (SIGTERM)", restart(Role::Server, Signal::SIGTERM))
}

/// SIGKILL, then started again.
pub fn server_killed() -> Fault {
    Fault::new("server restart (SIGKILL)", restart(Role::Server, Signal::SIGKILL))
}

/// SIGTERM, then started again.
pub fn client_restart() -> Fault {
    Fault::new("client restart (SIGTERM)", restart(Role::Client, Signal::SIGTERM))
}

/// SIGKILL, then started again.
pub fn client_killed() -> Fault {
    Fault::new("client restart (SIGKILL)", restart(Role::Client, Signal::SIGKILL))
}

/// Nothing passes for a while.
pub fn cut(time: Duration) -> Fault {
    Fault::new(format!("cable cut for {} s", time.as_secs()), move |tunnel| tunnel.line.cut_for(time))
}

/// The same with the programs' own heartbeats, every 30 s: connections that idle may survive.
pub fn with_defaults(fault: Fault) -> Fault {
    // After 40 s of silence the client gives up.
    let name = format!("{}, default heartbeats", fault.name);
    Fault { name, heartbeat: None, limit: s(60), ..fault }
}

/// The client's machine gets another address; the old one is gone.
pub fn address_change() -> Fault {
    Fault::new("address change of the client", |tunnel| {
        Line::move_site(&tunnel.line.client, CLIENT, CLIENT_MOVED);
    })
}

/// Packets of all connections that are established vanish from now on.
pub fn nat_flush() -> Fault {
    Fault::new("NAT table flush", |tunnel| tunnel.line.forget(Gone::Silently))
}

/// Packets of all connections that are established are answered by resets from now on.
pub fn all_reset() -> Fault {
    Fault::new("all connections reset", |tunnel| tunnel.line.forget(Gone::WithReset))
}

/// A process does not run for a while.
pub fn suspended(role: Role, time: Duration) -> Fault {
    let name = format!("suspend of the {role:?} for {} s", time.as_secs()).to_lowercase();
    Fault::new(name, move |tunnel| {
        tunnel.process(role).signal(Signal::SIGSTOP);
        std::thread::sleep(time);
        tunnel.process(role).signal(Signal::SIGCONT);
    })
}

/// The client has waited for the server for some time when it is started.
pub fn server_late() -> Fault {
    let strike = |tunnel: &mut Tunnel| {
        std::thread::sleep(s(4));
        tunnel.start(Role::Server);
    };
    Fault {
        begin: |tunnel| tunnel.start(Role::Client),
        begins_down: true,
        ..Fault::new("server starts after the client", strike)
    }
}

/// The client has no network at all when it is started.
pub fn network_late() -> Fault {
    let begin = |tunnel: &mut Tunnel| {
        Line::set_device(&tunnel.line.client, "down");
        tunnel.start_both();
    };
    let strike = |tunnel: &mut Tunnel| {
        std::thread::sleep(s(4));
        Line::set_device(&tunnel.line.client, "up");
    };
    Fault { begin, begins_down: true, ..Fault::new("client's network comes late", strike) }
}
