//! The fixed-size messages: bytes to values and back.

use std::fmt;

use super::auth::{Digest, Nonce, ServiceDigest, SessionKey};

/// The one protocol version there is.
pub const VERSION: u8 = 1;

/// Bytes that are no message of this protocol; the connection they came from is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// A tag that no variant has.
    Tag {
        /// Which message was expected.
        message: &'static str,
        /// What came.
        tag: u32,
    },
    /// A version other than [`VERSION`].
    Version(u8),
    /// A hello of the wrong kind: the server answers a control hello with a control hello.
    UnexpectedDataHello,
    /// A datagram header that is too short or of an unknown family.
    Datagram(&'static str),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Tag { message, tag } => {
                let (message, hint) = (*message, hint(*tag));
                write!(f, "unknown {message} tag {tag:#010x}: {hint}")
            }
            Malformed::Version(version) => {
                write!(f, "the peer speaks protocol version {version}, this is version {VERSION}")
            }
            Malformed::UnexpectedDataHello => f.write_str("the peer sent a data channel hello as its answer"),
            Malformed::Datagram(what) => write!(f, "malformed UDP frame: {what}"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Whose bytes these are, and what may be wrong: the first four of protocols that are met instead of this one.
fn hint(tag: u32) -> &'static str {
    match &tag.to_le_bytes() {
        b"HTTP" | [b'<', ..] => {
            "the peer speaks HTTP: a web server, a captive portal, or is its transport websocket?"
        }
        b"SSH-" => "the peer is an SSH server: is the port right?",
        [0x14..=0x17, 3, ..] => "the peer speaks TLS: is its transport tls, or websocket with tls?",
        _ => "the peer does not speak rathole's protocol, or another transport",
    }
}

/// The first message on every channel, and the server's answer on a control channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hello {
    /// Opens a control channel: from a client the service's digest, from a server its nonce.
    Control(Digest),
    /// Opens a data channel; nothing answers it.
    Data(SessionKey),
}

impl Hello {
    /// Bytes on the wire.
    pub const LEN: usize = 37;

    /// Bytes that say whether it is a hello at all: tag and version.
    pub const HEAD: usize = 5;

    /// What a client says first.
    pub fn service(digest: ServiceDigest) -> Self {
        Hello::Control(digest.0)
    }

    /// What a server answers.
    pub fn challenge(nonce: Nonce) -> Self {
        Hello::Control(nonce)
    }

    /// To bytes.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let (tag, digest) = match self {
            Hello::Control(digest) => (0u32, digest),
            Hello::Data(SessionKey(digest)) => (1u32, digest),
        };
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&tag.to_le_bytes());
        bytes[4] = VERSION;
        bytes[5..].copy_from_slice(digest);
        bytes
    }

    /// From bytes.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, Malformed> {
        let (head, rest) = bytes.split_at(Self::HEAD);
        let mut digest = [0; 32];
        digest.copy_from_slice(rest);
        Ok(match Self::decode_head(head)? {
            0 => Hello::Control(digest),
            _ => Hello::Data(SessionKey(digest)),
        })
    }

    /// Judges the first [`Hello::HEAD`] bytes, before the others have come; the tag. It is judged before the version:
    /// garbage is called garbage.
    pub fn decode_head(head: &[u8]) -> Result<u32, Malformed> {
        let (tag_bytes, version) = head.split_at_checked(4).unwrap_or((head, &[]));
        match (tag(tag_bytes), version.first()) {
            (tag @ 0..=1, Some(&VERSION)) => Ok(tag),
            (0..=1, version) => Err(Malformed::Version(version.copied().unwrap_or_default())),
            (tag, _) => Err(Malformed::Tag { message: "hello", tag }),
        }
    }
}

/// A client's answer to a server's nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth(pub SessionKey);

impl Auth {
    /// Bytes on the wire.
    pub const LEN: usize = 32;

    /// To bytes.
    pub fn encode(&self) -> [u8; Self::LEN] {
        self.0.0
    }

    /// From bytes; every 32 bytes are an Auth.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Self {
        Auth(SessionKey(*bytes))
    }
}

/// Declares a message that is a bare u32 tag.
macro_rules! tag_message {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $tag:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Bytes on the wire.
            pub const LEN: usize = 4;

            /// To bytes.
            pub fn encode(self) -> [u8; 4] {
                match self { $($name::$variant => ($tag as u32).to_le_bytes()),+ }
            }

            /// From bytes.
            pub fn decode(bytes: &[u8; 4]) -> Result<Self, Malformed> {
                match u32::from_le_bytes(*bytes) {
                    $($tag => Ok($name::$variant),)+
                    tag => Err(Malformed::Tag { message: $what, tag }),
                }
            }
        }
    };
}

tag_message! {
    /// The server's verdict on a control handshake.
    Ack, "ack" {
        /// The channel is authenticated.
        Ok = 0,
        /// No service has that digest. Ours never sends it: it would tell strangers which names exist.
        ServiceNotExist = 1,
        /// The token is wrong, or (ours) the service unknown.
        AuthFailed = 2,
    }
}

tag_message! {
    /// What a server says on an authenticated control channel.
    ControlCommand, "control command" {
        /// Open one data channel.
        CreateDataChannel = 0,
        /// The server is there; no answer.
        HeartBeat = 1,
    }
}

tag_message! {
    /// What a server says first, and once, on a data channel.
    DataCommand, "data command" {
        /// What follows is the visitor's byte stream.
        StartForwardTcp = 0,
        /// What follows is UDP frames.
        StartForwardUdp = 1,
    }
}

fn tag(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |tag, byte| (tag << 8) | u32::from(*byte))
}
