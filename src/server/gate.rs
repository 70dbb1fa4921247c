//! Who is let in without having proven anything: so many connections in all, so many from one address.
//!
//! Whoever is over a cap makes the *oldest* one go: silence costs a stranger its place, and a client that gets to the
//! point keeps its own. Pure. Invariants: neither cap is exceeded, whoever has just come is in, and no step costs more
//! than O(log n).
//!
//! Two kinds of connections are told apart when they come. Those from an address that holds an authenticated control
//! channel are *acquainted*: the cap for one address is not for them, because a hundred services behind one NAT are
//! one address. Over the cap in all, the oldest of the more numerous kind goes. So strangers from thousands of
//! addresses push out one another and not the reconnecting clients, nor can somebody who shares an address with a
//! client push out everybody else. (Taking from the address that has the most would be wrong: when many addresses
//! have one connection each, that is the NAT with the hundred services.)

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use crate::config::MaxUnauthenticated;

/// Whom a connection is put down to: an IPv4 address, or an IPv6 /64, which is what one customer has at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// An IPv4 address; IPv6 addresses that only wrap one are it.
    V4([u8; 4]),
    /// The first half of an IPv6 address.
    V6([u8; 8]),
}

impl Source {
    /// Of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Source::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Source::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// A connection's place; a later one has a greater number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

/// Why a connection must go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cap {
    /// There are too many in all.
    Total,
    /// There are too many from its address.
    Address,
}

/// All connections that are not authenticated; `T` is what ends one.
#[derive(Debug)]
pub struct Gate<T> {
    last: u64,
    strangers: BTreeMap<Place, (Source, T)>,
    acquainted: BTreeMap<Place, T>,
    /// The places of [`Gate::strangers`], by source.
    places: HashMap<Source, BTreeSet<Place>>,
    /// How many authenticated control channels a source has.
    channels: HashMap<Source, usize>,
}

impl<T> Default for Gate<T> {
    fn default() -> Self {
        Gate {
            last: 0,
            strangers: BTreeMap::new(),
            acquainted: BTreeMap::new(),
            places: HashMap::new(),
            channels: HashMap::new(),
        }
    }
}

impl<T> Gate<T> {
    /// A connection comes: its place, and which others must go for it. More than one only after the caps were lowered.
    pub fn enter(&mut self, source: Source, end: T, most: MaxUnauthenticated) -> (Place, Vec<(T, Cap)>) {
        self.last += 1;
        let place = Place(self.last);
        let mut gone = Vec::new();
        if self.channels.contains_key(&source) {
            self.acquainted.insert(place, end);
        } else {
            self.strangers.insert(place, (source, end));
            self.places.entry(source).or_default().insert(place);
            while let Some(oldest) = self.over_address_cap(source, most.per_address) {
                gone.extend(self.leave(oldest).map(|end| (end, Cap::Address)));
            }
        }
        while self.len() > most.total.max(1) {
            gone.extend(self.drop_oldest().map(|end| (end, Cap::Total)));
        }
        (place, gone)
    }

    /// A connection is authenticated, or gone. None: it had been told to go before.
    pub fn leave(&mut self, place: Place) -> Option<T> {
        if let Some(end) = self.acquainted.remove(&place) {
            return Some(end);
        }
        let (source, end) = self.strangers.remove(&place)?;
        if let Some(places) = self.places.get_mut(&source) {
            places.remove(&place);
            if places.is_empty() {
                self.places.remove(&source);
            }
        }
        Some(end)
    }

    /// Takes out the one that goes first; None: nobody is here.
    pub fn drop_oldest(&mut self) -> Option<T> {
        let (stranger, acquainted) =
            (self.strangers.keys().next().copied(), self.acquainted.keys().next().copied());
        let first = match self.strangers.len().cmp(&self.acquainted.len()) {
            std::cmp::Ordering::Greater => stranger,
            std::cmp::Ordering::Less => acquainted,
            std::cmp::Ordering::Equal => stranger.min(acquainted),
        };
        self.leave(first?)
    }

    /// A control channel of this source was authenticated: who comes from there now is acquainted.
    pub fn on_channel(&mut self, source: Source) {
        *self.channels.entry(source).or_default() += 1;
    }

