//! One accepted connection, from accept until it is known for a control or a data channel.
//!
//! All of it happens in the connection's own task under one deadline; nobody else waits for it. An unknown service
//! and a wrong token are told in the same way: after Auth, Ack=2.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::control::{self, Demand};
use super::registry::{Event, Service, SessionId};
use super::{Settings, Shared};
use crate::counters::Counters;
use crate::tasks::Scope;
use crate::transport::{Stream, liveness, tcp};
use crate::wire::handshake::{ExpectAuth, Opening, on_hello};
use crate::wire::{Ack, Auth, Hello, Malformed, ServiceDigest, SessionKey};

/// How a handshake ends without a channel.
#[derive(Debug)]
enum Reject {
    /// The connection broke, or the transport's handshake failed.
    Io(io::Error),
    /// Not our protocol.
    Malformed(Malformed),
    /// Wrong token for this service; None: there is no such service.
    Auth(Option<Arc<str>>),
    /// No session has this key.
    UnknownSession,
    /// The service has more data channels waiting than it can hold.
    Full,
    /// No handshake in time.
    Timeout,
}

/// Takes a connection through its handshake and hands it on. Never fails: what goes wrong is logged and counted.
pub async fn serve(shared: Arc<Shared>, tcp: TcpStream, peer: SocketAddr) {
    let settings = shared.settings();
    let config = &settings.config;
    tcp::set_options(&tcp, &config.tcp, config.tcp.nodelay);
    let outcome = timeout(config.handshake_timeout, handshake(&shared, &settings, tcp, peer)).await;
    let reject = match outcome {
        Ok(Ok(())) => return,
        Ok(Err(reject)) => reject,
        Err(_) => Reject::Timeout,
    };
    Counters::add(&shared.counters.rejected, 1);
    match reject {
        Reject::Auth(service) => log_failure(&shared, peer, service.as_deref()),
        Reject::Io(error) => tracing::debug!(%peer, %error, "connection lost before it was authenticated"),
        Reject::Malformed(error) => tracing::debug!(%peer, %error, "connection refused"),
        Reject::UnknownSession => tracing::debug!(%peer, "data channel refused: no session has its key"),
        Reject::Full => tracing::warn!(%peer, "data channel refused: too many are waiting to be taken"),
        Reject::Timeout => tracing::debug!(%peer, "connection refused: no handshake in time"),
    }
}

/// Told at once if the address is new; else it is counted, and told later together with others.
fn log_failure(shared: &Shared, peer: SocketAddr, service: Option<&str>) {
    let why = if service.is_some() { "wrong token" } else { "no service of this name" };
    let service = service.map(tracing::field::display);
    let line = shared.strangers().on_failure(peer.ip(), std::time::Instant::now());
    shared.stranger_came.notify_one();
    match line {
        Some(_) => tracing::info!(service, %peer, "authentication failed: {why}"),
        None => tracing::debug!(service, %peer, "authentication failed: {why}"),
    }
}

async fn handshake(
    shared: &Arc<Shared>,
    settings: &Arc<Settings>,
    tcp: TcpStream,
    peer: SocketAddr,
) -> Result<(), Reject> {
    let mut stream = settings.acceptor.accept(tcp).await?;
    let mut hello = [0; Hello::LEN];
    stream.read_exact(&mut hello).await?;
    match on_hello(&hello)? {
        Opening::Control(digest) => control_channel(shared, settings, stream, peer, digest).await,
        Opening::Data(key) => data_channel(shared, settings, stream, key),
    }
}

/// Hands a data channel to its service. Never waits.
fn data_channel(shared: &Shared, settings: &Settings, stream: Stream, key: SessionKey) -> Result<(), Reject> {
    let route = shared.registry.route(&key).ok_or(Reject::UnknownSession)?;
    let nodelay = route.service.config.nodelay;
    if nodelay != settings.config.tcp.nodelay {
        tcp::set_nodelay(stream.tcp(), nodelay);
    }
    let event = Event::Channel(route.session, stream);
    route.service.events.try_send(event).map_err(|_| Reject::Full)
}

