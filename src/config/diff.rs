//! What is different between two configurations, and what of it can be done while a role runs.
//!
//! Pure. Invariants: a configuration and itself differ in nothing; a service is in at most one of the lists; a role that
//! does all that is listed, but what needs a restart, has the new configuration. A field that is added to a configuration
//! breaks the build here until it is compared.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    Client, ClientKind, ClientService, MaxUnauthenticated, Server, ServerKind, ServerService, ServerTransport,
};

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

/// In what a service is another way. Nothing of these: in what is taken over without any ado.
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
    let Server {
        bind_addr,
        transport,
        tcp,
        heartbeat_interval,
        handshake_timeout,
        shutdown_grace,
        visitor_timeout,
        on_duplicate,
        token_grace,
        max_unauthenticated: MaxUnauthenticated { total, per_address },
        services: _,
    } = old;
    let mut changes = services(&old.services, &new.services, |old, new| {
        let ServerService { name: _, bind_addr, token, nodelay: _, kind, limits: _, access: _ } = old;
        Change {
            kind: matches!(kind, ServerKind::Udp) != matches!(new.kind, ServerKind::Udp),
            address: *bind_addr != new.bind_addr,
            token: *token != new.token,
        }
    });
    let frozen = frozen_transport(transport, &new.transport);
    changes.needs_restart = different([("bind_addr", *bind_addr != new.bind_addr)]);
    changes.needs_restart.extend(frozen);
    changes.settings = different([
        ("transport", frozen.is_none() && *transport != new.transport),
        ("transport.tcp", *tcp != new.tcp),
        ("heartbeat_interval", *heartbeat_interval != new.heartbeat_interval),
        ("handshake_timeout", *handshake_timeout != new.handshake_timeout),
        ("shutdown_grace", *shutdown_grace != new.shutdown_grace),
        ("visitor_timeout", *visitor_timeout != new.visitor_timeout),
        ("on_duplicate", *on_duplicate != new.on_duplicate),
        ("token_grace", *token_grace != new.token_grace),
        ("max_unauthenticated", *total != new.max_unauthenticated.total),
        ("max_unauthenticated_per_address", *per_address != new.max_unauthenticated.per_address),
    ]);
    changes
}

/// The new configuration of a server that goes on: what needs a restart is as it was.
pub fn without_restart(old: &Server, mut new: Server) -> Server {
    new.bind_addr = old.bind_addr.clone();
    if frozen_transport(&old.transport, &new.transport).is_some() {
        new.transport = old.transport.clone();
    }
    new
}

/// What a client has to do.
pub fn client(old: &Client, new: &Client) -> Changes {
    let Client {
        remote_addr,
        transport,
        tcp,
        proxy,
        heartbeat_timeout,
        handshake_timeout,
        shutdown_grace,
        token_grace,
        services: _,
    } = old;
    let mut changes = services(&old.services, &new.services, |old, new| {
        let ClientService { name: _, local_addr, kind, token, nodelay: _, retry_interval: _ } = old;
        Change {
            kind: matches!(kind, ClientKind::Udp { .. }) != matches!(new.kind, ClientKind::Udp { .. }),
            address: *local_addr != new.local_addr,
            token: *token != new.token,
        }
    });
    changes.settings = different([
        ("remote_addr", *remote_addr != new.remote_addr),
        ("transport", *transport != new.transport),
        ("transport.tcp", *tcp != new.tcp),
        ("transport.tcp.proxy", *proxy != new.proxy),
        ("heartbeat_timeout", *heartbeat_timeout != new.heartbeat_timeout),
        ("handshake_timeout", *handshake_timeout != new.handshake_timeout),
        ("shutdown_grace", *shutdown_grace != new.shutdown_grace),
        ("token_grace", *token_grace != new.token_grace),
    ]);
    changes
}

/// Whether one reaches another server than the other, or the same by another way.
pub fn other_way(one: &Client, other: &Client) -> bool {
    one.remote_addr != other.remote_addr || one.transport != other.transport || one.proxy != other.proxy
}

/// Whether what was trusted before is not to be trusted any more, from now on.
pub fn revokes(old: &Client, new: &Client) -> bool {
    new.token_grace.is_zero() && !old.token_grace.is_zero()
}

/// The key for which connections that are begun under one cannot go on under the other, if there is one. Certificates
/// and keys may be others.
fn frozen_transport(old: &ServerTransport, new: &ServerTransport) -> Option<&'static str> {
    use ServerTransport::{Noise, WebSocket};
    match (old, new) {
        (Noise(old), Noise(new)) => (old.pattern != new.pattern).then_some("transport.noise.pattern"),
        (WebSocket { tls: old }, WebSocket { tls: new }) => {
            (old.is_some() != new.is_some()).then_some("transport.websocket.tls")
        }
        _ => (old.name() != new.name()).then_some("transport.type"),
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

#[cfg(test)]
mod tests;
