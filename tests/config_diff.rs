//! What a reload has to do, between random configurations.
#![cfg(all(feature = "server", feature = "client"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use rathole::config::diff::{self, Changes};
use rathole::config::{
    Client, ClientKind, ClientService, ClientTransport, Endpoint, Host, Limits, MaxUnauthenticated, Noise,
    OnDuplicate, Proxy, ProxyKind, ProxyProtocol, Secret, Server, ServerKind, ServerService, ServerTransport,
    TcpOptions, TlsClient, TlsServer,
};

/// One of two, mostly the first: most keys of two configurations are the same.
fn one_of<T: Clone>(random: &mut Rng, values: [T; 2]) -> T {
    values[usize::from(random.u8(..4) == 0)].clone()
}

fn endpoint(random: &mut Rng) -> Endpoint {
    let host = one_of(random, [Host::Ip(Ipv4Addr::LOCALHOST.into()), Host::Name("example.test".to_owned())]);
    Endpoint { host, port: one_of(random, [2333, 2334]) }
}

fn seconds(random: &mut Rng) -> Duration {
    Duration::from_secs(one_of(random, [5, 7]))
}

fn secret(random: &mut Rng) -> Secret {
    Secret::new(one_of(random, ["one", "another"]))
}

fn tcp(random: &mut Rng) -> TcpOptions {
    TcpOptions {
        nodelay: one_of(random, [true, false]),
        keepalive_idle: seconds(random),
        ..TcpOptions::default()
    }
}

fn noise(random: &mut Rng) -> Noise {
    Noise {
        pattern: one_of(random, ["NK", "XX"]).to_owned(),
        local_private_key: one_of(random, [None, Some(Secret::new("key"))]),
        remote_public_key: one_of(random, [None, Some([7; 32])]),
    }
}

fn names(random: &mut Rng) -> Vec<Arc<str>> {
    let some = ["a", "b", "c", "ü \"", ""].into_iter().filter(|_| random.bool());
    some.map(Arc::from).collect()
}

fn server(random: &mut Rng) -> Server {
    let identity =
        |random: &mut Rng| TlsServer::Pem { cert: one_of(random, [vec![1], vec![2]]), key: secret(random) };
    let transport = match random.u8(..4) {
        0 => ServerTransport::Tcp,
        1 => ServerTransport::Tls(identity(random)),
        2 => ServerTransport::Noise(noise(random)),
        _ => ServerTransport::WebSocket { tls: random.bool().then(|| identity(random)) },
    };
    let service = |name: Arc<str>, random: &mut Rng| ServerService {
        name,
        bind_addr: endpoint(random),
        token: secret(random),
        nodelay: one_of(random, [true, false]),
        kind: match random.u8(..3) {
            0 => ServerKind::Udp,
            1 => ServerKind::Tcp { proxy_protocol: None },
            _ => ServerKind::Tcp { proxy_protocol: Some(ProxyProtocol::V2) },
        },
        limits: Limits { waiting: one_of(random, [1, 2]), ..Limits::DEFAULT },
        access: Default::default(),
    };
    Server {
        bind_addr: endpoint(random),
        transport,
        tcp: tcp(random),
        heartbeat_interval: one_of(random, [None, Some(Duration::from_secs(1))]),
        handshake_timeout: seconds(random),
        shutdown_grace: seconds(random),
        visitor_timeout: seconds(random),
        on_duplicate: one_of(random, [OnDuplicate::Replace, OnDuplicate::Refuse]),
        token_grace: seconds(random),
        max_unauthenticated: MaxUnauthenticated {
            total: one_of(random, [1, 2]),
            per_address: one_of(random, [1, 2]),
        },
        services: names(random).into_iter().map(|name| (name.clone(), service(name, random))).collect(),
    }
}

