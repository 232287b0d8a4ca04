//! What hashes of keys depend on, so that whoever chooses keys cannot choose which
//! collide, or which shard they crowd.
//!
//! Stage on the data path: from a key to its shard, and within it to its record.
//!
//! Does not vary in builds with debug assertions, where a test that fails is to be
//! replayed.

use std::hash::{BuildHasher, RandomState};

use zcache_core::Key;

/// Pages of a run: neighbours of one object, which share a shard so that they share
/// blocks. The first has an index that is a multiple.
pub(super) const RUN_PAGES: u32 = 64;

/// Two words that a client of the store does not know.
#[derive(Clone, Copy)]
pub(super) struct Seed([u64; 2]);

impl Seed {
    /// One of this store's own.
    pub(super) fn draw() -> Seed {
        if cfg!(debug_assertions) {
            return Seed([1, 2]);
        }
        let keys = RandomState::new();
        Seed([0, 1].map(|word: u64| keys.hash_one(word)))
    }

    /// What the core's hashes are to depend on.
    pub(super) fn words(self) -> [u64; 2] {
        self.0
    }

    /// The hash of a key's neighbourhood: the pages of a run have the same.
    pub(super) fn neighbourhood(self, key: &Key) -> u64 {
        let [high, middle, low] = key.object.0;
        let index = u64::from(key.index / RUN_PAGES);
        let pool = u64::from(key.pool.number()) ^ self.0[0];
        let hash = [high, middle, low, index]
            .into_iter()
            .fold(pool, |hash, word| mix(hash ^ word));
        mix(hash ^ self.0[1])
    }
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
    use super::*;
    use zcache_core::{Kind, ObjectId, PoolId};

    #[test]
    fn neighbours_stay_together_and_others_spread_by_seed() {
        let key = |index| Key {
            pool: PoolId::new(1, Kind::Persistent),
            object: ObjectId([1, 2, 3]),
            index,
        };
        let shards = |seed: Seed| -> Vec<u64> {
            (0..64)
                .map(|n| seed.neighbourhood(&key(n * 64)) % 64)
                .collect()
        };
        let (one, other) = (Seed([1, 2]), Seed([3, 4]));
        assert_eq!(one.neighbourhood(&key(64)), one.neighbourhood(&key(127)));
        assert_ne!(shards(one), shards(other));
        let mut distinct = shards(one);
        distinct.sort_unstable();
        distinct.dedup();
        // 64 draws from 64: 40 on the average.
        assert!((25..55).contains(&distinct.len()), "{distinct:?}");
    }
}
