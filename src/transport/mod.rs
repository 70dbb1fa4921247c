//! Carrying bytes between client and server: the one match per transport.
//!
//! What it decides: how bytes are carried. What it never does: read a configuration file, keep a policy, know
//! what the bytes mean. A [`Stream`] is an ordered byte stream with half-close; a transport that is not compiled
//! in is an error of [`Acceptor::new`] and [`Connector::new`].

pub mod buffer;
pub mod liveness;
#[cfg(feature = "noise")]
pub mod noise;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(any(feature = "noise", feature = "websocket"))]
mod queue;
#[cfg(any(feature = "noise", feature = "tls"))]
mod rotation;
pub mod tcp;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg_attr(not(any(feature = "server", feature = "cli")), path = "no_vigil.rs")]
pub mod vigil;
#[cfg(feature = "websocket")]
pub mod websocket;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::config;

/// The longest record, or HTTP head, that is taken from a client before it is authenticated: a hello needs 37 bytes,
/// an upgrade a few hundred. With its task a stranger costs at most 4 KiB (tcp), 8 (noise, websocket), 12 (tls) or 16
/// (websocket with tls); `docs/limits.md` says so, and a test measures it.
#[cfg(any(feature = "tls", feature = "noise", feature = "websocket"))]
const STRANGER: usize = 4 * 1024;

/// A connection between client and server, whatever carries it.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP: a relay may splice it.
    Tcp(TcpStream),
    /// TLS over TCP.
    #[cfg(feature = "tls")]
    Tls(Box<tls::Stream>),
    /// Noise over TCP.
    #[cfg(feature = "noise")]
    Noise(Box<noise::Stream>),
    /// WebSocket over TCP or TLS.
    #[cfg(feature = "websocket")]
    WebSocket(Box<websocket::Stream>),
}

/// Calls a method on whichever stream it is.
macro_rules! each {
    ($self:expr, $stream:ident => $body:expr) => {
        match $self {
            Stream::Tcp($stream) => $body,
            #[cfg(feature = "tls")]
            Stream::Tls($stream) => $body,
            #[cfg(feature = "noise")]
            Stream::Noise($stream) => $body,
            #[cfg(feature = "websocket")]
            Stream::WebSocket($stream) => $body,
        }
    };
}

impl Stream {
    /// The TCP connection underneath.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Tcp(tcp) => tcp,
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.tcp(),
            #[cfg(feature = "noise")]
            Stream::Noise(noise) => noise.tcp(),
            #[cfg(feature = "websocket")]
            Stream::WebSocket(websocket) => websocket.tcp(),
        }
    }

    /// The bare TCP connection, if this stream's bytes are its bytes: then a relay may splice.
    pub fn as_plain(&self) -> Option<&TcpStream> {
        match self {
            Stream::Tcp(tcp) => Some(tcp),
            #[cfg(any(feature = "tls", feature = "noise", feature = "websocket"))]
            _ => None,
        }
    }

    /// Whether `poll_shutdown` ends one direction only. False on a websocket to a peer that is not ours: there
    /// the end must be held back until both directions are done (protocol-v1.md, section 3.4).
    pub fn can_half_close(&self) -> bool {
        match self {
            #[cfg(feature = "websocket")]
            Stream::WebSocket(websocket) => websocket.can_half_close(),
            _ => true,
        }
    }

    /// The peer is authenticated. Until then what it can make an accepted stream hold is bounded to what a hello needs
    /// ([`STRANGER`]).
    pub fn trust(&mut self) {
        match self {
            Stream::Tcp(_) => {}
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.trust(),
            #[cfg(feature = "noise")]
            Stream::Noise(noise) => noise.trust(),
            #[cfg(feature = "websocket")]
            Stream::WebSocket(websocket) => websocket.trust(),
        }
    }

    /// Makes the drop of this stream a reset (RST) instead of an orderly end.
    pub fn reset_on_drop(&self) {
        tcp::reset_on_drop(self.tcp());
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, stream => stream.is_write_vectored())
    }

    /// A written byte may wait in the stream until it is flushed.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    /// Flushes, then ends this direction; the other stays open (see [`Stream::can_half_close`]).
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// A transport setting that cannot work: which key is to blame (relative to the transport table, for example
/// `tls.pkcs12`), and why. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError {
    /// The key, relative to `[server.transport]` or `[client.transport]`.
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub message: String,
}

