//! Plain LRU over pages: what is forgotten is what was used the longest ago.
//!
//! The measure for policies: it sees the same reads as they do, and holds as many
//! pages as they held.

use std::collections::{BTreeMap, HashMap};

/// Names a page: its file, and its number in it.
pub(super) type Name = (u8, u64);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Lru {
    pages_max: usize,
    clock: u64,
    used_at: HashMap<Name, u64>,
    by_use: BTreeMap<u64, Name>,
}

impl Lru {
    /// An empty one that holds so many pages.
    pub(super) fn new(pages_max: usize) -> Lru {
        Lru {
            pages_max,
            clock: 0,
            used_at: HashMap::new(),
            by_use: BTreeMap::new(),
        }
    }

    /// Reads a page, which is there from then on; says whether it was before.
    pub(super) fn read(&mut self, name: Name) -> bool {
        self.clock += 1;
        let before = self.used_at.insert(name, self.clock);
        if let Some(before) = before {
            self.by_use.remove(&before);
        }
        self.by_use.insert(self.clock, name);
        if self.by_use.len() > self.pages_max
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.used_at.remove(&oldest);
        }
        before.is_some()
    }

    /// Reads pages; gives the share of them that was there.
    pub(super) fn read_all(&mut self, file: u8, pages: impl Iterator<Item = u64>) -> f64 {
        let (mut hits, mut reads) = (0, 0);
        for page in pages {
            hits += u64::from(self.read((file, page)));
            reads += 1;
        }
        hits as f64 / f64::from(reads.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_the_longest_ago_goes_first() {
        let mut lru = Lru::new(2);
        assert!(!lru.read((0, 1)));
        assert!(!lru.read((0, 2)));
        assert!(lru.read((0, 1)));
        assert!(!lru.read((0, 3)), "2 goes, not 1");
        assert!(lru.read((0, 1)));
        assert!(!lru.read((0, 2)));
    }

    #[test]
    fn a_stream_costs_what_it_is_longer_than_the_room_left() {
        let mut lru = Lru::new(100);
        lru.read_all(0, 0..50);
        assert_eq!(lru.read_all(0, 0..50), 1.0);
        lru.read_all(1, 0..50);
        assert_eq!(lru.read_all(0, 0..50), 1.0, "all fit");
        lru.read_all(1, 50..150);
        assert_eq!(lru.read_all(0, 0..50), 0.0);
    }
}
