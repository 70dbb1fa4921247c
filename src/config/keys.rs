//! Every key of the configuration, once: from this come the check of shapes, the defaults, the hints at unknown
//! keys, the JSON Schema, and the test that `docs/config.md` is complete.

use super::{Limits, MaxUnauthenticated};

/// One year: no time in a configuration is longer.
const YEAR: u64 = 31_536_000;
/// The largest TCP_KEEPIDLE and TCP_KEEPINTVL that Linux takes.
const KEEPALIVE: u64 = 32_767;
/// A handshake that takes longer is none.
const HOUR: u64 = 3600;
/// More of anything than this is no limit: a process has not so many descriptors.
const MILLION: u64 = 1 << 20;

/// A table of the configuration.
pub(super) struct Table {
    pub(super) keys: &'static [Key],
    #[cfg(feature = "cli")]
    pub(super) doc: &'static str,
}

impl Table {
    /// The key of this name.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// A key of a table.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) need: Need,
    /// Whether upstream (0.5.0) does not know it.
    #[cfg(feature = "cli")]
    pub(super) ours: bool,
    #[cfg(feature = "cli")]
    pub(super) doc: &'static str,
}

impl Key {
    /// The default of a number.
    pub(super) fn default_number(&self) -> Option<u64> {
        match self.need {
            Need::Number(number) => Some(number),
            _ => None,
        }
    }
}

