//! UDP visitors of one service: a [`Flows`] table with a timer and a [`Tally`] for each.
//!
//! What it keeps: every visitor that leaves the table is told of once, by `on_end` or by [`Table::into_tallies`]; an idle
//! one as soon as it is idle.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::flows::Flows;
use super::tally::{FlowEnd, OnEnd, Tally};

/// A visitor without traffic for this long is forgotten.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// Visitors, with what the side in question needs for each.
#[derive(Debug)]
pub(super) struct Table<V> {
    flows: Flows<Entry<V>>,
    /// None while there is no visitor.
    expiry: Option<Pin<Box<Sleep>>>,
}

/// A visitor.
#[derive(Debug)]
pub(super) struct Entry<V> {
    pub(super) value: V,
    pub(super) tally: Tally,
}

impl<V> Table<V> {
    pub(super) fn new(most: usize) -> Self {
        Table { flows: Flows::new(most, IDLE), expiry: None }
    }

    /// The visitor, if it is there and not idle; it is used now.
    pub(super) fn touch(&mut self, visitor: SocketAddr, now: std::time::Instant) -> Option<&mut Entry<V>> {
        let entry = self.flows.touch(visitor, now)?;
        entry.tally.last = now;
        Some(entry)
    }

    /// The visitor, if it is there.
    pub(super) fn get_mut(&mut self, visitor: SocketAddr) -> Option<&mut Entry<V>> {
        self.flows.get_mut(visitor)
    }

    /// The visitor that was touched or inserted last.
    pub(super) fn newest_mut(&mut self) -> Option<&mut Entry<V>> {
        self.flows.newest_mut()
    }

    /// Adds a visitor that could not be touched.
    pub(super) fn insert(
        &mut self,
        visitor: SocketAddr,
        value: V,
        now: std::time::Instant,
        on_end: OnEnd<'_>,
    ) {
        // First: nobody is pushed out while others are idle; the same visitor, if idle, ends and begins anew.
        self.expire(now, on_end);
        let entry = Entry { value, tally: Tally::new(visitor, now) };
        if let Some(evicted) = self.flows.insert(visitor, entry, now) {
            on_end(evicted.tally, FlowEnd::PushedOut);
        }
    }

    /// Takes so many visitors from now on; the ones unused for the longest time make room.
    pub(super) fn set_most(&mut self, most: usize, on_end: OnEnd<'_>) {
        self.flows.set_capacity(most);
        while self.flows.len() > most.max(1) {
            self.evict(on_end);
        }
    }

    /// Removes the visitor unused for the longest time; false: there is none.
    pub(super) fn evict(&mut self, on_end: OnEnd<'_>) -> bool {
        let evicted = self.flows.evict();
        let found = evicted.is_some();
        if let Some(Entry { tally, .. }) = evicted {
            on_end(tally, FlowEnd::PushedOut);
        }
        found
    }

    /// Removes visitors as they become idle.
    pub(super) fn poll_expiry(&mut self, cx: &mut Context<'_>, on_end: OnEnd<'_>) {
        while let Some(next) = self.flows.next_expiry() {
            let expiry = self.expiry.get_or_insert_with(|| Box::pin(sleep_until(Instant::from_std(next))));
            if expiry.as_mut().poll(cx).is_pending() {
                return;
            }
            self.expire(Instant::now().into_std(), on_end);
            self.expiry = None;
        }
        self.expiry = None;
    }

    /// Those who are still there, the one unused for the longest time first.
    pub(super) fn into_tallies(mut self) -> impl Iterator<Item = Tally> {
        std::iter::from_fn(move || self.flows.evict().map(|entry| entry.tally))
    }

    fn expire(&mut self, now: std::time::Instant, on_end: OnEnd<'_>) {
        self.flows.expire(now, &mut |entry| on_end(entry.tally, FlowEnd::Idle(IDLE)));
    }
}

#[cfg(test)]
impl<V> Table<V> {
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether nobody is there, and no timer.
    pub(super) fn is_at_rest(&self) -> bool {
        self.flows.is_empty() && self.expiry.is_none()
    }
}
