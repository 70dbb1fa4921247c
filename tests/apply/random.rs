//! Random reloads of a server and its client, with traffic and restarts of the client in between.
//!
//! In words, whatever comes in whatever order:
//! - the server's listening sockets are those of its configuration, after each reload; where one could not be bound, it is
//!   named, and the service has the address it had before, or none;
//! - what is established stays, as long as its client does;
//! - each service that both ends have, with the same token and type, serves a visitor within a short time, and it is the
//!   right local service that is met;
//! - at the end everything is given back: descriptors, tasks.
//!
//! The seed is printed when it fails; `RATHOLE_SEED=n` repeats it, `RATHOLE_ROUNDS=n` makes it longer.

use std::collections::HashMap;

use tokio::net::TcpListener;

use super::traffic::{Long, echo, meets_at_last};
use super::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const LOCALS: [&str; 3] = ["l0", "l1", "l2"];
const SLOTS: usize = 6;

struct World {
    random: fastrand::Rng,
    tunnel: Tunnel,
    /// Addresses that services have by turns.
    slots: Vec<SocketAddr>,
    /// Somebody else has it.
    foreign: Option<(usize, TcpListener)>,
    locals: Vec<SocketAddr>,
    longs: Vec<Long>,
    /// What each service listens on, as far as it is known.
    bound: HashMap<Arc<str>, SocketAddr>,
}

