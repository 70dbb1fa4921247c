//! One authenticated control channel: what the server asks for is done until it ends.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::data;
use super::limits::{Limits, MAX_QUEUED};
use super::{Settings, Shared, Wanted};
use crate::latest::Latest;
use crate::tasks::Scope;
use crate::transport::Stream;
use crate::wire::handshake::Refusal;
use crate::wire::{ControlCommand, Malformed, SessionKey};

/// Why a control channel ended, or never came to be.
#[derive(Debug)]
pub enum End {
    Unreachable(io::Error),
    Io(io::Error),
    Malformed(Malformed),
    Refused(Refusal),
    Closed,
    Rejected,
    Silent(Duration),
    TimedOut(&'static str),
    TooManyRequests,
}

/// An authenticated control channel.
pub struct Session {
    /// The channel.
    pub stream: Stream,
    /// What its data channels present.
    pub key: SessionKey,
    /// Where it is connected: the peer may be a proxy on the way.
    pub server: SocketAddr,
    /// How its data channels reach the server.
    pub settings: Arc<Settings>,
    /// Heartbeats that came.
    pub beats: Arc<AtomicUsize>,
}

impl Session {
    /// Does what the server says until the channel ends. Channels that wait for a visitor end with it, relays do not.
    /// Dropping the future ends the channel.
    pub async fn obey(self, shared: Arc<Shared>, wanted: Latest<Wanted>, scope: Scope) -> End {
        let Session { mut stream, key, server, settings, beats } = self;
        let _connected = shared.counters.connected();
        let channels = scope.child();
        // Also when this future is dropped: no visitor comes to idle channels of a control channel that is gone.
        let _drain = DrainOnDrop(&channels);
        let limits = Arc::new(Limits::new());
        loop {
            let mut command = [0; ControlCommand::LEN];
            let read = stream.read_exact(&mut command);
            let patience = wanted.get().settings.config.heartbeat_timeout;
            let read = match patience {
                None => read.await,
                Some(patience) => match timeout(patience, read).await {
                    Ok(read) => read,
                    Err(_) => return End::Silent(patience),
                },
            };
            match read {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return End::Closed,
                Err(error) => return End::Io(error),
            }
            match ControlCommand::decode(&command) {
                Ok(ControlCommand::HeartBeat) => {
                    beats.fetch_add(1, Relaxed);
                }
                Ok(ControlCommand::CreateDataChannel) => {
                    let Some(request) = limits.take() else { return End::TooManyRequests };
                    let channel = data::Channel {
                        shared: shared.clone(),
                        wanted: wanted.clone(),
                        settings: settings.clone(),
                        key,
                        server,
                        limits: limits.clone(),
                    };
                    shared.relays.spawn(channel.serve(request, channels.clone()));
                }
                Err(error) => return End::Malformed(error),
            }
        }
    }
}

struct DrainOnDrop<'a>(&'a Scope);

impl Drop for DrainOnDrop<'_> {
    fn drop(&mut self) {
        self.0.drain();
    }
}

/// Of the handshake.
impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => End::Rejected,
            _ => End::Io(error),
        }
    }
}

impl From<Malformed> for End {
    fn from(error: Malformed) -> Self {
        End::Malformed(error)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The kernel's own word.
            End::Io(error) if error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_some() => {
                f.write_str("no answer from the server's machine, or the link to it is cut")
            }
            End::Unreachable(error) | End::Io(error) => error.fmt(f),
            End::Malformed(error) => error.fmt(f),
            End::Refused(Refusal::AuthFailed) => {
                f.write_str("the server refused: the token is wrong, it has no service of this name, or another client serves it")
            }
            End::Refused(Refusal::ServiceNotExist) => f.write_str("the server has no service of this name"),
            End::Closed => f.write_str("closed by the server"),
            End::Rejected => {
                f.write_str("the server hung up in the handshake: is its transport another one?")
            }
            End::Silent(time) => write!(f, "no heartbeat from the server for {} s", time.as_secs()),
            End::TimedOut(what) => write!(f, "{what} took too long"),
            End::TooManyRequests => {
                write!(
                    f,
                    "the server asks for data channels faster than it takes them: {MAX_QUEUED} requests are waiting"
                )
            }
        }
    }
}
