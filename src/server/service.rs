//! One TCP service: visitors come in, data channels come in, the pool joins them.
//!
//! This task never waits for a peer: it accepts, asks the pool, and spawns. So no service can delay another.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::budget::{Budget, Share};
use super::control::Demand;
use super::door::Door;
use super::idle::{ChannelId, IdleChannels, is_dead};
use super::listener::{Leaving, Listeners};
use super::pool::{self, Allowance, Pool, Settings, Why};
use super::refusals::{Line, Refusal, Refusals};
use super::registry::{Event, SessionId, Sockets};
use super::seats::Seats;
use super::until;
use super::visitor::{self, Visitor};
use crate::config::{self, ServerService, TcpOptions};
use crate::counters::Counters;
use crate::relay::Millis;
use crate::tasks::Scope;
use crate::transport::{Stream, tcp};

/// An idle channel is replaced when it is as old as this: many a device on the way forgets a silent connection in 4 minutes.
const AGE: Duration = Duration::from_secs(240);

/// With keepalive probes it is not silent, and if it was forgotten nevertheless the probes tell; still nothing is for ever.
/// (A client of 0.5.0 writes a warning whenever an idle channel is closed: not too often, then.)
const AGE_KEPT_ALIVE: Duration = Duration::from_secs(600);

/// Probes that come as often as this keep a connection alive.
const KEPT_ALIVE: Duration = Duration::from_secs(60);

type Action = pool::Action<Visitor, ChannelId>;

/// What a service is run by. It may be replaced whole while the service runs.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Its configuration.
    pub config: Arc<ServerService>,
    /// Options for its visitors' sockets.
    pub tcp: TcpOptions,
    /// How long a visitor waits.
    pub visitor_timeout: Duration,
}

impl Rules {
    /// For one of a server's services.
    pub fn new(server: &config::Server, config: Arc<ServerService>) -> Self {
        Rules { config, tcp: server.tcp, visitor_timeout: server.visitor_timeout }
    }

    fn settings(&self) -> Settings {
        Settings {
            visitor_timeout: self.visitor_timeout,
            max_waiting: self.config.limits.waiting,
            max_idle: self.config.limits.channels,
            age: if self.tcp.keepalive_idle <= KEPT_ALIVE { AGE_KEPT_ALIVE } else { AGE },
        }
    }
}

/// A TCP service and its visitors.
pub struct TcpService {
    /// What it is run by.
    pub rules: Rules,
    /// What all services share.
    pub budget: Arc<Budget>,
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
        let door = self.door.clone();
        let (idle, waiting) = (IdleChannels::new(self.budget.idle()), self.budget.waiting());
        let allowance = allowance(&self.budget, &idle, &waiting);
        let mut running = Running {
            pool: Pool::new(self.rules.settings(), allowance, fastrand::Rng::new(), Instant::now()),
            idle,
            waiting,
            client: None,
            seats: Seats::default(),
            refusals: Refusals::default(),
            leaving: VecDeque::new(),
            service: self,
        };
        loop {
            running.share();
            let deadline = running.next_deadline();
            let actions = tokio::select! {
                biased;
                () = scope.draining() => break,
                // Before what others bring: however much that is, deadlines are met.
                () = until(deadline.map(Into::into)) => running.on_time(),
                () = until(running.leaving.front().map(|(leaving, _)| leaving.until)) => {
                    running.left();
                    continue;
                }
                id = poll_fn(|cx| running.idle.poll_dead(cx)) => running.on_dead(id),
                Some(event) = events.recv() => match event {
                    Event::Listen(Sockets::Tcp(others), closed) => {
                        let former = std::mem::replace(&mut listeners, others);
                        running.leave(former.give_up(), closed);
                        continue;
                    }
                    event => running.on_event(event),
                },
                (tcp, peer) = listeners.accept(&door) => running.on_accept(tcp, peer),
            };
            running.act(actions);
        }
        drop(listeners);
        let Running { pool, service, mut refusals, .. } = running;
        for line in refusals.on_end() {
            tell(&service.rules.config.name, &line);
        }
        for visitor in pool.into_parts().0 {
            let why = if service.relays.is_draining() {
                "this server is stopping"
            } else {
                "the service was ended by a reload"
            };
            visitor.refuse(&service.rules.config.name, &service.counters, why);
        }
    }
}

