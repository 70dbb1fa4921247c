//! Fragments: the files in the directory beside a configuration, which add to it.
//!
//! What it decides: which files these are, and that none of them defines what another one has. What it never does:
//! replace anything; that is an overlay's right.

use std::collections::BinaryHeap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::check::Check;
use super::files;
use super::merge;
use super::problem::{Severity, shown};
use super::source::Node;

/// More files than this are not read.
const MOST: usize = 20_000;

/// All of them together hold at most so many bytes.
pub(super) const LARGEST: usize = 64 << 20;

/// The directory of a configuration's fragments: its own name and `.d`.
pub fn directory(main: &Path) -> PathBuf {
    let mut name = main.as_os_str().to_owned();
    name.push(".d");
    name.into()
}

/// Whether a file of that directory is a fragment: `*.toml`, and not hidden. What editors and rsync keep there for a
/// moment is none.
pub fn is_fragment(name: &std::ffi::OsStr) -> bool {
    let name = name.as_bytes();
    name.ends_with(b".toml") && !name.starts_with(b".")
}

/// The fragments of a configuration in the order of their names' bytes. Those that cannot be known are noted.
pub(super) fn list(check: &mut Check<'_>, main: &Path) -> Vec<PathBuf> {
    let directory = directory(main);
    let fault = match check.files.list(&directory) {
        Ok(names) => {
            let names: BinaryHeap<OsString> = names.into_iter().filter(|name| is_fragment(name)).collect();
            if names.len() <= MOST {
                return names.into_sorted_vec().into_iter().map(|name| directory.join(name)).collect();
            }
            format!("there are more than {MOST} fragments in this directory")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => ["cannot read this directory of fragments: ", &files::reason(&error)].concat(),
    };
    check.file_problem(Severity::Error, 0, &directory, &fault);
    Vec::new()
}

/// One tree of the configuration and its fragments. Notes what is defined twice.
pub(super) fn join(check: &mut Check<'_>, trees: Vec<Node>) -> Option<Node> {
    let (root, twice) = merge::join(trees);
    for twice in twice {
        let Some(source) = check.sources.get(twice.first.file) else { continue };
        let (line, _) = source.position(twice.first.offset);
        let what = if twice.is_service { "this service" } else { "this key" };
        let message = format!("{what} is already defined in {}:{line}", shown(&source.name));
        check.error(twice.again, twice.path, &message, "keep one of them; only an overlay replaces");
    }
    root
}
