//! Collects problems while a configuration is read: one run finds all of them.

use std::path::Path;

use super::files::{self, Files};
use super::problem::{Problem, Report, Severity};
use super::section::Section;
use super::source::{Place, Source, Value, in_order};

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
        let (places, mut problems): (Vec<Place>, Vec<Option<Problem>>) =
            self.found.into_iter().map(|(place, problem)| (place, Some(problem))).unzip();
        let order = in_order(places.into_iter());
        let problems = order.filter_map(|(_, n)| problems.get_mut(n).and_then(Option::take)).collect();
        (Report { problems }, self.sources)
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
