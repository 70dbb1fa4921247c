//! Static keys, and a Diffie-Hellman that refuses a peer who leaves no secret.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::config::Secret;

/// Bytes of a key, private or public.
pub const KEY_LEN: usize = 32;

/// A static X25519 key pair.
#[derive(Debug, Clone)]
pub struct Keypair {
    /// 32 bytes.
    pub private: Secret,
    /// What the other side pins.
    pub public: [u8; KEY_LEN],
}

impl Keypair {
    /// A fresh pair. Fails only if the system gives no randomness.
    pub fn generate() -> io::Result<Self> {
        let mut private = Zeroizing::new([0; KEY_LEN]);
        getrandom::fill(&mut *private)
            .map_err(|error| io::Error::other(format!("no randomness: {error}")))?;
        Ok(Keypair { public: derive(&private), private: Secret::new(private.to_vec()) })
    }
}

/// The public key of a private one; None unless it has exactly 32 bytes.
pub fn public_key(private: &[u8]) -> Option<[u8; KEY_LEN]> {
    private.try_into().ok().map(derive)
}

/// A key as configuration files have it: standard base64, padded, 44 characters.
pub fn to_base64(key: &[u8]) -> String {
    STANDARD.encode(key)
}

/// Whether a public key makes every shared secret zero.
pub(super) fn is_degenerate(public: &[u8; KEY_LEN]) -> bool {
    // Any private key will do: they are all multiples of the cofactor.
    let mut any = curve();
    any.set(&[1; KEY_LEN]);
    any.dh(public, &mut [0; KEY_LEN]).is_err()
}

fn derive(private: &[u8; KEY_LEN]) -> [u8; KEY_LEN] {
    let mut dh = curve();
    dh.set(private);
    let mut public = [0; KEY_LEN];
    public.copy_from_slice(dh.pubkey());
    public
}

#[expect(clippy::unreachable, reason = "whether snow has the curve is decided in Cargo.toml")]
fn curve() -> Curve {
    Curve(
        DefaultResolver
            .resolve_dh(&DHChoice::Curve25519)
            .unwrap_or_else(|| unreachable!("a feature of snow")),
    )
}

/// snow's own primitives, but for [`Curve`].
pub(super) struct Primitives;

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        DefaultResolver.resolve_rng()
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::new(Curve(DefaultResolver.resolve_dh(choice)?)))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// A Diffie-Hellman whose all-zero output is an error: only a public key of small order leads there, and then
/// the "secret" is known to everybody.
struct Curve(Box<dyn Dh>);

impl Dh for Curve {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn pub_len(&self) -> usize {
        self.0.pub_len()
    }

    fn priv_len(&self) -> usize {
        self.0.priv_len()
    }

    fn set(&mut self, private: &[u8]) {
        self.0.set(private);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        self.0.generate(rng)
    }

    fn pubkey(&self) -> &[u8] {
        self.0.pubkey()
    }

    fn privkey(&self) -> &[u8] {
        self.0.privkey()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        self.0.dh(public, out)?;
        let bits = out.iter().take(self.0.dh_len()).fold(0, |bits, byte| bits | byte);
        if bool::from(bits.ct_eq(&0)) { Err(snow::Error::Dh) } else { Ok(()) }
    }

    fn dh_len(&self) -> usize {
        self.0.dh_len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_keys_are_those_of_the_golden_vectors() {
        let expect = "7b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f13";
        let public = public_key(&[0x11; 32]).unwrap();
        assert_eq!(public.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), expect);
    }

    #[test]
    fn a_private_key_has_32_bytes() {
        for len in [0, 1, 31, 33, 64] {
            assert_eq!(public_key(&vec![1; len]), None, "{len} bytes");
        }
    }

    #[test]
    fn generated_keys_differ_and_fit_together() {
        let (one, two) = (Keypair::generate().unwrap(), Keypair::generate().unwrap());
        assert_ne!(one.public, two.public);
        assert_eq!(public_key(one.private.expose()), Some(one.public));
        assert_eq!(to_base64(&one.public).len(), 44);
        assert!(!format!("{one:?}").contains(&format!("{:?}", one.private.expose())));
    }

    /// The points of small order in their canonical forms, and 2^255 - 19 = 0.
    #[test]
    fn keys_of_small_order_are_degenerate() {
        let mut one = [0; 32];
        one[0] = 1;
        let mut p = [0xff; 32];
        (p[0], p[31]) = (0xed, 0x7f);
        let order8 = [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
            0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ];
        for key in [[0; 32], one, p, order8] {
            assert!(is_degenerate(&key), "{key:02x?}");
        }
        assert!(!is_degenerate(&Keypair::generate().unwrap().public));
    }
}
