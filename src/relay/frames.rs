//! UDP frames on a data channel: bytes to frames, and frames to bytes in a bounded queue.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buffer::Buffer;
use crate::wire::Malformed;
use crate::wire::datagram::{Header, MAX_PAYLOAD};

/// Bytes in an [`Outbox`].
const QUEUE: usize = 1 << 20;

/// Bytes read at once: small frames each cost a system call afterwards.
const READ: usize = 32 * 1024;

/// Bytes read in one poll before others get their turn.
const TURN: usize = 128 * 1024;

/// A queue keeps at most this much memory while it is empty, in elements.
const SPARE: usize = 64;

/// Cuts a byte stream into frames. Between polls it holds nothing but a frame's beginning.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// The beginning of a frame that is not complete.
    begun: Vec<u8>,
}

/// Why no frame will come any more.
#[derive(Debug)]
pub(super) enum Broken {
    Ended,
    Failed(io::Error),
    Malformed(Malformed),
}

impl Inbox {
    /// Reads and hands over what is there now, within one turn. Ready: there will be no more.
    pub(super) fn poll<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        mut on_frame: impl FnMut(SocketAddr, &[u8]),
    ) -> Poll<Broken> {
        let mut buffer = Buffer::borrow();
        let mut turn = 0;
        while turn < TURN {
            let mut read = ReadBuf::new(buffer.get_mut(..READ).unwrap_or_default());
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut read)) {
                Ok(()) if read.filled().is_empty() && self.begun.is_empty() => {
                    return Poll::Ready(Broken::Ended);
                }
                Ok(()) if read.filled().is_empty() => {
                    let error = io::Error::new(io::ErrorKind::UnexpectedEof, "it ended within a UDP frame");
                    return Poll::Ready(Broken::Failed(error));
                }
                Ok(()) => {}
                Err(error) => return Poll::Ready(Broken::Failed(error)),
            }
            turn += read.filled().len();
            if let Err(malformed) = self.take(read.filled(), &mut on_frame) {
                return Poll::Ready(Broken::Malformed(malformed));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes the stream's next bytes. Each byte is copied at most once, however small the pieces are.
    pub(super) fn take(
        &mut self,
        mut new: &[u8],
        on_frame: &mut impl FnMut(SocketAddr, &[u8]),
    ) -> Result<(), Malformed> {
        while let Some(&announced) = self.begun.first() {
            let whole = match Header::decode(&self.begun)? {
                Some((header, start)) => {
                    let whole = start + usize::from(header.len);
                    if self.begun.len() == whole {
                        on_frame(header.visitor, self.begun.get(start..).unwrap_or_default());
                        self.begun = Vec::new();
                        break;
                    }
                    whole
                }
                None => 1 + usize::from(announced),
            };
            if new.is_empty() {
                return Ok(());
            }
            let (now, later) = new.split_at(new.len().min(whole - self.begun.len()));
            self.begun.reserve_exact(whole - self.begun.len());
            self.begun.extend_from_slice(now);
            new = later;
        }
        while let Some((header, start)) = Header::decode(new)? {
            let whole = start + usize::from(header.len);
            let Some((frame, later)) = new.split_at_checked(whole) else { break };
            on_frame(header.visitor, frame.get(start..).unwrap_or_default());
            new = later;
        }
        self.begun = new.to_vec();
        Ok(())
    }
}

/// Frames that wait for the data channel: bounded in bytes, and never blocking who has one to send.
///
/// No visitor can take all of it: each may only have as much in it as is still free. So a flood takes half, two
/// floods a third each, and there is always room for a visitor that has nothing in it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: VecDeque<u8>,
    /// Whose frames they are, and how long; the first may be partly written.
    frames: VecDeque<(SocketAddr, usize)>,
    /// Bytes of each visitor that has some.
    shares: HashMap<SocketAddr, usize>,
    /// Written bytes of the first frame.
    written: usize,
    unflushed: bool,
}

impl Outbox {
    /// Queues a frame. False: it was dropped.
    #[must_use]
    pub(super) fn push(&mut self, visitor: SocketAddr, payload: &[u8]) -> bool {
        let Some(len) = u16::try_from(payload.len()).ok().filter(|len| usize::from(*len) <= MAX_PAYLOAD)
        else {
            return false;
        };
        let (header, used) = Header { visitor, len }.encode();
        let whole = used + payload.len();
        let share = self.shares.entry(visitor).or_default();
        if *share + whole > QUEUE.saturating_sub(self.bytes.len()) {
            if *share == 0 {
                self.shares.remove(&visitor);
            }
            return false;
        }
        *share += whole;
        self.bytes.extend(header.get(..used).unwrap_or_default());
        self.bytes.extend(payload);
        self.frames.push_back((visitor, whole));
        true
    }

