//! Collects problems while a configuration is read: one run finds all of them.

use std::path::Path;

use super::files::{self, Files};
use super::keys::{Kind, Need, Table};
use super::problem::{Problem, Report, Severity};
use super::source::{Node, Place, Source, Value};
use super::{Endpoint, Secret};

/// What is known while checking, and what was found.
pub(super) struct Check<'a> {
    pub(super) sources: Vec<Source>,
    pub(super) files: &'a dyn Files,
    /// Open no file but the given ones.
    pub(super) static_only: bool,
    /// An overlay could not be read: what is missing may be in it.
    pub(super) incomplete: bool,
    found: Vec<(Place, Problem)>,
}

impl<'a> Check<'a> {
    pub(super) fn new(files: &'a dyn Files, static_only: bool) -> Self {
        Check { sources: Vec::new(), files, static_only, incomplete: false, found: Vec::new() }
    }

    /// Notes a problem. No value of a secret key may be in the texts.
    pub(super) fn note(&mut self, severity: Severity, at: Place, key: String, message: &str, help: &str) {
        let problem = place(&self.sources, severity, at, key, message.to_owned(), help.to_owned());
        self.found.push((at, problem));
    }

    pub(super) fn error(&mut self, at: Place, key: String, message: &str, help: &str) {
        self.note(Severity::Error, at, key, message, help);
    }

    pub(super) fn warn(&mut self, at: Place, key: String, message: &str, help: &str) {
        self.note(Severity::Warning, at, key, message, help);
    }

    /// Something that must be there is not: an error, unless an overlay that could not be read may have it.
    pub(super) fn missing(&mut self, at: Place, key: String, message: &str, help: &str) {
        if self.incomplete {
            self.warn(at, key, message, "an overlay that could not be read may supply it");
        } else {
            self.error(at, key, message, help);
        }
    }

    /// Notes a problem of a whole file.
    pub(super) fn file_problem(&mut self, severity: Severity, file: usize, name: &Path, message: &str) {
        let problem = Problem {
            severity,
            file: name.to_owned(),
            line: 0,
            column: 0,
            key: String::new(),
            message: message.to_owned(),
            help: String::new(),
        };
        self.found.push((Place { file, offset: 0 }, problem));
    }

    /// A transport or role that this build has not got.
    pub(super) fn built_with(&mut self, present: bool, feature: &str, at: Place, key: String) -> bool {
        if !present {
            let message = ["this rathole was built without the feature `", feature, "`"].concat();
            self.error(at, key, &message, "it needs another build of rathole");
        }
        present
    }

    /// The bytes of a file that the configuration names. None: an error was noted.
    pub(super) fn read(&mut self, section: &Section<'_>, key: &str, secret: bool) -> Option<Vec<u8>> {
        let node = section.get(key)?;
        let Value::Text(path) = &node.value else { return None };
        let path = Path::new(path.as_str());
        if secret && self.files.mode(path).is_some_and(others_may_read) {
            let message = [&*path.to_string_lossy(), " holds a secret, and other users may read it"].concat();
            self.warn(node.at, section.path(key), &message, "chmod 600");
        }
        match self.files.read(path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let message =
                    ["cannot read ", &*path.to_string_lossy(), ": ", &files::reason(&error)].concat();
                self.error(
                    node.at,
                    section.path(key),
                    &message,
                    "relative paths start at the working directory",
                );
                None
            }
        }
    }

    /// All that was found, in the files' order.
    pub(super) fn finish(self) -> (Report, Vec<Source>) {
        let mut found = self.found;
        found.sort_by_key(|(place, _)| *place);
        (Report { problems: found.into_iter().map(|(_, problem)| problem).collect() }, self.sources)
    }
}

/// Whether a file of this mode can be read by users that are neither its owner nor in its group.
pub(super) fn others_may_read(mode: u32) -> bool {
    mode & 0o004 != 0
}

/// A problem at a place.
pub(super) fn place(
    sources: &[Source],
    severity: Severity,
    at: Place,
    key: String,
    message: String,
    help: String,
) -> Problem {
    let (file, (line, column)) = match sources.get(at.file) {
        Some(source) => (source.name.clone(), source.position(at.offset)),
        None => Default::default(),
    };
    Problem { severity, file, line, column, key, message, help }
}

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
        entries.into_iter().flatten().map(|(name, node)| Section {
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

    /// Seconds as written, or their default.
    pub(super) fn seconds(&self, key: &str) -> Option<u64> {
        match self.get(key).map(|node| &node.value) {
            Some(Value::Integer(seconds)) => Some(*seconds),
            _ => self.table.key(key)?.default_seconds(),
        }
    }

    /// Seconds in their bounds, with a warning if they were not.
    pub(super) fn duration(&self, check: &mut Check<'_>, key: &str) -> Option<std::time::Duration> {
        let written = self.seconds(key)?;
        let Kind::Seconds { zero, max } = self.table.key(key)?.kind else { return None };
        let used = if written == 0 { zero.unwrap_or(0) } else { written.min(max) };
        if used != written {
            let what = if written == 0 { "0 makes no sense here" } else { "this is too large" };
            check.warn(
                self.place(key),
                self.path(key),
                &format!("{what}: {used} is used"),
                &format!("1 to {max} seconds"),
            );
        }
        Some(std::time::Duration::from_secs(used))
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

/// A secret, and how it came.
pub(super) enum Given {
    /// Neither the key nor its `_file` is there.
    Absent,
    /// It is there, and is not (or cannot be) known: a static check, an error already noted.
    Unknown,
    /// Here it is, and the key that gave it.
    Known(Secret, &'static str),
}

/// A secret from `key` or from the file that `file_key` names. Opens the file only if `open`.
pub(super) fn secret(
    check: &mut Check<'_>,
    section: &Section<'_>,
    [key, file_key]: [&'static str; 2],
    open: bool,
) -> Given {
    if let Some(node) = section.get(key) {
        return match &node.value {
            Value::Text(text) => Given::Known(Secret::new(text.as_bytes()), key),
            _ => Given::Unknown,
        };
    }
    if section.get(file_key).is_none() {
        return Given::Absent;
    }
    if !open || check.static_only {
        return Given::Unknown;
    }
    let Some(bytes) = check.read(section, file_key, true) else { return Given::Unknown };
    let bytes = zeroize::Zeroizing::new(bytes);
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = if line.len() < bytes.len() { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
    Given::Known(Secret::new(line), file_key)
}

fn quoted_key(key: &str) -> String {
    if key.is_empty() { String::new() } else { quoted(key) }
}

/// A part of a key path, quoted where TOML would need it, and safe to print.
pub(super) fn quoted(part: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !part.is_empty() && part.chars().all(bare) {
        return part.to_owned();
    }
    let mut text = String::from("\"");
    for c in part.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => text.extend(c.escape_unicode()),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}
