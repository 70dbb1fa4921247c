//! A server's certificate chain and key, out of PEM or PKCS#12.

use p12_keystore::Pkcs12Archive;
use p12_keystore::error::Error as Pkcs12Error;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error, InconsistentKeys};
use std::sync::Arc;

use crate::config::{Secret, TlsServer};
use crate::transport::SettingError;

/// The keys of the settings that a fault is blamed on.
#[derive(Clone, Copy)]
struct Blame {
    cert: &'static str,
    key: &'static str,
}

const PEM: Blame = Blame { cert: "tls.cert", key: "tls.key" };
const PKCS12: Blame = Blame { cert: "tls.pkcs12", key: "tls.pkcs12" };

/// Takes chain and key, and sees that they belong together.
pub fn load(tls: &TlsServer, provider: &CryptoProvider) -> Result<CertifiedKey, SettingError> {
    match tls {
        TlsServer::Pem { cert, key } => {
            let chain = pem_chain(cert)?;
            let key = pem_key(key.expose())?;
            join(chain, vec![key], PEM, provider)
        }
        TlsServer::Pkcs12 { archive, password } => {
            let (chain, keys) = open_archive(archive.expose(), password)?;
            join(chain, keys, PKCS12, provider)
        }
    }
}

fn pem_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, SettingError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(error("tls.cert", "no certificate in it; it must be PEM with `-----BEGIN CERTIFICATE-----`")),
        Err(fault) => Err(error("tls.cert", format!("broken PEM: {fault}"))),
    }
}

fn pem_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, SettingError> {
    let fault = match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => return Ok(key),
        Err(fault) => fault,
    };
    let text = String::from_utf8_lossy(pem);
    Err(error(
        "tls.key",
        if text.contains("ENCRYPTED") {
            "the key is encrypted; write it without a password (`openssl pkey -in KEY`), readable by the server only"
                .to_owned()
        } else if matches!(fault, rustls::pki_types::pem::Error::NoItemsFound) {
            "no private key in it; it must be PEM: PKCS#8, PKCS#1 or SEC1".to_owned()
        } else {
            "broken PEM".to_owned()
        },
    ))
}

type ChainAndKeys = (Vec<CertificateDer<'static>>, Vec<PrivateKeyDer<'static>>);

fn open_archive(archive: &[u8], password: &Secret) -> Result<ChainAndKeys, SettingError> {
    let password = std::str::from_utf8(password.expose())
        .map_err(|_| error("tls.pkcs12_password", "it is not UTF-8, as a PKCS#12 password must be"))?;
    let archive = Pkcs12Archive::from_pkcs12(archive, password).map_err(|fault| match fault {
        Pkcs12Error::MacError(_) | Pkcs12Error::UnpadError | Pkcs12Error::Pkcs5Error(_) => {
            error("tls.pkcs12_password", "it does not open the archive")
        }
        Pkcs12Error::DerError(fault) => {
            error("tls.pkcs12", format!("it is no PKCS#12 archive (DER), or a broken one: {fault}"))
        }
        fault => error("tls.pkcs12", format!("the archive cannot be read: {fault}")),
    })?;
    let keys: Vec<_> = archive
        .keys
        .iter()
        .map(|bag| PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(bag.key.as_der().to_vec())))
        .collect();
    let chain: Vec<_> =
        archive.certs.iter().map(|bag| CertificateDer::from(bag.cert.as_der().to_vec())).collect();
    if keys.is_empty() {
        return Err(error("tls.pkcs12", "no private key in the archive; make it with `openssl pkcs12 -export -inkey`"));
    }
    if chain.is_empty() {
        return Err(error("tls.pkcs12", "no certificate in the archive"));
    }
    Ok((chain, keys))
}

/// Finds the certificate that belongs to a key, and puts it in front of the chain.
fn join(
    chain: Vec<CertificateDer<'static>>,
    keys: Vec<PrivateKeyDer<'static>>,
    blame: Blame,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, SettingError> {
    let keys: Result<Vec<Arc<dyn SigningKey>>, _> =
        keys.into_iter().map(|key| provider.key_provider.load_private_key(key)).collect();
    let keys = keys.map_err(|_| {
        error(blame.key, "the private key is broken or of a kind that TLS does not take; RSA (2048 bits or more), ECDSA P-256 or P-384 and Ed25519 are right")
    })?;
    for key in keys {
        for leaf in 0..chain.len() {
            let mut chain = chain.clone();
            chain[..=leaf].rotate_right(1);
            let identity = CertifiedKey::new(chain, key.clone());
            match identity.keys_match() {
                Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => return Ok(identity),
                Err(Error::InconsistentKeys(_)) => {}
                Err(fault) => {
                    return Err(error(blame.cert, format!("certificate {} is broken: {fault}", leaf + 1)));
                }
            }
        }
    }
    Err(error(blame.key, "the private key belongs to none of the certificates"))
}

fn error(key: &'static str, message: impl Into<String>) -> SettingError {
    SettingError { key, message: message.into() }
}
