//! What an instance needs of its process: a runtime, signals that wait to be read, enough open files.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use tokio::net::unix::pipe::Receiver;
use tokio::runtime::{Builder, Runtime};

/// A full build uses every core; a router has one, and little memory for stacks. From now on SIGTERM and SIGINT no
/// longer end the process.
pub fn runtime() -> io::Result<(Runtime, Signals)> {
    // Before there are other threads: they inherit what is blocked.
    let signals = Signals::block()?;
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

/// SIGTERM and SIGINT, as a file (signalfd).
#[derive(Debug)]
pub struct Signals(Receiver);

impl Signals {
    fn block() -> io::Result<SignalFd> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.add(Signal::SIGINT);
        set.thread_block()?;
        Ok(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
    }

    /// Completes with the next one's name.
    pub async fn next(&mut self) -> &'static str {
        loop {
            let mut info = [0; size_of::<siginfo>()];
            match self.0.try_read(&mut info) {
                Ok(_) if info.starts_with(&(Signal::SIGINT as u32).to_ne_bytes()) => return "SIGINT",
                Ok(_) => return "SIGTERM",
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Without a runtime there is nothing to wait for.
                    let _ = self.0.readable().await;
                }
                Err(error) => {
                    tracing::error!("cannot read signals: {error}");
                    return "an error";
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
