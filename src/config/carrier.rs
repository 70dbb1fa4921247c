//! How the bytes between client and server are carried, resolved.

use std::time::Duration;

use super::Secret;

/// Options for TCP sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpOptions {
    /// TCP_NODELAY.
    pub nodelay: bool,
    /// TCP_KEEPIDLE.
    pub keepalive_idle: Duration,
    /// TCP_KEEPINTVL.
    pub keepalive_interval: Duration,
}

impl Default for TcpOptions {
    fn default() -> Self {
        TcpOptions {
            nodelay: true,
            keepalive_idle: Duration::from_secs(20),
            keepalive_interval: Duration::from_secs(8),
        }
    }
}

/// How a server takes connections from clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerTransport {
    /// Plain.
    Tcp,
    /// TLS 1.2 and 1.3.
    Tls(TlsServer),
    /// The Noise protocol framework.
    Noise(Noise),
    /// WebSocket, over TLS if `tls` is given.
    WebSocket {
        /// wss.
        tls: Option<TlsServer>,
    },
}

/// How a client connects to its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientTransport {
    /// Plain.
    Tcp,
    /// TLS 1.2 and 1.3.
    Tls(TlsClient),
    /// The Noise protocol framework.
    Noise(Noise),
    /// WebSocket, over TLS if `tls` is given.
    WebSocket {
        /// wss.
        tls: Option<TlsClient>,
    },
}

/// A server's certificate and key, as found in their files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsServer {
    /// A PKCS#12 archive and its password.
    Pkcs12 {
        /// The file's bytes (DER).
        archive: Secret,
        /// Its password.
        password: Secret,
    },
    /// PEM files.
    Pem {
        /// The leaf and its chain.
        cert: Vec<u8>,
        /// The private key.
        key: Secret,
    },
}

/// What a client checks a server's certificate against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsClient {
    /// The name in the certificate; None: the host part of `remote_addr`.
    pub hostname: Option<String>,
    /// PEM bundle of the only roots; None: the system's roots.
    pub trusted_root: Option<Vec<u8>>,
}

/// Noise: pattern and keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noise {
    /// For example `Noise_NK_25519_ChaChaPoly_BLAKE2s`.
    pub pattern: String,
    /// 32 bytes; None: a fresh key is made at each start.
    pub local_private_key: Option<Secret>,
    /// 32 bytes that the peer's static key must equal.
    pub remote_public_key: Option<[u8; 32]>,
}

/// rathole's default Noise pattern.
pub const DEFAULT_NOISE_PATTERN: &str = "Noise_NK_25519_ChaChaPoly_BLAKE2s";

impl ServerTransport {
    /// As written in a configuration.
    pub fn name(&self) -> &'static str {
        match self {
            ServerTransport::Tcp => "tcp",
            ServerTransport::Tls(_) => "tls",
            ServerTransport::Noise(_) => "noise",
            ServerTransport::WebSocket { tls: None } => "websocket",
            ServerTransport::WebSocket { tls: Some(_) } => "websocket+tls",
        }
    }
}

impl ClientTransport {
    /// As written in a configuration.
    pub fn name(&self) -> &'static str {
        match self {
            ClientTransport::Tcp => "tcp",
            ClientTransport::Tls(_) => "tls",
            ClientTransport::Noise(_) => "noise",
            ClientTransport::WebSocket { tls: None } => "websocket",
            ClientTransport::WebSocket { tls: Some(_) } => "websocket+tls",
        }
    }
}
