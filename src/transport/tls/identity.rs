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
        Ok(_) => {
            Err(error("tls.cert", "no certificate in it; it must be PEM with `-----BEGIN CERTIFICATE-----`"))
        }
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
        Pkcs12Error::InvalidPrivateKey => {
            error("tls.pkcs12", "the key in the archive is damaged, or the password is another one")
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
        return Err(error(
            "tls.pkcs12",
            "no private key in the archive; make it with `openssl pkcs12 -export -inkey`",
        ));
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
            if let Some(front) = chain.get_mut(..=leaf) {
                front.rotate_right(1);
            }
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

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;

    fn take(tls: &TlsServer) -> Result<CertifiedKey, SettingError> {
        load(tls, &rustls::crypto::ring::default_provider())
    }

    /// A leaf under an intermediate: `low.key`, `low.pem`, `mid.pem`, `ca.pem`.
    fn bench() -> Bench {
        let bench = Bench::new();
        bench.openssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=mid -keyout mid.key -out mid.csr");
        bench.sign("mid", "ca", "basicConstraints=critical,CA:TRUE");
        bench.leaf("low", "mid", "DNS:localhost");
        bench
    }

    #[test]
    fn archives_of_all_ages_give_leaf_chain_and_key() {
        if crate::transport::tls::testing::no_openssl() {
            return;
        }
        let bench = bench();
        let export = "pkcs12 -export -inkey low.key -in low.pem -certfile mid.pem -passout pass:s3cret";
        for (name, how) in [
            ("modern", ""),
            ("legacy", " -legacy"),
            ("des", " -legacy -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1"),
            ("nomac", " -nomac"),
            ("open", " -certpbe NONE -keypbe NONE"),
        ] {
            bench.openssl(&format!("{export}{how} -out {name}.p12"));
            let identity = take(&bench.pkcs12(&format!("{name}.p12"), "s3cret")).unwrap();
            assert_eq!(identity.cert.len(), 2, "{name}");
            assert_eq!(identity.cert[0], pem_chain(&bench.read("low.pem")).unwrap()[0], "{name}");
            let fault = take(&bench.pkcs12(&format!("{name}.p12"), "wrong")).unwrap_err();
            // Without a MAC one wrong password in 256 looks like a damaged archive.
            let blamed = fault.key == "tls.pkcs12_password" || name == "nomac" && fault.key == "tls.pkcs12";
            assert!(blamed, "{name}: {fault}");
            assert!(!fault.message.contains("wrong"));
        }
        bench.openssl("pkcs12 -export -inkey low.key -in low.pem -passout pass: -out empty.p12");
        assert!(take(&bench.pkcs12("empty.p12", "")).is_ok());
    }

    #[test]
    fn archives_that_lack_something_are_told_plainly() {
        if crate::transport::tls::testing::no_openssl() {
            return;
        }
        let bench = bench();
        bench.openssl("pkcs12 -export -nokeys -in low.pem -passout pass:x -out nokey.p12");
        bench.openssl("pkcs12 -export -inkey low.key -in low.pem -passout pass:x -out good.p12");
        bench.openssl("pkcs12 -export -nocerts -inkey low.key -in low.pem -passout pass:x -out nocert.p12");
        for (file, expected) in [
            ("nokey.p12", "no private key"),
            ("nocert.p12", "no certificate"),
            ("low.pem", "no PKCS#12 archive"),
        ] {
            let fault = take(&bench.pkcs12(file, "x")).unwrap_err();
            assert_eq!(fault.key, "tls.pkcs12", "{file}");
            assert!(fault.message.contains(expected), "{file}: {fault}");
        }
        let password = Secret::new(&[0xff, 0xfe][..]);
        let archive = Secret::new(bench.read("good.p12"));
        let fault = take(&TlsServer::Pkcs12 { archive, password }).unwrap_err();
        assert_eq!(fault.key, "tls.pkcs12_password");
    }

    #[test]
    fn damaged_archives_are_errors() {
        if crate::transport::tls::testing::no_openssl() {
            return;
        }
        let bench = bench();
        bench.openssl(
            "pkcs12 -export -nomac -inkey low.key -in low.pem -passout pass:x -iter 1 -out nomac.p12",
        );
        bench.openssl(
            "pkcs12 -export -legacy -nomac -inkey low.key -in low.pem -passout pass:x -iter 1 -out old.p12",
        );
        let mut random = fastrand::Rng::with_seed(4);
        let mut errors = 0;
        for good in [bench.read("nomac.p12"), bench.read("old.p12")] {
            for round in 0..400 {
                let mut bad = good.clone();
                match round % 3 {
                    0 => bad.truncate(random.usize(..bad.len())),
                    _ => (0..1 + round % 4).for_each(|_| {
                        let at = random.usize(..bad.len());
                        bad[at] = random.u8(..);
                    }),
                }
                // An iteration count of billions is not damage but patience.
                if bad.windows(3).filter(|window| window == b"\x02\x01\x01").count()
                    < good.windows(3).filter(|window| window == b"\x02\x01\x01").count()
                {
                    continue;
                }
                let archive = Secret::new(bad);
                errors +=
                    usize::from(take(&TlsServer::Pkcs12 { archive, password: Secret::new("x") }).is_err());
            }
        }
        assert!(errors > 400, "{errors}");
    }

    #[test]
    fn pem_keys_of_every_form_are_taken() {
        if crate::transport::tls::testing::no_openssl() {
            return;
        }
        let bench = bench();
        bench.openssl("ec -in low.key -out sec1.key");
        bench.openssl("req -newkey rsa:2048 -nodes -subj /CN=rsa -keyout rsa.key -out rsa.csr");
        bench.sign("rsa", "ca", "subjectAltName=DNS:localhost");
        bench.openssl("rsa -traditional -in rsa.key -out pkcs1.key");
        bench.openssl("req -newkey ed25519 -nodes -subj /CN=ed -keyout ed.key -out ed.csr");
        bench.sign("ed", "ca", "subjectAltName=DNS:localhost");
        for (cert, key, head) in [
            ("low.pem", "low.key", "BEGIN PRIVATE"),
            ("low.pem", "sec1.key", "BEGIN EC"),
            ("rsa.pem", "rsa.key", "BEGIN PRIVATE"),
            ("rsa.pem", "pkcs1.key", "BEGIN RSA"),
            ("ed.pem", "ed.key", "BEGIN PRIVATE"),
        ] {
            assert!(String::from_utf8_lossy(&bench.read(key)).contains(head), "{key}");
            take(&bench.pem(cert, key)).unwrap();
        }
        // The leaf is found wherever it stands.
        let chain = [bench.read("mid.pem"), bench.read("low.pem"), bench.read("ca.pem")].concat();
        std::fs::write(bench.path("mixed.pem"), chain).unwrap();
        let identity = take(&bench.pem("mixed.pem", "low.key")).unwrap();
        assert_eq!(identity.cert[0], pem_chain(&bench.read("low.pem")).unwrap()[0]);
        assert_eq!(identity.cert.len(), 3);
    }

    #[test]
    fn pem_files_that_do_not_fit_are_told_plainly() {
        if crate::transport::tls::testing::no_openssl() {
            return;
        }
        let bench = bench();
        bench.openssl("pkcs8 -topk8 -in low.key -passout pass:x -out locked.key");
        bench.openssl("ec -in low.key -aes128 -passout pass:x -out old-locked.key");
        std::fs::write(bench.path("empty"), "").unwrap();
        std::fs::write(bench.path("binary"), [0, 159, 146, 150].repeat(100)).unwrap();
        std::fs::write(bench.path("torn.pem"), &bench.read("low.pem")[..300]).unwrap();
        std::fs::write(bench.path("torn.key"), &bench.read("low.key")[..100]).unwrap();
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(bench.path("junk.pem"), junk).unwrap();
        std::fs::write(bench.path("junk.key"), junk.replace("CERTIFICATE", "PRIVATE KEY")).unwrap();
        for (cert, key, blamed, expected) in [
            ("low.pem", "mid.key", "tls.key", "belongs to none"),
            ("low.pem", "low.pem", "tls.key", "no private key"),
            ("low.key", "low.key", "tls.cert", "no certificate"),
            ("low.pem", "locked.key", "tls.key", "encrypted"),
            ("low.pem", "old-locked.key", "tls.key", "encrypted"),
            ("empty", "low.key", "tls.cert", "no certificate"),
            ("binary", "low.key", "tls.cert", ""),
            ("torn.pem", "low.key", "tls.cert", "broken PEM"),
            ("junk.pem", "low.key", "tls.cert", "broken"),
            ("low.pem", "empty", "tls.key", "no private key"),
            ("low.pem", "binary", "tls.key", ""),
            ("low.pem", "torn.key", "tls.key", "broken PEM"),
            ("low.pem", "junk.key", "tls.key", "broken or of a kind"),
        ] {
            let fault = take(&bench.pem(cert, key)).unwrap_err();
            assert_eq!(fault.key, blamed, "{cert} {key}: {fault}");
            assert!(fault.message.contains(expected), "{cert} {key}: {fault}");
        }
    }
}
