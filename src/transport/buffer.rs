//! Large byte buffers, lent for as long as bytes are in flight: a connection at rest holds none.
//!
//! Each thread keeps a few of them, so that lending costs no allocation and no lock.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Payload bytes that one buffer takes.
pub const PAYLOAD: usize = 64 * 1024;

/// Room for what records and frames add to [`PAYLOAD`].
const HEADROOM: usize = 1024;

/// Idle buffers that a thread keeps.
const KEPT: usize = 4;

thread_local! {
    static IDLE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of [`PAYLOAD`] bytes and some headroom; given back on drop. What it holds at first is left over from
/// its last use, so whoever borrows one must send only what it wrote itself.
pub struct Pooled(Box<[u8]>);

impl Pooled {
    /// Borrows a buffer, or makes one.
    pub fn take() -> Self {
        // The thread's store is gone only while the thread ends.
        let idle = IDLE.try_with(|idle| idle.borrow_mut().pop()).ok().flatten();
        Pooled(idle.unwrap_or_else(|| vec![0; PAYLOAD + HEADROOM].into_boxed_slice()))
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        let _ = IDLE.try_with(|idle| {
            let mut idle = idle.borrow_mut();
            if idle.len() < KEPT {
                idle.push(buffer);
            }
        });
    }
}

impl Deref for Pooled {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl std::fmt::Debug for Pooled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pooled")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle() -> usize {
        IDLE.with(|idle| idle.borrow().len())
    }

    #[test]
    fn buffers_come_back_and_few_are_kept() {
        let buffers: Vec<_> = (0..KEPT + 3).map(|_| Pooled::take()).collect();
        assert!(buffers.iter().all(|buffer| buffer.len() == PAYLOAD + HEADROOM));
        assert_eq!(idle(), 0);
        drop(buffers);
        assert_eq!(idle(), KEPT);
        let one = Pooled::take();
        assert_eq!(idle(), KEPT - 1);
        drop(one);
        assert_eq!(idle(), KEPT);
    }
}
