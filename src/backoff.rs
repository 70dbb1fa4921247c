//! Pauses between attempts. Pure: the caller brings the randomness and does the waiting.

use std::time::Duration;

/// The first pause (protocol-v1.md, section 5.1).
const FIRST: Duration = Duration::from_millis(500);

/// Each pause is this many times the one before, up to the longest allowed.
const FACTOR: u32 = 3;

/// A connection that lasted this long was a success: the next pause is the first one again. Long enough that a peer
/// which takes everybody and soon drops them is not tried at the shortest pace for ever; short enough that two
/// restarts within a minute cost nothing.
pub const STABLE: Duration = Duration::from_secs(30);

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

    /// What was tried is over. It had been of use for as long as `lasted`: a failed attempt for no time, however long
    /// it took. `random` is from 0 to 1.
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

    /// Whatever happens, in any order: the pauses stay within their bounds, and none is shorter than half the one
    /// before unless a connection was stable in between.
    #[test]
    fn random_sequences_keep_the_bounds() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let max = Duration::from_millis(random.u64(1..=100_000));
            let (mut backoff, mut last) = (Backoff::new(max), NOTHING);
            for _ in 0..100 {
                let lasted = Duration::from_millis(random.u64(0..60_000));
                let pause = backoff.pause(lasted, random.f64());
                assert!(pause <= max.mul_f64(1.2) && pause >= FIRST.min(max).mul_f64(0.8), "seed {seed}");
                assert!(lasted >= STABLE || pause >= last.mul_f64(0.5), "seed {seed}: {last:?}, {pause:?}");
                last = pause;
            }
        }
    }

    #[test]
    fn never_beyond_a_small_maximum() {
        let mut backoff = Backoff::new(Duration::from_millis(100));
        assert_eq!(backoff.pause(NOTHING, 0.5).as_millis(), 100);
        assert_eq!(backoff.pause(NOTHING, 0.5).as_millis(), 100);
    }
}
