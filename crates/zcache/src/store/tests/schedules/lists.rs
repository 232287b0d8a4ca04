//! A list of two tiers, the first of a few blocks: blocks go on to the second while they are read, freed and written anew.

use super::*;
use crate::tier::{Keeps, ListedTier, fold};

/// Blocks that the first tier has room for, at most.
const FIRST_BLOCKS_MAX: u64 = 3;

fn listed(keeps: Keeps, blocks_max: Option<u64>) -> ListedTier {
    let memory = Arc::new(MemoryTier::new(drawn().next()));
    ListedTier {
        name: "slow".to_owned(),
        tier: Box::new(SlowTier::new(&memory)),
        bytes_max: blocks_max.map(|blocks| blocks * zcache_core::Run::BLOCK.bytes() as u64),
        keeps,
    }
}

fn scenario(first: ListedTier) {
    let mut rng = drawn();
    let config = StoreConfig {
        pool_bytes_max: 1 << 20,
        codec: Codec::PLAIN.into(),
        shards: 1,
        ..StoreConfig::default()
    };
    // Few, so that places are soon used again.
    let second = listed(Keeps::Surely, Some(1 + rng.below(3)));
    let folded = fold(vec![first, second]);
    let folded = folded.unwrap().expect("a list of two");
    let store = Store::with_tier(&config, folded.tier, folded.bytes_max).unwrap();
    let pool = store.create_pool(PoolKind::Persistent);
    let keys = keys(pool, 4 + rng.below(8) as u32);
    let witness = Arc::new(Witness::new(Arc::new(store), noise));
    let client = |calls: u64| {
        let (witness, keys) = (Arc::clone(&witness), keys.clone());
        thread(move || {
            let mut rng = drawn();
            for _ in 0..calls {
                let key = keys[rng.below(keys.len() as u64) as usize];
                match rng.below(8) {
                    0 => {
                        witness.take(key);
                    }
                    1 | 2 => {
                        witness.get(key);
                    }
                    3..6 => {
                        witness.put(key);
                    }
                    6 => {
                        witness.flush(key);
                    }
                    _ => {
                        witness.store.reclaim(u64::MAX);
                    }
                }
            }
        })
    };
    for key in &keys {
        witness.put(*key);
    }
    let leaving = {
        let store = Arc::clone(&witness.store);
        thread(move || (0..3).for_each(|_| _ = store.reclaim(u64::MAX)))
    };
    together(vec![client(6), client(6), leaving]);
    witness.settle(&keys);
}

const REACHES: Reaches = &[
    ("read of a tier", |stats| stats.swapin_pages),
    ("page that was written back", |stats| stats.writeback_pages),
];

#[test]
fn blocks_that_go_on_to_a_second_tier_are_read_from_where_they_are() {
    let ranked = || {
        let blocks = 1 + drawn().below(FIRST_BLOCKS_MAX);
        scenario(listed(Keeps::Surely, Some(blocks)));
    };
    explore("ranked", 1200, ranked, REACHES);
}

#[test]
fn a_copy_in_a_first_tier_is_never_an_older_block() {
    explore(
        "cached",
        600,
        || scenario(listed(Keeps::Perhaps, None)),
        REACHES,
    );
}
