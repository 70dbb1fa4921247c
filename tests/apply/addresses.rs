//! Addresses of services move, are exchanged, are not to be had.

use std::net::{IpAddr, Ipv4Addr};

use rathole::config::{Endpoint, Host};
use tokio::net::TcpListener;

use super::traffic::{Long, Steady, echo, meets, meets_at_last, whom};
use super::*;

/// The services' addresses by turns, each to the next one's.
fn rotate(tunnel: &mut Tunnel, services: &[&str]) {
    let addresses: Vec<_> =
        services.iter().map(|name| tunnel.server.services[*name].bind_addr.clone()).collect();
    for (n, name) in services.iter().enumerate() {
        tunnel.offered(name).bind_addr = addresses[(n + 1) % addresses.len()].clone();
    }
}

#[tokio::test]
async fn two_and_three_services_exchange_their_addresses() {
    let services = [("a1-a", echo("aa").await), ("a1-b", echo("bb").await), ("a1-c", echo("cc").await)];
    let mut tunnel = Tunnel::start(&services).await;
    let all = ["a1-a", "a1-b", "a1-c"];
    let mut longs = Vec::new();
    for (name, met) in all.iter().zip(["aa", "bb", "cc"]) {
        longs.push(Long::begin(tunnel.visitors(name), met).await);
    }
    for exchanged in [&all[..2], &all, &all[1..], &all] {
        rotate(&mut tunnel, exchanged);
        assert_eq!(tunnel.reload_server_well().await.changed, names(exchanged));
        for (name, met) in all.iter().zip(["aa", "bb", "cc"]) {
            meets(tunnel.visitors(name), met).await;
        }
    }
    for long in longs {
        long.end().await;
    }
    assert!(all.iter().all(|name| log::handshakes(name) == 1));
    tunnel.end().await;
}

/// A thousand services move on by one port; the one in front goes where nobody was.
#[tokio::test]
async fn a_long_row_of_services_moves_on_by_one() {
    let mut tunnel = Tunnel::start(&[]).await;
    let host = net::address().ip();
    let port = |n: usize| SocketAddr::new(host, 21_000 + n as u16);
    for shift in 0..3 {
        for n in 0..1000 {
            let name = format!("a2-{n:04}");
            tunnel.server.services.insert(name.as_str().into(), offered(&name, port(n + shift)));
        }
        let begun = std::time::Instant::now();
        tunnel.reload_server_well().await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
    let bound = (0..1003).filter(|n| std::net::TcpListener::bind(port(*n)).is_err()).count();
    assert_eq!(bound, 1000);
    tunnel.end().await;
}

#[tokio::test]
async fn from_one_address_to_all_and_back() {
    let mut tunnel = Tunnel::start(&[("a3", echo("here").await)]).await;
    let all = net::address_on(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let one = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), all.port());
    let mut long = None;
    for address in [one, all, one, all] {
        tunnel.offered("a3").bind_addr = at(address);
        tunnel.reload_server_well().await;
        meets(one, "here").await;
        assert_eq!(whom(SocketAddr::new([127, 0, 0, 2].into(), all.port()), 4).await.is_ok(), address == all);
        if long.is_none() {
            long = Some(Long::begin(one, "here").await);
        }
    }
    long.unwrap().end().await;
    assert_eq!(log::handshakes("a3"), 1);
    tunnel.end().await;
}

#[tokio::test]
async fn an_address_that_somebody_else_has_is_waited_for_at_the_old_one() {
    let local = echo("here").await;
    let mut tunnel = Tunnel::start(&[("a4", local), ("a4-other", local)]).await;
    let (old, taken, moved) = (tunnel.visitors("a4"), net::address(), net::address());
    let other = TcpListener::bind(taken).await.unwrap();
    let long = Long::begin(old, "here").await;
    let steady = Steady::begin(old, &["here"], Duration::from_millis(20));
    tunnel.offered("a4").bind_addr = at(taken);
    tunnel.offered("a4-other").bind_addr = at(moved);
    tunnel.server.services.insert("a4.new".into(), offered("a4.new", taken));
    let outcome = tunnel.reload_server().await;
    let failed: Vec<_> = outcome.failed.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(failed, ["server.services.a4.bind_addr", "server.services.\"a4.new\".bind_addr"]);
    for (_, why) in &outcome.failed {
        assert!(why.contains(&taken.to_string()) && why.contains("in use"), "{why}");
    }
    // All else is done, and the old address stays.
    meets(moved, "here").await;
    meets(old, "here").await;
    // Told again, as long as it fails; the last word counts.
    tunnel.server.services.remove("a4.new");
    let outcome = tunnel.reload_server().await;
    assert_eq!(outcome.failed.len(), 1, "{outcome:?}");
    meets(old, "here").await;
    steady.end().await;
    assert!(log::of("a4", "listens at last").is_empty());
    drop(other);
    meets_at_last(taken, "here").await;
    assert_eq!(log::of("a4", "listens at last").len(), 1);
    eventually("the end of the old one", || !net::listens(old)).await;
    assert!(tunnel.reload_server().await.is_nothing());
    long.end().await;
    assert_eq!(log::handshakes("a4"), 1);
    tunnel.end().await;
}

