//! TLS records after the handshake: sealing and opening in place, with keys and counters of our own.
//!
//! rustls does the handshake and hands over the traffic keys; from then on a connection is two keys and two
//! counters. So no copy is made that is not needed, and a connection at rest holds no buffer. What is sealed and
//! how is RFC 8446, section 5 (TLS 1.3), RFC 5246, 6.2.3.3 with RFC 5288 and RFC 7905 (TLS 1.2).

use std::io;

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets as Secrets;

/// Type, version, length.
pub const HEADER: usize = 5;
/// Plain bytes that one record may carry.
pub const MAX_PLAIN: usize = 16 * 1024;
/// What one record adds at most to its plain bytes: header, explicit nonce (8) or inner type (1), tag.
#[cfg(any(fuzzing, test))]
pub const OVERHEAD: usize = HEADER + 8 + TAG;
/// The longest record that a peer may send, with its header.
pub const MAX_RECORD: usize = HEADER + MAX_PLAIN + 2048;

const TAG: usize = 16;
const NONCE: usize = 12;

/// Records that AES-GCM may seal under one key before TLS 1.3 changes it (RFC 8446, 5.5), with a margin.
const KEY_LIFE: u64 = 1 << 23;

/// A record's content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Alert.
    Alert,
    /// A message of the handshake protocol, here after the handshake.
    Handshake,
    /// Application data.
    Data,
}

impl Content {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            21 => Some(Content::Alert),
            22 => Some(Content::Handshake),
            23 => Some(Content::Data),
            _ => None,
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            Content::Alert => 21,
            Content::Handshake => 22,
            Content::Data => 23,
        }
    }
}

/// Which layout the records have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// TLS 1.2 with AES-GCM: 8 bytes of the nonce are in the record.
    Gcm12,
    /// TLS 1.2 with ChaCha20-Poly1305.
    ChaCha12,
    /// TLS 1.3: the real content type is inside.
    Tls13,
}

impl Layout {
    fn explicit_nonce(self) -> usize {
        match self {
            Layout::Gcm12 => 8,
            Layout::ChaCha12 | Layout::Tls13 => 0,
        }
    }

    /// Bytes that may be sealed beyond [`MAX_PLAIN`]: the inner type. Padding is only for shorter ones.
    fn inner_type(self) -> usize {
        match self {
            Layout::Tls13 => 1,
            Layout::Gcm12 | Layout::ChaCha12 => 0,
        }
    }
}

/// The key, counter and layout of one direction.
pub struct Keys {
    key: LessSafeKey,
    iv: [u8; NONCE],
    sequence: u64,
    layout: Layout,
}

