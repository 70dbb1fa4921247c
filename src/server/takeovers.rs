//! Two clients with one token, each of which replaces the other: how long the newcomer must wait.
//!
//! One takeover is a restart of the client. Three within half a minute are two clients that do not know of each
//! other; then each further one is held back, longer each time, and the incumbent serves in the meantime.
//!
//! Only a takeover from a *live* client counts. A single client on a bad link comes again and again, too, but finds its
//! own dead channels. Which of both it was is known only after the takeover, because the first ones are not to wait:
//! until then, but not for long, the replaced client is taken for alive, because that of two clients which take turns
//! answers sooner than it comes back. Pure: `now` is an argument. Bounded by the number of services.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::forgetful::Forgetful;
use crate::wire::ServiceDigest;

/// Takeovers that are older do not count.
const WINDOW: Duration = Duration::from_secs(30);

/// So many within the window are free.
const FREE: usize = 3;

/// The first wait; it doubles with each further takeover, up to the longest.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// How long a replaced client is taken for alive while nothing was heard of it.
const DOUBT: Duration = Duration::from_millis(500);

/// Takeovers that are remembered: enough for the longest wait, and for all who wait to come in one after the other.
const REMEMBERED: usize = 2 * MAX_WAITING;

/// Newcomers of one service that wait, for this or for the incumbent's pulse.
const MAX_WAITING: usize = 16;

/// How long a newcomer must wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// As far as is known by now.
    pub until: Instant,
    /// When to ask again: not later than that.
    pub look: Instant,
}

/// All services with takeovers of late; `S` names a session.
#[derive(Debug)]
pub struct Takeovers<S>(Forgetful<ServiceDigest, Service<S>>);

impl<S> Default for Takeovers<S> {
    fn default() -> Self {
        Takeovers(Forgetful::default())
    }
}

#[derive(Debug)]
struct Service<S> {
    /// The last ones, oldest first.
    takeovers: VecDeque<Takeover<S>>,
    waiting: usize,
}

#[derive(Debug)]
struct Takeover<S> {
    /// Whose place was taken.
    of: S,
    at: Instant,
    /// Whether that client is known to have been alive. Known to have been dead: the takeover is forgotten.
    was_live: bool,
}

impl<S> Default for Service<S> {
    fn default() -> Self {
        Service { takeovers: VecDeque::new(), waiting: 0 }
    }
}

impl<S: Copy + PartialEq> Takeovers<S> {
    /// A newcomer comes while another client is there. It is counted until [`Takeovers::on_done`]. False: too many wait
    /// already.
    #[must_use]
    pub fn on_newcomer(&mut self, digest: ServiceDigest, now: Instant) -> bool {
        let service = self.0.entry(digest, |service| service.is_of_use(now));
        if service.waiting >= MAX_WAITING {
            return false;
        }
        service.waiting += 1;
        true
    }

    /// How long a newcomer that came then must wait. None: it is its turn.
    pub fn wait(&self, digest: &ServiceDigest, came: Instant, now: Instant) -> Option<Wait> {
        let service = self.0.get(digest)?;
        let until = came + service.wait(now);
        // When a replaced client is taken for dead the wait may be shorter.
        let doubts = service.takeovers.iter().filter_map(|takeover| takeover.doubted_until(now));
        (now < until).then(|| Wait { until, look: doubts.fold(until, Instant::min) })
    }

    /// A newcomer has replaced the client of this session.
    pub fn on_takeover(&mut self, digest: ServiceDigest, of: S, now: Instant) {
        let service = self.0.entry(digest, |service| service.is_of_use(now));
        service.takeovers.push_back(Takeover { of, at: now, was_live: false });
        if service.takeovers.len() > REMEMBERED {
            service.takeovers.pop_front();
        }
    }

    /// Whether the client of this session was replaced, and is still to be heard of.
    pub fn is_replaced(&self, digest: &ServiceDigest, session: S) -> bool {
        self.0.get(digest).is_some_and(|service| service.takeovers.iter().any(|one| one.of == session))
    }

