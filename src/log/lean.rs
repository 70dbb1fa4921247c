//! A log for the lean build: levels and targets of `RUST_LOG`, one line for each event, no spans.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use rathole::config::Printable;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// `level` and `target=level`, separated by commas; the longest target that fits decides.
#[derive(Debug)]
pub struct Filter {
    others: LevelFilter,
    targets: Vec<(String, LevelFilter)>,
}

impl Default for Filter {
    fn default() -> Self {
        Filter { others: LevelFilter::INFO, targets: Vec::new() }
    }
}

impl Filter {
    /// Reads it, or says which part is wrong.
    pub fn parse(text: &str) -> Result<Filter, String> {
        // As in tracing's own filters: with nothing but targets, all others are quiet but for errors.
        let mut filter = Filter { others: LevelFilter::ERROR, targets: Vec::new() };
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = |_| format!("`{part}` is no level: off, error, warn, info, debug, trace");
            match part.split_once('=') {
                Some((target, level)) => {
                    filter.targets.push((target.to_owned(), level.parse().map_err(wrong)?))
                }
                None => match part.parse() {
                    Ok(level) => filter.others = level,
                    Err(_) if part.starts_with("rathole") => {
                        filter.targets.push((part.to_owned(), LevelFilter::TRACE))
                    }
                    Err(error) => return Err(wrong(error)),
                },
            }
        }
        Ok(filter)
    }

    fn level(&self, target: &str) -> LevelFilter {
        let fits = |wanted: &str| {
            target.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let longest =
            self.targets.iter().filter(|(wanted, _)| fits(wanted)).max_by_key(|(wanted, _)| wanted.len());
        longest.map_or(self.others, |(_, level)| *level)
    }

    fn most(&self) -> LevelFilter {
        self.targets.iter().map(|(_, level)| *level).fold(self.others, LevelFilter::max)
    }
}

/// The subscriber.
#[derive(Debug)]
pub struct Log {
    filter: Filter,
}

impl Log {
    /// A log on stderr.
    pub fn new(filter: Filter) -> Log {
        Log { filter }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.filter.level(metadata.target())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.filter.most())
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = Line { message: String::new(), fields: String::new() };
        event.record(&mut line);
        let mut text = String::with_capacity(160);
        let _ = write!(text, "{} {:>5} {}: ", Time(now), metadata.level(), metadata.target());
        let separator = if line.message.is_empty() { 1 } else { 0 };
        let _ = Printable(&mut text).write_str(&line.message);
        let _ = Printable(&mut text).write_str(line.fields.get(separator..).unwrap_or_default());
        text.push('\n');
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    // No event has such numbers; their formatting alone would be 15 kB.
    fn record_f64(&mut self, _: &Field, _: f64) {}
    fn record_i128(&mut self, _: &Field, _: i128) {}
    fn record_u128(&mut self, _: &Field, _: u128) {}

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// Time since 1970 as RFC 3339 UTC with microseconds.
struct Time(std::time::Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let micros = self.0.subsec_micros();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

/// The Gregorian date of a day since 1970. Years begin in March here, so that a leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn time_is_rfc_3339() {
        let at = |seconds, micros| Time(Duration::new(seconds, micros)).to_string();
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(951_782_400, 1000), "2000-02-29T00:00:00.000001Z");
        assert_eq!(at(1_709_251_199, 999_999_999), "2024-02-29T23:59:59.999999Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000000Z");
    }

    #[test]
    fn the_longest_target_decides() {
        let filter = Filter::parse("info,rathole=debug,rathole::visitor=off").unwrap();
        assert_eq!(filter.level("other"), LevelFilter::INFO);
        assert_eq!(filter.level("rathole::server"), LevelFilter::DEBUG);
        assert_eq!(filter.level("ratholes"), LevelFilter::INFO);
        assert_eq!(filter.level("rathole::visitor"), LevelFilter::OFF);
        assert_eq!(filter.level("rathole::visitors"), LevelFilter::DEBUG);
        assert_eq!(filter.most(), LevelFilter::DEBUG);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Filter::parse("loud").is_err());
        assert!(Filter::parse("rathole=loud").is_err());
        assert!(Filter::parse("a=b=c").is_err());
    }
}