struct Running {
    service: TcpService,
    pool: Pool<Visitor, ChannelId>,
    /// The channels that the pool knows by name.
    idle: IdleChannels,
    /// The share of those that wait in the pool.
    waiting: Share,
    client: Option<(SessionId, Arc<Demand>)>,
    seats: Seats,
    refusals: Refusals,
    /// Former listeners, the oldest first, and who is told when they are closed.
    leaving: VecDeque<(Leaving, oneshot::Sender<()>)>,
}

impl Running {
    /// Tells other services what this one has, and the pool what they leave.
    fn share(&mut self) {
        self.waiting.set(self.pool.waiting());
        self.pool.allow(allowance(&self.service.budget, &self.idle, &self.waiting));
    }

    fn next_deadline(&self) -> Option<Instant> {
        let pool = self.pool.next_deadline(Instant::now());
        [pool, self.refusals.next()].into_iter().flatten().min()
    }

    fn on_time(&mut self) -> Vec<Action> {
        let now = Instant::now();
        for line in self.refusals.on_time(now) {
            tell(&self.service.rules.config.name, &line);
        }
        self.pool.on_time(now)
    }

    /// Other rules from now on. Relays, and visitors that wait, are not sent away.
    fn configure(&mut self, rules: Rules) -> Vec<Action> {
        self.service.rules = rules;
        let settings = self.service.rules.settings();
        self.pool.configure(settings, Instant::now())
    }

    /// Whoever may not come is reset before anything is spent on it.
    fn on_accept(&mut self, tcp: TcpStream, peer: SocketAddr) -> Vec<Action> {
        let since = tokio::time::Instant::now();
        let config = &self.service.rules.config;
        let seat = match config.access.admits(peer.ip()) {
            true => self.seats.take(config.limits.visitors).ok_or(Refusal::Visitors),
            false => Err(Refusal::NotAllowed),
        };
        let seat = match seat {
            Ok(seat) => seat,
            Err(refusal) => {
                tcp::reset_on_drop(&tcp);
                self.refused(refusal, Some((peer, since)));
                return Vec::new();
            }
        };
        tcp::set_options(&tcp, &self.service.rules.tcp, config.nodelay);
        let until = since + self.service.rules.settings().longest_wait();
        let visitor = Visitor { tcp, peer, since, until, moves: 0, seat };
        self.pool.on_visitor(visitor, since.into_std())
    }

    /// The kernel would reset those who have connected, if the listeners were closed at once.
    fn leave(&mut self, leaving: Leaving, closed: oneshot::Sender<()>) {
        self.accept_all(&leaving);
        if leaving.until <= tokio::time::Instant::now() {
            // There were none. Who asked may have lost interest.
            let _ = closed.send(());
        } else {
            self.leaving.push_back((leaving, closed));
        }
    }

    fn left(&mut self) {
        if let Some((leaving, closed)) = self.leaving.pop_front() {
            self.accept_all(&leaving);
            drop(leaving);
            // Who asked may have lost interest.
            let _ = closed.send(());
        }
    }

    fn accept_all(&mut self, leaving: &Leaving) {
        for (tcp, peer) in leaving.take() {
            let actions = self.on_accept(tcp, peer);
            self.act(actions);
        }
    }

    /// An idle channel has died.
    fn on_dead(&mut self, id: ChannelId) -> Vec<Action> {
        tracing::debug!(service = %self.service.rules.config.name, "an idle data channel has died");
        self.pool.on_lost(&id, Instant::now())
    }

