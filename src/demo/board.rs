//! The counters, shown live: one line that is rewritten on a terminal, else a line for each change.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rathole::counters::Counters;

use crate::cli::output;
use crate::stopping;

/// Where the demo's output goes.
pub struct Board {
    counters: Arc<Counters>,
    terminal: bool,
    last: String,
}

impl Board {
    /// Shows the server's counters.
    pub fn new(counters: Arc<Counters>) -> Board {
        Board { counters, terminal: io::stdout().is_terminal(), last: String::new() }
    }

    /// How often to call [`Board::show`].
    pub fn pace(&self) -> Duration {
        if self.terminal { Duration::from_millis(250) } else { Duration::from_secs(1) }
    }

    /// Prints text as it is.
    pub fn say(&self, text: &str) -> io::Result<()> {
        output::print(text)
    }

    /// Prints the counters if they have changed.
    pub fn show(&mut self) -> io::Result<()> {
        let line = self.line();
        if line == self.last {
            return Ok(());
        }
        output::print(&if self.terminal { rewritten(&line) } else { format!("{line}\n") })?;
        self.last = line;
        Ok(())
    }

    /// Ends the live line, and says how it went.
    pub fn summary(&mut self, ran: Duration, cut: u64) -> io::Result<()> {
        self.show()?;
        let break_line = if self.terminal { "\n" } else { "" };
        let end = match cut {
            0 => "nothing was cut".to_owned(),
            cut => format!("{} cut", stopping::were(cut)),
        };
        output::print(&format!(
            "{break_line}Summary: {}; ran {:.1} s; {end}.\n",
            self.line(),
            ran.as_secs_f64()
        ))
    }

    fn line(&self) -> String {
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
        let first_byte = match get(&self.counters.first_byte_us) {
            0 => "none yet".to_owned(),
            micros => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        };
        format!(
            "visitors {}, bytes up {}, bytes down {}, last visitor's time to first byte {first_byte}",
            get(&self.counters.visitors),
            get(&self.counters.up),
            get(&self.counters.down),
        )
    }
}

/// In place of the line before. It does not wrap at the edge: from a second row there would be no way back.
fn rewritten(line: &str) -> String {
    format!("\r\x1b[?7l{line}\x1b[K\x1b[?7h")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_for_the_terminal_stays_one_line() {
        assert!(rewritten("long").starts_with("\r\x1b[?7l"));
        assert!(rewritten("long").ends_with("\x1b[?7h"));
    }

    #[test]
    fn the_line_has_all_numbers() {
        let counters = Arc::<Counters>::default();
        Counters::add(&counters.visitors, 3);
        Counters::add(&counters.up, 40);
        Counters::add(&counters.down, 500);
        let board = Board { counters: counters.clone(), terminal: false, last: String::new() };
        assert!(board.line().ends_with("first byte none yet"));
        counters.first_byte(Duration::from_micros(1870));
        assert_eq!(
            board.line(),
            "visitors 3, bytes up 40, bytes down 500, last visitor's time to first byte 1.8 ms"
        );
    }
}
