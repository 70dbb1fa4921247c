//! The mask that a client puts over its payload, so that no middlebox takes it for something else.

use std::cell::RefCell;
use std::io;

/// A fresh random key for each frame.
pub fn random() -> io::Result<[u8; 4]> {
    thread_local! {
        /// One call for 64 keys: random bytes, and how many of them are used.
        static STOCK: RefCell<([u8; 256], usize)> = const { RefCell::new(([0; 256], 256)) };
    }
    STOCK.with(|stock| {
        let (bytes, used) = &mut *stock.borrow_mut();
        if *used == bytes.len() {
            getrandom::fill(bytes).map_err(|error| io::Error::other(format!("no randomness: {error}")))?;
            *used = 0;
        }
        let key = [bytes[*used], bytes[*used + 1], bytes[*used + 2], bytes[*used + 3]];
        *used += key.len();
        Ok(key)
    })
}

/// Masks or unmasks in place. `phase` is how many bytes of the payload came before.
pub fn apply(bytes: &mut [u8], key: [u8; 4], phase: u64) {
    let wide = widen(key, phase);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let masked = wide ^ chunk.first_chunk().map_or(0, |chunk| u64::from_ne_bytes(*chunk));
        chunk.copy_from_slice(&masked.to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(wide.to_ne_bytes()) {
        *byte ^= key;
    }
}

/// Masks from one slice to another of the same length.
pub fn copy(from: &[u8], to: &mut [u8], key: [u8; 4]) {
    let wide = widen(key, 0);
    let (mut from, mut to) = (from.chunks_exact(8), to.chunks_exact_mut(8));
    for (from, to) in (&mut from).zip(&mut to) {
        let masked = wide ^ from.first_chunk().map_or(0, |chunk| u64::from_ne_bytes(*chunk));
        to.copy_from_slice(&masked.to_ne_bytes());
    }
    for ((from, to), key) in from.remainder().iter().zip(to.into_remainder()).zip(wide.to_ne_bytes()) {
        *to = from ^ key;
    }
}

fn widen(key: [u8; 4], phase: u64) -> u64 {
    let at = |i: u64| key[((phase + i) % 4) as usize];
    u64::from_ne_bytes([at(0), at(1), at(2), at(3), at(0), at(1), at(2), at(3)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_byte_by_byte_mask_of_the_rfc() {
        let key = [1, 2, 4, 8];
        for len in 0..40 {
            for phase in 0..5 {
                let bytes: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
                let expect: Vec<u8> = (0..len).map(|i| bytes[i] ^ key[(i + phase) % 4]).collect();
                let mut masked = bytes.clone();
                apply(&mut masked, key, phase as u64);
                assert_eq!(masked, expect);
                if phase == 0 {
                    masked.fill(0);
                    copy(&bytes, &mut masked, key);
                    assert_eq!(masked, expect);
                }
            }
        }
    }

    #[test]
    fn keys_differ() {
        let keys: std::collections::HashSet<_> = (0..1000).map(|_| random().unwrap()).collect();
        assert!(keys.len() > 990, "{}", keys.len());
    }
}