    fn on_event(&mut self, event: Event) -> Vec<Action> {
        let now = Instant::now();
        let current = self.client.as_ref().map(|(session, _)| *session);
        match event {
            // Two handshakes may overtake each other on the way here; the registry's order counts.
            Event::ClientCame { session, .. } if current.is_some_and(|current| current > session) => {
                Vec::new()
            }
            Event::ClientCame { session, demand, .. } => {
                self.client = Some((session, demand));
                self.pool.on_client(now)
            }
            // It may be that its coming was never told: it had taken the place of the one before.
            Event::ClientWent { session, .. } if current.is_some_and(|current| current <= session) => {
                self.client = None;
                self.pool.on_client_gone(now)
            }
            Event::ClientWent { .. } => Vec::new(),
            Event::Channel(session, channel) if current == Some(session) => {
                let id = self.idle.insert(channel);
                self.pool.on_channel(id, now)
            }
            Event::Channel(..) => Vec::new(),
            Event::Returned(visitor) if visitor.is_spent() => {
                self.refuse(visitor, Refusal::Failed);
                Vec::new()
            }
            Event::Returned(visitor) => {
                let since = visitor.since.into_std();
                self.pool.on_returned(visitor, since, now)
            }
            Event::Configured(rules) => self.configure(*rules),
            Event::Listen(..) => Vec::new(),
        }
    }

    fn act(&mut self, mut actions: Vec<Action>) {
        // What is found out here leads to further actions; each takes a visitor or a channel out of the pool, so this ends.
        while let Some(action) = actions.pop() {
            match action {
                Action::Pair(visitor, id) => {
                    if let Some(channel) = self.idle.take(id) {
                        actions.extend(self.join(visitor, channel));
                    }
                }
                Action::Request(n) => {
                    if let Some((_, demand)) = &self.client {
                        demand.add(n);
                    }
                }
                Action::Refuse(visitor, Why::NoClient) => self.refuse(visitor, Refusal::NoClient),
                Action::Refuse(visitor, Why::Timeout) => self.refuse(visitor, Refusal::Timeout),
                Action::Refuse(visitor, Why::Full) => self.refuse(visitor, Refusal::Waiting),
                Action::Refuse(visitor, Why::Crowded) => self.refuse(visitor, Refusal::WaitingInAll),
                Action::Discard(id) => drop(self.idle.take(id)),
                Action::Surplus(id) => {
                    drop(self.idle.take(id));
                    self.refused(Refusal::Channels, None);
                }
            }
        }
    }

    /// Joins the two, unless one of them is of no use any more.
    fn join(&mut self, visitor: Visitor, channel: Stream) -> Vec<Action> {
        let TcpService { rules, counters, events, relays, .. } = &self.service;
        let now = Instant::now();
        let may_come = rules.config.access.admits(visitor.peer.ip());
        if !may_come || visitor.is_gone() {
            // The channel is for another.
            if may_come {
                tracing::debug!(service = %rules.config.name, visitor = %visitor.peer, "visitor left while it waited");
            } else {
                self.refuse(visitor, Refusal::NotAllowed);
            }
            let id = self.idle.insert(channel);
            return self.pool.on_unspent(id, now);
        }
        if is_dead(&channel) {
            tracing::debug!(service = %rules.config.name, "a data channel had died before it was used");
            let since = visitor.since.into_std();
            return self.pool.on_dead(visitor, since, now);
        }
        relays.spawn(visitor::serve(
            visitor,
            channel,
            rules.config.clone(),
            events.clone(),
            counters.clone(),
            relays.clone(),
        ));
        Vec::new()
    }

    /// Resets a visitor.
    fn refuse(&mut self, visitor: Visitor, refusal: Refusal) {
        tcp::reset_on_drop(&visitor.tcp);
        self.refused(refusal, Some((visitor.peer, visitor.since)));
    }

