//! The pool in virtual time.

use std::collections::{BTreeMap, HashSet};

use super::super::requests::{HURRY, LIFE, MOST};
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const AGE: Duration = Duration::from_secs(240);
const SETTINGS: Settings =
    Settings { visitor_timeout: Duration::from_secs(10), max_waiting: 2048, max_idle: 1024, age: AGE };
const ALLOWANCE: Allowance = Allowance { at_first: 8, idle: usize::MAX, waiting: usize::MAX };

fn pool(now: Instant) -> Pool<u32, char> {
    with(SETTINGS, now)
}

fn with<V, C: PartialEq>(settings: Settings, now: Instant) -> Pool<V, C> {
    Pool::new(settings, ALLOWANCE, fastrand::Rng::with_seed(7), now)
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
    assert_eq!(pool.next_deadline(now), Some(now + 19 * SECOND));
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
    let mut pool: Pool<u32, char> = with(Settings { visitor_timeout: Duration::ZERO, ..SETTINGS }, now);
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
    assert_eq!(pool.next_deadline(now), Some(now + LIFE));
    assert_eq!(pool.on_time(now + LIFE), [Action::Request(8)]);
}

#[test]
fn a_lost_request_is_made_again_while_its_visitor_still_waits() {
    let now = Instant::now();
    let mut pool = pool(now);
    pool.on_client(now);
    pool.on_visitor(1, now + SECOND);
    let at = now + SECOND + HURRY;
    assert_eq!(pool.next_deadline(now + SECOND), Some(at));
    assert_eq!(pool.on_time(at), [Action::Request(9)]);
    assert_eq!(pool.on_channel('a', at), [Action::Pair(1, 'a')]);
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
fn a_returned_visitor_keeps_its_place_and_its_deadline() {
    let now = Instant::now();
    let mut pool = pool(now);
    pool.on_client(now);
    pool.on_visitor(1, now);
    pool.on_visitor(4, now + 2 * SECOND);
    let later = now + 9 * SECOND;
    pool.on_returned(3, now + SECOND, later);
    pool.on_returned(2, now, later);
    assert_eq!(pool.next_deadline(later), Some(now + 10 * SECOND));
    let order: Vec<u32> = pool.waiting.iter().map(|waiting| waiting.visitor).collect();
    assert_eq!(order, [2, 1, 3, 4]);
    assert_eq!(pool.on_returned(5, now, now + 10 * SECOND), [Action::Refuse(5, Why::Timeout)]);
}

#[test]
fn what_waits_is_bounded() {
    let now = Instant::now();
    let mut pool: Pool<u32, u32> = with(Settings { max_waiting: 5, max_idle: 3, ..SETTINGS }, now);
    assert_eq!(pool.on_client(now), [Action::Request(3)]);
    for visitor in 0..5 {
        pool.on_visitor(visitor, now);
    }
    assert_eq!(pool.on_visitor(9, now), [Action::Refuse(9, Why::Full)]);
    for channel in 0..5 {
        assert_eq!(pool.on_channel(channel, now), [Action::Pair(channel, channel)]);
    }
    for channel in 5..8 {
        assert_eq!(pool.on_channel(channel, now), []);
    }
    let surplus = pool.on_channel(8, now);
    assert!(matches!(surplus[..], [Action::Surplus(5..=8)]), "{surplus:?}");
}

/// A service to which the others leave nothing has no store, and serves all the same; its visitors wait for their turn
/// to wait.
#[test]
fn without_an_allowance_there_is_no_store() {
    let now = Instant::now();
    let mut pool: Pool<u32, u32> = with(SETTINGS, now);
    pool.allow(Allowance { at_first: 0, idle: 0, waiting: 2 });
    assert_eq!(pool.on_client(now), []);
    assert_eq!(pool.next_deadline(now), None);
    assert_eq!(pool.on_visitor(1, now), [Action::Request(1)]);
    assert_eq!(pool.on_visitor(2, now), [Action::Request(1)]);
    assert_eq!(pool.on_visitor(3, now), [Action::Refuse(3, Why::Crowded)]);
    assert_eq!(pool.on_channel(7, now), [Action::Pair(1, 7)]);
    assert_eq!(pool.on_visitor(4, now), [Action::Request(1)]);
    // Who had to wait goes on waiting, whatever is left now.
    pool.allow(Allowance { at_first: 0, idle: 0, waiting: 0 });
    assert_eq!(pool.on_channel(8, now), [Action::Pair(2, 8)]);
    assert_eq!(pool.on_channel(9, now), [Action::Pair(4, 9)]);
    // One that nobody asked for.
    assert_eq!(pool.on_channel(10, now), [Action::Discard(10)]);
    // A visitor that finds a channel does not wait.
    pool.allow(Allowance { at_first: 0, idle: 1, waiting: 0 });
    assert_eq!(pool.on_channel(11, now), []);
    assert_eq!(pool.on_visitor(5, now)[0], Action::Pair(5, 11));
    // What is in store too much is closed in a while.
    pool.on_channel(12, now);
    pool.allow(Allowance { at_first: 0, idle: 0, waiting: 0 });
    let trim = pool.next_deadline(now).unwrap();
    assert!(trim <= now + TRIM);
    assert_eq!(pool.on_time(trim), [Action::Discard(12)]);
}

#[test]
fn a_dead_idle_channel_is_replaced_at_once_but_not_without_end() {
    let now = Instant::now();
    let mut pool: Pool<u32, u32> = with(SETTINGS, now);
    pool.on_client(now);
    (0..8).for_each(|n| drop(pool.on_channel(n, now)));
    // All of a client's channels die together, after a minute: the network was away.
    let later = now + 60 * SECOND;
    let mut asked = 0;
    for n in 0..8 {
        let actions = pool.on_lost(&n, later);
        assert_eq!(actions, [Action::Discard(n), Action::Request(1)]);
        asked += 1;
    }
    assert_eq!(pool.on_lost(&3, later), [], "it is gone already");
    // A client that opens and closes at once.
    for n in 100..10_000 {
        let _ = pool.on_channel(n, later);
        asked += pool.on_lost(&n, later).iter().filter(|action| matches!(action, Action::Request(_))).count();
    }
    assert!(asked < 40, "{asked}");
    let again = pool.next_deadline(later).unwrap();
    assert!(again > later && again <= later + 8 * SECOND, "{:?}", again - later);
    assert!(matches!(pool.on_time(again)[..], [Action::Request(7..=8)]));
}

#[test]
fn old_channels_are_replaced_before_they_are_closed() {
    let now = Instant::now();
    let mut pool: Pool<u32, u32> = with(SETTINGS, now);
    pool.allow(Allowance { at_first: 1, ..ALLOWANCE });
    pool.on_client(now);
    pool.on_channel(1, now);
    let renew = pool.next_deadline(now).unwrap();
    assert!((180 * SECOND..=AGE).contains(&(renew - now)), "{:?}", renew - now);
    assert_eq!(pool.on_time(renew), [Action::Request(1)]);
    assert_eq!(pool.on_channel(2, renew), [Action::Discard(1)]);
    // No replacement comes: the old one is good until overtime, and no longer.
    let renew = pool.next_deadline(renew).unwrap();
    assert_eq!(pool.on_time(renew), [Action::Request(1)]);
    assert_eq!(pool.on_visitor(7, renew)[0], Action::Pair(7, 2));
    pool.on_channel(3, renew);
    let renew = pool.idle[0].renew;
    pool.on_time(renew);
    assert!(pool.on_time(renew + OVERTIME).contains(&Action::Discard(3)));
}

#[test]
fn channels_that_came_together_are_not_replaced_together() {
    let now = Instant::now();
    let mut pool: Pool<u32, u32> = with(SETTINGS, now);
    pool.on_client(now);
    (0..8).for_each(|n| drop(pool.on_channel(n, now)));
    let times: Vec<_> = pool.idle.iter().map(|idle| idle.renew - now).collect();
    assert!(times.is_sorted() && times[7] - times[0] > 15 * SECOND, "{times:?}");
}

#[test]
fn a_visitor_that_has_gone_costs_no_channel() {
    let now = Instant::now();
    let mut pool = pool(now);
    pool.on_client(now);
    pool.on_visitor(1, now);
    pool.on_visitor(2, now);
    assert_eq!(pool.on_channel('a', now), [Action::Pair(1, 'a')]);
    assert_eq!(pool.on_unspent('a', now), [Action::Pair(2, 'a')]);
}

#[test]
fn settings_change_while_it_runs() {
    let now = Instant::now();
    let mut pool: Pool<u32, u32> = with(SETTINGS, now);
    pool.on_client(now);
    (0..8).for_each(|n| drop(pool.on_channel(n, now)));
    let fewer = Settings { max_idle: 3, max_waiting: 1, visitor_timeout: SECOND, ..SETTINGS };
    let closed = pool.configure(fewer, now);
    assert!(
        closed.len() == 5 && closed.iter().all(|action| matches!(action, Action::Surplus(_))),
        "{closed:?}"
    );
    (1..=5).for_each(|n| drop(pool.on_visitor(n, now)));
    assert_eq!(pool.waiting.len(), 1);
    assert_eq!(pool.on_time(now + SECOND), [Action::Refuse(4, Why::Timeout)]);
    // Who waits already is not sent away, and not made to wait longer than others.
    let mut pool: Pool<u32, u32> = with(SETTINGS, now);
    pool.on_client(now);
    (1..=5).for_each(|n| drop(pool.on_visitor(n, now)));
    assert!(pool.configure(fewer, now + SECOND).is_empty());
    assert_eq!(pool.on_visitor(6, now + SECOND), [Action::Refuse(6, Why::Full)]);
    let late = pool.on_time(now + 2 * SECOND);
    assert_eq!(late.iter().filter(|action| matches!(action, Action::Refuse(1..=5, Why::Timeout))).count(), 5);
    // Without a client, a visitor_timeout of 0 lets nobody wait.
    pool.configure(SETTINGS, now);
    pool.on_client_gone(now);
    pool.on_visitor(7, now);
    let none = Settings { visitor_timeout: Duration::ZERO, ..SETTINGS };
    assert_eq!(pool.configure(none, now), [Action::Refuse(7, Why::NoClient)]);
}

/// What a client does with a request.
#[derive(Debug, Clone, Copy)]
struct Client {
    /// Milliseconds until its channel comes.
    delay: u64,
    /// Of 100 requests, how many are lost.
    lost: u8,
    /// Of 100 channels, how many die within a second.
    dying: u8,
}

enum Event {
    Comes(u32),
    Dies(u32),
}

/// A pool, a client, and time; every step is checked.
struct World {
    pool: Pool<u32, u32>,
    client: Client,
    session: u32,
    random: fastrand::Rng,
    start: Instant,
    now: Instant,
    /// By session, which a channel must belong to, and the order.
    events: BTreeMap<(Instant, u32), (u32, Event)>,
    last: u32,
    visitors: HashSet<u32>,
    channels: BTreeMap<u32, Instant>,
    /// When the client was last asked, or a channel came, or the line was empty.
    heard: Instant,
    requested: usize,
    served: usize,
    refused: usize,
    /// As many waited when the settings were last changed: they are not sent away.
    may_wait: usize,
    /// The same of channels in store.
    may_store: usize,
}

impl World {
    fn new(settings: Settings, client: Client, seed: u64) -> Self {
        let now = Instant::now();
        World {
            pool: Pool::new(settings, ALLOWANCE, fastrand::Rng::with_seed(seed), now),
            client,
            session: 0,
            random: fastrand::Rng::with_seed(!seed),
            start: now,
            now,
            events: BTreeMap::new(),
            last: 0,
            visitors: HashSet::new(),
            channels: BTreeMap::new(),
            heard: now,
            requested: 0,
            served: 0,
            refused: 0,
            may_wait: 0,
            may_store: 0,
        }
    }

    fn next(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    fn later(&mut self, ms: u64, event: Event) {
        let (at, order) = (self.now + Duration::from_millis(ms), self.next());
        self.events.insert((at, order), (self.session, event));
    }

    fn client_comes(&mut self) {
        self.session = self.next();
        self.heard = self.now;
        let actions = self.pool.on_client(self.now);
        self.act(actions);
    }

    fn client_goes(&mut self) {
        self.session = 0;
        let actions = self.pool.on_client_gone(self.now);
        self.act(actions);
    }

    fn visitor(&mut self) {
        let visitor = self.next();
        self.visitors.insert(visitor);
        let actions = self.pool.on_visitor(visitor, self.now);
        self.act(actions);
    }

    fn act(&mut self, mut actions: Vec<Action<u32, u32>>) {
        while let Some(action) = actions.pop() {
            match action {
                Action::Pair(visitor, channel) => {
                    let came = self.now;
                    self.channel_out(channel);
                    if self.random.u8(..100) < self.client.dying / 2 {
                        actions.extend(self.pool.on_dead(visitor, came, self.now));
                    } else {
                        assert!(self.visitors.remove(&visitor), "visitor {visitor} came out twice");
                        self.served += 1;
                    }
                }
                Action::Refuse(visitor, _) => {
                    assert!(self.visitors.remove(&visitor), "visitor {visitor} came out twice");
                    self.refused += 1;
                }
                Action::Discard(channel) | Action::Surplus(channel) => self.channel_out(channel),
                Action::Request(n) => {
                    assert!(n > 0 && self.session > 0);
                    self.requested += n;
                    self.heard = self.now;
                    for _ in 0..n {
                        if self.random.u8(..100) >= self.client.lost {
                            let (channel, ms) = (self.next(), self.random.u64(..=self.client.delay));
                            self.later(ms, Event::Comes(channel));
                        }
                    }
                }
            }
        }
        self.check();
    }

    fn channel_out(&mut self, channel: u32) {
        assert!(self.channels.remove(&channel).is_some(), "channel {channel} came out twice");
    }

    fn check(&mut self) {
        let (pool, now) = (&self.pool, self.now);
        assert!(pool.waiting.is_empty() || pool.idle.is_empty(), "nobody waits while a channel is idle");
        let most_waiting = pool.settings.max_waiting.min(pool.allowance.waiting);
        assert!(pool.waiting.len() <= self.may_wait.max(most_waiting));
        let most_idle = pool.settings.max_idle.min(pool.allowance.idle);
        assert!(pool.idle.len() <= self.may_store.max(most_idle));
        assert!(pool.waiting.iter().map(|waiting| waiting.until).is_sorted());
        assert!(pool.idle.iter().map(|idle| idle.renew).is_sorted());
        assert_eq!((pool.waiting.len(), pool.idle.len()), (self.visitors.len(), self.channels.len()));
        assert!(pool.requests.live() <= MOST);
        if pool.waiting.is_empty() || self.session == 0 {
            self.heard = now;
        }
        let paused = pool.requests.clone().ask(1, now) == 0;
        if self.session > 0 && !paused {
            assert_eq!(pool.missing(now), 0, "what is missing is asked for");
        }
        if paused {
            self.heard = now;
        }
        let silent = now - self.heard;
        assert!(silent <= LIFE, "a visitor waits, and for {silent:?} nobody was asked and nothing came");
    }

    /// Time passes, as it does for a service: what is due is done when it is due.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let deadline = self.pool.next_deadline(self.now);
            let event = self.events.first_key_value().map(|(key, _)| key.0);
            match (deadline, event) {
                (deadline, Some(at)) if at <= until && deadline.is_none_or(|deadline| at < deadline) => {
                    self.now = self.now.max(at);
                    self.happen();
                }
                (Some(deadline), _) if deadline <= until => {
                    self.now = self.now.max(deadline);
                    let actions = self.pool.on_time(self.now);
                    self.act(actions);
                    let next = self.pool.next_deadline(self.now);
                    assert!(
                        next.is_none_or(|next| next > self.now),
                        "a deadline that is never met: busy loop"
                    );
                    assert!(self.pool.waiting.iter().all(|waiting| waiting.until > self.now));
                    let oldest = self.channels.values().min().map_or(Duration::ZERO, |came| self.now - *came);
                    assert!(oldest <= AGE + OVERTIME, "a channel is idle for {oldest:?}");
                }
                _ => break,
            }
        }
        self.now = until;
    }

    fn happen(&mut self) {
        let Some((_, (session, event))) = self.events.pop_first() else { return };
        if session != self.session {
            return;
        }
        let actions = match event {
            Event::Comes(channel) => {
                self.heard = self.now;
                self.channels.insert(channel, self.now);
                if self.random.u8(..100) < self.client.dying {
                    let ms = self.random.u64(..1000);
                    self.later(ms, Event::Dies(channel));
                }
                self.pool.on_channel(channel, self.now)
            }
            Event::Dies(channel) => self.pool.on_lost(&channel, self.now),
        };
        self.act(actions);
    }
}

