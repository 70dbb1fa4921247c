//! Tokens are replaced, either end first.

use rathole::config::OnDuplicate;

use super::traffic::{Datagrams, Long, Steady, echo, echo_udp, meets, meets_at_last, whom};
use super::*;

/// As many visitors as come to a running tunnel, while its token is replaced and replaced again; none is lost.
async fn rotate(name: &'static str, server_first: bool, on_duplicate: OnDuplicate) {
    let mut tunnel = Tunnel::start(&[(name, echo("here").await)]).await;
    tunnel.server.on_duplicate = on_duplicate;
    tunnel.reload_server_well().await;
    let address = tunnel.visitors(name);
    let long = Long::begin(address, "here").await;
    let steady = Steady::begin(address, &["here"], Duration::from_millis(20));
    for n in 2..5 {
        let handshakes = log::handshakes(name);
        tunnel.offered(name).token = token(n);
        tunnel.led_to(name).token = token(n);
        if server_first {
            tunnel.reload_server_well().await;
            tunnel.serves(30).await;
            assert_eq!(log::handshakes(name), handshakes, "the old control channel goes on");
            tunnel.reload_client().await;
        } else {
            tunnel.reload_client().await;
            eventually("a refusal", || log::of(name, "the earlier one stays").len() == usize::from(n) - 1)
                .await;
            tunnel.serves(30).await;
            tunnel.reload_server_well().await;
        }
        eventually("the new control channel", || log::handshakes(name) > handshakes).await;
        meets(address, "here").await;
        assert_eq!(log::handshakes(name), handshakes + 1);
    }
    assert!(steady.end().await > 20);
    long.end().await;
    assert_eq!(tunnel.channels(), 1);
    assert!(log::of(name, "no control channel, next attempt").is_empty());
    tunnel.end().await;
}

#[tokio::test]
async fn the_server_first() {
    rotate("t1-replace", true, OnDuplicate::Replace).await;
    rotate("t1-refuse", true, OnDuplicate::Refuse).await;
}

#[tokio::test]
async fn the_client_first() {
    rotate("t2-replace", false, OnDuplicate::Replace).await;
    rotate("t2-refuse", false, OnDuplicate::Refuse).await;
}

/// Whoever asks a visitor with no time to wait never has to.
#[tokio::test]
async fn visitors_that_cannot_wait_are_served_while_a_token_is_replaced() {
    let mut tunnel = Tunnel::start(&[("t3", echo("here").await)]).await;
    tunnel.server.visitor_timeout = Duration::ZERO;
    tunnel.reload_server_well().await;
    let steady = Steady::begin(tunnel.visitors("t3"), &["here"], Duration::from_millis(2));
    for n in 2..5 {
        tunnel.offered("t3").token = token(n);
        tunnel.led_to("t3").token = token(n);
        tunnel.reload_server_well().await;
        tunnel.reload_client().await;
        eventually("the new control channel", || log::handshakes("t3") == usize::from(n)).await;
        tunnel.serves(30).await;
    }
    steady.end().await;
    tunnel.end().await;
}

/// No grace: the control channel and its idle channels end now, relays do not.
#[tokio::test]
async fn no_grace_revokes_at_once() {
    let mut tunnel = Tunnel::start(&[("t4", echo("here").await), ("t4-other", echo("here").await)]).await;
    tunnel.server.visitor_timeout = Duration::ZERO;
    let address = tunnel.visitors("t4");
    let long = Long::begin(address, "here").await;
    tunnel.offered("t4").token = token(2);
    tunnel.server.token_grace = Duration::ZERO;
    tunnel.reload_server_well().await;
    eventually("one control channel less", || tunnel.channels() == 1).await;
    assert_eq!(log::of("t4", "knows only a token that is good no more").len(), 1);
    whom(address, 4).await.expect_err("nobody serves");
    // The client tries, in vain, also with what it had before.
    eventually("refusals", || log::of("t4", "the server refused").len() >= 2).await;
    whom(address, 4).await.expect_err("nobody serves");
    tunnel.led_to("t4").token = token(2);
    tunnel.reload_client().await;
    meets_at_last(address, "here").await;
    long.end().await;
    assert_eq!(log::handshakes("t4-other"), 1);
    tunnel.end().await;
}

