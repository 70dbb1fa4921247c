//! One TCP service: visitors come in, data channels come in, the pool joins them.
//!
//! This task never waits for a peer: it accepts, asks the pool, and spawns. So no service can delay another.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::control::Demand;
use super::door::Door;
use super::listener::Listeners;
use super::pool::{Action, Pool, Why};
use super::registry::{Event, SessionId};
use super::visitor::{self, Visitor};
use crate::config::{ProxyProtocol, ServerService, TcpOptions};
use crate::counters::Counters;
use crate::tasks::Scope;
use crate::transport::{Stream, tcp};

/// A TCP service and its visitors.
pub struct TcpService {
    /// Its configuration.
    pub config: Arc<ServerService>,
    /// The header for its local service.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Options for its visitors' sockets.
    pub tcp: TcpOptions,
    /// How long a visitor waits.
    pub visitor_timeout: std::time::Duration,
    /// The server's counters.
    pub counters: Arc<Counters>,
    /// To return a visitor by. Weak: the service must end when all others have gone.
    pub events: mpsc::WeakSender<Event>,
    /// Where relays live: they outlast the service.
    pub relays: Scope,
    /// Where strangers can be dropped for visitors when descriptors are short.
    pub door: Arc<Door>,
}

impl TcpService {
    /// Serves until the scope drains. Visitors that still wait are reset.
    pub async fn run(self, mut listeners: Listeners, mut events: mpsc::Receiver<Event>, scope: Scope) {
        let mut pool = Pool::new(self.visitor_timeout, Instant::now());
        let mut client = None;
        loop {
            let deadline = pool.next_deadline();
            let actions = tokio::select! {
                biased;
                () = scope.draining() => break,
                Some(event) = events.recv() => self.on_event(event, &mut pool, &mut client),
                () = sleep_until(deadline) => pool.on_time(Instant::now()),
                // Last: however many come, those who wait have their deadline.
                (tcp, peer) = listeners.accept(&self.door) => {
                    tcp::set_options(&tcp, &self.tcp, self.config.nodelay);
                    let since = tokio::time::Instant::now();
                    pool.on_visitor(Visitor { tcp, peer, since, moves: 0 }, since.into_std())
                }
            };
            self.act(actions, &mut pool, &client);
        }
        drop(listeners);
        for visitor in pool.into_parts().0 {
            visitor.refuse(&self.config.name, &self.counters, "this server is stopping");
        }
    }

    fn on_event(
        &self,
        event: Event,
        pool: &mut Pool<Visitor, Stream>,
        client: &mut Option<(SessionId, Arc<Demand>)>,
    ) -> Vec<Action<Visitor, Stream>> {
        let now = Instant::now();
        match event {
            // Two handshakes may overtake each other on the way here; the registry's order counts.
            Event::ClientCame { session, .. }
                if client.as_ref().is_some_and(|(current, _)| *current > session) =>
            {
                Vec::new()
            }
            Event::ClientCame { session, demand, .. } => {
                *client = Some((session, demand));
                pool.on_client(now)
            }
            Event::ClientWent(session) if client.as_ref().is_some_and(|(current, _)| *current == session) => {
                *client = None;
                pool.on_client_gone(now)
            }
            Event::ClientWent(_) => Vec::new(),
            Event::Channel(session, channel)
                if client.as_ref().is_some_and(|(current, _)| *current == session) =>
            {
                pool.on_channel(channel, now)
            }
            Event::Channel(..) => Vec::new(),
            Event::Returned(visitor) => {
                let since = visitor.since.into_std();
                pool.on_returned(visitor, since, now)
            }
        }
    }

    fn act(
        &self,
        mut actions: Vec<Action<Visitor, Stream>>,
        pool: &mut Pool<Visitor, Stream>,
        client: &Option<(SessionId, Arc<Demand>)>,
    ) {
        // Dead channels found here lead to further actions; each removes a channel from the pool, so this ends.
        while let Some(action) = actions.pop() {
            match action {
                Action::Pair(visitor, channel) if is_dead(&channel) => {
                    tracing::debug!(service = %self.config.name, "an idle data channel had died");
                    let since = visitor.since.into_std();
                    actions.extend(pool.on_returned(visitor, since, Instant::now()));
                }
                Action::Pair(visitor, channel) => self.relays.spawn(visitor::serve(
                    visitor,
                    channel,
                    self.config.clone(),
                    self.proxy_protocol,
                    self.events.clone(),
                    self.counters.clone(),
                    self.relays.clone(),
                )),
                Action::Request(n) => {
                    if let Some((_, demand)) = client {
                        demand.add(n);
                    }
                }
                Action::Refuse(visitor, why) => {
                    if why == Why::Full {
                        tracing::warn!(service = %self.config.name, "visitor refused: too many wait already");
                    }
                    visitor.refuse(&self.config.name, &self.counters, why.as_str());
                }
                Action::Discard(channel) => drop(channel),
            }
        }
    }
}

/// Whether an idle channel has ended, or says something before it is asked: either way it is of no use.
fn is_dead(channel: &Stream) -> bool {
    let mut byte = [0];
    let mut peeked = tokio::io::ReadBuf::new(&mut byte);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    !channel.tcp().poll_peek(&mut cx, &mut peeked).is_pending()
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
