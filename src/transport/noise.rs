//! Noise over TCP: the handshake by snow, everything after it ours.
//!
//! What it decides: which patterns there are, which keys they need, and that a configured key of the peer is really
//! compared. What it never does: keep a buffer for an idle connection, or give out a byte that was not verified.
//! Reading order: [`keys`], `handshake`, [`session`], [`stream`].

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod handshake;
mod keys;
pub mod session;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use snow::params::{DHChoice, NoiseParams};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::SettingError;
use super::rotation::Former;
use crate::config;
pub use keys::{KEY_LEN, Keypair, public_key, to_base64};
pub use stream::Stream;

/// The server's side: the responder.
#[derive(Debug, Clone)]
pub struct Acceptor {
    party: Party,
    former: Former<Party>,
}

impl Acceptor {
    /// Checks pattern and keys.
    pub fn new(settings: &config::Noise) -> Result<Self, SettingError> {
        let party = Party::new(settings, Role::Responder)?;
        Ok(Acceptor { party, former: Former::default() })
    }

    /// Takes the place of `old`. If `changed`, then clients with the key that `old` wanted, and those that know only
    /// the key that `old` had, are still taken until `until`. Not with the patterns in which the first message does
    /// not show which keys the client knows (KN, KX, K1N ... for its own, NX, XX ... for ours).
    pub(super) fn succeed(&mut self, old: &Acceptor, changed: bool, until: Instant) {
        let replaced = changed.then_some(&old.party);
        let fits = |former: &Party| {
            former.0.params.name == self.party.0.params.name
                && (former.checks_peer() || !self.party.checks_peer())
        };
        self.former = Former::after(replaced, &old.former, Instant::now(), until, fits);
    }

    /// Runs the handshake. The caller sets the deadline.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<Stream> {
        let former: Vec<_> = self.former.good(Instant::now()).cloned().collect();
        Ok(self.party.handshake(tcp, former).await?.distrust())
    }

    /// The public key that clients pin.
    pub fn public_key(&self) -> Option<[u8; KEY_LEN]> {
        public_key(&*self.party.0.private)
    }

    /// Replaces what must be random in each handshake, to reproduce recorded ones. It makes them worthless.
    #[doc(hidden)]
    pub fn with_fixed_ephemeral(self, key: [u8; KEY_LEN]) -> Self {
        Acceptor { party: self.party.with_fixed_ephemeral(key), ..self }
    }
}

/// The client's side: the initiator.
#[derive(Debug, Clone)]
pub struct Connector(Party);

impl Connector {
    /// Checks pattern and keys.
    pub fn new(settings: &config::Noise) -> Result<Self, SettingError> {
        Party::new(settings, Role::Initiator).map(Connector)
    }

    /// Runs the handshake. The caller sets the deadline.
    pub async fn connect(&self, tcp: TcpStream) -> io::Result<Stream> {
        self.0.handshake(tcp, Vec::new()).await
    }

    /// Whether the server must have a certain key.
    pub(super) fn checks_peer(&self) -> bool {
        self.0.checks_peer()
    }

    /// Replaces what must be random in each handshake, to reproduce recorded ones. It makes them worthless.
    #[doc(hidden)]
    pub fn with_fixed_ephemeral(self, key: [u8; KEY_LEN]) -> Self {
        Connector(self.0.with_fixed_ephemeral(key))
    }
}

/// Who begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The client.
    Initiator,
    /// The server.
    Responder,
}

impl Role {
    fn is_initiator(self) -> bool {
        self == Role::Initiator
    }

    /// What the peer is called in messages to the admin.
    fn peer(self) -> &'static str {
        match self {
            Role::Initiator => "server",
            Role::Responder => "client",
        }
    }
}

/// What is legal in these settings, but not what it seems: one sentence for each, without secrets.
pub fn warnings(settings: &config::Noise, role: Role) -> Vec<String> {
    let Ok(params) = parse(&settings.pattern) else { return Vec::new() };
    let (pattern, peer) = (params.handshake.pattern, role.peer());
    let other = if role.is_initiator() { Role::Responder } else { Role::Initiator };
    let mut warnings = Vec::new();
    if settings.remote_public_key.is_some() && !pattern.needs_local_static_key(!role.is_initiator()) {
        warnings.push(format!(
            "noise.remote_public_key is not checked: in the pattern {} the {peer} has no key; with KK or IK it has",
            pattern.as_str()
        ));
    } else if settings.remote_public_key.is_none() && role.is_initiator() {
        warnings.push(format!(
            "noise.remote_public_key is not set: with the pattern {} any {peer} will do, also a false one",
            pattern.as_str()
        ));
    }
    if settings.local_private_key.is_none() && pattern.need_known_remote_pubkey(other.is_initiator()) {
        warnings.push(format!(
            "noise.local_private_key is not set: this process makes a new key at each start, but with the pattern {} \
             the {peer} must know it before; make a lasting one with `rathole genkey`",
            pattern.as_str()
        ));
    }
    warnings
}

/// Pattern and keys of one end, checked and ready. A clone shares them.
#[derive(Clone)]
struct Party(Arc<Settled>);

struct Settled {
    params: NoiseParams,
    role: Role,
    private: Zeroizing<[u8; KEY_LEN]>,
    pin: Option<[u8; KEY_LEN]>,
    fixed_ephemeral: Option<[u8; KEY_LEN]>,
}

