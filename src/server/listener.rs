//! Listening sockets: bound before the server is ready, kept as long as their configuration entry.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

use super::door::{Accepted, Anyway, Door};
use super::seldom::Seldom;
use crate::config::Endpoint;
use crate::transport::tcp;

/// Pauses between attempts to resolve a name: the first, and the longest.
const RESOLVE_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Pause after a failed accept: descriptors or memory are short, and trying again at once would burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Visitors are reset, or a stranger makes room, when descriptors have been short for this long.
const SHORTAGE: Duration = Duration::from_millis(400);

/// Who has connected sees that half a round trip before the kernel here does: so long a listener that is given up is kept.
/// A reload waits for its end, because then the address is free: so it is short, and docs/config.md names the bound.
const LEAVING: Duration = Duration::from_millis(200);

/// Binds every address that an endpoint has. One that cannot be bound is an error, but one of a family that this host does
/// not have, as long as another could be bound. With port 0 all addresses get the port that the first one gets.
pub fn bind_all<T>(
    mut addresses: Vec<SocketAddr>,
    what: &str,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
    local: impl Fn(&T) -> io::Result<SocketAddr>,
) -> io::Result<Vec<T>> {
    let mut bound = Vec::new();
    let mut absent = Vec::new();
    let mut port = addresses.first().map_or(0, SocketAddr::port);
    addresses.sort_unstable();
    addresses.dedup();
    for mut address in addresses {
        address.set_port(port);
        match bind(address) {
            Ok(socket) => {
                port = local(&socket)?.port();
                bound.push(socket);
            }
            Err(error) if family_is_absent(&error) => absent.push((address, error)),
            Err(error) => return Err(describe(&error)),
        }
    }
    match absent.last() {
        Some((_, error)) if bound.is_empty() => return Err(describe(error)),
        _ => {}
    }
    for (address, error) in absent {
        tracing::warn!(%address, %error, "{what}: one of its addresses is not bound");
    }
    Ok(bound)
}

/// Accepts from several listeners; fair enough, as each is polled when it alone is ready.
#[derive(Debug)]
pub struct Listeners {
    listeners: Vec<TcpListener>,
    first: usize,
    /// Whether who comes here is one whom visitors wait for.
    for_clients: bool,
    /// Lines about connections that cannot be accepted.
    complaints: Seldom,
    /// Since when no visitor could be accepted for want of descriptors.
    short_since: Option<Instant>,
}

impl Listeners {
    /// Of at least one listener.
    pub fn new(listeners: Vec<TcpListener>) -> Self {
        Listeners {
            listeners,
            first: 0,
            for_clients: false,
            complaints: Seldom::default(),
            short_since: None,
        }
    }

    /// Those at which clients come.
    pub fn for_clients(listeners: Vec<TcpListener>) -> Self {
        Listeners { for_clients: true, ..Self::new(listeners) }
    }

    /// The next connection. When descriptors are short, and for a visitor stay so for a second, the oldest stranger is
    /// dropped for it; if there is none, a client gets one of the reserve, and who else comes is reset instead of left in
    /// silence. Any other failure is waited out. Cancel safe.
    pub async fn accept(&mut self, door: &Door) -> Accepted {
        loop {
            let error = match std::future::poll_fn(|cx| self.poll_accept(cx)).await {
                Ok(accepted) => {
                    self.short_since = None;
                    door.refill();
                    return accepted;
                }
                Err(error) => error,
            };
            // The connection was gone before it was accepted: nobody's fault.
            if tcp::is_peers_doing(&error) {
                continue;
            }
            let left = door.left();
            let short = are_descriptors_short(&error);
            // A visitor waits a little: those before him, or idle channels, may give some back at once.
            if short && !self.for_clients {
                let since = *self.short_since.get_or_insert_with(Instant::now);
                if since.elapsed() < SHORTAGE {
                    let _ = timeout(ACCEPT_PAUSE, left).await;
                    continue;
                }
            }
            if short {
                match self.accept_anyway(door).await {
                    // Nobody was there to be kept waiting.
                    Anyway::Idle => {
                        self.short_since = None;
                        continue;
                    }
                    Anyway::Accepted(accepted) => return accepted,
                    Anyway::Refused => {
                        self.complain("cannot accept connections: they are reset", &error);
                        continue;
                    }
                    Anyway::Nobody => {}
                }
            }
            self.complain("cannot accept connections, trying again and again", &error);
            let _ = timeout(ACCEPT_PAUSE, left).await;
        }
    }

    /// [`Door::accept_anyway`], once. If nobody is there, it waits until somebody comes.
    async fn accept_anyway(&mut self, door: &Door) -> Anyway {
        let mut tried = false;
        std::future::poll_fn(|cx| {
            if std::mem::replace(&mut tried, true) {
                return Poll::Ready(Anyway::Idle);
            }
            door.accept_anyway(self.for_clients, || self.poll_accept(cx))
        })
        .await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let count = self.listeners.len();
        for offset in 0..count {
            let at = (self.first + offset) % count;
            let Some(listener) = self.listeners.get(at) else { continue };
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                self.first = at + 1;
                return Poll::Ready(accepted.map(by_name));
            }
        }
        Poll::Pending
    }

    /// Nobody comes any more, but those who are there, or in the middle of their handshake.
    pub fn give_up(self) -> Leaving {
        let listeners: Vec<_> = self.listeners.into_iter().map(tcp::Leaving::new).collect();
        let pause = if listeners.is_empty() { Duration::ZERO } else { LEAVING };
        Leaving { listeners, until: Instant::now() + pause }
    }

    fn complain(&mut self, what: &str, error: &io::Error) {
        if let Some(times) = self.complaints.on_event(Instant::now().into_std()) {
            tracing::warn!(%error, addresses = ?self.addresses(), times, "{what}");
        }
    }

    /// Where they listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }
}

/// Listeners that are given up, until those who have come are accepted.
#[derive(Debug)]
pub struct Leaving {
    listeners: Vec<tcp::Leaving>,
    /// When it may be dropped.
    pub until: Instant,
}

impl Leaving {
    /// Those who are there now and were not accepted yet.
    pub fn take(&self) -> Vec<Accepted> {
        self.listeners.iter().flat_map(tcp::Leaving::take).map(by_name).collect()
    }
}

/// On a dual-stack socket an IPv4 peer has a mapped address: that is not its name.
fn by_name((tcp, peer): Accepted) -> Accepted {
    (tcp, SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}

/// The addresses of an endpoint; a name that does not resolve yet is waited for, with a warning at each attempt.
pub async fn resolve_or_wait(endpoint: &Endpoint, what: &str) -> Vec<SocketAddr> {
    let (mut pause, longest) = RESOLVE_PAUSE;
    loop {
        match tcp::resolve(endpoint).await {
            Ok(addresses) => return addresses,
            Err(error) => {
                tracing::warn!(address = %endpoint, %error, "{what}: waiting for its name to resolve");
                sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
        }
    }
}

/// Adds what may help to an error of `bind`, which names the address.
fn describe(error: &io::Error) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => ": another process, or another service, has it",
        io::ErrorKind::PermissionDenied => ": ports below 1024 need the capability CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => ": no interface of this host has it",
        _ => "",
    };
    io::Error::new(error.kind(), format!("{error}{hint}"))
}

fn family_is_absent(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// The process, or the whole system, has as many open as it may.
fn are_descriptors_short(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}
