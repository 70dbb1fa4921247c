//! Failed authentications: how they are told, and how long the answer is held back.
//!
//! One line for a source in ten seconds, however often it tries: the first failure is told at once, further ones are
//! counted and told together when the ten seconds are over. Each line names a peer's address, so that what reads the
//! log can ban it; of an IPv6 /64, which counts as one, the address that failed last. A source that failed within the
//! last minute waits for its next verdict, longer each time. Pure: `now` is an argument.
//!
//! Bounded: when there are too many sources, one is forgotten of which there is nothing to tell and whose ten seconds
//! are over, that with the oldest line first. Where there is none, newer ones are counted together.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::gate::Source;

/// Between two lines for one source.
const INTERVAL: Duration = Duration::from_secs(10);

/// A source that did not fail for so long has a clean slate.
const MEMORY: Duration = Duration::from_secs(60);

/// Sources that are told apart. With 96 bytes and a place in `quiet` for each, some 4 MiB in all: docs/limits.md says so.
const MAX_SOURCES: usize = 16_384;

/// How long the second failure's answer is held back; it doubles with each further one, up to the longest.
const DELAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Who failed to authenticate of late.
#[derive(Debug)]
pub struct Strangers {
    most: usize,
    sources: HashMap<Source, Failures>,
    /// Those of which there is nothing to tell, by the time of their last line.
    quiet: BTreeSet<(Instant, Source)>,
    /// Of sources that found no place.
    others: Option<Failures>,
}

impl Default for Strangers {
    fn default() -> Self {
        Strangers { most: MAX_SOURCES, sources: HashMap::new(), quiet: BTreeSet::new(), others: None }
    }
}

#[derive(Debug)]
struct Failures {
    told: Instant,
    untold: u64,
    /// In a row, without a minute's pause.
    recent: u32,
    last: Instant,
    peer: SocketAddr,
}

/// A line to log.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// Whose failures; None: of many addresses.
    pub peer: Option<SocketAddr>,
    /// How many since the last line.
    pub failures: u64,
}

/// What becomes of a failure.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is told at once.
    pub tell: bool,
    /// How long its answer is held back.
    pub delay: Duration,
}

impl Strangers {
    /// A peer failed.
    pub fn on_failure(&mut self, peer: SocketAddr, now: Instant) -> Verdict {
        let source = Source::of(peer.ip());
        if let Some(failures) = self.sources.get_mut(&source) {
            self.quiet.remove(&(failures.told, source));
            return Verdict { tell: false, delay: failures.on_failure(peer, now) };
        }
        if self.sources.len() >= self.most && !self.forget_one(now) {
            let failures = self.others.get_or_insert_with(|| Failures::new(peer, now));
            return Verdict { tell: false, delay: failures.on_failure(peer, now) };
        }
        let mut failures = Failures::new(peer, now);
        let delay = failures.on_failure(peer, now);
        failures.untold = 0;
        self.sources.insert(source, failures);
        self.quiet.insert((now, source));
        Verdict { tell: true, delay }
    }

    /// Makes room for another source, if one may go.
    fn forget_one(&mut self, now: Instant) -> bool {
        match self.quiet.first().copied() {
            Some((told, source)) if now >= told + INTERVAL => {
                self.quiet.remove(&(told, source));
                self.sources.remove(&source).is_some()
            }
            _ => false,
        }
    }

    /// Time has passed: the lines that are due. A source that stayed quiet is forgotten.
    pub fn on_time(&mut self, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        self.sources.retain(|source, failures| {
            if let Some(count) = failures.due(now) {
                lines.push(Line { peer: Some(failures.peer), failures: count });
                self.quiet.insert((failures.told, *source));
            }
            let is_old = failures.is_old(now);
            if is_old {
                self.quiet.remove(&(failures.told, *source));
            }
            !is_old
        });
        if let Some(others) = &mut self.others {
            lines.extend(others.due(now).map(|failures| Line { peer: None, failures }));
            if others.is_old(now) {
                self.others = None;
            }
        }
        lines
    }

