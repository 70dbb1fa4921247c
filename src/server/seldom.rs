//! A line that may be due all the time, told at most once a minute, with a count. Where each is of interest, the first
//! few are told one by one; a minute makes up for each of them. Pure.

use std::time::{Duration, Instant};

/// Between two lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// When it may be told again, and how often it was not told.
#[derive(Debug, Default)]
pub struct Seldom {
    /// When the lines that were told are made up for: an interval for each.
    even: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// It happened. Some: it is to be told now, and happened so often since the last line.
    pub fn on_event(&mut self, now: Instant) -> Option<u64> {
        self.on_event_of(1, now)
    }

    /// The same for something of which so many may be told one by one.
    pub fn on_event_of(&mut self, at_once: u32, now: Instant) -> Option<u64> {
        self.untold += 1;
        let even = self.even.map_or(now, |even| even.max(now));
        if even > now + INTERVAL * at_once.saturating_sub(1) {
            return None;
        }
        self.even = Some(even + INTERVAL);
        Some(std::mem::take(&mut self.untold))
    }

    /// Whether it may be forgotten: as many may be told at once as ever.
    pub fn is_old(&self, now: Instant) -> bool {
        self.even.is_none_or(|even| now >= even)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_a_minute_with_a_count() {
        let start = Instant::now();
        let mut seldom = Seldom::default();
        assert_eq!(seldom.on_event(start), Some(1));
        for second in 1..60 {
            assert_eq!(seldom.on_event(start + Duration::from_secs(second)), None);
        }
        assert!(!seldom.is_old(start + Duration::from_secs(59)));
        assert!(seldom.is_old(start + Duration::from_secs(60)));
        assert_eq!(seldom.on_event(start + Duration::from_secs(60)), Some(60));
        assert_eq!(seldom.on_event(start + Duration::from_secs(300)), Some(1));
    }

    #[test]
    fn the_first_few_one_by_one() {
        let start = Instant::now();
        let mut seldom = Seldom::default();
        let second = |n| start + Duration::from_secs(n);
        let told: Vec<_> = (0..180).filter_map(|n| Some((n, seldom.on_event_of(3, second(n))?))).collect();
        assert_eq!(told, [(0, 1), (1, 1), (2, 1), (60, 58), (120, 60)]);
        // A pause makes up for as many as it has minutes.
        let told: Vec<_> = (240..300).filter_map(|n| Some((n, seldom.on_event_of(3, second(n))?))).collect();
        assert_eq!(told, [(240, 60), (241, 1)]);
        assert!(!seldom.is_old(second(419)) && seldom.is_old(second(420)));
    }

    /// Random events. In words: no event is told twice or lost, and in no time are there more lines than the first few and
    /// one for each minute.
    #[test]
    fn random_events_are_told_in_few_lines() {
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut seldom, at_once) = (Seldom::default(), random.u32(1..12));
            let (mut now, mut events, mut told) = (Instant::now(), 0, 0);
            let mut lines = Vec::new();
            for _ in 0..2000 {
                let longest = [100, 200_000][random.usize(..2)];
                now += Duration::from_millis(random.u64(0..longest));
                events += 1;
                if let Some(count) = seldom.on_event_of(at_once, now) {
                    told += count;
                    lines.push(now);
                }
                assert_eq!(told + seldom.untold, events, "seed {seed}");
            }
            for (n, first) in lines.iter().enumerate() {
                for (m, last) in lines.iter().enumerate().skip(n) {
                    let minutes = (*last - *first).as_secs() / INTERVAL.as_secs();
                    assert!((m - n) as u64 <= minutes + u64::from(at_once), "seed {seed}");
                }
            }
        }
    }
}
