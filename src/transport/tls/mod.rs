//! TLS 1.2 and 1.3 (protocol-v1.md, section 3.2).
//!
//! What it decides: which certificate is shown, which one is believed. What it never does: ask for a client's
//! certificate, offer ALPN, resume a session (a data channel is opened ahead of its visitor, so a resumed handshake
//! would save nobody's time, while tickets cost bytes and memory). rustls does the handshake; records are ours
//! ([`record`]).

mod explain;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod handshake;
mod identity;
mod incoming;
mod outgoing;
mod record;
mod stream;
mod trust;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod meddling;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::sign::SingleCertAndKey;
use rustls::{CipherSuite, ClientConfig, ServerConfig};
use tokio::net::TcpStream;

pub use stream::Stream;

use crate::config::{Endpoint, Host, TlsClient, TlsServer};
use crate::transport::SettingError;

/// The server's side.
#[derive(Debug, Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
}

impl Acceptor {
    /// Takes certificate and key.
    ///
    /// # Errors
    /// Names `tls.pkcs12`, `tls.pkcs12_password`, `tls.cert` or `tls.key`.
    pub fn new(tls: &TlsServer) -> Result<Self, SettingError> {
        Self::with(tls, provider())
    }

    fn with(tls: &TlsServer, provider: CryptoProvider) -> Result<Self, SettingError> {
        let provider = Arc::new(provider);
        let identity = identity::load(tls, &provider)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .map_err(internal)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.enable_secret_extraction = true;
        Ok(Acceptor { config: Arc::new(config) })
    }

    /// The handshake, on an accepted connection. The caller sets the deadline.
    ///
    /// # Errors
    /// One line that says what the client did wrong.
    pub async fn accept(&self, mut tcp: TcpStream) -> io::Result<Stream> {
        let session = UnbufferedServerConnection::new(self.config.clone()).map_err(io::Error::other)?;
        match handshake::run(&mut tcp, session).await {
            Ok(established) => Ok(Stream::new(tcp, established)),
            Err(failure) => Err(explain::accept(failure)),
        }
    }
}

/// The client's side.
#[derive(Debug, Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Connector {
    /// Takes roots and the name to check; `remote` gives the name where the configuration gives none.
    ///
    /// # Errors
    /// Names `tls.trusted_root` or `tls.hostname`.
    pub fn new(tls: &TlsClient, remote: &Endpoint) -> Result<Self, SettingError> {
        Self::with(tls, remote, provider())
    }

    fn with(tls: &TlsClient, remote: &Endpoint, provider: CryptoProvider) -> Result<Self, SettingError> {
        let provider = Arc::new(provider);
        let verifier = trust::verifier(tls.trusted_root.as_deref(), &provider)?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .map_err(internal)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.enable_secret_extraction = true;
        Ok(Connector { config: Arc::new(config), name: server_name(tls.hostname.as_deref(), &remote.host)? })
    }

    /// The handshake, on a connection to the server. The caller sets the deadline.
    ///
    /// # Errors
    /// One line that says why the server is not believed.
    pub async fn connect(&self, mut tcp: TcpStream) -> io::Result<Stream> {
        let session = UnbufferedClientConnection::new(self.config.clone(), self.name.clone())
            .map_err(io::Error::other)?;
        match handshake::run(&mut tcp, session).await {
            Ok(established) => Ok(Stream::new(tcp, established)),
            Err(failure) => Err(explain::connect(failure, &self.name.to_str())),
        }
    }
}

fn internal(fault: rustls::Error) -> SettingError {
    SettingError { key: "type", message: format!("TLS cannot be set up: {fault}") }
}

/// The name in the server's certificate. An IP address is not sent as SNI, and looked for among the certificate's
/// IP addresses.
fn server_name(hostname: Option<&str>, remote: &Host) -> Result<ServerName<'static>, SettingError> {
    let name = match (hostname, remote) {
        (None, Host::Ip(ip)) => return Ok(ServerName::from(*ip)),
        (None, Host::Name(name)) => name,
        (Some(hostname), _) => hostname,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    ServerName::try_from(bare.to_owned()).map_err(|_| SettingError {
        key: "tls.hostname",
        message: match hostname {
            Some(_) => format!("{name:?} is neither a DNS name nor an IP address"),
            None => format!(
                "{name:?} (from remote_addr) cannot be the name in a certificate; set hostname to the one that is"
            ),
        },
    })
}

/// ring, with the cipher that this machine is fastest at in front. TLS 1.2 only with forward secrecy.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    let fast_aes = has_fast_aes();
    provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => fast_aes,
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => !fast_aes,
        _ => true,
    });
    provider
}

fn has_fast_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}
