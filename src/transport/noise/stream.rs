//! The byte stream: ciphertext is read into the reader's own buffer where that is large enough and opened there;
//! records are sealed into one buffer and written together.
//!
//! What it never does: hold a buffer while it holds no bytes; give out a byte that was not verified; send an empty
//! record (rathole 0.5 takes one as the end). A received empty record means nothing and is skipped. The end of the
//! TCP stream between two records is the end (Noise over TCP has no other); within one it is an error.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::session::{self, Fault, MAX_RECORD, Session};
use crate::transport::STRANGER;
use crate::transport::queue::Queue;

/// A Noise session over TCP.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    session: Session,
    /// Received: the beginning of a record.
    cipher: Queue,
    /// Opened, and more than the reader had room for.
    plain: Queue,
    /// Why nothing more can be read.
    fault: Option<Fault>,
    /// A peer that is nobody yet may send no long record.
    trusted: bool,
    /// Sealed and not yet taken by the socket.
    unsent: Queue,
}

impl Stream {
    /// A stream that goes on with a session, at a point between two records in both directions.
    pub fn resume(tcp: TcpStream, session: Session) -> Self {
        let (cipher, plain, unsent) = Default::default();
        Stream { tcp, session, cipher, plain, fault: None, trusted: true, unsent }
    }

    /// A stream to a stranger: until [`Stream::trust`] it takes no long record.
    pub(super) fn distrust(self) -> Self {
        Stream { trusted: false, ..self }
    }

    /// The peer is authenticated, and not only by its key.
    pub fn trust(&mut self) {
        self.trusted = true;
    }

    /// The TCP connection underneath.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Reads once into `into`, behind room for the ciphertext that is already here, and opens what is complete.
    /// Says how much plaintext is at the front of `into`; None: the end. `into` must be longer than `cipher`.
    fn poll_open(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<Option<usize>>> {
        let old = self.cipher.len();
        let mut fresh = ReadBuf::new(&mut into[old..]);
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut fresh))?;
        let fresh = fresh.filled().len();
        if fresh == 0 {
            return Poll::Ready(if old == 0 { Ok(None) } else { Err(truncated()) });
        }
        let total = old + fresh;
        if !self.trusted && begun(self.cipher.held(), &into[old..total]).is_some_and(|len| len > STRANGER) {
            self.fault = Some(Fault::Long);
            return Poll::Ready(Err(Fault::Long.into()));
        }
        if !completes(self.cipher.held(), &into[old..total]) {
            // Only what is new is copied, so that a peer who sends byte by byte makes no work.
            self.cipher.make_room(fresh);
            self.cipher.put(&into[old..total]);
            return Poll::Ready(Ok(Some(0)));
        }
        into[..old].copy_from_slice(self.cipher.held());
        let opened = self.session.open(&mut into[..total]);
        self.fault = opened.fault;
        // Whatever was verified before a fault is still delivered.
        if let (Some(fault), 0) = (opened.fault, opened.plain) {
            return Poll::Ready(Err(fault.into()));
        }
        self.cipher = Queue::of(&into[opened.consumed..total]);
        Poll::Ready(Ok(Some(opened.plain)))
    }

    /// [`Stream::poll_open`] into a buffer of our own, for a reader who has too little room.
    fn poll_fill(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<Option<usize>>> {
        // No buffer is taken before there is something to read.
        ready!(self.tcp.poll_read_ready(cx))?;
        let mut into = Queue::with_room(self.cipher.len() + session::sealed_len(wanted));
        let opened = ready!(self.poll_open(cx, into.spare()))?;
        into.filled(opened.unwrap_or(0));
        if !into.is_empty() {
            self.plain = into;
        }
        Poll::Ready(Ok(opened))
    }

    /// Hands everything sealed to the socket.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let n = ready!(Pin::new(&mut self.tcp).poll_write(cx, self.unsent.held()))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.consume(n);
        }
        self.unsent = Queue::default();
        Poll::Ready(Ok(()))
    }

    /// Bytes of an incomplete record that are here.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.cipher.len()
    }

    /// Bytes of all buffers held now.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.cipher.capacity() + self.plain.capacity() + self.unsent.capacity()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while buf.remaining() > 0 {
            if !this.plain.is_empty() {
                let n = this.plain.len().min(buf.remaining());
                buf.put_slice(&this.plain.held()[..n]);
                this.plain.consume(n);
                if this.plain.is_empty() {
                    this.plain = Queue::default();
                }
                break;
            }
            if let Some(fault) = this.fault {
                return Poll::Ready(Err(fault.into()));
            }
            if buf.remaining() >= MAX_RECORD {
                match ready!(this.poll_open(cx, buf.initialize_unfilled()))? {
                    Some(0) => {}
                    Some(n) => {
                        buf.advance(n);
                        break;
                    }
                    None => break,
                }
            } else if ready!(this.poll_fill(cx, buf.remaining()))?.is_none() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut out = Queue::with_room(session::sealed_len(buf.len()));
        let (taken, used) = this.session.seal(buf, out.spare())?;
        out.filled(used);
        this.unsent = out;
        match this.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // What the socket did not take now waits for the next call.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

/// The length of the record that begins with `old`, or with `fresh`.
fn begun(old: &[u8], fresh: &[u8]) -> Option<usize> {
    let mut bytes = old.iter().chain(fresh).copied();
    session::record_len(&[bytes.next()?, bytes.next()?])
}

/// Whether the record that begins with `old` ends within `fresh`.
fn completes(old: &[u8], fresh: &[u8]) -> bool {
    begun(old, fresh).is_some_and(|len| old.len() + fresh.len() >= len)
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended within a Noise record: truncated")
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        let kind = match fault {
            Fault::Forged | Fault::Short | Fault::Long => io::ErrorKind::InvalidData,
            Fault::Exhausted => io::ErrorKind::Other,
        };
        io::Error::new(kind, format!("Noise: {fault}"))
    }
}
