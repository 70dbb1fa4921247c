//! A network namespace without a name: it lives as long as its descriptor, and the threads and processes in it.

use std::fs::File;
use std::io;
use std::process::Command;
use std::sync::Arc;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::tap;
use crate::common::process::run;

/// One end of a line.
#[derive(Clone)]
pub struct Site {
    namespace: Arc<File>,
}

impl Site {
    /// A new one, in which nothing is up.
    pub fn new() -> io::Result<Self> {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        Ok(Site { namespace: Arc::new(made.join().unwrap()?) })
    }

    /// Runs `work` inside, in a thread of its own: sockets that it opens, threads and processes that it starts are of
    /// this site.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = || {
                setns(&*self.namespace, CloneFlags::CLONE_NEWNET).expect("enter a network namespace");
                work()
            };
            scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Like [`Site::run`], but with files of its own in the place of files of this machine: pairs of the path to hide
    /// and the file to show instead.
    pub fn run_with_files<T: Send>(
        &self,
        files: &[(String, std::path::PathBuf)],
        work: impl FnOnce() -> T + Send,
    ) -> T {
        self.run(|| {
            if !files.is_empty() {
                unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
                mount_flags("none", "/", MsFlags::MS_REC | MsFlags::MS_PRIVATE);
            }
            for (hidden, shown) in files {
                mount_flags(shown.to_str().unwrap(), hidden, MsFlags::MS_BIND);
            }
            work()
        })
    }

    /// Makes a TAP device inside; whoever has the file is at the other end of its cable.
    pub fn tap(&self, name: &str) -> File {
        self.run(|| tap::open(name)).unwrap_or_else(|error| panic!("no TAP device: {error}"))
    }

    /// Runs the program `ip` inside; what it says.
    pub fn ip(&self, arguments: &str) -> String {
        self.run(|| run(Command::new("ip").args(arguments.split_whitespace())))
    }

    /// Sets a variable of the kernel, for this site alone.
    pub fn set(&self, variable: &str, value: impl std::fmt::Display) {
        self.try_set(variable, value).unwrap_or_else(|error| panic!("{variable}: {error}"));
    }

    /// Like [`Site::set`], where the kernel may have reasons to refuse.
    pub fn try_set(&self, variable: &str, value: impl std::fmt::Display) -> io::Result<()> {
        let (file, value) = (format!("/proc/sys/{variable}"), value.to_string());
        self.run(|| std::fs::write(&file, value))
    }

    /// Keeps what belongs inside, and drops it there.
    pub fn hold<T: Send>(&self, make: impl FnOnce() -> T + Send) -> Held<T> {
        Held { value: Some(self.run(make)), site: self.clone() }
    }
}

fn mount_flags(source: &str, target: &str, flags: MsFlags) {
    mount(Some(source), target, None::<&str>, flags, None::<&str>)
        .unwrap_or_else(|error| panic!("mount {source} at {target}: {error}"));
}

/// Something that lives in a site, and must end in it.
pub struct Held<T: Send> {
    value: Option<T>,
    site: Site,
}

impl<T: Send> std::ops::Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().unwrap()
    }
}

impl<T: Send> Drop for Held<T> {
    fn drop(&mut self) {
        let value = self.value.take();
        self.site.run(|| drop(value));
    }
}
