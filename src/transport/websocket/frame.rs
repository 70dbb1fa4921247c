//! Frames (RFC 6455, section 5): headers written, a stream of frames taken apart in place. No I/O.
//!
//! What it decides: which frames are refused, when the peer's direction is over. It never holds payload: that goes
//! to the front of the bytes it was found in, whatever the frame's length.

use super::mask;

/// Longest payload of a frame that is accepted, as in rathole 0.5.
const MAX_FRAME: u64 = 16 << 20;

/// Longest payload of a control frame.
pub const MAX_CONTROL: usize = 125;

/// Longest header.
pub const MAX_HEADER: usize = 14;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Payload bytes.
    Binary,
    /// The end of the connection.
    Close,
    /// To be answered with a Pong.
    Ping,
    /// The answer.
    Pong,
}

/// Writes the header of an unfragmented frame; says how long it is.
pub fn header(kind: Kind, len: usize, key: Option<[u8; 4]>, out: &mut [u8; MAX_HEADER]) -> usize {
    let masked = if key.is_some() { 0x80 } else { 0 };
    out[0] = 0x80 | kind.opcode();
    let mut end = match len {
        0..=125 => {
            out[1] = masked | len as u8;
            2
        }
        126..=0xffff => {
            out[1] = masked | 126;
            out[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            4
        }
        _ => {
            out[1] = masked | 127;
            out[2..10].copy_from_slice(&(len as u64).to_be_bytes());
            10
        }
    };
    if let Some(key) = key {
        out.iter_mut().skip(end).zip(key).for_each(|(out, key)| *out = key);
        end += 4;
    }
    end
}

impl Kind {
    fn opcode(self) -> u8 {
        match self {
            Kind::Binary => 2,
            Kind::Close => 8,
            Kind::Ping => 9,
            Kind::Pong => 10,
        }
    }
}

/// Takes the peer's frames apart.
#[derive(Debug)]
pub struct Decoder {
    /// Whether the peer is the client, who masks.
    from_client: bool,
    /// Whether an empty message ends the direction.
    half_close: bool,
    state: State,
    /// A fragmented message has begun.
    in_message: bool,
    /// The message has no payload so far.
    is_empty: bool,
    end: Option<End>,
    /// Payload of the last Ping, to be sent back. An older one need not be answered.
    pong: Option<Vec<u8>>,
}

#[derive(Debug)]
enum State {
    /// So many bytes of a header.
    Header([u8; MAX_HEADER], usize),
    /// Within a frame.
    Payload(Frame),
}

#[derive(Debug)]
struct Frame {
    kind: Kind,
    fin: bool,
    key: Option<[u8; 4]>,
    /// Payload bytes seen.
    seen: u64,
    /// Payload bytes to come.
    left: u64,
    /// What a Ping brought.
    control: Vec<u8>,
}

/// How the peer's direction is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// An empty message, agreed on with the subprotocol: the other direction goes on.
    HalfClose,
    /// A Close frame.
    Close,
}

/// What a peer must not do. The stream cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// A client's frame without mask.
    Unmasked,
    /// A server's frame with mask.
    Masked,
    /// A text message.
    Text,
    /// Reserved bits or an opcode nobody knows.
    Reserved,
    /// A frame longer than 16 MiB, or a control frame longer than 125 bytes.
    TooLong,
    /// A message within a message, a continuation of none, a control frame in fragments.
    Fragments,
    /// Payload after the end of the direction.
    AfterEnd,
}

impl Decoder {
    /// A decoder at the beginning of the stream. `from_client`: the peer is the client.
    pub fn new(from_client: bool, half_close: bool) -> Self {
        Decoder {
            from_client,
            half_close,
            state: State::Header([0; MAX_HEADER], 0),
            in_message: false,
            is_empty: true,
            end: None,
            pong: None,
        }
    }

