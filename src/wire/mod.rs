//! The protocol in one table (protocol-v1.md, section 1). No I/O, no clock.
//!
//! | message            | direction        | bytes | layout                                     |
//! |--------------------|------------------|-------|--------------------------------------------|
//! | [`Hello`]          | both             | 37    | tag u32, version u8 = 1, digest 32         |
//! | [`Auth`]           | client to server | 32    | SHA256(token, nonce)                       |
//! | [`Ack`]            | server to client | 4     | 0 Ok, 1 ServiceNotExist, 2 AuthFailed      |
//! | [`ControlCommand`] | server to client | 4     | 0 CreateDataChannel, 1 HeartBeat           |
//! | [`DataCommand`]    | server to client | 4     | 0 StartForwardTcp, 1 StartForwardUdp       |
//! | [`datagram`]       | both             | 1+H+n | header length, visitor, length, payload    |
//!
//! Integers are little-endian; nothing is framed: each message has a fixed size and is read exactly. So no byte
//! that follows a message is ever read together with it, and a relay may begin on the bare socket.
//!
//! [`handshake`] says which message comes when; [`auth`] computes the digests.

pub mod auth;
pub mod datagram;
pub mod handshake;
pub mod message;

pub use auth::{Digest, Nonce, ServiceDigest, SessionKey};
pub use message::{Ack, Auth, ControlCommand, DataCommand, Hello, Malformed};