    /// The end has come: all that was not told.
    pub fn on_end(&mut self) -> Vec<Line> {
        self.quiet.clear();
        let told = self.sources.drain().map(|(_, failures)| (Some(failures.peer), failures.untold));
        let others = self.others.take().map(|others| (None, others.untold));
        let lines = told.chain(others).filter(|(_, failures)| *failures > 0);
        lines.map(|(peer, failures)| Line { peer, failures }).collect()
    }

    /// Whether [`Strangers::on_time`] may have something to do some time.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.others.is_none()
    }
}

impl Failures {
    fn new(peer: SocketAddr, now: Instant) -> Self {
        Failures { told: now, untold: 0, recent: 0, last: now, peer }
    }

    /// Says how long the answer is held back.
    fn on_failure(&mut self, peer: SocketAddr, now: Instant) -> Duration {
        if self.is_quiet(now) {
            self.recent = 0;
        }
        let delay = match self.recent {
            0 => Duration::ZERO,
            n => DELAY.0.saturating_mul(1 << (n - 1).min(16)).min(DELAY.1),
        };
        self.recent = self.recent.saturating_add(1);
        self.untold += 1;
        (self.last, self.peer) = (now, peer);
        delay
    }

    /// How many are to be told now.
    fn due(&mut self, now: Instant) -> Option<u64> {
        if self.untold == 0 || now < self.told + INTERVAL {
            return None;
        }
        self.told = now;
        Some(std::mem::take(&mut self.untold))
    }

    fn is_quiet(&self, now: Instant) -> bool {
        now >= self.last + MEMORY
    }