fn client(random: &mut Rng) -> Client {
    let trust = |random: &mut Rng| TlsClient {
        hostname: one_of(random, [None, Some("example.test".to_owned())]),
        trusted_root: one_of(random, [None, Some(vec![1])]),
    };
    let transport = match random.u8(..4) {
        0 => ClientTransport::Tcp,
        1 => ClientTransport::Tls(trust(random)),
        2 => ClientTransport::Noise(noise(random)),
        _ => ClientTransport::WebSocket { tls: random.bool().then(|| trust(random)) },
    };
    let service = |name: Arc<str>, random: &mut Rng| ClientService {
        name,
        local_addr: endpoint(random),
        token: secret(random),
        nodelay: one_of(random, [true, false]),
        kind: match random.u8(..4) {
            0 => ClientKind::Udp { prefer_ipv6: random.bool() },
            _ => ClientKind::Tcp,
        },
        retry_interval: seconds(random),
    };
    let proxy = Proxy { kind: ProxyKind::Http, endpoint: endpoint(random), credentials: None };
    Client {
        remote_addr: endpoint(random),
        transport,
        tcp: tcp(random),
        proxy: one_of(random, [None, Some(proxy)]),
        heartbeat_timeout: one_of(random, [None, Some(Duration::from_secs(1))]),
        handshake_timeout: seconds(random),
        shutdown_grace: seconds(random),
        token_grace: seconds(random),
        services: names(random).into_iter().map(|name| (name.clone(), service(name, random))).collect(),
    }
}

/// Does to `services` what `changes` say, and nothing else.
fn apply<S: Clone>(services: &mut BTreeMap<Arc<str>, S>, new: &BTreeMap<Arc<str>, S>, changes: &Changes) {
    for name in &changes.removed {
        assert!(services.remove(name).is_some(), "removed, but was not there");
    }
    for name in &changes.added {
        assert!(services.insert(name.clone(), new[name].clone()).is_none(), "added, but was there");
    }
    for name in changes.changed.keys() {
        assert!(services.insert(name.clone(), new[name].clone()).is_some(), "changed, but was not there");
    }
}

/// Copies one key.
fn copy_to_server(key: &str, into: &mut Server, new: &Server) {
    match key {
        "bind_addr" => into.bind_addr = new.bind_addr.clone(),
        "transport" | "transport.type" | "transport.noise.pattern" => into.transport = new.transport.clone(),
        "transport.tcp" => into.tcp = new.tcp,
        "heartbeat_interval" => into.heartbeat_interval = new.heartbeat_interval,
        "handshake_timeout" => into.handshake_timeout = new.handshake_timeout,
        "shutdown_grace" => into.shutdown_grace = new.shutdown_grace,
        "visitor_timeout" => into.visitor_timeout = new.visitor_timeout,
        "on_duplicate" => into.on_duplicate = new.on_duplicate,
        "token_grace" => into.token_grace = new.token_grace,
        "max_unauthenticated" => into.max_unauthenticated.total = new.max_unauthenticated.total,
        "max_unauthenticated_per_address" => {
            into.max_unauthenticated.per_address = new.max_unauthenticated.per_address;
        }
        _ => panic!("the key {key} is not known here"),
    }
}

fn copy_to_client(key: &str, into: &mut Client, new: &Client) {
    match key {
        "remote_addr" => into.remote_addr = new.remote_addr.clone(),
        "transport" => into.transport = new.transport.clone(),
        "transport.tcp" => into.tcp = new.tcp,
        "transport.tcp.proxy" => into.proxy = new.proxy.clone(),
        "heartbeat_timeout" => into.heartbeat_timeout = new.heartbeat_timeout,
        "handshake_timeout" => into.handshake_timeout = new.handshake_timeout,
        "shutdown_grace" => into.shutdown_grace = new.shutdown_grace,
        "token_grace" => into.token_grace = new.token_grace,
        _ => panic!("the key {key} is not known here"),
    }
}

/// In words:
/// - a configuration and itself differ in nothing;
/// - who does what is listed, and nothing else, has the new configuration, but for what needs a restart, where the old
///   one is in force;
/// - after that the only difference left is what needs a restart: the next reload names it again, and nothing else;
/// - what is listed differs; a service is in one list at most.
#[test]
fn a_server_that_does_what_is_listed_has_the_new_configuration() {
    let (mut restarts, mut kinds) = (0, 0);
    for seed in 0..5000 {
        let mut random = Rng::with_seed(seed);
        let (old, new) = (server(&mut random), server(&mut random));
        assert_eq!(diff::server(&old, &old), Changes::default(), "seed {seed}");
        let changes = diff::server(&old, &new);
        let mut now = old.clone();
        apply(&mut now.services, &new.services, &changes);
        for key in &changes.settings {
            let before = now.clone();
            copy_to_server(key, &mut now, &new);
            assert_ne!(before, now, "seed {seed}: {key} is the same in both");
        }
        let left = diff::server(&now, &new);
        let only_restarts = Changes { needs_restart: changes.needs_restart.clone(), ..Changes::default() };
        assert_eq!(left, only_restarts, "seed {seed}");
        for key in &changes.needs_restart {
            let before = now.clone();
            copy_to_server(key, &mut now, &new);
            assert_ne!(before, now, "seed {seed}: {key} is the same in both");
            restarts += 1;
        }
        assert_eq!(now, new, "seed {seed}");
        for (name, change) in &changes.changed {
            let (old, new) = (&old.services[name], &new.services[name]);
            assert_eq!(change.address, old.bind_addr != new.bind_addr, "seed {seed} {name}");
            assert_eq!(change.token, old.token != new.token, "seed {seed} {name}");
            let is_udp = |service: &ServerService| service.kind == ServerKind::Udp;
            assert_eq!(change.kind, is_udp(old) != is_udp(new), "seed {seed} {name}");
            kinds += u32::from(change.kind);
        }
    }
    assert!(restarts > 1000 && kinds > 1000, "the configurations are not random: {restarts} {kinds}");
}

