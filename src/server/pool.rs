//! Which visitor gets which data channel. Pure: values in, actions out, `now` an argument.
//!
//! Invariants: a visitor is either waiting here or handed out in exactly one action; the same for a channel;
//! visitors are served in the order they came; no visitor waits beyond its deadline, nor while a channel is idle; while
//! a client is there and may be asked, as many channels are idle or asked for as visitors wait and the [`Stock`] wants;
//! no idle channel is older than [`Settings::age`] and the time for its replacement; everything held is bounded.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::requests::{EARLY, Requests};
use super::stock::Stock;

/// The longest wait of a visitor when `visitor_timeout` is 0: that speaks only of waiting for a client.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// Channels that came together are not replaced together: each is given up to this part less of its age.
const AGE_SPREAD: f64 = 0.25;

/// An old channel is kept until its replacement has come, but not longer than this.
pub const OVERTIME: Duration = Duration::from_secs(30);

/// How often it is looked whether there are more idle channels than are wanted any more.
const TRIM: Duration = Duration::from_secs(15);

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<V, C> {
    /// Join the two.
    Pair(V, C),
    /// Ask the client for this many channels.
    Request(usize),
    /// Reset the visitor.
    Refuse(V, Why),
    /// Close the channel: it is old, or there are enough.
    Discard(C),
    /// Close the channel: there are as many as there may be.
    Surplus(C),
}

/// Why a visitor is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No client is there, nor was one recently.
    NoClient,
    /// No channel came in time.
    Timeout,
    /// Too many wait already.
    Full,
    /// Too many wait for all services together.
    Crowded,
}

/// What the configuration says. It may change at any time.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long a visitor waits for a client that is not there; 0: not at all.
    pub visitor_timeout: Duration,
    /// Visitors that may wait.
    pub max_waiting: usize,
    /// Channels that may be idle.
    pub max_idle: usize,
    /// An idle channel is replaced when it is as old as this, or a little sooner.
    pub age: Duration,
}

impl Settings {
    /// How long a visitor waits for a data channel.
    pub fn longest_wait(&self) -> Duration {
        if self.visitor_timeout.is_zero() { DEFAULT_WAIT } else { self.visitor_timeout }
    }
}

/// What other services leave to this one. It may change at any time.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// Channels that a new client is asked for; 0: none before somebody visits.
    pub at_first: usize,
    /// Channels that may be kept in store.
    pub idle: usize,
    /// Visitors that may wait.
    pub waiting: usize,
}

#[derive(Debug)]
struct Waiting<V> {
    visitor: V,
    until: Instant,
    /// Since when it stands in this line.
    since: Instant,
}

#[derive(Debug)]
struct Idle<C> {
    channel: C,
    came: Instant,
    /// When another is asked for in its place.
    renew: Instant,
}

/// The visitors and channels of one service. Channels are named by something that is cheap to compare.
#[derive(Debug)]
pub struct Pool<V, C> {
    settings: Settings,
    /// Whether a client is there, else since when there is none.
    client: Presence,
    /// In the order of their deadlines, which is the order in which they came.
    waiting: VecDeque<Waiting<V>>,
    /// In the order in which they are to be replaced.
    idle: VecDeque<Idle<C>>,
    requests: Requests,
    stock: Stock,
    allowance: Allowance,
    trim_at: Instant,
    random: fastrand::Rng,
}

#[derive(Debug, Clone, Copy)]
enum Presence {
    Here,
    GoneSince(Instant),
}

impl<V, C: PartialEq> Pool<V, C> {
    /// No client, no visitor: as after a start at `now`. `random` spreads the ages of channels.
    pub fn new(settings: Settings, allowance: Allowance, random: fastrand::Rng, now: Instant) -> Self {
        Pool {
            settings,
            client: Presence::GoneSince(now),
            waiting: VecDeque::new(),
            idle: VecDeque::new(),
            requests: Requests::new(now),
            stock: Stock::new(allowance.at_first, now),
            allowance,
            trim_at: now,
            random,
        }
    }

    /// Other settings from now on. Who waits already goes on waiting, but not longer than a visitor that comes now.
    pub fn configure(&mut self, settings: Settings, now: Instant) -> Vec<Action<V, C>> {
        self.settings = settings;
        let latest = now + settings.longest_wait();
        self.waiting.iter_mut().for_each(|waiting| waiting.until = waiting.until.min(latest));
        let mut actions = Vec::new();
        if matches!(self.client, Presence::GoneSince(_)) && settings.visitor_timeout.is_zero() {
            self.refuse_all(&mut actions);
        }
        let surplus = self.idle.len().saturating_sub(settings.max_idle);
        actions.extend(self.idle.drain(..surplus).map(|idle| Action::Surplus(idle.channel)));
        self.top_up(now, &mut actions);
        actions
    }

