//! Watches the files of a configuration: says when they may have been changed and are quiet again.
//!
//! ```text
//! entries  what a path depends on (pure)
//! kernel   inotify
//! recorder what was read, and a digest of it
//! stamps   what files look like from outside, for polling
//! ```
//!
//! What it decides: when to look again. What it never does: read a file, or end the process; where the kernel does not
//! tell of changes, files are looked at from time to time, and that is said.

mod entries;
mod kernel;
mod recorder;
mod stamps;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use entries::Entries;
use kernel::{Blind, Kernel};
pub use recorder::{Recorder, Seen};
pub use stamps::Stamps;

/// Changes come in bursts; after this long without another one, one is over.
const QUIET: Duration = Duration::from_millis(300);

/// After an error of reading: the rest of the change may take a little longer.
const SETTLED: Duration = Duration::from_secs(1);

/// A burst without end is looked into after this long,
const LONGEST: Duration = Duration::from_secs(2);

/// and if somebody has a file open and writes to it, after this long.
const LONGEST_WRITE: Duration = Duration::from_secs(10);

/// How often files are looked at where the kernel tells nothing,
const PERIOD: Duration = Duration::from_secs(3);

/// and while they change.
const SHORT_PERIOD: Duration = Duration::from_millis(100);

/// What is known of the files of a configuration.
#[derive(Debug)]
pub struct Watch {
    /// None: by polling only.
    kernel: Option<Kernel>,
    /// Whether files are looked at from time to time.
    polling: bool,
    /// The files, as they were when they were last read,
    read: Stamps,
    /// and when they were last looked at; for polling.
    last: Stamps,
    burst: Option<Burst>,
}

/// Changes that were not yet told of.
#[derive(Debug, Clone, Copy)]
struct Burst {
    first: Instant,
    last: Instant,
}

impl Watch {
    /// Of nothing yet. Needs a runtime.
    pub fn new() -> Watch {
        let (read, last) = (Stamps::default(), Stamps::default());
        let mut watch = Watch { kernel: None, polling: false, read, last, burst: None };
        match Kernel::new() {
            Ok(kernel) => watch.kernel = Some(kernel),
            Err(why) => watch.poll_or_warn(&why.to_string()),
        }
        watch
    }

    /// Watches the files that were read, and the directory of fragments. What has changed since they were read, was not
    /// seen by anybody else: it counts as a change.
    pub async fn look_at(&mut self, read: Stamps, fragments: PathBuf) {
        let found = in_background(move || {
            let link = |path: &Path| std::fs::read_link(path).ok();
            let mut entries = Entries::new(&link);
            entries.add_fragments(&recorder::absolute(&fragments));
            read.paths().for_each(|path| drop(entries.add(path)));
            (entries.found(), read)
        });
        let Some((directories, read)) = found.await else { return };
        match self.kernel.as_mut().map(|kernel| kernel.watch(&directories)) {
            None => {}
            Some(Ok(())) => self.polling = false,
            Some(Err(Blind::At(directory, why))) => self.poll_as_well(&directory, &why.to_string()),
            Some(Err(Blind::All(why))) => self.poll_or_warn(&why.to_string()),
        }
        let polling = self.polling;
        let now = in_background(move || {
            let last = if polling { read.again() } else { Stamps::default() };
            (read.are_still_true(), last, read)
        });
        let Some((are_still_true, last, read)) = now.await else { return };
        if !are_still_true {
            self.note();
        }
        (self.read, self.last) = (read, last);
    }

    /// Completes when something may have changed and is quiet again. May be dropped and called again: no change is lost.
    pub async fn changed(&mut self) {
        loop {
            let quiet = self.quiet();
            let end = async {
                match quiet {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = end => break,
                () = self.event() => self.note(),
            }
        }
        self.burst = None;
    }

    /// Completes after a longer while, and when nothing changes any more.
    pub async fn settled(&mut self) {
        let until = Instant::now() + SETTLED;
        loop {
            tokio::select! {
                () = sleep_until(until) => break,
                () = self.changed() => {}
            }
        }
        if self.burst.is_some() {
            self.changed().await;
        }
    }

    /// When the burst will be over, if there is no further change.
    fn quiet(&self) -> Option<Instant> {
        let Burst { first, last } = self.burst?;
        let written = self.kernel.as_ref().is_some_and(Kernel::is_written_to);
        Some(if written { first + LONGEST_WRITE } else { (last + QUIET).min(first + LONGEST) })
    }

    fn note(&mut self) {
        let now = Instant::now();
        let first = self.burst.map_or(now, |burst| burst.first);
        self.burst = Some(Burst { first, last: now });
    }

    /// Completes at the next change.
    async fn event(&mut self) {
        loop {
            let period = if self.burst.is_some() { SHORT_PERIOD } else { PERIOD };
            let kernel = async {
                match &mut self.kernel {
                    Some(kernel) => kernel.event().await,
                    None => std::future::pending().await,
                }
            };
            let told = tokio::select! {
                told = kernel => Some(told),
                () = sleep(period), if self.polling => None,
            };
            match told {
                Some(Ok(())) => return,
                Some(Err(why)) => {
                    self.poll_or_warn(&why.to_string());
                    return;
                }
                None => {
                    if self.looks_different().await {
                        return;
                    }
                }
            }
        }
    }

    /// Looks at all files.
    async fn looks_different(&mut self) -> bool {
        let read = self.read.clone();
        match in_background(move || read.again()).await {
            Some(now) if now != self.last => {
                self.last = now;
                true
            }
            Some(_) | None => false,
        }
    }

    fn poll_as_well(&mut self, directory: &Path, why: &str) {
        if !std::mem::replace(&mut self.polling, true) {
            let (path, seconds) = (directory.display(), PERIOD.as_secs());
            tracing::info!("{path} cannot be watched ({why}): its files are looked at every {seconds} s");
        }
    }

    fn poll_or_warn(&mut self, why: &str) {
        self.kernel = None;
        self.polling = true;
        tracing::warn!(
            "changes of files cannot be watched ({why}): they are looked at every {} s instead",
            PERIOD.as_secs()
        );
    }
}

/// Does what takes its time where it makes nobody wait: there may be thousands of files, or a slow disk. None: it has
/// failed, which is a fault of rathole.
pub async fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    // A thread of its own: the runtime's may all be waiting for a name server that does not answer.
    let (done, result) = oneshot::channel();
    let reading = move || {
        // Whoever waits may have lost interest.
        let _ = done.send(work());
    };
    match std::thread::Builder::new().name("reader".to_owned()).spawn(reading) {
        Ok(_) => result
            .await
            .inspect_err(|_| tracing::error!("files could not be read, which is a fault of rathole"))
            .ok(),
        Err(error) => {
            tracing::error!("files cannot be read: no thread for it: {error}");
            None
        }
    }
}
