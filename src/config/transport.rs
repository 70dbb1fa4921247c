//! `[server.transport]` and `[client.transport]`: what upstream refuses is refused in both halves, the rest is
//! looked at only in a half that is run.

use super::check::Check;
use super::given::{Given, secret};
use super::section::Section;
use super::{ClientTransport, Proxy, Secret, ServerTransport, TcpOptions, TlsClient, TlsServer, noise};

/// The server's transport. None: an error was noted, or the half is not run.
pub(super) fn server(check: &mut Check<'_>, half: &Section<'_>, run: bool) -> Option<ServerTransport> {
    let transport = half.child("transport");
    let Some(transport) = &transport else { return Some(ServerTransport::Tcp) };
    let kind = transport.text("type")?;
    if kind == "tls" && !refused(check, transport, true) {
        return None;
    }
    if !run || !compiled(check, transport, kind) {
        return None;
    }
    // The constants let a build drop what it has not got.
    match kind {
        "tcp" => Some(ServerTransport::Tcp),
        "tls" if cfg!(feature = "tls") => Some(ServerTransport::Tls(identity(check, transport)?)),
        "noise" if cfg!(feature = "noise") => {
            Some(ServerTransport::Noise(noise::resolve(check, transport, true)?))
        }
        "websocket" if cfg!(feature = "websocket") => {
            let tls = websocket_tls(check, transport, true)?;
            let tls = if tls { Some(identity(check, transport)?) } else { None };
            Some(ServerTransport::WebSocket { tls })
        }
        _ => None,
    }
}

/// The client's transport. None: an error was noted, or the half is not run.
pub(super) fn client(check: &mut Check<'_>, half: &Section<'_>, run: bool) -> Option<ClientTransport> {
    let transport = half.child("transport");
    let Some(transport) = &transport else { return Some(ClientTransport::Tcp) };
    let kind = transport.text("type")?;
    if kind == "tls" && !refused(check, transport, false) {
        return None;
    }
    if !run || !compiled(check, transport, kind) {
        return None;
    }
    // The constants let a build drop what it has not got.
    match kind {
        "tcp" => Some(ClientTransport::Tcp),
        "tls" if cfg!(feature = "tls") => Some(ClientTransport::Tls(roots(check, transport)?)),
        "noise" if cfg!(feature = "noise") => {
            Some(ClientTransport::Noise(noise::resolve(check, transport, false)?))
        }
        "websocket" if cfg!(feature = "websocket") => {
            let tls = websocket_tls(check, transport, false)?;
            let tls = if tls { Some(roots(check, transport)?) } else { None };
            Some(ClientTransport::WebSocket { tls })
        }
        _ => None,
    }
}

/// Socket options.
pub(super) fn tcp(check: &mut Check<'_>, half: &Section<'_>) -> TcpOptions {
    let transport = half.child("transport");
    let Some(section) = transport.as_ref().and_then(|transport| transport.child("tcp")) else {
        return TcpOptions::default();
    };
    let default = TcpOptions::default();
    TcpOptions {
        nodelay: section.flag("nodelay").unwrap_or(default.nodelay),
        keepalive_idle: section.duration(check, "keepalive_secs").unwrap_or(default.keepalive_idle),
        keepalive_interval: section
            .duration(check, "keepalive_interval")
            .unwrap_or(default.keepalive_interval),
    }
}

/// The proxy of a half: its URL must be right on both sides, and only a client uses it.
pub(super) fn proxy(check: &mut Check<'_>, half: &Section<'_>, run: bool, server: bool) -> Option<Proxy> {
    let transport = half.child("transport");
    let section = transport.as_ref().and_then(|transport| transport.child("tcp"))?;
    let url = section.text("proxy")?;
    let (at, path) = (section.place("proxy"), section.path("proxy"));
    match Proxy::parse(url) {
        Err(message) => check.error(at, path, &message, ""),
        Ok(_) if !run => {}
        Ok(_) if server => {
            check.warn(at, path, "this has no effect on the server", "it belongs in [client.transport.tcp]")
        }
        Ok(proxy) => {
            if check.built_with(cfg!(feature = "proxy"), "proxy", at, path) {
                return Some(proxy);
            }
        }
    }
    None
}

/// Warns if bytes travel in the clear between machines.
pub(super) fn warn_if_plain(check: &mut Check<'_>, half: &Section<'_>, address: &str, encrypted: bool) {
    if !encrypted {
        let message =
            "this is reached without encryption: whoever is on the way can read and take over services";
        let help = "transport.type = \"noise\" or \"tls\"";
        check.warn(half.place(address), half.path(address), message, help);
    }
}

/// What upstream refuses at load of `type = "tls"`. False: an error was noted.
fn refused(check: &mut Check<'_>, transport: &Section<'_>, server: bool) -> bool {
    let Some(tls) = transport.child("tls") else {
        no_tls_table(check, transport, "type = \"tls\" needs this table");
        return check.incomplete;
    };
    !server || identity_keys(check, &tls)
}