    /// A control channel of this source has ended.
    pub fn on_channel_end(&mut self, source: Source) {
        if let Some(count) = self.channels.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.channels.remove(&source);
            }
        }
    }

    /// How many connections are here.
    pub fn len(&self) -> usize {
        self.strangers.len() + self.acquainted.len()
    }

    fn over_address_cap(&self, source: Source, most: usize) -> Option<Place> {
        let places = self.places.get(&source)?;
        places.first().copied().filter(|_| places.len() > most.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u8) -> Source {
        Source::V4([10, 0, 0, n])
    }

    fn most(total: usize, per_address: usize) -> MaxUnauthenticated {
        MaxUnauthenticated { total, per_address }
    }

    #[test]
    fn sources_are_what_one_customer_has() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("192.0.2.7"), Source::V4([192, 0, 2, 7]));
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("::1"), of("127.0.0.1"));
    }

    #[test]
    fn the_oldest_of_the_address_goes_first() {
        let mut gate = Gate::default();
        assert_eq!(gate.enter(source(1), 'a', most(9, 2)).1, []);
        assert_eq!(gate.enter(source(2), 'b', most(9, 2)).1, []);
        assert_eq!(gate.enter(source(1), 'c', most(9, 2)).1, []);
        assert_eq!(gate.enter(source(1), 'd', most(9, 2)).1, [('a', Cap::Address)]);
        assert_eq!(gate.enter(source(3), 'e', most(3, 2)).1, [('b', Cap::Total)]);
        assert_eq!(gate.drop_oldest(), Some('c'));
        assert_eq!(gate.len(), 2);
    }

    #[test]
    fn a_client_s_address_may_have_many() {
        let mut gate = Gate::default();
        gate.on_channel(source(1));
        gate.on_channel(source(1));
        for _ in 0..100 {
            assert_eq!(gate.enter(source(1), (), most(200, 2)).1, []);
        }
        gate.on_channel_end(source(1));
        assert_eq!(gate.enter(source(1), (), most(200, 2)).1, []);
        gate.on_channel_end(source(1));
        for _ in 0..2 {
            assert_eq!(gate.enter(source(1), (), most(200, 2)).1, []);
        }
        assert_eq!(gate.enter(source(1), (), most(200, 2)).1.len(), 1);
    }

    #[test]
    fn neither_kind_pushes_out_the_other() {
        let mut gate = Gate::default();
        gate.on_channel(source(1));
        for n in 0..4 {
            gate.enter(source(1), ("client", n), most(8, 9));
        }
        for n in 0..200 {
            gate.enter(source(2 + n % 100), ("stranger", n), most(8, 9));
        }
        let clients = |gate: &Gate<(&str, u8)>| gate.acquainted.len();
        assert_eq!((gate.len(), clients(&gate)), (8, 4));
        for n in 0..200 {
            gate.enter(source(1), ("client", n), most(8, 9));
        }
        assert_eq!((gate.len(), clients(&gate)), (8, 4));
        // But whoever is alone may have all.
        let mut gate = Gate::default();
        gate.on_channel(source(1));
        for n in 0..200 {
            gate.enter(source(1), n, most(8, 9));
        }
        assert_eq!(gate.len(), 8);
    }

    #[test]
    fn lowered_caps_are_met_by_the_next_who_comes() {
        let mut gate = Gate::default();
        for n in 0..100 {
            gate.enter(source(n), n, most(4096, 128));
        }
        assert_eq!(gate.enter(source(200), 200, most(5, 1)).1.len(), 96);
        assert_eq!(gate.enter(source(200), 201, most(0, 0)).1.len(), 5);
        assert_eq!(gate.drop_oldest(), Some(201));
    }

    /// What the gate does, said plainly: a list in the order of arrival.
    #[derive(Default)]
    struct Model {
        here: Vec<(u64, Source, bool)>,
        channels: Vec<Source>,
    }

    impl Model {
        fn enter(&mut self, id: u64, source: Source, most: MaxUnauthenticated) -> Vec<(u64, Cap)> {
            self.here.push((id, source, self.channels.contains(&source)));
            let mut gone = Vec::new();
            loop {
                let own = |(_, other, acquainted): &&(u64, Source, bool)| *other == source && !acquainted;
                let cap = if !self.channels.contains(&source)
                    && self.here.iter().filter(own).count() > most.per_address
                {
                    let id = self.here.iter().find(own).unwrap().0;
                    self.here.retain(|(other, ..)| *other != id);
                    (id, Cap::Address)
                } else if self.here.len() > most.total {
                    (self.drop_oldest().unwrap(), Cap::Total)
                } else {
                    return gone;
                };
                gone.push(cap);
            }
        }

        fn drop_oldest(&mut self) -> Option<u64> {
            let acquainted = self.here.iter().filter(|(.., acquainted)| *acquainted).count();
            let strangers = self.here.len() - acquainted;
            let goes = |kind: bool| match strangers.cmp(&acquainted) {
                std::cmp::Ordering::Equal => true,
                std::cmp::Ordering::Greater => !kind,
                std::cmp::Ordering::Less => kind,
            };
            let at = self.here.iter().position(|(.., kind)| goes(*kind))?;
            Some(self.here.remove(at).0)
        }
    }

    /// Random events: whoever just came is in, no cap is exceeded, and the gate drops whom the plain model drops.
    #[test]
    fn random_events_agree_with_the_plain_model() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut gate, mut model) = (Gate::default(), Model::default());
            let mut places = Vec::new();
            let mut most = most(random.usize(1..20), random.usize(1..6));
            for id in 0..500 {
                let source = source(random.u8(0..6));
                match random.u8(0..12) {
                    0..=6 => {
                        let (place, gone) = gate.enter(source, id, most);
                        places.push((place, id));
                        assert_eq!(gone, model.enter(id, source, most), "seed {seed}");
                        assert_eq!(model.here.last().map(|(id, ..)| *id), Some(id), "seed {seed}");
                    }
                    7 if !places.is_empty() => {
                        let (place, id) = places.swap_remove(random.usize(..places.len()));
                        let left = gate.leave(place);
                        let here = model.here.iter().any(|(other, ..)| *other == id);
                        assert_eq!(left, here.then_some(id), "seed {seed}");
                        model.here.retain(|(other, ..)| *other != id);
                    }
                    8 => assert_eq!(gate.drop_oldest(), model.drop_oldest(), "seed {seed}"),
                    9 => {
                        gate.on_channel(source);
                        model.channels.push(source);
                    }
                    10 => {
                        gate.on_channel_end(source);
                        if let Some(at) = model.channels.iter().position(|other| *other == source) {
                            model.channels.remove(at);
                        }
                    }
                    _ => most.total = random.usize(1..20),
                }
                assert_eq!(gate.len(), model.here.len(), "seed {seed}");
                let counted: usize = gate.places.values().map(BTreeSet::len).sum();
                assert_eq!(counted, gate.strangers.len(), "seed {seed}");
                assert!(gate.places.values().all(|places| !places.is_empty()), "seed {seed}");
            }
        }
    }
}
