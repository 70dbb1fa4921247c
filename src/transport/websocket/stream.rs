//! The byte stream: the payloads of all binary messages, one after the other.
//!
//! Frames are read into the reader's own buffer and taken apart there; a frame is written whole, in one call. What it
//! never does: send a Ping, a text or, before the end, an empty message; hold a buffer while it holds no bytes.
//! After an agreed half-close a Ping of a middlebox is answered no more, because nobody reads.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::carrier::Carrier;
use super::frame::{self, Decoder, Kind, MAX_CONTROL, MAX_HEADER, Violation};
use super::mask;
use crate::transport::queue::Queue;

/// Payload of one frame that we send.
const PAYLOAD: usize = 64 * 1024;

/// Room for a frame and an answer to a Ping before it.
const OVERHEAD: usize = 2 * MAX_HEADER + MAX_CONTROL;

/// Which end of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

/// A WebSocket, after the upgrade.
#[derive(Debug)]
pub struct Stream {
    carrier: Carrier,
    role: Role,
    half_close: bool,
    decoder: Decoder,
    /// What came together with the upgrade's head.
    early: Queue,
    violation: Option<Violation>,
    /// Whole frames, or the rest of some, that the carrier did not take yet.
    unsent: Queue,
    sent: Sent,
    /// A writer waits for the carrier: only it may be woken.
    writer_waits: bool,
}

/// How far our own direction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Open,
    HalfClosed,
    Closed,
}

impl Stream {
    pub(super) fn new(carrier: Carrier, role: Role, half_close: bool, early: &[u8]) -> Self {
        Stream {
            carrier,
            role,
            half_close,
            decoder: Decoder::new(role == Role::Server, half_close),
            early: Queue::of(early),
            violation: None,
            unsent: Queue::default(),
            sent: Sent::Open,
            writer_waits: false,
        }
    }

    /// The TCP connection underneath.
    pub fn tcp(&self) -> &TcpStream {
        self.carrier.tcp()
    }

    /// The peer is authenticated. (A frame is not held, however long.)
    pub fn trust(&mut self) {
        self.carrier.trust();
    }

    /// Whether the peer agreed on it: then `poll_shutdown` ends one direction. Otherwise it ends everything, and
    /// must wait until both directions are done.
    pub fn can_half_close(&self) -> bool {
        self.half_close
    }

