//! What a process holds, by the kernel's tables.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::STOCK;
use super::common::tunnel::{Kind, Plan, Role};

/// A socket, as far as it has addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Socket {
    udp: bool,
    local: SocketAddr,
    remote: SocketAddr,
    /// The kernel's number: 1 established, 10 listening.
    state: u8,
}

/// Everything but the pipes of relays, which are kept for the next ones.
pub struct Held {
    sockets: Vec<Socket>,
    /// Sockets that are in no table: of another kind, or neither connected nor bound any more.
    unnamed: usize,
    /// What is no socket.
    others: usize,
}

impl Held {
    /// By this process.
    pub fn by(id: u32) -> Self {
        let mut held = Held { sockets: Vec::new(), unnamed: 0, others: 0 };
        let entries = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap();
        let links: Vec<_> = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).collect();
        // Afterwards: what was closed in between is not missed.
        let known = tables(id);
        for link in links {
            let link = link.to_string_lossy();
            match link.strip_prefix("socket:[") {
                Some(inode) => match known.get(inode.trim_end_matches(']')) {
                    Some(socket) => held.sockets.push(socket.clone()),
                    None => held.unnamed += 1,
                },
                None if link.starts_with("pipe:") => {}
                None => held.others += 1,
            }
        }
        held
    }

    /// The least of what is seen in a while: in between sockets come and go.
    pub fn at_rest(id: u32) -> Self {
        let samples = (0..5).map(|_| {
            std::thread::sleep(Duration::from_millis(50));
            Held::by(id)
        });
        samples.min_by_key(|held| (held.unnamed, held.others)).unwrap()
    }

    /// What it should not hold while there are no visitors: besides its listeners, it may have live connections to the
    /// other end, a client also sockets of UDP visitors that are not yet idle, and what it
    /// held `before` that has no address.
    pub fn surplus(&self, role: Role, plan: &Plan, link: SocketAddr, before: &Held) -> Vec<String> {
        let is_expected = |socket: &&Socket| match role {
            Role::Server => {
                let listens = |addr| socket.local == addr && (socket.udp || socket.state == 10);
                listens(plan.server_addr)
                    || plan.services.iter().any(|service| listens(service.visitors))
                    || (socket.local == plan.server_addr && socket.state == 1)
            }
            Role::Client => {
                (socket.remote == link && socket.state == 1)
                    || plan.services.iter().any(|service| {
                        service.kind == Kind::Udp && socket.udp && socket.remote == service.local
                    })
            }
        };
        let (expected, surplus): (Vec<_>, Vec<_>) = self.sockets.iter().partition(is_expected);
        let mut found: Vec<String> = surplus.iter().map(|socket| format!("{socket:?}")).collect();
        let tunnel = expected.iter().filter(|socket| !socket.udp && socket.state == 1).count();
        // A control channel each, and channels in stock; the UDP service has not more than a few.
        if tunnel > plan.services.len() * (1 + STOCK) {
            found.push(format!("{tunnel} connections to the other end"));
        }
        if self.unnamed > before.unnamed {
            found.push(format!("{} sockets without addresses, not {}", self.unnamed, before.unnamed));
        }
        if self.others > before.others {
            found.push(format!("{} files that are no sockets, not {}", self.others, before.others));
        }
        found
    }
}

/// The IPv4 sockets of the process's network, by inode.
fn tables(id: u32) -> HashMap<String, Socket> {
    let mut known = HashMap::new();
    for (name, udp) in [("tcp", false), ("udp", true)] {
        let table = std::fs::read_to_string(format!("/proc/{id}/net/{name}")).unwrap();
        for line in table.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let [_, local, remote, state, .., _] = fields[..] else { continue };
            let Some(inode) = fields.get(9) else { continue };
            let state = u8::from_str_radix(state, 16).unwrap();
            let socket = Socket { udp, local: address(local), remote: address(remote), state };
            known.insert((*inode).to_owned(), socket);
        }
    }
    known
}

fn address(text: &str) -> SocketAddr {
    let (host, port) = text.split_once(':').unwrap();
    let host = Ipv4Addr::from(u32::from_str_radix(host, 16).unwrap().to_ne_bytes());
    SocketAddr::new(IpAddr::V4(host), u16::from_str_radix(port, 16).unwrap())
}