    /// It is known whether a client that was replaced had been alive.
    pub fn on_heard(&mut self, digest: &ServiceDigest, of: S, was_live: bool) {
        let Some(service) = self.0.get_mut(digest) else { return };
        match was_live {
            true => {
                service.takeovers.iter_mut().filter(|one| one.of == of).for_each(|one| one.was_live = true)
            }
            false => service.takeovers.retain(|one| one.of != of),
        }
        self.tidy(digest);
    }

    /// A newcomer waits no more.
    pub fn on_done(&mut self, digest: &ServiceDigest) {
        if let Some(service) = self.0.get_mut(digest) {
            service.waiting = service.waiting.saturating_sub(1);
        }
        self.tidy(digest);
    }

    fn tidy(&mut self, digest: &ServiceDigest) {
        if self.0.get(digest).is_some_and(|service| service.waiting == 0 && service.takeovers.is_empty()) {
            self.0.remove(digest);
        }
    }
}

impl<S> Service<S> {
    fn wait(&self, now: Instant) -> Duration {
        let recent = self.takeovers.iter().filter(|takeover| takeover.counts(now)).count();
        match recent.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(more) => WAIT.0.saturating_mul(1 << more.min(16)).min(WAIT.1),
        }
    }

    fn is_of_use(&self, now: Instant) -> bool {
        self.waiting > 0 || self.takeovers.iter().any(|takeover| now < takeover.at + WINDOW)
    }
}

impl<S> Takeover<S> {
    fn counts(&self, now: Instant) -> bool {
        match self.was_live {
            true => now < self.at + WINDOW,
            false => self.doubted_until(now).is_some(),
        }
    }