/// The same for a client, which needs no restart for anything; and it connects anew only if the way is another one.
#[test]
fn a_client_that_does_what_is_listed_has_the_new_configuration() {
    let mut same_way = 0;
    for seed in 0..5000 {
        let mut random = Rng::with_seed(seed);
        let old = client(&mut random);
        let mut new = client(&mut random);
        if random.bool() {
            new.transport = old.transport.clone();
        }
        assert_eq!(diff::client(&old, &old), Changes::default(), "seed {seed}");
        assert!(!diff::other_way(&old, &old));
        let changes = diff::client(&old, &new);
        assert!(changes.needs_restart.is_empty(), "seed {seed}");
        let mut now = old.clone();
        apply(&mut now.services, &new.services, &changes);
        for key in &changes.settings {
            let before = now.clone();
            copy_to_client(key, &mut now, &new);
            assert_ne!(before, now, "seed {seed}: {key} is the same in both");
        }
        assert_eq!(now, new, "seed {seed}");
        let way = ["remote_addr", "transport", "transport.tcp.proxy"];
        let other_way = changes.settings.iter().any(|key| way.contains(key));
        assert_eq!(diff::other_way(&old, &new), other_way, "seed {seed}");
        same_way += u32::from(!other_way);
        for (name, change) in &changes.changed {
            let (old, new) = (&old.services[name], &new.services[name]);
            assert_eq!(change.address, old.local_addr != new.local_addr, "seed {seed} {name}");
            assert_eq!(change.token, old.token != new.token, "seed {seed} {name}");
            let is_udp = |service: &ClientService| service.kind != ClientKind::Tcp;
            assert_eq!(change.kind, is_udp(old) != is_udp(new), "seed {seed} {name}");
        }
    }
    assert!(same_way > 300, "the configurations are not random: {same_way}");
}

/// What the manual says needs a restart, and what it says does not.
#[test]
fn which_changes_of_a_transport_need_a_restart() {
    let base = server(&mut Rng::with_seed(1));
    let of = |transport: ServerTransport| Server { transport, ..base.clone() };
    let noise = |pattern: &str, key: &str| {
        of(ServerTransport::Noise(Noise {
            pattern: pattern.to_owned(),
            local_private_key: Some(Secret::new(key)),
            remote_public_key: None,
        }))
    };
    let pem = |cert: u8| TlsServer::Pem { cert: vec![cert], key: Secret::new("key") };
    let websocket = |tls: Option<TlsServer>| of(ServerTransport::WebSocket { tls });
    let live = [
        (noise("NK", "one"), noise("NK", "two")),
        (of(ServerTransport::Tls(pem(1))), of(ServerTransport::Tls(pem(2)))),
        (websocket(Some(pem(1))), websocket(Some(pem(2)))),
    ];
    for (old, new) in live {
        let changes = diff::server(&old, &new);
        assert_eq!((changes.settings, changes.needs_restart), (vec!["transport"], vec![]));
    }
    let restart = [
        (of(ServerTransport::Tcp), of(ServerTransport::Tls(pem(1)))),
        (websocket(None), websocket(Some(pem(1)))),
        (noise("NK", "one"), noise("XX", "one")),
    ];
    for (old, new) in restart {
        let changes = diff::server(&old, &new);
        assert_eq!((changes.settings, changes.needs_restart.len()), (vec![], 1));
    }
}
