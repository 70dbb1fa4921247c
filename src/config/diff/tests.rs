//! Random pairs of configurations.

use std::time::Duration;

use super::super::{
    Access, Endpoint, Host, Limits, Noise, OnDuplicate, Prefix, Proxy, ProxyKind, ProxyProtocol, Secret,
    TcpOptions, TlsClient, TlsServer,
};
use super::*;

/// One of few, so that two are often the same.
fn few<T>(random: &mut fastrand::Rng, values: impl IntoIterator<Item = T>) -> T {
    let values: Vec<_> = values.into_iter().collect();
    let at = random.usize(..values.len());
    values.into_iter().nth(at).unwrap()
}

fn secret(random: &mut fastrand::Rng) -> Secret {
    Secret::new([random.u8(..2)])
}

fn time(random: &mut fastrand::Rng) -> Duration {
    Duration::from_secs(random.u64(..2))
}

fn endpoint(random: &mut fastrand::Rng) -> Endpoint {
    let host = few(random, [Host::Name("a".into()), Host::Ip([127, 0, 0, 1].into())]);
    Endpoint { host, port: random.u16(..2) }
}

fn tcp(random: &mut fastrand::Rng) -> TcpOptions {
    TcpOptions { nodelay: random.bool(), keepalive_idle: time(random), keepalive_interval: time(random) }
}

fn noise(random: &mut fastrand::Rng) -> Noise {
    Noise {
        pattern: few(random, ["NK", "XK"]).into(),
        local_private_key: Some(secret(random)),
        remote_public_key: None,
    }
}

fn tls(random: &mut fastrand::Rng) -> TlsServer {
    let pem = TlsServer::Pem { cert: vec![random.u8(..2)], key: secret(random) };
    few(random, [pem, TlsServer::Pkcs12 { archive: Secret::default(), password: Secret::default() }])
}

fn server_transport(random: &mut fastrand::Rng) -> ServerTransport {
    match random.u8(..5) {
        0 => ServerTransport::Tcp,
        1 => ServerTransport::Tls(tls(random)),
        2 => ServerTransport::Noise(noise(random)),
        3 => ServerTransport::WebSocket { tls: None },
        _ => ServerTransport::WebSocket { tls: Some(tls(random)) },
    }
}

fn client_transport(random: &mut fastrand::Rng) -> super::super::ClientTransport {
    use super::super::ClientTransport::*;
    let tls = TlsClient { hostname: few(random, [None, Some("a".into())]), trusted_root: None };
    match random.u8(..5) {
        0 => Tcp,
        1 => Tls(tls),
        2 => Noise(noise(random)),
        3 => WebSocket { tls: None },
        _ => WebSocket { tls: Some(tls) },
    }
}

fn server_service(random: &mut fastrand::Rng, name: &Arc<str>) -> ServerService {
    let proxy_protocol = few(random, [None, Some(ProxyProtocol::V1), Some(ProxyProtocol::V2)]);
    let limits =
        Limits { visitors: random.usize(..2), waiting: random.usize(..2), channels: random.usize(..2) };
    let (deny, _) = Prefix::parse("10.0.0.0/8").unwrap();
    ServerService {
        name: name.clone(),
        bind_addr: endpoint(random),
        token: secret(random),
        nodelay: random.bool(),
        kind: few(random, [ServerKind::Udp, ServerKind::Tcp { proxy_protocol }]),
        limits,
        access: few(random, [Access::default(), Access::new(None, &[deny])]),
    }
}

fn client_service(random: &mut fastrand::Rng, name: &Arc<str>) -> ClientService {
    let prefer_ipv6 = random.bool();
    ClientService {
        name: name.clone(),
        local_addr: endpoint(random),
        kind: few(random, [ClientKind::Tcp, ClientKind::Udp { prefer_ipv6 }]),
        token: secret(random),
        nodelay: random.bool(),
        retry_interval: time(random),
    }
}

