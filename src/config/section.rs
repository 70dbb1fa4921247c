//! A table of the configuration as its readers see it: values by key, defaults filled in.

use std::time::Duration;

use super::Endpoint;
use super::check::Check;
use super::keys::{Kind, Need, Table};
use super::printable::is_printable;
use super::source::{Node, Place, Value};

/// A table of the configuration, its description, and the way to it. Reads of a key that has another type than
/// it should give None: that was noted when shapes were checked.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    pub(super) parent: Option<&'a Section<'a>>,
    pub(super) name: &'a str,
    pub(super) node: &'a Node,
    pub(super) table: &'static Table,
}

impl<'a> Section<'a> {
    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        debug_assert!(self.table.key(key).is_some(), "{key} is not described");
        match &self.node.value {
            Value::Table(entries) => entries.get(key),
            _ => None,
        }
    }

    /// The full path of a key of this table; of the table itself for an empty key.
    pub(super) fn path(&self, key: &str) -> String {
        let Some(parent) = self.parent else { return quoted_key(key) };
        let mut path = parent.path("");
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(&quoted(self.name));
        if !key.is_empty() {
            path.push('.');
            path.push_str(&quoted(key));
        }
        path
    }

    /// Where the value of a key is, or else the table.
    pub(super) fn place(&self, key: &str) -> Place {
        self.get(key).map_or(self.node.key, |node| node.at)
    }

    /// A table in this table.
    pub(super) fn child<'s>(&'s self, key: &'s str) -> Option<Section<'s>> {
        let node = self.get(key)?;
        let (Kind::Table(table) | Kind::Services(table)) = self.table.key(key)?.kind else { return None };
        matches!(node.value, Value::Table(_)).then_some(Section {
            parent: Some(self),
            name: key,
            node,
            table,
        })
    }

    /// Each table in this table of tables.
    pub(super) fn children<'s>(&'s self) -> impl Iterator<Item = Section<'s>> {
        let entries = match &self.node.value {
            Value::Table(entries) => Some(entries),
            _ => None,
        };
        entries.into_iter().flat_map(|entries| entries.iter()).map(|(name, node)| Section {
            parent: Some(self),
            name,
            node,
            table: self.table,
        })
    }

    /// A string, or its default.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        match self.get(key).map(|node| &node.value) {
            Some(Value::Text(text)) => Some(text),
            Some(_) => None,
            None => match self.table.key(key)?.need {
                Need::Text(text) => Some(text),
                _ => None,
            },
        }
    }

    /// A boolean, or its default.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        match self.get(key).map(|node| &node.value) {
            Some(Value::Flag(flag)) => Some(*flag),
            _ => match self.table.key(key)?.need {
                Need::Flag(flag) => Some(flag),
                _ => None,
            },
        }
    }

    /// A number as written, or its default.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        match self.get(key).map(|node| &node.value) {
            Some(Value::Integer(seconds)) => Some(*seconds),
            _ => self.table.key(key)?.default_number(),
        }
    }

    /// Seconds in their bounds, with a warning if they were not.
    pub(super) fn duration(&self, check: &mut Check<'_>, key: &str) -> Option<Duration> {
        let Kind::Seconds { zero, max } = self.table.key(key)?.kind else { return None };
        self.bounded(check, key, zero, max, " seconds").map(Duration::from_secs)
    }

    /// A count in its bounds, with a warning if it was not.
    pub(super) fn count(&self, check: &mut Check<'_>, key: &str) -> Option<usize> {
        let Kind::Count { zero, max } = self.table.key(key)?.kind else { return None };
        self.bounded(check, key, Some(zero), max, "").and_then(|count| usize::try_from(count).ok())
    }

    fn bounded(
        &self,
        check: &mut Check<'_>,
        key: &str,
        zero: Option<u64>,
        max: u64,
        unit: &str,
    ) -> Option<u64> {
        let written = self.number(key)?;
        let used = if written == 0 { zero.unwrap_or(0) } else { written.min(max) };
        if used != written {
            let what = if written == 0 { "0 makes no sense here" } else { "this is too large" };
            let least = u8::from(zero.is_some());
            check.warn(
                self.place(key),
                self.path(key),
                &format!("{what}: {used} is used"),
                &format!("{least} to {max}{unit}"),
            );
        }
        Some(used)
    }

    /// An address.
    pub(super) fn endpoint(&self, check: &mut Check<'_>, key: &str) -> Option<Endpoint> {
        match Endpoint::parse(self.text(key)?) {
            Ok(endpoint) => Some(endpoint),
            Err(message) => {
                check.error(self.place(key), self.path(key), &message, "");
                None
            }
        }
    }
}

fn quoted_key(key: &str) -> String {
    if key.is_empty() { String::new() } else { quoted(key) }
}

/// A part of a key path, quoted where TOML would need it, and safe to print.
pub fn quoted(part: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !part.is_empty() && part.chars().all(bare) {
        return part.to_owned();
    }
    let mut text = String::from("\"");
    for c in part.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if !is_printable(c) => text.extend(c.escape_unicode()),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}
