//! `[client]`: the half behind NAT.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::check::Check;
use super::section::Section;
use super::{ClientTransport, Endpoint, Proxy, Secret, TcpOptions, service, transport};

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

/// Resolves the client half; if it is not `run`, only what upstream refuses is looked at. None: an error was noted,
/// or the half is not run.
pub(super) fn resolve(check: &mut Check<'_>, half: &Section<'_>, run: bool) -> Option<Client> {
    // The constant lets a build without this role drop the rest.
    let run = run && cfg!(feature = "client");
    let how = transport::client(check, half, run);
    let proxy = transport::proxy(check, half, run, false);
    let default_token = service::default_token(check, half, run);
    let list = half.child("services");
    let tcp = if run { transport::tcp(check, half) } else { TcpOptions::default() };
    let retry_interval = if run { half.duration(check, "retry_interval") } else { None }.unwrap_or_default();
    let mut services = BTreeMap::new();
    for section in list.iter().flat_map(|list| list.children()) {
        let token = service::service_token(check, &section, &default_token, run);
        if !run {
            continue;
        }
        service::check_name(check, &section);
        let local_addr = target(check, &section, "local_addr");
        let own_retry_interval = section.duration(check, "retry_interval");
        let (Some(token), Some(local_addr)) = (token, local_addr) else {
            continue;
        };
        let prefer_ipv6 = section.flag("prefer_ipv6").unwrap_or_default();
        let name: Arc<str> = section.name.into();
        let service = ClientService {
            name: Arc::clone(&name),
            local_addr,
            kind: if section.text("type") == Some("udp") {
                ClientKind::Udp { prefer_ipv6 }
            } else {
                ClientKind::Tcp
            },
            token,
            nodelay: section.flag("nodelay").unwrap_or(tcp.nodelay),
            retry_interval: own_retry_interval.unwrap_or(retry_interval),
        };
        services.insert(name, service);
    }
    if !run {
        return None;
    }
    let remote_addr = target(check, half, "remote_addr");
    if let (Some(address), Some(how)) = (&remote_addr, &how) {
        let plain = matches!(how, ClientTransport::Tcp | ClientTransport::WebSocket { tls: None });
        transport::warn_if_plain(check, half, "remote_addr", !plain || address.is_loopback());
    }
    if half.get("prefer_ipv6").is_some() {
        let help = "it belongs in [client.services.NAME], for a service of type = \"udp\"";
        check.warn(half.place("prefer_ipv6"), half.path("prefer_ipv6"), "this has no effect here", help);
    }
    let time = |check: &mut Check<'_>, key| half.duration(check, key).unwrap_or_default();
    let heartbeat_timeout = time(check, "heartbeat_timeout");
    let [handshake_timeout, shutdown_grace, token_grace] =
        ["handshake_timeout", "shutdown_grace", "token_grace"].map(|key| time(check, key));
    Some(Client {
        remote_addr: remote_addr?,
        transport: how?,
        tcp,
        proxy,
        heartbeat_timeout: Some(heartbeat_timeout).filter(|timeout| *timeout > Duration::ZERO),
        handshake_timeout,
        shutdown_grace,
        token_grace,
        services,
    })
}

/// An address to connect to.
fn target(check: &mut Check<'_>, section: &Section<'_>, key: &str) -> Option<Endpoint> {
    let endpoint = section.endpoint(check, key)?;
    if endpoint.port == 0 {
        check.warn(section.place(key), section.path(key), "nothing can be reached at port 0", "1 to 65535");
    }
    Some(endpoint)
}
