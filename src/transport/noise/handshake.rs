//! The handshake: snow's messages, each behind a u16 length, read exactly and bounded.
//!
//! What it decides: when a peer is refused. It reads no byte that follows its last message.

use std::io;

use snow::HandshakeState;
use snow::params::CipherChoice;
use subtle::ConstantTimeEq;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::keys::KEY_LEN;
use super::session::{Cipher, Session};

/// Longest handshake message. The patterns need at most 112 bytes, the rest is for a payload, which is ignored.
/// Below 790, which is how the first two bytes of TLS read, so that a TLS peer is refused at once.
const MAX_MESSAGE: usize = 512;

/// What a peer is told to have done wrong when its bytes make no sense.
const NOT_NOISE: &str = "the peer does not speak Noise, or another pattern or key";

/// Runs the whole handshake. `pins`: the peer's static key must be one of them, if there are any, wherever the pattern
/// transmits one. `others` are tried on the peer's first message, if that is not meant for `state`.
pub(super) async fn run(
    tcp: &mut TcpStream,
    mut state: HandshakeState,
    others: impl Iterator<Item = io::Result<HandshakeState>>,
    cipher: CipherChoice,
    pins: &[[u8; KEY_LEN]],
) -> io::Result<Session> {
    let mut others = Some(others);
    let mut message = [0; 2 + MAX_MESSAGE];
    let mut payload = [0; MAX_MESSAGE];
    while !state.is_handshake_finished() {
        if state.is_my_turn() {
            let len = state.write_message(&[], &mut message[2..]).map_err(refused)?;
            message[..2].copy_from_slice(&(len as u16).to_le_bytes());
            tcp.write_all(&message[..2 + len]).await.map_err(broken)?;
        } else {
            tcp.read_exact(&mut message[..2]).await.map_err(broken)?;
            let head = [message[0], message[1]];
            let len = usize::from(u16::from_le_bytes(head));
            if len == 0 || len > MAX_MESSAGE {
                return Err(invalid(format!(
                    "{NOT_NOISE} (its answer begins with \"{}\")",
                    head.escape_ascii()
                )));
            }
            tcp.read_exact(&mut message[..len]).await.map_err(broken)?;
            let mut read = state.read_message(&message[..len], &mut payload);
            for other in others.take().into_iter().flatten() {
                if !matches!(read, Err(snow::Error::Decrypt)) {
                    break;
                }
                state = other?;
                read = state.read_message(&message[..len], &mut payload);
            }
            read.map_err(refused)?;
            // As soon as it is known, so that a stranger learns nothing of our own key.
            check_pin(&state, pins)?;
        }
    }
    let (initiator, responder) = state.dangerously_get_raw_split();
    let (send, receive) = if state.is_initiator() { (initiator, responder) } else { (responder, initiator) };
    let cipher = match cipher {
        CipherChoice::ChaChaPoly => Cipher::ChaChaPoly,
        CipherChoice::AESGCM => Cipher::AesGcm,
    };
    Ok(Session::new(cipher, send, receive))
}

fn check_pin(state: &HandshakeState, pins: &[[u8; KEY_LEN]]) -> io::Result<()> {
    let Some(key) = state.get_remote_static() else { return Ok(()) };
    if pins.is_empty() || pins.iter().any(|pin| bool::from(key.ct_eq(pin))) {
        return Ok(());
    }
    let message =
        "the peer's Noise key is not the pinned one: it is another peer, or `remote_public_key` is wrong";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

fn refused(error: snow::Error) -> io::Error {
    match error {
        snow::Error::Dh => invalid("the peer's Noise key is degenerate: refused".to_owned()),
        snow::Error::Rng => io::Error::other("no randomness for the Noise handshake"),
        snow::Error::Decrypt | snow::Error::Input => invalid(NOT_NOISE.to_owned()),
        other => io::Error::other(format!("Noise handshake: {other}")),
    }
}

/// An end or a reset within the handshake is how the other side says no.
fn broken(error: io::Error) -> io::Error {
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof => "closed the connection",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset the connection",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("the peer {what} in the Noise handshake: {NOT_NOISE}"))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
