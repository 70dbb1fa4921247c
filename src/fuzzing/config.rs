//! Configuration files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{Files, Request, RoleChoice, Severity, inspect, load};

/// The name of the first file.
const MAIN: &str = "rathole.toml";

/// Files as the input gives them: the first, and then each behind a line `=== NAME`.
struct Given(BTreeMap<PathBuf, Vec<u8>>);

impl Given {
    fn of(bytes: &[u8]) -> Self {
        let mut files = BTreeMap::new();
        let (mut name, mut content) = (PathBuf::from(MAIN), Vec::new());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            match line.strip_prefix(b"=== ") {
                Some(next) => {
                    files.entry(name).or_insert(std::mem::take(&mut content));
                    name = String::from_utf8_lossy(next).trim_end().into();
                }
                None => content.extend_from_slice(line),
            }
        }
        files.entry(name).or_insert(content);
        Given(files)
    }
}

impl Files for Given {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn mode(&self, path: &Path) -> Option<u32> {
        self.0.contains_key(path).then_some(0o644)
    }
}

/// Whatever is in the files, they are read to an end; what is wrong is said in single lines that point into a file;
/// and a configuration is either usable or has an error.
pub(super) fn files(bytes: &[u8]) {
    let files = Given::of(bytes);
    let overlays: Vec<PathBuf> =
        files.0.keys().filter(|name| name.to_string_lossy().starts_with("over")).cloned().collect();
    for (role, static_only) in [
        (RoleChoice::Auto, false),
        (RoleChoice::Auto, true),
        (RoleChoice::Server, false),
        (RoleChoice::Client, false),
    ] {
        let request =
            Request { main: Path::new(MAIN), overlays: &overlays, role, files: &files, static_only };
        let found = inspect(&request);
        let report = match &found {
            Ok(loaded) => &loaded.report,
            Err(report) => {
                assert!(report.has_errors());
                report
            }
        };
        for problem in report.problems() {
            let line = problem.to_string();
            assert!(!line.contains(char::is_control), "{line:?}");
            let text = files.0.get(&problem.file).map_or(&[][..], |content| content);
            let lines = 1 + text.iter().filter(|byte| **byte == b'\n').count();
            assert!(problem.line as usize <= lines, "{line}");
        }
        assert_eq!(load(&request).is_ok(), !report.has_errors());
        let Ok(loaded) = &found else { continue };
        assert!(report.has_errors() || loaded.config.server.is_some() || loaded.config.client.is_some());
        for key in ["server", "client.services", "server.services.a.bind_addr", "\"", "", "x.y", "server."] {
            let problem = loaded.problem(Severity::Error, key, "late".to_owned()).to_string();
            assert!(!problem.contains(char::is_control), "{problem:?}");
        }
        let _ = format!("{loaded:?}");
    }
}