    /// Takes in all of `bytes` and moves the payload in them to their front. Says how much that is, and what is
    /// wrong with what came after it.
    pub fn decode(&mut self, bytes: &mut [u8]) -> (usize, Option<Violation>) {
        let (mut at, mut plain) = (0, 0);
        while at < bytes.len() && self.end != Some(End::Close) {
            match &mut self.state {
                State::Header(header, have) => {
                    let missing = header_len(header, *have) - *have;
                    let n = missing.min(bytes.len() - at);
                    let new = bytes.iter().skip(at).take(n);
                    header.iter_mut().skip(*have).zip(new).for_each(|(header, byte)| *header = *byte);
                    *have += n;
                    at += n;
                    if header_len(header, *have) == *have {
                        let header = *header;
                        match self.begin(&header) {
                            Ok(frame) => self.state = State::Payload(frame),
                            Err(violation) => return (plain, Some(violation)),
                        }
                    }
                }
                State::Payload(frame) => {
                    let n = usize::try_from(frame.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    let part = bytes.get_mut(at..at + n).unwrap_or_default();
                    if let (Some(key), Kind::Binary | Kind::Ping) = (frame.key, frame.kind) {
                        mask::apply(part, key, frame.seen);
                    }
                    match frame.kind {
                        Kind::Binary => {
                            bytes.copy_within(at..at + n, plain);
                            plain += n;
                        }
                        Kind::Ping => frame.control.extend_from_slice(part),
                        Kind::Pong | Kind::Close => {}
                    }
                    frame.seen += n as u64;
                    frame.left -= n as u64;
                    at += n;
                }
            }
            self.finish();
        }
        (plain, None)
    }

    /// How the peer's direction is over, if it is.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Whether the stream may stop here: between two messages.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Header(_, 0)) && !self.in_message
    }

    /// What to answer to a Ping, once.
    pub fn take_pong(&mut self) -> Option<Vec<u8>> {
        self.pong.take()
    }

    /// Whether a Ping waits for its answer.
    pub fn has_pong(&self) -> bool {
        self.pong.is_some()
    }

    fn begin(&mut self, header: &[u8; MAX_HEADER]) -> Result<Frame, Violation> {
        let (fin, masked) = (header[0] & 0x80 != 0, header[1] & 0x80 != 0);
        if header[0] & 0x70 != 0 {
            return Err(Violation::Reserved);
        }
        let kind = match header[0] & 0x0f {
            0 if self.in_message => Kind::Binary,
            2 if !self.in_message => Kind::Binary,
            0 | 2 => return Err(Violation::Fragments),
            1 => return Err(Violation::Text),
            8 => Kind::Close,
            9 => Kind::Ping,
            10 => Kind::Pong,
            _ => return Err(Violation::Reserved),
        };
        match (self.from_client, masked) {
            (true, false) => return Err(Violation::Unmasked),
            (false, true) => return Err(Violation::Masked),
            (true, true) | (false, false) => {}
        }
        let (left, key_at) = match header[1] & 0x7f {
            126 => (u64::from(u16::from_be_bytes([header[2], header[3]])), 4),
            127 => (header[2..10].first_chunk().map_or(0, |len| u64::from_be_bytes(*len)), 10),
            short => (u64::from(short), 2),
        };
        let is_control = kind != Kind::Binary;
        if left > if is_control { MAX_CONTROL as u64 } else { MAX_FRAME } {
            return Err(Violation::TooLong);
        }
        if is_control && !fin {
            return Err(Violation::Fragments);
        }
        if !is_control && self.end.is_some() {
            return Err(Violation::AfterEnd);
        }
        let key = header.get(key_at..).and_then(|key| key.first_chunk().copied()).filter(|_| masked);
        Ok(Frame { kind, fin, key, seen: 0, left, control: Vec::new() })
    }

    /// Goes on to the next header when the frame is complete.
    fn finish(&mut self) {
        let State::Payload(frame) = &mut self.state else { return };
        if frame.left > 0 {
            return;
        }
        match frame.kind {
            Kind::Binary => {
                self.is_empty &= frame.seen == 0;
                self.in_message = !frame.fin;
                if frame.fin {
                    if self.half_close && self.is_empty {
                        self.end = Some(End::HalfClose);
                    }
                    self.is_empty = true;
                }
            }
            Kind::Ping => self.pong = Some(std::mem::take(&mut frame.control)),
            Kind::Pong => {}
            Kind::Close => self.end = Some(End::Close),
        }
        self.state = State::Header([0; MAX_HEADER], 0);
    }
}

/// How long the header will be, as far as its first `have` bytes tell.
fn header_len(header: &[u8; MAX_HEADER], have: usize) -> usize {
    if have < 2 {
        return 2;
    }
    let key = if header[1] & 0x80 != 0 { 4 } else { 0 };
    key + match header[1] & 0x7f {
        126 => 4,
        127 => 10,
        _ => 2,
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Violation::Unmasked => "the client sent a frame without mask",
            Violation::Masked => "the server sent a frame with a mask",
            Violation::Text => "the peer sent a text message; only binary ones carry bytes",
            Violation::Reserved => "the peer sent a frame with reserved bits or an unknown opcode",
            Violation::TooLong => {
                "the peer sent a frame of more than 16 MiB, or a control frame of more than 125 bytes"
            }
            Violation::Fragments => "the peer sent fragments that do not fit together",
            Violation::AfterEnd => "the peer sent more after it had ended its direction",
        })
    }
}
