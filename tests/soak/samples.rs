//! What a process holds, sampled from outside, and whether it grows.
//!
//! The rule: the run has periods, which are all alike; of each the mean is taken. The first half of the periods is for
//! warming up. Through the means of the second half goes the straight line that fits best (least squares). What it rises
//! by must stay below a twentieth of their mean, or below an amount that a busy process gains and loses at any time
//! ([`Kind::noise`]), whichever is more.

use std::fmt;
use std::time::Duration;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Memory in RAM, in KiB.
    Rss,
    /// Open descriptors.
    Descriptors,
    /// Threads.
    Threads,
}

const KINDS: [Kind; 3] = [Kind::Rss, Kind::Descriptors, Kind::Threads];

impl Kind {
    /// What comes and goes: pages that the allocator keeps; visitors of a moment; threads of a resolver.
    fn noise(self) -> f64 {
        match self {
            Kind::Rss => 2048.0,
            Kind::Descriptors => 25.0,
            Kind::Threads => 2.0,
        }
    }
}

/// The samples of one process.
pub struct Samples {
    name: &'static str,
    pid: u32,
    period: f64,
    /// Seconds from the beginning, and each kind.
    taken: Vec<(f64, [f64; 3])>,
}

impl Samples {
    /// None yet.
    pub fn new(name: &'static str, pid: u32, period: Duration) -> Self {
        Samples { name, pid, period: period.as_secs_f64(), taken: Vec::new() }
    }

    /// Takes one.
    pub fn take(&mut self, now: Duration) {
        let path = |name| format!("/proc/{}/{name}", self.pid);
        let status = std::fs::read_to_string(path("status")).expect("the process runs");
        let field = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
            line.split_whitespace().next().and_then(|number| number.parse::<f64>().ok()).expect(name)
        };
        let descriptors = std::fs::read_dir(path("fd")).expect("the process runs").count();
        let values = [field("VmRSS:"), descriptors as f64, field("Threads:")];
        self.taken.push((now.as_secs_f64(), values));
    }

    /// What grows, in words; empty if all is well.
    pub fn growth(&self) -> Vec<String> {
        let grown = KINDS.iter().filter_map(|kind| {
            let (mean, rise) = trend(&self.judged(*kind));
            let allowed = (mean / 20.0).max(kind.noise());
            (rise > allowed).then(|| {
                format!(
                    "{}: {kind:?} rose by {rise:.0} around {mean:.0} in the second half of the run",
                    self.name
                )
            })
        });
        grown.collect()
    }

    /// The means of the second half's whole periods.
    fn judged(&self, kind: Kind) -> Vec<(f64, f64)> {
        let at = KINDS.iter().position(|other| *other == kind).unwrap();
        let period_of = |time: f64| (time / self.period) as usize;
        let whole = self.taken.last().map_or(0, |(time, _)| period_of(*time));
        let periods = (whole / 2..whole).map(|period| {
            let its = self.taken.iter().filter(|(time, _)| period_of(*time) == period);
            let values: Vec<_> = its.map(|(_, values)| values[at]).collect();
            (period as f64 * self.period, values.iter().sum::<f64>() / values.len() as f64)
        });
        periods.collect()
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} samples, means of the later periods:", self.name, self.taken.len())?;
        for kind in KINDS {
            let judged = self.judged(kind);
            let (mean, rise) = trend(&judged);
            let values = || judged.iter().map(|(_, value)| *value);
            let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
            write!(f, " {kind:?} {least:.0} to {most:.0}, mean {mean:.0}, trend {rise:+.1};")?;
        }
        Ok(())
    }
}

/// The mean of points, and how much the straight line through them rises from the first to the last.
fn trend(points: &[(f64, f64)]) -> (f64, f64) {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return (0.0, 0.0) };
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if variance == 0.0 { (mean_y, 0.0) } else { (mean_y, covariance / variance * (last.0 - first.0)) }
}

fn made(value: impl Fn(f64) -> f64) -> Samples {
    let taken = (0..900).map(|at| f64::from(at) * 2.0).map(|time| (time, [20_000.0, value(time), 4.0]));
    Samples { name: "made", pid: 0, period: 90.0, taken: taken.collect() }
}

#[test]
fn a_leak_is_told_from_noise() {
    let rng = std::cell::RefCell::new(fastrand::Rng::with_seed(1));
    let noise = || rng.borrow_mut().f64() * 40.0;
    assert_eq!(made(|_| 100.0 + noise()).growth(), Vec::<String>::new());
    // Up and down in each period.
    assert_eq!(made(|time| 100.0 + time % 90.0 + noise()).growth(), Vec::<String>::new());
    // Full after a third of the run.
    assert_eq!(made(|time| time.min(600.0) + noise()).growth(), Vec::<String>::new());
    // One descriptor in twenty seconds, some 40 in the second half.
    let growth = made(|time| 100.0 + time / 20.0 + time % 90.0 + noise()).growth();
    assert!(growth.len() == 1 && growth[0].contains("Descriptors rose by"), "{growth:?}");
}
