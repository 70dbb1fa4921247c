//! What an instance needs of its process: a runtime, signals that wait to be read, enough open files.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use tokio::net::unix::pipe::Receiver;
use tokio::runtime::{Builder, Runtime};

/// From now on SIGHUP waits to be read, and no longer ends the process. To be called before there are other threads.
pub fn hold_hangups() {
    let mut set = SigSet::empty();
    set.add(Signal::SIGHUP);
    // Fails only for signals that do not exist.
    let _ = set.thread_block();
}

/// SIGHUP ends the process again; one that came meanwhile does so now.
pub fn release_hangups() {
    let mut set = SigSet::empty();
    set.add(Signal::SIGHUP);
    let _ = set.thread_unblock();
}

/// Whether a service manager of the systemd kind has started this very process. (INVOCATION_ID is no sign: every program
/// of a desktop inherits it.)
#[cfg(feature = "hot-reload")]
pub fn is_managed() -> bool {
    let given = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let own = std::process::id().to_string();
    given("NOTIFY_SOCKET").is_some() || given("SYSTEMD_EXEC_PID").is_some_and(|pid| pid == *own)
}

/// A full build uses every core; a router has one, and little memory for stacks. From now on SIGTERM and SIGINT no
/// longer end the process; nor does SIGHUP, if `hangups` are to be read, too.
pub fn runtime(hangups: bool) -> io::Result<(Runtime, Signals)> {
    // Before there are other threads: they inherit what is blocked.
    let signals = Signals::block(hangups)?;
    spare(signals.as_fd(), SPARE)?;
    #[cfg(feature = "cli")]
    let mut builder = Builder::new_multi_thread();
    #[cfg(not(feature = "cli"))]
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_all().build()?;
    let entered = runtime.enter();
    // A file that is read like a pipe: tokio knows that kind.
    let signals = Signals(Receiver::from_owned_fd_unchecked(signals.into())?);
    drop(entered);
    Ok((runtime, signals))
}

/// Descriptors that must be there at the start: tokio's runtime panics without some of them, and what it serves needs
/// some, too.
const SPARE: u8 = 12;

/// Opens so many copies, and closes them.
fn spare(of: BorrowedFd<'_>, count: u8) -> io::Result<()> {
    if count == 0 {
        return Ok(());
    }
    let copy = of.try_clone_to_owned()?;
    spare(copy.as_fd(), count - 1)
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To stop; the signal's name.
    Stop(&'static str),
    /// To read the configuration again (SIGHUP).
    #[cfg(feature = "hot-reload")]
    Reload,
}

/// SIGTERM, SIGINT and SIGHUP, as a file (signalfd).
#[derive(Debug)]
pub struct Signals(Receiver);

impl Signals {
    fn block(hangups: bool) -> io::Result<SignalFd> {
        let mut set = SigSet::empty();
        if hangups {
            set.add(Signal::SIGHUP);
        }
        set.add(Signal::SIGTERM);
        set.add(Signal::SIGINT);
        set.thread_block()?;
        Ok(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
    }

    /// Completes with the name of the next one that asks to stop.
    #[cfg(feature = "hot-reload")]
    pub async fn stop(&mut self) -> &'static str {
        loop {
            if let Wish::Stop(name) = self.next().await {
                return name;
            }
        }
    }

    /// Completes with the name of the next one that asks to stop.
    #[cfg(not(feature = "hot-reload"))]
    pub async fn stop(&mut self) -> &'static str {
        let Wish::Stop(name) = self.next().await;
        name
    }

    /// Completes with the next one. May be dropped and called again.
    pub async fn next(&mut self) -> Wish {
        loop {
            let mut info = [0; size_of::<siginfo>()];
            match self.0.try_read(&mut info) {
                Ok(_) => {
                    let is = |signal: Signal| info.starts_with(&(signal as u32).to_ne_bytes());
                    if !is(Signal::SIGHUP) {
                        return Wish::Stop(if is(Signal::SIGINT) { "SIGINT" } else { "SIGTERM" });
                    }
                    #[cfg(feature = "hot-reload")]
                    return Wish::Reload;
                    #[cfg(not(feature = "hot-reload"))]
                    tracing::warn!(
                        "SIGHUP: this rathole was built without the feature `hot-reload`; restart it"
                    );
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Without a runtime there is nothing to wait for.
                    let _ = self.0.readable().await;
                }
                Err(error) => {
                    tracing::error!("cannot read signals: {error}");
                    return Wish::Stop("an error");
                }
            }
        }
    }
}

/// Each visitor is two sockets: the soft limit (often 1024) is raised to the hard one.
pub fn raise_open_files_or_warn() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}
