//! What the process's open files are for. First of all for what each service needs in any case; a part of the rest may
//! be data channels in store, and another part visitors that wait, each of all services together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::relay::{open_files, pipe_ends};

/// What a server has open without any service, with something to spare.
const OWN: usize = 32;

/// What each service needs: its listener, its client's control channel, and one for what comes and goes.
const EACH: usize = 3;

/// Of what services leave, this part may be in store: it is a convenience.
const STORE: usize = 4;

/// And this part may wait: with a data channel for each of them, and a full store, there is still something left.
const WAITING: usize = 3;

/// So many may wait whatever else is open: else nobody would be served who finds no channel.
const LEAST_WAITING: usize = 8;

/// Channels that a new client is asked for at once (protocol-v1.md, section 5.1).
const AT_FIRST: usize = 8;

/// Idle channels of all services together, as long as nobody visits them. Beyond, clients on one address run out of
/// ports: each has 28232 for connections to one server.
const AT_FIRST_ALTOGETHER: usize = 16_384;

/// What the services of a server share.
#[derive(Debug)]
pub struct Budget {
    services: AtomicUsize,
    idle: Arc<Pot>,
    waiting: Arc<Pot>,
}

impl Budget {
    /// Of this process, for so many services.
    pub fn new(services: usize) -> Self {
        let budget = Budget { services: AtomicUsize::new(0), idle: Arc::default(), waiting: Arc::default() };
        budget.set_services(services);
        budget
    }

    /// There are so many services from now on. Looks at the limit of open files again.
    pub fn set_services(&self, services: usize) {
        self.set(services, open_files());
    }

    fn set(&self, services: usize, open_files: usize) {
        let rest = left(services, open_files);
        self.services.store(services, Relaxed);
        self.idle.most.store(rest / STORE, Relaxed);
        self.waiting.most.store((rest / WAITING).max(LEAST_WAITING), Relaxed);
    }

    /// Channels that a new client is asked for: altogether half of what may be in store, for some need more.
    pub fn at_first(&self) -> usize {
        let altogether = (self.idle.most.load(Relaxed) / 2).min(AT_FIRST_ALTOGETHER);
        (altogether / self.services.load(Relaxed).max(1)).min(AT_FIRST)
    }

    /// Of a service without idle channels.
    pub fn idle(&self) -> Share {
        Share { pot: self.idle.clone(), own: 0, least: 0 }
    }

    /// Of a service for which no visitor waits. One may in any case: else two that are flooded would keep out all others.
    pub fn waiting(&self) -> Share {
        Share { pot: self.waiting.clone(), own: 0, least: 1 }
    }
}

/// What there may be of something, and what there is.
#[derive(Debug, Default)]
struct Pot {
    most: AtomicUsize,
    taken: AtomicUsize,
}

/// What one service has of a pot. Dropped: it is given back.
#[derive(Debug)]
pub struct Share {
    pot: Arc<Pot>,
    own: usize,
    /// So many it may have, whatever others have: [`EACH`] counts them.
    least: usize,
}

impl Share {
    /// The service has so many now.
    pub fn set(&mut self, own: usize) {
        if own >= self.own {
            self.pot.taken.fetch_add(own - self.own, Relaxed);
        } else {
            self.pot.taken.fetch_sub(self.own - own, Relaxed);
        }
        self.own = own;
    }

