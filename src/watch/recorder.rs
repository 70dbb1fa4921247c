//! Takes down which files a configuration is read from, and what they hold, by which a change is seen later.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rathole::config::Files;
use rathole::config::fragments::is_fragment;
use sha2::{Digest, Sha256};

use super::Stamps;

/// All files that a reading asked for.
#[derive(Debug, Default)]
pub struct Seen {
    /// Of their names and contents: the same if nothing has changed.
    pub digest: [u8; 32],
    /// Of each one, from before it was read.
    pub stamps: Stamps,
    /// Why one could not be read, if that says nothing about the file: it will pass.
    pub hindered: Option<String>,
}

/// Files that are read through this are noted.
pub struct Recorder<'a> {
    files: &'a dyn Files,
    seen: RefCell<(Sha256, Stamps)>,
    hindered: RefCell<Option<String>>,
}

impl<'a> Recorder<'a> {
    /// Has seen nothing yet.
    pub fn new(files: &'a dyn Files) -> Self {
        Recorder { files, seen: RefCell::default(), hindered: RefCell::default() }
    }

    /// What was read.
    pub fn seen(self) -> Seen {
        let (hash, stamps) = self.seen.into_inner();
        Seen { digest: hash.finalize().into(), stamps, hindered: self.hindered.into_inner() }
    }

    /// To be called before the file is opened: a later change must show.
    fn stamp(&self, path: &Path) {
        self.seen.borrow_mut().1.add(&absolute(path));
    }

    fn fails(&self, error: &io::Error) {
        if passes(error) {
            self.hindered.borrow_mut().get_or_insert_with(|| error.to_string());
        }
    }

    fn note<'p>(&self, parts: impl IntoIterator<Item = &'p [u8]>) {
        let hash = &mut self.seen.borrow_mut().0;
        for part in parts {
            // With its length, so that no two lists of parts look alike.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
}

impl Recorder<'_> {
    fn record(
        &self,
        path: &Path,
        read: impl FnOnce(&dyn Files) -> io::Result<Vec<u8>>,
    ) -> io::Result<Vec<u8>> {
        self.stamp(path);
        let outcome = read(self.files);
        let name = path.as_os_str().as_bytes();
        match &outcome {
            Ok(bytes) => self.note([name, b"holds", bytes]),
            Err(error) => {
                self.fails(error);
                self.note([name, b"fails", error.kind().to_string().as_bytes()]);
            }
        }
        outcome
    }
}

impl Files for Recorder<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.record(path, |files| files.read(path))
    }

    fn read_regular(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.record(path, |files| files.read_regular(path))
    }

    fn mode(&self, path: &Path) -> Option<u32> {
        self.files.mode(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        self.stamp(directory);
        let outcome = self.files.list(directory).map(|mut names| {
            names.retain(|name| is_fragment(name));
            names.sort_unstable();
            names
        });
        match &outcome {
            Ok(names) => self.note(names.iter().map(|name| name.as_bytes())),
            // Empty or absent: there are no fragments.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.fails(error);
                self.note([error.kind().to_string().as_bytes()]);
            }
        }
        outcome
    }
}

/// Whether an error is one of the moment: no descriptors, no memory, a disk or a server that does not answer.
fn passes(error: &io::Error) -> bool {
    use nix::libc::{EIO, EMFILE, ENFILE, ENOMEM, ESTALE};
    error.raw_os_error().is_some_and(|code| [EIO, EMFILE, ENFILE, ENOMEM, ESTALE].contains(&code))
}

/// As it is if there is no working directory any more.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rathole::config::SystemFiles;

    #[test]
    fn what_is_read_decides_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(at(name), text).unwrap();
        let digest = || {
            let recorder = Recorder::new(&SystemFiles);
            let _ = (recorder.list(&at("d")), recorder.read(&at("a")), recorder.read(&at("b")));
            recorder.seen().digest
        };
        let mut last = digest();
        let mut change = |expected: bool, change: &dyn Fn()| {
            change();
            let now = digest();
            assert_eq!(now != last, expected);
            last = now;
        };
        change(true, &|| write("a", "1"));
        change(true, &|| write("b", ""));
        change(true, &|| (write("a", ""), write("b", "1")).0);
        change(false, &|| write("b", "1"));
        change(true, &|| std::fs::remove_file(at("a")).unwrap());
        change(false, &|| std::fs::create_dir(at("d")).unwrap());
        change(false, &|| write("d/no-fragment", "1"));
        change(true, &|| write("d/x.toml", ""));
        change(true, &|| std::fs::rename(at("d/x.toml"), at("d/y.toml")).unwrap());
        change(true, &|| std::fs::remove_file(at("d/y.toml")).unwrap());
    }
}
