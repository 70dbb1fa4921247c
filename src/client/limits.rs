//! What a server may ask of a client, for one session: how many data channels are dialled, wait for a visitor, or wait
//! for their turn.
//!
//! What it decides: whether one more request is taken. What it never does: drop one that it took.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Data channels that are dialled at the same time.
const MAX_DIALS: usize = 64;

/// Data channels that are dialled or wait for a visitor.
const MAX_IDLE: usize = 1024;

/// Requests that wait for their turn; a server that asks for more is not in its right mind.
pub const MAX_QUEUED: usize = 4096;

/// Pause between two log lines about channels that could not be had.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// What the data channels of one session share.
#[derive(Debug)]
pub struct Limits {
    dials: Arc<Semaphore>,
    idle: Arc<Semaphore>,
    queued: AtomicUsize,
    complaints: Mutex<Complaints>,
}

/// A request that was taken.
#[derive(Debug)]
pub enum Request {
    /// It may be fulfilled at once.
    Due(Place),
    /// It has to wait for its turn.
    Queued,
}

/// The right to have a data channel that waits for its visitor.
#[derive(Debug)]
pub struct Place {
    /// Dropped when the dial is over.
    pub dial: OwnedSemaphorePermit,
    /// Dropped when the visitor has come.
    pub idle: OwnedSemaphorePermit,
}

impl Limits {
    /// Of a new session.
    pub fn new() -> Self {
        Limits {
            dials: Arc::new(Semaphore::new(MAX_DIALS)),
            idle: Arc::new(Semaphore::new(MAX_IDLE)),
            queued: AtomicUsize::new(0),
            complaints: Mutex::default(),
        }
    }

    /// The server asks for one more channel. None: too many wait already.
    pub fn take(&self) -> Option<Request> {
        // With a permit to be had at once nobody waits for one.
        if let (Ok(idle), Ok(dial)) =
            (self.idle.clone().try_acquire_owned(), self.dials.clone().try_acquire_owned())
        {
            return Some(Request::Due(Place { dial, idle }));
        }
        // Only the control channel's task adds.
        if self.queued.load(Ordering::Relaxed) >= MAX_QUEUED {
            return None;
        }
        self.queued.fetch_add(1, Ordering::Relaxed);
        Some(Request::Queued)
    }

    /// Waits for the request's turn. None: the session is over.
    pub async fn turn(&self, request: Request) -> Option<Place> {
        if let Request::Due(place) = request {
            return Some(place);
        }
        let idle = self.idle.clone().acquire_owned().await.ok()?;
        let dial = self.dials.clone().acquire_owned().await.ok()?;
        self.queued.fetch_sub(1, Ordering::Relaxed);
        Some(Place { dial, idle })
    }

    /// A channel could not be had. How many that makes since the last log line, if it is time for the next.
    pub fn complain(&self, now: Instant) -> Option<u64> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).add(now)
    }
}

/// Many failures, few lines.
#[derive(Debug, Default)]
struct Complaints {
    untold: u64,
    told: Option<Instant>,
}

impl Complaints {
    fn add(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < COMPLAINT_PAUSE) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Polls a future by hand.
    fn by_hand<F: Future>(future: F) -> impl FnMut() -> Poll<F::Output> {
        let mut future = Box::pin(future);
        move || future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    fn due(limits: &Limits) -> Place {
        match limits.take() {
            Some(Request::Due(place)) => place,
            other => panic!("{other:?}"),
        }
    }

    fn queued(limits: &Limits, n: usize) {
        for _ in 0..n {
            assert!(matches!(limits.take(), Some(Request::Queued)));
        }
    }

    #[test]
    fn dials_are_bounded_then_the_queue_then_no_more() {
        let limits = Limits::new();
        let _dialling: Vec<_> = (0..MAX_DIALS).map(|_| due(&limits)).collect();
        queued(&limits, MAX_QUEUED);
        assert!(limits.take().is_none());
    }

    #[test]
    fn waiting_channels_are_bounded_and_each_request_gets_its_turn() {
        let limits = Limits::new();
        let mut waiting: Vec<_> = (0..MAX_IDLE).map(|_| due(&limits).idle).collect();
        queued(&limits, MAX_QUEUED);
        assert!(limits.take().is_none());
        let mut turn = by_hand(limits.turn(Request::Queued));
        assert!(turn().is_pending());
        waiting.pop();
        let Poll::Ready(Some(_place)) = turn() else { panic!("its turn has come") };
        // Its place in the queue is free for another.
        queued(&limits, 1);
        assert!(limits.take().is_none());
    }

    /// Random failures over a virtual hour: at most one line in ten seconds, and every failure is in a line's count
    /// or still untold.
    #[test]
    fn complaints_are_few_and_complete() {
        let begin = Instant::now();
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut complaints, mut now) = (Complaints::default(), begin);
            let (mut failures, mut told, mut last) = (0, 0, None::<Instant>);
            while now < begin + Duration::from_secs(3600) {
                failures += 1;
                if let Some(n) = complaints.add(now) {
                    told += n;
                    assert!(last.is_none_or(|last| now - last >= COMPLAINT_PAUSE), "seed {seed}");
                    last = Some(now);
                }
                now += Duration::from_millis(random.u64(0..15_000));
            }
            assert_eq!(told + complaints.untold, failures, "seed {seed}");
        }
    }
}
