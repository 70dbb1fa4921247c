//! Connections that were nobody's: counted by kind, and told in one line a minute.
//!
//! Pure: `now` is an argument. Bounded: sources beyond the bound are only known to be more.

use std::collections::HashSet;
use std::fmt::Write;
use std::time::{Duration, Instant};

use super::gate::{Cap, Source};

/// Between two lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// Sources that are counted.
const MAX_SOURCES: usize = 1024;

/// What a connection was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It sent what no client sends, or failed the transport's handshake.
    Garbage,
    /// It did not get to the point in time.
    Silent,
    /// It left before it got to the point.
    Left,
    /// A data channel of no session: its control channel has ended, or never was.
    Stray,
    /// It was dropped for a newer one.
    Dropped(Cap),
    /// It was dropped, or refused, because no descriptors were left.
    Descriptors,
}

/// How many kinds there are.
const KINDS: usize = 7;

impl Kind {
    /// What is told of it.
    pub fn as_str(self) -> &'static str {
        WORDS.get(self.index()).copied().unwrap_or_default()
    }

    fn index(self) -> usize {
        match self {
            Kind::Garbage => 0,
            Kind::Silent => 1,
            Kind::Left => 2,
            Kind::Stray => 3,
            Kind::Dropped(Cap::Address) => 4,
            Kind::Dropped(Cap::Total) => 5,
            Kind::Descriptors => 6,
        }
    }
}

/// What is told of each kind.
const WORDS: [&str; KINDS] = [
    "garbage",
    "silent",
    "gone before they said anything",
    "data channels without a session",
    "dropped for newer ones (max_unauthenticated_per_address)",
    "dropped for newer ones (max_unauthenticated)",
    "dropped because no file descriptors were left",
];

/// The junk since the last line.
#[derive(Debug, Default)]
pub struct Junk {
    counts: [u64; KINDS],
    sources: HashSet<Source>,
    since: Option<Instant>,
}

impl Junk {
    /// One more.
    pub fn add(&mut self, kind: Kind, source: Source, now: Instant) {
        self.since.get_or_insert(now);
        if let Some(count) = self.counts.get_mut(kind.index()) {
            *count += 1;
        }
        if self.sources.len() <= MAX_SOURCES {
            self.sources.insert(source);
        }
    }

    /// Time has passed: the line, if it is due.
    pub fn on_time(&mut self, now: Instant) -> Option<String> {
        if now < self.since? + INTERVAL { None } else { self.on_end() }
    }

    /// The end has come: what was not told.
    pub fn on_end(&mut self) -> Option<String> {
        self.since?;
        let Junk { counts, sources, .. } = std::mem::take(self);
        let mut line = match counts.iter().sum::<u64>() {
            1 => "in the last minute 1 connection was no client's: ".to_owned(),
            count => format!("in the last minute {count} connections were no client's: "),
        };
        for (count, words) in counts.iter().zip(WORDS).filter(|(count, _)| **count > 0) {
            let _ = write!(line, "{count} {words}, ");
        }
        let from = sources.len().min(MAX_SOURCES);
        let more = if sources.len() > MAX_SOURCES { "more than " } else { "" };
        let _ = write!(line, "from {more}{from} address{}", if from == 1 { "" } else { "es" });
        Some(line)
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.since.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut junk = Junk::default();
        assert_eq!(junk.on_time(start + 1000 * second), None);
        let source = |n: u32| Source::of(std::net::Ipv4Addr::from(n).into());
        for n in 0..300 {
            junk.add(Kind::Garbage, source(n % 3), start + n * second / 6);
            assert_eq!(junk.on_time(start + n * second / 6), None);
        }
        junk.add(Kind::Dropped(Cap::Address), source(1), start + 59 * second);
        assert_eq!(junk.on_time(start + 59 * second), None);
        assert_eq!(
            junk.on_time(start + 60 * second).as_deref(),
            Some(
                "in the last minute 301 connections were no client's: 300 garbage, 1 dropped for newer ones \
                 (max_unauthenticated_per_address), from 3 addresses"
            )
        );
        assert!(junk.is_empty());
        junk.add(Kind::Silent, source(9), start + 61 * second);
        assert_eq!(
            junk.on_end().as_deref(),
            Some("in the last minute 1 connection was no client's: 1 silent, from 1 address")
        );
        assert_eq!(junk.on_end(), None);
    }

    #[test]
    fn every_kind_is_told_by_its_own_words() {
        let kinds = [
            Kind::Garbage,
            Kind::Silent,
            Kind::Left,
            Kind::Stray,
            Kind::Dropped(Cap::Address),
            Kind::Dropped(Cap::Total),
            Kind::Descriptors,
        ];
        for (at, kind) in kinds.into_iter().enumerate() {
            let mut junk = Junk::default();
            junk.add(kind, Source::V4([1; 4]), Instant::now());
            assert!(junk.on_end().unwrap().contains(&format!(": 1 {},", WORDS[at])), "{kind:?}");
        }
    }

    #[test]
    fn sources_are_bounded() {
        let now = Instant::now();
        let mut junk = Junk::default();
        for n in 0..100_000u32 {
            junk.add(Kind::Silent, Source::of(std::net::Ipv4Addr::from(n).into()), now);
        }
        assert!(junk.sources.len() <= MAX_SOURCES + 1);
        let line = junk.on_end().unwrap();
        assert!(line.ends_with("100000 silent, from more than 1024 addresses"), "{line}");
    }
}
