//! What a reload has replaced, the key or the root that the other side may still have: it is good for a while.
//!
//! What it decides: what is tried besides what is in force now, in which order, until when. What it never does: accept
//! less than the present settings do. Where those check the peer, a former one that did not is worth nothing; neither is
//! one of another transport, or for another server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::{Acceptor, Connector, Layer, Stream};

/// Whether there is a transport that checks its peer.
const CHECKED: bool = cfg!(any(feature = "tls", feature = "noise"));

/// So many former settings are kept; more changes than that within a grace are hardly meant.
const MOST: usize = 2;

/// What is in force, by its place among the choices; former settings have the places after it, the newest first.
const PRESENT: usize = 0;

/// Former settings, each with the time when it is worth nothing any more. Clones share what worked last.
#[derive(Debug, Clone)]
pub(super) struct Former<T> {
    list: Vec<(T, Instant)>,
    last: Arc<AtomicUsize>,
}

impl<T> Default for Former<T> {
    fn default() -> Self {
        Former { list: Vec::new(), last: Arc::default() }
    }
}

impl<T: Clone> Former<T> {
    /// After a reload. `replaced` is what was in force before, if it is another one now; `older` is what was former
    /// already. All of it is good until `until`, what is older perhaps less long.
    pub(super) fn after(
        replaced: Option<&T>,
        older: &Self,
        now: Instant,
        until: Instant,
        fits: impl Fn(&T) -> bool,
    ) -> Self {
        let replaced = replaced.map(|former| (former, until));
        let older = older.list.iter().map(|(former, end)| (former, until.min(*end)));
        let list = replaced
            .into_iter()
            .chain(older)
            .filter(|(former, end)| now < *end && fits(former))
            .map(|(former, end)| (former.clone(), end))
            .take(MOST)
            .collect();
        Former { list, ..Former::default() }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        !CHECKED || self.list.is_empty()
    }

    /// Those that are still good, the newest first.
    #[cfg(any(feature = "noise", test))]
    pub(super) fn good(&self, now: Instant) -> impl Iterator<Item = &T> {
        self.list.iter().filter(move |(_, end)| now < *end).map(|(former, _)| former)
    }

    /// What to try, one after the other: what worked last, then the rest, what is in force before what was. None stands
    /// for what is in force.
    fn choices(&self, now: Instant) -> Vec<(usize, Option<&T>)> {
        let former = self.list.iter().enumerate().filter(|(_, (_, end))| now < *end);
        let mut choices = vec![(PRESENT, None)];
        choices.extend(former.map(|(at, (former, _))| (PRESENT + 1 + at, Some(former))));
        let last = self.last.load(Ordering::Relaxed);
        choices.sort_by_key(|(place, _)| *place != last);
        choices
    }

    /// One of the choices worked; says whether it was another one than the last time.
    fn worked(&self, place: usize) -> bool {
        self.last.swap(place, Ordering::Relaxed) != place
    }
}

impl Connector {
    /// Takes the place of `old` in a reload. If `changed` (the transport's settings are others), then what `old` would
    /// have connected with is still good until `until`, for a server that has not changed its key yet; so is what `old`
    /// itself had from earlier reloads, but no longer than it was promised then.
    pub fn succeed(&mut self, old: &Connector, changed: bool, until: Instant) {
        let replaced = changed.then_some(&old.layer);
        let same_server = self.remote == old.remote;
        let fits = |former: &Layer| same_server && former.is_as_strict_as(&self.layer);
        // A build without any transport that checks a server does without the rest of this file.
        if CHECKED {
            self.former = Former::after(replaced, &old.former, Instant::now(), until, fits);
        }
    }