impl std::fmt::Display for SettingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "transport.{}: {}", self.key, self.message)
    }
}

impl std::error::Error for SettingError {}

/// The server's side of a transport.
#[derive(Debug, Clone)]
pub enum Acceptor {
    /// Plain.
    Tcp,
    /// TLS.
    #[cfg(feature = "tls")]
    Tls(tls::Acceptor),
    /// Noise.
    #[cfg(feature = "noise")]
    Noise(noise::Acceptor),
    /// WebSocket, over TLS if given.
    #[cfg(feature = "websocket")]
    WebSocket(websocket::Acceptor),
}

impl Acceptor {
    /// Prepares keys and certificates; nothing is opened.
    pub fn new(transport: &config::ServerTransport) -> Result<Self, SettingError> {
        match transport {
            config::ServerTransport::Tcp => Ok(Acceptor::Tcp),
            #[cfg(feature = "tls")]
            config::ServerTransport::Tls(tls) => tls::Acceptor::new(tls).map(Acceptor::Tls),
            #[cfg(feature = "noise")]
            config::ServerTransport::Noise(noise) => noise::Acceptor::new(noise).map(Acceptor::Noise),
            #[cfg(feature = "websocket")]
            config::ServerTransport::WebSocket { tls } => {
                websocket::Acceptor::new(tls.as_ref()).map(Acceptor::WebSocket)
            }
            #[allow(unreachable_patterns)]
            _ => Err(not_compiled_in()),
        }
    }

    /// Takes the place of `old` in a reload. If `changed` (the transport's settings are others), then clients with the
    /// key that `old` wanted are still taken until `until`, where the transport can tell.
    #[allow(unused_variables)]
    pub fn succeed(&mut self, old: &Acceptor, changed: bool, until: Instant) {
        #[cfg(feature = "noise")]
        if let (Acceptor::Noise(present), Acceptor::Noise(old)) = (self, old) {
            present.succeed(old, changed, until);
        }
    }

    /// The transport's handshake on an accepted connection. The caller sets the deadline. Boxed: a stranger holds only
    /// what his transport needs, and nothing of it after the handshake.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<Stream> {
        match self {
            Acceptor::Tcp => Ok(Stream::Tcp(tcp)),
            #[cfg(feature = "tls")]
            Acceptor::Tls(tls) => Ok(Stream::Tls(Box::new(Box::pin(tls.accept(tcp)).await?))),
            #[cfg(feature = "noise")]
            Acceptor::Noise(noise) => Ok(Stream::Noise(Box::new(Box::pin(noise.accept(tcp)).await?))),
            #[cfg(feature = "websocket")]
            Acceptor::WebSocket(websocket) => {
                Ok(Stream::WebSocket(Box::new(Box::pin(websocket.accept(tcp)).await?)))
            }
        }
    }
}

/// The client's side of a transport: how to reach the server.
#[derive(Debug, Clone)]
pub struct Connector {
    remote: config::Endpoint,
    tcp: config::TcpOptions,
    #[cfg(feature = "proxy")]
    proxy: Option<config::Proxy>,
    layer: Layer,
    #[cfg(any(feature = "noise", feature = "tls"))]
    former: rotation::Former<Layer>,
}

#[derive(Debug, Clone)]
enum Layer {
    Tcp,
    #[cfg(feature = "tls")]
    Tls(tls::Connector),
    #[cfg(feature = "noise")]
    Noise(noise::Connector),
    #[cfg(feature = "websocket")]
    WebSocket(websocket::Connector),
}

