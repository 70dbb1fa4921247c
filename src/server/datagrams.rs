//! One UDP service: all its visitors share the data channel of the client that is there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::control::Demand;
use super::refusals::{INTERVAL, Line, Refusal};
use super::registry::{Event, SessionId, Sockets};
use super::service::tell;
use super::until;
use crate::backoff::Backoff;
use crate::config::ServerService;
use crate::counters::Counters;
use crate::relay::{
    ChannelEnd, Door, FlowEnd, Millis, OnEnd, Tally, Terms, Turned, Visitors, drop_datagrams, serve_visitors,
};
use crate::tasks::Scope;
use crate::transport::Stream;
use crate::wire::DataCommand;

/// A client gives up on a data channel after 10 s (protocol-v1.md, section 5.1): then it is asked again.
const REQUEST_LIFE: Duration = Duration::from_secs(10);

/// Longest pause before a channel that has failed is asked for again: a client whose service is no UDP service at all
/// ends each one at once.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The first bytes of a channel fit into its socket's buffer: whose does not take them at once is dead. The service waits
/// for it.
const START_TIMEOUT: Duration = Duration::from_millis(500);

/// A UDP service.
pub struct UdpService {
    config: Arc<ServerService>,
    /// Drains when the whole server stops.
    server: Scope,
    counters: Arc<Counters>,
    door: Door,
}

/// The client that is there, and the channel it was asked for.
struct Client {
    session: SessionId,
    demand: Arc<Demand>,
    /// When to ask (again); None while its channel is in use.
    ask_at: Option<Instant>,
    /// Since when its channel is in use.
    started: Instant,
    backoff: Backoff,
}

impl Client {
    fn pause(&mut self) -> Duration {
        self.backoff.pause(self.started.elapsed(), fastrand::f64())
    }
}

impl UdpService {
    /// Not yet served.
    pub fn new(config: Arc<ServerService>, server: Scope, counters: Arc<Counters>) -> Self {
        let door = Door::new(terms(&config));
        UdpService { config, server, counters, door }
    }

    /// Who may come, and how many, is another matter from now on.
    fn configure(&self, config: &ServerService) {
        self.door.set(terms(config));
    }

