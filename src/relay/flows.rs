//! A table of UDP flows: bounded, the longest unused goes first. No I/O; `now` is an argument.
//!
//! Invariants: never more than `capacity` flows; one that was used within `idle` is only lost to make room for another,
//! and then it is the one used longest ago; every operation is O(1) but for [`Flows::expire`], which is O(1) for
//! each flow that it removes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

/// No node.
const NONE: usize = usize::MAX;

/// Values by visitor address. Flow label and scope of an IPv6 address are not part of it: frames do not carry them.
#[derive(Debug)]
pub struct Flows<V> {
    capacity: usize,
    idle: Duration,
    places: HashMap<SocketAddr, usize>,
    /// A doubly linked list in order of use.
    nodes: Vec<Node<V>>,
    newest: usize,
    oldest: usize,
}

#[derive(Debug)]
struct Node<V> {
    key: SocketAddr,
    value: V,
    used: Instant,
    newer: usize,
    older: usize,
}

impl<V> Flows<V> {
    /// An empty table for at least one flow; it takes no memory yet.
    pub fn new(capacity: usize, idle: Duration) -> Self {
        Flows {
            capacity: capacity.max(1),
            idle,
            places: HashMap::new(),
            nodes: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    /// Takes so many flows from now on, at least one. Those that are too many are still there: see [`Flows::evict`].
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity.max(1);
    }

    /// Flows in the table, idle ones that were not expired included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The flow's value, if it is not idle; it counts as used now.
    pub fn touch(&mut self, address: SocketAddr, now: Instant) -> Option<&mut V> {
        let place = *self.places.get(&key(address))?;
        if now.saturating_duration_since(self.nodes.get(place)?.used) >= self.idle {
            return None;
        }
        self.use_now(place, now);
        Some(&mut self.nodes.get_mut(place)?.value)
    }

    /// The flow's value, idle or not; that does not count as use.
    pub fn get_mut(&mut self, address: SocketAddr) -> Option<&mut V> {
        let place = *self.places.get(&key(address))?;
        Some(&mut self.nodes.get_mut(place)?.value)
    }

    /// The value of the flow that was used last.
    pub fn newest_mut(&mut self) -> Option<&mut V> {
        Some(&mut self.nodes.get_mut(self.newest)?.value)
    }

    /// Adds or replaces a flow, used now. Gives what had to leave: the same flow's old value, or, when the table was
    /// full, the flow used longest ago.
    pub fn insert(&mut self, address: SocketAddr, value: V, now: Instant) -> Option<V> {
        let key = key(address);
        if let Some(&place) = self.places.get(&key) {
            self.use_now(place, now);
            return self.nodes.get_mut(place).map(|node| std::mem::replace(&mut node.value, value));
        }
        let evicted = if self.nodes.len() >= self.capacity { self.evict() } else { None };
        let place = self.nodes.len();
        self.nodes.push(Node { key, value, used: now, newer: NONE, older: NONE });
        self.places.insert(key, place);
        self.link(place);
        evicted
    }

    /// Removes a flow.
    pub fn remove(&mut self, address: SocketAddr) -> Option<V> {
        match self.places.entry(key(address)) {
            Entry::Occupied(entry) => {
                let place = entry.remove();
                self.take(place)
            }
            Entry::Vacant(_) => None,
        }
    }

    /// Removes the flow used longest ago.
    pub fn evict(&mut self) -> Option<V> {
        let key = self.nodes.get(self.oldest)?.key;
        self.remove(key)
    }

    /// Removes all that are idle, the one used longest ago first, and hands each over.
    pub fn expire(&mut self, now: Instant, on_idle: &mut dyn FnMut(V)) {
        while self.next_expiry().is_some_and(|expiry| expiry <= now) {
            self.evict().into_iter().for_each(&mut *on_idle);
        }
        if self.nodes.is_empty() {
            self.nodes = Vec::new();
            self.places = HashMap::new();
        }
    }

    /// When the next flow will be idle, if none is used until then.
    pub fn next_expiry(&self) -> Option<Instant> {
        Some(self.nodes.get(self.oldest)?.used + self.idle)
    }

    fn use_now(&mut self, place: usize, now: Instant) {
        if let Some(node) = self.nodes.get_mut(place) {
            node.used = now;
        }
        if self.newest != place {
            self.unlink(place);
            self.link(place);
        }
    }

    /// Makes an unlinked node the newest.
    fn link(&mut self, place: usize) {
        let Some(node) = self.nodes.get_mut(place) else { return };
        (node.older, node.newer) = (self.newest, NONE);
        match self.nodes.get_mut(self.newest) {
            Some(newest) => newest.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }

    fn unlink(&mut self, place: usize) {
        let Some(node) = self.nodes.get(place) else { return };
        let (newer, older) = (node.newer, node.older);
        self.point_at(newer, older, older, newer);
    }

    /// What stood beside a node: `newer` sees `as_older` now, `older` sees `as_newer`.
    fn point_at(&mut self, newer: usize, as_older: usize, older: usize, as_newer: usize) {
        match self.nodes.get_mut(newer) {
            Some(node) => node.older = as_older,
            None => self.newest = as_older,
        }
        match self.nodes.get_mut(older) {
            Some(node) => node.newer = as_newer,
            None => self.oldest = as_newer,
        }
    }

    /// Removes a node that no key leads to; the last node moves to its place.
    fn take(&mut self, place: usize) -> Option<V> {
        self.nodes.get(place)?;
        self.unlink(place);
        let node = self.nodes.swap_remove(place);
        if let Some(moved) = self.nodes.get(place) {
            let (key, newer, older) = (moved.key, moved.newer, moved.older);
            self.places.insert(key, place);
            self.point_at(newer, place, older, place);
        }
        Some(node.value)
    }
}

fn key(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    fn address(n: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], n))
    }

    /// The same table without cleverness: newest last.
    struct Model {
        capacity: usize,
        flows: Vec<(SocketAddr, u32, Instant)>,
    }

    impl Model {
        fn touch(&mut self, address: SocketAddr, now: Instant) -> Option<u32> {
            let at = self.flows.iter().position(|flow| flow.0 == address)?;
            if now - self.flows[at].2 >= IDLE {
                return None;
            }
            let (address, value, _) = self.flows.remove(at);
            self.flows.push((address, value, now));
            Some(value)
        }

        fn insert(&mut self, address: SocketAddr, value: u32, now: Instant) -> Option<u32> {
            let gone = match self.flows.iter().position(|flow| flow.0 == address) {
                Some(at) => Some(self.flows.remove(at).1),
                None if self.flows.len() == self.capacity => Some(self.flows.remove(0).1),
                None => None,
            };
            self.flows.push((address, value, now));
            gone
        }

        fn remove(&mut self, address: SocketAddr) -> Option<u32> {
            let at = self.flows.iter().position(|flow| flow.0 == address)?;
            Some(self.flows.remove(at).1)
        }
    }

    #[test]
    fn behaves_like_the_simple_model() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut capacity = random.usize(1..12);
            let mut flows = Flows::new(capacity, IDLE);
            let mut model = Model { capacity, flows: Vec::new() };
            let mut now = Instant::now();
            for step in 0..2000 {
                let address = address(random.u16(1..20));
                match random.u8(..100) {
                    0..40 => {
                        assert_eq!(flows.touch(address, now).copied(), model.touch(address, now));
                    }
                    40..75 => {
                        assert_eq!(flows.insert(address, step, now), model.insert(address, step, now));
                        assert_eq!(flows.newest_mut(), Some(&mut { step }));
                    }
                    75..77 => {
                        capacity = random.usize(1..12);
                        flows.set_capacity(capacity);
                        model.capacity = capacity;
                        while model.flows.len() > capacity {
                            assert_eq!(flows.evict(), Some(model.flows.remove(0).1));
                        }
                    }
                    77..85 => assert_eq!(flows.remove(address), model.remove(address)),
                    85..90 => {
                        let (mut gone, before) = (Vec::new(), model.flows.clone());
                        flows.expire(now, &mut |value| gone.push(value));
                        model.flows.retain(|flow| now - flow.2 < IDLE);
                        let idle = before.iter().filter(|flow| now - flow.2 >= IDLE);
                        assert!(gone.iter().eq(idle.map(|flow| &flow.1)));
                    }
                    _ => now += Duration::from_millis(random.u64(..20_000)),
                }
                assert!(flows.len() <= capacity);
                assert_eq!(flows.len(), model.flows.len());
                assert_eq!(flows.next_expiry(), model.flows.first().map(|flow| flow.2 + IDLE));
            }
            // What is left leaves in order of use.
            for (_, value, _) in model.flows {
                assert_eq!(flows.evict(), Some(value));
            }
            assert!(flows.is_empty() && flows.evict().is_none() && flows.places.is_empty());
        }
    }

    #[test]
    fn a_used_flow_outlives_a_flood_of_others() {
        let mut flows = Flows::new(100, IDLE);
        let now = Instant::now();
        flows.insert(address(1), "kept", now);
        for n in 2..60_000 {
            flows.insert(address(n), "flood", now);
            if n % 50 == 0 {
                assert_eq!(flows.touch(address(1), now), Some(&mut "kept"));
            }
        }
        assert_eq!(flows.len(), 100);
    }

    #[test]
    fn scope_and_flow_label_are_not_part_of_a_visitor() {
        let mut flows = Flows::new(2, IDLE);
        let ip = "fe80::1".parse().unwrap();
        let now = Instant::now();
        flows.insert(SocketAddrV6::new(ip, 5, 7, 3).into(), (), now);
        assert!(flows.touch(SocketAddrV6::new(ip, 5, 0, 0).into(), now).is_some());
    }
}
