//! What is different between two configurations, and what of it can be done while a role runs.
//!
//! Pure. Invariants: a configuration and itself differ in nothing; a service is in at most one of the lists; a role that
//! does all that is listed, but what needs a restart, has the new configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Client, ClientKind, Server, ServerKind, ServerTransport};

/// What a role has to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Services that are new.
    pub added: Vec<Arc<str>>,
    /// Services that are gone.
    pub removed: Vec<Arc<str>>,
    /// Services that are another way now.
    pub changed: BTreeMap<Arc<str>, Change>,
    /// Keys of the half, without its name, that are taken over: by what is begun from now on.
    pub settings: Vec<&'static str>,
    /// Keys of the half, without its name, that only a restart takes over.
    pub needs_restart: Vec<&'static str>,
}

/// In what a service is another way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// It was TCP and is UDP, or the other way round: another service of the same name.
    pub kind: bool,
    /// Where its visitors come (server), or where they are led to (client).
    pub address: bool,
    /// What a client must prove it knows.
    pub token: bool,
}

/// What a server has to do.
pub fn server(old: &Server, new: &Server) -> Changes {
    let mut changes = services(&old.services, &new.services, |old, new| Change {
        kind: matches!(old.kind, ServerKind::Udp) != matches!(new.kind, ServerKind::Udp),
        address: old.bind_addr != new.bind_addr,
        token: old.token != new.token,
    });
    let same_transport = same_server_transport(&old.transport, &new.transport);
    changes.needs_restart =
        different([("bind_addr", old.bind_addr != new.bind_addr), ("transport.type", !same_transport)]);
    changes.settings = different([
        ("transport", same_transport && old.transport != new.transport),
        ("transport.tcp", old.tcp != new.tcp),
        ("heartbeat_interval", old.heartbeat_interval != new.heartbeat_interval),
        ("handshake_timeout", old.handshake_timeout != new.handshake_timeout),
        ("shutdown_grace", old.shutdown_grace != new.shutdown_grace),
        ("visitor_timeout", old.visitor_timeout != new.visitor_timeout),
        ("on_duplicate", old.on_duplicate != new.on_duplicate),
        ("token_grace", old.token_grace != new.token_grace),
        ("max_unauthenticated", old.max_unauthenticated.total != new.max_unauthenticated.total),
        (
            "max_unauthenticated_per_address",
            old.max_unauthenticated.per_address != new.max_unauthenticated.per_address,
        ),
    ]);
    changes
}

/// What a client has to do.
pub fn client(old: &Client, new: &Client) -> Changes {
    let mut changes = services(&old.services, &new.services, |old, new| Change {
        kind: matches!(old.kind, ClientKind::Udp { .. }) != matches!(new.kind, ClientKind::Udp { .. }),
        address: old.local_addr != new.local_addr,
        token: old.token != new.token,
    });
    changes.settings = different([
        ("remote_addr", old.remote_addr != new.remote_addr),
        ("transport", old.transport != new.transport),
        ("transport.tcp", old.tcp != new.tcp),
        ("transport.tcp.proxy", old.proxy != new.proxy),
        ("heartbeat_timeout", old.heartbeat_timeout != new.heartbeat_timeout),
        ("handshake_timeout", old.handshake_timeout != new.handshake_timeout),
        ("shutdown_grace", old.shutdown_grace != new.shutdown_grace),
        ("token_grace", old.token_grace != new.token_grace),
    ]);
    changes
}

/// Whether a client reaches another server, or the same by another way: then it must connect anew.
pub fn other_way(old: &Client, new: &Client) -> bool {
    old.remote_addr != new.remote_addr || old.transport != new.transport || old.proxy != new.proxy
}

/// Whether connections that are begun under one can go on under the other: certificates and keys may be others.
fn same_server_transport(old: &ServerTransport, new: &ServerTransport) -> bool {
    match (old, new) {
        (ServerTransport::Noise(old), ServerTransport::Noise(new)) => old.pattern == new.pattern,
        _ => old.name() == new.name(),
    }
}

fn services<S: PartialEq>(
    old: &BTreeMap<Arc<str>, S>,
    new: &BTreeMap<Arc<str>, S>,
    change: impl Fn(&S, &S) -> Change,
) -> Changes {
    let mut changes = Changes {
        removed: old.keys().filter(|name| !new.contains_key(*name)).cloned().collect(),
        ..Changes::default()
    };
    for (name, service) in new {
        match old.get(name) {
            None => changes.added.push(name.clone()),
            Some(before) if before != service => {
                changes.changed.insert(name.clone(), change(before, service));
            }
            Some(_) => {}
        }
    }
    changes
}

fn different<const N: usize>(keys: [(&'static str, bool); N]) -> Vec<&'static str> {
    keys.into_iter().filter(|(_, different)| *different).map(|(key, _)| key).collect()
}
