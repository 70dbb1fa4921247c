//! Which server certificates a client believes.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode;

use crate::transport::SettingError;

/// A verifier for a bundle, or for the system's roots (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured).
pub fn verifier(
    bundle: Option<&[u8]>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, SettingError> {
    let certificates = match bundle {
        Some(pem) => bundle_certificates(pem)?,
        None => system_certificates()?,
    };
    let mut roots = RootCertStore::empty();
    let total = certificates.len();
    let (taken, _) = roots.add_parsable_certificates(certificates.iter().cloned());
    if taken == 0 {
        return Err(error("none of its certificates can be read"));
    }
    if taken < total && bundle.is_some() {
        tracing::warn!(
            "transport.tls.trusted_root: {} of {total} certificates cannot be read",
            total - taken
        );
    }
    let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|fault| error(fault.to_string()))?;
    match bundle {
        Some(_) => Ok(Arc::new(Pinning { pinned: certificates, chains })),
        None => Ok(chains),
    }
}

fn bundle_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, SettingError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(error("no certificate in it; it must be PEM with `-----BEGIN CERTIFICATE-----`")),
        Err(fault) => Err(error(format!("broken PEM: {fault}"))),
    }
}

fn system_certificates() -> Result<Vec<CertificateDer<'static>>, SettingError> {
    let found = rustls_native_certs::load_native_certs();
    if !found.certs.is_empty() {
        return Ok(found.certs);
    }
    let why = found.errors.first().map(|fault| format!(" ({fault})")).unwrap_or_default();
    Err(error(format!(
        "not set, and the system has no root certificates{why}; set it to the PEM file of the server's CA, or install \
         the package ca-certificates"
    )))
}

fn error(message: impl Into<String>) -> SettingError {
    SettingError { key: "tls.trusted_root", message: message.into() }
}

/// Believes what webpki believes, and a server certificate that is itself in the bundle: rathole's users put
/// self-signed ones there, which as a rule are CAs, too.
#[derive(Debug)]
struct Pinning {
    pinned: Vec<CertificateDer<'static>>,
    chains: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Pinning {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.pinned.iter().any(|pinned| pinned == leaf) {
            return self.chains.verify_server_cert(leaf, intermediates, name, ocsp, now);
        }
        check_dates(leaf, now)?;
        verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

fn check_dates(leaf: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let leaf = CertificateInner::<Raw>::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
    let validity = leaf.tbs_certificate().validity();
    let time = |duration: Duration| UnixTime::since_unix_epoch(duration);
    let (not_before, not_after) =
        (time(validity.not_before.to_unix_duration()), time(validity.not_after.to_unix_duration()));
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::transport::tls::explain;
    use crate::transport::tls::handshake::Failure;

    fn provider() -> Arc<CryptoProvider> {
        Arc::new(rustls::crypto::ring::default_provider())
    }

    #[test]
    fn dates_are_checked_for_chains_and_for_pinned_certificates() {
        if crate::transport::tls::testing::no_openssl() {
            return;
        }
        let bench = Bench::new();
        let leaf = CertificateDer::from_pem_slice(&bench.read("leaf.pem")).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let now = UnixTime::now();
        let later = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 40 * 86400));
        let earlier = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() - 86400));
        for root in ["ca.pem", "leaf.pem"] {
            let verifier = verifier(Some(&bench.read(root)), &provider()).unwrap();
            let verify = |now| verifier.verify_server_cert(&leaf, &[], &name, &[], now);
            verify(now).unwrap();
            for (when, expected) in [(later, "expired on 20"), (earlier, "valid only from 20")] {
                let fault = verify(when).unwrap_err();
                let text = explain::connect(Failure::Tls(fault), "localhost").to_string();
                assert!(text.contains(expected), "{root}: {text}");
            }
        }
    }

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        if crate::transport::tls::testing::no_openssl() {
            return;
        }
        let bench = Bench::new();
        let torn = &bench.read("ca.pem")[..200];
        let junk = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for pem in [&b""[..], b"hello", &[0xff; 100], &bench.read("ca.key"), torn, junk] {
            let fault = verifier(Some(pem), &provider()).unwrap_err();
            assert_eq!(fault.key, "tls.trusted_root", "{fault}");
        }
    }
}