    /// Connects with what is in force, or was.
    pub(super) async fn connect_in_transition(
        &self,
        addresses: &[SocketAddr],
        nodelay: bool,
    ) -> io::Result<Stream> {
        let mut fault = None;
        for (place, former) in self.former.choices(Instant::now()) {
            let tcp = match self.open(addresses, nodelay).await {
                Ok(tcp) => tcp,
                Err(error) => return Err(fault.unwrap_or(error)),
            };
            match former.unwrap_or(&self.layer).connect(tcp).await {
                Ok(stream) => {
                    if self.former.worked(place) {
                        let server = &self.remote;
                        match former {
                            None => tracing::info!(%server, "the server has the key or certificate of now"),
                            Some(_) => tracing::info!(
                                %server,
                                "the server still has the key or certificate of before, which is accepted within token_grace"
                            ),
                        }
                    }
                    return Ok(stream);
                }
                // What is wrong with the present settings is what must be put right.
                Err(error) if place == PRESENT => fault = Some(error),
                Err(error) => fault = fault.or(Some(error)),
            }
        }
        Err(fault.unwrap_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

impl Layer {
    /// Whether this, a former one, proves of the server no less than `present` does.
    fn is_as_strict_as(&self, present: &Layer) -> bool {
        match (self, present) {
            #[cfg(feature = "tls")]
            (Layer::Tls(_), Layer::Tls(_)) => true,
            #[cfg(feature = "noise")]
            (Layer::Noise(former), Layer::Noise(present)) => former.checks_peer() || !present.checks_peer(),
            #[cfg(all(feature = "websocket", feature = "tls"))]
            (Layer::WebSocket(former), Layer::WebSocket(present)) => former.has_tls() && present.has_tls(),
            _ => false,
        }
    }
}

impl Acceptor {
    /// Takes the place of `old` in a reload. If `changed` (the transport's settings are others), then clients with the
    /// key that `old` wanted are still taken until `until`, where the transport can tell.
    #[cfg_attr(not(feature = "noise"), allow(unused_variables))]
    pub fn succeed(&mut self, old: &Acceptor, changed: bool, until: Instant) {
        match (self, old) {
            #[cfg(feature = "noise")]
            (Acceptor::Noise(present), Acceptor::Noise(old)) => present.succeed(old, changed, until),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn places(former: &Former<u32>, now: Instant) -> Vec<Option<&u32>> {
        former.choices(now).into_iter().map(|(_, choice)| choice).collect()
    }

    #[test]
    fn what_worked_last_is_tried_first_until_its_end() {
        let now = Instant::now();
        let until = now + Duration::from_secs(10);
        let former = Former::after(Some(&1), &Former::default(), now, until, |_| true);
        assert_eq!(places(&former, now), [None, Some(&1)]);
        assert!(!former.worked(PRESENT));
        assert!(former.worked(1) && !former.clone().worked(1));
        assert_eq!(places(&former, now), [Some(&1), None]);
        assert_eq!(places(&former, until - Duration::from_nanos(1)), [Some(&1), None]);
        assert_eq!(places(&former, until), [None]);
        assert_eq!(former.good(until).count(), 0);
    }

    /// Random reloads. In words:
    /// - what is in force is always tried;
    /// - a former one is tried only while the time that it was promised at its replacement is not over, and no
    ///   later reload has promised less;
    /// - what does not fit is never tried;
    /// - the newest is tried until its end;
    /// - never more than a few.
    #[test]
    fn random_reloads_never_prolong_a_former_one() {
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut now = Instant::now();
            let mut former = Former::default();
            let mut present = 0u32;
            // By value: until when it is good.
            let mut promised: Vec<(u32, Instant)> = Vec::new();
            for step in 1..40 {
                now += Duration::from_millis(random.u64(..5000));
                let until = now + Duration::from_secs([0, 1, 5, 300][random.usize(..4)]);
                let changed = random.bool();
                let odd_only = random.u8(..10) == 0;
                let fits = |value: &u32| !odd_only || value % 2 == 1;
                let newest = changed.then_some(present);
                former = Former::after(newest.as_ref(), &former, now, until, fits);
                for (_, end) in &mut promised {
                    *end = until.min(*end);
                }
                if let Some(newest) = newest {
                    promised.push((newest, until));
                    present = step;
                }
                promised.retain(|(value, _)| fits(value));
                let chosen = random.usize(..4);
                former.worked(chosen);
                let later = now + Duration::from_millis(random.u64(..3000));
                let tried = places(&former, later);
                assert!(tried.contains(&None), "seed {seed} step {step}");
                assert!(tried.len() <= 1 + MOST, "seed {seed} step {step}");
                let alive: Vec<_> =
                    promised.iter().rev().filter(|(_, end)| later < *end).map(|(value, _)| value).collect();
                for value in tried.iter().flatten() {
                    assert!(alive.contains(value), "seed {seed} step {step}: {value} of {alive:?}");
                }
                let newest = newest.filter(|newest| fits(newest) && later < until);
                assert!(
                    newest.is_none_or(|newest| tried.contains(&Some(&newest))),
                    "seed {seed} step {step}"
                );
            }
        }
    }
}
