//! TCP sockets: resolving, connecting, binding, options.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::config::{Endpoint, Host, TcpOptions};

/// Connections that may wait to be accepted (protocol-v1.md, section 3.1).
const BACKLOG: i32 = 1024;

/// All addresses of an endpoint, in the resolver's order; an empty answer is an error.
pub async fn resolve(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    let name = match &endpoint.host {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, endpoint.port)]),
        Host::Name(name) => name,
    };
    let found = tokio::net::lookup_host((name.as_str(), endpoint.port)).await;
    let addresses: Vec<_> = found
        .map_err(|error| io::Error::new(error.kind(), format!("cannot resolve {name}: {error}")))?
        .collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{name} has no address")));
    }
    Ok(addresses)
}

/// Connects to the first address that answers.
pub async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no address to connect to");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => {
                last = io::Error::new(error.kind(), format!("cannot connect to {address}: {error}"))
            }
        }
    }
    Err(last)
}

/// Sets keepalive and nodelay. A refused option costs nothing but itself, so it is only logged.
pub fn set_options(tcp: &TcpStream, options: &TcpOptions, nodelay: bool) {
    let keepalive =
        TcpKeepalive::new().with_time(options.keepalive_idle).with_interval(options.keepalive_interval);
    let socket = SockRef::from(tcp);
    if let Err(error) = socket.set_tcp_keepalive(&keepalive).and_then(|()| tcp.set_nodelay(nodelay)) {
        tracing::debug!(%error, "socket option refused");
    }
}

/// Makes the drop of this socket a reset.
pub fn reset_on_drop(tcp: &TcpStream) {
    // Fails only on a socket that is already gone.
    let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}

/// Binds a listening socket. `[::]` serves both families.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address, Type::STREAM, Protocol::TCP, true)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Binds a UDP socket. `[::]` serves both families.
pub fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::from_std(bind(address, Type::DGRAM, Protocol::UDP, false)?.into())
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