fn no_tls_table(check: &mut Check<'_>, transport: &Section<'_>, message: &str) {
    if transport.get("tls").is_none() {
        let help = ["write [", &transport.path("tls"), "]; it may be empty on a client"].concat();
        check.missing(transport.place("type"), transport.path("tls"), message, &help);
    }
}

/// Whether the keys of a server's identity make one. False: an error was noted.
fn identity_keys(check: &mut Check<'_>, tls: &Section<'_>) -> bool {
    let has = |key: &str| tls.get(key).is_some();
    if has("pkcs12") && (has("cert") || has("key")) {
        let at = tls.place("cert").max(tls.place("key")).max(tls.place("pkcs12"));
        check.error(at, tls.path("pkcs12"), "both pkcs12 and cert or key are given", "keep one of them");
        return false;
    }
    let (key, message) = if has("pkcs12") {
        if has("pkcs12_password") || has("pkcs12_password_file") {
            return true;
        }
        ("pkcs12_password", "the archive needs a password, which may be an empty string")
    } else if has("cert") || has("key") {
        match (has("cert"), has("key")) {
            (false, _) => ("cert", "the key needs its certificate"),
            (_, false) => ("key", "the certificate needs its private key"),
            _ => return true,
        }
    } else {
        ("cert", "a server needs a certificate and a key")
    };
    let help = "cert and key (PEM), or pkcs12 and pkcs12_password";
    check.missing(tls.node.key, tls.path(key), message, help);
    check.incomplete
}

/// A server's certificate and key from their files.
fn identity(check: &mut Check<'_>, transport: &Section<'_>) -> Option<TlsServer> {
    let tls = transport.child("tls")?;
    useless(check, &tls, &["hostname", "trusted_root"], "client");
    if tls.get("pkcs12").is_some() {
        let password = match secret(check, &tls, ["pkcs12_password", "pkcs12_password_file"], true) {
            Given::Known(password, _) => Some(password),
            Given::Absent | Given::Unknown => check.static_only.then(Secret::default),
        };
        let archive = file(check, &tls, "pkcs12", true);
        return Some(TlsServer::Pkcs12 { archive: Secret::new(archive?), password: password? });
    }
    let cert = file(check, &tls, "cert", false);
    let key = file(check, &tls, "key", true);
    Some(TlsServer::Pem { cert: cert?, key: Secret::new(key?) })
}

/// What a client checks a server's certificate against.
fn roots(check: &mut Check<'_>, transport: &Section<'_>) -> Option<TlsClient> {
    let tls = transport.child("tls")?;
    useless(check, &tls, &["pkcs12", "pkcs12_password", "pkcs12_password_file"], "server");
    let trusted_root = match tls.get("trusted_root") {
        Some(_) => Some(file(check, &tls, "trusted_root", false)?),
        None => None,
    };
    Some(TlsClient { hostname: tls.text("hostname").map(str::to_owned), trusted_root })
}

/// A file's bytes; no bytes in a static check.
fn file(check: &mut Check<'_>, tls: &Section<'_>, key: &str, is_secret: bool) -> Option<Vec<u8>> {
    if check.static_only {
        return Some(Vec::new());
    }
    check.read(tls, key, is_secret)
}

/// Whether a websocket uses TLS. None: an error was noted.
fn websocket_tls(check: &mut Check<'_>, transport: &Section<'_>, server: bool) -> Option<bool> {
    let Some(websocket) = transport.child("websocket") else {
        if transport.get("websocket").is_none() {
            let help = ["[", &transport.path("websocket"), "] with tls = true or tls = false"].concat();
            let message = "type = \"websocket\" needs this table";
            check.missing(transport.place("type"), transport.path("websocket"), message, &help);
        }
        return None;
    };
    let tls = websocket.flag("tls")?;
    if tls {
        if !check.built_with(cfg!(feature = "tls"), "tls", websocket.place("tls"), websocket.path("tls")) {
            return None;
        }
        let Some(section) = transport.child("tls") else {
            no_tls_table(check, transport, "a websocket with tls = true needs this table");
            return None;
        };
        if server && !identity_keys(check, &section) {
            return None;
        }
    }
    Some(tls)
}

fn compiled(check: &mut Check<'_>, transport: &Section<'_>, kind: &str) -> bool {
    let built = [
        ("tls", cfg!(feature = "tls")),
        ("noise", cfg!(feature = "noise")),
        ("websocket", cfg!(feature = "websocket")),
    ];
    let present = built.iter().all(|(name, present)| *name != kind || *present);
    check.built_with(present, kind, transport.place("type"), transport.path("type"))
}

fn useless(check: &mut Check<'_>, tls: &Section<'_>, keys: &[&str], side: &str) {
    for key in keys.iter().filter(|key| tls.get(key).is_some()) {
        let message = ["this has an effect on the ", side, " only"].concat();
        check.warn(tls.place(key), tls.path(key), &message, "");
    }
}
