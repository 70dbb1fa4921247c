//! Moving bytes through a buffer: read what is there, write what is taken.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What [`fill`] found behind the bytes that it read.
#[derive(Debug)]
pub(super) enum Then {
    /// The buffer is full.
    Full,
    /// Nothing now; the waker is registered.
    Wait,
    /// The source's end.
    End,
    /// The source failed. It will not say so again, so this must not be lost.
    Failed(io::Error),
}

/// Reads until the buffer is full or the source has no more: many records of an encrypted source become one write.
pub(super) fn fill<S: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    source: &mut S,
    buffer: &mut ReadBuf<'_>,
) -> Then {
    while buffer.remaining() > 0 {
        let before = buffer.filled().len();
        match Pin::new(&mut *source).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) if buffer.filled().len() == before => return Then::End,
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Then::Failed(error),
            Poll::Pending => return Then::Wait,
        }
    }
    Then::Full
}

/// Writes until all is written (`Ready`) or the sink takes no more (`Pending`); the count is right in every case.
pub(super) fn deliver<K: AsyncWrite + Unpin>(
    cx: &mut Context<'_>,
    sink: &mut K,
    bytes: &[u8],
) -> (usize, Poll<io::Result<()>>) {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match Pin::new(&mut *sink).poll_write(cx, rest) {
            Poll::Ready(Ok(0)) => return (done, Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
            Poll::Ready(Ok(n)) => done += n,
            Poll::Ready(Err(error)) => return (done, Poll::Ready(Err(error))),
            Poll::Pending => return (done, Poll::Pending),
        }
    }
    (done, Poll::Ready(Ok(())))
}
