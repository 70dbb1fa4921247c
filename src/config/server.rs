//! `[server]`, resolved.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::check::Check;
use super::section::Section;
use super::{
    Limits, MaxUnauthenticated, OnDuplicate, ProxyProtocol, Server, ServerKind, ServerService,
    ServerTransport, TcpOptions, clash, service, transport,
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
