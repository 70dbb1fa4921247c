//! What a client does with another configuration while visitors come.

use rathole::config::OnDuplicate;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::traffic::{Long, Steady, echo, meets, meets_at_last};
use super::*;

/// Another way to the same server.
async fn way(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((mut near, _)) = listener.accept().await else { continue };
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await?;
                near.set_nodelay(true)?;
                far.set_nodelay(true)?;
                copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    address
}

#[tokio::test]
async fn the_next_visitor_is_led_to_the_new_local_address() {
    let mut tunnel = Tunnel::start(&[("c1", echo("aa").await)]).await;
    let address = tunnel.visitors("c1");
    let long = Long::begin(address, "aa").await;
    let steady = Steady::begin(address, &["aa", "bb"], Duration::from_millis(10));
    let (aa, bb) = (tunnel.led_to("c1").local_addr.clone(), at(echo("bb").await));
    for (local, met) in [(&bb, "bb"), (&aa, "aa"), (&bb, "bb")] {
        tunnel.led_to("c1").local_addr = local.clone();
        assert_eq!(tunnel.reload_client().await.changed, names(&["c1"]));
        // Channels that are idle already lead there, too.
        for _ in 0..10 {
            meets(address, met).await;
        }
    }
    assert!(steady.end().await > 0);
    long.end().await;
    assert_eq!(log::handshakes("c1"), 1);
    tunnel.end().await;
}

/// By another way and back, with a server that replaces and with one that refuses; nobody is lost.
#[tokio::test]
async fn another_way_to_the_server_is_there_before_the_old_one_is_left() {
    for (name, on_duplicate) in [("c2-replace", OnDuplicate::Replace), ("c2-refuse", OnDuplicate::Refuse)] {
        let mut tunnel = Tunnel::start(&[(name, echo("here").await)]).await;
        tunnel.server.on_duplicate = on_duplicate;
        tunnel.reload_server_well().await;
        let address = tunnel.visitors(name);
        let long = Long::begin(address, "here").await;
        let steady = Steady::begin(address, &["here"], Duration::from_millis(20));
        let direct = tunnel.client.remote_addr.clone();
        let other = at(way(super::address(&direct)).await);
        for (n, remote) in [&other, &direct].into_iter().enumerate() {
            tunnel.client.remote_addr = remote.clone();
            assert_eq!(tunnel.reload_client().await.settings, ["client.remote_addr"]);
            eventually("the other way", || log::handshakes(name) == 2 + n).await;
            meets(address, "here").await;
        }
        steady.end().await;
        long.end().await;
        assert_eq!(tunnel.channels(), 1);
        tunnel.end().await;
    }
}

/// A server that refuses, or is not there at all: the old one serves on, with a line and not one for each attempt.
#[tokio::test]
async fn a_server_that_is_no_better_changes_nothing() {
    let local = echo("here").await;
    let mut tunnel = Tunnel::start(&[("c3", local)]).await;
    let address = tunnel.visitors("c3");
    let steady = Steady::begin(address, &["here"], Duration::from_millis(20));
    let direct = tunnel.client.remote_addr.clone();
    // The same token, but no such service.
    let other = server_config(net::address(), [offered("c3-x", net::address())]);
    let scope = Scope::new();
    let counters = Arc::new(Counters::default());
    let server = Server::bind(other.clone(), Acceptor::Tcp, counters.clone()).await.unwrap();
    scope.spawn(server.run(scope.clone()));
    tunnel.led_to("c3").retry_interval = Duration::from_millis(50);
    for (n, remote) in [other.bind_addr, at(net::address())].into_iter().enumerate() {
        tunnel.client.remote_addr = remote;
        tunnel.reload_client().await;
        eventually("a line", || log::of("c3", "the earlier one stays").len() == n + 1).await;
        if n == 0 {
            let refused = || counters.failed_authentications.load(Relaxed);
            eventually("many attempts", || refused() > 5).await;
        } else {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        meets(address, "here").await;
        assert_eq!(log::of("c3", "the earlier one stays").len(), n + 1);
    }
    assert_eq!((log::handshakes("c3"), tunnel.channels()), (1, 1));
    // Back: it was never left.
    tunnel.client.remote_addr = direct;
    tunnel.reload_client().await;
    meets(address, "here").await;
    steady.end().await;
    assert_eq!(log::handshakes("c3"), 1);
    scope.cut();
    tunnel.end().await;
}

/// A longer pause is cut short by a smaller `retry_interval`, and what is not about the way there is in force for the
/// next attempt.
#[tokio::test]
async fn a_smaller_retry_interval_is_in_force_at_once() {
    let local = echo("here").await;
    let control = net::address();
    let mut client = client_config(control, [led_to("c4", local)]);
    client.services.get_mut("c4").unwrap().retry_interval = Duration::from_secs(100_000);
    log::collect();
    let scope = Scope::new();
    let handle = start_client(&client, &scope);
    // 0.5 s, 1.5 s, 4.5 s, 13.5 s: the third pause is begun.
    eventually("three attempts", || log::of("c4", "no control channel").len() >= 3).await;
    let server = server_config(control, [offered("c4", net::address())]);
    let running = Server::bind(server.clone(), Acceptor::Tcp, Arc::default()).await.unwrap();
    scope.spawn(running.run(scope.clone()));
    let begun = std::time::Instant::now();
    client.services.get_mut("c4").unwrap().retry_interval = Duration::from_millis(200);
    handle.reload(client.clone(), Connector::new(&client).unwrap()).await;
    meets_at_last(address(&server.services["c4"].bind_addr), "here").await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    scope.cut();
}

#[tokio::test]
async fn heartbeat_timeout_is_in_force_for_the_next_silence() {
    let mut tunnel = Tunnel::start(&[("c5", echo("here").await)]).await;
    tunnel.client.heartbeat_timeout = Some(Duration::from_millis(300));
    assert_eq!(tunnel.reload_client().await.settings, ["client.heartbeat_timeout"]);
    // The server asks for a channel: with that the old wait is over.
    meets(tunnel.visitors("c5"), "here").await;
    eventually("the end of silence", || !log::of("c5", "no heartbeat from the server").is_empty()).await;
    tunnel.end().await;
}
