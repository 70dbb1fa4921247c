//! Fuzz targets: UDP frames to and from a data channel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::{cmp, io};

use tokio::io::AsyncWrite;

use super::frames::{Inbox, Outbox};
use crate::fuzzing::{Input, pieces};
use crate::wire::Malformed;
use crate::wire::datagram::Header;

type Frame = (SocketAddr, Vec<u8>);

/// A data channel's bytes give the same frames however they are cut, and those that a plain reading gives.
pub(crate) fn frames(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let cuts = input.cuts();
    let stream = input.rest();
    let expected = plainly(stream);
    assert_eq!(taken(&[stream]), expected);
    assert_eq!(taken(&pieces(stream, &cuts)), expected);
    let each: Vec<_> = stream.chunks(1).collect();
    if each.len() < 2000 {
        assert_eq!(taken(&each), expected);
    }
}

/// The frames, and what was wrong in the end.
fn taken(pieces: &[&[u8]]) -> (Vec<Frame>, Option<Malformed>) {
    let (mut inbox, mut frames) = (Inbox::default(), Vec::new());
    for piece in pieces {
        let done = inbox.take(piece, &mut |from, payload: &[u8]| frames.push((from, payload.to_vec())));
        if let Err(malformed) = done {
            return (frames, Some(malformed));
        }
    }
    (frames, None)
}

/// The same from all bytes at once.
fn plainly(mut stream: &[u8]) -> (Vec<Frame>, Option<Malformed>) {
    let mut frames = Vec::new();
    loop {
        match Header::decode(stream) {
            Err(malformed) => return (frames, Some(malformed)),
            Ok(None) => return (frames, None),
            Ok(Some((header, start))) => {
                let end = start + usize::from(header.len);
                let Some(payload) = stream.get(start..end) else { return (frames, None) };
                frames.push((header.visitor, payload.to_vec()));
                stream = &stream[end..];
            }
        }
    }
}

/// Whatever is queued and whatever the data channel takes at a time: it gets whole frames, those that were accepted,
/// each visitor's in their order; and a visitor that has nothing queued is not refused.
pub(crate) fn outbox(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (mut outbox, mut sink) = (Outbox::default(), Sink::default());
    let mut accepted: Vec<Frame> = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    while !input.is_empty() {
        match input.byte() {
            most @ 0..64 => {
                sink.room = usize::from(most) * 700;
                let done = outbox.poll_write(&mut cx, &mut sink);
                assert!(!matches!(done, Poll::Ready(Err(_))));
            }
            who => {
                let visitor = match who % 5 {
                    0 => SocketAddr::from(([0x2001, 0, 0, 0, 0, 0, 0, 1], 7)),
                    n => SocketAddr::from(([192, 0, 2, n], 7)),
                };
                let payload = vec![who; input.word()];
                if outbox.push(visitor, &payload) {
                    accepted.push((visitor, payload));
                } else {
                    // Four others together leave at least a sixteenth of the queue, but for what is being written.
                    assert!(payload.len() > 1 << 15 || accepted.iter().any(|(known, _)| *known == visitor));
                }
            }
        }
    }
    sink.room = usize::MAX;
    assert!(matches!(outbox.poll_write(&mut cx, &mut sink), Poll::Ready(Ok(()))));
    let (mut written, fault) = plainly(&sink.written);
    written.sort_by_key(|(visitor, _)| *visitor);
    accepted.sort_by_key(|(visitor, _)| *visitor);
    assert!(written == accepted && fault.is_none(), "other frames than were accepted");
}

/// A data channel that takes so many bytes now.
#[derive(Default)]
struct Sink {
    written: Vec<u8>,
    room: usize,
}

impl AsyncWrite for Sink {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = cmp::min(bytes.len(), this.room);
        if n == 0 {
            return Poll::Pending;
        }
        this.room -= n;
        this.written.extend_from_slice(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
