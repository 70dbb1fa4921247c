//! TLS identities, made by the `openssl` command: a CA and a leaf for `localhost` and 127.0.0.1.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process::run;

/// Which key the certificates have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// P-256.
    Ec,
    /// 2048 bits.
    Rsa,
}

/// The files, in a directory that ends with this value.
pub struct Certs {
    dir: TempDir,
    /// The CA's certificate.
    pub ca: PathBuf,
    /// The leaf's certificate, then the CA's.
    pub chain: PathBuf,
    /// The leaf's key.
    pub key: PathBuf,
    /// PKCS#12, PBES2 with AES.
    pub p12_modern: PathBuf,
    /// PKCS#12, SHA1 with 3DES.
    pub p12_legacy: PathBuf,
}

/// The password of both archives.
pub const P12_PASSWORD: &str = "p12-pass-Zq81";

const CONFIG: &str = "
[req]
distinguished_name = name
prompt = no
[name]
CN = rathole test
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
";

/// Whether certificates can be made here. If not, what needs them is left out of `test`, and a line says so.
pub fn can_be_made(test: &str) -> bool {
    super::has("openssl", &format!("{test}: all over TLS"))
}

impl Certs {
    /// Makes them; without `openssl` there are only the files' names.
    pub fn new(kind: KeyKind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        if super::is_here("openssl") {
            Self::make(kind, dir.path());
        }
        Certs {
            ca: path("ca.pem"),
            chain: path("chain.pem"),
            key: path("leaf.key"),
            p12_modern: path("modern.p12"),
            p12_legacy: path("legacy.p12"),
            dir,
        }
    }

    fn make(kind: KeyKind, dir: &Path) {
        let path = |name: &str| dir.join(name);
        std::fs::write(path("openssl.cnf"), CONFIG).unwrap();
        let key = match kind {
            KeyKind::Ec => "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1",
            KeyKind::Rsa => "-newkey rsa:2048",
        };
        let openssl = |arguments: String| {
            run(Command::new("openssl").args(arguments.split_whitespace()).current_dir(dir))
        };
        openssl(format!(
            "req -config openssl.cnf -x509 {key} -nodes -subj /CN=rathole-test-CA -days 30 -extensions ca
             -keyout ca.key -out ca.pem"
        ));
        openssl(format!(
            "req -config openssl.cnf -new {key} -nodes -subj /CN=localhost -keyout leaf.key -out leaf.csr"
        ));
        openssl(
            "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile openssl.cnf
             -extensions leaf -out leaf.pem"
                .to_owned(),
        );
        let chain = [read(&path("leaf.pem")), read(&path("ca.pem"))].concat();
        std::fs::write(path("chain.pem"), chain).unwrap();
        let export = format!(
            "pkcs12 -export -in leaf.pem -inkey leaf.key -certfile ca.pem -passout pass:{P12_PASSWORD}"
        );
        openssl(format!("{export} -keypbe AES-256-CBC -certpbe AES-256-CBC -macalg sha256 -out modern.p12"));
        openssl(format!(
            "{export} -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1 -out legacy.p12"
        ));
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}
