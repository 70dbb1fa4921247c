//! `[server]`: the half with the public address.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::check::Check;
use super::section::Section;
use super::source::{Node, Value};
use super::{Access, Endpoint, Prefix, Secret, ServerTransport, TcpOptions, clash, service, transport};

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

/// Resolves the server half; if it is not `run`, only what upstream refuses is looked at. None: an error was noted,
/// or the half is not run.
pub(super) fn resolve(check: &mut Check<'_>, half: &Section<'_>, run: bool) -> Option<Server> {
    // The constant lets a build without this role drop the rest.
    let run = run && cfg!(feature = "server");
    let how = transport::server(check, half, run);
    transport::proxy(check, half, run, true);
    let default_token = service::default_token(check, half, run);
    let list = half.child("services");
    let tcp = if run { transport::tcp(check, half) } else { TcpOptions::default() };
    let mut services = BTreeMap::new();
    for section in list.iter().flat_map(|list| list.children()) {
        let token = service::service_token(check, &section, &default_token, run);
        let kind = kind(check, &section);
        if !run {
            continue;
        }
        service::check_name(check, &section);
        let most = |check: &mut Check<'_>, key| section.count(check, key).unwrap_or(1);
        let limits = Limits {
            visitors: most(check, "max_visitors"),
            waiting: most(check, "max_waiting"),
            channels: most(check, "max_channels"),
        };
        let access = access(check, &section);
        let bind_addr = section.endpoint(check, "bind_addr");
        let (Some(token), Some(bind_addr)) = (token, bind_addr) else {
            continue;
        };
        let name: Arc<str> = section.name.into();
        let service = ServerService {
            name: Arc::clone(&name),
            bind_addr,
            token,
            nodelay: section.flag("nodelay").unwrap_or(tcp.nodelay),
            kind,
            limits,
            access,
        };
        services.insert(name, service);
    }
    if !run {
        return None;
    }
    let bind_addr = half.endpoint(check, "bind_addr");
    clash::check(check, half, bind_addr.as_ref(), &services);
    if let (Some(address), Some(how)) = (&bind_addr, &how) {
        let plain = matches!(how, ServerTransport::Tcp | ServerTransport::WebSocket { tls: None });
        transport::warn_if_plain(check, half, "bind_addr", !plain || address.is_loopback());
    }
    let time = |check: &mut Check<'_>, key| half.duration(check, key).unwrap_or_default();
    let heartbeat_interval = time(check, "heartbeat_interval");
    let [handshake_timeout, shutdown_grace, visitor_timeout, token_grace] =
        ["handshake_timeout", "shutdown_grace", "visitor_timeout", "token_grace"].map(|key| time(check, key));
    let max_unauthenticated = MaxUnauthenticated {
        total: half.count(check, "max_unauthenticated").unwrap_or(1),
        per_address: half.count(check, "max_unauthenticated_per_address").unwrap_or(1),
    };
    let on_duplicate = match half.text("on_duplicate") {
        Some("refuse") => OnDuplicate::Refuse,
        _ => OnDuplicate::Replace,
    };
    Some(Server {
        bind_addr: bind_addr?,
        transport: how?,
        tcp,
        heartbeat_interval: Some(heartbeat_interval).filter(|interval| *interval > Duration::ZERO),
        handshake_timeout,
        shutdown_grace,
        visitor_timeout,
        on_duplicate,
        token_grace,
        max_unauthenticated,
        services,
    })
}

fn access(check: &mut Check<'_>, section: &Section<'_>) -> Access {
    let allow = prefixes(check, section, "allow");
    if let Some([]) = list(section, "allow") {
        let help = "leave allow out to let everyone in";
        check.warn(section.place("allow"), section.path("allow"), "nobody may visit this service", help);
    }
    Access::new(allow.as_deref(), &prefixes(check, section, "deny").unwrap_or_default())
}

/// The prefixes of a list. What is none of them is noted as an error.
fn prefixes(check: &mut Check<'_>, section: &Section<'_>, key: &str) -> Option<Vec<Prefix>> {
    let mut prefixes = Vec::new();
    for (n, entry) in list(section, key)?.iter().enumerate() {
        let Value::Text(text) = &entry.value else { continue };
        let which = |what: &str| format!("entry {}, {:?}: {what}", n + 1, text.as_str());
        match Prefix::parse(text) {
            Ok((prefix, surplus)) => {
                if surplus {
                    let what = which("bits after the prefix do not count");
                    check.warn(entry.at, section.path(key), &what, &format!("write {prefix}"));
                }
                prefixes.push(prefix);
            }
            Err(error) => check.error(entry.at, section.path(key), &which(&error), ""),
        }
    }
    Some(prefixes)
}

fn list<'a>(section: &Section<'a>, key: &str) -> Option<&'a [Node]> {
    match &section.get(key)?.value {
        Value::List(entries) => Some(entries),
        _ => None,
    }
}

fn kind(check: &mut Check<'_>, section: &Section<'_>) -> ServerKind {
    let proxy_protocol = match section.text("proxy_protocol") {
        Some("v1") => Some(ProxyProtocol::V1),
        Some("v2") => Some(ProxyProtocol::V2),
        _ => None,
    };
    if section.text("type") != Some("udp") {
        return ServerKind::Tcp { proxy_protocol };
    }
    if section.get("proxy_protocol").is_some() {
        let (at, path) = (section.place("proxy_protocol"), section.path("proxy_protocol"));
        check.error(at, path, "only a service of type = \"tcp\" can have this", "remove it");
    }
    ServerKind::Udp
}
