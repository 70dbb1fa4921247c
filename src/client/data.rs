//! One data channel: dial, say whose it is, wait for a visitor, connect to the local service, relay.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use super::limits::{Limits, Place, Request};
use super::{Settings, Shared, Wanted};
use crate::backoff::Backoff;
use crate::config::{ClientKind, ClientService, diff};
use crate::counters::Counters;
use crate::latest::Latest;
use crate::relay::{FlowEnd, Locals, Millis, Relay, Side, Tally, serve_local};
use crate::tasks::Scope;
use crate::transport::{Stream, tcp};
use crate::wire::{DataCommand, Hello, SessionKey};

/// The server must be reached within this time (protocol-v1.md, section 5.1).
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest pause between two attempts to reach the server.
const DIAL_PAUSE: Duration = Duration::from_secs(2);

/// An idle channel outlives its session by this: the server, which closes idle channels itself when it sees the session's
/// end, may have given it to a visitor just before.
const LAST_CALL: Duration = Duration::from_secs(1);

/// The local service must answer within this time.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A request of the server, and all it takes to fulfil it.
pub struct Channel {
    /// The client.
    pub shared: Arc<Shared>,
    /// For which service, and how it is now.
    pub wanted: Latest<Wanted>,
    /// How the server is reached; by the settings of now, if that is the same way.
    pub settings: Arc<Settings>,
    /// What the channel presents.
    pub key: SessionKey,
    /// Where the control channel is connected.
    pub server: SocketAddr,
    /// What the session's channels share.
    pub limits: Arc<Limits>,
}

impl Channel {
    /// Fulfils the request. Until a visitor comes the channel ends with its session.
    pub async fn serve(self, request: Request, session: Scope) {
        let started = tokio::select! {
            started = self.wait_for_visitor(request, &session) => started,
            () = self.shared.relays.cutting() => return,
        };
        let (stream, command) = match started {
            Ok(Some(started)) => started,
            // The server closed an idle channel, or its session is over.
            Ok(None) => return,
            Err(error) => return self.complain(&error),
        };
        drop(session);
        // As it is now: it may be another than when the channel was dialled.
        let wanted = self.wanted();
        match (command, wanted.service.kind) {
            (DataCommand::StartForwardTcp, ClientKind::Tcp) => {
                serve_visitor(self.shared, wanted, stream).await;
            }
            (DataCommand::StartForwardUdp, ClientKind::Udp { prefer_ipv6 }) => {
                serve_datagrams(self.shared, self.wanted, wanted.service, stream, prefer_ipv6).await;
            }
            (DataCommand::StartForwardTcp, ClientKind::Udp { .. }) => self.mismatch("tcp", "udp"),
            (DataCommand::StartForwardUdp, ClientKind::Tcp) => self.mismatch("udp", "tcp"),
        }
    }

    fn wanted(&self) -> Wanted {
        self.wanted.get()
    }

    /// Waits for its turn, dials, and waits for the server's first word; None if the channel is not wanted any more.
    async fn wait_for_visitor(
        &self,
        request: Request,
        session: &Scope,
    ) -> io::Result<Option<(Stream, DataCommand)>> {
        let dialled = async {
            let Place { dial, idle } = self.limits.turn(request).await?;
            // Boxed: the dial's future is large and short-lived; those that wait, and the relay's, are small.
            let stream = Box::pin(self.dial()).await;
            drop(dial);
            Some((idle, stream))
        };
        let (_idle, mut stream) = tokio::select! {
            dialled = dialled => match dialled {
                Some((idle, stream)) => (idle, stream?),
                None => return Ok(None),
            },
            () = session.draining() => return Ok(None),
        };
        // Whatever becomes of an idle channel, a visitor that was given to it must not take it for an empty answer.
        stream.reset_on_drop();
        let mut command = [0; DataCommand::LEN];
        let read = tokio::select! {
            read = stream.read_exact(&mut command) => read,
            () = over(session) => return Ok(None),
        };
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => {
                let name = self.wanted().service.name.clone();
                tracing::debug!(service = %name, %error, "idle data channel lost");
                return Ok(None);
            }
        }
        let command = DataCommand::decode(&command)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some((stream, command)))
    }

    /// To where the control channel is, not to another address of the server's name: that may be another server, which
    /// knows nothing of this session. Should the address die, so will the control channel, and the next one resolves
    /// the name again.
    async fn dial(&self) -> io::Result<Stream> {
        let deadline = Instant::now() + DIAL_TIMEOUT;
        let mut backoff = Backoff::new(DIAL_PAUSE);
        loop {
            let Wanted { service, settings } = self.wanted();
            let settings = if diff::other_way(&settings.config, &self.settings.config) {
                &self.settings
            } else {
                &settings
            };
            let attempt = async {
                let mut stream = settings.connector.connect(&[self.server], service.nodelay).await?;
                stream.write_all(&Hello::Data(self.key).encode()).await?;
                stream.flush().await?;
                Ok::<_, io::Error>(stream)
            };
            let error = match timeout_at(deadline, attempt).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => error,
                Err(_) => io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s"),
            };
            let pause = backoff.pause(Duration::ZERO, fastrand::f64());
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            tracing::debug!(service = %service.name, server = %self.server, %error, "cannot dial, trying again");
            sleep(pause).await;
        }
    }

    /// One line for many failures: a server or a firewall that lets no data channel through fails each of them.
    fn complain(&self, error: &io::Error) {
        if let Some(failures) = self.limits.complain(Instant::now().into_std()) {
            let (service, server) = (self.wanted().service, self.server);
            tracing::warn!(
                service = %service.name, %server, %error, failures,
                "no data channel to the server, though it has a control channel: visitors wait in vain"
            );
        }
    }

    fn mismatch(&self, server: &str, client: &str) {
        if self.limits.complain(Instant::now().into_std()).is_some() {
            tracing::error!(
                service = %self.wanted().service.name,
                "the server's service is of type {server}, this client's of type {client}: make both the same"
            );
        }
    }
}

