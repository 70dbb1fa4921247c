//! Why there are no control channels, in few log lines: each reason at once, then once a minute for all services, however
//! many there are and however often they try. Pure.

use std::fmt::{self, Display, Write};
use std::time::{Duration, Instant};

/// Between two lines about the same.
const INTERVAL: Duration = Duration::from_secs(60);

/// What was not told for this long since is over; the same would be news.
const OVER: Duration = Duration::from_secs(120);

/// Reasons that are known at a time; a server may invent some.
const REASONS: usize = 8;

/// What has failed of late.
#[derive(Debug, Default)]
pub struct Troubles([Trouble; REASONS]);

/// A reason, and the attempts of which there was no line: how many, and of which services.
#[derive(Debug, Default)]
struct Trouble {
    reason: u64,
    told: Option<Instant>,
    attempts: u64,
    services: Vec<u64>,
}

impl Troubles {
    /// A service's attempt has failed. Some: it is to be told now, with those before it: so many attempts of so many
    /// services.
    pub fn add(&mut self, reason: &dyn Display, service: &str, now: Instant) -> Option<(u64, usize)> {
        let (reason, service) = (digest(reason), digest(&service));
        // The same, else the one of which was told least lately.
        let trouble = self.0.iter_mut().min_by_key(|trouble| (trouble.reason != reason, trouble.told))?;
        if trouble.reason != reason || trouble.told.is_none_or(|told| now >= told + OVER) {
            *trouble = Trouble { reason, ..Trouble::default() };
        }
        trouble.attempts += 1;
        if !trouble.services.contains(&service) {
            trouble.services.push(service);
        }
        if trouble.told.is_some_and(|told| now < told + INTERVAL) {
            return None;
        }
        let told = (std::mem::take(&mut trouble.attempts), trouble.services.len());
        trouble.services.clear();
        trouble.told = Some(now);
        Some(told)
    }
}

/// To tell texts apart.
fn digest(text: &dyn Display) -> u64 {
    let mut fnv = Fnv(0);
    // Cannot fail.
    let _ = write!(fnv, "{text}");
    fnv.0
}

/// FNV-1a.
struct Fnv(u64);

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn each_reason_at_once_then_once_a_minute_for_all_services() {
        let (start, mut troubles) = (Instant::now(), Troubles::default());
        let mut add = |reason: &str, service: &str, at| troubles.add(&reason, service, start + secs(at));
        assert_eq!(add("refused", "a", 0), Some((1, 1)));
        assert_eq!(add("closed", "b", 0), Some((1, 1)), "another reason");
        for second in 0..59 {
            for service in ["b", "c"] {
                assert_eq!(add("refused", service, second), None);
            }
            assert_eq!(add("closed", "b", second), None, "it comes by turns with the other");
        }
        assert_eq!(add("refused", "a", 60), Some((119, 3)));
        assert_eq!(add("closed", "b", 60), Some((60, 1)));
        assert_eq!(add("refused", "a", 119), None);
        assert_eq!(add("refused", "a", 120), Some((2, 1)));
    }

    #[test]
    fn what_is_over_is_news_again() {
        let (start, mut troubles) = (Instant::now(), Troubles::default());
        let mut add = |at| troubles.add(&"refused", "a", start + at);
        assert_eq!([add(secs(0)), add(secs(1)), add(secs(2))], [Some((1, 1)), None, None]);
        assert_eq!(add(OVER), Some((1, 1)));
        assert_eq!(add(OVER), None);
    }

    #[test]
    fn what_is_known_is_bounded_whatever_a_server_says() {
        let (start, mut troubles) = (Instant::now(), Troubles::default());
        for n in 0..1000 {
            assert!(troubles.add(&n, "a", start + secs(n)).is_some());
        }
        assert!(troubles.add(&999, "a", start + secs(1000)).is_none());
        assert!(troubles.add(&(1000 - REASONS), "a", start + secs(1000)).is_none());
    }
}
