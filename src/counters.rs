//! What an instance has done and is doing, in numbers that anyone may read at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counters of one role. Up is from visitors to local services, down the way back. Bytes are payload.
#[derive(Debug, Default)]
pub struct Counters {
    /// Visitors (TCP) that were given a relay.
    pub visitors: AtomicU64,
    /// Relays that are running now.
    pub relays: AtomicU64,
    /// Bytes from visitors.
    pub up: AtomicU64,
    /// Bytes to visitors.
    pub down: AtomicU64,
    /// Microseconds from accept to the first byte back, of the last visitor; 0: none yet.
    pub first_byte_us: AtomicU64,
    /// Visitors reset because no data channel came, or no client was there.
    pub unserved: AtomicU64,
    /// Visitors (TCP) and datagrams (UDP) whose addresses `allow` and `deny` keep out.
    pub denied: AtomicU64,
    /// Visitors reset, and data channels closed, because their service has as many as it may have.
    pub over_limit: AtomicU64,
    /// Datagrams dropped: full queue, full table, unsendable, not from a known visitor.
    pub dropped_datagrams: AtomicU64,
    /// Connections closed before they were authenticated: garbage, silence, wrong token.
    pub rejected: AtomicU64,
    /// Among them: wrong token, or a service that does not exist.
    pub failed_authentications: AtomicU64,
    /// Among them: dropped for newer ones, or because no descriptors were left.
    pub crowded_out: AtomicU64,
    /// Clients that proved their token and were refused, because another is alive (`on_duplicate = "refuse"`).
    pub duplicates: AtomicU64,
    /// Control channels that are authenticated now.
    pub channels: AtomicU64,
}

impl Counters {
    /// Adds.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Relaxed);
    }

    /// Counts a relay as running until the guard is dropped, however its task ends.
    pub fn running(self: &Arc<Self>) -> Held {
        self.hold(|counters| &counters.relays)
    }

    /// Counts a control channel as authenticated until the guard is dropped, however its task ends.
    pub fn connected(self: &Arc<Self>) -> Held {
        self.hold(|counters| &counters.channels)
    }

    fn hold(self: &Arc<Self>, which: fn(&Counters) -> &AtomicU64) -> Held {
        Counters::add(which(self), 1);
        Held { counters: self.clone(), which }
    }

    /// Notes the time to a visitor's first byte.
    pub fn first_byte(&self, after: Duration) {
        self.first_byte_us.store((after.as_micros() as u64).max(1), Relaxed);
    }
}

/// Something that is counted for as long as this lives.
#[derive(Debug)]
pub struct Held {
    counters: Arc<Counters>,
    which: fn(&Counters) -> &AtomicU64,
}

impl Drop for Held {
    fn drop(&mut self) {
        (self.which)(&self.counters).fetch_sub(1, Relaxed);
    }
}
