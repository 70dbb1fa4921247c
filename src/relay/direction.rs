//! One direction of a relay: from a source to a sink, its state, and the bytes in flight.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::buffer::{Buffer, Rest};
use super::copy::{self, Then};
use super::pipe::{Pipe, Pool};
use super::splice::{self, Filled};
use crate::transport::Stream;

/// Bytes that one poll may move before others get their turn.
const TURN: u64 = 2 << 20;

/// A bulk direction that moves less than this between two waits goes back to copying.
const SMALL: u64 = 32 * 1024;

/// A byte stream that may be a bare TCP socket.
pub(super) trait Plain {
    /// The socket, if the stream's bytes are its bytes.
    fn plain(&self) -> Option<&TcpStream>;
}

impl Plain for TcpStream {
    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Plain for Stream {
    fn plain(&self) -> Option<&TcpStream> {
        self.as_plain()
    }
}

/// Who failed, and how.
#[derive(Debug)]
pub(super) enum Fault {
    Source(io::Error),
    Sink(io::Error),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Direction {
    state: State,
    way: Way,
    held: Held,
    unflushed: bool,
    /// Bytes since the last wait.
    burst: u64,
    moved: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The source may have more.
    Flowing,
    /// The source has ended; its last bytes are to be delivered, then the sink may have to be held open.
    Draining,
    /// The sink is being shut down.
    Closing,
    /// The sink was told the end.
    Closed,
}

/// How bytes are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Through the thread's buffer.
    Copy,
    /// Through a pipe: for bulk between bare sockets.
    Splice,
    /// Through the buffer for ever: the kernel refused to splice.
    CopyOnly,
}

/// Bytes in flight: taken from the source, not yet delivered.
#[derive(Debug)]
enum Held {
    Nothing,
    Bytes(Rest),
    Pipe(Pipe),
}

impl Direction {
    /// Nothing was moved yet.
    pub(super) fn new() -> Self {
        Direction {
            state: State::Flowing,
            way: Way::Copy,
            held: Held::Nothing,
            unflushed: false,
            burst: 0,
            moved: 0,
        }
    }

    /// Bytes delivered.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Whether the source has not ended.
    pub(super) fn is_flowing(&self) -> bool {
        self.state == State::Flowing
    }

    /// Whether all is delivered and the sink was told the end.
    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether the sink does not take what is in flight.
    pub(super) fn is_stuck(&self) -> bool {
        match &self.held {
            Held::Nothing => false,
            Held::Bytes(rest) => !rest.bytes().is_empty(),
            Held::Pipe(pipe) => pipe.filled() > 0,
        }
    }

    /// Whether no byte is in flight and nothing is borrowed.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.held, Held::Nothing)
    }

    /// Whether it is using, or about to use, a pipe.
    #[cfg(test)]
    pub(super) fn is_splicing(&self) -> bool {
        self.way == Way::Splice
    }

