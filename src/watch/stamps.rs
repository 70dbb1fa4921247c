//! What files look like from outside: enough to see that one was changed, without opening it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rathole::config::fragments::is_fragment;

/// One file. Every change moves the time of the inode's change, also one that sets the other times back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            seconds: metadata.ctime(),
            nanoseconds: metadata.ctime_nsec(),
        }
    }
}

/// Files and directories as they were at one time, in the order in which they were looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamps(Vec<(PathBuf, Option<Stamp>)>);

impl Stamps {
    /// Notes what a path leads to now, if that is something to watch.
    pub fn add(&mut self, path: &Path) {
        self.stamp(path);
    }

    /// The same paths as they are now, and the fragments in those that are directories. (Polling must see a fragment
    /// grow that it has seen appear.)
    pub fn again(&self) -> Stamps {
        let mut now = Stamps::default();
        for (path, _) in &self.0 {
            if now.stamp(path) {
                let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
                let mut names: Vec<_> =
                    entries.map(|entry| entry.file_name()).filter(|name| is_fragment(name)).collect();
                names.sort_unstable();
                names.iter().for_each(|name| now.add(&path.join(name)));
            }
        }
        now
    }

    /// Whether none of these is another one, or changed, or gone, since they were noted.
    pub fn are_still_true(&self) -> bool {
        let mut now = Stamps::default();
        self.0.iter().for_each(|(path, _)| now.add(path));
        *self == now
    }

    /// The paths.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path.as_path())
    }

    /// Whether it is a directory.
    fn stamp(&mut self, path: &Path) -> bool {
        let metadata = std::fs::metadata(path).ok();
        let is_directory = metadata.as_ref().is_some_and(Metadata::is_dir);
        // A pipe or a device changes whenever it is read, and cannot be read again.
        if metadata.as_ref().is_none_or(|metadata| metadata.is_file() || is_directory) {
            self.0.push((path.to_owned(), metadata.as_ref().map(Stamp::from)));
        }
        is_directory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_shows() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let fragments = at("fragments");
        std::fs::create_dir(&fragments).unwrap();
        std::fs::write(at("a"), "1").unwrap();
        std::os::unix::fs::symlink("a", at("link")).unwrap();
        let mut stamps = Stamps::default();
        [at("link"), at("absent"), fragments.clone()].iter().for_each(|path| stamps.add(path));
        assert!(stamps.are_still_true());
        let old = std::time::SystemTime::UNIX_EPOCH;
        let changes: [(&str, &dyn Fn()); 8] = [
            ("appended", &|| std::fs::write(at("a"), "12").unwrap()),
            ("same size, old time", &|| {
                std::fs::write(at("a"), "34").unwrap();
                std::fs::File::options().write(true).open(at("a")).unwrap().set_modified(old).unwrap();
            }),
            ("link moved", &|| {
                std::fs::write(at("b"), "34").unwrap();
                std::os::unix::fs::symlink("b", at("new")).unwrap();
                std::fs::rename(at("new"), at("link")).unwrap();
            }),
            ("gone", &|| std::fs::remove_file(at("b")).unwrap()),
            ("appeared", &|| std::fs::write(at("absent"), "").unwrap()),
            ("fragment", &|| std::fs::write(fragments.join("x.toml"), "").unwrap()),
            ("fragment grown", &|| std::fs::write(fragments.join("x.toml"), "1").unwrap()),
            ("fragment gone", &|| std::fs::remove_file(fragments.join("x.toml")).unwrap()),
        ];
        let mut last = stamps.again();
        for (what, change) in changes {
            assert_eq!(last, stamps.again(), "before: {what}");
            // A file system's clock has ticks; the change must be in another one.
            std::thread::sleep(std::time::Duration::from_millis(20));
            change();
            let now = stamps.again();
            assert_ne!(now, last, "{what}");
            last = now;
        }
    }
}
