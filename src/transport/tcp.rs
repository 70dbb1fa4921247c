//! TCP sockets: resolving, connecting, binding, options.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::liveness;
use crate::config::{Endpoint, Host, TcpOptions};

/// Connections that may wait to be accepted (protocol-v1.md, section 3.1).
const BACKLOG: i32 = 1024;

/// And so many at most are taken out at once when their listener is given up: the kernel lets one more in.
const MOST_QUEUED: usize = BACKLOG as usize + 1;

/// How long an address has the field to itself (RFC 8305, section 8).
const STAGGER: Duration = Duration::from_millis(250);

/// All addresses of an endpoint, in the resolver's order; an empty answer is an error.
pub async fn resolve(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    let name = match &endpoint.host {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, endpoint.port)]),
        Host::Name(name) => name,
    };
    let cannot = |error: io::Error| io::Error::new(error.kind(), format!("cannot resolve {name}: {error}"));
    let addresses = look_up(name, endpoint.port).await.map_err(cannot)?;
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{name} has no address")));
    }
    Ok(addresses)
}

/// The resolver's threads cannot be stopped: who gives up waiting leaves them behind. So for each name there are few.
async fn look_up(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let of_name = name.bytes().fold(0, |sum: u8, byte| sum.wrapping_mul(31).wrapping_add(byte));
    // Many a local service is at this one, for which nobody is asked.
    let lot =
        if name == "localhost" { LOOKUPS.len() - 1 } else { usize::from(of_name) % (LOOKUPS.len() - 1) };
    let Some(lookups) = LOOKUPS.get(lot) else { return Ok(Vec::new()) };
    // Never closed.
    let turn = lookups.acquire().await.map_err(io::Error::other)?;
    let name = name.to_owned();
    let found = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        (name.as_str(), port).to_socket_addrs().map(Iterator::collect)
    });
    found.await.map_err(io::Error::other)?
}

/// Names share the lots that they draw: one that nobody answers for does not hold up all others.
static LOOKUPS: [Semaphore; 17] = [const { Semaphore::const_new(8) }; 17];

/// Connects to the first address that answers. Families take turns, and an address that is slow to answer does not
/// hold up the next for long (RFC 8305 in small): a broken IPv6 costs a moment, not a timeout.
///
/// # Errors
/// Names every address and what it answered.
pub async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut waiting = by_turns(addresses).into_iter();
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut faults: Vec<io::Error> = Vec::new();
    loop {
        match waiting.next() {
            Some(address) => attempts.push(Box::pin(attempt(address))),
            None if attempts.is_empty() => return Err(joined(faults)),
            None => {}
        }
        let more = waiting.len() > 0;
        tokio::select! {
            result = first_done(&mut attempts) => match result {
                Ok(tcp) => return Ok(tcp),
                Err(fault) => faults.push(fault),
            },
            () = tokio::time::sleep(STAGGER), if more => {}
        }
    }
}

type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

async fn attempt(address: SocketAddr) -> io::Result<TcpStream> {
    let connected = TcpStream::connect(address).await;
    connected.map_err(|fault| io::Error::new(fault.kind(), format!("cannot connect to {address}: {fault}")))
}

/// Waits for one of `attempts` to end, and removes it.
async fn first_done(attempts: &mut Vec<Attempt>) -> io::Result<TcpStream> {
    std::future::poll_fn(|cx| {
        for (at, attempt) in attempts.iter_mut().enumerate() {
            if let Poll::Ready(result) = attempt.as_mut().poll(cx) {
                drop(attempts.swap_remove(at));
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    })
    .await
}

/// The resolver's order, but with families by turns.
fn by_turns(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let (mut one, mut other): (VecDeque<_>, VecDeque<_>) =
        addresses.iter().copied().partition(|address| address.is_ipv4() == first.is_ipv4());
    let mut order = Vec::with_capacity(addresses.len());
    while !one.is_empty() || !other.is_empty() {
        order.extend(one.pop_front());
        order.extend(other.pop_front());
    }
    order
}

/// One text for all, which does not depend on who failed first.
fn joined(faults: Vec<io::Error>) -> io::Error {
    let Some(kind) = faults.first().map(io::Error::kind) else {
        return io::Error::new(io::ErrorKind::InvalidInput, "no address to connect to");
    };
    let mut texts: Vec<String> = Vec::with_capacity(faults.len());
    for fault in faults {
        let text = fault.to_string();
        // They are few, and `sort` would cost a small build more than a kilobyte.
        let at = texts.iter().position(|other| *other > text).unwrap_or(texts.len());
        texts.insert(at, text);
    }
    io::Error::new(kind, texts.join("; "))
}

/// Sets nodelay, and lets the kernel watch for the peer's death. A refused option costs nothing but itself, so it is
/// only logged.
pub fn set_options(tcp: &TcpStream, options: &TcpOptions, nodelay: bool) {
    set_nodelay(tcp, nodelay);
    liveness::watch(tcp, options);
}

/// Sets TCP_NODELAY alone; a refusal is only logged.
pub fn set_nodelay(tcp: &TcpStream, nodelay: bool) {
    if let Err(error) = tcp.set_nodelay(nodelay) {
        tracing::debug!(%error, "socket option refused");
    }
}

/// Makes the drop of this socket a reset.
pub fn reset_on_drop(tcp: &TcpStream) {
    // Fails only on a socket that is already gone.
    let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}

/// Binds a listening socket. `[::]` serves both families.
///
/// # Errors
/// Name the address.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = bind(address, Type::STREAM, Protocol::TCP, true).and_then(|socket| {
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    });
    bound.map_err(|fault| cannot_bind(address, "TCP", fault))
}

