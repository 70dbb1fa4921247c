//! Addresses for tests, and who listens on them, as seen by the network namespace of the thread that asks.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// An address that nobody else uses: its host part, somewhere in 127.0.0.0/8, belongs to this process alone.
///
/// A port found free by binding it to port 0 may be taken by anyone before it is used. A host is not: binding
/// [`CLAIM`] on it is a lock that every test process of this machine respects. The port is below those that the
/// kernel gives away.
pub fn address() -> SocketAddr {
    static CLAIMS: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());
    const CLAIM: u16 = 20_009;
    for _ in 0..1000 {
        let octet = || fastrand::u8(1..=254);
        let host = Ipv4Addr::new(127, octet(), octet(), octet());
        let Ok(claim) = TcpListener::bind((host, CLAIM)) else { continue };
        if let Some(address) = free_port(host.into()) {
            CLAIMS.lock().unwrap().push(claim);
            return address;
        }
    }
    panic!("no free address on loopback")
}

/// Like [`address`], with the given host, which others use, too: `::1`, or an unspecified address. Ports are not
/// given out twice by this process.
pub fn address_on(host: IpAddr) -> SocketAddr {
    free_port(host).unwrap_or_else(|| panic!("no free port on {host}"))
}

/// Whether this machine has `::1`.
pub fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn free_port(host: IpAddr) -> Option<SocketAddr> {
    static TAKEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);
    for _ in 0..1000 {
        let address = SocketAddr::new(host, fastrand::u16(20_010..32_000));
        let free = TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok();
        if free && TAKEN.lock().unwrap().insert(address.port()) {
            return Some(address);
        }
    }
    None
}

/// Waits until a TCP socket listens on exactly this address. It is not touched.
pub fn wait_listening(address: SocketAddr) {
    wait(&format!("nobody listens on {address}"), || listens(address));
}

/// Waits until no TCP socket listens on this address.
pub fn wait_closed(address: SocketAddr) {
    wait(&format!("{address} still listens"), || !listens(address));
}

/// Waits until a UDP socket is bound to exactly this address.
pub fn wait_bound_udp(address: SocketAddr) {
    wait(&format!("no UDP socket on {address}"), || in_table("udp", address, "07"));
}

/// Whether a TCP socket listens on exactly this address.
pub fn listens(address: SocketAddr) -> bool {
    in_table("tcp", address, "0A")
}

/// Looks until `holds`, for events that nothing announces.
pub fn wait(failure: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{failure}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The kind of timer on the connection between two IPv4 addresses, in the kernel's numbers: 1 retransmission,
/// 2 keepalive. None: there is no such connection.
pub fn timer(own: SocketAddr, other: SocketAddr) -> Option<u8> {
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let found = fields.next() == Some(&hex(own)) && fields.next() == Some(&hex(other));
        let timer = fields.nth(2)?.split(':').next()?;
        if found { u8::from_str_radix(timer, 16).ok() } else { None }
    })
}

/// How many have connected to an IPv4 address and are not accepted yet.
pub fn queued(address: SocketAddr) -> usize {
    let (local, table) = (hex(address), std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap());
    let queue = table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let found = fields.next() == Some(&local) && fields.nth(1) == Some("0A");
        let (_, queue) = fields.next()?.split_once(':')?;
        if found { usize::from_str_radix(queue, 16).ok() } else { None }
    });
    queue.unwrap_or_else(|| panic!("nobody listens on {address}"))
}

/// How many wait for an IPv4 address to answer their attempt to connect.
pub fn dials(address: SocketAddr) -> usize {
    let (remote, table) = (hex(address), std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap());
    let dials = table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next()?;
        let found = fields.next() == Some(&remote) && fields.next() == Some("02");
        found.then_some(local)
    });
    // While connections come and go the kernel tells of one several times.
    dials.collect::<HashSet<_>>().len()
}

/// Looks into the kernel's socket table for a local address in a state.
fn in_table(table: &str, address: SocketAddr, state: &str) -> bool {
    let suffix = if address.is_ipv6() { "6" } else { "" };
    let local = hex(address);
    let table = std::fs::read_to_string(format!("/proc/thread-self/net/{table}{suffix}")).unwrap();
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(&local) && fields.nth(1) == Some(state)
    })
}

/// An address as the kernel's tables write it.
fn hex(address: SocketAddr) -> String {
    let host = match address.ip() {
        IpAddr::V4(ip) => format!("{:08X}", u32::from_ne_bytes(ip.octets())),
        IpAddr::V6(ip) => {
            let words = ip.octets();
            let words = words.chunks(4).map(|w| u32::from_ne_bytes([w[0], w[1], w[2], w[3]]));
            words.map(|w| format!("{w:08X}")).collect()
        }
    };
    format!("{host}:{:04X}", address.port())
}
