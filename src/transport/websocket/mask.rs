//! The mask that a client puts over its payload, so that no middlebox takes it for something else.

use std::cell::RefCell;
use std::io;

/// A fresh random key for each frame.
pub fn random() -> io::Result<[u8; 4]> {
    thread_local! {
        /// One call for 64 keys: random bytes, and how many of them are used.
        static STOCK: RefCell<([[u8; 4]; 64], usize)> = const { RefCell::new(([[0; 4]; 64], 64)) };
    }
    STOCK.with(|stock| {
        let (keys, used) = &mut *stock.borrow_mut();
        if *used >= keys.len() {
            let filled = getrandom::fill(keys.as_flattened_mut());
            filled.map_err(|error| io::Error::other(format!("no randomness: {error}")))?;
            *used = 0;
        }
        let key = keys.get(*used).copied().ok_or_else(|| io::Error::other("no key for a mask"))?;
        *used += 1;
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
    let [a, b, c, d] = u32::from_be_bytes(key).rotate_left(8 * (phase % 4) as u32).to_be_bytes();
    u64::from_ne_bytes([a, b, c, d, a, b, c, d])
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
