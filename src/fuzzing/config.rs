//! Configuration files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::diff::{self, Changes};
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

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let inside = self.0.keys().filter(|path| path.parent() == Some(directory));
        let names: Vec<_> = inside.filter_map(|path| Some(path.file_name()?.to_owned())).collect();
        if names.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(names) }
    }
}

/// What comes after a reload, if the input has it.
const THEN: &str = "then.toml";

/// Two configurations: what a reload has to do is nothing if and only if they are the same, and each service that is in
/// one of them only, or another way in both, is in exactly the list it belongs to.
pub(super) fn difference(bytes: &[u8]) {
    let files = Given::of(bytes);
    let read = |main: &str| {
        let main = Path::new(main);
        load(&Request { main, overlays: &[], role: RoleChoice::Auto, files: &files, static_only: false })
    };
    let Ok(before) = read(MAIN) else { return };
    let after = read(THEN);
    let after = after.as_ref().unwrap_or(&before);
    let (before, after) = (&before.config, &after.config);
    if let (Some(old), Some(new)) = (&before.server, &after.server) {
        assert_eq!(diff::server(old, old), Changes::default());
        let changes = diff::server(old, new);
        assert_eq!(changes == Changes::default(), old == new, "{changes:?}");
        services(&changes, &old.services, &new.services);
    }
    if let (Some(old), Some(new)) = (&before.client, &after.client) {
        assert_eq!(diff::client(old, old), Changes::default());
        let changes = diff::client(old, new);
        assert_eq!(changes == Changes::default(), old == new, "{changes:?}");
        assert!(!diff::other_way(old, new) || changes != Changes::default());
        services(&changes, &old.services, &new.services);
    }
}

fn services<S: PartialEq>(changes: &Changes, old: &BTreeMap<Arc<str>, S>, new: &BTreeMap<Arc<str>, S>) {
    for name in old.keys().chain(new.keys()) {
        let lists = (
            changes.added.iter().filter(|added| *added == name).count(),
            changes.removed.iter().filter(|removed| *removed == name).count(),
            usize::from(changes.changed.contains_key(name)),
        );
        let expected = match (old.get(name), new.get(name)) {
            (None, _) => (1, 0, 0),
            (Some(_), None) => (0, 1, 0),
            (Some(old), Some(new)) => (0, 0, usize::from(old != new)),
        };
        assert_eq!(lists, expected, "{name:?}");
    }
    let listed = changes.added.len() + changes.removed.len() + changes.changed.len();
    assert!(listed <= old.len() + new.len());
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
