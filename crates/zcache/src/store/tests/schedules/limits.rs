//! A limit that goes up and down, reclaim by it, and blocks that are compressed harder meanwhile, beside clients of a
//! persistent and an ephemeral pool.

use std::sync::OnceLock;

use super::super::cold::texts;
use super::*;
use crate::codec::Dictionary;

/// Pages that were there before: enough blocks for some of them to be cold.
const BEFORE: u32 = 72;

/// Pages of words, of which level 6 finds more than level 1, and a dictionary of them as it was saved. Made once.
fn made() -> &'static (Vec<Page>, Vec<u8>) {
    static MADE: OnceLock<(Vec<Page>, Vec<u8>)> = OnceLock::new();
    MADE.get_or_init(|| {
        let pages = texts(256);
        let dictionary = Dictionary::train(&pages, 16 << 10).expect("texts train a dictionary");
        (pages, dictionary.save())
    })
}

/// A page of a number that shrinks to about a half, so that a few fill a block.
fn text(value: u64) -> Page {
    let (pages, _) = made();
    let mut page = pages[value as usize % pages.len()];
    page[..8].copy_from_slice(&value.to_le_bytes());
    page
}

fn client(witness: &Witness, persistent: &[Key], ephemeral: &[Key]) {
    let mut rng = drawn();
    for _ in 0..5 {
        let keys = [persistent, ephemeral][rng.below(2) as usize];
        let key = keys[rng.below(4) as usize];
        match rng.below(6) {
            0 | 1 => {
                witness.put(key);
            }
            2 | 3 => {
                witness.get(key);
            }
            4 => {
                witness.take(key);
            }
            _ => {
                witness.flush(key);
            }
        }
    }
}

fn resize(store: &Store) {
    let mut rng = drawn();
    for _ in 0..3 {
        store.set_pool_bytes_max((1216 << 10) << rng.below(4));
        match rng.below(3) {
            0 => {
                store.balance();
            }
            1 => {
                store.reclaim(64 << 10);
            }
            _ => {
                store.compact(8);
            }
        }
    }
}

fn recompress(store: &Store) {
    for _ in 0..2 {
        let _: Option<u64> = store.cold_due_bytes();
        if let Some(mut cold) = store.begin_cold() {
            cold.compress();
            store.finish_cold(cold);
        }
        store.rest_cold();
    }
}

fn scenario() {
    let mut rng = drawn();
    let config = StoreConfig {
        pool_bytes_max: 1 << 20,
        codec: Codec::DENSE.into(),
        shards: 1,
        ..StoreConfig::default()
    };
    let (store, _) = over_slow_tier(12 + rng.below(8), config);
    let pool = store.create_pool(PoolKind::Persistent);
    let dictionary = Dictionary::from_saved(&made().1).expect("it was saved");
    store
        .use_dictionary(Some(pool), Arc::new(dictionary))
        .expect("a slot is free");
    let witness = Arc::new(Witness::new(store, text));
    let persistent = keys(pool, BEFORE);
    let ephemeral = keys(witness.store.create_pool(PoolKind::Ephemeral), 4);
    for key in persistent.iter().chain(&ephemeral) {
        witness.put(*key);
    }
    let clients = (0..2).map(|_| {
        let (witness, persistent) = (Arc::clone(&witness), persistent.clone());
        let ephemeral = ephemeral.clone();
        thread(move || client(&witness, &persistent, &ephemeral))
    });
    let mut threads: Vec<_> = clients.collect();
    for work in [resize, recompress] {
        let store = Arc::clone(&witness.store);
        threads.push(thread(move || work(&store)));
    }
    together(threads);
    let all: Vec<Key> = persistent.into_iter().chain(ephemeral).collect();
    witness.settle(&all);
}

#[test]
fn no_limit_and_no_recompression_loses_a_page() {
    made();
    explore(
        "limits",
        300,
        scenario,
        &[
            ("page compressed harder", |stats| stats.cold_pages),
            ("page written back", |stats| stats.writeback_pages),
            ("ephemeral page evicted", |stats| {
                stats.evicted_ephemeral_pages
            }),
            ("read of the tier", |stats| stats.swapin_pages),
        ],
    );
}