fn some<S>(
    random: &mut fastrand::Rng,
    service: fn(&mut fastrand::Rng, &Arc<str>) -> S,
) -> BTreeMap<Arc<str>, S> {
    let names: [Arc<str>; 3] = ["a", "b", "c"].map(Arc::from);
    let mut services = BTreeMap::new();
    for name in names {
        if random.bool() {
            services.insert(name.clone(), service(random, &name));
        }
    }
    services
}

fn any_server(random: &mut fastrand::Rng) -> Server {
    Server {
        bind_addr: endpoint(random),
        transport: server_transport(random),
        tcp: tcp(random),
        heartbeat_interval: few(random, [None, Some(Duration::from_secs(1))]),
        handshake_timeout: time(random),
        shutdown_grace: time(random),
        visitor_timeout: time(random),
        on_duplicate: few(random, [OnDuplicate::Replace, OnDuplicate::Refuse]),
        token_grace: time(random),
        max_unauthenticated: MaxUnauthenticated { total: random.usize(..2), per_address: random.usize(..2) },
        services: some(random, server_service),
    }
}

fn any_client(random: &mut fastrand::Rng) -> Client {
    let kind = few(random, [ProxyKind::Http, ProxyKind::Socks5]);
    let proxy = Proxy { kind, endpoint: endpoint(random), credentials: None };
    Client {
        remote_addr: endpoint(random),
        transport: client_transport(random),
        tcp: tcp(random),
        proxy: few(random, [None, Some(proxy)]),
        heartbeat_timeout: few(random, [None, Some(Duration::from_secs(1))]),
        handshake_timeout: time(random),
        shutdown_grace: time(random),
        token_grace: time(random),
        services: some(random, client_service),
    }
}

/// Does what is listed for services, and nothing else.
fn apply_services<S: Clone>(
    old: &mut BTreeMap<Arc<str>, S>,
    new: &BTreeMap<Arc<str>, S>,
    changes: &Changes,
    name_of: fn(&S) -> &Arc<str>,
) {
    for name in &changes.removed {
        assert!(old.remove(name).is_some() && !new.contains_key(name), "{changes:?}");
    }
    for name in &changes.added {
        assert!(old.insert(name.clone(), new[name].clone()).is_none(), "{changes:?}");
    }
    for name in changes.changed.keys() {
        let before = old.insert(name.clone(), new[name].clone());
        assert!(before.is_some_and(|before| name_of(&before) == name), "{changes:?}");
    }
}

fn apply_server(mut old: Server, new: &Server, changes: &Changes) -> Server {
    apply_services(&mut old.services, &new.services, changes, |service| &service.name);
    for key in &changes.settings {
        match *key {
            "transport" => old.transport = new.transport.clone(),
            "transport.tcp" => old.tcp = new.tcp,
            "heartbeat_interval" => old.heartbeat_interval = new.heartbeat_interval,
            "handshake_timeout" => old.handshake_timeout = new.handshake_timeout,
            "shutdown_grace" => old.shutdown_grace = new.shutdown_grace,
            "visitor_timeout" => old.visitor_timeout = new.visitor_timeout,
            "on_duplicate" => old.on_duplicate = new.on_duplicate,
            "token_grace" => old.token_grace = new.token_grace,
            "max_unauthenticated" => old.max_unauthenticated.total = new.max_unauthenticated.total,
            "max_unauthenticated_per_address" => {
                old.max_unauthenticated.per_address = new.max_unauthenticated.per_address;
            }
            other => panic!("{other}"),
        }
    }
    old
}

fn apply_client(mut old: Client, new: &Client, changes: &Changes) -> Client {
    apply_services(&mut old.services, &new.services, changes, |service| &service.name);
    for key in &changes.settings {
        match *key {
            "remote_addr" => old.remote_addr = new.remote_addr.clone(),
            "transport" => old.transport = new.transport.clone(),
            "transport.tcp" => old.tcp = new.tcp,
            "transport.tcp.proxy" => old.proxy = new.proxy.clone(),
            "heartbeat_timeout" => old.heartbeat_timeout = new.heartbeat_timeout,
            "handshake_timeout" => old.handshake_timeout = new.handshake_timeout,
            "shutdown_grace" => old.shutdown_grace = new.shutdown_grace,
            "token_grace" => old.token_grace = new.token_grace,
            other => panic!("{other}"),
        }
    }
    old
}