    /// Until when its client is taken for alive without being known to be.
    fn doubted_until(&self, now: Instant) -> Option<Instant> {
        Some(self.at + DOUBT).filter(|until| !self.was_live && now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn digest(n: u32) -> ServiceDigest {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&n.to_be_bytes());
        ServiceDigest(digest)
    }

    /// A service and its clients.
    struct Scene {
        takeovers: Takeovers<u32>,
        now: Instant,
        session: u32,
        /// How long the kernel of a live client takes to answer.
        answers_after: Duration,
        /// Who will answer when.
        answers: VecDeque<(Instant, u32)>,
    }

    impl Scene {
        fn new() -> Self {
            Scene {
                takeovers: Takeovers::default(),
                now: Instant::now(),
                session: 0,
                answers_after: SECOND / 20,
                answers: VecDeque::new(),
            }
        }

        fn hear(&mut self) {
            while let Some((_, session)) = self.answers.front().copied().filter(|(at, _)| *at <= self.now) {
                self.answers.pop_front();
                self.takeovers.on_heard(&digest(1), session, true);
            }
        }

        /// One newcomer from its Auth to its takeover; says how long it waited.
        fn take_over(&mut self, is_live: bool) -> Duration {
            let came = self.now;
            self.hear();
            assert!(self.takeovers.on_newcomer(digest(1), came));
            while let Some(Wait { until, look }) = self.takeovers.wait(&digest(1), came, self.now) {
                assert!(look > self.now && look <= until && until <= came + WAIT.1);
                self.now = look;
                self.hear();
            }
            self.session += 1;
            self.takeovers.on_takeover(digest(1), self.session, self.now);
            self.takeovers.on_done(&digest(1));
            if is_live {
                self.answers.push_back((self.now + self.answers_after, self.session));
            }
            self.now - came
        }
    }

    #[test]
    fn the_fourth_takeover_in_half_a_minute_waits() {
        let mut scene = Scene::new();
        let waits: Vec<_> = (0..8)
            .map(|_| {
                scene.now += SECOND / 10;
                scene.take_over(true).as_secs()
            })
            .collect();
        assert_eq!(waits, [0, 0, 0, 1, 2, 4, 5, 5]);
        assert_eq!(scene.takeovers.wait(&digest(2), scene.now, scene.now), None, "another service");
        scene.now += 31 * SECOND;
        assert_eq!(scene.take_over(true), Duration::ZERO);
    }

    /// Those who come faster than the replaced client's kernel answers are two clients, too; if it has not answered for
    /// half a second it is taken for dead, until it does.
    #[test]
    fn who_is_still_to_be_heard_of_counts() {
        let waits = |answers_after| {
            let mut scene = Scene::new();
            scene.answers_after = answers_after;
            [(); 5].map(|()| scene.take_over(true).as_millis())
        };
        assert_eq!(waits(SECOND / 10), [0, 0, 0, 1000, 2000]);
        assert_eq!(waits(SECOND), [0, 0, 0, 500, 0]);
    }

    #[test]
    fn restarts_now_and_then_are_free() {
        let mut scene = Scene::new();
        for _ in 0..100 {
            scene.now += 11 * SECOND;
            assert_eq!(scene.take_over(true), Duration::ZERO);
        }
    }

    /// A single client that finds its own dead channels, at random times. In words: it never waits longer than half a
    /// second, and if it takes half a second to come again, not at all.
    #[test]
    fn a_client_behind_dead_channels_is_not_held_back() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut scene = Scene::new();
            let least = [0, 500][random.usize(..2)];
            for _ in 0..200 {
                scene.now += Duration::from_millis(least + random.u64(..1000));
                let waited = scene.take_over(false);
                assert!(waited <= DOUBT, "seed {seed}: {waited:?}");
                assert!(least == 0 || waited.is_zero(), "seed {seed}: {waited:?}");
                if random.bool() {
                    scene.takeovers.on_heard(&digest(1), scene.session, false);
                }
            }
        }
    }

    #[test]
    fn a_newcomer_that_gives_up_is_no_takeover() {
        let mut takeovers = Takeovers::<u32>::default();
        let now = Instant::now();
        for _ in 0..100 {
            assert!(takeovers.on_newcomer(digest(1), now));
            assert_eq!(takeovers.wait(&digest(1), now, now), None);
            takeovers.on_done(&digest(1));
        }
        assert_eq!(takeovers.0.len(), 0);
    }

    /// Two live clients that reconnect at once whenever they are replaced, and now and then find a dead channel. In
    /// words: however long they go on, in no half minute are there more than ten takeovers from live clients, nobody
    /// waits longer than five seconds, and little is kept of them.
    #[test]
    fn two_clients_do_not_flap() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut scene = Scene::new();
            let mut times = Vec::new();
            for _ in 0..200 {
                scene.now += Duration::from_millis(random.u64(100..1500));
                let is_live = random.u8(..10) > 0;
                assert!(scene.take_over(is_live) <= 5 * SECOND, "seed {seed}");
                if is_live {
                    times.push(scene.now);
                }
            }
            for first in &times {
                let within = times.iter().filter(|time| *time >= first && **time < *first + WINDOW);
                assert!(within.count() <= 10, "seed {seed}");
            }
            let service = scene.takeovers.0.get(&digest(1)).unwrap();
            assert!(service.takeovers.len() <= REMEMBERED);
            assert!(!service.is_of_use(scene.now + WINDOW));
        }
    }

    #[test]
    fn those_who_wait_are_bounded() {
        let mut takeovers = Takeovers::<u32>::default();
        let now = Instant::now();
        for _ in 0..MAX_WAITING {
            assert!(takeovers.on_newcomer(digest(1), now));
        }
        assert!(!takeovers.on_newcomer(digest(1), now));
        assert!(takeovers.on_newcomer(digest(2), now));
        takeovers.on_done(&digest(1));
        assert!(takeovers.on_newcomer(digest(1), now));
    }

    /// Services that reconnect at once do not look through one another; those that made peace are forgotten.
    #[test]
    fn ten_thousand_services_come_at_once() {
        let mut takeovers = Takeovers::default();
        let start = Instant::now();
        for round in 0..3u32 {
            let now = start + round * (WINDOW + SECOND);
            for n in 0..10_000 {
                let n = digest(round * 10_000 + n);
                assert!(takeovers.on_newcomer(n, now));
                takeovers.on_takeover(n, 1, now);
                takeovers.on_done(&n);
                takeovers.on_heard(&n, 1, true);
            }
            assert!(takeovers.0.len() <= 20_000, "{}", takeovers.0.len());
        }
        eprintln!("30,000 newcomers: {:.1?}", start.elapsed());
    }
}