impl Party {
    fn new(settings: &config::Noise, role: Role) -> Result<Self, SettingError> {
        let params = parse(&settings.pattern)?;
        let private = match &settings.local_private_key {
            Some(key) => <[u8; KEY_LEN]>::try_from(key.expose()).map_err(|_| SettingError {
                key: "noise.local_private_key",
                message: format!(
                    "{} bytes; a private key has exactly {KEY_LEN}, as `rathole genkey` makes it",
                    key.len()
                ),
            })?,
            None => {
                let fresh = Keypair::generate().map_err(|error| SettingError {
                    key: "noise.local_private_key",
                    message: format!("is not set, and a fresh one cannot be made: {error}"),
                })?;
                <[u8; KEY_LEN]>::try_from(fresh.private.expose()).unwrap_or_default()
            }
        };
        let wrong_pin = |message| Err(SettingError { key: "noise.remote_public_key", message });
        match &settings.remote_public_key {
            None if params.handshake.pattern.need_known_remote_pubkey(role.is_initiator()) => {
                return wrong_pin(format!(
                    "is missing: with the pattern {} the {}'s public key must be known before",
                    params.handshake.pattern.as_str(),
                    role.peer()
                ));
            }
            Some(pin) if keys::is_degenerate(pin) => {
                return wrong_pin("is no usable key: every secret shared with it would be zero".to_owned());
            }
            _ => {}
        }
        for warning in warnings(settings, role) {
            tracing::warn!("{warning}");
        }
        Ok(Party(Arc::new(Settled {
            params,
            role,
            private: Zeroizing::new(private),
            pin: settings.remote_public_key,
            fixed_ephemeral: None,
        })))
    }

    fn with_fixed_ephemeral(&self, key: [u8; KEY_LEN]) -> Self {
        let settled = &*self.0;
        Party(Arc::new(Settled {
            params: settled.params.clone(),
            role: settled.role,
            private: settled.private.clone(),
            pin: settled.pin,
            fixed_ephemeral: Some(key),
        }))
    }

    /// `former`: what may be used instead, if the peer turns out to mean that.
    async fn handshake(&self, mut tcp: TcpStream, former: Vec<Party>) -> io::Result<Stream> {
        let mut pins = Vec::new();
        if let Some(pin) = self.0.pin {
            pins.push(pin);
            pins.extend(former.iter().filter_map(|party| party.0.pin));
        }
        let others = former.into_iter().map(|party| party.state());
        let session = handshake::run(&mut tcp, self.state()?, others, self.0.params.cipher, &pins).await?;
        Ok(Stream::resume(tcp, session))
    }

    /// Whether the peer must have a certain key.
    fn checks_peer(&self) -> bool {
        let Settled { params, role, pin, .. } = &*self.0;
        pin.is_some() && params.handshake.pattern.needs_local_static_key(!role.is_initiator())
    }

    fn state(&self) -> io::Result<snow::HandshakeState> {
        self.begin().map_err(|error| io::Error::other(format!("Noise: {error}")))
    }

    fn begin(&self) -> Result<snow::HandshakeState, snow::Error> {
        let Settled { params, role, private, pin, fixed_ephemeral } = &*self.0;
        let pattern = params.handshake.pattern;
        let mut builder = snow::Builder::with_resolver(params.clone(), Box::new(keys::Primitives));
        if pattern.needs_local_static_key(role.is_initiator()) {
            builder = builder.local_private_key(&private[..])?;
        }
        // Only where the pattern begins with it; where the peer sends its key the handshake compares.
        if let Some(pin) = pin.as_ref().filter(|_| pattern.need_known_remote_pubkey(role.is_initiator())) {
            builder = builder.remote_public_key(pin)?;
        }
        if let Some(key) = fixed_ephemeral {
            builder = builder.fixed_ephemeral_key_for_testing_only(key);
        }
        if role.is_initiator() { builder.build_initiator() } else { builder.build_responder() }
    }
}

impl std::fmt::Debug for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Noise").field("pattern", &self.0.params.name).finish_non_exhaustive()
    }
}

/// A pattern string that we can do.
fn parse(pattern: &str) -> Result<NoiseParams, SettingError> {
    let wrong = |why: &str| SettingError {
        key: "noise.pattern",
        message: format!(
            "{pattern:?} {why}; it must be `Noise_<pattern>_25519_<cipher>_<hash>` with one of the interactive patterns \
             (NN NK NX XN XK XX KN KK KX IN IK IX, or a deferred form such as NK1), ChaChaPoly or AESGCM, and BLAKE2s, \
             BLAKE2b, SHA256 or SHA512; the default is {}",
            config::DEFAULT_NOISE_PATTERN
        ),
    };
    let params: NoiseParams = pattern.parse().map_err(|_| wrong("is no Noise pattern known here"))?;
    if params.handshake.pattern.is_oneway() {
        return Err(wrong("works in one direction only"));
    }
    if params.handshake.is_psk() {
        return Err(wrong("wants a pre-shared key, and there is no setting for one"));
    }
    if !params.handshake.modifiers.list.is_empty() {
        return Err(wrong("has a modifier that is not supported"));
    }
    if params.dh != DHChoice::Curve25519 {
        return Err(wrong("uses a curve that is not supported"));
    }
    Ok(params)
}
