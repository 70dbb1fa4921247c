//! The tokens that authenticate a service's client: the present one and, for a while, those that reloads have replaced.
//! Pure.
//!
//! Invariants: the present token is good; a replaced one is good until its time and no longer, and for no longer than any
//! reload since has given to such tokens; at most [`MOST`] replaced ones are kept.

use std::time::{Duration, Instant};

use crate::config::Secret;

/// Replaced tokens that are kept: who changes them more often within the grace loses the oldest.
const MOST: usize = 4;

/// The tokens of one service.
#[derive(Debug, Clone)]
pub struct Tokens {
    present: Secret,
    /// With the time at which each ends; the oldest first.
    earlier: Vec<(Secret, Instant)>,
}

impl Tokens {
    /// One, and none before.
    pub fn new(present: Secret) -> Self {
        Tokens { present, earlier: Vec::new() }
    }

    /// A reload says what the token is, and how long those before are still good, at most.
    pub fn set(&mut self, present: &Secret, grace: Duration, now: Instant) {
        self.earlier.iter_mut().for_each(|(_, until)| *until = (*until).min(now + grace));
        self.expire(now);
        if *present != self.present {
            let before = std::mem::replace(&mut self.present, present.clone());
            self.earlier.retain(|(token, _)| *token != before && token != present);
            self.earlier.push((before, now + grace));
            if self.earlier.len() > MOST {
                self.earlier.remove(0);
            }
        }
        self.expire(now);
    }

    /// All that are good, the present one first.
    pub fn good(&self, now: Instant) -> impl Iterator<Item = &Secret> {
        let earlier = self.earlier.iter().rev().filter(move |(_, until)| now < *until);
        std::iter::once(&self.present).chain(earlier.map(|(token, _)| token))
    }

    /// Whether this is the present one.
    pub fn is_present(&self, token: &Secret) -> bool {
        *token == self.present
    }

    /// Whether this one is good.
    pub fn is_good(&self, token: &Secret, now: Instant) -> bool {
        self.good(now).any(|good| good == token)
    }

    /// Forgets those whose time is over.
    pub fn expire(&mut self, now: Instant) {
        self.earlier.retain(|(_, until)| now < *until);
    }

    /// When the next one ends.
    pub fn next_end(&self) -> Option<Instant> {
        self.earlier.iter().map(|(_, until)| *until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn token(n: u8) -> Secret {
        Secret::new(&[n][..])
    }

    #[test]
    fn a_replaced_token_is_good_until_its_time() {
        let now = Instant::now();
        let mut tokens = Tokens::new(token(1));
        assert_eq!(tokens.next_end(), None);
        tokens.set(&token(2), 10 * SECOND, now);
        assert!(tokens.is_present(&token(2)) && !tokens.is_present(&token(1)));
        assert!(tokens.is_good(&token(1), now + 9 * SECOND));
        assert!(!tokens.is_good(&token(1), now + 10 * SECOND));
        assert!(tokens.is_good(&token(2), now + 99 * SECOND));
        assert_eq!(tokens.next_end(), Some(now + 10 * SECOND));
        tokens.expire(now + 10 * SECOND);
        assert_eq!(tokens.next_end(), None);
    }

    #[test]
    fn no_grace_revokes_all() {
        let now = Instant::now();
        let mut tokens = Tokens::new(token(1));
        tokens.set(&token(2), 10 * SECOND, now);
        tokens.set(&token(3), Duration::ZERO, now);
        assert!(!tokens.is_good(&token(1), now) && !tokens.is_good(&token(2), now));
        tokens.set(&token(4), 10 * SECOND, now);
        // The token stays, the grace goes.
        tokens.set(&token(4), Duration::ZERO, now);
        assert!(!tokens.is_good(&token(3), now) && tokens.is_good(&token(4), now));
    }

    /// Whatever is set, in whatever order: the present token is the last one set and is good; each other is good
    /// exactly if it was replaced less than its grace ago, was not set again since, no reload since gave it less, and it
    /// is among the last few; a reload that changes no token prolongs no time.
    #[test]
    fn random_rotations_keep_the_invariants() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut now = Instant::now();
            let mut tokens = Tokens::new(token(0));
            let (mut present, mut replaced) = (0, Vec::<(u8, Instant)>::new());
            for _ in 0..200 {
                now += random.u32(0..4) * SECOND;
                let (next, grace) = (random.u8(0..8), random.u32(0..10) * SECOND);
                tokens.set(&token(next), grace, now);
                replaced.iter_mut().for_each(|(_, until)| *until = (*until).min(now + grace));
                replaced.retain(|(_, until)| now < *until);
                if next != present {
                    replaced.retain(|(n, _)| *n != present && *n != next);
                    replaced.push((present, now + grace));
                    present = next;
                    if replaced.len() > MOST {
                        replaced.remove(0);
                    }
                }
                assert!(tokens.is_present(&token(present)), "seed {seed}");
                for n in 0..8 {
                    let good = n == present || replaced.iter().any(|(old, until)| *old == n && now < *until);
                    assert_eq!(tokens.is_good(&token(n), now), good, "seed {seed}, token {n}");
                }
                assert!(tokens.earlier.len() <= MOST, "seed {seed}");
            }
        }
    }
}
