//! How many data channels all services of a server may keep idle together: a convenience must not take the descriptors
//! that visitors need.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use nix::sys::resource::{Resource, getrlimit};

/// Of the process's descriptors, this part.
const PART: usize = 4;

/// Channels that a new client is asked for at once (protocol-v1.md, section 5.1).
const AT_FIRST: usize = 8;

/// Idle channels of all services together, as long as nobody visits them. Beyond, clients on one address run out of
/// ports: each has 28232 for connections to one server.
const AT_FIRST_ALTOGETHER: usize = 16_384;

/// What is there, and what is taken.
#[derive(Debug)]
pub struct Budget {
    most: usize,
    idle: AtomicUsize,
}

impl Budget {
    /// Of this process, as its descriptors are limited now.
    pub fn of_process() -> Self {
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        Budget::of(usize::try_from(descriptors).unwrap_or(usize::MAX))
    }

    fn of(descriptors: usize) -> Self {
        Budget { most: descriptors / PART, idle: AtomicUsize::new(0) }
    }

    /// Channels that a new client is asked for, on a server with so many services.
    pub fn at_first(&self, services: usize) -> usize {
        (self.most.min(AT_FIRST_ALTOGETHER) / services.max(1)).clamp(1, AT_FIRST)
    }

    /// So many channels have become idle.
    pub fn add(&self, n: usize) {
        self.idle.fetch_add(n, Relaxed);
    }

    /// So many are not idle any more.
    pub fn remove(&self, n: usize) {
        self.idle.fetch_sub(n, Relaxed);
    }

    /// How many a service may have that has so many.
    pub fn allows(&self, own: usize) -> usize {
        let (idle, most) = (self.idle.load(Relaxed), self.most);
        if idle <= most { own.saturating_add(most - idle) } else { own.saturating_sub(idle - most) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_share_what_is_asked_for_at_first() {
        let budget = Budget::of(1 << 20);
        for (services, expected) in [(0, 8), (1, 8), (2048, 8), (2049, 7), (10_000, 1), (1_000_000, 1)] {
            assert_eq!(budget.at_first(services), expected, "{services}");
        }
        let small = Budget::of(1024);
        assert_eq!([1, 32, 64, 1000].map(|services| small.at_first(services)), [8, 8, 4, 1]);
    }

    #[test]
    fn what_one_has_another_cannot_have() {
        let budget = Budget::of(400);
        assert_eq!(budget.allows(0), 100);
        budget.add(60);
        assert_eq!((budget.allows(60), budget.allows(0)), (100, 40));
        budget.add(60);
        assert_eq!((budget.allows(60), budget.allows(0)), (40, 0));
        budget.remove(120);
        assert_eq!(budget.allows(0), 100);
    }
}