    /// Serves on these sockets, one for each address, until the scope drains.
    pub async fn run(
        self,
        mut sockets: Vec<Arc<UdpSocket>>,
        mut events: mpsc::Receiver<Event>,
        scope: Scope,
    ) {
        let mut visitors = Visitors::new();
        let mut client: Option<Client> = None;
        let mut channel: Option<Stream> = None;
        let mut tell_from = Instant::now();
        // The client that is there, or was the last one.
        let mut peer = None;
        'serving: loop {
            if let Some(channel) = &channel {
                peer = channel.tcp().peer_addr().ok();
            }
            let mut on_end = |tally: Tally, end: FlowEnd| {
                if end == FlowEnd::PushedOut {
                    Counters::add(&self.counters.over_limit, 1);
                    self.door.turned_out();
                    // Whoever can send datagrams can forge sources, too: there is a line a minute for all of them.
                    return self.visitor_pushed_out(&tally);
                }
                self.visitor_ended(peer, &tally, &end.to_string());
            };
            let mut relay = Box::pin(self.relay(&sockets, channel.take(), &mut visitors, &mut on_end));
            channel = loop {
                let ask_at = client.as_ref().and_then(|client| client.ask_at);
                tokio::select! {
                    biased;
                    () = scope.draining() => break 'serving,
                    Some(event) = events.recv() => {
                        if let Event::Listen(Sockets::Udp(others), closed) = event {
                            drop(relay);
                            // What came to the former address is over: its visitors know no other.
                            for tally in std::mem::replace(&mut visitors, Visitors::new()).into_tallies() {
                                self.visitor_ended(peer, &tally, "the service's address was changed by a reload");
                            }
                            sockets = others;
                            // Who asked may have lost interest.
                            let _ = closed.send(());
                            if let Some(client) = &mut client {
                                client.ask_at = Some(Instant::now());
                            }
                            break None;
                        }
                        let revoked = matches!(event, Event::ClientWent { revoked: true, .. });
                        if let Some(channel) = self.on_event(event, &mut client).await {
                            break Some(channel);
                        }
                        // It serves all visitors, also those who come from now on.
                        if revoked && client.is_none() {
                            break None;
                        }
                    }
                    () = until(ask_at) => {
                        if let Some(client) = &mut client {
                            client.demand.add(1);
                            client.ask_at = Some(Instant::now() + REQUEST_LIFE);
                        }
                    }
                    turned = turned(&self.door, tell_from) => {
                        self.tell(turned);
                        tell_from = Instant::now() + INTERVAL;
                    }
                    ended = &mut relay => {
                        tracing::info!(service = %self.config.name, reason = %ended, "UDP data channel ended");
                        // Of an earlier client: this one was asked already.
                        if let Some(client) = client.as_mut().filter(|client| client.ask_at.is_none()) {
                            client.ask_at = Some(Instant::now() + client.pause());
                        }
                        break None;
                    }
                }
            };
        }
        self.tell(self.door.untold());
        for tally in visitors.into_tallies() {
            let why = if self.server.is_draining() {
                "cut by the stop of this server"
            } else {
                "the service was ended by a reload"
            };
            self.visitor_ended(peer, &tally, why);
        }
    }

    /// A channel, if one came that takes the place of the present one.
    async fn on_event(&self, event: Event, client: &mut Option<Client>) -> Option<Stream> {
        match event {
            Event::ClientCame { session, demand, .. } => {
                if client.as_ref().is_none_or(|current| current.session < session) {
                    let (now, backoff) = (Instant::now(), Backoff::new(LONGEST_PAUSE));
                    *client = Some(Client { session, demand, ask_at: Some(now), started: now, backoff });
                }
            }
            // The channel, if it lives, goes on until it ends or another takes its place.
            Event::ClientWent { session, .. } => {
                if client.as_ref().is_some_and(|current| current.session <= session) {
                    *client = None;
                }
            }
            Event::Channel(session, stream) => match client {
                Some(client) if client.session == session && client.ask_at.is_some() => {
                    let started = start(stream).await?;
                    client.ask_at = None;
                    client.started = Instant::now();
                    return Some(started);
                }
                _ => tracing::debug!(service = %self.config.name, "surplus UDP data channel closed"),
            },
            Event::Configured(rules) => self.configure(&rules.config),
            Event::Returned(_) | Event::Listen(..) => {}
        }
        None
    }

    /// Relays over the channel until it ends; without one, datagrams are discarded, so that none waits and grows old.
    async fn relay(
        &self,
        sockets: &[Arc<UdpSocket>],
        channel: Option<Stream>,
        visitors: &mut Visitors,
        on_end: OnEnd<'_>,
    ) -> ChannelEnd {
        let UdpService { counters, door, .. } = self;
        match channel {
            Some(channel) => serve_visitors(channel, sockets, visitors, door, counters, on_end).await,
            None => match drop_datagrams(sockets, visitors, door, counters, on_end).await {},
        }
    }

    /// What was refused since the last line.
    fn tell(&self, turned: Turned) {
        for (refusal, count) in [(Refusal::NotAllowed, turned.away), (Refusal::Flows, turned.out)] {
            if count > 0 {
                tell(&self.config.name, &Line { refusal, count });
            }
        }
    }

    fn visitor_pushed_out(&self, tally: &Tally) {
        let (service, visitor) = (&self.config.name, tally.visitor);
        tracing::debug!(target: "rathole::visitor", %service, %visitor, "visitor pushed out by newer ones");
    }

    fn visitor_ended(&self, peer: Option<SocketAddr>, tally: &Tally, reason: &str) {
        tracing::info!(
            target: "rathole::visitor",
            service = %self.config.name,
            visitor = %tally.visitor,
            peer = peer.map(tracing::field::display),
            bytes = tally.up + tally.down,
            up = tally.up,
            down = tally.down,
            duration = %Millis(tally.duration()),
            reason,
            "visitor ended"
        );
    }
}

/// Who may use a service, for the relay of its datagrams.
fn terms(config: &ServerService) -> Terms {
    Terms { access: config.access.clone(), most: config.limits.visitors }
}

/// Waits for something that was refused, but not before then.
async fn turned(door: &Door, from: Instant) -> Turned {
    sleep_until(from).await;
    door.turned().await
}

/// Tells the client to begin; None if the channel was dead.
async fn start(mut channel: Stream) -> Option<Stream> {
    let started = timeout(START_TIMEOUT, async {
        channel.write_all(&DataCommand::StartForwardUdp.encode()).await?;
        channel.flush().await
    });
    match started.await {
        Ok(Ok(())) => Some(channel),
        _ => None,
    }
}