/// Two that want each other's place, one of which cannot have another's: both are served all the same.
#[tokio::test]
async fn an_exchange_that_fails_for_one_leaves_the_other_where_it_belongs() {
    let mut tunnel = Tunnel::start(&[("a5-a", echo("aa").await), ("a5-b", echo("bb").await)]).await;
    let (a, taken) = (tunnel.visitors("a5-a"), net::address());
    let other = TcpListener::bind(taken).await.unwrap();
    tunnel.offered("a5-b").bind_addr = at(a);
    tunnel.offered("a5-a").bind_addr = at(taken);
    let outcome = tunnel.reload_server().await;
    let failed: Vec<_> = outcome.failed.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(failed, ["server.services.a5-a.bind_addr"]);
    meets(a, "bb").await;
    drop(other);
    meets_at_last(taken, "aa").await;
    tunnel.end().await;
}

/// An overlap with itself is given up, and got back if a stranger has the rest.
#[tokio::test]
async fn what_cannot_grow_to_all_addresses_keeps_its_one() {
    let mut tunnel = Tunnel::start(&[("a6", echo("here").await)]).await;
    let port = net::address_on(Ipv4Addr::UNSPECIFIED.into()).port();
    let old = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    tunnel.offered("a6").bind_addr = at(old);
    tunnel.reload_server_well().await;
    let beside = SocketAddr::new([127, 0, 0, 77].into(), old.port());
    let other = TcpListener::bind(beside).await.unwrap();
    let all = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), old.port());
    tunnel.offered("a6").bind_addr = at(all);
    assert_eq!(tunnel.reload_server().await.failed.len(), 1);
    meets(old, "here").await;
    // And back to what it has: nothing is tried any more.
    tunnel.offered("a6").bind_addr = at(old);
    tunnel.reload_server_well().await;
    drop(other);
    meets(old, "here").await;
    tunnel.offered("a6").bind_addr = at(all);
    tunnel.reload_server_well().await;
    meets(beside, "here").await;
    tunnel.end().await;
}

/// Names that do not resolve: nobody waits for them but their own services, which keep their addresses meanwhile.
#[tokio::test]
async fn a_name_that_does_not_resolve_holds_up_nobody() {
    let local = echo("here").await;
    let mut tunnel = Tunnel::start(&[("a7-nowhere", local), ("a7-b", local)]).await;
    let (old, new) = (tunnel.visitors("a7-nowhere"), net::address());
    let nowhere = |port| Endpoint { host: Host::Name("nowhere.invalid".to_owned()), port };
    // The port that it has: its name may be the same address.
    tunnel.offered("a7-nowhere").bind_addr = nowhere(old.port());
    for n in 0..20 {
        let name = format!("a7-a{n}");
        let mut service = offered(&name, new);
        service.bind_addr = nowhere(1000 + n);
        tunnel.server.services.insert(name.as_str().into(), service);
    }
    tunnel.offered("a7-b").bind_addr = at(new);
    let steady = Steady::begin(old, &["here"], Duration::from_millis(20));
    let begun = std::time::Instant::now();
    let outcome = tunnel.reload_server().await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(outcome.failed.len(), 21, "{outcome:?}");
    assert!(outcome.failed.iter().all(|(_, why)| why.contains("resolve")), "{outcome:?}");
    meets(new, "here").await;
    meets(old, "here").await;
    steady.end().await;
    // One that does.
    let mut service = offered("a7-local", new);
    let port = net::address_on(Ipv4Addr::LOCALHOST.into()).port();
    service.bind_addr = Endpoint { host: Host::Name("localhost".to_owned()), port };
    tunnel.server.services.insert("a7-local".into(), service);
    tunnel.client.services.insert("a7-local".into(), led_to("a7-local", local));
    tunnel.reload_client().await;
    tunnel.reload_server().await;
    meets_at_last(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), "here").await;
    tunnel.end().await;
}