    /// Other services leave so much. Obeyed when the next thing happens; channels that are too many are closed in a
    /// while, visitors stay.
    pub fn allow(&mut self, allowance: Allowance) {
        self.allowance = allowance;
        self.stock.set_at_first(allowance.at_first);
    }

    /// Visitors that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A client was authenticated, perhaps in another's place: its predecessor's channels are of no use.
    pub fn on_client(&mut self, now: Instant) -> Vec<Action<V, C>> {
        self.client = Presence::Here;
        self.requests = Requests::new(now);
        self.stock.on_client(now);
        let mut actions = self.discard_all();
        self.top_up(now, &mut actions);
        actions
    }

    /// The client is gone. Visitors go on waiting for its return, unless there is no such wait.
    pub fn on_client_gone(&mut self, now: Instant) -> Vec<Action<V, C>> {
        self.client = Presence::GoneSince(now);
        self.requests = Requests::new(now);
        let mut actions = self.discard_all();
        if self.settings.visitor_timeout.is_zero() {
            self.refuse_all(&mut actions);
        }
        actions
    }

    /// A visitor came.
    pub fn on_visitor(&mut self, visitor: V, now: Instant) -> Vec<Action<V, C>> {
        let wait = match self.client {
            Presence::Here => self.settings.longest_wait(),
            Presence::GoneSince(since)
                if now.saturating_duration_since(since) >= self.settings.visitor_timeout =>
            {
                return vec![Action::Refuse(visitor, Why::NoClient)];
            }
            Presence::GoneSince(_) => self.settings.visitor_timeout,
        };
        if self.waiting.len() >= self.settings.max_waiting {
            return vec![Action::Refuse(visitor, Why::Full)];
        }
        if self.waiting.len() >= self.allowance.waiting && self.idle.is_empty() {
            return vec![Action::Refuse(visitor, Why::Crowded)];
        }
        self.stock.on_visitor(now);
        self.waiting.push_back(Waiting { visitor, until: now + wait, since: now });
        self.settle(now)
    }

    /// A visitor that came at `came`, whose channel failed before any of its bytes was written, takes its place in line
    /// again.
    pub fn on_returned(&mut self, visitor: V, came: Instant, now: Instant) -> Vec<Action<V, C>> {
        if matches!(self.client, Presence::GoneSince(_)) && self.settings.visitor_timeout.is_zero() {
            return vec![Action::Refuse(visitor, Why::NoClient)];
        }
        let until = came + self.settings.longest_wait();
        if now >= until {
            return vec![Action::Refuse(visitor, Why::Timeout)];
        }
        let place = self.waiting.partition_point(|other| other.until < until);
        self.waiting.insert(place, Waiting { visitor, until, since: now });
        self.settle(now)
    }

    /// Like [`Pool::on_returned`], of a visitor whose channel was found dead when the two were joined.
    pub fn on_dead(&mut self, visitor: V, came: Instant, now: Instant) -> Vec<Action<V, C>> {
        self.requests.on_early_death(now);
        self.on_returned(visitor, came, now)
    }

    /// A data channel came.
    pub fn on_channel(&mut self, channel: C, now: Instant) -> Vec<Action<V, C>> {
        self.requests.on_channel(now);
        self.add(channel, now)
    }

    /// A channel comes back whose visitor had gone before they were joined.
    pub fn on_unspent(&mut self, channel: C, now: Instant) -> Vec<Action<V, C>> {
        self.add(channel, now)
    }

    /// An idle channel has died. If it is not idle any more, that is another's business.
    pub fn on_lost(&mut self, channel: &C, now: Instant) -> Vec<Action<V, C>> {
        let place = self.idle.iter().position(|idle| idle.channel == *channel);
        let mut actions = Vec::new();
        if let Some(idle) = place.and_then(|place| self.idle.remove(place)) {
            if now < idle.came + EARLY {
                self.requests.on_early_death(now);
            }
            actions.push(Action::Discard(idle.channel));
            self.top_up(now, &mut actions);
        }
        actions
    }

