//! Services come, go and are changed; nobody else notices.

use rathole::config::OnDuplicate;

use super::traffic::{Datagrams, Long, echo, echo_udp, meets, meets_at_last};
use super::*;

#[tokio::test]
async fn services_come_and_go_and_the_others_do_not_notice() {
    let local = echo("here").await;
    let mut tunnel = Tunnel::start(&[("s1-kept", local), ("s1-gone", local)]).await;
    let (kept, gone) = (tunnel.visitors("s1-kept"), tunnel.visitors("s1-gone"));
    let (long_kept, long_gone) = (Long::begin(kept, "here").await, Long::begin(gone, "here").await);
    tunnel.server.services.remove("s1-gone");
    let new = net::address();
    tunnel.server.services.insert("s1-new".into(), offered("s1-new", new));
    let outcome = tunnel.reload_server_well().await;
    assert_eq!((outcome.added, outcome.removed), (names(&["s1-new"]), names(&["s1-gone"])));
    assert!(net::listens(new) && !net::listens(gone) && net::listens(kept));
    tunnel.client.services.remove("s1-gone");
    tunnel.client.services.insert("s1-new".into(), led_to("s1-new", local));
    let outcome = tunnel.reload_client().await;
    assert_eq!((outcome.added, outcome.removed), (names(&["s1-new"]), names(&["s1-gone"])));
    meets(new, "here").await;
    meets(kept, "here").await;
    assert!(tunnel.reload_server().await.is_nothing() && tunnel.reload_client().await.is_nothing());
    assert_eq!(log::handshakes("s1-kept"), 1);
    long_kept.end().await;
    // Neither the end of the service at the server nor that at the client cuts it.
    long_gone.end().await;
    tunnel.end().await;
}

#[tokio::test]
async fn the_port_of_a_service_that_goes_is_taken_by_one_that_comes_in_the_same_reload() {
    let local = echo("here").await;
    let mut tunnel = Tunnel::start(&[("s2-z-old", local)]).await;
    let address = tunnel.visitors("s2-z-old");
    let long = Long::begin(address, "here").await;
    tunnel.server.services.clear();
    tunnel.server.services.insert("s2-a-new".into(), offered("s2-a-new", address));
    tunnel.reload_server_well().await;
    tunnel.client.services.clear();
    tunnel.client.services.insert("s2-a-new".into(), led_to("s2-a-new", echo("next").await));
    tunnel.reload_client().await;
    meets(address, "next").await;
    long.end().await;
    tunnel.end().await;
}

