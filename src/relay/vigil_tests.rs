//! Peers that vanish, on kernels that do not notice it soon by themselves. These sockets have the kernel's own options,
//! and whoever vanishes here does so by a filter that lets nothing through: to the other side that is a cut.

use std::time::Duration;

use socket2::SockFilter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::channel::Channel;
use super::*;

/// What is said to be borne.
const BOUND: Duration = Duration::from_millis(1500);

/// Long enough on a busy machine; far less than the kernel's quarter of an hour.
const LIMIT: Duration = Duration::from_secs(30);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// From now on its kernel hears nothing, and so acknowledges nothing.
fn vanish(peer: &TcpStream) {
    // BPF_RET | BPF_K: of each packet keep 0 bytes.
    SockRef::from(peer).attach_filter(&[SockFilter::new(6, 0, 0, 0)]).unwrap();
}

/// A relay as on an older kernel; what is at the tunnel's other end, and at the local socket's.
async fn relay(bound: Duration) -> (Relay, TcpStream, TcpStream) {
    let ((tunnel, far), (local, near)) = (pair().await, pair().await);
    let mut relay = Relay::new(Stream::Tcp(tunnel), local, Side::Server, Instant::now(), Arc::default());
    relay.vigil = Vigil::of(bound);
    (relay, far, near)
}

/// One says something to one that has vanished.
async fn unanswered(mut speaker: TcpStream, vanished: TcpStream, mut relay: Relay) -> String {
    // Keepalive must not be the one that notices.
    let both_ways = async {
        vanish(&vanished);
        speaker.write_all(b"anybody there?").await.unwrap();
        relay.run().await.to_string()
    };
    let begun = Instant::now();
    let reason = timeout(LIMIT, both_ways).await.expect("the relay must end");
    assert!(begun.elapsed() >= BOUND, "{:?}", begun.elapsed());
    reason
}

#[tokio::test]
async fn a_vanished_client_ends_the_relay() {
    let (relay, far, near) = relay(BOUND).await;
    let reason = unanswered(near, far, relay).await;
    assert!(reason.starts_with("data channel failed: no answer for "), "{reason}");
}

#[tokio::test]
async fn a_vanished_visitor_ends_the_relay() {
    let (relay, far, near) = relay(BOUND).await;
    let reason = unanswered(far, near, relay).await;
    assert!(reason.starts_with("visitor failed: no answer for "), "{reason}");
}

#[tokio::test]
async fn a_vanished_peer_ends_a_channel_of_datagrams() {
    let (near, far) = pair().await;
    let mut channel = Channel::new(Stream::Tcp(near));
    channel.vigil = Vigil::of(BOUND);
    vanish(&far);
    assert!(channel.outbox.push(([127, 0, 0, 1], 9).into(), b"anybody there?"));
    let end = timeout(LIMIT, poll_fn(|cx| channel.poll_write(cx))).await.expect("the channel must end");
    assert!(end.to_string().starts_with("data channel failed: no answer for "), "{end}");
}

/// His kernel answers probes, whose pauses grow far beyond the bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_who_pauses_for_much_longer_loses_nothing() {
    let (mut relay, far, mut near) = relay(Duration::from_millis(400)).await;
    let total = 16 << 20;
    let writer = tokio::spawn(async move {
        near.write_all(&vec![7; total]).await.unwrap();
        near.shutdown().await.unwrap();
        near
    });
    let relay = tokio::spawn(async move { relay.run().await });
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(!relay.is_finished(), "{}", relay.await.unwrap());
    let (mut far_in, mut far_out) = far.into_split();
    let (mut bytes, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        match timeout(LIMIT, far_in.read(&mut buffer)).await.unwrap().unwrap() {
            0 => break,
            n => bytes += n,
        }
    }
    assert_eq!(bytes, total);
    far_out.shutdown().await.unwrap();
    let _near = writer.await.unwrap();
    let reason = timeout(LIMIT, relay).await.unwrap().unwrap();
    assert!(matches!(reason, Reason::Ended), "{reason}");
}

/// Silence alone is none of its business.
#[tokio::test]
async fn connections_at_rest_are_left_alone() {
    let (mut relay, _far, _near) = relay(Duration::from_millis(100)).await;
    assert!(timeout(Duration::from_secs(2), relay.run()).await.is_err());
}