async fn control_channel(
    shared: &Arc<Shared>,
    settings: &Arc<Settings>,
    mut stream: Stream,
    peer: SocketAddr,
    digest: ServiceDigest,
) -> Result<(), Reject> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| io::Error::other(format!("no random numbers: {error}")))?;
    let (challenge, expect_auth) = ExpectAuth::new(nonce);
    stream.write_all(&challenge).await?;
    stream.flush().await?;
    let mut auth = [0; Auth::LEN];
    stream.read_exact(&mut auth).await?;
    let service = shared.registry.service(&digest);
    let verdict = expect_auth.on_auth(&auth, service.as_ref().map(|service| &service.config.token));
    let (key, service) = match (verdict, service) {
        (Ok(key), Some(service)) => (key, service),
        (Err(ack), service) => return refuse(stream, ack, service).await,
        (Ok(_), None) => return refuse(stream, Ack::AuthFailed, None).await,
    };
    let scope = service.scope.child();
    let (session, replaced) = shared.registry.begin(digest, key, service.clone(), peer, scope.clone());
    let begun =
        Begun { shared: shared.clone(), settings: settings.clone(), digest, key, session, service, peer };
    let name = &begun.service.config.name;
    match replaced {
        Some(old) => {
            tracing::warn!(service = %name, peer = %peer, replaced = %old, "client replaced another")
        }
        None => tracing::info!(service = %name, peer = %peer, "client connected"),
    }
    tcp::set_nodelay(stream.tcp(), true);
    let config = &settings.config;
    liveness::watch_heartbeats(stream.tcp(), &config.tcp, config.heartbeat_interval);
    // From here on the channel has a task of its own: the handshake's future is large, and its deadline is met.
    let owner = scope.clone();
    scope.spawn(async move { begun.serve(stream, owner).await });
    Ok(())
}

/// Says no; the caller closes.
async fn refuse(mut stream: Stream, ack: Ack, service: Option<Service>) -> Result<(), Reject> {
    stream.write_all(&ack.encode()).await?;
    stream.flush().await?;
    // An orderly end: with unread input a close could overtake the verdict.
    let _ = stream.shutdown().await;
    Err(Reject::Auth(service.map(|service| service.config.name.clone())))
}

/// A session from Ack to the end of its control channel.
struct Begun {
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    digest: ServiceDigest,
    key: SessionKey,
    session: SessionId,
    service: Service,
    peer: SocketAddr,
}

impl Begun {
    async fn serve(self, stream: Stream, scope: Scope) {
        let (name, peer) = (&self.service.config.name, self.peer);
        let connected = self.shared.counters.connected();
        tokio::select! {
            end = self.until_end(stream) => {
                tracing::info!(service = %name, %peer, reason = %end, "client lost");
            }
            () = scope.draining() => tracing::debug!(service = %name, %peer, "control channel closed by this server"),
        }
        drop(connected);
        self.shared.registry.end(&self.digest, &self.key, self.session);
        // A service that is gone needs not to know.
        let _ = self.service.events.send(Event::ClientWent(self.session)).await;
    }

    async fn until_end(&self, mut stream: Stream) -> control::End {
        let demand = Arc::new(Demand::default());
        // The service learns of the session before any of its data channels can come.
        let came = Event::ClientCame { session: self.session, demand: demand.clone() };
        if self.service.events.send(came).await.is_err() {
            return control::End::Failed(io::Error::other("the service is gone"));
        }
        let acknowledged = timeout(self.settings.config.handshake_timeout, async {
            stream.write_all(&Ack::Ok.encode()).await?;
            stream.flush().await
        });
        match acknowledged.await {
            Ok(Ok(())) => control::serve(stream, &demand, self.settings.config.heartbeat_interval).await,
            Ok(Err(error)) => control::End::Failed(error),
            Err(_) => control::End::Failed(io::ErrorKind::TimedOut.into()),
        }
    }
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
