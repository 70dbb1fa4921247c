//! Fragments: the files in the directory beside a configuration, which add to it.
//!
//! What it decides: which files these are, and that none of them defines what another one has. What it never does:
//! replace anything; that is an overlay's right.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::check::Check;
use super::merge::{self, Twice};
use super::problem::{Severity, shown};
use super::source::{Node, Source};
use super::{files, load};

/// More files than this are not read.
const MOST: usize = 20_000;

/// All of them together hold at most so many bytes.
const LARGEST: usize = 64 << 20;

/// The directory of a configuration's fragments: its own name and `.d`.
pub fn directory(main: &Path) -> PathBuf {
    let mut name = main.as_os_str().to_owned();
    name.push(".d");
    name.into()
}

/// Whether a file of that directory is a fragment: `*.toml`, and not hidden. What editors and rsync keep there for a
/// moment is none.
pub fn is_fragment(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.ends_with(b".toml") && !name.starts_with(b".")
}

/// Reads the fragments of a configuration and adds them to its tree. All of them are read, whatever is wrong with the
/// others. None: there is no `main`, and so nothing is whole.
pub(super) fn add(check: &mut Check<'_>, main: &Path, tree: Option<Node>) -> Option<Node> {
    let directory = directory(main);
    if !cfg!(feature = "hot-reload") {
        if check.files.list(&directory).is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
            let message = "this rathole was built without the feature `hot-reload`: it reads no fragments";
            check.file_problem(Severity::Error, 0, &directory, message);
        }
        return tree;
    }
    let with_main = tree.is_some();
    let mut trees: Vec<Node> = tree.into_iter().collect();
    let mut room = LARGEST;
    for name in list(check, &directory) {
        let name = directory.join(name);
        let bytes = check.files.read_regular(&name);
        let tree = load::parse(check, &name, bytes, Severity::Error);
        let size = check.sources.last().map_or(0, Source::size);
        let Some(left) = room.checked_sub(size) else {
            let message = "with this one the fragments are larger than 64 MiB";
            check.file_problem(Severity::Error, check.sources.len() - 1, &name, message);
            break;
        };
        room = left;
        trees.extend(tree);
    }
    join(check, trees).filter(|_| with_main)
}

/// The fragments in the order of their names' bytes. Those that cannot be known are noted.
fn list(check: &mut Check<'_>, directory: &Path) -> Vec<OsString> {
    let fault = match check.files.list(directory) {
        Ok(mut names) => {
            names.retain(|name| is_fragment(name));
            names.sort_unstable();
            if names.len() <= MOST {
                return names;
            }
            format!("there are more than {MOST} fragments in this directory")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => ["cannot read this directory of fragments: ", &files::reason(&error)].concat(),
    };
    check.file_problem(Severity::Error, 0, directory, &fault);
    Vec::new()
}

/// One tree of all. Notes what is defined twice.
fn join(check: &mut Check<'_>, trees: Vec<Node>) -> Option<Node> {
    let (root, twice) = merge::join(trees);
    for Twice { first, again, path, is_service } in twice {
        let what = if is_service { "this service" } else { "this key" };
        let Some(source) = check.sources.get(first.file) else { continue };
        let (line, _) = source.position(first.offset);
        let message = format!("{what} is already defined in {}:{line}", shown(&source.name));
        check.error(again, path, &message, "keep one of them; only an overlay replaces");
    }
    root
}