    /// Moves what can be moved now, within one turn. Ready when closed, or with a fault: then the relay is over.
    /// While `may_end` is false the sink is not told the end.
    pub(super) fn poll<S, K>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        sink: &mut K,
        may_end: bool,
        pool: &'static Pool,
    ) -> Poll<Result<(), Fault>>
    where
        S: AsyncRead + Plain + Unpin,
        K: AsyncWrite + Plain + Unpin,
    {
        if self.state == State::Flowing {
            ready!(self.poll_flow(cx, source, sink, pool))?;
            self.state = State::Draining;
        }
        if self.state == State::Draining {
            ready!(self.poll_deliver(cx, sink)).map_err(Fault::Sink)?;
            self.held = Held::Nothing;
            if !may_end {
                return self.flush(cx, sink);
            }
            self.state = State::Closing;
        }
        if self.state == State::Closing {
            ready!(Pin::new(sink).poll_shutdown(cx)).map_err(Fault::Sink)?;
            self.state = State::Closed;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the source has ended; bytes may still be held.
    fn poll_flow<S, K>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        sink: &mut K,
        pool: &'static Pool,
    ) -> Poll<Result<(), Fault>>
    where
        S: AsyncRead + Plain + Unpin,
        K: AsyncWrite + Plain + Unpin,
    {
        let turn_ends = self.moved + TURN;
        loop {
            ready!(self.poll_deliver(cx, sink)).map_err(Fault::Sink)?;
            if self.moved >= turn_ends {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let found = match (self.way, source.plain()) {
                (Way::Splice, Some(source)) => self.splice(cx, source, pool),
                _ => self.copy(cx, source, sink)?,
            };
            match found {
                Then::Full => {}
                Then::Wait => return self.flush(cx, sink),
                Then::End => return Poll::Ready(Ok(())),
                Then::Failed(error) => {
                    // What the source said before it failed is still to be heard. The fault comes first.
                    let _ = self.flush(cx, sink);
                    return Poll::Ready(Err(Fault::Source(error)));
                }
            }
        }
    }

    /// Delivers what is held. When ready, nothing is in flight (an empty pipe may be kept).
    fn poll_deliver<K: AsyncWrite + Plain + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut K,
    ) -> Poll<io::Result<()>> {
        match &mut self.held {
            Held::Nothing => Poll::Ready(Ok(())),
            Held::Bytes(rest) => {
                let (n, result) = copy::deliver(cx, sink, rest.bytes());
                rest.advance(n);
                self.moved += n as u64;
                self.unflushed |= n > 0;
                ready!(result)?;
                self.held = Held::Nothing;
                Poll::Ready(Ok(()))
            }
            Held::Pipe(pipe) => match sink.plain() {
                Some(sink) => splice::poll_drain(cx, pipe, sink, &mut self.moved),
                // Never: a pipe is only filled between bare sockets, and a stream stays what it is.
                None => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
            },
        }
    }

    /// One buffer's worth. `Full`: go on, perhaps by the other way.
    fn copy<S, K>(&mut self, cx: &mut Context<'_>, source: &mut S, sink: &mut K) -> Result<Then, Fault>
    where
        S: AsyncRead + Plain + Unpin,
        K: AsyncWrite + Plain + Unpin,
    {
        let mut buffer = Buffer::borrow();
        let mut read = ReadBuf::new(&mut buffer);
        let found = copy::fill(cx, source, &mut read);
        let bytes = read.filled();
        if !bytes.is_empty() {
            let (n, result) = copy::deliver(cx, sink, bytes);
            self.moved += n as u64;
            self.unflushed |= n > 0;
            match result {
                Poll::Ready(result) => result.map_err(Fault::Sink)?,
                Poll::Pending => self.held = Held::Bytes(Rest::of(bytes.get(n..).unwrap_or_default())),
            }
        }
        match found {
            Then::Full => {
                if self.way == Way::Copy && source.plain().is_some() && sink.plain().is_some() {
                    self.way = Way::Splice;
                    self.burst = bytes.len() as u64;
                }
                Ok(Then::Full)
            }
            // What is held must get its turn first; then the loop comes back here.
            Then::Wait if !matches!(self.held, Held::Nothing) => Ok(Then::Full),
            found => Ok(found),
        }
    }

    /// One pipe's worth into the empty pipe. `Full`: deliver and go on, perhaps by the other way.
    fn splice(&mut self, cx: &mut Context<'_>, source: &TcpStream, pool: &'static Pool) -> Then {
        let mut pipe = match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Pipe(pipe) => Some(pipe),
            Held::Nothing | Held::Bytes(_) => None,
        };
        match splice::poll_fill(cx, source, &mut pipe, pool) {
            Poll::Ready(Ok(Filled::Some(n))) => {
                self.burst += n as u64;
                if let Some(pipe) = pipe {
                    self.held = Held::Pipe(pipe);
                }
                Then::Full
            }
            Poll::Ready(Ok(Filled::End)) => Then::End,
            Poll::Ready(Ok(Filled::NoPipe)) => {
                self.way = Way::Copy;
                Then::Full
            }
            Poll::Ready(Ok(Filled::Refused)) => {
                self.way = Way::CopyOnly;
                Then::Full
            }
            Poll::Ready(Err(error)) => Then::Failed(error),
            Poll::Pending => {
                if self.burst < SMALL {
                    self.way = Way::Copy;
                }
                self.burst = 0;
                Then::Wait
            }
        }
    }

    /// Nothing more to write now: what the sink may have kept must go out. Always pending, but for a fault.
    fn flush<K: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut K,
    ) -> Poll<Result<(), Fault>> {
        if self.unflushed {
            match Pin::new(sink).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::Sink(error))),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }
}