#[tokio::test]
async fn a_service_becomes_udp_and_tcp_again() {
    let (local, local_udp) = (echo("tcp!").await, echo_udp("udp!").await);
    let mut tunnel = Tunnel::start(&[("s3", local), ("s3-other", local)]).await;
    let address = tunnel.visitors("s3");
    let long = Long::begin(address, "tcp!").await;
    for _ in 0..2 {
        tunnel.offered("s3").kind = ServerKind::Udp;
        assert_eq!(tunnel.reload_server_well().await.changed, names(&["s3"]));
        tunnel.led_to("s3").kind = ClientKind::Udp { prefer_ipv6: false };
        tunnel.led_to("s3").local_addr = at(local_udp);
        tunnel.reload_client().await;
        Datagrams::new(address).await.meets_at_last("udp!").await;
        assert!(!net::listens(address));
        // The other end first, this time.
        tunnel.led_to("s3").kind = ClientKind::Tcp;
        tunnel.led_to("s3").local_addr = at(local);
        tunnel.reload_client().await;
        tunnel.offered("s3").kind = ServerKind::Tcp { proxy_protocol: None };
        tunnel.reload_server_well().await;
        meets(address, "tcp!").await;
    }
    long.end().await;
    assert_eq!(log::handshakes("s3-other"), 1);
    tunnel.end().await;
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_not_done_and_all_else_is_done() {
    let local = echo("here").await;
    let mut tunnel = Tunnel::start(&[("s4", local)]).await;
    let control = address(&tunnel.server.bind_addr);
    let elsewhere = net::address();
    let new = net::address();
    tunnel.server.bind_addr = at(elsewhere);
    tunnel.server.transport = ServerTransport::WebSocket { tls: None };
    tunnel.server.handshake_timeout = Duration::from_secs(6);
    tunnel.server.services.insert("s4-new".into(), offered("s4-new", new));
    for _ in 0..2 {
        let outcome = tunnel.reload_server().await;
        assert_eq!(outcome.needs_restart, ["server.bind_addr", "server.transport.type"]);
    }
    assert!(net::listens(control) && !net::listens(elsewhere) && net::listens(new));
    tunnel.client.services.insert("s4-new".into(), led_to("s4-new", local));
    tunnel.reload_client().await;
    // By the old transport, at the old address.
    meets(new, "here").await;
    meets(tunnel.visitors("s4"), "here").await;
    // Back: nothing is left to be done.
    tunnel.server.bind_addr = at(control);
    tunnel.server.transport = ServerTransport::Tcp;
    assert!(tunnel.reload_server().await.is_nothing());
    tunnel.end().await;
}

#[tokio::test]
async fn a_service_that_changes_costs_one_handshake_at_most() {
    let (local, other) = (echo("here").await, echo("away").await);
    let mut tunnel = Tunnel::start(&[("s5", local), ("s5-still", local)]).await;
    let mut handshakes = 1;
    // What concerns visitors only needs none.
    tunnel.offered("s5").bind_addr = at(net::address());
    tunnel.reload_server_well().await;
    tunnel.offered("s5").limits.visitors = 5;
    tunnel.offered("s5").nodelay = false;
    tunnel.offered("s5").kind = ServerKind::Tcp { proxy_protocol: None };
    tunnel.reload_server_well().await;
    tunnel.led_to("s5").local_addr = at(other);
    tunnel.led_to("s5").nodelay = false;
    tunnel.led_to("s5").retry_interval = Duration::from_secs(7);
    tunnel.reload_client().await;
    meets(tunnel.visitors("s5"), "away").await;
    assert_eq!(log::handshakes("s5"), handshakes);
    tunnel.server.on_duplicate = OnDuplicate::Refuse;
    tunnel.server.heartbeat_interval = None;
    tunnel.reload_server_well().await;
    tunnel.client.heartbeat_timeout = None;
    tunnel.client.tcp.keepalive_idle = Duration::from_secs(9);
    tunnel.reload_client().await;
    meets(tunnel.visitors("s5"), "away").await;
    assert_eq!(log::handshakes("s5"), handshakes);
    // A token does.
    tunnel.offered("s5").token = token(2);
    tunnel.reload_server_well().await;
    tunnel.led_to("s5").token = token(2);
    tunnel.reload_client().await;
    handshakes += 1;
    eventually("the handshake", || log::handshakes("s5") == handshakes).await;
    // And one that is back at once, before anybody was asked, none.
    tunnel.led_to("s5").token = token(3);
    tunnel.reload_client().await;
    tunnel.led_to("s5").token = token(2);
    tunnel.reload_client().await;
    meets(tunnel.visitors("s5"), "away").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(log::handshakes("s5"), handshakes);
    assert_eq!(log::handshakes("s5-still"), 1);
    assert_eq!(log::of("s5-still", "client connected").len(), 1);
    tunnel.end().await;
}

#[tokio::test]
async fn a_service_comes_before_its_client_and_its_client_before_it() {
    let local = echo("here").await;
    let mut tunnel = Tunnel::start(&[]).await;
    let (one, two) = (net::address(), net::address());
    tunnel.server.services.insert("s6-one".into(), offered("s6-one", one));
    tunnel.reload_server_well().await;
    for name in ["s6-one", "s6-two"] {
        tunnel.client.services.insert(name.into(), led_to(name, local));
    }
    tunnel.reload_client().await;
    meets(one, "here").await;
    tunnel.server.services.insert("s6-two".into(), offered("s6-two", two));
    tunnel.reload_server_well().await;
    meets_at_last(two, "here").await;
    tunnel.end().await;
}

/// A UDP service is added, moved, and taken away; a UDP neighbour talks all the time.
#[tokio::test]
async fn udp_services_come_move_and_go() {
    let mut tunnel = Tunnel::start(&[]).await;
    let udp = ClientKind::Udp { prefer_ipv6: false };
    for (name, local) in [("s7-still", echo_udp("stay").await), ("s7", echo_udp("here").await)] {
        let mut service = offered(name, net::address());
        service.kind = ServerKind::Udp;
        tunnel.server.services.insert(name.into(), service);
        let mut service = led_to(name, local);
        service.kind = udp;
        tunnel.client.services.insert(name.into(), service);
    }
    tunnel.reload_server_well().await;
    tunnel.reload_client().await;
    let still = Datagrams::new(tunnel.visitors("s7-still")).await;
    still.meets_at_last("stay").await;
    let old = tunnel.visitors("s7");
    Datagrams::new(old).await.meets_at_last("here").await;
    // To another address, of the server.
    tunnel.offered("s7").bind_addr = at(net::address());
    tunnel.reload_server_well().await;
    Datagrams::new(tunnel.visitors("s7")).await.meets_at_last("here").await;
    // The old one is free.
    std::net::UdpSocket::bind(old).unwrap();
    // To another address, of the local service: the same visitor finds it.
    let visitor = Datagrams::new(tunnel.visitors("s7")).await;
    visitor.meets_at_last("here").await;
    tunnel.led_to("s7").local_addr = at(echo_udp("away").await);
    tunnel.reload_client().await;
    visitor.meets_at_last("away").await;
    assert_eq!(log::handshakes("s7"), 1);
    tunnel.server.services.remove("s7");
    tunnel.reload_server_well().await;
    assert!(still.meets("stay").await, "a datagram of another service was lost");
    assert_eq!((log::handshakes("s7-still"), log::of("s7-still", "UDP data channel ended").len()), (1, 0));
    tunnel.end().await;
}

/// What a reload hands to a role that has ended.
#[tokio::test]
async fn a_role_that_has_ended_says_so() {
    let tunnel = Tunnel::start(&[]).await;
    let (server, client) = (tunnel.server_handle.clone(), tunnel.client_handle.clone());
    let (server_config, client_config) = (tunnel.server.clone(), tunnel.client.clone());
    tunnel.end().await;
    let connector = Connector::new(&client_config).unwrap();
    let outcome = within(server.reload(server_config, Acceptor::Tcp)).await;
    assert_eq!(outcome.failed, [("server".to_owned(), "the server is not running".to_owned())]);
    let outcome = within(client.reload(client_config, connector)).await;
    assert_eq!(outcome.failed.len(), 1, "{outcome:?}");
}
