//! What was received and is not yet read: opened bytes, then sealed ones.
//!
//! Bytes come in large reads into a borrowed buffer, are opened where they lie, and are copied once, to the
//! reader. The buffer goes back when it is drained; a rest is parked in an allocation of its own size while the
//! connection waits.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use super::record::{Content, Keys, invalid, record_length};
use crate::transport::STRANGER;
use crate::transport::buffer::Pooled;

/// Rests up to this size are parked at once.
const SMALL: usize = 4096;

/// The receiving half's bytes.
#[derive(Debug)]
pub struct Incoming {
    store: Store,
    /// Opened and not yet read.
    plain: Range<usize>,
    /// Received and not yet opened.
    sealed: Range<usize>,
    /// A peer that is nobody yet gets small reads, no long record, and no large buffer.
    trusted: bool,
}

#[derive(Debug)]
enum Store {
    Empty,
    Lent(Pooled),
    Parked(Vec<u8>),
}

impl Store {
    fn bytes(&mut self) -> &mut [u8] {
        match self {
            Store::Empty => &mut [],
            Store::Lent(buffer) => buffer,
            Store::Parked(bytes) => bytes,
        }
    }
}

impl Incoming {
    /// Begins with the records that came together with the end of the handshake.
    pub fn new(sealed: Vec<u8>, trusted: bool) -> Self {
        let whole = 0..sealed.len();
        let store = if sealed.is_empty() { Store::Empty } else { Store::Parked(sealed) };
        Incoming { store, plain: 0..0, sealed: whole, trusted }
    }

    /// From now on the peer may send what it wants.
    pub fn trust(&mut self) {
        self.trusted = true;
    }

    /// Whether nothing sealed is waiting.
    pub fn is_drained(&self) -> bool {
        self.sealed.is_empty()
    }

    /// Moves opened bytes to the reader; whether there were any.
    pub fn read(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let count = self.plain.len().min(buf.remaining());
        let from = self.plain.start;
        buf.put_slice(&self.store.bytes()[from..from + count]);
        self.plain.start += count;
        count > 0
    }

    /// The length of the next record, if all of it is here.
    pub fn next_record(&mut self) -> io::Result<Option<usize>> {
        let trusted = self.trusted;
        let sealed = &self.store.bytes()[self.sealed.clone()];
        match record_length(sealed)? {
            Some(length) if !trusted && length > STRANGER => {
                Err(invalid("the peer sent a long TLS record before it was authenticated"))
            }
            length => Ok(length.filter(|length| *length <= sealed.len())),
        }
    }

    /// Opens the next record, of `length`. Application data becomes readable; anything else is returned.
    pub fn open(&mut self, keys: &mut Keys, length: usize) -> io::Result<(Content, &[u8])> {
        let start = self.sealed.start;
        self.sealed.start += length;
        let record = &mut self.store.bytes()[start..start + length];
        let (content, range) = keys.open(record)?;
        let range = start + range.start..start + range.end;
        if content == Content::Data {
            self.plain = range;
            return Ok((content, &[]));
        }
        Ok((content, &self.store.bytes()[range]))
    }

    /// Reads from the socket once all opened bytes are read. 0 is the end.
    pub fn poll_fill(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let kept = self.sealed.len();
        let sealed = self.sealed.clone();
        let buffer = match &mut self.store {
            Store::Lent(buffer) => {
                buffer.copy_within(sealed, 0);
                buffer
            }
            store => {
                let mut buffer = Pooled::take();
                buffer[..kept].copy_from_slice(&store.bytes()[sealed]);
                *store = Store::Lent(buffer);
                let Store::Lent(buffer) = store else { return Poll::Ready(Ok(0)) };
                buffer
            }
        };
        self.plain = 0..0;
        self.sealed = 0..kept;
        let end = match self.trusted {
            true => buffer.len(),
            false => buffer.len().min(kept + STRANGER),
        };
        let mut room = ReadBuf::new(&mut buffer[kept..end]);
        ready!(Pin::new(tcp).poll_read(cx, &mut room))?;
        let count = room.filled().len();
        self.sealed.end += count;
        Poll::Ready(Ok(count))
    }

    /// Gives the borrowed buffer back if it can be spared. `waiting`: the reader waits for more than is here.
    pub fn rest(&mut self, waiting: bool) {
        let start = if self.plain.is_empty() { self.sealed.start } else { self.plain.start };
        let held = self.sealed.end - start;
        if held == 0 {
            self.clear();
        } else if matches!(self.store, Store::Lent(_)) && (waiting || held <= SMALL || !self.trusted) {
            self.store = Store::Parked(self.store.bytes()[start..self.sealed.end].to_vec());
            self.plain = self.plain.start.saturating_sub(start)..self.plain.end.saturating_sub(start);
            self.sealed = self.sealed.start - start..held;
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.store = Store::Empty;
        self.plain = 0..0;
        self.sealed = 0..0;
    }

    /// Whether a borrowed buffer is held.
    #[cfg(test)]
    pub fn holds_buffer(&self) -> bool {
        matches!(self.store, Store::Lent(_))
    }

    /// Bytes of memory held.
    #[cfg(test)]
    pub fn held(&mut self) -> usize {
        self.store.bytes().len()
    }
}
