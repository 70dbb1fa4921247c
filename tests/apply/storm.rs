//! Reloads by the hundred while visitors come.

use super::traffic::{Long, Steady, echo, meets};
use super::*;

/// This process's memory, in KiB.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A hundred reloads in two seconds, each with another token or set of services, some with another address; at the other end, too. A service
/// that none of them names serves all its visitors over its one control channel, and so does a relay of one that is
/// changed all the time; memory and descriptors are what they were.
#[test]
fn a_storm_of_reloads_is_noticed_by_nobody() {
    const CHILD: &str = "RATHOLE_RELOAD_STORM";
    if std::env::var_os(CHILD).is_none() {
        let test = "storm::a_storm_of_reloads_is_noticed_by_nobody";
        let text = alone(test, CHILD);
        common::announce(
            text.lines().filter(|line| line.starts_with("storm:")).collect::<Vec<_>>().join("\n").as_str(),
        );
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(storm());
}

async fn storm() {
    let local = echo("here").await;
    let mut tunnel = Tunnel::start(&[("m-still", local), ("m-moves", local)]).await;
    let steady = Steady::begin(tunnel.visitors("m-still"), &["here"], Duration::from_millis(10));
    let long = Long::begin(tunnel.visitors("m-moves"), "here").await;
    let still = Long::begin(tunnel.visitors("m-still"), "here").await;
    let addresses: Vec<_> = (0..4).map(|_| net::address()).collect();
    let mut figures = Vec::new();
    let mut random = fastrand::Rng::with_seed(7);
    for second in 0..6 {
        let begun = std::time::Instant::now();
        for n in 0..100 {
            let moves = tunnel.offered("m-moves");
            // A listener that is given up takes its time.
            moves.bind_addr = at(addresses[2 + n / 10 % 2]);
            moves.token = token(random.u8(..3));
            moves.limits.visitors = random.usize(10..20);
            tunnel.server.visitor_timeout = Duration::from_secs(random.u64(5..10));
            if tunnel.server.services.remove("m-comes").is_none() {
                tunnel.server.services.insert("m-comes".into(), offered("m-comes", addresses[n % 2]));
            }
            let outcome = tunnel.reload_server_well().await;
            assert!(!outcome.is_nothing());
            tunnel.led_to("m-moves").token = token(random.u8(..3));
            tunnel.led_to("m-moves").local_addr = at(local);
            if tunnel.client.services.remove("m-comes").is_none() {
                tunnel.client.services.insert("m-comes".into(), led_to("m-comes", local));
            }
            tunnel.reload_client().await;
            let next = begun + Duration::from_millis(10 * (n as u64 + 1));
            tokio::time::sleep_until(next.into()).await;
        }
        // Else the log would grow.
        log::keep("connected to the server");
        let fds = std::fs::read_dir("/proc/self/fd").unwrap().count();
        println!(
            "storm: second {second}: {:?} for 100 reloads of each, {} KiB, {fds} fds",
            begun.elapsed(),
            memory()
        );
        figures.push((memory(), fds));
    }
    // It comes to rest, and all is as it should be.
    tunnel.offered("m-moves").token = token(1);
    tunnel.led_to("m-moves").token = token(1);
    tunnel.reload_server_well().await;
    tunnel.reload_client().await;
    super::traffic::meets_at_last(tunnel.visitors("m-moves"), "here").await;
    meets(tunnel.visitors("m-still"), "here").await;
    println!("storm: {} visitors", steady.end().await);
    long.end().await;
    still.end().await;
    assert_eq!(log::handshakes("m-still"), 1);
    let ((early, fds), (late, last)) = (figures[2], figures[5]);
    assert!(late < early + 2 * 1024, "{figures:?}");
    assert!(last < fds + 40, "{figures:?}");
    tunnel.end().await;
}
