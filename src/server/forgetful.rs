//! A map that forgets entries which are of no use any more, at a bounded cost. Pure.
//!
//! Looking through all entries for each new one would be fine for a few; when ten thousand services reconnect at once it
//! is ten thousand times ten thousand. So they are looked through only when the map has grown to twice what was left
//! the last time: on average each new entry pays for two looks, and at most half of the map is of no use.

use std::collections::HashMap;
use std::hash::Hash;

/// A smaller map is not worth a look.
const SMALL: usize = 64;

/// The map.
#[derive(Debug)]
pub struct Forgetful<K, V> {
    map: HashMap<K, V>,
    /// With so many entries it is time to look through them.
    full: usize,
}

impl<K, V> Default for Forgetful<K, V> {
    fn default() -> Self {
        Forgetful { map: HashMap::new(), full: SMALL }
    }
}

impl<K: Eq + Hash, V: Default> Forgetful<K, V> {
    /// The entry of this key, perhaps a new one; for which others may have to go.
    pub fn entry(&mut self, key: K, is_of_use: impl Fn(&V) -> bool) -> &mut V {
        if self.map.len() >= self.full && !self.map.contains_key(&key) {
            self.map.retain(|_, value| is_of_use(value));
            self.full = (2 * self.map.len()).max(SMALL);
            self.map.shrink_to(self.full);
        }
        self.map.entry(key).or_default()
    }

    /// The entry of this key, if there is one.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.map.get_mut(key)
    }

    /// Forgets an entry now.
    pub fn remove(&mut self, key: &K) {
        self.map.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    impl<K, V> Forgetful<K, V> {
        /// How many entries there are.
        pub fn len(&self) -> usize {
            self.map.len()
        }
    }

    /// However many entries come and whether or not they are of use: no more than two looks for each, and no more than
    /// twice as many entries as are of use.
    #[test]
    fn each_entry_costs_two_looks_at_most() {
        for kept in [0, 1, 2, 10] {
            let mut map = Forgetful::<u32, u32>::default();
            let looks = Cell::new(0);
            for n in 0..10_000 {
                *map.entry(n, |value| {
                    looks.set(looks.get() + 1);
                    value % 10 < kept
                }) = n;
            }
            assert!(looks.get() <= 20_000, "{looks:?} looks, {kept} of 10 kept");
            assert!(map.len() <= 2 * 1000 * kept as usize + SMALL, "{} entries", map.len());
            let of_use = (0..10_000).filter(|n| n % 10 < kept);
            assert!(of_use.clone().all(|n| map.get(&n) == Some(&n)));
        }
    }

    #[test]
    fn an_entry_that_is_there_stays() {
        let mut map = Forgetful::default();
        for n in 0..SMALL {
            *map.entry(n, |_: &usize| false) = n;
        }
        assert_eq!((*map.entry(7, |_| false), map.len()), (7, SMALL));
        assert_eq!((*map.entry(SMALL, |_| false), map.len()), (0, 1));
        map.remove(&SMALL);
        assert_eq!(map.get_mut(&SMALL), None);
    }
}
