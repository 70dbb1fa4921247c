//! A line that may be due all the time, told at most once a minute, with a count. Pure.

use std::time::{Duration, Instant};

/// Between two lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// When it was told last, and how often it was not.
#[derive(Debug, Default)]
pub struct Seldom {
    told: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// It happened. Some: it is to be told now, and happened so often since the last line.
    pub fn on_event(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.told.is_some_and(|told| now < told + INTERVAL) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }

    /// Whether it may be forgotten: the next event would be told.
    pub fn is_old(&self, now: Instant) -> bool {
        self.told.is_none_or(|told| now >= told + INTERVAL)
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
}
