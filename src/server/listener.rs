//! Listening sockets: bound before the server is ready, kept as long as their configuration entry.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use crate::config::Endpoint;
use crate::transport::tcp;

/// Pauses between attempts to resolve a name: the first, and the longest.
const RESOLVE_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Pause after a failed accept: descriptors or memory are short, and trying again at once would burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds every address an endpoint has. A name that does not resolve yet is waited for; an address that cannot be
/// bound is an error, but one of a family that this host does not have, as long as another could be bound. With port
/// 0 all addresses get the port that the first one gets.
pub async fn bind_all<T>(
    endpoint: &Endpoint,
    what: &str,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
    local: impl Fn(&T) -> io::Result<SocketAddr>,
) -> io::Result<Vec<T>> {
    let mut bound = Vec::new();
    let mut absent = None;
    let mut port = endpoint.port;
    let mut addresses = resolve_or_wait(endpoint, what).await;
    addresses.sort_unstable();
    addresses.dedup();
    for mut address in addresses {
        address.set_port(port);
        match bind(address) {
            Ok(socket) => {
                port = local(&socket)?.port();
                bound.push(socket);
            }
            Err(error) if family_is_absent(&error) => {
                tracing::warn!(%address, %error, "{what}: one of its addresses is not bound");
                absent = Some(describe(&error));
            }
            Err(error) => return Err(describe(&error)),
        }
    }
    match absent {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

/// Pause between two log lines about it.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// Accepts from several listeners; fair enough, as each is polled when it alone is ready.
#[derive(Debug)]
pub struct Listeners {
    listeners: Vec<TcpListener>,
    first: usize,
    /// Not before then it is logged again that accepting fails.
    complain_at: Option<Instant>,
}

impl Listeners {
    /// Of at least one listener.
    pub fn new(listeners: Vec<TcpListener>) -> Self {
        Listeners { listeners, first: 0, complain_at: None }
    }

    /// The next connection. A failed accept is waited out, here and nowhere else. Cancel safe.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            let accepted = std::future::poll_fn(|cx| {
                let count = self.listeners.len();
                for offset in 0..count {
                    let at = (self.first + offset) % count;
                    let Some(listener) = self.listeners.get(at) else { continue };
                    if let std::task::Poll::Ready(accepted) = listener.poll_accept(cx) {
                        self.first = at + 1;
                        return std::task::Poll::Ready(accepted);
                    }
                }
                std::task::Poll::Pending
            });
            match accepted.await {
                // On a dual-stack socket an IPv4 peer has a mapped address: that is not its name.
                Ok((tcp, peer)) => return (tcp, SocketAddr::new(peer.ip().to_canonical(), peer.port())),
                // The connection was gone before it was accepted: nobody's fault.
                Err(error) if is_peers_doing(&error) => {}
                Err(error) => {
                    let now = Instant::now();
                    if self.complain_at.is_none_or(|at| at <= now) {
                        tracing::warn!(%error, "cannot accept connections, trying again and again");
                        self.complain_at = Some(now + COMPLAINT_PAUSE);
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Where they listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }
}

async fn resolve_or_wait(endpoint: &Endpoint, what: &str) -> Vec<SocketAddr> {
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

fn is_peers_doing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
