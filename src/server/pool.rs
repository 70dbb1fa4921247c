//! Which visitor gets which data channel. Pure: values in, actions out, `now` an argument.
//!
//! Invariants: a visitor is either waiting here or handed out in exactly one action; the same for a channel;
//! visitors are served in the order they came; no visitor waits beyond its deadline, nor while a channel is idle;
//! everything held is bounded.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Channels that are asked for as soon as a client is there, and kept idle after (protocol-v1.md, section 5.1).
const IDLE_TARGET: usize = 8;

/// Visitors that may wait (protocol-v1.md, section 5.1).
const MAX_WAITING: usize = 2048;

/// Idle channels that are kept; a client that brings more has them closed.
const MAX_IDLE: usize = 1024;

/// A request that brought no channel for this long is taken as lost: a client gives up after 10 s of dialling, without
/// a word (protocol-v1.md, section 5.1).
const REQUEST_LIFE: Duration = Duration::from_secs(10);

/// The longest wait of a visitor when `visitor_timeout` is 0: that speaks only of waiting for a client.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<V, C> {
    /// Join the two.
    Pair(V, C),
    /// Ask the client for this many channels.
    Request(usize),
    /// Reset the visitor.
    Refuse(V, Why),
    /// Close the channel.
    Discard(C),
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
}

impl Why {
    /// For the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::NoClient => "no client",
            Why::Timeout => "no data channel in time",
            Why::Full => "too many visitors wait",
        }
    }
}

#[derive(Debug)]
struct Waiting<V> {
    visitor: V,
    until: Instant,
}

/// The visitors and channels of one service.
#[derive(Debug)]
pub struct Pool<V, C> {
    visitor_timeout: Duration,
    /// Whether a client is there, else since when there is none.
    client: Presence,
    waiting: VecDeque<Waiting<V>>,
    idle: Vec<C>,
    /// When each request that is not fulfilled was made, oldest first.
    requested: VecDeque<Instant>,
}

#[derive(Debug, Clone, Copy)]
enum Presence {
    Here,
    GoneSince(Instant),
}

impl<V, C> Pool<V, C> {
    /// No client, no visitor: as after a start at `now`.
    pub fn new(visitor_timeout: Duration, now: Instant) -> Self {
        Pool {
            visitor_timeout,
            client: Presence::GoneSince(now),
            waiting: VecDeque::new(),
            idle: Vec::new(),
            requested: VecDeque::new(),
        }
    }

    /// A client was authenticated, perhaps in another's place: its predecessor's channels are of no use.
    pub fn on_client(&mut self, now: Instant) -> Vec<Action<V, C>> {
        self.client = Presence::Here;
        self.requested.clear();
        let mut actions: Vec<_> = self.idle.drain(..).map(Action::Discard).collect();
        self.top_up(now, &mut actions);
        actions
    }

    /// The client is gone. Visitors go on waiting for its return, unless there is no such wait.
    pub fn on_client_gone(&mut self, now: Instant) -> Vec<Action<V, C>> {
        self.client = Presence::GoneSince(now);
        self.requested.clear();
        let mut actions: Vec<_> = self.idle.drain(..).map(Action::Discard).collect();
        if self.visitor_timeout.is_zero() {
            actions.extend(self.waiting.drain(..).map(|w| Action::Refuse(w.visitor, Why::NoClient)));
        }
        actions
    }

    /// A visitor came.
    pub fn on_visitor(&mut self, visitor: V, now: Instant) -> Vec<Action<V, C>> {
        let wait = match self.client {
            Presence::Here => self.longest_wait(),
            Presence::GoneSince(since) if now.saturating_duration_since(since) >= self.visitor_timeout => {
                return vec![Action::Refuse(visitor, Why::NoClient)];
            }
            Presence::GoneSince(_) => self.visitor_timeout,
        };
        if self.waiting.len() >= MAX_WAITING {
            return vec![Action::Refuse(visitor, Why::Full)];
        }
        self.waiting.push_back(Waiting { visitor, until: now + wait });
        self.settle(now)
    }

    /// A visitor that came at `since`, whose channel failed before any of its bytes was written, is first in line again.
    pub fn on_returned(&mut self, visitor: V, since: Instant, now: Instant) -> Vec<Action<V, C>> {
        let until = since + self.longest_wait();
        if matches!(self.client, Presence::GoneSince(_)) && self.visitor_timeout.is_zero() {
            return vec![Action::Refuse(visitor, Why::NoClient)];
        }
        if now >= until {
            return vec![Action::Refuse(visitor, Why::Timeout)];
        }
        self.waiting.push_front(Waiting { visitor, until });
        self.settle(now)
    }

