//! Both sides come back by themselves, whatever befell them or what is between them: how soon, and beside rathole 0.5.0.
//!
//! The time is from the end of the fault until a visitor is served; visitors come all the time, during the fault, too.
//! `cargo test --test faults -- --ignored` runs the long ones, and all beside 0.5.0 (docs/testing.md).

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../line/mod.rs"]
mod line;

mod clock;
mod fault;
mod names;
mod noticed;
mod relays;
mod resolver;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use common::tunnel::{Build, Role};
use fault::{Fault, PATIENCE};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A jump of the clocks, if they can be made to jump here.
fn ours_with_clocks(how_far: &'static str, monotonic: bool) {
    if clock::can_jump("faults: clock jump") {
        ours(&clock::jump(how_far, monotonic));
    }
}

/// Ours recovers in time.
fn ours(fault: &Fault) {
    let Some(recovery) = fault.run(Build::Ours, fault.limit) else { return };
    common::announce(&format!("{}: {recovery}", fault.name));
    assert!(recovery.after.is_some(), "{}: nobody was served within {:?}", fault.name, fault.limit);
    // One: what was under way when the fault came may have served a lucky visitor after it.
    assert!(
        recovery.lost <= 1,
        "{}: {} visitors were lost after others were served",
        fault.name,
        recovery.lost
    );
}

#[test]
fn the_server_is_stopped_and_started() {
    ours(&fault::server_restart());
}

#[test]
fn the_server_is_killed_and_started() {
    ours(&fault::server_killed());
}

#[test]
fn the_client_is_stopped_and_started() {
    ours(&fault::client_restart());
}

#[test]
fn the_client_is_killed_and_started() {
    ours(&fault::client_killed());
}

#[test]
fn the_cable_is_cut_for_1_s() {
    ours(&fault::cut(s(1)));
}

#[test]
fn the_cable_is_cut_for_longer_than_two_heartbeats() {
    ours(&fault::cut(s(7)));
}

#[test]
#[ignore = "takes a minute; part of the full run, docs/testing.md"]
fn the_cable_is_cut_for_30_s() {
    ours(&fault::cut(s(30)));
}

#[test]
#[ignore = "takes a minute; part of the full run, docs/testing.md"]
fn the_cable_is_cut_for_30_s_with_default_heartbeats() {
    // The server has given it up meanwhile, and the client must find out: it asks every 2 s.
    ours(&Fault { limit: s(5), ..fault::with_defaults(fault::cut(s(30))) });
}

#[test]
fn the_clients_address_changes() {
    ours(&fault::address_change());
}

#[test]
fn a_router_forgets_all_connections() {
    ours(&fault::nat_flush());
}

#[test]
#[ignore = "takes a minute; part of the full run, docs/testing.md"]
fn a_router_forgets_all_connections_with_default_heartbeats() {
    ours(&fault::with_defaults(fault::nat_flush()));
}

#[test]
fn a_firewall_resets_all_connections() {
    ours(&fault::all_reset());
}

#[test]
fn the_clocks_jump_a_day_forward() {
    ours_with_clocks("+1d", false);
}

#[test]
fn the_clocks_jump_a_day_back() {
    ours_with_clocks("-1d", false);
}

#[test]
fn even_the_monotonic_clocks_jump_a_day_forward() {
    ours_with_clocks("+1d", true);
}

#[test]
fn the_client_is_suspended() {
    ours(&fault::suspended(Role::Client, s(7)));
}

#[test]
fn the_server_is_suspended() {
    ours(&fault::suspended(Role::Server, s(7)));
}

#[test]
fn the_client_is_first() {
    ours(&fault::server_late());
}

#[test]
fn the_clients_network_comes_late() {
    ours(&fault::network_late());
}

#[test]
fn the_servers_name_appears_late() {
    ours(&names::appears());
}

#[test]
fn the_servers_name_appears_while_the_name_server_is_silent() {
    ours(&names::appears_while_the_name_server_is_silent());
}

#[test]
fn the_servers_name_gets_another_address() {
    ours(&names::moves());
}

/// Every fault, ours beside 0.5.0, as a table.
#[test]
#[ignore = "takes 15 minutes; part of the full run, docs/testing.md"]
fn all_beside_rathole_0_5_0() {
    if common::peer().is_none() {
        return common::skip("faults::all_beside_rathole_0_5_0", common::PEER_HINT);
    }
    if !clock::can_jump("faults::all_beside_rathole_0_5_0") {
        return;
    }
    let faults = [
        // The longest first.
        fault::cut(s(600)),
        fault::with_defaults(fault::cut(s(600))),
        fault::server_restart(),
        fault::server_killed(),
        fault::client_restart(),
        fault::client_killed(),
        fault::cut(s(1)),
        fault::cut(s(30)),
        fault::with_defaults(fault::cut(s(30))),
        fault::address_change(),
        fault::with_defaults(fault::address_change()),
        fault::nat_flush(),
        fault::with_defaults(fault::nat_flush()),
        fault::all_reset(),
        clock::jump("+1d", false),
        clock::jump("-1d", false),
        clock::jump("+1d", true),
        fault::suspended(Role::Client, s(7)),
        fault::suspended(Role::Server, s(7)),
        fault::suspended(Role::Client, s(60)),
        fault::suspended(Role::Server, s(60)),
        fault::server_late(),
        fault::network_late(),
        names::appears(),
        names::appears_while_the_name_server_is_silent(),
        names::moves(),
    ];
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(vec![None; faults.len()]);
    // Most of the time they wait.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((fault, at)) = {
                    let at = next.fetch_add(1, SeqCst);
                    faults.get(at).map(|fault| (fault, at))
                } {
                    let (ours, peer) = std::thread::scope(|scope| {
                        let peer = scope.spawn(|| fault.run(Build::Peer, PATIENCE));
                        (fault.run(Build::Ours, PATIENCE), peer.join().unwrap())
                    });
                    let (Some(ours), Some(peer)) = (ours, peer) else { return };
                    let row = format!("| {} | {ours} | {peer} |", fault.name);
                    common::announce(&row);
                    rows.lock().unwrap()[at] = Some((row, ours.after.is_some()));
                }
            });
        }
    });
    let rows: Vec<_> = rows.into_inner().unwrap().into_iter().flatten().collect();
    let table: String = rows.iter().map(|(row, _)| format!("{row}\n")).collect();
    common::announce(&format!(
        "\nFrom the end of the fault until a visitor is served:\n\n| fault | ours | 0.5.0 |\n|--|--|--|\n{table}"
    ));
    assert!(rows.iter().all(|(_, recovered)| *recovered), "ours did not recover");
}
