//! What is wrong with a configuration, and where. Never holds a value of the configuration: it may be a secret.

use std::fmt;
use std::path::{Path, PathBuf};

use super::printable::Printable;

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works, but not as someone may think.
    Warning,
    /// It cannot be used.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// One thing that is wrong. `Display` is one line: `file:line:column: error: key: message (help)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file it is in.
    pub file: PathBuf,
    /// The line, from 1; 0 if the whole file is meant.
    pub line: u32,
    /// The column in characters, from 1; 0 if the whole file is meant.
    pub column: u32,
    /// The key, for example `server.services.ssh.bind_addr`; empty if none is to blame.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would be right; may be empty.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.file))?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}: ", self.severity)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        Printable(self.message.as_str()).fmt(f)?;
        if !self.help.is_empty() {
            write!(f, " ({})", Printable(self.help.as_str()))?;
        }
        Ok(())
    }
}

/// A file's name, which may hold anything; a terminal must not be told by it what to do.
pub fn shown(file: &Path) -> String {
    let safe = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    file.to_string_lossy().chars().map(safe).collect()
}

#[cfg(feature = "cli")]
impl Problem {
    /// For `check --json`: severity, file, line, column, key, message, help; what does not apply is null.
    pub fn to_json(&self) -> serde_json::Value {
        let number = |n: u32| if n == 0 { None } else { Some(n) };
        let text = |s: &str| if s.is_empty() { None } else { Some(s.to_owned()) };
        serde_json::json!({
            "severity": self.severity.to_string(),
            "file": self.file.to_string_lossy(),
            "line": number(self.line),
            "column": number(self.column),
            "key": text(&self.key),
            "message": self.message,
            "help": text(&self.help),
        })
    }
}

/// Everything that was found in one run, in the order of the files and of the places in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub(super) problems: Vec<Problem>,
}

impl Report {
    /// Whether the configuration cannot be used.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// All problems: errors and warnings.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// For `check --json`: an array of problems.
    #[cfg(feature = "cli")]
    pub fn to_json(&self) -> serde_json::Value {
        self.problems.iter().map(Problem::to_json).collect()
    }
}

/// One line for each problem.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem() -> Problem {
        Problem {
            severity: Severity::Error,
            file: "a.toml".into(),
            line: 3,
            column: 7,
            key: "server.bind_addr".to_owned(),
            message: "the port is missing".to_owned(),
            help: "host:port".to_owned(),
        }
    }

    #[test]
    fn a_problem_is_one_line() {
        assert_eq!(
            problem().to_string(),
            "a.toml:3:7: error: server.bind_addr: the port is missing (host:port)"
        );
        let whole_file = Problem { line: 0, key: String::new(), help: String::new(), ..problem() };
        assert_eq!(whole_file.to_string(), "a.toml: error: the port is missing");
        let hostile = Problem { file: "a\x1b[31m\n.toml".into(), ..whole_file };
        assert_eq!(hostile.to_string(), "a\u{fffd}[31m\u{fffd}.toml: error: the port is missing");
    }

    #[cfg(feature = "cli")]
    #[test]
    fn json_says_the_same() {
        let json = problem().to_json();
        assert_eq!(json["severity"], "error");
        assert_eq!(json["line"], 3);
        assert_eq!(json["key"], "server.bind_addr");
        assert_eq!(Problem { line: 0, ..problem() }.to_json()["line"], serde_json::Value::Null);
    }
}
