//! Pages that were read once: remembered by a few bytes each, in a table that
//! never grows.
//!
//! Stage: admission. A page whose ghost is found when it is read again was
//! dropped by the page cache in between, and is worth keeping.
//!
//! - A ghost is 32 bits of a page's hash. In one set of eight the oldest gives
//!   way.
//! - Two pages of the same set share a ghost with a chance of 8 in 2^32: then
//!   one is kept a read too early, which costs room and no bytes.
//!
//! Does not: lock. A race loses a ghost, never more.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use zcache::{Key, ObjectId};

/// Ghosts that share a place.
const WAYS: usize = 8;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Ghosts {
    sets: Box<[Set]>,
}

#[derive(Debug)]
#[repr(align(32))]
struct Set([AtomicU32; WAYS]);

impl Ghosts {
    /// A table of so many bytes, rounded down to a power of two.
    pub(crate) fn new(bytes: u64) -> Ghosts {
        let sets = (bytes / size_of::<Set>() as u64).max(1);
        let sets = 1 << sets.ilog2();
        let empty = || Set([const { AtomicU32::new(0) }; WAYS]);
        Ghosts {
            sets: (0..sets).map(|_| empty()).collect(),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        (self.sets.len() * size_of::<Set>()) as u64
    }

    /// How many pages it remembers at most.
    pub(crate) fn capacity(&self) -> u64 {
        (self.sets.len() * WAYS) as u64
    }

    /// Whether the page was read before; it is remembered from now on if not,
    /// and forgotten if so, since it is about to be kept.
    pub(crate) fn seen(&self, key: &Key) -> bool {
        let hash = hash(key);
        let set = &self.sets[(hash as usize) & (self.sets.len() - 1)].0;
        // Zero is an empty place.
        let ghost = ((hash >> 32) as u32).max(1);
        if let Some(found) = set.iter().find(|place| place.load(Relaxed) == ghost) {
            found.store(0, Relaxed);
            return true;
        }
        let mut pushed = ghost;
        for place in set {
            pushed = place.swap(pushed, Relaxed);
            if pushed == 0 {
                break;
            }
        }
        false
    }
}

fn hash(key: &Key) -> u64 {
    let ObjectId([high, middle, low]) = key.object;
    [high, middle, low]
        .into_iter()
        .fold(u64::from(key.index), |hash, word| mix(hash ^ word))
}

/// Spreads every bit over all (the finalizer of SplitMix64).
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use zcache::{PoolId, PoolKind};

    use super::*;

    fn key(index: u32) -> Key {
        Key {
            pool: PoolId::new(0, PoolKind::Ephemeral),
            object: ObjectId([1, 2, 3]),
            index,
        }
    }

    #[test]
    fn a_page_is_seen_the_second_time_only() {
        let ghosts = Ghosts::new(64 << 10);
        assert!(!ghosts.seen(&key(5)));
        assert!(ghosts.seen(&key(5)));
        assert!(!ghosts.seen(&key(5)), "what was kept begins anew");
    }

    #[test]
    fn the_newest_pages_are_remembered() {
        let ghosts = Ghosts::new(64 << 10);
        let capacity = ghosts.capacity() as u32;
        assert_eq!(u64::from(capacity) * 4, ghosts.bytes());
        for index in 0..10 * capacity {
            assert!(!ghosts.seen(&key(index)), "page {index}");
        }
        let newest = 10 * capacity - capacity / 4..10 * capacity;
        let remembered = newest.clone().filter(|index| ghosts.seen(&key(*index)));
        let share = remembered.count() as f64 / newest.len() as f64;
        assert!(share > 0.99, "{share} of the newest quarter");
    }
}