    /// Bytes of all buffers held now.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.early.capacity() + self.unsent.capacity()
    }

    fn key(&self) -> io::Result<Option<[u8; 4]>> {
        match self.role {
            Role::Client => mask::random().map(Some),
            Role::Server => Ok(None),
        }
    }

    /// Adds a whole frame to what is to be sent.
    fn queue(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let key = self.key()?;
        let mut header = [0; MAX_HEADER];
        let len = frame::header(kind, payload.len(), key, &mut header);
        self.unsent.make_room(len + payload.len());
        self.unsent.put(&header[..len]);
        match key {
            None => {
                self.unsent.put(payload);
            }
            Some(key) => {
                mask::copy(payload, &mut self.unsent.spare()[..payload.len()], key);
                self.unsent.filled(payload.len());
            }
        }
        Ok(())
    }

    /// The answer to a Ping goes before the next frame of ours.
    fn queue_pong(&mut self) -> io::Result<()> {
        match self.decoder.take_pong() {
            Some(payload) if self.sent != Sent::Closed => self.queue(Kind::Pong, &payload),
            _ => Ok(()),
        }
    }

    /// Hands everything queued to the carrier.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let n = ready!(Pin::new(&mut self.carrier).poll_write(cx, self.unsent.held()))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.consume(n);
        }
        self.unsent = Queue::default();
        Poll::Ready(Ok(()))
    }

    /// Drains and flushes, answering a Ping first.
    fn poll_flush_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        if self.decoder.has_pong() {
            self.queue_pong()?;
            ready!(self.poll_drain(cx))?;
        }
        Pin::new(&mut self.carrier).poll_flush(cx)
    }

    /// Answers a Ping from within a read, if no writer is at work: the carrier wakes only one task for writing. If it
    /// cannot take the answer now, the next write or read goes on with it. A failure is left to the writer: what was
    /// read before it is still good.
    fn answer(&mut self, cx: &mut Context<'_>) {
        if !self.writer_waits && (!self.unsent.is_empty() || self.decoder.has_pong()) {
            let _ = self.poll_flush_all(cx);
        }
    }

    /// Reads once and takes apart. Says how much payload is at the front of `into`; None: the end.
    fn poll_payload(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<Option<usize>>> {
        if let Some(violation) = self.violation {
            return Poll::Ready(Err(violation.into()));
        }
        if self.decoder.end().is_some() {
            return Poll::Ready(Ok(None));
        }
        let n = if self.early.is_empty() {
            let mut fresh = ReadBuf::new(into);
            ready!(Pin::new(&mut self.carrier).poll_read(cx, &mut fresh))?;
            fresh.filled().len()
        } else {
            let n = self.early.len().min(into.len());
            into[..n].copy_from_slice(&self.early.held()[..n]);
            self.early.consume(n);
            if self.early.is_empty() {
                self.early = Queue::default();
            }
            n
        };
        if n == 0 {
            // rathole 0.5 often just closes; one of ours that ends in order says so.
            let in_order = self.decoder.is_between() && !self.half_close;
            return Poll::Ready(if in_order { Ok(None) } else { Err(truncated()) });
        }
        let (plain, violation) = self.decoder.decode(&mut into[..n]);
        self.violation = violation;
        Poll::Ready(Ok(Some(plain)))
    }

    fn poll_write_frame(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> Poll<io::Result<()>> {
        if self.role == Role::Server && !self.decoder.has_pong() && self.carrier.is_write_vectored() {
            // Nothing to mask: straight from the writer's buffer.
            let mut header = [0; MAX_HEADER];
            let len = frame::header(Kind::Binary, payload.len(), None, &mut header);
            let parts = [IoSlice::new(&header[..len]), IoSlice::new(payload)];
            let n = ready!(Pin::new(&mut self.carrier).poll_write_vectored(cx, &parts))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if n < len + payload.len() {
                self.unsent = Queue::with_room(payload.len() + OVERHEAD);
                self.unsent.put(&header[n.min(len)..len]);
                self.unsent.put(&payload[n.saturating_sub(len)..]);
            }
            return Poll::Ready(Ok(()));
        }
        self.unsent = Queue::with_room(payload.len() + OVERHEAD);
        self.queue_pong()?;
        self.queue(Kind::Binary, payload)?;
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        if self.sent == Sent::Open && self.half_close {
            self.queue(Kind::Binary, &[])?;
            self.sent = Sent::HalfClosed;
        }
        if self.sent != Sent::Closed && (!self.half_close || self.decoder.end().is_some()) {
            self.queue(Kind::Close, &NORMAL.to_be_bytes())?;
            self.sent = Sent::Closed;
        }
        ready!(self.poll_flush_all(cx))?;
        match self.sent {
            Sent::Closed => Pin::new(&mut self.carrier).poll_shutdown(cx),
            Sent::Open | Sent::HalfClosed => Poll::Ready(Ok(())),
        }
    }

    /// Notes whether the writer was told to wait.
    fn written<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.writer_waits = result.is_pending();
        result
    }
}

/// The status code of a Close: nothing is wrong.
const NORMAL: u16 = 1000;

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // What found no room last time: the carrier may have woken us for it.
        this.answer(cx);
        while buf.remaining() > 0 {
            let payload = ready!(this.poll_payload(cx, buf.initialize_unfilled()))?;
            this.answer(cx);
            match payload {
                Some(0) => {}
                Some(n) => {
                    buf.advance(n);
                    break;
                }
                None => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.sent != Sent::Open {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "written after the end")));
        }
        let drained = this.poll_drain(cx);
        ready!(this.written(drained))?;
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let n = buf.len().min(PAYLOAD);
        let framed = this.poll_write_frame(cx, &buf[..n]);
        ready!(this.written(framed))?;
        match this.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // What the carrier did not take now waits for the next call.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(n)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = this.poll_flush_all(cx);
        this.written(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let ended = this.poll_end(cx);
        this.written(ended)
    }
}

fn truncated() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the WebSocket was cut off: the connection ended without its end",
    )
}

impl From<Violation> for io::Error {
    fn from(violation: Violation) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, format!("WebSocket: {violation}"))
    }
}
