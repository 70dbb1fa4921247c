//! Data channels that were asked for and have not come. Pure.
//!
//! v1 tells nothing of a request that the client cannot fulfil, so time must tell. What it keeps: a request counts for 10 s at
//! most, and less while visitors wait and nothing comes at all; a client is never asked for more than it can queue; one
//! whose channels die as they come is asked ever more slowly.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A request that brought no channel for this long is taken as lost: a client gives up after 10 s of dialling, without
/// a word (protocol-v1.md, section 5.1).
pub const LIFE: Duration = Duration::from_secs(10);

/// With visitors waiting and no channel coming at all, requests of this age are taken as lost; the next time the double.
pub const HURRY: Duration = Duration::from_millis(2500);

/// A client queues this many requests (protocol-v1.md, section 1.8), those that we think are lost included.
pub const MOST: usize = 4096;

/// After this long a lost request is not in the client's queue any more.
const FORGET: Duration = Duration::from_secs(60);

/// A channel that died this soon after it came was never alive.
pub const EARLY: Duration = Duration::from_secs(3);

/// What an early death costs: in the long run a client is asked for a new channel once in this time ...
const PENALTY: Duration = Duration::from_millis(500);

/// ... after 16 that were free.
const FREE: Duration = Duration::from_secs(8);

/// The longest pause, however many have died.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// The requests to one client.
#[derive(Debug, Clone)]
pub struct Requests {
    /// When each was made that may still bring a channel; oldest first.
    live: VecDeque<Instant>,
    /// The same of those taken as lost, which the client may still have in its queue.
    lost: VecDeque<Instant>,
    /// When a channel last came, or requests were last given up.
    heard: Instant,
    /// How long nothing may come while visitors wait.
    patience: Duration,
    /// What early deaths have cost lies in the future, more than [`FREE`] of it is waited for.
    penalty: Instant,
}

impl Requests {
    /// None yet.
    pub fn new(now: Instant) -> Self {
        Requests { live: VecDeque::new(), lost: VecDeque::new(), heard: now, patience: HURRY, penalty: now }
    }

    /// Requests that may still bring a channel.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// Notes as many new requests, of those wanted, as may be made now.
    pub fn ask(&mut self, wanted: usize, now: Instant) -> usize {
        if self.resumes(now).is_some() {
            return 0;
        }
        let granted = wanted.min(MOST.saturating_sub(self.live.len() + self.lost.len()));
        self.live.extend(std::iter::repeat_n(now, granted));
        granted
    }

    /// A channel came.
    pub fn on_channel(&mut self, now: Instant) {
        if self.live.pop_front().is_none() {
            self.lost.pop_front();
        }
        (self.heard, self.patience) = (now, HURRY);
    }

    /// A channel died soon after it had come.
    pub fn on_early_death(&mut self, now: Instant) {
        self.penalty = (self.penalty.max(now) + PENALTY).min(now + FREE + LONGEST_PAUSE);
    }

    /// Time has passed; visitors wait since `waiting`, if any do.
    pub fn on_time(&mut self, waiting: Option<Instant>, now: Instant) {
        let mut life = LIFE;
        if self.hurries_at(waiting).is_some_and(|at| at <= now) {
            (life, self.heard) = (HURRY, now);
            self.patience = (self.patience * 2).min(LIFE);
        }
        let given_up = self.live.partition_point(|made| *made + life <= now);
        self.lost.extend(self.live.drain(..given_up));
        let forgotten = self.lost.partition_point(|made| *made + FORGET <= now);
        self.lost.drain(..forgotten);
    }

    /// When [`Requests::on_time`] is next of use; `more`: more is wanted than was granted.
    pub fn next(&self, waiting: Option<Instant>, more: bool, now: Instant) -> Option<Instant> {
        let expiry = self.live.front().map(|made| *made + LIFE);
        let again =
            self.resumes(now).or_else(|| self.lost.front().map(|made| *made + FORGET)).filter(|_| more);
        [expiry, self.hurries_at(waiting), again].into_iter().flatten().min()
    }

    /// When a client whose channels die as they come may be asked again; None: now.
    fn resumes(&self, now: Instant) -> Option<Instant> {
        let at = self.penalty.checked_sub(FREE)?;
        (at > now).then_some(at)
    }

    fn hurries_at(&self, waiting: Option<Instant>) -> Option<Instant> {
        Some(waiting?.max(self.heard) + self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_request_lives_for_ten_seconds_when_nobody_waits() {
        let now = Instant::now();
        let mut requests = Requests::new(now);
        assert_eq!(requests.ask(8, now), 8);
        assert_eq!(requests.next(None, false, now), Some(now + LIFE));
        requests.on_time(None, now + LIFE - SECOND);
        assert_eq!(requests.live(), 8);
        requests.on_time(None, now + LIFE);
        assert_eq!(requests.live(), 0);
    }

    #[test]
    fn while_visitors_wait_and_nothing_comes_it_is_given_up_sooner() {
        let now = Instant::now();
        let mut requests = Requests::new(now);
        requests.ask(9, now);
        let mut given_up = Vec::new();
        for tenth in 1..=100 {
            let at = now + tenth * SECOND / 10;
            requests.on_time(Some(now), at);
            if requests.ask(9 - requests.live(), at) > 0 {
                given_up.push(tenth);
            }
        }
        assert_eq!(given_up, [25, 75]);
        // As long as channels come the client is at work.
        let mut requests = Requests::new(now);
        requests.ask(9, now);
        for second in 1..9 {
            requests.on_channel(now + second * SECOND);
            requests.on_time(Some(now), now + second * SECOND);
            assert_eq!(requests.live(), 9 - second as usize);
        }
    }

    #[test]
    fn a_client_is_never_asked_for_more_than_it_can_queue() {
        let start = Instant::now();
        let mut requests = Requests::new(start);
        let mut made: Vec<Instant> = Vec::new();
        for second in 0..200 {
            let now = start + second * SECOND;
            requests.on_time(Some(start), now);
            let granted = requests.ask(3000 - requests.live().min(3000), now);
            made.extend(std::iter::repeat_n(now, granted));
            let queued = made.iter().filter(|made| **made + FORGET > now).count();
            assert!(queued <= MOST, "{queued} after {second} s");
        }
        assert!(made.len() > 2 * MOST, "in the end it is asked again");
    }

    #[test]
    fn who_opens_and_closes_at_once_is_asked_ever_more_slowly() {
        let start = Instant::now();
        let mut requests = Requests::new(start);
        let mut asked = 0;
        // A client that answers within a millisecond, for a minute.
        for ms in 0..60_000 {
            let now = start + Duration::from_millis(ms);
            if requests.ask(8, now) > 0 {
                asked += 8;
                (0..8).for_each(|_| requests.on_channel(now));
                (0..8).for_each(|_| requests.on_early_death(now));
            }
        }
        assert!((100..=160).contains(&asked), "{asked}");
        // Then it is well again.
        let later = start + Duration::from_secs(60) + LONGEST_PAUSE;
        assert_eq!(requests.ask(8, later), 8);
    }
}