/// Drops attempts to connect (SYN without ACK) and nothing else. What a listening socket's filter sees begins with the TCP
/// header, whose flags are its byte 13.
const NO_NEWCOMERS: [SockFilter; 5] = [
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x54, 0, 0, 0x12),
    SockFilter::new(0x15, 0, 1, 0x02),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// A listening socket that is given up. Those who have connected to it already can be taken out; without that the kernel
/// would reset them. Who comes from now on is not answered, and asks again in a second: then another may listen there.
#[derive(Debug)]
pub struct Leaving(Option<std::net::TcpListener>);

impl Leaving {
    /// To be dropped soon. Those whose handshake goes on when this is made can be taken out when it is done.
    pub fn new(listener: TcpListener) -> Self {
        // Else the queue would not end. It cannot fail; if it does, who comes in the last moment is reset.
        let _ = SockRef::from(&listener).attach_filter(&NO_NEWCOMERS);
        // Not through the runtime, which may not have heard of them yet.
        Leaving(listener.into_std().ok())
    }

    /// Those who are there now.
    pub fn take(&self) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
        std::iter::from_fn(|| accept_now(self.0.as_ref()?)).take(MOST_QUEUED)
    }
}

/// One who waits to be accepted. None: there is nobody, or no descriptor for him.
fn accept_now(listener: &std::net::TcpListener) -> Option<(TcpStream, SocketAddr)> {
    loop {
        match listener.accept() {
            Ok((tcp, peer)) => {
                // It has the listener's filter, which would do no harm.
                let _ = SockRef::from(&tcp).detach_filter();
                tcp.set_nonblocking(true).ok()?;
                return Some((TcpStream::from_std(tcp).ok()?, peer));
            }
            // He has gone.
            Err(fault) if is_peers_doing(&fault) => {}
            Err(_) => return None,
        }
    }
}

/// Whether a connection could not be accepted because it had ended: nobody else's fault.
pub fn is_peers_doing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// What a UDP socket may keep until it is read, in bytes; the kernel's own limit may be lower. Its default holds three
/// datagrams of the largest size.
pub const UDP_QUEUE: usize = 4 << 20;

/// Lets a UDP socket keep bursts; a refusal costs nothing but some datagrams.
pub fn enlarge_queue(socket: SockRef<'_>) {
    let _ = socket.set_recv_buffer_size(UDP_QUEUE);
}

/// Binds a UDP socket. `[::]` serves both families.
///
/// # Errors
/// Name the address.
pub fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let bound = bind(address, Type::DGRAM, Protocol::UDP, false)
        .inspect(|socket| enlarge_queue(SockRef::from(socket)))
        .and_then(|socket| UdpSocket::from_std(socket.into()));
    bound.map_err(|fault| cannot_bind(address, "UDP", fault))
}

fn cannot_bind(address: SocketAddr, protocol: &str, fault: io::Error) -> io::Error {
    io::Error::new(fault.kind(), format!("cannot bind {protocol} {address}: {fault}"))
}

