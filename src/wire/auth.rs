//! The digests (protocol-v1.md, section 1.3): SHA-256, single pass.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

/// 32 bytes as they stand on the wire.
pub type Digest = [u8; 32];

/// A server's challenge: 32 random bytes for each control handshake.
pub type Nonce = [u8; 32];

/// SHA256 of a service's name: how a client names the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServiceDigest(pub Digest);

impl ServiceDigest {
    /// The digest of `name`.
    pub fn of(name: &str) -> Self {
        ServiceDigest(Sha256::digest(name.as_bytes()).into())
    }
}

/// What authenticates a control channel, and afterwards names it: each data channel presents it again.
/// It is a bearer credential, so `Debug` does not show it.
#[derive(Clone, Copy, Eq)]
pub struct SessionKey(pub Digest);

impl SessionKey {
    /// SHA256(token, nonce).
    pub fn derive(token: &[u8], nonce: &Nonce) -> Self {
        let mut hash = Sha256::new();
        hash.update(token);
        hash.update(nonce);
        SessionKey(hash.finalize().into())
    }
}

impl PartialEq for SessionKey {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl std::hash::Hash for SessionKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(***)")
    }
}
