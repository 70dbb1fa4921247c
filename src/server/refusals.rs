//! What a service refuses, in few log lines: one for each reason in a minute, however much there is. Pure.

use std::time::{Duration, Instant};

/// Between two lines about the same.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `allow` or `deny`.
    NotAllowed,
    /// `max_visitors`.
    Visitors,
    /// `max_waiting`.
    Waiting,
    /// Those that wait for all services together, for each holds a descriptor.
    WaitingInAll,
    /// `max_channels`.
    Channels,
    /// `max_visitors` of a UDP service.
    Flows,
    /// No client is there, nor was one recently.
    NoClient,
    /// No data channel came in time.
    Timeout,
    /// The data channels that it was given failed.
    Failed,
}

impl Refusal {
    /// In the order of their numbers.
    const ALL: [Refusal; 9] = [
        Refusal::NotAllowed,
        Refusal::Visitors,
        Refusal::Waiting,
        Refusal::WaitingInAll,
        Refusal::Channels,
        Refusal::Flows,
        Refusal::NoClient,
        Refusal::Timeout,
        Refusal::Failed,
    ];

    /// The reason in a log line.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::NotAllowed => "their addresses are not allowed",
            Refusal::Visitors => "max_visitors are there",
            Refusal::Waiting => "max_waiting visitors wait for a data channel",
            Refusal::WaitingInAll => {
                "in all services together, as many visitors wait for a data channel as the limit of open files allows"
            }
            Refusal::Channels => "max_channels wait for a visitor",
            Refusal::Flows => "max_visitors are there",
            Refusal::NoClient => "no client",
            Refusal::Timeout => "no data channel in time",
            Refusal::Failed => "data channel failed",
        }
    }
}

/// A line to log.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Why.
    pub refusal: Refusal,
    /// How many since the last line.
    pub count: u64,
}

/// What one service has refused of late.
#[derive(Debug, Default)]
pub struct Refusals([Option<Untold>; Refusal::ALL.len()]);

#[derive(Debug)]
struct Untold {
    told: Instant,
    count: u64,
}

impl Refusals {
    /// So many more are refused: perhaps a line is due at once.
    pub fn add(&mut self, refusal: Refusal, count: u64, now: Instant) -> Option<Line> {
        match self.0.get_mut(refusal as usize)? {
            Some(untold) => {
                untold.count += count;
                None
            }
            none => {
                *none = Some(Untold { told: now, count: 0 });
                Some(Line { refusal, count })
            }
        }
    }

    /// Time has passed: the lines that are due.
    pub fn on_time(&mut self, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        for (refusal, untold) in Refusal::ALL.into_iter().zip(&mut self.0) {
            match untold {
                Some(since) if since.told + INTERVAL <= now && since.count > 0 => {
                    lines.push(Line { refusal, count: std::mem::take(&mut since.count) });
                    since.told = now;
                }
                Some(since) if since.told + INTERVAL <= now => *untold = None,
                _ => {}
            }
        }
        lines
    }

    /// The end has come: all that was not told.
    pub fn on_end(&mut self) -> Vec<Line> {
        let untold = Refusal::ALL.into_iter().zip(std::mem::take(&mut self.0));
        let lines = untold.filter_map(|(refusal, untold)| Some(Line { refusal, count: untold?.count }));
        lines.filter(|line| line.count > 0).collect()
    }

    /// When [`Refusals::on_time`] is next of use.
    pub fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().map(|untold| untold.told + INTERVAL).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_place() {
        assert!(Refusal::ALL.iter().enumerate().all(|(place, refusal)| *refusal as usize == place));
    }

    #[test]
    fn one_line_in_a_minute_for_each_reason() {
        let start = Instant::now();
        let mut refusals = Refusals::default();
        assert_eq!(refusals.next(), None);
        let first = |refusal| Some(Line { refusal, count: 1 });
        assert_eq!(refusals.add(Refusal::Waiting, 1, start), first(Refusal::Waiting));
        for _ in 0..1000 {
            assert_eq!(refusals.add(Refusal::Waiting, 2, start), None);
        }
        assert_eq!(refusals.add(Refusal::NotAllowed, 1, start + INTERVAL / 2), first(Refusal::NotAllowed));
        assert_eq!(refusals.on_time(start + INTERVAL / 2), []);
        assert_eq!(refusals.next(), Some(start + INTERVAL));
        let told = [Line { refusal: Refusal::Waiting, count: 2000 }];
        assert_eq!(refusals.on_time(start + INTERVAL), told);
        assert_eq!(refusals.on_time(start + 2 * INTERVAL), []);
        assert_eq!(refusals.next(), None, "all quiet: no timer");
        assert_eq!(refusals.add(Refusal::Waiting, 1, start + 2 * INTERVAL), first(Refusal::Waiting));
    }

    #[test]
    fn what_is_untold_at_the_end_is_told_then() {
        let start = Instant::now();
        let mut refusals = Refusals::default();
        for (refusal, count) in [(Refusal::NoClient, 1), (Refusal::Waiting, 1), (Refusal::NoClient, 3)] {
            refusals.add(refusal, count, start);
        }
        assert_eq!(refusals.on_end(), [Line { refusal: Refusal::NoClient, count: 3 }]);
        assert_eq!((refusals.on_end(), refusals.next()), (Vec::new(), None));
    }
}