impl Keys {
    /// From what rustls extracts: the sequence number of the next record, and its key.
    pub fn new(tls13: bool, (sequence, secrets): (u64, Secrets)) -> io::Result<Self> {
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match secrets {
            Secrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            Secrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            Secrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(io::Error::other("the cipher suite agreed on is not one we offer")),
        };
        let layout = match (tls13, algorithm == &CHACHA20_POLY1305) {
            (true, _) => Layout::Tls13,
            (false, true) => Layout::ChaCha12,
            (false, false) => Layout::Gcm12,
        };
        let bad = || io::Error::other("the handshake gave a key of the wrong length");
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| bad())?;
        let iv = iv.as_ref().try_into().map_err(|_| bad())?;
        Ok(Keys { key: LessSafeKey::new(key), iv, sequence, layout })
    }

    /// Whether a new key is due. Never in TLS 1.2, which has no way to change it: there a long-lived channel goes
    /// on past the recommended amount, as with OpenSSL, instead of being cut.
    pub fn are_worn_out(&self) -> bool {
        self.layout == Layout::Tls13
            && self.sequence >= KEY_LIFE
            && self.key.algorithm() != &CHACHA20_POLY1305
    }

    /// Whether these keys belong to TLS 1.3.
    pub fn are_tls13(&self) -> bool {
        self.layout == Layout::Tls13
    }

    /// Where in a record to seal its plain bytes begin.
    pub fn plain_offset(&self) -> usize {
        HEADER + self.layout.explicit_nonce()
    }

    /// Makes a record of the `plain` bytes that the caller has put at [`Keys::plain_offset`] of `room`, which must
    /// be longer than them by 29, at most, for header, nonce or type, and tag. Returns the record's length.
    pub fn seal(&mut self, content: Content, room: &mut [u8], plain: usize) -> io::Result<usize> {
        let parts = Parts::of(room, self.layout, plain).filter(|_| plain <= MAX_PLAIN);
        let Parts { header, explicit, text, tag: tag_at } = parts.ok_or_else(no_room)?;
        let sequence = self.next_sequence()?;
        let nonce = masked(&self.iv, sequence);
        let (outer, aad) = match self.layout {
            Layout::Tls13 => {
                text.iter_mut().skip(plain).for_each(|byte| *byte = content.to_byte());
                (Content::Data.to_byte(), None)
            }
            Layout::Gcm12 => {
                explicit.copy_from_slice(&nonce[4..]);
                (content.to_byte(), Some(aad12(sequence, content.to_byte(), plain)))
            }
            Layout::ChaCha12 => (content.to_byte(), Some(aad12(sequence, content.to_byte(), plain))),
        };
        let length = explicit.len() + text.len() + TAG;
        *header = [outer, 3, 3, (length >> 8) as u8, length as u8];
        let aad = aad.as_ref().map_or(&header[..], |aad| &aad[..]);
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), text)
            .map_err(|_| io::Error::other("a record could not be sealed"))?;
        tag_at.copy_from_slice(tag.as_ref());
        Ok(HEADER + length)
    }

    /// Opens a whole record in place. Returns its content type and where in `record` its plain bytes are.
    pub fn open(&mut self, record: &mut [u8]) -> io::Result<(Content, std::ops::Range<usize>)> {
        let begin = self.plain_offset();
        let short = || invalid("the peer sent a TLS record that is too short");
        let (header, rest) = record.split_first_chunk_mut::<HEADER>().ok_or_else(short)?;
        let (explicit, sealed) = rest.split_at_mut_checked(self.layout.explicit_nonce()).ok_or_else(short)?;
        let plain = sealed.len().checked_sub(TAG).ok_or_else(short)?;
        if plain > MAX_PLAIN + self.layout.inner_type() {
            return Err(invalid("the peer sent a TLS record that is too long"));
        }
        let sequence = self.next_sequence()?;
        let mut nonce = masked(&self.iv, sequence);
        if self.layout == Layout::Gcm12 {
            nonce[..4].copy_from_slice(&self.iv[..4]);
            nonce[4..].copy_from_slice(explicit);
        }
        let aad12 = aad12(sequence, header[0], plain);
        let aad = if self.layout == Layout::Tls13 { &header[..] } else { &aad12[..] };
        let opened = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), sealed)
            .map_err(|_| invalid("a TLS record was altered on its way"))?;
        let (content, length) = match self.layout {
            Layout::Gcm12 | Layout::ChaCha12 => (header[0], opened.len()),
            Layout::Tls13 if header[0] != Content::Data.to_byte() => (0, 0),
            // Padding: zeros after the type.
            Layout::Tls13 => match opened.iter().enumerate().rfind(|(_, byte)| **byte != 0) {
                Some((last, byte)) => (*byte, last),
                None => (0, 0),
            },
        };
        match Content::from_byte(content) {
            Some(content) => Ok((content, begin..begin + length)),
            None => Err(invalid("the peer sent a TLS record of an unexpected type")),
        }
    }

    fn next_sequence(&mut self) -> io::Result<u64> {
        let sequence = self.sequence;
        // 2^64 records: never in practice, but a nonce must never come twice.
        self.sequence = sequence.checked_add(1).ok_or_else(|| io::Error::other("the TLS key is used up"))?;
        Ok(sequence)
    }
}

/// The parts of a record to be sealed.
struct Parts<'a> {
    header: &'a mut [u8; HEADER],
    explicit: &'a mut [u8],
    /// The plain bytes and, in TLS 1.3, the inner type.
    text: &'a mut [u8],
    tag: &'a mut [u8; TAG],
}

impl<'a> Parts<'a> {
    /// At the beginning of `room`, for so many plain bytes; None: there is too little.
    fn of(room: &'a mut [u8], layout: Layout, plain: usize) -> Option<Self> {
        let (header, rest) = room.split_first_chunk_mut()?;
        let (explicit, rest) = rest.split_at_mut_checked(layout.explicit_nonce())?;
        let (text, rest) = rest.split_at_mut_checked(plain + layout.inner_type())?;
        Some(Parts { header, explicit, text, tag: rest.first_chunk_mut()? })
    }
}

/// A fault of ours.
pub fn no_room() -> io::Error {
    io::Error::other("a record without room")
}

/// The length of the record that begins `bytes`, once its header is there.
pub fn record_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let [kind, major, _, high, low, ..] = *bytes else { return Ok(None) };
    let length = HEADER + usize::from(u16::from_be_bytes([high, low]));
    if !(20..=24).contains(&kind) || major != 3 || length > MAX_RECORD {
        return Err(invalid("the peer sent something that is no TLS record"));
    }
    Ok(Some(length))
}

/// A fault of the peer.
pub fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

fn masked(iv: &[u8; NONCE], sequence: u64) -> [u8; NONCE] {
    let mut nonce = *iv;
    nonce[4..].iter_mut().zip(sequence.to_be_bytes()).for_each(|(nonce, byte)| *nonce ^= byte);
    nonce
}

