//! A bad line between two sites, made of nothing but this kernel and this process: each site is a network namespace
//! with a TAP device, and a thread carries frames from one to the other, late, twice, or not at all.
//!
//! - [`site`]: one end, a network namespace that has no name and goes with its last user.
//! - [`weather`]: what befalls frames in one direction.
//! - [`forwarder`]: the thread in between. [`middlebox`]: what a NAT router or firewall there would do. [`frame`]: TCP
//!   segments in frames. [`tap`]: the one call that makes a TAP device.
//! - [`old_kernel`]: what kernels before Linux 6.15 cannot do.
//! - [`tunnel`]: a server and a client of either build at the two ends.
//! - [`crowd`]: visitors that keep coming, and what became of each.
//!
//! Nothing of it reaches another network, and nothing is left behind, however the test ends. It needs root, /dev/net/tun
//! and the program `ip`.

#![allow(dead_code)]

pub mod crowd;
pub mod forwarder;
pub mod frame;
pub mod middlebox;
pub mod old_kernel;
pub mod site;
pub mod tap;
pub mod tunnel;
pub mod weather;

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::common;
use forwarder::Forwarder;
use middlebox::Gone;
use site::Site;
use weather::Weather;

/// The server's address on the line.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Where the server may move to.
pub const SERVER_MOVED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
/// The client's address on the line.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Where the client may move to.
pub const CLIENT_MOVED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 12);

/// The device of each site.
const DEVICE: &str = "line";

/// Two sites and what is between them.
pub struct Line {
    /// Where the server is, and its visitors.
    pub server: Site,
    /// Where the client is, and its local services.
    pub client: Site,
    forwarder: Forwarder,
}

impl Line {
    /// A line in fine weather; None, with a line that says so, where there can be none. `seed` is for what is random.
    pub fn new(test: &str, seed: u64) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            common::skip(test, "network namespaces need root");
            return None;
        }
        if !std::path::Path::new("/dev/net/tun").exists() {
            common::skip(test, "no /dev/net/tun here (modprobe tun)");
            return None;
        }
        if !common::is_here("ip") {
            common::skip(test, "no ip here (Debian: apt-get install iproute2)");
            return None;
        }
        let (server, client) = match (Site::new(), Site::new()) {
            (Ok(server), Ok(client)) => (server, client),
            (Err(error), _) | (_, Err(error)) => {
                common::skip(test, &format!("no network namespace can be made here: {error}"));
                return None;
            }
        };
        let ends = [server.tap(DEVICE), client.tap(DEVICE)];
        let stations = [(&server, 1, SERVER), (&client, 2, CLIENT)];
        for (site, station, address) in stations {
            site.ip("link set lo up");
            site.ip(&format!("link set {DEVICE} address 02:00:00:00:00:0{station}"));
            site.ip(&format!("addr add {address}/24 dev {DEVICE}"));
            site.ip(&format!("link set {DEVICE} up"));
        }
        // As behind a router that stays up: a cut is silence, not an unreachable neighbour.
        for (site, station, addresses) in
            [(&server, 2, [CLIENT, CLIENT_MOVED]), (&client, 1, [SERVER, SERVER_MOVED])]
        {
            for address in addresses {
                let neighbour = format!("{address} lladdr 02:00:00:00:00:0{station}");
                site.ip(&format!("neigh replace {neighbour} dev {DEVICE} nud permanent"));
            }
        }
        Some(Line { server, client, forwarder: Forwarder::start(ends, seed) })
    }

    /// The same weather in both directions, from now on.
    pub fn set(&self, weather: Weather) {
        self.set_ways(weather, weather);
    }

    /// The weather from server to client, and from client to server.
    pub fn set_ways(&self, to_client: Weather, to_server: Weather) {
        self.forwarder.with(|state| state.weather = [to_client, to_server]);
    }

    /// Cuts the cable, or mends it; the weather is kept.
    pub fn cut(&self, cut: bool) {
        self.cut_ways(cut, cut);
    }

    /// Cuts one way, or the other.
    pub fn cut_ways(&self, to_client: bool, to_server: bool) {
        self.forwarder.with(|state| state.cut = [to_client, to_server]);
    }

    /// Cuts the cable for a while.
    pub fn cut_for(&self, time: Duration) {
        self.cut(true);
        std::thread::sleep(time);
        self.cut(false);
    }

    /// A router on the way forgets all connections: their packets vanish, or are answered with a reset. New
    /// connections are carried.
    pub fn forget(&self, how: Gone) {
        self.forwarder.with(|state| state.middlebox.forget(how));
    }

    /// What was carried so far.
    pub fn counts(&self) -> forwarder::Counts {
        self.forwarder.with(|state| state.counts)
    }

    /// Switches a site's device "up" or "down", which its system knows, unlike a cut.
    pub fn set_device(site: &Site, state: &str) {
        site.ip(&format!("link set {DEVICE} {state}"));
    }

    /// Gives a site another address: the old one is gone, without a word to anyone.
    pub fn move_site(site: &Site, from: Ipv4Addr, to: Ipv4Addr) {
        site.ip(&format!("addr add {to}/24 dev {DEVICE}"));
        site.ip(&format!("addr del {from}/24 dev {DEVICE}"));
        // With the first address of a network its secondary ones go, too.
        let addresses = site.ip(&format!("addr show dev {DEVICE}"));
        if !addresses.contains(&to.to_string()) {
            site.ip(&format!("addr add {to}/24 dev {DEVICE}"));
        }
    }
}
