//! A service's control channel: connect, authenticate, obey; when it ends, wait a little and begin anew.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::Shared;
use super::data;
use super::limits::{Limits, MAX_QUEUED};
use crate::backoff::Backoff;
use crate::config::ClientService;
use crate::tasks::Scope;
use crate::transport::Stream;
use crate::wire::handshake::{ExpectChallenge, Refusal};
use crate::wire::{Ack, ControlCommand, Hello, Malformed, SessionKey};

/// How long the server may take to say yes: it may hold a newcomer back while it asks the incumbent.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a control channel ended, or never came to be.
#[derive(Debug)]
enum End {
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
struct Session {
    stream: Stream,
    key: SessionKey,
    server: SocketAddr,
}

/// Keeps the service's control channel up until the scope drains (the caller drops this future then).
pub async fn run(shared: Arc<Shared>, service: Arc<ClientService>, scope: Scope) {
    let mut backoff = Backoff::new(service.retry_interval);
    let name = &service.name;
    loop {
        // A handshake that takes its time is no success.
        let mut lasted = Duration::ZERO;
        let end = match connect(&shared, &service).await {
            Ok(session) => {
                // The peer may be a proxy on the way.
                let (server, peer) = (&shared.config.remote_addr, session.server);
                tracing::info!(service = %name, %server, %peer, "connected to the server");
                let _connected = shared.counters.connected();
                let begun = Instant::now();
                let end = obey(&shared, &service, session, &scope).await;
                lasted = begun.elapsed();
                end
            }
            Err(end) => end,
        };
        // In one process with its server, the channel may end before this task is dropped.
        if scope.is_draining() {
            return;
        }
        let pause = backoff.pause(lasted, fastrand::f64());
        let server = &shared.config.remote_addr;
        tracing::warn!(service = %name, %server, reason = %end, "no control channel, next attempt in {pause:.1?}");
        sleep(pause).await;
    }
}

async fn connect(shared: &Shared, service: &ClientService) -> Result<Session, End> {
    let patience = shared.config.handshake_timeout;
    let addresses = timeout(patience, shared.connector.resolve())
        .await
        .map_err(|_| End::TimedOut("resolving the server's name"))?
        .map_err(End::Unreachable)?;
    let (mut stream, expect_ack) = timeout(patience, authenticate(shared, service, &addresses))
        .await
        .map_err(|_| End::TimedOut("connecting to the server, or the handshake with it,"))??;
    let mut ack = [0; Ack::LEN];
    timeout(ACK_TIMEOUT, stream.read_exact(&mut ack))
        .await
        .map_err(|_| End::TimedOut("the server's answer"))??;
    let key = expect_ack.on_ack(&ack)?.map_err(End::Refused)?;
    let server = stream.tcp().peer_addr()?;
    Ok(Session { stream, key, server })
}

async fn authenticate(
    shared: &Shared,
    service: &ClientService,
    addresses: &[SocketAddr],
) -> Result<(Stream, crate::wire::handshake::ExpectAck), End> {
    let mut stream = shared.connector.connect(addresses, true).await.map_err(End::Unreachable)?;
    let (hello, expect_challenge) = ExpectChallenge::new(&service.name, &service.token);
    stream.write_all(&hello).await?;
    stream.flush().await?;
    let mut challenge = [0; Hello::LEN];
    let (head, rest) = challenge.split_at_mut(Hello::HEAD);
    stream.read_exact(head).await?;
    // Whoever speaks first and something else (SSH, a mail server) is not waited for.
    Hello::decode_head(head)?;
    stream.read_exact(rest).await?;
    let (auth, expect_ack) = expect_challenge.on_challenge(&challenge)?;
    stream.write_all(&auth).await?;
    stream.flush().await?;
    Ok((stream, expect_ack))
}

/// Does what the server says until the channel ends. Channels that wait for a visitor end with it, relays do not.
async fn obey(shared: &Arc<Shared>, service: &Arc<ClientService>, session: Session, scope: &Scope) -> End {
    let Session { mut stream, key, server } = session;
    let channels = scope.child();
    // Also when this future is dropped: no visitor comes to idle channels of a control channel that is gone.
    let _drain = DrainOnDrop(&channels);
    let limits = Arc::new(Limits::new());
    loop {
        let mut command = [0; ControlCommand::LEN];
        let read = stream.read_exact(&mut command);
        let read = match shared.config.heartbeat_timeout {
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
            Ok(ControlCommand::HeartBeat) => {}
            Ok(ControlCommand::CreateDataChannel) => {
                let Some(request) = limits.take() else { return End::TooManyRequests };
                let channel = data::Channel {
                    shared: shared.clone(),
                    service: service.clone(),
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
                f.write_str("the server refused: the token is wrong, or it has no service of this name")
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
