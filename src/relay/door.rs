//! Who may use a UDP service. It may change while datagrams are carried, and what is refused is counted for the log.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::config::Access;

/// Visitors of one service at a time, whatever is configured: a table of them is kept.
const MOST: usize = 4096;

/// Who may come, and how many.
#[derive(Debug, Clone)]
pub struct Terms {
    /// By address.
    pub access: Access,
    /// Visitors at a time.
    pub most: usize,
}

impl Terms {
    /// How many the table takes.
    pub(super) fn most(&self) -> usize {
        self.most.min(MOST)
    }
}

impl Default for Terms {
    /// Everyone, as many as there can be.
    fn default() -> Self {
        Terms { access: Access::default(), most: MOST }
    }
}

/// What was refused since it was last asked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Turned {
    /// Datagrams of those who may not come.
    pub away: u64,
    /// Visitors pushed out by newer ones.
    pub out: u64,
}

/// The terms of a service, shared by its task and the relay of its datagrams.
#[derive(Debug, Default)]
pub struct Door {
    terms: Mutex<Arc<Terms>>,
    away: AtomicU64,
    out: AtomicU64,
    changed: Notify,
}

impl Door {
    /// With these terms.
    pub fn new(terms: Terms) -> Self {
        Door { terms: Mutex::new(Arc::new(terms)), ..Door::default() }
    }

    /// Other terms from now on.
    pub fn set(&self, terms: Terms) {
        *self.lock() = Arc::new(terms);
    }

    /// Waits until something was refused.
    pub async fn turned(&self) -> Turned {
        loop {
            let turned = self.untold();
            if turned.away + turned.out > 0 {
                return turned;
            }
            self.changed.notified().await;
        }
    }

    /// What came to pass since it was last asked for, if anything.
    pub fn untold(&self) -> Turned {
        let [away, out] = [&self.away, &self.out].map(|count| count.swap(0, Ordering::Relaxed));
        Turned { away, out }
    }

    /// A visitor was pushed out by a newer one.
    pub fn turned_out(&self) {
        self.count(&self.out);
    }

    pub(super) fn terms(&self) -> Arc<Terms> {
        self.lock().clone()
    }

    /// Whether this address may come, by the terms that the caller holds.
    pub(super) fn admits(&self, terms: &Terms, ip: IpAddr) -> bool {
        let admits = terms.access.admits(ip);
        if !admits {
            self.count(&self.away);
        }
        admits
    }

    fn count(&self, which: &AtomicU64) {
        if which.fetch_add(1, Ordering::Relaxed) == 0 {
            self.changed.notify_one();
        }
    }

    /// The guard is never held across an await. A panic elsewhere leaves the terms whole.
    fn lock(&self) -> MutexGuard<'_, Arc<Terms>> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
