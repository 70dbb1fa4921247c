//! Two clients with one token, each of which replaces the other: how long the newcomer must wait.
//!
//! One takeover is a restart of the client. Three within half a minute are two clients that do not know of each
//! other; then each further one is held back, longer each time, and the incumbent serves in the meantime. Pure: `now`
//! is an argument. Bounded by the number of services.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::wire::ServiceDigest;

/// Takeovers that are older do not count.
const WINDOW: Duration = Duration::from_secs(30);

/// So many within the window are free.
const FREE: usize = 3;

/// The first wait; it doubles with each further takeover, up to the longest.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Takeovers that are remembered: enough for the longest wait.
const REMEMBERED: usize = 8;

/// Newcomers of one service that wait, for this or for the incumbent's pulse.
const MAX_WAITING: usize = 16;

/// All services with takeovers of late.
#[derive(Debug, Default)]
pub struct Takeovers(HashMap<ServiceDigest, Service>);

#[derive(Debug, Default)]
struct Service {
    /// The last ones, oldest first.
    times: VecDeque<Instant>,
    waiting: usize,
}

impl Takeovers {
    /// A newcomer comes while another client is there; Some: how long it must wait. It is counted as waiting until
    /// [`Takeovers::on_done`]. None: too many wait already.
    pub fn on_newcomer(&mut self, digest: ServiceDigest, now: Instant) -> Option<Duration> {
        self.0.retain(|_, service| !service.is_idle(now));
        let service = self.0.entry(digest).or_default();
        if service.waiting >= MAX_WAITING {
            return None;
        }
        service.waiting += 1;
        Some(service.wait(now))
    }

    /// A newcomer waits no more; `took_over`: it has replaced the incumbent.
    pub fn on_done(&mut self, digest: ServiceDigest, took_over: bool, now: Instant) {
        let service = self.0.entry(digest).or_default();
        service.waiting = service.waiting.saturating_sub(1);
        if took_over {
            service.times.push_back(now);
            if service.times.len() > REMEMBERED {
                service.times.pop_front();
            }
        }
    }
}

impl Service {
    fn wait(&self, now: Instant) -> Duration {
        let recent = self.times.iter().filter(|time| now < **time + WINDOW).count();
        match recent.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(more) => WAIT.0.saturating_mul(1 << more.min(16)).min(WAIT.1),
        }
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.waiting == 0 && self.times.iter().all(|time| now >= *time + WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn digest(n: u8) -> ServiceDigest {
        ServiceDigest([n; 32])
    }

    /// One newcomer from its Auth to its takeover; says how long it waited.
    fn take_over(takeovers: &mut Takeovers, now: &mut Instant) -> u64 {
        let wait = takeovers.on_newcomer(digest(1), *now).unwrap();
        *now += wait;
        takeovers.on_done(digest(1), true, *now);
        wait.as_secs()
    }

    #[test]
    fn the_fourth_takeover_in_half_a_minute_waits() {
        let mut takeovers = Takeovers::default();
        let mut now = Instant::now();
        let waits: Vec<_> = (0..8)
            .map(|_| {
                now += SECOND / 10;
                take_over(&mut takeovers, &mut now)
            })
            .collect();
        assert_eq!(waits, [0, 0, 0, 1, 2, 4, 5, 5]);
        assert_eq!(takeovers.on_newcomer(digest(2), now), Some(Duration::ZERO), "another service");
        now += 31 * SECOND;
        assert_eq!(take_over(&mut takeovers, &mut now), 0);
    }

    #[test]
    fn restarts_now_and_then_are_free() {
        let mut takeovers = Takeovers::default();
        let mut now = Instant::now();
        for _ in 0..100 {
            now += 11 * SECOND;
            assert_eq!(take_over(&mut takeovers, &mut now), 0);
        }
    }

    #[test]
    fn a_newcomer_that_gives_up_is_no_takeover() {
        let mut takeovers = Takeovers::default();
        let now = Instant::now();
        for _ in 0..100 {
            assert_eq!(takeovers.on_newcomer(digest(1), now), Some(Duration::ZERO));
            takeovers.on_done(digest(1), false, now);
        }
    }

    /// Two clients that reconnect at once whenever they are replaced. In words: however long they go on, in no half
    /// minute there are more than ten takeovers, nobody waits longer than five seconds, and nothing is kept of them
    /// when they have made peace.
    #[test]
    fn two_clients_do_not_flap() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut takeovers = Takeovers::default();
            let start = Instant::now();
            let mut now = start;
            let mut times = Vec::new();
            for _ in 0..200 {
                now += Duration::from_millis(random.u64(1..1500));
                assert!(take_over(&mut takeovers, &mut now) <= 5);
                times.push(now);
            }
            for first in &times {
                let within = times.iter().filter(|time| *time >= first && **time < *first + WINDOW);
                assert!(within.count() <= 10, "seed {seed}");
            }
            assert!(takeovers.0.values().all(|service| service.times.len() <= REMEMBERED));
            assert!(takeovers.on_newcomer(digest(9), now + WINDOW).is_some());
            assert_eq!(takeovers.0.len(), 1);
        }
    }

    #[test]
    fn those_who_wait_are_bounded() {
        let mut takeovers = Takeovers::default();
        let now = Instant::now();
        for _ in 0..MAX_WAITING {
            assert!(takeovers.on_newcomer(digest(1), now).is_some());
        }
        assert_eq!(takeovers.on_newcomer(digest(1), now), None);
        assert!(takeovers.on_newcomer(digest(2), now).is_some());
        takeovers.on_done(digest(1), false, now);
        assert!(takeovers.on_newcomer(digest(1), now).is_some());
    }
}