    /// Writes what the stream takes. Ready: all is written and flushed.
    pub(super) fn poll_write<K: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut K,
    ) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, self.bytes.as_slices().0))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.advance(n),
            }
            self.unflushed = true;
        }
        self.shrink();
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, n: usize) {
        self.bytes.drain(..n);
        self.written += n;
        while let Some(&(visitor, whole)) = self.frames.front().filter(|(_, whole)| *whole <= self.written) {
            self.written -= whole;
            self.frames.pop_front();
            if let Some(share) = self.shares.get_mut(&visitor) {
                *share -= whole;
                if *share == 0 {
                    self.shares.remove(&visitor);
                }
            }
        }
    }

    fn shrink(&mut self) {
        self.bytes.shrink_to(SPARE);
        self.frames.shrink_to(SPARE / 8);
        self.shares.shrink_to(SPARE / 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visitor(n: u16) -> SocketAddr {
        if n % 2 == 0 {
            SocketAddr::from(([192, 0, 2, 7], n))
        } else {
            SocketAddr::from(([0x2001, 0, 0, 0, 0, 0, 0, 1], n))
        }
    }

    fn drain(outbox: &mut Outbox) -> Vec<u8> {
        let mut all = Vec::new();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(outbox.poll_write(&mut cx, &mut all), Poll::Ready(Ok(()))));
        all
    }

    #[test]
    fn any_cut_of_the_bytes_gives_the_same_frames() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut outbox = Outbox::default();
            let mut sent = Vec::new();
            for _ in 0..random.usize(1..20) {
                let most = [1, 40, 2000, MAX_PAYLOAD + 1][random.usize(..4)];
                let payload: Vec<u8> = (0..random.usize(..most)).map(|_| random.u8(..)).collect();
                let visitor = visitor(random.u16(..));
                if outbox.push(visitor, &payload) {
                    sent.push((visitor, payload));
                }
            }
            let bytes = drain(&mut outbox);
            let (mut inbox, mut got, mut rest) = (Inbox::default(), Vec::new(), &bytes[..]);
            while !rest.is_empty() {
                let most = [1, 30, 3000, 200_000][random.usize(..4)];
                let (now, later) = rest.split_at(random.usize(1..=most).min(rest.len()));
                inbox.take(now, &mut |from, payload| got.push((from, payload.to_vec()))).unwrap();
                rest = later;
            }
            assert!(!sent.is_empty() && got == sent, "seed {seed}");
            assert_eq!(inbox.begun.capacity(), 0, "idle, it holds nothing");
        }
    }

    #[test]
    fn longer_headers_are_skipped_and_bad_ones_refused() {
        let frame = [14, 0, 0, 0, 0, 192, 0, 2, 7, 0x34, 0x12, 1, 0, 99, 99, b'x'];
        for cut in 0..frame.len() {
            let (mut inbox, mut got) = (Inbox::default(), Vec::new());
            for part in [&frame[..cut], &frame[cut..]] {
                inbox.take(part, &mut |from, payload| got.push((from, payload.to_vec()))).unwrap();
            }
            assert_eq!(got, [(SocketAddr::from(([192, 0, 2, 7], 4660)), b"x".to_vec())]);
        }
        for bad in [
            &[0][..],
            &[11],
            &[12, 2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
            &[12, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
        ] {
            assert!(Inbox::default().take(bad, &mut |_, _| panic!("a frame")).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_flood_leaves_room_for_others() {
        let mut outbox = Outbox::default();
        let payload = [0; 1000];
        let mut flood = 0;
        while outbox.push(visitor(2), &payload) {
            flood += 1;
        }
        assert!(
            (QUEUE / 2 - 2000..=QUEUE / 2 + 2000).contains(&outbox.bytes.len()),
            "{}",
            outbox.bytes.len()
        );
        assert!(outbox.push(visitor(4), &[0; MAX_PAYLOAD]));
        for _ in 0..100 {
            assert!(outbox.push(visitor(6), &payload));
        }
        assert!(!outbox.push(visitor(2), &payload));
        assert_eq!(drain(&mut outbox).len(), flood * 1013 + 13 + MAX_PAYLOAD + 100 * 1013);
        assert!(outbox.shares.is_empty() && outbox.frames.is_empty());
        assert!(outbox.bytes.capacity() <= SPARE, "idle, it holds next to nothing");
        assert!(outbox.push(visitor(2), &payload));
    }

    #[test]
    fn the_queue_is_bounded_whoever_sends() {
        let mut outbox = Outbox::default();
        for n in 0..u16::MAX {
            let _ = outbox.push(visitor(n), &[0; 1400]);
        }
        assert!(outbox.bytes.len() <= QUEUE);
        assert!(!outbox.push(visitor(2), &[0; MAX_PAYLOAD + 1]), "no UDP datagram is that long");
    }
}
