//! Noticing a reset by a peer that has already ended its own direction.
//!
//! Nothing is read from such a socket any more, and its read readiness stays set for ever, so the usual registration
//! tells nothing new. A second one, of a duplicate descriptor, asks for urgent data, which never comes: it wakes only
//! when the connection is gone altogether. Only half-closed relays pay for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

/// Watches one socket, or none.
#[derive(Debug, Default)]
pub(super) enum Watch {
    /// Nothing is watched.
    #[default]
    Off,
    /// A socket is watched.
    On(Box<AsyncFd<OwnedFd>>),
    /// There was no descriptor left: a reset will be noticed when something is next written.
    Unavailable,
}

impl Watch {
    /// Ready when `socket`'s connection is gone, with its reason. The socket must be the same until
    /// [`Watch::stop`], and its write side open: a connection that ended in both directions is gone, too.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>, socket: &TcpStream) -> Poll<io::Error> {
        if let Watch::Off = self {
            *self = Watch::start(socket);
        }
        let Watch::On(watch) = self else { return Poll::Pending };
        match watch.poll_write_ready(cx) {
            Poll::Ready(_) => {
                let error = socket.take_error().ok().flatten();
                Poll::Ready(error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Watches nothing any more.
    pub(super) fn stop(&mut self) {
        *self = Watch::Off;
    }

    fn start(socket: &TcpStream) -> Watch {
        let duplicate = socket.as_fd().try_clone_to_owned();
        // Deprecated because of types that lie about their descriptor; an OwnedFd does not.
        #[allow(deprecated)]
        match duplicate.and_then(|fd| AsyncFd::with_interest(fd, Interest::PRIORITY)) {
            Ok(watch) => Watch::On(Box::new(watch)),
            Err(_) => Watch::Unavailable,
        }
    }
}
