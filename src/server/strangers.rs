//! Failed authentications in the log: one line for an address in ten seconds, however often it tries.
//!
//! The first failure is told at once, further ones are counted and told together when the ten seconds are over. Pure:
//! `now` is an argument. Bounded: addresses beyond the bound are counted together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Between two lines for one address.
const INTERVAL: Duration = Duration::from_secs(10);

/// Addresses that are told apart.
const MAX_ADDRESSES: usize = 1024;

/// Who failed to authenticate of late.
#[derive(Debug, Default)]
pub struct Strangers {
    addresses: HashMap<IpAddr, Failures>,
    /// Failures of addresses that found no place.
    others: u64,
    others_since: Option<Instant>,
}

#[derive(Debug)]
struct Failures {
    told: Instant,
    untold: u64,
}

/// A line to log.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// Whose failures; None: of many addresses.
    pub address: Option<IpAddr>,
    /// How many since the last line.
    pub failures: u64,
}

impl Strangers {
    /// An address failed: perhaps a line is due at once.
    pub fn on_failure(&mut self, address: IpAddr, now: Instant) -> Option<Line> {
        if let Some(failures) = self.addresses.get_mut(&address) {
            failures.untold += 1;
            return None;
        }
        if self.addresses.len() >= MAX_ADDRESSES {
            self.others += 1;
            self.others_since.get_or_insert(now);
            return None;
        }
        self.addresses.insert(address, Failures { told: now, untold: 0 });
        Some(Line { address: Some(address), failures: 1 })
    }

    /// Time has passed: the lines that are due. An address that stayed quiet is forgotten.
    pub fn on_time(&mut self, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        self.addresses.retain(|address, failures| {
            if now < failures.told + INTERVAL {
                return true;
            }
            let untold = std::mem::take(&mut failures.untold);
            failures.told = now;
            if untold > 0 {
                lines.push(Line { address: Some(*address), failures: untold });
            }
            untold > 0
        });
        if self.others_since.is_some_and(|since| now >= since + INTERVAL) {
            self.others_since = None;
            lines.push(Line { address: None, failures: std::mem::take(&mut self.others) });
        }
        lines
    }

    /// Whether [`Strangers::on_time`] may have something to say some time.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.others_since.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn one_line_in_ten_seconds() {
        let start = Instant::now();
        let mut strangers = Strangers::default();
        assert_eq!(
            strangers.on_failure(address(1), start),
            Some(Line { address: Some(address(1)), failures: 1 })
        );
        for tenth in 1..100 {
            assert_eq!(strangers.on_failure(address(1), start + SECOND * tenth / 10), None);
            assert_eq!(strangers.on_time(start + SECOND * tenth / 10), []);
        }
        assert_eq!(
            strangers.on_time(start + 10 * SECOND),
            [Line { address: Some(address(1)), failures: 99 }]
        );
        assert_eq!(strangers.on_time(start + 20 * SECOND), []);
        assert!(strangers.is_empty());
        assert!(strangers.on_failure(address(1), start + 20 * SECOND).is_some());
    }

    #[test]
    fn many_addresses_share_a_line() {
        let start = Instant::now();
        let mut strangers = Strangers::default();
        let told = (0..5000).filter(|n| strangers.on_failure(address(*n), start).is_some()).count();
        assert_eq!(told, MAX_ADDRESSES);
        let others = Line { address: None, failures: 5000 - MAX_ADDRESSES as u64 };
        assert_eq!(strangers.on_time(start + 10 * SECOND), [others]);
        assert!(strangers.is_empty());
    }
}