    fn is_old(&self, now: Instant) -> bool {
        self.untold == 0 && now >= self.told + INTERVAL && self.is_quiet(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn peer(n: u32) -> SocketAddr {
        SocketAddr::new(std::net::Ipv4Addr::from(n).into(), 7)
    }

    #[test]
    fn one_line_in_ten_seconds() {
        let start = Instant::now();
        let mut strangers = Strangers::default();
        assert!(strangers.on_failure(peer(1), start).tell);
        for tenth in 1..100 {
            let now = start + SECOND * tenth / 10;
            assert!(!strangers.on_failure(peer(1), now).tell);
            assert_eq!(strangers.on_time(now), []);
        }
        assert_eq!(strangers.on_time(start + 10 * SECOND), [Line { peer: Some(peer(1)), failures: 99 }]);
        // The next is not told before another ten seconds are over.
        assert!(!strangers.on_failure(peer(1), start + 11 * SECOND).tell);
        assert_eq!(strangers.on_time(start + 19 * SECOND), []);
        assert_eq!(strangers.on_time(start + 20 * SECOND), [Line { peer: Some(peer(1)), failures: 1 }]);
        assert_eq!(strangers.on_time(start + 70 * SECOND), []);
        assert_eq!(strangers.on_time(start + 71 * SECOND), []);
        assert!(strangers.is_empty());
        assert!(strangers.on_failure(peer(1), start + 72 * SECOND).tell);
    }

    #[test]
    fn a_prefix_of_ipv6_is_one_source_and_the_line_names_an_address() {
        let start = Instant::now();
        let mut strangers = Strangers::default();
        let [first, last]: [SocketAddr; 2] =
            ["[2001:db8::1]:1", "[2001:db8::2]:2"].map(|a| a.parse().unwrap());
        assert!(strangers.on_failure(first, start).tell);
        assert!(!strangers.on_failure(last, start).tell);
        assert_eq!(strangers.on_time(start + 10 * SECOND), [Line { peer: Some(last), failures: 1 }]);
    }

    /// More than there is room for, but not in ten seconds: each has a line of its own, at once.
    #[test]
    fn each_of_very_many_sources_has_its_own_line() {
        let start = Instant::now();
        let mut strangers = Strangers::default();
        let (mut failures, mut told) = (0, 0);
        for second in 0..60 {
            let now = start + second * SECOND;
            assert!(!strangers.on_failure(peer(0), now).tell || second == 0, "who fails on is not forgotten");
            for n in 0..1500 {
                assert!(strangers.on_failure(peer(1 + second * 1500 + n), now).tell, "{second} s, {n}");
            }
            failures += 1;
            for Line { peer: whose, failures } in strangers.on_time(now) {
                assert_eq!(whose, Some(peer(0)));
                told += failures;
            }
            assert!(strangers.sources.len() <= MAX_SOURCES);
        }
        assert_eq!((failures, told), (60, 50), "one at once, nine are still to be told");
    }

    #[test]
    fn sources_without_a_place_share_a_line() {
        let start = Instant::now();
        let mut strangers = Strangers::default();
        let told = (0..20_000).filter(|n| strangers.on_failure(peer(*n), start).tell).count();
        assert_eq!(told, MAX_SOURCES);
        let others = Line { peer: None, failures: 20_000 - MAX_SOURCES as u64 };
        assert_eq!(strangers.on_time(start + 10 * SECOND), [others]);
        assert!(strangers.on_failure(peer(20_000), start + 10 * SECOND).tell, "there is room again");
        assert_eq!(strangers.on_time(start + 70 * SECOND), []);
        assert!(strangers.is_empty() && strangers.quiet.is_empty());
    }

    #[test]
    fn a_source_is_small() {
        // The map has room for twice as many, with a byte for each; the set's nodes may be half full.
        let bytes =
            MAX_SOURCES * (2 * (size_of::<(Source, Failures)>() + 1) + 2 * size_of::<(Instant, Source)>());
        assert!(bytes <= 9 << 19, "{bytes}");
    }

    /// Random failures of few sources and many, told from time to time. In words: no failure is told twice or lost; no
    /// source has two lines within ten seconds; there are never more sources than there may be; and those that may be
    /// forgotten are known.
    #[test]
    fn random_failures_are_told_once_each() {
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut strangers = Strangers { most: random.usize(1..20), ..Strangers::default() };
            let mut now = Instant::now();
            let (mut failures, mut told) = (0, 0);
            let mut last_line = HashMap::new();
            let mut tell = |whose: Option<SocketAddr>, now: Instant| {
                let Some(last) = last_line.insert(whose, now) else { return };
                assert!(now >= last + INTERVAL, "seed {seed}: two lines for {whose:?}");
            };
            for _ in 0..2000 {
                now += Duration::from_millis(random.u64(0..1500));
                let whose = peer(random.u32(0..30));
                failures += 1;
                if strangers.on_failure(whose, now).tell {
                    told += 1;
                    tell(Some(whose), now);
                }
                if random.u8(0..3) == 0 {
                    for line in strangers.on_time(now) {
                        told += line.failures;
                        tell(line.peer, now);
                    }
                }
                assert!(strangers.sources.len() <= strangers.most, "seed {seed}");
                let quiet = strangers.sources.iter().filter(|(_, failures)| failures.untold == 0);
                let quiet: BTreeSet<_> = quiet.map(|(source, failures)| (failures.told, *source)).collect();
                assert_eq!(strangers.quiet, quiet, "seed {seed}");
            }
            told += strangers.on_end().iter().map(|line| line.failures).sum::<u64>();
            assert_eq!(told, failures, "seed {seed}");
        }
    }

    #[test]
    fn what_is_untold_at_the_end_is_told_then() {
        let start = Instant::now();
        let mut strangers = Strangers::default();
        for n in [1, 2, 2, 2] {
            strangers.on_failure(peer(n), start);
        }
        assert_eq!(strangers.on_end(), [Line { peer: Some(peer(2)), failures: 2 }]);
        assert!(strangers.is_empty());
    }

    #[test]
    fn answers_are_held_back_longer_and_longer() {
        let start = Instant::now();
        let mut strangers = Strangers::default();
        let mut delay = |n, after: Duration| strangers.on_failure(peer(n), start + after).delay.as_millis();
        let delays: Vec<_> = (0..8).map(|n| delay(1, n * SECOND)).collect();
        assert_eq!(delays, [0, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(delay(2, 8 * SECOND), 0, "another source");
        assert_eq!(delay(1, 66 * SECOND), 2000, "within a minute");
        assert_eq!(delay(1, 126 * SECOND), 0, "after a minute's silence");
        for _ in 0..100_000 {
            assert!(delay(1, 127 * SECOND) <= 2000);
        }
    }
}
