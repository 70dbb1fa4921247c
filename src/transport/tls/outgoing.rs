//! What is sealed and not yet sent: several records, for one system call.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::record::{Content, Keys, MAX_PLAIN, no_room};
use crate::transport::buffer::{PAYLOAD, Pooled};

/// The sending half's bytes. A buffer is held only while there are any.
#[derive(Debug, Default)]
pub struct Outgoing {
    buffer: Option<Pooled>,
    sealed: Range<usize>,
}

impl Outgoing {
    /// Seals one small message after what is already sealed.
    pub fn push_message(&mut self, keys: &mut Keys, content: Content, message: &[u8]) -> io::Result<()> {
        self.push(keys, content, &[IoSlice::new(message)], message.len()).map(drop)
    }

    /// Seals application data in as few records as possible, up to [`PAYLOAD`] bytes; returns how many.
    pub fn push_data(&mut self, keys: &mut Keys, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.push(keys, Content::Data, slices, PAYLOAD)
    }

    /// Sends all.
    pub fn poll_drain(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.sealed().is_empty() {
            let sent = ready!(Pin::new(&mut *tcp).poll_write(cx, self.sealed()))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sealed.start += sent;
        }
        self.clear();
        Poll::Ready(Ok(()))
    }

    /// Forgets what is not sent.
    pub fn clear(&mut self) {
        self.buffer = None;
        self.sealed = 0..0;
    }

    /// Whether nothing is waiting.
    pub fn is_empty(&self) -> bool {
        self.sealed.is_empty()
    }

    /// What is waiting.
    pub fn sealed(&self) -> &[u8] {
        let sealed = self.buffer.as_ref().and_then(|buffer| buffer.get(self.sealed.clone()));
        sealed.unwrap_or_default()
    }

    fn push(
        &mut self,
        keys: &mut Keys,
        content: Content,
        slices: &[IoSlice<'_>],
        limit: usize,
    ) -> io::Result<usize> {
        let buffer = self.buffer.get_or_insert_with(Pooled::take);
        let mut slices = slices.iter().map(|slice| &slice[..]);
        let mut slice: &[u8] = &[];
        let mut taken = 0;
        while taken < limit {
            let room = buffer.get_mut(self.sealed.end..).unwrap_or_default();
            let most = MAX_PLAIN.min(limit - taken);
            let mut plain = 0;
            while plain < most {
                if slice.is_empty() {
                    let Some(next) = slices.next() else { break };
                    slice = next;
                }
                let (now, later) = slice.split_at(slice.len().min(most - plain));
                let at = keys.plain_offset() + plain;
                room.get_mut(at..at + now.len()).ok_or_else(no_room)?.copy_from_slice(now);
                plain += now.len();
                slice = later;
            }
            if plain == 0 {
                break;
            }
            self.sealed.end += keys.seal(content, room, plain)?;
            taken += plain;
        }
        Ok(taken)
    }
}