/// A grace that is taken back later, by a reload that changes no token, ends what it had left.
#[tokio::test]
async fn a_grace_that_is_taken_back_revokes_what_was_replaced_before() {
    let mut tunnel = Tunnel::start(&[("t5", echo("here").await)]).await;
    let long = Long::begin(tunnel.visitors("t5"), "here").await;
    tunnel.offered("t5").token = token(2);
    tunnel.reload_server_well().await;
    meets(tunnel.visitors("t5"), "here").await;
    assert_eq!(tunnel.channels(), 1);
    tunnel.server.token_grace = Duration::ZERO;
    assert_eq!(tunnel.reload_server_well().await.settings, ["server.token_grace"]);
    eventually("no control channel", || tunnel.channels() == 0).await;
    eventually("refusals", || log::of("t5", "the server refused").len() >= 2).await;
    assert_eq!(tunnel.channels(), 0);
    long.end().await;
    tunnel.end().await;
}

/// The grace ends: so does the old control channel, without another reload.
#[tokio::test]
async fn the_end_of_the_grace_ends_the_old_control_channel() {
    let mut tunnel = Tunnel::start(&[("t6", echo("here").await)]).await;
    let address = tunnel.visitors("t6");
    let long = Long::begin(address, "here").await;
    tunnel.server.token_grace = Duration::from_secs(2);
    tunnel.offered("t6").token = token(2);
    let begun = std::time::Instant::now();
    tunnel.reload_server_well().await;
    // Renewed within the grace: the client starts anew, with the old token.
    tunnel.restart_client().await;
    eventually("the client again", || log::handshakes("t6") == 2).await;
    meets(address, "here").await;
    eventually("its end", || !log::of("t6", "knows only a token that is good no more").is_empty()).await;
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    eventually("no control channel", || tunnel.channels() == 0).await;
    long.breaks().await;
    let handshakes = log::handshakes("t6");
    eventually("refusals", || log::of("t6", "the server refused").len() >= 2).await;
    assert_eq!(log::handshakes("t6"), handshakes);
    tunnel.led_to("t6").token = token(2);
    tunnel.reload_client().await;
    meets_at_last(address, "here").await;
    tunnel.end().await;
}

/// Another client that knows only the old token: it has the place of one that knows no more than it, never of one that
/// knows the present token.
#[tokio::test]
async fn who_knows_the_old_token_never_outdoes_who_knows_the_new_one() {
    for (name, on_duplicate) in [("t7-replace", OnDuplicate::Replace), ("t7-refuse", OnDuplicate::Refuse)] {
        let mut tunnel = Tunnel::start(&[(name, echo("old1").await)]).await;
        tunnel.server.on_duplicate = on_duplicate;
        tunnel.offered(name).token = token(2);
        tunnel.reload_server_well().await;
        let mut other = tunnel.client.clone();
        other.services.get_mut(name).unwrap().local_addr = at(echo("old2").await);
        // The first must not fight back.
        tunnel.client_scope.cut();
        tunnel.wait_for_clients(0).await;
        let second = Scope::new();
        start_client(&tunnel.client, &second);
        eventually("the old token renewed", || log::handshakes(name) == 2).await;
        let third = Scope::new();
        let handle = start_client(&other, &third);
        meets_at_last(tunnel.visitors(name), "old2").await;
        second.cut();
        // Now with the new one.
        other.services.get_mut(name).unwrap().token = token(2);
        let handshakes = log::handshakes(name);
        handle.reload(other.clone(), Connector::new(&other).unwrap()).await;
        eventually("the new token", || log::handshakes(name) > handshakes).await;
        let fourth = Scope::new();
        start_client(&tunnel.client, &fourth);
        let refused = || tunnel.server_counters.duplicates.load(Relaxed);
        eventually("refusals of the old token", || refused() >= 2).await;
        meets(tunnel.visitors(name), "old2").await;
        assert_eq!(log::handshakes(name), handshakes + 1);
        third.cut();
        fourth.cut();
        tunnel.end().await;
    }
}

