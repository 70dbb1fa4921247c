//! What is under the WebSocket: TCP, or TLS over TCP.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[cfg(feature = "tls")]
use crate::transport::tls;

/// The connection that carries the frames.
#[derive(Debug)]
pub enum Carrier {
    /// ws.
    Plain(TcpStream),
    /// wss.
    #[cfg(feature = "tls")]
    Tls(Box<tls::Stream>),
}

/// Calls a method on whichever it is.
macro_rules! each {
    ($self:expr, $stream:ident => $body:expr) => {
        match $self {
            Carrier::Plain($stream) => $body,
            #[cfg(feature = "tls")]
            Carrier::Tls($stream) => $body,
        }
    };
}

impl Carrier {
    /// The TCP connection underneath.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Carrier::Plain(tcp) => tcp,
            #[cfg(feature = "tls")]
            Carrier::Tls(tls) => tls.tcp(),
        }
    }
}

impl Carrier {
    /// The peer is authenticated.
    pub fn trust(&mut self) {
        match self {
            Carrier::Plain(_) => {}
            #[cfg(feature = "tls")]
            Carrier::Tls(tls) => tls.trust(),
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}
