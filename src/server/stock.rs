//! How many idle data channels a service should have: as many as visitors came at once of late. Pure.
//!
//! A visitor that finds a channel waits for nothing; one that does not waits for the client to dial. What it takes in
//! store is the number of visitors that come while the client dials for the first of them: on a bad link about a second.
//! So visitors of a second are counted (a leaky sum, no history); its peak is held for a while, then halved again and
//! again until the least is reached.

use std::time::{Duration, Instant};

/// A service that nobody visits keeps this many: one for the first visitor, one for the next while it is replaced.
const LEAST: usize = 2;

/// A visitor is forgotten by the sum after about this time.
const WINDOW: Duration = Duration::from_secs(1);

/// How long a peak is held.
const HOLD: Duration = Duration::from_secs(60);

/// Then half of it is gone after this time, and half of the rest after as much again.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// The demand for idle channels of one service.
#[derive(Debug)]
pub struct Stock {
    at_first: usize,
    /// Visitors of the last second or so, as of `counted`.
    recent: f64,
    counted: Instant,
    /// The most that `recent` was, when `peaked`.
    peak: f64,
    peaked: Instant,
}

impl Stock {
    /// Nobody has come yet.
    pub fn new(at_first: usize, now: Instant) -> Self {
        Stock { at_first, recent: 0.0, counted: now, peak: 0.0, peaked: now }
    }

    /// What a client is asked for at first is another number from now on. 0: nothing before somebody visits.
    pub fn set_at_first(&mut self, at_first: usize) {
        self.at_first = at_first;
    }

    /// A client came: the first visitors are near.
    pub fn on_client(&mut self, now: Instant) {
        self.raise((self.at_first - self.least()) as f64, now);
    }

    /// A visitor came.
    pub fn on_visitor(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted);
        self.recent = self.recent * (-passed.as_secs_f64() / WINDOW.as_secs_f64()).exp() + 1.0;
        self.counted = now;
        self.raise(self.recent, now);
    }

    /// How many channels should be idle. At least [`Stock::least`].
    pub fn target(&self, now: Instant) -> usize {
        self.least() + self.held(now).round() as usize
    }

    /// What remains when nobody comes.
    pub fn least(&self) -> usize {
        LEAST.min(self.at_first)
    }

    fn raise(&mut self, to: f64, now: Instant) {
        if to >= self.held(now) {
            (self.peak, self.peaked) = (to, now);
        }
    }

    fn held(&self, now: Instant) -> f64 {
        let over = now.saturating_duration_since(self.peaked).saturating_sub(HOLD);
        self.peak * 0.5f64.powf(over.as_secs_f64() / HALF_LIFE.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn eight_at_first_and_two_when_nobody_comes() {
        let now = Instant::now();
        let mut stock = Stock::new(8, now);
        assert_eq!(stock.target(now), 2);
        stock.on_client(now);
        assert_eq!(stock.target(now), 8);
        assert_eq!(stock.target(now + HOLD), 8);
        assert_eq!(stock.target(now + HOLD + HALF_LIFE), 5);
        assert_eq!(stock.target(now + 300 * SECOND), 2);
    }

    #[test]
    fn a_burst_is_remembered_and_then_forgotten() {
        let now = Instant::now();
        let mut stock = Stock::new(8, now);
        (0..300).for_each(|_| stock.on_visitor(now));
        assert_eq!(stock.target(now), 302);
        assert_eq!(stock.target(now + 2 * HOLD), 152);
        // A smaller one is no reason to forget the larger one, nor to hold it.
        (0..10).for_each(|_| stock.on_visitor(now + HOLD));
        assert_eq!(stock.target(now + 2 * HOLD), 152);
        assert_eq!(stock.target(now + 13 * HALF_LIFE), 2);
    }

    #[test]
    fn a_steady_stream_needs_what_comes_in_a_second() {
        let start = Instant::now();
        let mut stock = Stock::new(8, start);
        for n in 0..3000 {
            stock.on_visitor(start + n * SECOND / 100);
        }
        assert!(
            (98..=104).contains(&stock.target(start + 30 * SECOND)),
            "{}",
            stock.target(start + 30 * SECOND)
        );
        // One in a minute is no stream.
        let mut slow = Stock::new(8, start);
        (0..30).for_each(|n| slow.on_visitor(start + n * 60 * SECOND));
        assert_eq!(slow.target(start + 1800 * SECOND), 3);
    }
}