impl World {
    async fn new(seed: u64) -> World {
        let mut locals = Vec::new();
        for name in LOCALS {
            locals.push(echo(name).await);
        }
        let slots = (0..SLOTS).map(|_| net::address()).collect();
        let (random, tunnel) = (fastrand::Rng::with_seed(seed), Tunnel::start(&[]).await);
        World { random, tunnel, slots, foreign: None, locals, longs: Vec::new(), bound: HashMap::new() }
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.random.usize(..NAMES.len())]
    }

    /// An address that no other service has in the configuration.
    fn free_slot(&mut self, of: &str) -> SocketAddr {
        let services = &self.tunnel.server.services;
        let is_free = |slot: &&SocketAddr| {
            services.values().all(|service| &*service.name == of || address(&service.bind_addr) != **slot)
        };
        let free: Vec<_> = self.slots.iter().filter(is_free).copied().collect();
        free[self.random.usize(..free.len())]
    }

    /// Changes something of the server's configuration.
    fn change_server(&mut self) -> String {
        let name = self.name();
        let known = self.tunnel.server.services.contains_key(name);
        match self.random.u8(..8) {
            0 | 1 if !known => {
                let address = self.free_slot(name);
                self.tunnel.server.services.insert(name.into(), offered(name, address));
                format!("{name} at {address}")
            }
            0 => {
                self.tunnel.server.services.remove(name);
                format!("without {name}")
            }
            1 | 2 if known => {
                let address = self.free_slot(name);
                self.tunnel.offered(name).bind_addr = at(address);
                format!("{name} to {address}")
            }
            3 if known => {
                let n = self.random.u8(1..3);
                self.tunnel.offered(name).token = token(n);
                format!("{name} with token {n}")
            }
            4 if known => {
                let n = self.random.usize(3..10);
                self.tunnel.offered(name).limits = config::Limits { visitors: 1000, waiting: n, channels: n };
                format!("{name} with limits of {n}")
            }
            5 if known => {
                // An exchange of two.
                let other = self.name();
                if let Some(theirs) = self.tunnel.server.services.get(other).map(|s| s.bind_addr.clone()) {
                    let ours = std::mem::replace(&mut self.tunnel.offered(name).bind_addr, theirs);
                    self.tunnel.offered(other).bind_addr = ours;
                }
                format!("{name} and {other} exchanged")
            }
            6 => {
                let refuse = self.random.bool();
                self.tunnel.server.on_duplicate =
                    if refuse { config::OnDuplicate::Refuse } else { config::OnDuplicate::Replace };
                format!("refuse: {refuse}")
            }
            _ => {
                let seconds = self.random.u64(5..20);
                self.tunnel.server.visitor_timeout = Duration::from_secs(seconds);
                format!("visitor_timeout {seconds}")
            }
        }
    }

    fn change_client(&mut self) -> String {
        let name = self.name();
        let known = self.tunnel.client.services.contains_key(name);
        let local = self.locals[self.random.usize(..self.locals.len())];
        match self.random.u8(..4) {
            _ if !known => {
                self.tunnel.client.services.insert(name.into(), led_to(name, local));
                format!("client: {name}")
            }
            0 => {
                self.tunnel.client.services.remove(name);
                format!("client: without {name}")
            }
            1 => {
                self.tunnel.led_to(name).local_addr = at(local);
                format!("client: {name} to {local}")
            }
            _ => {
                let n = self.random.u8(1..3);
                self.tunnel.led_to(name).token = token(n);
                format!("client: {name} with token {n}")
            }
        }
    }

    /// One step, in words.
    async fn step(&mut self) -> String {
        match self.random.u8(..10) {
            0 => {
                for long in self.longs.drain(..) {
                    long.end().await;
                }
                self.tunnel.restart_client().await;
                "client restarted".to_owned()
            }
            1 => match self.foreign.take() {
                Some((slot, listener)) => {
                    drop(listener);
                    format!("slot {slot} is free")
                }
                None => {
                    let slot = self.random.usize(..SLOTS);
                    if let Ok(listener) = TcpListener::bind(self.slots[slot]).await {
                        self.foreign = Some((slot, listener));
                    }
                    format!("slot {slot} is another's")
                }
            },
            n if n < 7 => {
                let changes: Vec<_> = (0..self.random.usize(1..4)).map(|_| self.change_server()).collect();
                let outcome = self.tunnel.reload_server().await;
                self.check_addresses(&outcome);
                format!("{}: {outcome:?}", changes.join(", "))
            }
            _ => {
                let change = self.change_client();
                let outcome = self.tunnel.reload_client().await;
                assert!(outcome.failed.is_empty(), "{outcome:?}");
                change
            }
        }
    }

    fn check_addresses(&mut self, outcome: &Outcome) {
        let services = &self.tunnel.server.services;
        self.bound.retain(|name, _| services.contains_key(name));
        for service in services.values() {
            let wanted = address(&service.bind_addr);
            let key = format!("server.services.{}.bind_addr", service.name);
            if outcome.failed.iter().any(|(failed, _)| *failed == key) {
                // Another's, as was said at the time, or that of a service that could not give it up.
                let others = self.foreign.as_ref().is_some_and(|(slot, _)| self.slots[*slot] == wanted);
                let held = self.bound.iter().any(|(name, held)| *name != service.name && *held == wanted);
                assert!(others || held, "{key} failed for no reason: {outcome:?}");
            } else {
                self.bound.insert(service.name.clone(), wanted);
            }
        }
        // One that could not move has lost its address if another was to have it.
        let wanted: HashMap<_, _> =
            services.values().map(|service| (address(&service.bind_addr), service.name.clone())).collect();
        self.bound.retain(|name, held| wanted.get(held).is_none_or(|owner| owner == name));
        let others = self.foreign.as_ref().map(|(slot, _)| self.slots[*slot]);
        for slot in &self.slots {
            let wanted = services.values().any(|service| address(&service.bind_addr) == *slot);
            let kept = self.bound.values().any(|held| held == slot);
            let listens = net::listens(*slot);
            assert!(listens || !kept || others == Some(*slot), "{slot} should listen: {outcome:?}");
            assert!(!listens || wanted || kept || others == Some(*slot), "{slot} should not: {outcome:?}");
        }
    }

    /// Whoever should be served is, and by whom.
    async fn check_service(&mut self) {
        for (name, service) in &self.tunnel.server.services {
            let Some(client) = self.tunnel.client.services.get(name) else { continue };
            let wanted = address(&service.bind_addr);
            let others = self.foreign.as_ref().is_some_and(|(slot, _)| self.slots[*slot] == wanted);
            if client.token != service.token || others {
                continue;
            }
            let local = address(&client.local_addr);
            let at = self.locals.iter().position(|address| *address == local).unwrap();
            meets_at_last(wanted, LOCALS[at]).await;
            if self.longs.len() < 10 && self.random.u8(..4) == 0 {
                self.longs.push(Long::begin(wanted, LOCALS[at]).await);
            }
        }
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// In a process of its own, which it counts the descriptors of.
#[test]
fn random_reloads_keep_what_is_established_and_leave_nothing_behind() {
    const CHILD: &str = "RATHOLE_RANDOM_RELOADS";
    if std::env::var_os(CHILD).is_none() {
        let test = "random::random_reloads_keep_what_is_established_and_leave_nothing_behind";
        alone(test, CHILD);
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("RATHOLE_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let rounds = number("RATHOLE_ROUNDS").unwrap_or(60);
    println!("RATHOLE_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed).await;
        // With the local services and the control address, without anything that comes later.
        let before = descriptors();
        for round in 0..rounds {
            println!("{round}: {}", world.step().await);
            world.check_service().await;
        }
        for long in world.longs.drain(..) {
            long.end().await;
        }
        world.foreign = None;
        world.tunnel.server.services.clear();
        world.tunnel.client.services.clear();
        world.tunnel.reload_server_well().await;
        world.tunnel.reload_client().await;
        eventually("no relays", || world.tunnel.server_counters.relays.load(Relaxed) == 0).await;
        eventually(&format!("{before} descriptors, not {}", descriptors()), || descriptors() <= before + 2)
            .await;
        assert_eq!(world.tunnel.channels(), 0);
        world.tunnel.end().await;
    });
}
