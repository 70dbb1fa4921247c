//! One large buffer for each thread, borrowed within a single poll and never across one: what a slow reader
//! leaves behind is copied out at its exact size ([`Rest`]), so an idle connection holds nothing.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

/// Bytes in a [`Buffer`]: more than the longest UDP frame, and eight full TLS records.
pub(super) const SIZE: usize = 128 * 1024;

thread_local! {
    static SPARE: Cell<Box<[u8]>> = Cell::default();
}

/// This thread's buffer; its content is whatever was last in it.
pub(super) struct Buffer(Box<[u8]>);

impl Buffer {
    /// Takes the thread's buffer; a new one if it is in use (then one of the two is freed afterwards).
    pub(super) fn borrow() -> Self {
        let spare = SPARE.take();
        Buffer(if spare.is_empty() { vec![0; SIZE].into_boxed_slice() } else { spare })
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // Fails only while the thread ends.
        let _ = SPARE.try_with(|spare| spare.set(buffer));
    }
}

/// Bytes that were read and could not be written yet.
#[derive(Debug)]
pub(super) struct Rest {
    bytes: Box<[u8]>,
    start: usize,
}

impl Rest {
    /// Keeps a copy of `bytes`.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Rest { bytes: bytes.into(), start: 0 }
    }

    /// What is still to be written.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Notes that the first `n` of [`Rest::bytes`] were written.
    pub(super) fn advance(&mut self, n: usize) {
        self.start += n;
    }
}
