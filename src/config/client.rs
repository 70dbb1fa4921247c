//! `[client]`, resolved.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::check::Check;
use super::section::Section;
use super::{Client, ClientKind, ClientService, ClientTransport, Endpoint, TcpOptions, service, transport};

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
