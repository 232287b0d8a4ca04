//! Threads that give dictionaries to pools of their own, use them and close the pools: slots of dictionaries fall out of
//! use and are given away again all the time.

use std::sync::OnceLock;

use super::*;
use crate::codec::{Dictionary, DictionaryError};

/// Dictionaries of different pages as they were saved, made once: a schedule is no place for 20 ms of training.
fn saved() -> &'static [Vec<u8>] {
    static MADE: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    MADE.get_or_init(|| {
        let trained = |from: usize| {
            let pages = &testing::records(from as u64 + 64)[from..];
            Dictionary::train(pages, 4096).expect("records train a dictionary")
        };
        (0..3).map(|n| trained(n * 64).save()).collect()
    })
}

/// A page of a number that a dictionary of records shrinks.
fn record(value: u64) -> Page {
    static MADE: OnceLock<Vec<Page>> = OnceLock::new();
    let pages = MADE.get_or_init(|| testing::records(32));
    let mut page = pages[value as usize % pages.len()];
    page[..8].copy_from_slice(&value.to_le_bytes());
    page
}

/// A client with a pool and a dictionary, as it was left by an earlier process.
fn client(witness: &Witness, rng: &mut Rng) {
    let pool = witness.store.create_pool(PoolKind::Persistent);
    let keys = keys(pool, 2);
    for key in &keys {
        if rng.below(2) == 0 {
            give(&witness.store, pool, rng);
        }
        witness.put(*key);
        witness.get(*key);
    }
    witness.judge(&keys);
    witness.destroy_pool(pool, &keys);
}

fn give(store: &Store, pool: PoolId, rng: &mut Rng) {
    let saved = &saved()[rng.below(3) as usize];
    let dictionary = Arc::new(Dictionary::from_saved(saved).expect("it was saved"));
    match store.use_dictionary(Some(pool), dictionary) {
        Ok(()) | Err(DictionaryError::NoSlot) => {}
        Err(error) => panic!("{error}"),
    }
}

fn scenario() {
    let config = StoreConfig {
        // So much that it trains, too.
        pool_bytes_max: 64 << 20,
        codec: Codec::DENSE.into(),
        shards: 1,
        ..StoreConfig::default()
    };
    let (store, _) = over_slow_tier(8, config);
    let witness = Arc::new(Witness::new(store, record));
    let mut rng = drawn();
    client(&witness, &mut rng);
    let clients = |_| {
        let witness = Arc::clone(&witness);
        thread(move || {
            let mut rng = drawn();
            for _ in 0..2 {
                client(&witness, &mut rng);
            }
        })
    };
    let mut threads: Vec<_> = (0..2).map(clients).collect();
    let store = Arc::clone(&witness.store);
    threads.push(thread(move || {
        for _ in 0..2 {
            store.train();
            store.reclaim(u64::MAX);
        }
    }));
    together(threads);
    check_empty(&witness.store);
    witness.store.retire_dictionaries();
    assert_eq!(witness.store.stats().dictionaries, 0);
}

#[test]
fn a_slot_that_is_given_away_again_is_not_emptied() {
    saved();
    explore(
        "dictionaries",
        1200,
        scenario,
        &[
            ("dictionary in use", |stats| stats.dictionary_adoptions),
            ("read of the tier", |stats| stats.swapin_pages),
        ],
    );
}
