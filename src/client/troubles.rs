//! Why there are no control channels, or no local services, in few log lines: each reason at once, then once a minute for
//! all services, however many there are and however often they try. Pure.

use std::fmt::{self, Display, Write};
use std::time::{Duration, Instant};

/// Between two lines about the same.
const INTERVAL: Duration = Duration::from_secs(60);

/// What was not told for this long since is over; the same would be news.
const OVER: Duration = Duration::from_secs(120);

/// Reasons that are told apart at a time; a server may invent some.
const REASONS: usize = 8;

/// What has failed of late: each reason, and last all those that found no place.
#[derive(Debug, Default)]
pub struct Troubles([Trouble; REASONS + 1]);

/// A reason, and the attempts of which there was no line: how many, and of which services.
#[derive(Debug, Default)]
struct Trouble {
    reason: u64,
    told: Option<Instant>,
    attempts: u64,
    services: Vec<u64>,
}

/// What is to be told now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// Of those before it.
    pub before: Option<Before>,
    /// Of this attempt.
    pub this: bool,
}

/// Attempts that were not told.
#[derive(Debug, PartialEq, Eq)]
pub struct Before {
    /// How many, with the present one unless that has a line of its own.
    pub attempts: u64,
    /// Of how many services.
    pub services: usize,
    /// Whether there were other reasons than the present one, too.
    pub mixed: bool,
}

impl Troubles {
    /// A service's attempt has failed. `is_news`: it is told in any case.
    pub fn add(&mut self, reason: &dyn Display, service: &str, is_news: bool, now: Instant) -> Lines {
        let (reason, service) = (digest(reason), digest(&service));
        let is_past = |trouble: &Trouble, time: Duration| trouble.told.is_none_or(|told| now >= told + time);
        let [known @ .., others] = &mut self.0;
        // The same, else the one of which was told least lately, but not within the last minute.
        let known = known.iter_mut().min_by_key(|trouble| (trouble.reason != reason, trouble.told));
        let known = known.filter(|trouble| trouble.reason == reason || is_past(trouble, INTERVAL));
        let mixed = known.is_none();
        let (trouble, reason) = known.map_or((others, 0), |trouble| (trouble, reason));
        if trouble.reason != reason || is_past(trouble, OVER) {
            *trouble = Trouble { reason, ..Trouble::default() };
        }
        if !is_news {
            trouble.attempts += 1;
            if !trouble.services.contains(&service) {
                trouble.services.push(service);
            }
        }
        if !is_past(trouble, INTERVAL) {
            return Lines { before: None, this: is_news };
        }
        trouble.told = Some(now);
        let (attempts, services) = (std::mem::take(&mut trouble.attempts), trouble.services.len());
        trouble.services.clear();
        let this = is_news || attempts == 1;
        let before = (attempts > u64::from(!is_news)).then_some(Before { attempts, services, mixed });
        Lines { before, this }
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

    const NOTHING: Lines = Lines { before: None, this: false };
    const THIS: Lines = Lines { before: None, this: true };

    const fn before(attempts: u64, services: usize, mixed: bool) -> Option<Before> {
        Some(Before { attempts, services, mixed })
    }

    #[test]
    fn each_reason_at_once_then_once_a_minute_for_all_services() {
        let (start, mut troubles) = (Instant::now(), Troubles::default());
        let mut add =
            |reason: &str, service: &str, at| troubles.add(&reason, service, false, start + secs(at));
        assert_eq!(add("refused", "a", 0), THIS);
        assert_eq!(add("closed", "b", 0), THIS, "another reason");
        for second in 0..59 {
            for service in ["b", "c"] {
                assert_eq!(add("refused", service, second), NOTHING);
            }
            assert_eq!(add("closed", "b", second), NOTHING, "it comes by turns with the other");
        }
        assert_eq!(add("refused", "a", 60), Lines { before: before(119, 3, false), this: false });
        assert_eq!(add("closed", "b", 60), Lines { before: before(60, 1, false), this: false });
        assert_eq!(add("refused", "a", 119), NOTHING);
        assert_eq!(add("refused", "a", 120), Lines { before: before(2, 1, false), this: false });
    }

    /// It is told beside the others, and does not hide them.
    #[test]
    fn news_is_told_for_itself() {
        let (start, mut troubles) = (Instant::now(), Troubles::default());
        let mut add =
            |service: &str, is_news, at| troubles.add(&"refused", service, is_news, start + secs(at));
        assert_eq!(add("a", true, 0), THIS);
        for second in 0..50 {
            assert_eq!(add("a", false, second), NOTHING);
        }
        assert_eq!(add("b", true, 50), THIS);
        assert_eq!(add("c", true, 60), Lines { before: before(50, 1, false), this: true });
        assert_eq!(add("d", true, 120), THIS);
        assert_eq!(add("a", false, 121), NOTHING);
        assert_eq!(add("a", true, 180), Lines { before: before(1, 1, false), this: true });
    }

    #[test]
    fn what_is_over_is_news_again() {
        let (start, mut troubles) = (Instant::now(), Troubles::default());
        let mut add = |at| troubles.add(&"refused", "a", false, start + at);
        assert_eq!([add(secs(0)), add(secs(1)), add(secs(2))], [THIS, NOTHING, NOTHING]);
        assert_eq!(add(OVER), THIS);
        assert_eq!(add(OVER), NOTHING);
    }

    /// Such a server gives each of 100 services another reason every second: in a minute one line for each reason that is
    /// known, and one for all the others, which has them all.
    #[test]
    fn lines_are_bounded_whatever_a_server_says() {
        let (start, mut troubles) = (Instant::now(), Troubles::default());
        for minute in 0..10 {
            let lines: Vec<_> = (0..6000)
                .map(|n| {
                    let at = start + secs(60 * minute) + Duration::from_millis(10) * n;
                    troubles.add(&format!("{minute} {n}"), &format!("{}", n % 100), false, at)
                })
                .filter(|lines| *lines != NOTHING)
                .collect();
            assert_eq!(lines.len(), REASONS + 1, "minute {minute}");
            assert!(lines[..REASONS].iter().all(|lines| *lines == THIS), "{lines:?}");
            let others = if minute == 0 { None } else { before(6000 - REASONS as u64, 100, true) };
            assert_eq!(lines[REASONS], Lines { this: others.is_none(), before: others });
        }
    }
}
