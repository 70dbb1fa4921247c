//! Certificates for tests, made at run time by the `openssl` command.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::config::{Endpoint, Host, Secret, TlsClient, TlsServer};

/// Whether the `openssl` command is missing. Then the calling test is skipped, and a line says so; where nothing may be
/// skipped (CI) it fails.
pub fn no_openssl() -> bool {
    if Command::new("openssl").arg("version").output().is_ok() {
        return false;
    }
    assert!(std::env::var_os("RATHOLE_REQUIRE_ALL").is_none(), "there is no openssl");
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    // Not println!: what a passing test prints is not shown.
    let _ = writeln!(std::io::stdout(), "SKIPPED {name}: no openssl here (Debian: apt-get install openssl)");
    true
}

/// A directory in which `openssl` works.
pub struct Bench {
    dir: TempDir,
}

impl Bench {
    /// With a CA (`ca.pem`) and a leaf for `localhost` and 127.0.0.1 signed by it (`leaf.pem`, `leaf.key`).
    pub fn new() -> Self {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        bench.authority("ca");
        bench.leaf("leaf", "ca", "DNS:localhost,IP:127.0.0.1");
        bench
    }

    /// Runs `openssl`; arguments are split at blanks.
    pub fn openssl(&self, arguments: &str) {
        let done =
            Command::new("openssl").current_dir(self.dir.path()).args(arguments.split(' ')).output().unwrap();
        assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// A self-signed CA: `NAME.pem`, `NAME.key`.
    pub fn authority(&self, name: &str) {
        self.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={name} \
             -keyout {name}.key -out {name}.pem"
        ));
    }

    /// A certificate signed by the CA `issuer`.
    pub fn leaf(&self, name: &str, issuer: &str, names: &str) {
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        self.sign(name, issuer, &format!("subjectAltName={names}"));
    }

    /// Signs `NAME.csr`.
    pub fn sign(&self, name: &str, issuer: &str, extensions: &str) {
        std::fs::write(self.path(&format!("{name}.ext")), extensions).unwrap();
        self.openssl(&format!(
            "x509 -req -days 30 -in {name}.csr -CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial \
             -extfile {name}.ext -out {name}.pem"
        ));
    }

    /// Where a file is.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// A file's bytes.
    pub fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.path(file)).unwrap()
    }

    /// A server's PEM identity.
    pub fn pem(&self, cert: &str, key: &str) -> TlsServer {
        TlsServer::Pem { cert: self.read(cert), key: Secret::new(self.read(key)) }
    }

    /// A server's PKCS#12 identity.
    pub fn pkcs12(&self, file: &str, password: &str) -> TlsServer {
        TlsServer::Pkcs12 { archive: Secret::new(self.read(file)), password: Secret::new(password) }
    }

    /// A client that trusts the certificates in `root`.
    pub fn client(&self, root: &str) -> TlsClient {
        TlsClient { hostname: None, trusted_root: Some(self.read(root)) }
    }
}

/// An endpoint by name.
pub fn endpoint(name: &str) -> Endpoint {
    let host = name.parse().map_or_else(|_| Host::Name(name.to_owned()), Host::Ip);
    Endpoint { host, port: 1 }
}