/// Completes when a session has been over for so long that no visitor can be on its way to an idle channel.
async fn over(session: &Scope) {
    session.draining().await;
    sleep(LAST_CALL).await;
}

async fn serve_visitor(shared: Arc<Shared>, wanted: Wanted, stream: Stream) {
    let Wanted { service, settings } = wanted;
    let since = Instant::now();
    let server = stream.tcp().peer_addr().ok();
    let running = shared.counters.running();
    let connected = tokio::select! {
        connected = Box::pin(connect_local(&service)) => connected,
        () = shared.relays.cutting() => return,
    };
    let local = match connected {
        Ok(local) => local,
        Err(error) => {
            log_unreachable(&shared, &service, &error);
            // The channel is reset when it is dropped: the visitor gets what it would get from the service itself.
            return;
        }
    };
    tcp::set_options(&local, &settings.config.tcp, service.nodelay);
    drop(settings);
    Counters::add(&shared.counters.visitors, 1);
    let mut relay = Relay::new(stream, local, Side::Client, since, shared.counters.clone());
    let reason = tokio::select! {
        reason = relay.run() => reason.to_string(),
        () = shared.relays.cutting() => {
            relay.cut();
            "cut by the stop of this client".to_owned()
        }
    };
    drop(running);
    log_end(&service, None, server, (relay.up(), relay.down()), since.elapsed(), &reason);
}

async fn connect_local(service: &ClientService) -> io::Result<TcpStream> {
    let connect = async { tcp::connect(&tcp::resolve(&service.local_addr).await?).await };
    timeout_at(Instant::now() + LOCAL_TIMEOUT, connect)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s")))
}

async fn serve_datagrams(
    shared: Arc<Shared>,
    mut wanted: Latest<Wanted>,
    service: Arc<ClientService>,
    stream: Stream,
    prefer_ipv6: bool,
) {
    let peer = stream.tcp().peer_addr().ok();
    let log = |tally: &Tally, reason: &str| {
        let moved = (tally.up, tally.down);
        log_end(&service, Some(tally.visitor), peer, moved, tally.duration(), reason);
    };
    let mut on_end = |tally: Tally, end: FlowEnd| match end {
        // Whoever can send datagrams can forge sources, too.
        FlowEnd::PushedOut => {
            let (service, visitor) = (&service.name, tally.visitor);
            tracing::debug!(target: "rathole::visitor", %service, %visitor, "visitor pushed out by newer ones");
        }
        end => log(&tally, &end.to_string()),
    };
    let mut locals = Locals::new(&service.local_addr, prefer_ipv6, &shared.counters, &mut on_end);
    let reason = tokio::select! {
        biased;
        // Datagrams have no end to wait for.
        () = shared.relays.draining() => "cut by the stop of this client".to_owned(),
        ended = serve_local(stream, &mut locals) => {
            tracing::info!(service = %service.name, reason = %ended, "UDP data channel ended");
            ended.to_string()
        }
        // The server is told by the channel's end, and asks for another.
        () = moved(&mut wanted, &service) => "the service was changed by a reload".to_owned(),
    };
    for tally in locals.into_tallies() {
        log(&tally, &reason);
    }
}

/// Completes when datagrams are led elsewhere, or the service is gone.
async fn moved(wanted: &mut Latest<Wanted>, service: &ClientService) {
    let same = |wanted: &Wanted| {
        wanted.service.local_addr == service.local_addr && wanted.service.kind == service.kind
    };
    // Its source may be gone: nobody wants the service any more.
    wanted.until(|wanted| !same(wanted)).await;
}

/// A line for the first visitor, then one a minute: each visitor may make some.
fn log_unreachable(shared: &Shared, service: &ClientService, error: &io::Error) {
    let ClientService { name, local_addr: local, .. } = service;
    let lines =
        shared.unreachable().add(&format_args!("{name} {error}"), name, false, std::time::Instant::now());
    if lines.this || lines.before.is_some() {
        let visitors = lines.before.map_or(1, |before| before.attempts);
        tracing::warn!(service = %name, %local, %error, visitors, "local service unreachable");
    } else {
        tracing::debug!(service = %name, %local, %error, "local service unreachable");
    }
}

/// The line for each ended visitor. Its address is known for UDP only; `peer` is the server, `moved` is up and down.
fn log_end(
    service: &ClientService,
    visitor: Option<SocketAddr>,
    peer: Option<SocketAddr>,
    moved: (u64, u64),
    duration: Duration,
    reason: &str,
) {
    let (up, down) = moved;
    tracing::info!(
        target: "rathole::visitor",
        service = %service.name,
        visitor = visitor.map(tracing::field::display),
        peer = peer.map(tracing::field::display),
        bytes = up + down,
        up,
        down,
        duration = %Millis(duration),
        reason,
        "visitor ended"
    );
}
