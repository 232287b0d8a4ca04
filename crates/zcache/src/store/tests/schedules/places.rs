//! Few keys with pages of one length over a tier of a few blocks: places of the tier are soon used again, for a newer page
//! of the same key, by the same number of bytes at the same offset.

use super::*;

/// Blocks that the tier has room for, at most.
const TIER_BLOCKS_MAX: u64 = 3;

fn scenario() {
    let mut rng = drawn();
    let config = StoreConfig {
        pool_bytes_max: 1 << 20,
        codec: Codec::PLAIN.into(),
        shards: 1,
        ..StoreConfig::default()
    };
    let (store, _) = over_slow_tier(1 + rng.below(TIER_BLOCKS_MAX), config);
    let pool = store.create_pool(PoolKind::Persistent);
    // Three fill a block, and stay in the tier; fewer are soon packed anew.
    let keys = keys(pool, 1 + rng.below(3) as u32);
    let witness = Arc::new(Witness::new(store, noise));
    leave(&witness, &keys);
    let reader = |calls: u64, kinds: u64| {
        let (witness, keys) = (Arc::clone(&witness), keys.clone());
        thread(move || {
            let mut rng = drawn();
            for _ in 0..calls {
                let key = keys[rng.below(keys.len() as u64) as usize];
                match rng.below(kinds) {
                    0..3 => {
                        witness.take(key);
                    }
                    3 => {
                        witness.get(key);
                    }
                    4 => {
                        witness.put(key);
                    }
                    5 => {
                        witness.flush(key);
                    }
                    6 => {
                        witness.flush_object(&keys);
                    }
                    _ => {
                        witness.store.reclaim(u64::MAX);
                    }
                }
            }
        })
    };
    let writer = {
        let (witness, keys) = (Arc::clone(&witness), keys.clone());
        thread(move || (0..2).for_each(|_| leave(&witness, &keys)))
    };
    together(vec![reader(3, 4), reader(3, 8), writer]);
    witness.settle(&keys);
}

/// Puts new pages under all keys, and has them leave RAM.
fn leave(witness: &Witness, keys: &[Key]) {
    for key in keys {
        witness.put(*key);
    }
    witness.store.reclaim(u64::MAX);
}

#[test]
fn a_place_that_is_used_again_is_not_taken_for_the_old_one() {
    explore(
        "places",
        2000,
        scenario,
        &[
            ("read of the tier", |stats| stats.swapin_pages),
            ("page that moved while it was read", |stats| {
                stats.relocations
            }),
            ("block packed anew", |stats| stats.swap_compacted_pages),
        ],
    );
}
