//! The door: where strangers wait until they are known, what becomes of them, and who is told.
//!
//! The decisions are pure ([`Gate`], [`Strangers`], [`Junk`]); here are their locks, the log lines, and the reserved
//! descriptors. No guard is held across an await. A panic elsewhere leaves the tables whole: each change is one call.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};

use super::forgetful::Forgetful;
use super::gate::{Cap, Gate, Place, Source};
use super::junk::{Junk, Kind};
use super::seldom::Seldom;
use super::strangers::{Line, Strangers};
use crate::config::MaxUnauthenticated;
use crate::counters::Counters;
use crate::transport::tcp;

/// Descriptors kept for the day when there are no others: one, by which who comes is reset instead of left in silence,
/// the rest for clients, because visitors who hold all others are waiting for just them.
const RESERVE: usize = 8;

/// What all listeners and sessions share.
#[derive(Debug)]
pub struct Door {
    gate: Mutex<Gate<oneshot::Sender<Kind>>>,
    strangers: Mutex<Strangers>,
    junk: Mutex<Junk>,
    /// Lines about services that would otherwise come without end.
    seldom: Mutex<Forgetful<(Complaint, Arc<str>), Seldom>>,
    /// At most [`RESERVE`].
    reserve: Mutex<Vec<OwnedFd>>,
    /// Whether some of the reserve is missing.
    is_short: AtomicBool,
    /// A guest has left.
    left: Notify,
    /// There is something to tell, sooner or later.
    news: Notify,
    counters: Arc<Counters>,
}

impl Door {
    /// With nobody there.
    pub fn new(counters: Arc<Counters>) -> Self {
        Door {
            gate: Mutex::default(),
            strangers: Mutex::default(),
            junk: Mutex::default(),
            seldom: Mutex::default(),
            reserve: Mutex::new(std::iter::from_fn(spare).take(RESERVE).collect()),
            is_short: AtomicBool::new(false),
            left: Notify::new(),
            news: Notify::new(),
            counters,
        }
    }

    /// A connection was accepted: it is a guest until it is authenticated. For it others may have to go.
    pub fn enter(self: &Arc<Self>, peer: SocketAddr, most: MaxUnauthenticated) -> Guest {
        let source = Source::of(peer.ip());
        let (end, gone) = oneshot::channel();
        let (place, out) = lock(&self.gate).enter(source, end, most);
        for (end, cap) in out {
            // Whoever has just gone need not be told.
            let _ = end.send(Kind::Dropped(cap));
        }
        Guest { door: self.clone(), place, since: Instant::now(), gone }
    }

    /// A control channel of this peer was authenticated; until the guard is dropped.
    pub fn acquaint(self: &Arc<Self>, peer: SocketAddr) -> Acquaintance {
        let source = Source::of(peer.ip());
        lock(&self.gate).on_channel(source);
        Acquaintance { door: self.clone(), source }
    }

    /// No descriptors are left: tries once more with one of the reserve. If somebody is there, the oldest guest goes for
    /// him; if there is none, a client may still keep the descriptor, unless it is the last, and whoever else came is
    /// reset. (A failure alone says nothing: the kernel looks for a descriptor before it looks who waits.)
    pub fn accept_anyway(
        &self,
        is_client: bool,
        accept: impl FnOnce() -> Poll<io::Result<Accepted>>,
    ) -> Poll<Anyway> {
        let mut reserve = lock(&self.reserve);
        self.is_short.store(true, Ordering::Relaxed);
        if reserve.pop().is_none() {
            return Poll::Ready(Anyway::Nobody);
        }
        let accepted = match accept() {
            Poll::Ready(Ok(accepted)) => accepted,
            other => {
                reserve.extend(spare());
                return other.map(|_| Anyway::Nobody);
            }
        };
        if let Some(end) = lock(&self.gate).drop_oldest() {
            // His descriptor is for the reserve, as soon as his task has closed it.
            let _ = end.send(Kind::Descriptors);
        } else if !is_client || reserve.is_empty() {
            tcp::reset_on_drop(&accepted.0);
            drop(accepted);
            reserve.extend(spare());
            return Poll::Ready(Anyway::Refused);
        }
        Poll::Ready(Anyway::Accepted(accepted))
    }

