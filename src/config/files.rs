//! How a configuration reads files: through a trait, so that a test or a build sandbox can decide what there is.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::fragments;

/// No file that a configuration consists of or names is larger (bytes).
const LARGEST: u64 = 16 << 20;

/// No directory with more entries is listed.
const MOST_ENTRIES: usize = 1 << 17;

/// Files by name.
pub trait Files {
    /// All bytes of a file.
    ///
    /// # Errors
    /// The file is absent, unreadable, a directory, or larger than 16 MiB.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// All bytes of a file that must be a regular one: a pipe that nobody writes to would be waited for without a word. Where
    /// this is not implemented all files are.
    ///
    /// # Errors
    /// As [`Files::read`]; and it is a pipe or a device.
    fn read_regular(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.read(path)
    }

    /// The permission bits if they are known: for the warning on a secret that others may read.
    fn mode(&self, path: &Path) -> Option<u32>;

    /// The names in a directory, in any order. Where this is not implemented there are no directories.
    ///
    /// # Errors
    /// The directory is absent, unreadable, or has more than 131,072 entries.
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let _ = directory;
        Err(io::ErrorKind::NotFound.into())
    }
}

/// The system's files. Relative paths start at the working directory.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemFiles;

impl Files for SystemFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 16 MiB"));
        }
        Ok(bytes)
    }

    fn read_regular(&self, path: &Path) -> io::Result<Vec<u8>> {
        // Of fragments, which a small build does not read.
        if cfg!(feature = "hot-reload") {
            no_pipe(path, "it is no regular file")?;
        }
        self.read(path)
    }

    fn mode(&self, path: &Path) -> Option<u32> {
        let metadata = std::fs::metadata(path).ok()?;
        // A pipe or a device (`/dev/stdin`, `<(...)`) is no file that lies about.
        metadata.is_file().then(|| metadata.permissions().mode())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        if !cfg!(feature = "hot-reload") {
            // A small build only wants to know whether it is there.
            return std::fs::metadata(directory).and(Err(io::ErrorKind::Unsupported.into()));
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            if names.len() == MOST_ENTRIES {
                return Err(io::Error::other("it has more than 131072 entries"));
            }
            let entry = entry?;
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if is_file || !std::fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir()) {
                names.push(entry.file_name());
            }
        }
        Ok(names)
    }
}

/// The system's files, for reading again: a pipe has nothing more to say.
#[derive(Debug, Clone, Copy, Default)]
pub struct RegularFiles;

impl Files for RegularFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        no_pipe(path, "it is no regular file, it cannot be read again")?;
        SystemFiles.read(path)
    }

    fn mode(&self, path: &Path) -> Option<u32> {
        SystemFiles.mode(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        SystemFiles.list(directory)
    }
}

/// A directory has an error of its own.
fn no_pipe(path: &Path, fault: &str) -> io::Result<()> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_file() || kind.is_dir() { Ok(()) } else { Err(io::Error::other(fault)) }
}

/// For `check --static`: opens the files that were given (the configuration, its fragments and overlays) and nothing else.
/// Whatever those name is refused, whoever asks.
#[derive(Debug, Clone, Copy)]
pub struct NoFiles<'a> {
    main: &'a Path,
    overlays: &'a [std::path::PathBuf],
}

impl<'a> NoFiles<'a> {
    /// Only these may be opened.
    pub fn but(main: &'a Path, overlays: &'a [std::path::PathBuf]) -> Self {
        NoFiles { main, overlays }
    }

    fn given(&self, path: &Path) -> bool {
        let is_fragment =
            |name| path == fragments::directory(self.main).join(name) && fragments::is_fragment(name);
        path == self.main
            || self.overlays.iter().any(|overlay| overlay == path)
            || (cfg!(feature = "hot-reload") && path.file_name().is_some_and(is_fragment))
    }
}

impl Files for NoFiles<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if self.given(path) {
            return SystemFiles.read(path);
        }
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "not opened in a static check"))
    }

    fn read_regular(&self, path: &Path) -> io::Result<Vec<u8>> {
        if self.given(path) { SystemFiles.read_regular(path) } else { self.read(path) }
    }

    fn mode(&self, path: &Path) -> Option<u32> {
        if self.given(path) { SystemFiles.mode(path) } else { None }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        if directory == fragments::directory(self.main) {
            return SystemFiles.list(directory);
        }
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// The reason in a few words, without the system's number.
pub(super) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        io::ErrorKind::NotADirectory => "it is no directory".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_file_is_refused() {
        assert_eq!(SystemFiles.read(Path::new("/dev/zero")).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_directory_and_an_absent_file_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(reason(&SystemFiles.read(directory.path()).unwrap_err()), "it is a directory");
        let absent = directory.path().join("absent");
        assert_eq!(reason(&SystemFiles.read(&absent).unwrap_err()), "there is no such file");
        assert_eq!(SystemFiles.mode(&absent), None);
    }

    #[test]
    fn what_is_read_again_must_be_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(reason(&RegularFiles.read(&pipe).unwrap_err()).contains("no regular file"));
        assert!(RegularFiles.read(Path::new("/dev/null")).is_err());
        assert_eq!(reason(&RegularFiles.read(directory.path()).unwrap_err()), "it is a directory");
    }

    #[test]
    fn a_static_check_opens_only_what_was_given() {
        let directory = tempfile::tempdir().unwrap();
        let (main, other) = (directory.path().join("main"), directory.path().join("other"));
        std::fs::write(&main, "a").unwrap();
        std::fs::write(&other, "b").unwrap();
        let files = NoFiles::but(&main, &[]);
        assert_eq!(files.read(&main).unwrap(), b"a");
        assert!(files.read(&other).is_err());
        assert_eq!(files.mode(&other), None);
        let fragments = directory.path().join("main.d");
        std::fs::create_dir(&fragments).unwrap();
        let names = ["x.toml", ".x.toml", "x.txt"];
        names.iter().for_each(|name| std::fs::write(fragments.join(name), name).unwrap());
        assert_eq!(names.map(|name| files.read(&fragments.join(name)).is_ok()), [true, false, false]);
        assert_eq!(files.list(&fragments).unwrap().len(), 3);
        assert!(files.list(directory.path()).is_err());
    }
}