    /// Counts, and tells of it, but not too often. `visitor`: where it is, and since when; else it is about a channel.
    fn refused(&mut self, refusal: Refusal, visitor: Option<(SocketAddr, tokio::time::Instant)>) {
        let TcpService { rules, counters, .. } = &self.service;
        let counter = match refusal {
            Refusal::NotAllowed => &counters.denied,
            Refusal::Visitors
            | Refusal::Waiting
            | Refusal::WaitingInAll
            | Refusal::Channels
            | Refusal::Flows => &counters.over_limit,
            Refusal::NoClient | Refusal::Timeout | Refusal::Failed => &counters.unserved,
        };
        Counters::add(counter, 1);
        let (name, reason) = (&rules.config.name, refusal.as_str());
        match visitor {
            Some((peer, since)) => tracing::debug!(
                target: "rathole::visitor",
                service = %name,
                visitor = %peer,
                duration = %Millis(since.elapsed()),
                reason,
                "visitor refused"
            ),
            None => tracing::debug!(service = %name, reason, "data channel closed"),
        }
        if let Some(line) = self.refusals.add(refusal, 1, Instant::now()) {
            tell(&rules.config.name, &line);
        }
    }
}

fn allowance(budget: &Budget, idle: &IdleChannels, waiting: &Share) -> Allowance {
    Allowance { at_first: budget.at_first(), idle: idle.allowed(), waiting: waiting.allowed() }
}

/// The line for what was refused since the last one.
pub fn tell(service: &str, Line { refusal, count }: &Line) {
    let reason = refusal.as_str();
    match refusal {
        Refusal::NotAllowed | Refusal::NoClient | Refusal::Timeout | Refusal::Failed => {
            tracing::info!(service = %service, count, reason, "visitors refused");
        }
        Refusal::Visitors | Refusal::Waiting | Refusal::WaitingInAll => {
            tracing::warn!(service = %service, count, reason, "visitors refused");
        }
        Refusal::Channels => tracing::warn!(service = %service, count, reason, "data channels closed"),
        Refusal::Flows => {
            tracing::warn!(service = %service, count, reason, "visitors pushed out by newer ones");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Access, Host, Limits, Secret, ServerKind};

    fn rules() -> Rules {
        let config = ServerService {
            name: "flooded".into(),
            bind_addr: config::Endpoint { host: Host::Ip([127, 0, 0, 1].into()), port: 0 },
            token: Secret::new("token".to_owned()),
            nodelay: true,
            kind: ServerKind::Tcp { proxy_protocol: None },
            limits: Limits::DEFAULT,
            access: Access::default(),
        };
        let tcp = TcpOptions::default();
        Rules { config: Arc::new(config), tcp, visitor_timeout: Duration::from_secs(1) }
    }

    fn listeners() -> Listeners {
        Listeners::new(vec![tcp::listen(([127, 0, 0, 1], 0).into()).unwrap()])
    }

    /// The queue is never empty: a reload that waits for the former listener's end must not wait for that.
    #[tokio::test]
    async fn a_flood_of_events_does_not_keep_a_former_listener_open() {
        let (sender, events) = mpsc::channel(1024);
        let (scope, counters) = (Scope::new(), Arc::new(Counters::default()));
        let service = TcpService {
            rules: rules(),
            budget: Arc::new(Budget::new(1)),
            counters: counters.clone(),
            events: sender.downgrade(),
            relays: scope.clone(),
            door: Arc::new(Door::new(counters)),
        };
        scope.spawn(service.run(listeners(), events, scope.clone()));
        let (done, mut closed) = oneshot::channel();
        sender.send(Event::Listen(Sockets::Tcp(listeners()), done)).await.unwrap();
        let begun = Instant::now();
        let mut flood = 0;
        while closed.try_recv().is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "not closed after {flood} events");
            while sender.try_send(Event::Configured(Box::new(rules()))).is_ok() {
                flood += 1;
            }
            tokio::task::yield_now().await;
        }
        assert!(flood > 2048, "{flood}");
        scope.cut();
        scope.ended().await;
    }
}
