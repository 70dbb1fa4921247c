//! The configuration: resolved types. Nothing optional in them "must be set".
//!
//! What it decides: what a configuration file means. What it never does: open a socket, resolve a name,
//! read a clock. Files that a configuration names are read through [`files::Files`], so that a check in a build
//! sandbox can refuse them. Meanings and defaults are those of rathole 0.5 (protocol-v1.md, section 4)
//! but where `docs/config.md` says otherwise.

mod access;
mod check;
mod clash;
mod client;
pub mod diff;
mod endpoint;
pub mod files;
pub mod fragments;
mod given;
mod hint;
mod keys;
mod load;
mod merge;
mod noise;
mod problem;
mod proxy;
#[cfg(feature = "cli")]
pub mod schema;
pub mod secret;
mod section;
mod server;
mod service;
mod shape;
mod source;
mod transport;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use access::{Access, Prefix};
pub use files::{Files, NoFiles, RegularFiles, SystemFiles};
pub use load::{Loaded, Request, RoleChoice, inspect, load};
pub use problem::{Problem, Report, Severity};
pub use secret::Secret;
pub use section::quoted;

/// A whole resolved configuration: at least one role is present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The `[server]` half, when this process is to run it.
    pub server: Option<Server>,
    /// The `[client]` half, when this process is to run it.
    pub client: Option<Client>,
}

/// An address as written: `host:port`, not yet resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// An IP address or a name.
    pub host: Host,
    /// The port; 0 lets the system choose where that makes sense (tests, the demo).
    pub port: u16,
}

/// The host part of an [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A literal address.
    Ip(IpAddr),
    /// A name for the system's resolver.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Ip(ip) => ip.fmt(f),
            Host::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            // An IPv6 address with the name of its interface.
            Host::Name(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

/// The server half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where clients connect.
    pub bind_addr: Endpoint,
    /// How the bytes between client and server are carried.
    pub transport: ServerTransport,
    /// Socket options of connections between client and server, and of visitors.
    pub tcp: TcpOptions,
    /// A heartbeat after this much silence on a control channel; None: off.
    pub heartbeat_interval: Option<Duration>,
    /// From accept to authentication.
    pub handshake_timeout: Duration,
    /// How long established relays may go on after a stop signal.
    pub shutdown_grace: Duration,
    /// How long a visitor waits for a data channel.
    pub visitor_timeout: Duration,
    /// What becomes of a second client of a service.
    pub on_duplicate: OnDuplicate,
    /// How long what a reload has replaced (a token, a pinned key) is still good.
    pub token_grace: Duration,
    /// Connections before authentication: all, and from one address.
    pub max_unauthenticated: MaxUnauthenticated,
    /// By name.
    pub services: BTreeMap<Arc<str>, ServerService>,
}

/// What becomes of a client that proves that it knows the token of a service that has a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDuplicate {
    /// It takes the other's place.
    Replace,
    /// It is refused while the other is alive.
    Refuse,
}

/// How many connections may be unauthenticated at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxUnauthenticated {
    /// Of the whole server.
    pub total: usize,
    /// From one IPv4 address or one IPv6 /64, unless a client is authenticated from there.
    pub per_address: usize,
}

impl MaxUnauthenticated {
    /// Where the configuration says nothing.
    pub const DEFAULT: Self = MaxUnauthenticated { total: 4096, per_address: 128 };
}

/// What one service may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Visitors at the same time, waiting or served.
    pub visitors: usize,
    /// Visitors that wait for a data channel (TCP).
    pub waiting: usize,
    /// Data channels that wait for a visitor (TCP).
    pub channels: usize,
}

impl Limits {
    /// Where the configuration says nothing: more than normal use ever needs.
    pub const DEFAULT: Self = Limits { visitors: 65_536, waiting: 2048, channels: 1024 };
}

/// Whether this build takes over other configurations while it runs. Without that, the code for it is left out.
pub const CAN_RELOAD: bool = cfg!(feature = "hot-reload");

/// How long replaced tokens and pins are good where the configuration says nothing.
pub const DEFAULT_TOKEN_GRACE: Duration = Duration::from_secs(300);

/// One service, as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerService {
    /// The key of its table.
    pub name: Arc<str>,
    /// Where visitors connect.
    pub bind_addr: Endpoint,
    /// What a client must prove it knows.
    pub token: Secret,
    /// TCP_NODELAY on this service's data channels and visitors.
    pub nodelay: bool,
    /// TCP or UDP, and what only one of them has.
    pub kind: ServerKind,
    /// What it may hold.
    pub limits: Limits,
    /// Who may visit it.
    pub access: Access,
}

/// What a server service carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// One data channel for each visitor.
    Tcp {
        /// The PROXY header to write as a stream's first bytes.
        proxy_protocol: Option<ProxyProtocol>,
    },
    /// All visitors share a data channel.
    Udp,
}

/// Version of the PROXY protocol header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// The text form.
    V1,
    /// The binary form.
    V2,
}

/// The client half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Where the server is.
    pub remote_addr: Endpoint,
    /// How the bytes between client and server are carried.
    pub transport: ClientTransport,
    /// Socket options of connections to the server and to local services.
    pub tcp: TcpOptions,
    /// A proxy on the way to the server.
    pub proxy: Option<Proxy>,
    /// A control channel without any command for this long is dead; None: off.
    pub heartbeat_timeout: Option<Duration>,
    /// From connect to authentication.
    pub handshake_timeout: Duration,
    /// How long established relays may go on after a stop signal.
    pub shutdown_grace: Duration,
    /// How long a pinned key or root that a reload has replaced is still good.
    pub token_grace: Duration,
    /// By name.
    pub services: BTreeMap<Arc<str>, ClientService>,
}

/// One service, as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientService {
    /// The key of its table.
    pub name: Arc<str>,
    /// The local service.
    pub local_addr: Endpoint,
    /// TCP or UDP.
    pub kind: ClientKind,
    /// What proves to the server that this client may serve it.
    pub token: Secret,
    /// TCP_NODELAY on this service's data channels and local connections.
    pub nodelay: bool,
    /// The longest pause between two attempts to connect.
    pub retry_interval: Duration,
}

/// What a client service carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientKind {
    /// One data channel for each visitor.
    Tcp,
    /// All visitors share a data channel.
    Udp {
        /// Prefer an IPv6 address of the local service.
        prefer_ipv6: bool,
    },
}

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

/// A proxy between client and server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its protocol.
    pub kind: ProxyKind,
    /// Its address.
    pub endpoint: Endpoint,
    /// User and password, percent-decoded.
    pub credentials: Option<(String, Secret)>,
}

/// A proxy's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP CONNECT.
    Http,
    /// SOCKS5 (RFC 1928), with user and password (RFC 1929) if given.
    Socks5,
}

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