    /// How many it may have: two thirds of what the others leave, so that whoever comes next finds something, too,
    /// however many take what they can.
    pub fn allowed(&self) -> usize {
        let others = self.pot.taken.load(Relaxed).saturating_sub(self.own);
        (self.pot.most.load(Relaxed).saturating_sub(others) * 2).div_ceil(3).max(self.least)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Says so if so many services do not fit into the limit of open files.
pub fn warn_if_short(services: usize) {
    if let Some(warning) = shortage(services, open_files()) {
        tracing::warn!("{warning}");
    }
}

fn shortage(services: usize, open_files: usize) -> Option<String> {
    let needed = needed(services);
    let s = if services == 1 { " needs" } else { "s need" };
    (needed > open_files).then(|| {
        format!(
            "{services} service{s} at least {needed} open files, but the limit is {open_files}, so that not all may be \
             served: raise it (LimitNOFILE= in systemd's unit, or ulimit -n)"
        )
    })
}

/// Open files that services leave, and the pipes of relays.
fn left(services: usize, open_files: usize) -> usize {
    open_files.saturating_sub(needed(services)).saturating_sub(pipe_ends(open_files))
}

/// Open files without which some service cannot be served.
fn needed(services: usize) -> usize {
    services.saturating_mul(EACH).saturating_add(OWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(services: usize, open_files: usize) -> Budget {
        let budget = Budget::new(0);
        budget.set(services, open_files);
        budget
    }

    #[test]
    fn services_share_what_is_asked_for_at_first() {
        for (services, expected) in [(0, 8), (1, 8), (2048, 8), (2049, 7), (10_000, 1), (1_000_000, 0)] {
            assert_eq!(budget(services, 1 << 20).at_first(), expected, "{services}");
        }
        assert_eq!(
            [1, 12, 32, 64, 100, 1000].map(|services| budget(services, 1024).at_first()),
            [8, 8, 3, 1, 0, 0]
        );
    }

    /// Whatever services do, listeners, control channels and visitors find a descriptor.
    #[test]
    fn what_is_shared_is_what_services_leave() {
        for (services, open_files) in
            [(0, 40), (1, 200), (100, 1024), (9000, 20_000), (10_000, 20_000), (3, 16)]
        {
            let budget = budget(services, open_files);
            let (idle, waiting) = (budget.idle().allowed(), budget.waiting().allowed());
            let rest = open_files.saturating_sub(needed(services) + 2 * (open_files / 32).min(32));
            assert!(idle <= rest / 4 && waiting <= (rest / 3).max(8), "{services}, {open_files}");
            assert!(services * budget.at_first() <= rest / 8, "{services}, {open_files}");
            assert!(waiting > 0);
        }
    }

    /// Random services take what they may: together never more than there is, and one that has none may always have
    /// some.
    #[test]
    fn nobody_takes_all() {
        let random = &mut fastrand::Rng::with_seed(5);
        for greedy in [1, 2, 7, 50] {
            let budget = budget(60, 4096);
            let most = budget.idle.most.load(Relaxed);
            let mut shares: Vec<_> = (0..greedy).map(|_| (budget.idle(), 0)).collect();
            for _ in 0..20_000 {
                let (share, own) = &mut shares[random.usize(..greedy)];
                // What is too much is given back.
                *own = if *own < share.allowed() && random.u8(..10) > 0 {
                    *own + 1
                } else {
                    own.saturating_sub(1)
                };
                share.set(*own);
                assert!(budget.idle.taken.load(Relaxed) <= most);
                assert!(budget.idle().allowed() >= most / (6 * greedy), "{greedy}");
            }
            drop(shares);
            assert_eq!(budget.idle.taken.load(Relaxed), 0);
        }
    }

    /// Forty services, with descriptors for none beside what each needs: however many are flooded, one visitor may wait
    /// for each of them.
    #[test]
    fn no_service_keeps_the_visitors_of_others_out() {
        for flooded in [1, 2, 39] {
            let budget = budget(40, 128);
            let mut shares: Vec<_> = (0..40).map(|_| budget.waiting()).collect();
            for _ in 0..100 {
                for share in shares.iter_mut().take(flooded) {
                    // As the pool does: one more, if fewer wait than may.
                    share.set(share.own + usize::from(share.own < share.allowed()));
                }
            }
            assert!(shares.iter().all(|share| share.allowed() > 0), "{flooded}");
            assert!(budget.waiting.taken.load(Relaxed) <= LEAST_WAITING + 40, "{flooded}");
        }
    }

    #[test]
    fn a_limit_that_is_too_low_is_told_with_numbers_and_remedy() {
        assert_eq!(shortage(10_000, 30_032), None);
        let warning = shortage(10_000, 20_000).unwrap();
        assert!(
            warning.starts_with("10000 services need at least 30032 open files, but the limit is 20000"),
            "{warning}"
        );
        assert!(warning.contains("LimitNOFILE=") && warning.contains("ulimit -n"), "{warning}");
        assert!(shortage(1, 34).is_some_and(|warning| warning.starts_with("1 service needs at least 35 ")));
    }
}
