//! One accepted connection, from accept until it is known for a control or a data channel.
//!
//! All of it happens in the connection's own task under one deadline, which ends with Auth; nobody else waits for it.
//! Until then it is a guest, who may be told to go for a newer one. An unknown service and a wrong token are told in
//! the same way: after Auth, Ack=2, after the same work. The answer to an address that failed before is held back;
//! nobody who knows the token ever waits for that.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use super::admission::Newcomer;
use super::door::{Complaint, Guest};
use super::junk::Kind;
use super::registry::Event;
use super::{Settings, Shared};
use crate::counters::Counters;
use crate::transport::{Stream, tcp};
use crate::wire::handshake::{ExpectAuth, Opening, on_hello};
use crate::wire::{Ack, Auth, Hello, Malformed, ServiceDigest, SessionKey};

/// How a handshake ends without a channel.
#[derive(Debug)]
enum Reject {
    /// The connection broke, or the transport's handshake failed.
    Io(io::Error),
    /// Not our protocol.
    Malformed(Malformed),
    /// Wrong token, or no such service: already told.
    Auth,
    /// No session has this key.
    UnknownSession,
    /// The service has more data channels waiting than it can hold.
    Full(Arc<str>),
    /// No handshake in time.
    Timeout,
    /// Dropped for another.
    ToldToGo(Kind),
}

/// Takes a connection through its handshake and hands it on. Never fails: what goes wrong is logged and counted.
pub async fn serve(shared: Arc<Shared>, tcp: TcpStream, peer: SocketAddr, mut guest: Guest) {
    let settings = shared.settings();
    let config = &settings.config;
    tcp::set_options(&tcp, &config.tcp, config.tcp.nodelay);
    let deadline = guest.since + config.handshake_timeout;
    let outcome = tokio::select! {
        biased;
        kind = guest.told_to_go() => Err(Reject::ToldToGo(kind)),
        outcome = timeout_at(deadline, handshake(&shared, &settings, tcp, peer, deadline)) => {
            outcome.unwrap_or(Err(Reject::Timeout))
        }
    };
    // The connection is authenticated, or closed: its place is free.
    drop(guest);
    let reject = match outcome {
        Ok(None) => return,
        // Boxed: what comes now is large, and few come so far.
        Ok(Some(newcomer)) => return Box::pin(newcomer.serve(shared, settings)).await,
        Err(reject) => reject,
    };
    let junk = match reject {
        Reject::Auth => return,
        Reject::Io(error) => {
            tracing::debug!(%peer, %error, "connection lost before it was authenticated");
            kind_of(&error)
        }
        Reject::Malformed(error) => {
            tracing::debug!(%peer, %error, "connection refused");
            Kind::Garbage
        }
        Reject::UnknownSession => {
            tracing::debug!(%peer, "data channel refused: no session has its key");
            Kind::Stray
        }
        Reject::Full(service) => {
            Counters::add(&shared.counters.rejected, 1);
            if let Some(times) = shared.door.complain(Complaint::TooManyChannels, &service) {
                tracing::warn!(%service, %peer, times, "data channel refused: too many are waiting to be taken");
            }
            return;
        }
        Reject::Timeout => {
            tracing::debug!(%peer, "connection refused: no handshake in time");
            Kind::Silent
        }
        Reject::ToldToGo(kind) => {
            tracing::debug!(%peer, "connection dropped before it was authenticated: {}", kind.as_str());
            kind
        }
    };
    shared.door.on_junk(junk, peer);
}

fn kind_of(error: &io::Error) -> Kind {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    match error.kind() {
        UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe => Kind::Left,
        TimedOut => Kind::Silent,
        _ => Kind::Garbage,
    }
}

/// None: it was a data channel, and is where it belongs.
async fn handshake(
    shared: &Arc<Shared>,
    settings: &Arc<Settings>,
    tcp: TcpStream,
    peer: SocketAddr,
    deadline: Instant,
) -> Result<Option<Newcomer>, Reject> {
    let mut stream = settings.acceptor.accept(tcp).await?;
    let mut hello = [0; Hello::LEN];
    stream.read_exact(&mut hello).await?;
    match on_hello(&hello)? {
        Opening::Control(digest) => control_channel(shared, stream, peer, digest, deadline).await.map(Some),
        Opening::Data(key) => data_channel(shared, settings, stream, key).map(|()| None),
    }
}

/// Hands a data channel to its service. Never waits.
fn data_channel(
    shared: &Shared,
    settings: &Settings,
    mut stream: Stream,
    key: SessionKey,
) -> Result<(), Reject> {
    let route = shared.registry.route(&key).ok_or(Reject::UnknownSession)?;
    stream.trust();
    let config = route.service.config;
    if config.nodelay != settings.config.tcp.nodelay {
        tcp::set_nodelay(stream.tcp(), config.nodelay);
    }
    let event = Event::Channel(route.session, stream);
    route.service.events.try_send(event).map_err(|_| Reject::Full(config.name.clone()))
}

async fn control_channel(
    shared: &Shared,
    mut stream: Stream,
    peer: SocketAddr,
    digest: ServiceDigest,
    deadline: Instant,
) -> Result<Newcomer, Reject> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| io::Error::other(format!("no random numbers: {error}")))?;
    let (challenge, expect_auth) = ExpectAuth::new(nonce);
    stream.write_all(&challenge).await?;
    stream.flush().await?;
    let mut auth = [0; Auth::LEN];
    stream.read_exact(&mut auth).await?;
    let service = shared.registry.service(&digest);
    let now = Instant::now().into_std();
    let tokens = service.iter().flat_map(|service| service.tokens.good(now));
    let proven = expect_auth.on_auth(&auth, tokens).map(|(key, token)| (key, token.clone()));
    match (proven, service) {
        (Ok((key, token)), Some(service)) => {
            stream.trust();
            Ok(Newcomer { stream, peer, digest, key, token, service })
        }
        (_, service) => {
            let delay = shared.door.on_failure(peer, service.as_ref().map(|service| &*service.config.name));
            sleep(within(delay, deadline)).await;
            refuse(stream).await?;
            Err(Reject::Auth)
        }
    }
}

/// A delay that leaves enough of the time until the deadline to write the answer.
fn within(delay: Duration, deadline: Instant) -> Duration {
    delay.min(deadline.saturating_duration_since(Instant::now()) * 3 / 4)
}

/// Says no; the caller closes.
pub async fn refuse(mut stream: Stream) -> io::Result<()> {
    stream.write_all(&Ack::AuthFailed.encode()).await?;
    stream.flush().await?;
    // An orderly end: with unread input a close could overtake the verdict.
    let _ = stream.shutdown().await;
    Ok(())
}

impl From<io::Error> for Reject {
    fn from(error: io::Error) -> Self {
        Reject::Io(error)
    }
}

impl From<Malformed> for Reject {
    fn from(error: Malformed) -> Self {
        Reject::Malformed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the future that such a function makes.
    fn size<A, B, C, D, F>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// A part of the number in docs/limits.md: what one connection costs before it has said anything. Each transport's
    /// handshake is an allocation of its own.
    #[test]
    fn a_stranger_s_task_is_small() {
        assert!(size(serve) <= 2048, "{}", size(serve));
    }
}