fn bind(address: SocketAddr, kind: Type, protocol: Protocol, reuse: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(reuse)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Endpoint, Host};
    use tokio::io::AsyncReadExt;

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// An address at which nobody listens.
    fn deserted() -> SocketAddr {
        let socket = bind(loopback(), Type::STREAM, Protocol::TCP, false).unwrap();
        socket.local_addr().unwrap().as_socket().unwrap()
    }

    #[test]
    fn families_take_turns() {
        let parse =
            |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let given = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "1.1.1.2:1"]);
        assert_eq!(by_turns(&given), parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "[::3]:1"]));
        assert_eq!(by_turns(&given[3..]), given[3..]);
        assert_eq!(by_turns(&[]), []);
    }

    #[tokio::test]
    async fn connects_past_refusals_and_names_every_one() {
        let listener = listen(loopback()).unwrap();
        let good = listener.local_addr().unwrap();
        let (dead, deader) = (deserted(), deserted());
        let tcp = connect(&[dead, deader, good]).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), good);
        let fault = connect(&[dead, deader]).await.unwrap_err();
        assert_eq!(fault.kind(), io::ErrorKind::ConnectionRefused);
        for address in [dead, deader] {
            assert!(fault.to_string().contains(&format!("cannot connect to {address}: ")), "{fault}");
        }
        assert!(connect(&[]).await.unwrap_err().to_string().contains("no address"));
    }

    /// The client tells each reason once: what a name's many addresses answer is one, in whatever order they do.
    #[test]
    fn faults_have_one_text_in_any_order() {
        let text = |order: [&str; 3]| {
            joined(order.map(|fault| io::Error::other(format!("cannot connect to {fault}"))).into())
                .to_string()
        };
        assert_eq!(text(["a", "b", "c"]), text(["c", "a", "b"]));
        assert_eq!(text(["b", "a", "c"]), "cannot connect to a; cannot connect to b; cannot connect to c");
    }

    /// A listener whose backlog is full does not answer: the kernel drops what asks.
    #[tokio::test]
    async fn a_silent_address_does_not_hold_up_the_next() {
        let socket = bind(loopback(), Type::STREAM, Protocol::TCP, false).unwrap();
        socket.listen(0).unwrap();
        let silent = socket.local_addr().unwrap().as_socket().unwrap();
        let _filling = TcpStream::connect(silent).await.unwrap();
        let good = listen(loopback()).unwrap();
        let address = good.local_addr().unwrap();
        let begin = std::time::Instant::now();
        let tcp = connect(&[silent, address]).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), address);
        assert!(begin.elapsed() >= STAGGER);
        // The attempt that lost is closed with the rest.
        let (mut accepted, _) = good.accept().await.unwrap();
        drop(tcp);
        assert_eq!(accepted.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn who_is_queued_outlives_the_listener_and_nobody_joins_them() {
        for (bound, host) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")] {
            let listener = match listen(bound.parse().unwrap()) {
                Err(fault) if bound.starts_with('[') && fault.kind() == io::ErrorKind::AddrNotAvailable => {
                    continue;
                }
                listener => listener.unwrap(),
            };
            let address = SocketAddr::new(host.parse().unwrap(), listener.local_addr().unwrap().port());
            who_is_queued_outlives(listener, address).await;
        }
    }

    async fn who_is_queued_outlives(listener: TcpListener, address: SocketAddr) {
        let queued: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let leaving = Leaving::new(listener);
        let late = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut, "{address}");
        let mut accepted: Vec<_> = leaving.take().collect();
        assert_eq!(accepted.len(), 3, "{address}");
        drop(leaving);
        let late = std::net::TcpStream::connect(address);
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "{address}");
        for (visitor, (tcp, peer)) in queued.iter().zip(&mut accepted) {
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            assert_eq!(visitor.local_addr().unwrap(), peer);
            io::Write::write_all(&mut &*visitor, b"x").unwrap();
            assert_eq!(tcp.read_u8().await.unwrap(), b'x');
        }
    }

    #[tokio::test]
    async fn options_are_set() {
        let listener = listen(loopback()).unwrap();
        let tcp = connect(&[listener.local_addr().unwrap()]).await.unwrap();
        set_options(&tcp, &TcpOptions::default(), true);
        assert!(tcp.nodelay().unwrap() && SockRef::from(&tcp).keepalive().unwrap());
        set_options(&tcp, &TcpOptions::default(), false);
        assert!(!tcp.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_reset_is_seen_as_one() {
        let listener = listen(loopback()).unwrap();
        let tcp = connect(&[listener.local_addr().unwrap()]).await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        reset_on_drop(&tcp);
        drop(tcp);
        assert_eq!(accepted.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn binding_errors_name_the_address() {
        let listener = listen(loopback()).unwrap();
        let taken = listener.local_addr().unwrap();
        let fault = listen(taken).unwrap_err();
        assert_eq!(fault.kind(), io::ErrorKind::AddrInUse);
        assert!(fault.to_string().contains(&format!("cannot bind TCP {taken}: ")), "{fault}");
        let socket = bind_udp(loopback()).unwrap();
        let taken = socket.local_addr().unwrap();
        assert!(bind_udp(taken).unwrap_err().to_string().contains(&format!("cannot bind UDP {taken}: ")));
    }

    #[tokio::test]
    async fn names_and_literals_resolve() {
        let endpoint = |host: Host| Endpoint { host, port: 7 };
        let literal = resolve(&endpoint(Host::Ip("::1".parse().unwrap()))).await.unwrap();
        assert_eq!(literal, ["[::1]:7".parse::<SocketAddr>().unwrap()]);
        let name = resolve(&endpoint(Host::Name("localhost".to_owned()))).await.unwrap();
        assert!(!name.is_empty() && name.iter().all(|address| address.ip().is_loopback()));
        let fault = resolve(&endpoint(Host::Name("nowhere.invalid".to_owned()))).await.unwrap_err();
        assert!(fault.to_string().contains("nowhere.invalid"), "{fault}");
    }
}
