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

/// Of these, bytes whose order is settled: what one write may take.
const NEXT: usize = 32 * 1024;

/// What a frame that waits for its turn costs beside its bytes.
const OVERHEAD: usize = 64;

/// Bytes that each visitor may have written before the next visitor's turn.
const QUANTUM: usize = 2048;

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
            let end = start + usize::from(header.len);
            let Some((frame, rest)) = new.split_at_checked(end) else { break };
            on_frame(header.visitor, frame.get(start..).unwrap_or_default());
            new = rest;
        }
        self.begun = new.to_vec();
        Ok(())
    }
}

/// Frames that wait for the data channel: bounded in bytes, and never blocking who has one to send.
///
/// No visitor can take all of it: each may only have as much waiting as is still free. So a flood takes half, two
/// floods a third each, and there is always room for a visitor that has nothing in it. Nor can one delay the others by
/// much: visitors take turns, byte for byte. One visitor's frames stay in their order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// What is written next.
    next: VecDeque<u8>,
    /// Frames that wait until there is room in `next`.
    queues: HashMap<SocketAddr, Queue>,
    /// The visitors that have some, in the order of their turns.
    turns: VecDeque<SocketAddr>,
    /// The cost of all of them.
    waiting: usize,
    unflushed: bool,
}

/// One visitor's frames.
#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Box<[u8]>>,
    /// What they cost.
    waiting: usize,
    /// Bytes it may have written in this turn.
    credit: usize,
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
        let header = header.get(..used).unwrap_or_default();
        if self.turns.is_empty() && self.next.len() < NEXT {
            self.next.extend(header);
            self.next.extend(payload);
            return true;
        }
        let cost = used + payload.len() + OVERHEAD;
        let share = self.queues.get(&visitor).map_or(0, |queue| queue.waiting);
        if share + cost > QUEUE.saturating_sub(self.next.len() + self.waiting) {
            return false;
        }
        let queue = self.queues.entry(visitor).or_default();
        if queue.frames.is_empty() {
            self.turns.push_back(visitor);
        }
        queue.frames.push_back([header, payload].concat().into());
        queue.waiting += cost;
        self.waiting += cost;
        true
    }

    /// Writes what the stream takes. Ready: all is written and flushed.
    pub(super) fn poll_write<K: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut K,
    ) -> Poll<io::Result<()>> {
        loop {
            self.fill();
            if self.next.is_empty() {
                break;
            }
            match ready!(Pin::new(&mut *stream).poll_write(cx, self.next.as_slices().0))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => drop(self.next.drain(..n.min(self.next.len()))),
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

    /// Settles what is written next: visitors take turns, and who has large frames must save for them.
    fn fill(&mut self) {
        while self.next.len() < NEXT {
            let Some(visitor) = self.turns.pop_front() else { return };
            let Some(queue) = self.queues.get_mut(&visitor) else { continue };
            queue.credit += QUANTUM;
            while let Some(frame) = queue.frames.pop_front() {
                if frame.len() > queue.credit {
                    queue.frames.push_front(frame);
                    break;
                }
                let cost = frame.len() + OVERHEAD;
                queue.credit -= frame.len();
                queue.waiting = queue.waiting.saturating_sub(cost);
                self.waiting = self.waiting.saturating_sub(cost);
                self.next.extend(&*frame);
            }
            if queue.frames.is_empty() {
                self.queues.remove(&visitor);
            } else {
                self.turns.push_back(visitor);
            }
        }
    }

    fn shrink(&mut self) {
        self.next.shrink_to(SPARE);
        self.queues.shrink_to(SPARE / 8);
        self.turns.shrink_to(SPARE / 8);
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
            // Visitors take turns; each one's frames are in order.
            sent.sort_by_key(|(visitor, _)| *visitor);
            got.sort_by_key(|(visitor, _)| *visitor);
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
        let half = (QUEUE - NEXT) / 2 - 2000..=(QUEUE - NEXT) / 2 + 2000;
        assert!(half.contains(&outbox.waiting), "{}", outbox.waiting);
        assert!(outbox.push(visitor(4), &[0; MAX_PAYLOAD]));
        for _ in 0..100 {
            assert!(outbox.push(visitor(6), &payload));
        }
        assert!(!outbox.push(visitor(2), &payload));
        assert_eq!(drain(&mut outbox).len(), flood * 1013 + 13 + MAX_PAYLOAD + 100 * 1013);
        assert!(outbox.queues.is_empty() && outbox.turns.is_empty() && outbox.waiting == 0);
        assert!(outbox.next.capacity() <= SPARE, "idle, it holds next to nothing");
        assert!(outbox.push(visitor(2), &payload));
    }

    /// The frames that are in these bytes.
    fn frames(bytes: &[u8]) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut frames = Vec::new();
        Inbox::default().take(bytes, &mut |from, payload| frames.push((from, payload.to_vec()))).unwrap();
        frames
    }

    #[test]
    fn a_flood_does_not_delay_others() {
        for size in [10, 1000, MAX_PAYLOAD] {
            let mut outbox = Outbox::default();
            while outbox.push(visitor(2), &vec![0; size]) {}
            while outbox.push(visitor(3), &vec![0; size]) {}
            assert!(outbox.push(visitor(4), b"now"));
            let all = drain(&mut outbox);
            let mut before = 0;
            for (from, payload) in frames(&all) {
                if from == visitor(4) {
                    break;
                }
                before += payload.len();
            }
            // What was settled when it came, and a turn of each other visitor.
            let most = NEXT + size + 2 * QUANTUM;
            assert!(before <= most, "{before} of {} bytes went before it, {size} bytes each", all.len());
        }
    }

    /// Two visitors that always have something to say get the same share, whatever the size of their datagrams.
    #[test]
    fn visitors_share_byte_for_byte() {
        let mut outbox = Outbox::default();
        let (large, small) = (vec![2; 60_000], [4; 100]);
        let mut sent = [0; 2];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut bytes = Vec::new();
        for _ in 0..2000 {
            while outbox.push(visitor(2), &large) {}
            while outbox.push(visitor(4), &small) {}
            // The stream takes a little at a time.
            let mut some = [0; 5000];
            let taken = outbox.poll_write(&mut cx, &mut io::Cursor::new(&mut some[..]));
            assert!(matches!(taken, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::WriteZero));
            bytes.extend(some);
        }
        let mut inbox = Inbox::default();
        inbox
            .take(&bytes, &mut |from, payload| sent[usize::from(from == visitor(4))] += payload.len())
            .unwrap();
        let (more, less) = (sent[0].max(sent[1]), sent[0].min(sent[1]));
        assert!(less > 1 << 20 && more < less * 5 / 4, "{sent:?}");
    }

    #[test]
    fn one_visitor_s_frames_stay_in_order() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut outbox = Outbox::default();
            let mut sent: HashMap<SocketAddr, Vec<Vec<u8>>> = HashMap::new();
            let mut got = sent.clone();
            let mut bytes = Vec::new();
            let mut cx = Context::from_waker(std::task::Waker::noop());
            for _ in 0..random.usize(1..600) {
                let visitor = visitor(random.u16(..4));
                let size = [1, 300, 5000, MAX_PAYLOAD + 1][random.usize(..4)];
                let payload: Vec<u8> = (0..random.usize(..size)).map(|_| random.u8(..)).collect();
                if outbox.push(visitor, &payload) {
                    sent.entry(visitor).or_default().push(payload);
                }
                if random.u8(..10) == 0 {
                    let mut some = vec![0; random.usize(1..50_000)];
                    let mut cursor = io::Cursor::new(&mut some[..]);
                    let _ = outbox.poll_write(&mut cx, &mut cursor);
                    let taken = cursor.position() as usize;
                    bytes.extend_from_slice(&some[..taken]);
                }
            }
            bytes.extend(drain(&mut outbox));
            for (from, payload) in frames(&bytes) {
                got.entry(from).or_default().push(payload);
            }
            assert!(!sent.is_empty() && got == sent, "seed {seed}");
        }
    }

    #[test]
    fn the_queue_is_bounded_whoever_sends() {
        let mut outbox = Outbox::default();
        for n in 0..u16::MAX {
            let _ = outbox.push(visitor(n), &[0; 1400]);
        }
        assert!(outbox.next.len() + outbox.waiting <= QUEUE);
        assert!(!outbox.push(visitor(2), &[0; MAX_PAYLOAD + 1]), "no UDP datagram is that long");
    }
}
