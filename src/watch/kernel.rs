//! inotify: the kernel tells of changes in directories.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags as Flags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::entries::Names;

/// An inotify instance, and what matters of what it tells.
#[derive(Debug)]
pub struct Kernel {
    inotify: AsyncFd<Fd>,
    watched: HashMap<WatchDescriptor, Names>,
    /// Files that somebody writes to and has not closed yet.
    written: HashSet<(WatchDescriptor, OsString)>,
}

#[derive(Debug)]
struct Fd(Inotify);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// What could not be watched.
#[derive(Debug)]
pub enum Blind {
    /// A directory that may not be read; all else is watched.
    At(PathBuf, Errno),
    /// No more can be watched.
    All(Errno),
}

impl Kernel {
    /// Watches nothing yet. Needs a runtime.
    pub fn new() -> io::Result<Kernel> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // Deprecated because of types that lie about their descriptor; this one owns it.
        #[allow(deprecated)]
        let inotify = AsyncFd::with_interest(Fd(inotify), Interest::READABLE)?;
        Ok(Kernel { inotify, watched: HashMap::new(), written: HashSet::new() })
    }

    /// Watches these directories from now on, and no others. Those that are not there are seen to appear in others.
    pub fn watch(&mut self, directories: &BTreeMap<PathBuf, Names>) -> Result<(), Blind> {
        let mut watched: HashMap<WatchDescriptor, Names> = HashMap::new();
        let mut blind = None;
        for (directory, names) in directories {
            match self.add(directory) {
                // The same directory may have several paths, and has one number.
                Ok(number) => watched.entry(number).or_default().extend(names),
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG) => {}
                Err(why @ Errno::EACCES) => {
                    blind.get_or_insert_with(|| Blind::At(directory.clone(), why));
                }
                Err(why) => return Err(Blind::All(why)),
            }
        }
        for number in self.watched.keys().filter(|number| !watched.contains_key(number)) {
            // Fails if the directory is gone, and with it the watch.
            let _ = self.inotify.get_ref().0.rm_watch(*number);
        }
        self.watched = watched;
        self.written.retain(|(number, _)| self.watched.contains_key(number));
        blind.map_or(Ok(()), Err)
    }

    fn add(&self, directory: &Path) -> nix::Result<WatchDescriptor> {
        let flags = Flags::IN_CREATE
            | Flags::IN_DELETE
            | Flags::IN_MOVED_FROM
            | Flags::IN_MOVED_TO
            | Flags::IN_MODIFY
            | Flags::IN_CLOSE_WRITE
            | Flags::IN_ATTRIB
            | Flags::IN_DELETE_SELF
            | Flags::IN_MOVE_SELF
            | Flags::IN_ONLYDIR;
        self.inotify.get_ref().0.add_watch(directory, flags)
    }

    /// Whether a file that matters is being written to.
    pub fn is_written_to(&self) -> bool {
        !self.written.is_empty()
    }

    /// Completes when something that matters has happened.
    pub async fn event(&mut self) -> io::Result<()> {
        loop {
            let events = {
                let mut ready = self.inotify.readable_mut().await?;
                match ready.try_io(|fd| fd.get_ref().0.read_events().map_err(io::Error::from)) {
                    Ok(events) => events?,
                    Err(_would_block) => continue,
                }
            };
            // All of them are looked at: they say who is still writing.
            let matter = events.iter().filter(|event| self.matters(event)).count();
            if matter > 0 {
                return Ok(());
            }
        }
    }

    fn matters(&mut self, event: &InotifyEvent) -> bool {
        if event.mask.contains(Flags::IN_Q_OVERFLOW) {
            // Nobody knows what was missed.
            self.written.clear();
            return true;
        }
        let Some(names) = self.watched.get(&event.wd) else { return false };
        // Without a name it is the directory itself that has changed.
        let Some(name) = &event.name else { return true };
        if !names.matter(name) {
            return false;
        }
        let file = (event.wd, name.clone());
        if event.mask.contains(Flags::IN_MODIFY) {
            self.written.insert(file);
        } else if event.mask.intersects(
            Flags::IN_CLOSE_WRITE
                | Flags::IN_DELETE
                | Flags::IN_CREATE
                | Flags::IN_MOVED_FROM
                | Flags::IN_MOVED_TO,
        ) {
            self.written.remove(&file);
        }
        true
    }
}