fn aad12(sequence: u64, content: u8, plain: usize) -> [u8; 13] {
    let mut aad = [0; 13];
    aad[..8].copy_from_slice(&sequence.to_be_bytes());
    aad[8..].copy_from_slice(&[content, 3, 3, (plain >> 8) as u8, plain as u8]);
    aad
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::cipher::{AeadKey, Iv};

    fn secrets(key: [u8; 32]) -> Secrets {
        Secrets::Chacha20Poly1305 { key: AeadKey::from(key), iv: Iv::copy(&[7; 12]) }
    }

    fn pairs() -> Vec<(Keys, Keys)> {
        let gcm = || Secrets::Aes256Gcm { key: AeadKey::from([3; 32]), iv: Iv::copy(&[9; 12]) };
        let make = |tls13, secrets: &dyn Fn() -> Secrets| {
            (Keys::new(tls13, (5, secrets())).unwrap(), Keys::new(tls13, (5, secrets())).unwrap())
        };
        let chacha = || secrets([1; 32]);
        vec![make(true, &gcm), make(true, &chacha), make(false, &gcm), make(false, &chacha)]
    }

    fn sealed(keys: &mut Keys, content: Content, plain: &[u8]) -> Vec<u8> {
        let mut room = vec![0; plain.len() + OVERHEAD];
        let begin = keys.plain_offset();
        room[begin..begin + plain.len()].copy_from_slice(plain);
        let length = keys.seal(content, &mut room, plain.len()).unwrap();
        room.truncate(length);
        room
    }

    #[test]
    fn what_is_sealed_is_opened() {
        for (mut seal, mut open) in pairs() {
            for plain in [&b""[..], b"x", &[5; MAX_PLAIN]] {
                let mut record = sealed(&mut seal, Content::Data, plain);
                assert_eq!(record_length(&record).unwrap(), Some(record.len()));
                let (content, range) = open.open(&mut record).unwrap();
                assert_eq!((content, &record[range]), (Content::Data, plain));
            }
        }
    }

    #[test]
    fn every_altered_byte_is_seen() {
        for (mut seal, _) in pairs() {
            let record = sealed(&mut seal, Content::Data, b"hello");
            for at in 0..record.len() {
                // TLS 1.2 does not cover the length bytes and the version: they are not used to open.
                if (1..HEADER).contains(&at) && !seal.are_tls13() {
                    continue;
                }
                for (_, mut open) in pairs().into_iter().filter(|(keys, _)| keys.layout == seal.layout) {
                    let mut altered = record.clone();
                    altered[at] ^= 1;
                    assert!(open.open(&mut altered).is_err(), "byte {at} of {:?}", seal.layout);
                }
            }
        }
    }

    #[test]
    fn replay_and_truncation_are_seen() {
        for (mut seal, mut open) in pairs() {
            let record = sealed(&mut seal, Content::Data, b"hello");
            assert!(open.open(&mut record.clone()).is_ok());
            assert!(open.open(&mut record.clone()).is_err());
            for length in 0..record.len() {
                assert!(open.open(&mut record[..length].to_vec()).is_err());
            }
        }
    }

    /// Padding counts: RFC 8446, 5.4 allows content, type and padding of 2^14 + 1 bytes together.
    #[test]
    fn padding_is_taken_off_and_counts() {
        let gcm = || Secrets::Aes256Gcm { key: AeadKey::from([3; 32]), iv: Iv::copy(&[9; 12]) };
        for (inner, fits) in
            [(3, true), (MAX_PLAIN + 1, true), (MAX_PLAIN + 2, false), (MAX_PLAIN + 256, false)]
        {
            let (seal, mut open) =
                (Keys::new(true, (0, gcm())).unwrap(), Keys::new(true, (0, gcm())).unwrap());
            let mut bytes = vec![0; inner];
            bytes[..2].copy_from_slice(&[b'x', 23]);
            let length = inner + TAG;
            let header = [23, 3, 3, (length >> 8) as u8, length as u8];
            let nonce = Nonce::assume_unique_for_key(seal.iv);
            let tag = seal.key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut bytes).unwrap();
            let mut record = [&header[..], &bytes, tag.as_ref()].concat();
            match open.open(&mut record) {
                Ok((content, range)) => {
                    assert!(fits, "{inner}");
                    assert_eq!((content, &record[range]), (Content::Data, &b"x"[..]));
                }
                Err(fault) => assert!(!fits && fault.to_string().contains("too long"), "{inner}: {fault}"),
            }
        }
    }

    #[test]
    fn what_is_no_tls_is_seen_by_its_header() {
        assert_eq!(record_length(b"\x17\x03\x03\x00").unwrap(), None);
        assert!(record_length(b"GET / HTTP/1.1").is_err());
        assert!(record_length(b"\x17\x03\x03\xff\xff").is_err());
    }

    #[test]
    fn worn_out_keys_are_those_of_tls13_aes() {
        for (mut keys, _) in pairs() {
            assert!(!keys.are_worn_out());
            keys.sequence = KEY_LIFE;
            let aes = keys.key.algorithm() != &CHACHA20_POLY1305;
            assert_eq!(keys.are_worn_out(), aes && keys.are_tls13());
            keys.sequence = u64::MAX;
            let mut room = [0; OVERHEAD];
            assert!(keys.seal(Content::Data, &mut room, 0).is_err());
        }
    }
}
