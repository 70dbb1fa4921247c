//! Limits and times of a running server.

use rathole::config::{Access, Prefix};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::traffic::{Datagrams, Long, echo, echo_udp, meets, whom};
use super::*;

fn deny(prefix: &str) -> Access {
    Access::new(None, &[Prefix::parse(prefix).unwrap().0])
}

#[tokio::test]
async fn fewer_visitors_than_are_there_sends_nobody_away() {
    let mut tunnel = Tunnel::start(&[("l1", echo("here").await)]).await;
    let address = tunnel.visitors("l1");
    let mut longs = Vec::new();
    for _ in 0..3 {
        longs.push(Long::begin(address, "here").await);
    }
    tunnel.offered("l1").limits = config::Limits { visitors: 2, waiting: 1, channels: 1 };
    assert_eq!(tunnel.reload_server_well().await.changed, names(&["l1"]));
    whom(address, 4).await.expect_err("one too many");
    longs.pop().unwrap().end().await;
    eventually("its end", || tunnel.server_counters.relays.load(Relaxed) == 2).await;
    whom(address, 4).await.expect_err("still as many as may be");
    longs.pop().unwrap().end().await;
    eventually("a free place", || tunnel.server_counters.relays.load(Relaxed) == 1).await;
    meets(address, "here").await;
    tunnel.offered("l1").limits = config::Limits::DEFAULT;
    tunnel.reload_server_well().await;
    for _ in 0..20 {
        longs.push(Long::begin(address, "here").await);
    }
    for long in longs {
        long.end().await;
    }
    assert_eq!(log::handshakes("l1"), 1);
    tunnel.end().await;
}

#[tokio::test]
async fn allow_and_deny_are_about_whoever_comes_next() {
    let mut tunnel = Tunnel::start(&[("l2", echo("here").await)]).await;
    let address = tunnel.visitors("l2");
    let long = Long::begin(address, "here").await;
    tunnel.offered("l2").access = deny("127.0.0.0/8");
    tunnel.reload_server_well().await;
    whom(address, 4).await.expect_err("denied");
    tunnel.offered("l2").access = Access::default();
    tunnel.reload_server_well().await;
    meets(address, "here").await;
    long.end().await;
    tunnel.end().await;
}

#[tokio::test]
async fn deny_is_about_the_next_datagram() {
    let mut tunnel = Tunnel::start(&[]).await;
    let mut service = offered("l3", net::address());
    service.kind = ServerKind::Udp;
    tunnel.server.services.insert("l3".into(), service);
    let mut service = led_to("l3", echo_udp("here").await);
    service.kind = ClientKind::Udp { prefer_ipv6: false };
    tunnel.client.services.insert("l3".into(), service);
    tunnel.reload_server_well().await;
    tunnel.reload_client().await;
    let visitor = Datagrams::new(tunnel.visitors("l3")).await;
    visitor.meets_at_last("here").await;
    tunnel.offered("l3").access = deny("127.0.0.0/8");
    tunnel.reload_server_well().await;
    assert!(!visitor.meets("here").await);
    tunnel.offered("l3").access = Access::default();
    tunnel.reload_server_well().await;
    visitor.meets_at_last("here").await;
    tunnel.end().await;
}

/// Also for visitors who wait already, and for services that are the same in both configurations.
#[tokio::test]
async fn a_shorter_visitor_timeout_is_for_those_who_wait_too() {
    let mut tunnel = Tunnel::start(&[]).await;
    tunnel.server.visitor_timeout = Duration::from_secs(600);
    let address = net::address();
    tunnel.server.services.insert("l4".into(), offered("l4", address));
    tunnel.reload_server_well().await;
    let mut waiting = TcpStream::connect(address).await.unwrap();
    // It was accepted: it waits for a client.
    eventually("an empty queue", || net::queued(address) == 0).await;
    tunnel.server.visitor_timeout = Duration::ZERO;
    assert_eq!(tunnel.reload_server_well().await.settings, ["server.visitor_timeout"]);
    within(waiting.read_u8()).await.expect_err("refused");
    whom(address, 4).await.expect_err("refused at once");
    tunnel.end().await;
}

/// The room for strangers, and their time.
#[tokio::test]
async fn the_door_is_another_one_for_whoever_comes_next() {
    let mut tunnel = Tunnel::start(&[("l5", echo("here").await)]).await;
    let control = address(&tunnel.server.bind_addr);
    let mut stranger = TcpStream::connect(control).await.unwrap();
    tunnel.server.handshake_timeout = Duration::from_millis(100);
    tunnel.server.max_unauthenticated.total = 1;
    let outcome = tunnel.reload_server_well().await;
    assert_eq!(outcome.settings, ["server.handshake_timeout", "server.max_unauthenticated"]);
    let begun = std::time::Instant::now();
    let mut next = TcpStream::connect(control).await.unwrap();
    // The first has to go for the second, which has little time.
    within(stranger.read_u8()).await.expect_err("crowded out");
    within(next.read_u8()).await.expect_err("too slow");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    meets(tunnel.visitors("l5"), "here").await;
    assert_eq!(log::handshakes("l5"), 1);
    tunnel.end().await;
}
