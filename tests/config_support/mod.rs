//! Loading configurations from memory.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rathole::config::{Config, Files, Loaded, Problem, Report, Request, RoleChoice, Severity, load};

/// Files in memory, with a mode each.
#[derive(Default)]
pub struct Memory(pub BTreeMap<PathBuf, (Vec<u8>, u32)>);

impl Memory {
    pub fn with(mut self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.0.insert(name.into(), (bytes.as_ref().to_vec(), 0o600));
        self
    }

    pub fn mode(mut self, name: &str, mode: u32) -> Self {
        self.0.entry(name.into()).and_modify(|(_, old)| *old = mode);
        self
    }
}

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.get(path).map(|(bytes, _)| bytes.clone()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn mode(&self, path: &Path) -> Option<u32> {
        self.0.get(path).map(|(_, mode)| *mode)
    }

    /// The last one first: whoever wants an order must make it.
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let inside = self.0.keys().rev().filter(|path| path.parent() == Some(directory));
        let names: Vec<OsString> = inside.filter_map(|path| Some(path.file_name()?.to_owned())).collect();
        if names.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(names) }
    }
}

/// How to load; the main file is `a.toml`.
pub struct Load<'a> {
    pub files: Memory,
    pub overlays: &'a [&'a str],
    pub role: RoleChoice,
    pub static_only: bool,
}

impl Load<'_> {
    pub fn run(&self) -> Result<Loaded, Report> {
        let overlays: Vec<PathBuf> = self.overlays.iter().map(PathBuf::from).collect();
        load(&Request {
            main: Path::new("a.toml"),
            overlays: &overlays,
            role: self.role,
            files: &self.files,
            static_only: self.static_only,
        })
    }
}

/// One file, both halves as they are there.
pub fn text(text: &str) -> Load<'static> {
    Load {
        files: Memory::default().with("a.toml", text),
        overlays: &[],
        role: RoleChoice::Auto,
        static_only: false,
    }
}

pub fn good(toml: &str) -> Config {
    text(toml).run().unwrap_or_else(|report| panic!("{report}\n{toml}")).config
}

/// All problems, whether or not there were errors.
pub fn problems(outcome: Result<Loaded, Report>) -> Vec<Problem> {
    match outcome {
        Ok(loaded) => {
            assert!(!loaded.report.has_errors());
            loaded.report.problems().to_vec()
        }
        Err(report) => {
            assert!(report.has_errors());
            report.problems().to_vec()
        }
    }
}

pub fn of(severity: Severity, outcome: Result<Loaded, Report>) -> Vec<String> {
    problems(outcome).iter().filter(|problem| problem.severity == severity).map(ToString::to_string).collect()
}

/// A server that is right and gives no warning; more of `[server]`, then more tables.
pub fn server(more: &str, tables: &str) -> String {
    format!(
        "[server]\nbind_addr = \"127.0.0.1:2333\"\ndefault_token = \"0123456789abcdef\"\n{more}\n\
         [server.services.ssh]\nbind_addr = \"127.0.0.1:5202\"\n{tables}"
    )
}

/// A client that is right and gives no warning.
pub fn client(more: &str, tables: &str) -> String {
    format!(
        "[client]\nremote_addr = \"127.0.0.1:2333\"\ndefault_token = \"0123456789abcdef\"\n{more}\n\
         [client.services.ssh]\nlocal_addr = \"127.0.0.1:22\"\n{tables}"
    )
}

/// 32 bytes in base64.
pub const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