impl Connector {
    /// Prepares keys and roots; nothing is opened.
    pub fn new(client: &config::Client) -> Result<Self, SettingError> {
        #[cfg(not(feature = "proxy"))]
        if client.proxy.is_some() {
            return Err(SettingError {
                key: "tcp.proxy",
                message: "this rathole was built without the feature `proxy`".to_owned(),
            });
        }
        let layer = match &client.transport {
            config::ClientTransport::Tcp => Layer::Tcp,
            #[cfg(feature = "tls")]
            config::ClientTransport::Tls(tls) => Layer::Tls(tls::Connector::new(tls, &client.remote_addr)?),
            #[cfg(feature = "noise")]
            config::ClientTransport::Noise(noise) => Layer::Noise(noise::Connector::new(noise)?),
            #[cfg(feature = "websocket")]
            config::ClientTransport::WebSocket { tls } => {
                Layer::WebSocket(websocket::Connector::new(tls.as_ref(), &client.remote_addr)?)
            }
            #[allow(unreachable_patterns)]
            _ => return Err(not_compiled_in()),
        };
        Ok(Connector {
            remote: client.remote_addr.clone(),
            tcp: client.tcp,
            #[cfg(feature = "proxy")]
            proxy: client.proxy.clone(),
            layer,
            #[cfg(any(feature = "noise", feature = "tls"))]
            former: rotation::Former::default(),
        })
    }

    /// Takes the place of `old` in a reload. If `changed` (the transport's settings are others), then what `old` would
    /// have connected with is still good until `until`, for a server that has not changed its key yet; so is what `old`
    /// itself had from earlier reloads, but no longer than it was promised then.
    #[allow(unused_variables)]
    pub fn succeed(&mut self, old: &Connector, changed: bool, until: Instant) {
        #[cfg(any(feature = "noise", feature = "tls"))]
        self.keep_former(old, changed, until);
    }

    /// Where the next connections go: the server's addresses, or the proxy's if there is one (then the proxy
    /// resolves the server's name). Never empty.
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        #[cfg(feature = "proxy")]
        if let Some(proxy) = &self.proxy {
            return tcp::resolve(&proxy.endpoint).await;
        }
        tcp::resolve(&self.remote).await
    }

    /// Connects to one of `addresses` and does the transport's handshake. The caller sets the deadline.
    /// `nodelay` is the channel's own wish. The stream knows its peer's address.
    pub async fn connect(&self, addresses: &[SocketAddr], nodelay: bool) -> io::Result<Stream> {
        #[cfg(any(feature = "noise", feature = "tls"))]
        if !self.former.is_empty() {
            return Box::pin(self.connect_in_transition(addresses, nodelay)).await;
        }
        let tcp = self.open(addresses, nodelay).await?;
        self.layer.connect(tcp).await
    }

    /// The connection underneath, through the proxy if there is one.
    async fn open(&self, addresses: &[SocketAddr], nodelay: bool) -> io::Result<TcpStream> {
        #[allow(unused_mut)]
        let mut tcp = tcp::connect(addresses).await?;
        #[cfg(feature = "proxy")]
        if let Some(proxy) = &self.proxy {
            proxy::handshake(proxy, &mut tcp, &self.remote).await?;
        }
        tcp::set_options(&tcp, &self.tcp, nodelay);
        Ok(tcp)
    }
}

impl Layer {
    async fn connect(&self, tcp: TcpStream) -> io::Result<Stream> {
        match self {
            Layer::Tcp => Ok(Stream::Tcp(tcp)),
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => Ok(Stream::Tls(Box::new(tls.connect(tcp).await?))),
            #[cfg(feature = "noise")]
            Layer::Noise(noise) => Ok(Stream::Noise(Box::new(noise.connect(tcp).await?))),
            #[cfg(feature = "websocket")]
            Layer::WebSocket(websocket) => Ok(Stream::WebSocket(Box::new(websocket.connect(tcp).await?))),
        }
    }
}

#[allow(dead_code)]
fn not_compiled_in() -> SettingError {
    SettingError {
        key: "type",
        message:
            "this rathole was built without the transport; build it with `--features tls,noise,websocket`"
                .to_owned(),
    }
}
