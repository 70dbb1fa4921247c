//! What can happen, and how long it takes until a visitor is served again.

use std::fmt;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::common::service::Local;
use super::common::tunnel::{Build, Kind, Link, Role};
use super::line::crowd::{Crowd, Manners, Outcome, first_served, visit};
use super::line::middlebox::Gone;
use super::line::tunnel::Tunnel;
use super::line::weather::Weather;
use super::line::{CLIENT, CLIENT_MOVED, Line};
use super::s;

/// What has not recovered after this long does not recover, for the comparison.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A visitor after the recovery expects service within this time.
const VISITOR: Duration = Duration::from_secs(5);

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
    /// From the end of the fault until a visitor is served.
    pub first: Option<Duration>,
    /// How many of the next [`Recovery::AFTER`] visitors, one after the other, were not.
    pub lost: usize,
}

impl Recovery {
    const AFTER: usize = 20;
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.first else { return write!(f, "not within {} s", PATIENCE.as_secs()) };
        write!(f, "{:.1} s", first.as_secs_f64())?;
        if self.lost > 0 {
            write!(f, ", then {} of {} lost", self.lost, Recovery::AFTER)?;
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
        (self.strike)(&mut tunnel);
        let first = first_served(&site, addr, limit);
        let served = || site.run(|| visit(addr, b"and now?", VISITOR)) == Outcome::Served;
        let lost = if first.is_some() {
            (0..Recovery::AFTER).filter(|_| !served()).count()
        } else {
            Recovery::AFTER
        };
        during.finish();
        if first.is_none() || lost > 0 {
            let (server, client) = tunnel.processes();
            eprintln!(
                "--- {}: {build:?} server:\n{}--- client:\n{}---",
                self.name,
                server.log(),
                client.log()
            );
        }
        Some(Recovery { first, lost })
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
