//! Moving bytes from socket to socket through a pipe, without copying them to this process.

use std::io;
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::pipe::{Pipe, Pool};

/// What [`poll_fill`] found.
#[derive(Debug)]
pub(super) enum Filled {
    /// Bytes are in the pipe.
    Some(usize),
    /// The source's end.
    End,
    /// Bytes may be there, but not by this way.
    NoPipe,
    /// This kernel, or what guards it, refuses to splice these sockets.
    Refused,
}

/// Moves what `source` has into an empty pipe, which is borrowed only when there is something.
pub(super) fn poll_fill(
    cx: &mut Context<'_>,
    source: &TcpStream,
    pipe: &mut Option<Pipe>,
    pool: &'static Pool,
) -> Poll<io::Result<Filled>> {
    loop {
        ready!(source.poll_read_ready(cx))?;
        if pipe.is_none() {
            *pipe = pool.lend();
        }
        let Some(pipe) = pipe else { return Poll::Ready(Ok(Filled::NoPipe)) };
        match source.try_io(Interest::READABLE, || pipe.fill(source)) {
            Ok(0) => return Poll::Ready(Ok(Filled::End)),
            Ok(n) => return Poll::Ready(Ok(Filled::Some(n))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if is_refusal(&error) => return Poll::Ready(Ok(Filled::Refused)),
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// Moves the pipe's bytes into `sink` until it is empty (`Ready`) or the sink is full. `moved` counts them.
pub(super) fn poll_drain(
    cx: &mut Context<'_>,
    pipe: &mut Pipe,
    sink: &TcpStream,
    moved: &mut u64,
) -> Poll<io::Result<()>> {
    while pipe.filled() > 0 {
        ready!(sink.poll_write_ready(cx))?;
        match sink.try_io(Interest::WRITABLE, || pipe.drain(sink)) {
            Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(n) => *moved += n as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    Poll::Ready(Ok(()))
}

fn is_refusal(error: &io::Error) -> bool {
    let refusals = [Errno::EINVAL, Errno::ENOSYS, Errno::EPERM, Errno::EOPNOTSUPP];
    refusals.iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}
