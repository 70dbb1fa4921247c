//! TEMPORARY, branch `cli` only: the interface of the configuration loader, so that this branch compiles.
//! The lead replaces it at merge; nothing here is real.
#![allow(missing_docs)]

use super::{Config, Endpoint, Host};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleChoice {
    Auto,
    Server,
    Client,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}
impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}
#[derive(Debug, Clone)]
pub struct Problem {
    pub severity: Severity,
    pub file: PathBuf,
    pub line: u32,
    pub column: u32,
    pub key: String,
    pub message: String,
    pub help: String,
}
impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Problem { severity, file, line, column, key, message, .. } = self;
        write!(f, "{}:{line}:{column}: {severity}: {key}: {message}", file.display())
    }
}
#[cfg(feature = "cli")]
impl Problem {
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "message": self.message })
    }
}
#[derive(Debug, Default)]
pub struct Report(Vec<Problem>);
impl Report {
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}
pub trait Files {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>>;
    fn mode(&self, path: &Path) -> Option<u32>;
}
pub struct SystemFiles;
impl Files for SystemFiles {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        std::fs::read(path)
    }
    fn mode(&self, _: &Path) -> Option<u32> {
        None
    }
}
pub struct NoFiles;
impl NoFiles {
    pub fn but(_: &Path, _: &[PathBuf]) -> Self {
        NoFiles
    }
}
impl Files for NoFiles {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        std::fs::read(path)
    }
    fn mode(&self, _: &Path) -> Option<u32> {
        None
    }
}
pub struct Request<'a> {
    pub main: &'a Path,
    pub overlays: &'a [PathBuf],
    pub role: RoleChoice,
    pub files: &'a dyn Files,
    pub static_only: bool,
}
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub report: Report,
}
impl Loaded {
    pub fn problem(&self, severity: Severity, key: &str, message: String) -> Problem {
        let file = PathBuf::new();
        Problem { severity, file, line: 0, column: 0, key: key.to_owned(), message, help: String::new() }
    }
}
pub fn load(request: &Request<'_>) -> Result<Loaded, Report> {
    let message = match request.files.read(request.main) {
        Ok(_) => "the loader is not merged yet".to_owned(),
        Err(error) => format!("cannot read: {error}"),
    };
    let file = request.main.to_owned();
    let problem = Problem {
        severity: Severity::Error,
        file,
        line: 1,
        column: 1,
        key: String::new(),
        message,
        help: String::new(),
    };
    Err(Report(vec![problem]))
}
impl Endpoint {
    pub fn parse(text: &str) -> Result<Endpoint, String> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| "expected host:port".to_owned())?;
        let port = port.parse().map_err(|_| "the port must be a number from 0 to 65535".to_owned())?;
        let host = match host.trim_matches(['[', ']']).parse() {
            Ok(ip) => Host::Ip(ip),
            Err(_) => Host::Name(host.to_owned()),
        };
        Ok(Endpoint { host, port })
    }
}