/// Whatever happens in whatever order, whatever the client is like, the module's invariants hold; see [`World::check`] and
/// [`World::pass`], which state them. And at the end, with a good client and nobody coming, the pool is at its least.
#[test]
fn random_sequences_keep_the_invariants() {
    let (mut served, mut refused) = (0, 0);
    for seed in 0..150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let settings = |random: &mut fastrand::Rng| Settings {
            visitor_timeout: random.u32(0..12) * SECOND,
            max_waiting: [1, 5, 2048][random.usize(..3)],
            max_idle: [1, 9, 1024][random.usize(..3)],
            age: AGE / random.u32(1..4),
        };
        let client = Client {
            delay: [0, 100, 3000, 20_000][random.usize(..4)],
            lost: [0, 0, 30, 100][random.usize(..4)],
            dying: [0, 0, 30, 100][random.usize(..4)],
        };
        let mut world = World::new(settings(&mut random), client, seed);
        for _ in 0..300 {
            match random.u8(0..20) {
                0 => world.client_comes(),
                1 => world.client_goes(),
                2..10 => world.visitor(),
                10 => (0..random.u32(1..400)).for_each(|_| world.visitor()),
                11 => {
                    world.may_wait = world.pool.waiting.len();
                    let actions = world.pool.configure(settings(&mut random), world.now);
                    world.act(actions);
                }
                12 if random.bool() => {
                    world.may_wait = world.pool.waiting.len();
                    world.may_store = world.pool.idle.len();
                    let (at_first, idle) = (random.usize(..=8), random.usize(..100));
                    world.pool.allow(Allowance { at_first, idle, waiting: random.usize(..1000) });
                    let actions = world.pool.on_time(world.now);
                    world.act(actions);
                }
                12 => {
                    // One that nobody asked for.
                    let channel = world.next();
                    if world.session > 0 {
                        world.channels.insert(channel, world.now);
                        world.heard = world.now;
                        let actions = world.pool.on_channel(channel, world.now);
                        world.act(actions);
                    }
                }
                13..19 => world.pass(Duration::from_millis(random.u64(..3000))),
                _ => world.pass(random.u32(..300) * SECOND),
            }
        }
        world.client = Client { delay: 100, lost: 0, dying: 0 };
        world.client_comes();
        world.pass(60 * SECOND);
        assert!(
            world.pool.idle.len() <= world.pool.allowance.idle,
            "seed {seed}: no more than it is allowed"
        );
        world.pass(1800 * SECOND);
        let (least, most) = (world.pool.stock.least(), world.pool.settings.max_idle);
        let least = least.min(world.pool.allowance.idle);
        assert_eq!(world.pool.idle.len(), least.min(most), "seed {seed}: back to its least");
        assert!(world.visitors.is_empty(), "seed {seed}");
        served += world.served;
        refused += world.refused;
        let (waiting, idle) = world.pool.into_parts();
        assert_eq!((waiting.count(), idle.count()), (0, world.channels.len()), "seed {seed}");
    }
    assert!(served > 10_000 && refused > 10_000, "served {served}, refused {refused}");
}