/// What a key takes.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    /// A string that is never shown.
    Secret,
    Path,
    Url,
    Address,
    Flag,
    Choice(&'static [&'static str]),
    /// Whole seconds. `zero`: what 0 becomes, where it has no meaning. `max`: what is above becomes this.
    Seconds {
        zero: Option<u64>,
        max: u64,
    },
    /// How many of something, at most. `zero`: what 0 becomes. `max`: what is above becomes this.
    Count {
        zero: u64,
        max: u64,
    },
    /// A list of prefixes of addresses.
    Prefixes,
    Table(&'static Table),
    /// A table of tables, by service name.
    Services(&'static Table),
}

/// Whether a key must be there, and what its absence means.
#[derive(Clone, Copy)]
pub(super) enum Need {
    Required,
    Optional,
    Number(u64),
    Flag(bool),
    Text(&'static str),
}

/// A time where 0 has a meaning of its own.
const SECONDS: Kind = Kind::Seconds { zero: None, max: YEAR };
const SERVICE_TYPES: Kind = Kind::Choice(&["tcp", "udp"]);

macro_rules! table {
    ($name:ident, $about:literal, { $($(#[$ours:ident])? $key:literal: $kind:expr, $need:expr, $doc:literal;)* }) => {
        pub(super) static $name: Table = Table {
            #[cfg(feature = "cli")]
            doc: $about,
            keys: &[$(Key {
                name: $key,
                kind: $kind,
                need: $need,
                #[cfg(feature = "cli")]
                ours: table!(@ours $($ours)?),
                #[cfg(feature = "cli")]
                doc: $doc,
            }),*],
        };
    };
    (@ours) => { false };
    (@ours ours) => { true };
}

table!(ROOT, "Configuration of rathole: a server, a client, or both in one process.", {
    "server": Kind::Table(&SERVER), Need::Optional, "The half with the public address.";
    "client": Kind::Table(&CLIENT), Need::Optional, "The half behind NAT.";
});

table!(SERVER, "The half with the public address.", {
    "bind_addr": Kind::Address, Need::Required, "Where clients connect: host:port. A name binds every address it has.";
    "default_token": Kind::Secret, Need::Optional, "The token of services that have none of their own.";
    #[ours] "default_token_file": Kind::Path, Need::Optional, "A file that holds default_token; one trailing newline is stripped.";
    "heartbeat_interval": SECONDS, Need::Number(30), "A heartbeat after this much silence on a control channel. 0: off.";
    #[ours] "handshake_timeout": Kind::Seconds { zero: Some(5), max: HOUR }, Need::Number(5), "The most time from accepting a client's connection to its authentication.";
    #[ours] "shutdown_grace": SECONDS, Need::Number(3), "How long established connections may go on after a stop signal. 0: they end at once.";
    #[ours] "visitor_timeout": SECONDS, Need::Number(10), "How long a visitor waits for a client that has just left or not yet come. 0: without a client it is reset at once.";
    #[ours] "on_duplicate": Kind::Choice(&["replace", "refuse"]), Need::Text("replace"), "When a second client proves that it knows a service's token: it replaces the first, or it is refused while the first is alive.";
    #[ours] "token_grace": SECONDS, Need::Number(super::DEFAULT_TOKEN_GRACE.as_secs()), "After a reload that changes a service's token, or the key that clients must have: how long the old one is still good. 0: revoked at once.";
    #[ours] "max_unauthenticated": most(MaxUnauthenticated::DEFAULT.total), Need::Number(MaxUnauthenticated::DEFAULT.total as u64), "Connections that have not proven anything yet, at most. The oldest is dropped for a new one.";
    #[ours] "max_unauthenticated_per_address": most(MaxUnauthenticated::DEFAULT.per_address), Need::Number(MaxUnauthenticated::DEFAULT.per_address as u64), "The same for one address (IPv6: one /64), unless a client is authenticated from there.";
    "transport": Kind::Table(&SERVER_TRANSPORT), Need::Optional, "How the bytes between client and server are carried.";
    "services": Kind::Services(&SERVER_SERVICE), Need::Required, "The services, by name. May be empty.";
});

/// A bound of what one peer may make us hold; 0 is its default.
const fn most(default: usize) -> Kind {
    Kind::Count { zero: default as u64, max: MILLION }
}

table!(SERVER_SERVICE, "A service: where its visitors connect.", {
    "type": SERVICE_TYPES, Need::Text("tcp"), "What the service carries. Must be the same on the client.";
    "bind_addr": Kind::Address, Need::Required, "Where visitors connect: host:port. A name binds every address it has.";
    "token": Kind::Secret, Need::Optional, "What a client must know to serve it. Required unless there is a default_token.";
    #[ours] "token_file": Kind::Path, Need::Optional, "A file that holds token; one trailing newline is stripped.";
    "nodelay": Kind::Flag, Need::Optional, "TCP_NODELAY for this service; absent: transport.tcp.nodelay.";
    #[ours] "proxy_protocol": Kind::Choice(&["v1", "v2"]), Need::Optional, "Write a PROXY protocol header, so that the local service sees the visitor's address. TCP only.";
    #[ours] "max_visitors": most(Limits::DEFAULT.visitors), Need::Number(Limits::DEFAULT.visitors as u64), "Visitors at the same time, at most; more are reset. UDP: 4096 at most, a new one takes the place of the one that was quiet the longest.";
    #[ours] "max_waiting": most(Limits::DEFAULT.waiting), Need::Number(Limits::DEFAULT.waiting as u64), "Visitors that wait for a data channel, at most; more are reset. TCP only.";
    #[ours] "max_channels": most(Limits::DEFAULT.channels), Need::Number(Limits::DEFAULT.channels as u64), "Data channels that wait for a visitor, at most; more are closed. TCP only.";
    #[ours] "allow": Kind::Prefixes, Need::Optional, "Addresses that may visit it, for example [\"10.0.0.0/8\", \"2001:db8::/32\", \"192.0.2.7\"]; absent: all, empty: none.";
    #[ours] "deny": Kind::Prefixes, Need::Optional, "Addresses that may not visit it, even if allow has them.";
});

table!(CLIENT, "The half behind NAT.", {
    "remote_addr": Kind::Address, Need::Required, "The server's bind_addr as seen from here: host:port.";
    "default_token": Kind::Secret, Need::Optional, "The token of services that have none of their own.";
    #[ours] "default_token_file": Kind::Path, Need::Optional, "A file that holds default_token; one trailing newline is stripped.";
    "heartbeat_timeout": SECONDS, Need::Number(40), "A control channel silent for this long is dead. Keep it above the server's heartbeat_interval. 0: off.";
    "retry_interval": Kind::Seconds { zero: Some(1), max: YEAR }, Need::Number(1), "The longest pause between two attempts to connect.";
    #[ours] "handshake_timeout": Kind::Seconds { zero: Some(5), max: HOUR }, Need::Number(5), "The most time from connecting to authentication.";
    #[ours] "shutdown_grace": SECONDS, Need::Number(3), "How long established connections may go on after a stop signal. 0: they end at once.";
    #[ours] "token_grace": SECONDS, Need::Number(super::DEFAULT_TOKEN_GRACE.as_secs()), "After a reload that changes the key or the root that the server must have: how long the old one is still good. 0: revoked at once.";
    "prefer_ipv6": Kind::Flag, Need::Optional, "Has no effect, as upstream.";
    "transport": Kind::Table(&CLIENT_TRANSPORT), Need::Optional, "How the bytes between client and server are carried.";
    "services": Kind::Services(&CLIENT_SERVICE), Need::Required, "The services, by name. May be empty.";
});

table!(CLIENT_SERVICE, "A service: where its visitors are led to.", {
    "type": SERVICE_TYPES, Need::Text("tcp"), "What the service carries. Must be the same on the server.";
    "local_addr": Kind::Address, Need::Required, "The local service: host:port. Resolved for each connection.";
    "token": Kind::Secret, Need::Optional, "The token that the server knows for this service. Required unless there is a default_token.";
    #[ours] "token_file": Kind::Path, Need::Optional, "A file that holds token; one trailing newline is stripped.";
    "nodelay": Kind::Flag, Need::Optional, "TCP_NODELAY for this service; absent: transport.tcp.nodelay.";
    "retry_interval": Kind::Seconds { zero: Some(1), max: YEAR }, Need::Optional, "The longest pause between two attempts to connect; absent: client.retry_interval.";
    "prefer_ipv6": Kind::Flag, Need::Flag(false), "Prefer an IPv6 address of a local UDP service.";
});

table!(SERVER_TRANSPORT, "How the bytes between client and server are carried.", {
    "type": TRANSPORT_TYPES, Need::Required, "The transport. Must be the same on the client. Without the whole transport table: tcp.";
    "tcp": Kind::Table(&TCP), Need::Optional, "Options of TCP sockets, whatever the transport.";
    "tls": Kind::Table(&SERVER_TLS), Need::Optional, "For type = \"tls\" and for websocket with tls = true.";
    "noise": Kind::Table(&NOISE), Need::Optional, "For type = \"noise\".";
    "websocket": Kind::Table(&WEBSOCKET), Need::Optional, "For type = \"websocket\".";
});

table!(CLIENT_TRANSPORT, "How the bytes between client and server are carried.", {
    "type": TRANSPORT_TYPES, Need::Required, "The transport. Must be the same on the server. Without the whole transport table: tcp.";
    "tcp": Kind::Table(&TCP), Need::Optional, "Options of TCP sockets, whatever the transport.";
    "tls": Kind::Table(&CLIENT_TLS), Need::Optional, "For type = \"tls\" and for websocket with tls = true.";
    "noise": Kind::Table(&NOISE), Need::Optional, "For type = \"noise\".";
    "websocket": Kind::Table(&WEBSOCKET), Need::Optional, "For type = \"websocket\".";
});

const TRANSPORT_TYPES: Kind = Kind::Choice(&["tcp", "tls", "noise", "websocket"]);

table!(TCP, "Options of TCP sockets, whatever the transport.", {
    "nodelay": Kind::Flag, Need::Flag(true), "TCP_NODELAY: send small packets at once.";
    "keepalive_secs": Kind::Seconds { zero: Some(1), max: KEEPALIVE }, Need::Number(20), "Silence before the first keepalive probe (TCP_KEEPIDLE).";
    "keepalive_interval": Kind::Seconds { zero: Some(1), max: KEEPALIVE }, Need::Number(8), "Time between keepalive probes (TCP_KEEPINTVL).";
    "proxy": Kind::Url, Need::Optional, "Client only: reach the server through this proxy, http://[user:password@]host:port or socks5://[user:password@]host:port.";
});

table!(SERVER_TLS, "Certificate and key of the server.", {
    "hostname": Kind::Text, Need::Optional, "Has no effect on the server.";
    "trusted_root": Kind::Path, Need::Optional, "Has no effect on the server.";
    "pkcs12": Kind::Path, Need::Optional, "A PKCS#12 archive with certificate, chain and key; instead of cert and key.";
    "pkcs12_password": Kind::Secret, Need::Optional, "The archive's password; may be an empty string, but not absent.";
    #[ours] "pkcs12_password_file": Kind::Path, Need::Optional, "A file that holds pkcs12_password; one trailing newline is stripped.";
    #[ours] "cert": Kind::Path, Need::Optional, "A PEM file: the certificate, then its chain; instead of pkcs12.";
    #[ours] "key": Kind::Path, Need::Optional, "A PEM file: the private key of cert.";
});

table!(CLIENT_TLS, "What the server's certificate is checked against.", {
    "hostname": Kind::Text, Need::Optional, "The name in the server's certificate; absent: the host of remote_addr.";
    "trusted_root": Kind::Path, Need::Optional, "A PEM file: the only certificates that are trusted; absent: the system's.";
    "pkcs12": Kind::Path, Need::Optional, "Has no effect on the client.";
    "pkcs12_password": Kind::Secret, Need::Optional, "Has no effect on the client.";
    #[ours] "pkcs12_password_file": Kind::Path, Need::Optional, "Has no effect on the client.";
});

table!(NOISE, "Encryption by the Noise protocol framework. Keys are made by `rathole genkey`.", {
    "pattern": Kind::Text, Need::Text(super::DEFAULT_NOISE_PATTERN), "The handshake, Noise_PATTERN_25519_CIPHER_HASH. Must be the same on both sides.";
    "local_private_key": Kind::Secret, Need::Optional, "The private key of this side: 32 bytes in base64.";
    #[ours] "local_private_key_file": Kind::Path, Need::Optional, "A file that holds local_private_key; one trailing newline is stripped.";
    "remote_public_key": Kind::Text, Need::Optional, "The public key that the other side must have: 32 bytes in base64.";
});

table!(WEBSOCKET, "WebSocket, for the way through web servers and their proxies.", {
    "tls": Kind::Flag, Need::Required, "Use TLS, with the keys of the table tls.";
});

/// Calls `see` with every table's path (`server.services.NAME` for a service) and each of its keys.
pub(super) fn each_key(see: &mut dyn FnMut(&str, &'static Key)) {
    fn walk(path: &str, table: &'static Table, see: &mut dyn FnMut(&str, &'static Key)) {
        for key in table.keys {
            see(path, key);
            let dot = if path.is_empty() { "" } else { "." };
            match key.kind {
                Kind::Table(inner) => walk(&[path, dot, key.name].concat(), inner, see),
                Kind::Services(inner) => walk(&[path, dot, key.name, ".NAME"].concat(), inner, see),
                _ => {}
            }
        }
    }
    walk("", &ROOT, see);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_secret_may_come_from_a_file() {
        let mut secrets = 0;
        let mut see = |table: &'static Table| {
            for key in table.keys.iter().filter(|key| matches!(key.kind, Kind::Secret)) {
                secrets += 1;
                let file = table.key(&format!("{}_file", key.name)).expect(key.name);
                assert!(matches!(file.kind, Kind::Path));
            }
        };
        for table in [&SERVER, &SERVER_SERVICE, &CLIENT, &CLIENT_SERVICE, &SERVER_TLS, &CLIENT_TLS, &NOISE] {
            see(table);
        }
        assert_eq!(secrets, 7);
    }

    #[test]
    fn the_walk_meets_every_half_and_service() {
        let mut paths = Vec::new();
        each_key(&mut |path, key| paths.push(format!("{path}.{}", key.name)));
        for path in ["server.services.NAME.bind_addr", "client.transport.noise.pattern", ".server"] {
            assert!(paths.iter().any(|seen| seen == path), "{path}");
        }
    }
}