/// The client was first, and then its control channel breaks: what the server still knows makes another one.
#[tokio::test]
async fn the_old_token_helps_when_the_control_channel_breaks_before_the_server_knows_the_new_one() {
    let mut tunnel = Tunnel::start(&[("t8", echo("here").await)]).await;
    let address = tunnel.visitors("t8");
    // Two steps ahead of the server: what counts is what it knew last.
    for n in [2, 3] {
        tunnel.led_to("t8").token = token(n);
        tunnel.reload_client().await;
        eventually("a refusal", || log::of("t8", "the earlier one stays").len() == usize::from(n) - 1).await;
    }
    // Nothing breaks a control channel like an end of the service.
    let service = tunnel.server.services.remove("t8").unwrap();
    tunnel.reload_server_well().await;
    tunnel.wait_for_clients(0).await;
    tunnel.server.services.insert("t8".into(), service);
    tunnel.reload_server_well().await;
    meets_at_last(address, "here").await;
    assert_eq!(log::handshakes("t8"), 2);
    let steady = Steady::begin(address, &["here"], Duration::from_millis(20));
    tunnel.offered("t8").token = token(3);
    tunnel.reload_server_well().await;
    eventually("the new token", || log::handshakes("t8") == 3).await;
    meets(address, "here").await;
    steady.end().await;
    tunnel.end().await;
}

/// No grace at the client: the old token is not tried again.
#[tokio::test]
async fn without_grace_a_client_forgets_the_old_token() {
    let mut tunnel = Tunnel::start(&[("t9", echo("here").await)]).await;
    tunnel.client.token_grace = Duration::ZERO;
    tunnel.led_to("t9").token = token(2);
    tunnel.reload_client().await;
    eventually("a refusal", || log::of("t9", "the earlier one stays").len() == 1).await;
    meets(tunnel.visitors("t9"), "here").await;
    let service = tunnel.server.services.remove("t9").unwrap();
    tunnel.reload_server_well().await;
    tunnel.wait_for_clients(0).await;
    tunnel.server.services.insert("t9".into(), service);
    tunnel.reload_server_well().await;
    let before = log::of("t9", "the server refused").len();
    eventually("refusals", || log::of("t9", "the server refused").len() >= before + 3).await;
    assert_eq!((tunnel.channels(), log::handshakes("t9")), (0, 1));
    tunnel.end().await;
}

/// UDP: datagrams go on while the token is replaced; when it is revoked, no visitor meets that client any more.
#[tokio::test]
async fn datagrams_go_on_until_a_token_is_revoked() {
    let mut tunnel = Tunnel::start(&[]).await;
    let mut service = offered("t10", net::address());
    service.kind = ServerKind::Udp;
    tunnel.server.services.insert("t10".into(), service);
    let mut service = led_to("t10", echo_udp("here").await);
    service.kind = ClientKind::Udp { prefer_ipv6: false };
    tunnel.client.services.insert("t10".into(), service);
    tunnel.reload_server_well().await;
    tunnel.reload_client().await;
    let visitor = Datagrams::new(tunnel.visitors("t10")).await;
    visitor.meets_at_last("here").await;
    tunnel.offered("t10").token = token(2);
    tunnel.reload_server_well().await;
    assert!(visitor.meets("here").await, "lost by a reload of the server");
    tunnel.led_to("t10").token = token(2);
    tunnel.reload_client().await;
    eventually("the new token", || log::handshakes("t10") == 2).await;
    visitor.meets_at_last("here").await;
    tunnel.server.token_grace = Duration::ZERO;
    tunnel.offered("t10").token = token(3);
    tunnel.reload_server_well().await;
    tunnel.wait_for_clients(0).await;
    let until = std::time::Instant::now() + Duration::from_secs(5);
    while visitor.meets("here").await {
        assert!(std::time::Instant::now() < until, "a revoked client is still met");
    }
    assert!(!Datagrams::new(tunnel.visitors("t10")).await.meets("here").await);
    tunnel.led_to("t10").token = token(3);
    tunnel.reload_client().await;
    visitor.meets_at_last("here").await;
    tunnel.end().await;
}