/// Three hundred visitors at once wait for the client's dials; the next three hundred do not.
#[test]
fn the_pool_grows_with_demand() {
    let mut world = World::new(SETTINGS, Client { delay: 150, lost: 0, dying: 0 }, 1);
    world.client_comes();
    world.pass(SECOND);
    for expected in [8, 300] {
        (0..300).for_each(|_| world.visitor());
        assert_eq!(world.served, expected);
        world.pass(SECOND);
        assert_eq!(world.served, 300, "all, a second later");
        world.served = 0;
    }
    assert!(world.pool.idle.len() < 700, "{}", world.pool.idle.len());
    world.pass(900 * SECOND);
    assert_eq!(world.pool.idle.len(), 2);
}

/// What an idle service costs: two channels, each dialled anew every 3 to 4 minutes.
#[test]
fn an_idle_hour_costs_little() {
    let mut world = World::new(SETTINGS, Client { delay: 150, lost: 0, dying: 0 }, 2);
    world.client_comes();
    world.pass(900 * SECOND);
    let before = world.requested;
    world.pass(3600 * SECOND);
    let asked = world.requested - before;
    assert!((28..=42).contains(&asked), "{asked}");
    assert!(world.now - world.start > 4000 * SECOND);
}

/// A client that closes what it opens, and one that never opens anything, are asked a bounded number of times, and the
/// visitors get their answer in time.
#[test]
fn useless_clients_are_no_busy_loop() {
    for (client, most) in
        [(Client { delay: 1, lost: 0, dying: 100 }, 500), (Client { delay: 1, lost: 100, dying: 0 }, 1500)]
    {
        let mut world = World::new(SETTINGS, client, 3);
        world.client_comes();
        for _ in 0..60 {
            world.visitor();
            world.pass(SECOND);
        }
        world.pass(10 * SECOND);
        assert!(world.visitors.is_empty());
        assert!(world.requested < most, "{client:?}: asked for {}", world.requested);
    }
}
