//! `[server]`, resolved.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::check::Check;
use super::section::Section;
use super::source::{Node, Value};
use super::{
    Access, Limits, MaxUnauthenticated, OnDuplicate, Prefix, ProxyProtocol, Server, ServerKind,
    ServerService, ServerTransport, TcpOptions, clash, service, transport,
};

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