    /// Completes when a guest has left since this was called: there may be a descriptor.
    pub fn left(&self) -> Notified<'_> {
        self.left.notified()
    }

    /// Fills up the reserve, if it is not full and there are descriptors again.
    pub fn refill(&self) {
        if self.is_short.load(Ordering::Relaxed) {
            let mut reserve = lock(&self.reserve);
            while reserve.len() < RESERVE {
                let Some(fd) = spare() else { return };
                reserve.push(fd);
            }
            self.is_short.store(false, Ordering::Relaxed);
        }
    }

    /// Says how long the answer to a failed authentication is held back.
    pub fn on_failure(&self, peer: SocketAddr, service: Option<&str>) -> Duration {
        Counters::add(&self.counters.rejected, 1);
        Counters::add(&self.counters.failed_authentications, 1);
        let verdict = lock(&self.strangers).on_failure(peer, now());
        self.news.notify_one();
        let why = if service.is_some() { "wrong token" } else { "no service of this name" };
        let service = service.map(tracing::field::display);
        match verdict.tell {
            true => tracing::info!(service, %peer, failures = 1, "authentication failed: {why}"),
            false => tracing::debug!(service, %peer, "authentication failed: {why}"),
        }
        verdict.delay
    }

    /// A connection turned out to be nobody's.
    pub fn on_junk(&self, kind: Kind, peer: SocketAddr) {
        Counters::add(&self.counters.rejected, 1);
        if matches!(kind, Kind::Dropped(_) | Kind::Descriptors) {
            Counters::add(&self.counters.crowded_out, 1);
        }
        lock(&self.junk).add(kind, Source::of(peer.ip()), now());
        self.news.notify_one();
    }

    /// Something about a service that is told once a minute, perhaps but for the first few: how often it was since it was
    /// told last, if that is now.
    pub fn complain(&self, what: Complaint, service: &Arc<str>) -> Option<u64> {
        let now = now();
        let mut seldom = lock(&self.seldom);
        let seldom = seldom.entry((what, service.clone()), |seldom| !seldom.is_old(now));
        seldom.on_event_of(what.at_once(), now)
    }

    /// Tells, from time to time, of what was only counted. Sleeps while there is nothing.
    pub async fn tell(self: Arc<Self>) {
        loop {
            self.news.notified().await;
            while !(lock(&self.strangers).is_empty() && lock(&self.junk).is_empty()) {
                sleep(Duration::from_secs(1)).await;
                let (lines, junk) = (lock(&self.strangers).on_time(now()), lock(&self.junk).on_time(now()));
                tell(&lines, junk);
            }
        }
    }

    /// Tells what was not told yet: the server stops.
    pub fn tell_rest(&self) {
        let (lines, junk) = (lock(&self.strangers).on_end(), lock(&self.junk).on_end());
        tell(&lines, junk);
    }
}

/// What is told of a service once a minute at most, but for the first few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Complaint {
    /// A client was refused because another one is alive.
    Duplicate,
    /// A data channel was closed because too many are waiting.
    TooManyChannels,
    /// A client has taken another one's place.
    Replaced,
    /// A client must wait for another one's place.
    HeldBack,
    /// A client has come.
    Connected,
    /// A client has gone.
    Lost,
}

impl Complaint {
    /// So many have a line each: whoever has the token can make more of them without end.
    fn at_once(self) -> u32 {
        match self {
            Complaint::Duplicate | Complaint::TooManyChannels => 1,
            Complaint::Replaced | Complaint::HeldBack => 10,
            // On a bad link they are of interest for longer.
            Complaint::Connected | Complaint::Lost => 30,
        }
    }
}

/// A connection and its peer.
pub type Accepted = (TcpStream, SocketAddr);

/// What comes of accepting without descriptors.
#[derive(Debug)]
pub enum Anyway {
    /// Somebody, with one of the reserve.
    Accepted(Accepted),
    /// Who came was reset.
    Refused,
    /// Nobody could be accepted.
    Nobody,
    /// Nobody was there. By now somebody may be, and there may be descriptors.
    Idle,
}

/// A connection that has not proven anything. Dropped: it is authenticated, or gone.
#[derive(Debug)]
pub struct Guest {
    door: Arc<Door>,
    place: Place,
    /// When it was accepted.
    pub since: Instant,
    gone: oneshot::Receiver<Kind>,
}

impl Guest {
    /// Completes when the guest must go.
    pub async fn told_to_go(&mut self) -> Kind {
        match (&mut self.gone).await {
            Ok(kind) => kind,
            // Its place was given up without a word: nobody does.
            Err(_) => Kind::Dropped(Cap::Total),
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        lock(&self.door.gate).leave(self.place);
        self.door.refill();
        self.door.left.notify_waiters();
    }
}

/// A control channel, as the door knows it: while it is there, its address may have any number of guests.
#[derive(Debug)]
pub struct Acquaintance {
    door: Arc<Door>,
    source: Source,
}

impl Drop for Acquaintance {
    fn drop(&mut self) {
        lock(&self.door.gate).on_channel_end(self.source);
    }
}

/// What was only counted is told without its reasons.
fn tell(lines: &[Line], junk: Option<String>) {
    for Line { peer, failures } in lines {
        match peer {
            Some(peer) => tracing::info!(%peer, failures, "authentication failed again"),
            None => tracing::info!(failures, "authentication failed, at more addresses than are told apart"),
        }
    }
    if let Some(junk) = junk {
        tracing::info!("{junk}");
    }
}

/// The cheapest descriptor that needs no file system.
fn spare() -> Option<OwnedFd> {
    UnixDatagram::unbound().ok().map(OwnedFd::from)
}

/// The clock of tokio, which a test can turn.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