    /// Time has passed.
    pub fn on_time(&mut self, now: Instant) -> Vec<Action<V, C>> {
        let late = self.waiting.partition_point(|waiting| waiting.until <= now);
        let why = match self.client {
            Presence::Here => Why::Timeout,
            Presence::GoneSince(_) => Why::NoClient,
        };
        let mut actions: Vec<_> =
            self.waiting.drain(..late).map(|waiting| Action::Refuse(waiting.visitor, why)).collect();
        let old = self.idle.partition_point(|idle| idle.renew + OVERTIME <= now);
        actions.extend(self.idle.drain(..old).map(|idle| Action::Discard(idle.channel)));
        if self.trim_at <= now {
            let surplus = self.idle.len().saturating_sub(self.target(now));
            actions.extend(self.idle.drain(..surplus).map(|idle| Action::Discard(idle.channel)));
            self.trim_at = now + TRIM;
        }
        self.top_up(now, &mut actions);
        actions
    }

    /// When [`Pool::on_time`] is next of use.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let visitor = self.waiting.front().map(|waiting| waiting.until);
        let request = match self.client {
            Presence::Here => self.requests.next(self.waiting_since(), self.missing(now) > 0, now),
            Presence::GoneSince(_) => None,
        };
        let renewal = self.idle.get(self.old(now)).map(|idle| idle.renew);
        let overtime = self.idle.front().map(|idle| idle.renew + OVERTIME);
        let trim = (self.idle.len() > self.stock.least().min(self.allowance.idle)).then_some(self.trim_at);
        [visitor, request, renewal, overtime, trim].into_iter().flatten().min()
    }

    /// Gives up all: at the end of the service.
    pub fn into_parts(self) -> (impl Iterator<Item = V>, impl Iterator<Item = C>) {
        let visitors = self.waiting.into_iter().map(|waiting| waiting.visitor);
        (visitors, self.idle.into_iter().map(|idle| idle.channel))
    }

    fn add(&mut self, channel: C, now: Instant) -> Vec<Action<V, C>> {
        let renew = now + self.settings.age.mul_f64(1.0 - AGE_SPREAD * self.random.f64());
        let place = self.idle.partition_point(|idle| idle.renew <= renew);
        self.idle.insert(place, Idle { channel, came: now, renew });
        if self.trim_at <= now {
            // What comes late is kept for a moment: it may be wanted yet.
            self.trim_at = now + TRIM;
        }
        let mut actions = self.settle(now);
        if self.idle.len() > self.settings.max_idle {
            actions.extend(self.idle.pop_front().map(|idle| Action::Surplus(idle.channel)));
        } else if self.idle.len() > self.allowance.idle
            || (self.old(now) > 0 && self.idle.len() > self.target(now))
        {
            // Others need the descriptor; or this is its replacement.
            actions.extend(self.idle.pop_front().map(|idle| Action::Discard(idle.channel)));
        }
        actions
    }

    /// Joins who can be joined, then asks for what is missing.
    fn settle(&mut self, now: Instant) -> Vec<Action<V, C>> {
        let mut actions = Vec::new();
        while !self.waiting.is_empty() {
            // The one to be replaced last: the least likely to have died unseen.
            let Some(idle) = self.idle.pop_back() else { break };
            if let Some(waiting) = self.waiting.pop_front() {
                actions.push(Action::Pair(waiting.visitor, idle.channel));
            }
        }
        self.top_up(now, &mut actions);
        actions
    }

    fn top_up(&mut self, now: Instant, actions: &mut Vec<Action<V, C>>) {
        if !matches!(self.client, Presence::Here) {
            return;
        }
        self.requests.on_time(self.waiting_since(), now);
        let granted = self.requests.ask(self.missing(now), now);
        if granted > 0 {
            actions.push(Action::Request(granted));
        }
    }

    /// Channels that are neither there nor asked for. Old ones are as good as gone.
    fn missing(&self, now: Instant) -> usize {
        let wanted = self.waiting.len() + self.target(now);
        wanted.saturating_sub(self.idle.len() - self.old(now) + self.requests.live())
    }

    fn target(&self, now: Instant) -> usize {
        self.stock.target(now).min(self.allowance.idle).min(self.settings.max_idle)
    }

    /// Idle channels that are to be replaced.
    fn old(&self, now: Instant) -> usize {
        self.idle.partition_point(|idle| idle.renew <= now)
    }

    /// Since when there has been somebody in the line.
    fn waiting_since(&self) -> Option<Instant> {
        self.waiting.front().map(|waiting| waiting.since)
    }

    fn discard_all(&mut self) -> Vec<Action<V, C>> {
        self.idle.drain(..).map(|idle| Action::Discard(idle.channel)).collect()
    }

    fn refuse_all(&mut self, actions: &mut Vec<Action<V, C>>) {
        actions.extend(self.waiting.drain(..).map(|waiting| Action::Refuse(waiting.visitor, Why::NoClient)));
    }
}

#[cfg(test)]
mod tests;
