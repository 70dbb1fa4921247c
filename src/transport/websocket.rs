//! WebSocket over TCP or TLS, for networks that let nothing else through.
//!
//! What it decides: the upgrade, the framing, how a direction ends. Two of ours agree on a subprotocol in which an
//! empty binary message ends one direction; rathole 0.5 has no half-close, and any frame but binary ones kills it.
//! Reading order: [`upgrade`], [`frame`], [`stream`].

mod carrier;
pub mod frame;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
pub mod mask;
mod stream;
#[cfg(test)]
mod tests;
pub mod upgrade;

use std::io;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[cfg(feature = "tls")]
use super::tls;
use super::{STRANGER, SettingError};
use crate::config;
use carrier::Carrier;
use stream::Role;
pub use stream::Stream;

/// The server's side.
#[derive(Debug, Clone)]
pub struct Acceptor {
    #[cfg(feature = "tls")]
    tls: Option<tls::Acceptor>,
}

impl Acceptor {
    /// Prepares TLS, if given.
    pub fn new(tls: Option<&config::TlsServer>) -> Result<Self, SettingError> {
        #[cfg(not(feature = "tls"))]
        if tls.is_some() {
            return Err(no_tls());
        }
        Ok(Acceptor {
            #[cfg(feature = "tls")]
            tls: tls.map(tls::Acceptor::new).transpose()?,
        })
    }

    /// Waits for the upgrade and answers it. The caller sets the deadline.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<Stream> {
        let mut carrier = self.carrier(tcp).await?;
        let request = upgrade::read_head(&mut carrier, b"GET ", STRANGER).await.map_err(broken)?;
        let judged = request.and_then(|(head, early)| Ok((upgrade::check_request(&head)?, early)));
        match judged {
            Ok((accepted, early)) => {
                carrier.write_all(upgrade::response(&accepted).as_bytes()).await?;
                carrier.flush().await?;
                Ok(Stream::new(carrier, Role::Server, accepted.half_close, &early))
            }
            Err(refused) => {
                // The peer may be gone, and is refused anyway.
                let _ = carrier.write_all(refused.answer().as_bytes()).await;
                let _ = carrier.shutdown().await;
                Err(invalid(format!("the client does not speak WebSocket: it sent {}", refused.why)))
            }
        }
    }

    async fn carrier(&self, tcp: TcpStream) -> io::Result<Carrier> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return Ok(Carrier::Tls(Box::new(Box::pin(tls.accept(tcp)).await?)));
        }
        Ok(Carrier::Plain(tcp))
    }
}

/// The client's side.
#[derive(Debug, Clone)]
pub struct Connector {
    /// The server's address as configured.
    host: Arc<str>,
    #[cfg(feature = "tls")]
    tls: Option<tls::Connector>,
}

impl Connector {
    /// Prepares TLS, if given.
    pub fn new(tls: Option<&config::TlsClient>, remote: &config::Endpoint) -> Result<Self, SettingError> {
        #[cfg(not(feature = "tls"))]
        if tls.is_some() {
            return Err(no_tls());
        }
        Ok(Connector {
            host: remote.to_string().into(),
            #[cfg(feature = "tls")]
            tls: tls.map(|tls| tls::Connector::new(tls, remote)).transpose()?,
        })
    }

    /// Whether the server is checked.
    #[cfg(feature = "tls")]
    pub(super) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Asks for the upgrade. The caller sets the deadline.
    pub async fn connect(&self, tcp: TcpStream) -> io::Result<Stream> {
        let mut key = [0; 16];
        getrandom::fill(&mut key).map_err(|error| io::Error::other(format!("no randomness: {error}")))?;
        let mut carrier = self.carrier(tcp).await?;
        carrier.write_all(upgrade::request(&self.host, key).as_bytes()).await.map_err(broken)?;
        carrier.flush().await.map_err(broken)?;
        let response =
            upgrade::read_head(&mut carrier, b"HTTP/1.", upgrade::MAX_RESPONSE).await.map_err(broken)?;
        let judged = response.and_then(|(head, early)| Ok((upgrade::check_response(&head, key)?, early)));
        match judged {
            Ok((half_close, early)) => Ok(Stream::new(carrier, Role::Client, half_close, &early)),
            Err(refused) => Err(invalid(format!(
                "the server refuses the WebSocket upgrade: it answered with {}",
                refused.why
            ))),
        }
    }

    async fn carrier(&self, tcp: TcpStream) -> io::Result<Carrier> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return Ok(Carrier::Tls(Box::new(tls.connect(tcp).await?)));
        }
        Ok(Carrier::Plain(tcp))
    }
}

#[cfg(not(feature = "tls"))]
fn no_tls() -> SettingError {
    let message = "this rathole was built without the feature `tls`".to_owned();
    SettingError { key: "websocket.tls", message }
}

fn broken(error: io::Error) -> io::Error {
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof => "closed",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("the peer {what} the connection in the WebSocket upgrade"))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
