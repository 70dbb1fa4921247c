//! Bytes on their way through a stream, in a buffer borrowed from a pool of the thread: a connection holds one only
//! while it holds bytes.
//!
//! What it decides: how large a buffer is and how many wait for reuse. It never hands out bytes it was not given:
//! a [`Queue`] shows only what was put into it since it was taken.

use std::cell::RefCell;
use std::ops::Range;

use tokio::io::ReadBuf;

/// Enough for a message of the handshake; not pooled.
const SMALL: usize = 4 * 1024;

/// Enough for the largest Noise record and the one behind it.
const LARGE: usize = 128 * 1024 + 4 * 1024;

/// Buffers of [`LARGE`] bytes that one thread keeps for reuse.
const KEPT: usize = 8;

thread_local! {
    static POOL: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes in the middle of a buffer: filled at the end, consumed at the front. Its drop gives it back.
#[derive(Default)]
pub struct Queue {
    bytes: Box<[u8]>,
    held: Range<usize>,
}

impl Queue {
    /// An empty buffer with room for at least `size` bytes, but never more than the size of a large one.
    pub fn with_room(size: usize) -> Self {
        let bytes = if size <= SMALL {
            vec![0; SMALL].into_boxed_slice()
        } else {
            // A thread that is ending has no pool any more.
            let kept = POOL.try_with(|pool| pool.borrow_mut().pop()).ok().flatten();
            kept.unwrap_or_else(|| vec![0; LARGE].into_boxed_slice())
        };
        Queue { bytes, held: 0..0 }
    }

    /// Holds these bytes, in memory of their size; no buffer at all if there are none.
    pub fn of(bytes: &[u8]) -> Self {
        Queue { bytes: bytes.into(), held: 0..bytes.len() }
    }

    /// An empty buffer that is at most twice as large as needed: for what a stranger makes us keep.
    fn fitting(size: usize) -> Self {
        let fitting = size.max(SMALL).next_power_of_two();
        if fitting >= LARGE {
            return Queue::with_room(LARGE);
        }
        Queue { bytes: vec![0; fitting].into_boxed_slice(), held: 0..0 }
    }

    /// Bytes of memory this takes.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes put in and not consumed.
    pub fn held(&self) -> &[u8] {
        self.bytes.get(self.held.clone()).unwrap_or_default()
    }

    /// How many bytes are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nothing is held: then the buffer may be dropped.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Room behind the held bytes.
    pub fn room(&self) -> usize {
        self.bytes.len() - self.held.end
    }

    /// The room behind the held bytes, to be filled and then declared with [`Queue::filled`].
    pub fn spare(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.held.end..).unwrap_or_default()
    }

    /// The first `n` bytes of [`Queue::spare`] are held from now on.
    pub fn filled(&mut self, n: usize) {
        self.held.end = (self.held.end + n).min(self.bytes.len());
    }

    /// Lets go of the first `n` held bytes.
    pub fn consume(&mut self, n: usize) {
        self.held.start = (self.held.start + n).min(self.held.end);
    }

    /// Moves as many held bytes as fit to a reader's buffer.
    pub fn read(&mut self, into: &mut ReadBuf<'_>) {
        let now = self.held();
        let now = now.get(..into.remaining()).unwrap_or(now);
        into.put_slice(now);
        let n = now.len();
        self.consume(n);
    }

    /// Adds as many bytes as there is room for; says how many.
    pub fn put(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.room());
        let (Some(to), Some(from)) = (self.spare().get_mut(..n), bytes.get(..n)) else { return 0 };
        to.copy_from_slice(from);
        self.filled(n);
        n
    }

    /// Moves the held bytes to the front, and into a larger buffer if they would have less than `room` behind them.
    pub fn make_room(&mut self, room: usize) {
        if self.room() >= room {
            return;
        }
        if self.len() + room > self.bytes.len() && self.bytes.len() < LARGE {
            let mut larger = Queue::fitting(self.len() + room);
            larger.put(self.held());
            *self = larger;
        } else {
            self.bytes.copy_within(self.held.clone(), 0);
            self.held = 0..self.held.len();
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.bytes.len() == LARGE {
            let bytes = std::mem::take(&mut self.bytes);
            let _ = POOL.try_with(|pool| {
                let mut pool = pool.borrow_mut();
                if pool.len() < KEPT {
                    pool.push(bytes);
                }
            });
        }
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_put_in_and_nothing_else() {
        let mut first = Queue::with_room(SMALL + 1);
        assert_eq!(first.put(&[7; 9000]), 9000);
        drop(first);
        let mut again = Queue::with_room(SMALL + 1);
        assert_eq!(again.held(), b"");
        again.put(b"hello");
        again.consume(2);
        assert_eq!(again.held(), b"llo");
    }

    #[test]
    fn grows_and_moves_to_make_room() {
        let mut buffer = Queue::with_room(1);
        buffer.put(&[1; SMALL]);
        buffer.consume(SMALL - 3);
        buffer.make_room(SMALL - 3);
        assert_eq!((buffer.held(), buffer.room()), (&[1, 1, 1][..], SMALL - 3));
        buffer.make_room(SMALL);
        assert_eq!((buffer.held(), buffer.room()), (&[1, 1, 1][..], 2 * SMALL - 3));
        buffer.make_room(LARGE - 3);
        assert_eq!((buffer.held(), buffer.room()), (&[1, 1, 1][..], LARGE - 3));
        assert_eq!(buffer.put(&[2; LARGE]), LARGE - 3);
    }

    #[test]
    fn the_pool_is_bounded() {
        let many: Vec<_> = (0..3 * KEPT).map(|_| Queue::with_room(LARGE)).collect();
        drop(many);
        POOL.with(|pool| assert_eq!(pool.borrow().len(), KEPT));
    }
}
