//! Visitors who have connected, but were not accepted yet, when the listener that they came to is given up.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::traffic::{Long, echo, meets};
use super::*;

/// In a runtime of one thread nobody accepts while this connects: all wait in the kernel's queue.
fn queue(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let connect = |_| {
        let tcp = std::net::TcpStream::connect(address).unwrap();
        tcp.set_nonblocking(true).unwrap();
        TcpStream::from_std(tcp).unwrap()
    };
    (0..count).map(connect).collect()
}

/// What a visitor who is there already meets.
async fn met(tcp: &mut TcpStream, length: usize) -> std::io::Result<String> {
    tcp.write_all(b"ping").await?;
    let mut answer = vec![0; length + 4];
    within(tcp.read_exact(&mut answer)).await?;
    assert_eq!(&answer[length..], b"ping");
    Ok(String::from_utf8(answer[..length].to_vec()).unwrap())
}

#[tokio::test]
async fn who_waits_to_be_accepted_is_served_when_the_service_moves() {
    let mut tunnel = Tunnel::start(&[("q1", echo("here").await)]).await;
    let old = tunnel.visitors("q1");
    tunnel.offered("q1").bind_addr = at(net::address());
    let mut visitors = queue(old, 200);
    tunnel.reload_server_well().await;
    for visitor in &mut visitors {
        assert_eq!(met(visitor, 4).await.unwrap(), "here");
    }
    meets(tunnel.visitors("q1"), "here").await;
    eventually("the end of the old listener", || !net::listens(old)).await;
    tunnel.end().await;
}

/// Each belongs to the service that he came to, wherever that is now.
#[tokio::test]
async fn who_waits_is_served_by_whom_he_came_to_when_addresses_are_exchanged() {
    let mut tunnel = Tunnel::start(&[("q2-a", echo("aa").await), ("q2-b", echo("bb").await)]).await;
    let (a, b) = (tunnel.visitors("q2-a"), tunnel.visitors("q2-b"));
    (tunnel.offered("q2-a").bind_addr, tunnel.offered("q2-b").bind_addr) = (at(b), at(a));
    let (mut to_a, mut to_b) = (queue(a, 20), queue(b, 20));
    tunnel.reload_server_well().await;
    for (visitors, name) in [(&mut to_a, "aa"), (&mut to_b, "bb")] {
        for visitor in visitors {
            assert_eq!(met(visitor, 2).await.unwrap(), name);
        }
    }
    meets(a, "bb").await;
    meets(b, "aa").await;
    tunnel.end().await;
}

/// Nobody is left who would serve them; silence would be worse.
#[tokio::test]
async fn who_waits_is_reset_when_the_service_is_gone() {
    let mut tunnel = Tunnel::start(&[("q3", echo("here").await)]).await;
    let mut visitors = queue(tunnel.visitors("q3"), 20);
    tunnel.server.services.remove("q3");
    tunnel.reload_server_well().await;
    for visitor in &mut visitors {
        let read = within(visitor.read(&mut [0])).await;
        assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    tunnel.end().await;
}

/// Visitors come to two addresses without a pause, between which a service is moved again and again: who has connected is
/// served, whenever that was. (Who comes too late is refused, or not answered.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_visitors_during_a_storm_of_moves_loses_nobody() {
    let mut tunnel = Tunnel::start(&[("q4", echo("here").await)]).await;
    let addresses = [tunnel.visitors("q4"), net::address()];
    let long = Long::begin(addresses[0], "here").await;
    let stop = Arc::new(AtomicBool::new(false));
    let (served, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut visitors = tokio::task::JoinSet::new();
    for n in 0..24 {
        let (stop, served, refused) = (stop.clone(), served.clone(), refused.clone());
        visitors.spawn(async move {
            let mut lost = Vec::new();
            for address in addresses.into_iter().cycle().skip(n % 2) {
                if stop.load(Relaxed) {
                    break;
                }
                // Who is not answered would ask again in a second, and find it moved once more.
                let connecting = timeout(Duration::from_millis(500), TcpStream::connect(address)).await;
                let met = match connecting {
                    Ok(Ok(mut tcp)) => met(&mut tcp, 4).await,
                    Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
                        refused.fetch_add(1, Relaxed);
                        continue;
                    }
                    Ok(Err(error)) => Err(error),
                    Err(_) => {
                        refused.fetch_add(1, Relaxed);
                        continue;
                    }
                };
                match met {
                    Ok(_) => drop(served.fetch_add(1, Relaxed)),
                    Err(error) => lost.push(error.to_string()),
                }
            }
            lost
        });
    }
    for n in 1..=100 {
        let before = served.load(Relaxed);
        tunnel.offered("q4").bind_addr = at(addresses[n % 2]);
        tunnel.reload_server_well().await;
        eventually("visitors in between", || served.load(Relaxed) > before).await;
    }
    stop.store(true, Relaxed);
    let lost: Vec<String> = visitors.join_all().await.into_iter().flatten().collect();
    let (served, refused) = (served.load(Relaxed), refused.load(Relaxed));
    common::announce(&format!(
        "storm of moves: {served} served, {refused} came too late, {} lost",
        lost.len()
    ));
    assert!(lost.is_empty(), "{} visitors were lost, {served} served: {:?}", lost.len(), lost[0]);
    long.end().await;
    tunnel.end().await;
}