/// Two random servers. In words: a server and itself differ in nothing; whoever does to the old one what is listed, and
/// nothing else, has the new one but for what needs a restart; that is listed exactly if it is needed, by the key that
/// is another; a service is in one list at most, and what is said of it is true.
#[test]
fn doing_what_is_listed_makes_the_new_server() {
    for seed in 0..3000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (old, mut new) = (any_server(&mut random), any_server(&mut random));
        if random.bool() {
            // Often little is another.
            new = Server { services: new.services, visitor_timeout: new.visitor_timeout, ..old.clone() };
        }
        assert_eq!(server(&old, &old), Changes::default(), "seed {seed}");
        let changes = server(&old, &new);
        let target = without_restart(&old, new.clone());
        assert_eq!(apply_server(old.clone(), &new, &changes), target, "seed {seed}: {changes:?}");
        assert_eq!(changes.needs_restart.is_empty(), target == new, "seed {seed}: {changes:?}");
        assert_eq!(server(&target, &new).needs_restart, changes.needs_restart, "seed {seed}");
        for (name, change) in &changes.changed {
            let (old, new) = (&old.services[name], &new.services[name]);
            assert_eq!(change.address, old.bind_addr != new.bind_addr, "seed {seed}");
            assert_eq!(change.token, old.token != new.token, "seed {seed}");
            let is_udp = |service: &ServerService| service.kind == ServerKind::Udp;
            assert_eq!(change.kind, is_udp(old) != is_udp(new), "seed {seed}");
        }
    }
}

/// The same for clients, for which nothing needs a restart; and what must connect anew, does.
#[test]
fn doing_what_is_listed_makes_the_new_client() {
    for seed in 0..3000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (old, new) = (any_client(&mut random), any_client(&mut random));
        assert_eq!(client(&old, &old), Changes::default(), "seed {seed}");
        let changes = client(&old, &new);
        assert_eq!(apply_client(old.clone(), &new, &changes), new, "seed {seed}: {changes:?}");
        assert!(changes.needs_restart.is_empty(), "seed {seed}");
        let way = ["remote_addr", "transport", "transport.tcp.proxy"];
        assert_eq!(
            other_way(&old, &new),
            way.iter().any(|key| changes.settings.contains(key)),
            "seed {seed}: {changes:?}"
        );
        let to_nothing = new.token_grace.is_zero() && changes.settings.contains(&"token_grace");
        assert_eq!(revokes(&old, &new), to_nothing, "seed {seed}: {changes:?}");
    }
}

#[test]
fn what_needs_a_restart_is_named_by_its_own_key() {
    let mut random = fastrand::Rng::with_seed(1);
    let old = any_server(&mut random);
    let with = |transport: ServerTransport| Server { transport, ..old.clone() };
    let noise = |pattern: &str, key: u8| {
        let local_private_key = Some(Secret::new([key]));
        with(ServerTransport::Noise(Noise {
            pattern: pattern.into(),
            local_private_key,
            remote_public_key: None,
        }))
    };
    let plain = with(ServerTransport::WebSocket { tls: None });
    let secure = with(ServerTransport::WebSocket { tls: Some(tls(&mut random)) });
    let tcp = with(ServerTransport::Tcp);
    for (old, new, key) in [
        (&tcp, &plain, "transport.type"),
        (&plain, &secure, "transport.websocket.tls"),
        (&noise("NK", 1), &noise("XK", 1), "transport.noise.pattern"),
    ] {
        assert_eq!(server(old, new).needs_restart, [key]);
        assert_eq!(server(old, new).settings, [""; 0]);
    }
    let rekeyed = server(&noise("NK", 1), &noise("NK", 2));
    assert_eq!((rekeyed.needs_restart, rekeyed.settings), (vec![], vec!["transport"]));
}