    /// A data channel came.
    pub fn on_channel(&mut self, channel: C, now: Instant) -> Vec<Action<V, C>> {
        self.requested.pop_front();
        if self.idle.len() >= MAX_IDLE {
            return vec![Action::Discard(channel)];
        }
        self.idle.push(channel);
        self.settle(now)
    }

    /// Time has passed.
    pub fn on_time(&mut self, now: Instant) -> Vec<Action<V, C>> {
        let mut actions = Vec::new();
        let (late, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|w| w.until <= now);
        self.waiting = waiting;
        let late: VecDeque<Waiting<V>> = late;
        let why = match self.client {
            Presence::Here => Why::Timeout,
            Presence::GoneSince(_) => Why::NoClient,
        };
        actions.extend(late.into_iter().map(|w| Action::Refuse(w.visitor, why)));
        self.top_up(now, &mut actions);
        actions
    }

    /// When [`Pool::on_time`] is next of use.
    pub fn next_deadline(&self) -> Option<Instant> {
        // The line is in order of deadlines but for returned visitors, which are first and due first.
        let visitor = self.waiting.front().map(|w| w.until);
        let request = self.requested.front().map(|made| *made + REQUEST_LIFE);
        match (visitor, request) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Gives up all: at the end of the service.
    pub fn into_parts(self) -> (impl Iterator<Item = V>, Vec<C>) {
        (self.waiting.into_iter().map(|w| w.visitor), self.idle)
    }

    /// Joins who can be joined, then asks for what is missing.
    fn settle(&mut self, now: Instant) -> Vec<Action<V, C>> {
        let mut actions = Vec::new();
        while !self.waiting.is_empty() {
            // The youngest channel: the one least likely to have died unseen.
            let Some(channel) = self.idle.pop() else { break };
            if let Some(waiting) = self.waiting.pop_front() {
                actions.push(Action::Pair(waiting.visitor, channel));
            }
        }
        self.top_up(now, &mut actions);
        actions
    }

    fn longest_wait(&self) -> Duration {
        if self.visitor_timeout.is_zero() { DEFAULT_WAIT } else { self.visitor_timeout }
    }

    fn top_up(&mut self, now: Instant, actions: &mut Vec<Action<V, C>>) {
        if !matches!(self.client, Presence::Here) {
            return;
        }
        while self.requested.front().is_some_and(|made| *made + REQUEST_LIFE <= now) {
            self.requested.pop_front();
        }
        let wanted = IDLE_TARGET + self.waiting.len();
        let missing = wanted.saturating_sub(self.idle.len() + self.requested.len());
        if missing > 0 {
            self.requested.extend(std::iter::repeat_n(now, missing));
            actions.push(Action::Request(missing));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Actions = Vec<Action<u32, char>>;
    const SECOND: Duration = Duration::from_secs(1);

    fn pool(now: Instant) -> Pool<u32, char> {
        Pool::new(10 * SECOND, now)
    }

    #[test]
    fn asks_for_eight_channels_at_once_and_refills() {
        let now = Instant::now();
        let mut pool = pool(now);
        assert_eq!(pool.on_client(now), [Action::Request(8)]);
        assert_eq!(pool.on_channel('a', now), []);
        assert_eq!(pool.on_visitor(1, now), [Action::Pair(1, 'a'), Action::Request(1)]);
    }

    #[test]
    fn a_visitor_that_must_wait_asks_for_a_channel_of_its_own() {
        let now = Instant::now();
        let mut pool = pool(now);
        pool.on_client(now);
        assert_eq!(pool.on_visitor(1, now), [Action::Request(1)]);
        assert_eq!(pool.on_visitor(2, now), [Action::Request(1)]);
        assert_eq!(pool.on_channel('a', now), [Action::Pair(1, 'a')]);
        assert_eq!(pool.on_channel('b', now), [Action::Pair(2, 'b')]);
    }

    #[test]
    fn after_a_start_visitors_wait_for_the_client_and_later_ones_do_not() {
        let now = Instant::now();
        let mut pool = pool(now);
        assert_eq!(pool.on_visitor(1, now + 9 * SECOND), []);
        assert_eq!(pool.on_visitor(2, now + 10 * SECOND), [Action::Refuse(2, Why::NoClient)]);
        assert_eq!(pool.next_deadline(), Some(now + 19 * SECOND));
        assert_eq!(pool.on_time(now + 19 * SECOND), [Action::Refuse(1, Why::NoClient)]);
    }

    #[test]
    fn a_returning_client_finds_the_visitors_that_waited() {
        let now = Instant::now();
        let mut pool = pool(now);
        pool.on_client(now);
        pool.on_channel('a', now);
        assert_eq!(pool.on_client_gone(now + SECOND), [Action::Discard('a')]);
        assert_eq!(pool.on_visitor(1, now + 2 * SECOND), []);
        assert_eq!(pool.on_client(now + 3 * SECOND), [Action::Request(9)]);
        assert_eq!(pool.on_channel('b', now + 3 * SECOND), [Action::Pair(1, 'b')]);
    }

    #[test]
    fn without_a_visitor_timeout_nobody_waits_for_a_client() {
        let now = Instant::now();
        let mut pool: Pool<u32, char> = Pool::new(Duration::ZERO, now);
        assert_eq!(pool.on_visitor(1, now), [Action::Refuse(1, Why::NoClient)]);
        pool.on_client(now);
        assert_eq!(pool.on_visitor(2, now), [Action::Request(1)]);
        assert_eq!(pool.on_client_gone(now), [Action::Refuse(2, Why::NoClient)]);
        assert_eq!(pool.on_returned(3, now, now), [Action::Refuse(3, Why::NoClient)]);
    }

    #[test]
    fn a_lost_request_is_made_again() {
        let now = Instant::now();
        let mut pool = pool(now);
        pool.on_client(now);
        assert_eq!(pool.next_deadline(), Some(now + REQUEST_LIFE));
        assert_eq!(pool.on_time(now + REQUEST_LIFE), [Action::Request(8)]);
    }

    #[test]
    fn a_takeover_discards_the_old_channels_and_keeps_the_visitors() {
        let now = Instant::now();
        let mut pool = pool(now);
        pool.on_client(now);
        pool.on_channel('a', now);
        assert_eq!(pool.on_client(now), [Action::Discard('a'), Action::Request(8)]);
    }

    #[test]
    fn a_returned_visitor_is_first_and_keeps_its_deadline() {
        let now = Instant::now();
        let mut pool = pool(now);
        pool.on_client(now);
        pool.on_visitor(1, now);
        let later = now + 9 * SECOND;
        assert_eq!(pool.on_returned(2, now, later), [Action::Request(1)]);
        assert_eq!(pool.next_deadline(), Some(now + 10 * SECOND));
        assert_eq!(pool.on_channel('a', later), [Action::Pair(2, 'a')]);
        assert_eq!(pool.on_returned(3, now, now + 10 * SECOND), [Action::Refuse(3, Why::Timeout)]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let now = Instant::now();
        let mut pool = pool(now);
        pool.on_client(now);
        for visitor in 0..MAX_WAITING as u32 {
            assert_eq!(pool.on_visitor(visitor, now), [Action::Request(1)]);
        }
        let last: Actions = pool.on_visitor(9999, now);
        assert_eq!(last, [Action::Refuse(9999, Why::Full)]);
    }

    /// Whatever happens in whatever order: each visitor and each channel comes out exactly once, and no visitor waits
    /// while a channel is idle.
    #[test]
    fn random_sequences_keep_the_invariants() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut now = Instant::now();
            let mut pool: Pool<u32, u32> = Pool::new(random.u32(0..5) * SECOND, now);
            let (mut visitors, mut channels) = (Vec::new(), Vec::new());
            let mut next = 0;
            for _ in 0..500 {
                next += 1;
                let actions = match random.u8(0..6) {
                    0 => pool.on_client(now),
                    1 => pool.on_client_gone(now),
                    2 | 3 => {
                        visitors.push(next);
                        pool.on_visitor(next, now)
                    }
                    4 => {
                        channels.push(next);
                        pool.on_channel(next, now)
                    }
                    _ => {
                        now += random.u32(0..3) * SECOND;
                        pool.on_time(now)
                    }
                };
                for action in actions {
                    let (visitor, channel) = match action {
                        Action::Pair(visitor, channel) => (Some(visitor), Some(channel)),
                        Action::Refuse(visitor, _) => (Some(visitor), None),
                        Action::Discard(channel) => (None, Some(channel)),
                        Action::Request(n) => {
                            assert!(n > 0);
                            (None, None)
                        }
                    };
                    for (value, known) in [(visitor, &mut visitors), (channel, &mut channels)] {
                        if let Some(value) = value {
                            let at = known.iter().position(|v| *v == value);
                            known.remove(at.unwrap_or_else(|| panic!("{value} came out twice, seed {seed}")));
                        }
                    }
                }
                assert!(pool.waiting.is_empty() || pool.idle.is_empty(), "seed {seed}");
            }
            let (waiting, idle) = pool.into_parts();
            assert_eq!(waiting.collect::<Vec<_>>(), visitors, "seed {seed}");
            assert_eq!(idle.len(), channels.len(), "seed {seed}");
        }
    }
}
