//! Log lines that any stranger can cause: some are written, the rest is only counted.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lines in one period.
const LINES: u32 = 10;

/// A period.
const PERIOD: Duration = Duration::from_secs(60);

/// Decides which lines are written. One lock, held for a few instructions.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Period>);

#[derive(Debug, Default)]
struct Period {
    begun: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Seldom {
    /// Whether a line may be written now, and then how many were left out since the last one.
    pub fn line(&self) -> Option<u64> {
        let mut period = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if period.begun.is_none_or(|begun| begun.elapsed() >= PERIOD) {
            (period.begun, period.lines) = (Some(Instant::now()), 0);
        }
        if period.lines == LINES {
            period.left_out += 1;
            return None;
        }
        period.lines += 1;
        Some(std::mem::take(&mut period.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rest_is_counted_and_told_with_the_next_line() {
        let seldom = Seldom::default();
        for _ in 0..LINES {
            assert_eq!(seldom.line(), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(seldom.line(), None);
        }
        tokio::time::advance(PERIOD).await;
        assert_eq!(seldom.line(), Some(7));
        assert_eq!(seldom.line(), Some(0));
    }
}
