//! Pauses between attempts. Pure: the caller brings the randomness and does the waiting.

use std::time::Duration;

/// The first pause (protocol-v1.md, section 5.1).
const FIRST: Duration = Duration::from_millis(500);

/// Each pause is this many times the one before, up to the longest allowed.
const FACTOR: u32 = 3;

/// A connection that lasted this long was a success: the next pause is the first one again.
const STABLE: Duration = Duration::from_secs(3);

/// The pauses of one reconnecting task: 0.5 s, 1.5 s, 4.5 s ... up to a maximum, each within ±20 %.
#[derive(Debug, Clone)]
pub struct Backoff {
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses of at most `max`.
    pub fn new(max: Duration) -> Self {
        Backoff { max, next: FIRST.min(max) }
    }

    /// The attempt failed, or ended, after `lasted`. `random` is from 0 to 1.
    pub fn pause(&mut self, lasted: Duration, random: f64) -> Duration {
        if lasted >= STABLE {
            self.next = FIRST.min(self.max);
        }
        let pause = self.next.mul_f64(0.8 + 0.4 * random.clamp(0.0, 1.0));
        self.next = self.next.saturating_mul(FACTOR).min(self.max);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Duration = Duration::ZERO;

    #[test]
    fn grows_to_the_maximum() {
        let mut backoff = Backoff::new(Duration::from_secs(10));
        let pauses: Vec<_> = (0..5).map(|_| backoff.pause(NOTHING, 0.5).as_millis()).collect();
        assert_eq!(pauses, [500, 1500, 4500, 10_000, 10_000]);
    }

    #[test]
    fn jitter_is_a_fifth_either_way() {
        assert_eq!(Backoff::new(Duration::from_secs(1)).pause(NOTHING, 0.0).as_millis(), 400);
        assert_eq!(Backoff::new(Duration::from_secs(1)).pause(NOTHING, 1.0).as_millis(), 600);
    }

    #[test]
    fn begins_anew_after_a_stable_connection_only() {
        let mut backoff = Backoff::new(Duration::from_secs(10));
        backoff.pause(NOTHING, 0.5);
        assert_eq!(backoff.pause(STABLE - Duration::from_millis(1), 0.5).as_millis(), 1500);
        assert_eq!(backoff.pause(STABLE, 0.5).as_millis(), 500);
    }

    #[test]
    fn never_beyond_a_small_maximum() {
        let mut backoff = Backoff::new(Duration::from_millis(100));
        assert_eq!(backoff.pause(NOTHING, 0.5).as_millis(), 100);
        assert_eq!(backoff.pause(NOTHING, 0.5).as_millis(), 100);
    }
}
