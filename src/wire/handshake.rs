//! The handshakes as consuming state machines: a state is named by what it expects.
//!
//! ```text
//! client                                     server
//! ExpectChallenge::new -- Hello(service) -->  ExpectHello::on_hello
//!   on_challenge <------- Hello(nonce) -----    -> ExpectAuth
//! ExpectAck      -- Auth ----------------->     on_auth
//!   on_ack <------------- Ack -------------  Verdict
//! ```

use super::auth::{Nonce, ServiceDigest, SessionKey};
use super::message::{Ack, Auth, Hello, Malformed};
use crate::config::Secret;

/// Client: the service was named, the server's nonce is awaited.
#[derive(Debug)]
pub struct ExpectChallenge<'a> {
    token: &'a Secret,
}

impl<'a> ExpectChallenge<'a> {
    /// Begins a control handshake: send the bytes first.
    pub fn new(service: &str, token: &'a Secret) -> ([u8; Hello::LEN], Self) {
        (Hello::service(ServiceDigest::of(service)).encode(), ExpectChallenge { token })
    }

    /// The server's hello came: send the bytes.
    pub fn on_challenge(self, bytes: &[u8; Hello::LEN]) -> Result<([u8; Auth::LEN], ExpectAck), Malformed> {
        match Hello::decode(bytes)? {
            Hello::Control(nonce) => {
                let key = SessionKey::derive(self.token.expose(), &nonce);
                Ok((Auth(key).encode(), ExpectAck { key }))
            }
            Hello::Data(_) => Err(Malformed::UnexpectedDataHello),
        }
    }
}

/// Client: Auth was sent, the verdict is awaited.
#[derive(Debug)]
pub struct ExpectAck {
    key: SessionKey,
}

/// A server's refusal, as a client learns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Only rathole's own server distinguishes it.
    ServiceNotExist,
    /// Wrong token or, on our server, unknown service.
    AuthFailed,
}

impl ExpectAck {
    /// The verdict came; `Ok(Ok(key))` authenticates the data channels to come.
    pub fn on_ack(self, bytes: &[u8; Ack::LEN]) -> Result<Result<SessionKey, Refusal>, Malformed> {
        Ok(match Ack::decode(bytes)? {
            Ack::Ok => Ok(self.key),
            Ack::ServiceNotExist => Err(Refusal::ServiceNotExist),
            Ack::AuthFailed => Err(Refusal::AuthFailed),
        })
    }
}

/// Server: what a connection turned out to be.
#[derive(Debug)]
pub enum Opening {
    /// A control channel for the service with this digest.
    Control(ServiceDigest),
    /// A data channel of the session with this key.
    Data(SessionKey),
}

/// Server: classifies a connection by its hello.
pub fn on_hello(bytes: &[u8; Hello::LEN]) -> Result<Opening, Malformed> {
    Ok(match Hello::decode(bytes)? {
        Hello::Control(digest) => Opening::Control(ServiceDigest(digest)),
        Hello::Data(key) => Opening::Data(key),
    })
}

/// Server: the nonce was sent, Auth is awaited.
#[derive(Debug)]
pub struct ExpectAuth {
    nonce: Nonce,
}

impl ExpectAuth {
    /// Answers a control hello: send the bytes.
    pub fn new(nonce: Nonce) -> ([u8; Hello::LEN], Self) {
        (Hello::challenge(nonce).encode(), ExpectAuth { nonce })
    }

    /// Judges Auth: the session's key, and which of `tokens` it was derived from. There is none for a service that does
    /// not exist: the work is that of one, and so is the answer.
    pub fn on_auth<'t>(
        self,
        bytes: &[u8; Auth::LEN],
        tokens: impl Iterator<Item = &'t Secret>,
    ) -> Result<(SessionKey, &'t Secret), Ack> {
        let Auth(given) = Auth::decode(bytes);
        let mut proven = None;
        let mut known = false;
        for token in tokens {
            known = true;
            let expected = SessionKey::derive(token.expose(), &self.nonce);
            if given == expected && proven.is_none() {
                proven = Some((expected, token));
            }
        }
        if !known {
            let nobody = Secret::default();
            let _ = given == SessionKey::derive(nobody.expose(), &self.nonce);
        }
        proven.ok_or(Ack::AuthFailed)
    }
}
