//! Dictionaries while a store runs: trained, replaced, kept and dropped.

use super::super::coding::dictionaries::SLOTS;
use super::*;
use crate::codec::{Dictionary, DictionaryError, Encoder};
use std::time::{Duration, Instant};
use zcache_core::{CodecId, ObjectId, PoolId, Zpage};

fn dense(pool_bytes_max: u64) -> StoreConfig {
    StoreConfig {
        pool_bytes_max,
        codec: Codec::DENSE.into(),
        ..StoreConfig::default()
    }
}

fn trained(from: usize) -> Arc<Dictionary> {
    let pages = &testing::records(from as u64 + 64)[from..];
    Arc::new(Dictionary::train(pages, 4096).expect("records train a dictionary"))
}

fn key(pool: PoolId, index: u32) -> Key {
    Key {
        pool,
        object: ObjectId([1, 2, 3]),
        index,
    }
}

/// Inserts pages and trains whenever that is due; returns the handles and what
/// the calls did.
fn insert_training(store: &Store, pages: &[Page]) -> (Vec<Handle>, Vec<Trained>) {
    let mut did = Vec::new();
    let handles = pages
        .iter()
        .map(|page| {
            let handle = store.insert(page).unwrap();
            while store.training_due_bytes().is_some() {
                did.push(store.train());
            }
            handle
        })
        .collect();
    (handles, did)
}

#[test]
fn a_store_learns_a_small_dictionary_and_then_a_large_one() {
    let store = Store::open(dense(64 << 20)).unwrap();
    let pages = testing::records(6000);
    let before = store.ram_bytes();
    let (handles, did) = insert_training(&store, &pages);
    use Trained::{Adopted, Collecting, Discarded};
    assert_eq!(did[..3], [Collecting, Adopted, Collecting], "{did:?}");
    assert!(matches!(did[3], Adopted | Discarded), "{did:?}");
    let stats = store.stats();
    assert!(stats.dictionary_adoptions >= 1 && stats.dictionary_trainings >= 2);
    assert!(stats.dictionary_bytes > 4096 && stats.dictionary_bytes < 1 << 20);
    for (handle, page) in handles.iter().zip(&pages) {
        assert_eq!(load(&store, *handle), Ok(*page));
    }
    let plain = Store::open(StoreConfig {
        dictionaries: false,
        ..dense(64 << 20)
    })
    .unwrap();
    let (_, did) = insert_training(&plain, &pages);
    assert_eq!(did, []);
    let (with, without) = (stats.compressed_bytes, plain.stats().compressed_bytes);
    assert!(with * 10 < without * 9, "{with} of {without}");
    // What the dictionaries take is counted, and nothing of the training is left.
    let grown = store.ram_bytes() - before;
    assert!(grown > stats.dictionary_bytes);
    assert!(store.overhead_bytes() < before + stats.dictionary_bytes + (1 << 20));
}

#[test]
fn pages_that_change_are_noticed_and_train_another() {
    let store = Store::open(dense(128 << 20)).unwrap();
    // The first half of each page is of one vocabulary, the second is noise.
    let noisy = |number: u64| {
        let mut page = testing::records(1)[0];
        let mut rng = testing::Rng::new(number);
        for byte in &mut page[2048..] {
            *byte = rng.next() as u8;
        }
        page
    };
    let (_, did) = insert_training(&store, &testing::records(30_000));
    let before = did.len();
    let later: Vec<Page> = (0..20_000).map(noisy).collect();
    let (handles, did) = insert_training(&store, &later);
    assert!(did.contains(&Trained::Collecting), "{before} {did:?}");
    assert_eq!(load(&store, handles[777]), Ok(later[777]));
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn old_dictionaries_read_their_pages_from_ram_and_from_the_tier_and_then_go() {
    let (store, _) = swapping(16 << 20, 2, None, dense(0));
    let pages = testing::records(400);
    let mut handles = Vec::new();
    for round in 0..4 {
        store.use_dictionary(None, trained(round * 50)).unwrap();
        for page in &pages[round * 100..(round + 1) * 100] {
            handles.push(store.insert(page).unwrap());
        }
        if round == 1 {
            store.reclaim(u64::MAX);
            assert_eq!(store.stats().swapped_pages, 200);
        }
    }
    assert_eq!(store.stats().dictionaries, 4);
    for (handle, page) in handles.iter().zip(&pages) {
        assert_eq!(load(&store, *handle), Ok(*page));
    }
    let counted = store.overhead_bytes();
    for handle in &handles[..300] {
        store.release(*handle);
    }
    store.retire_dictionaries();
    assert_eq!(store.stats().dictionaries, 1);
    assert!(store.overhead_bytes() < counted);
    assert_eq!(load(&store, handles[350]), Ok(pages[350]));
    store.release(handles[399]);
    store.retire_dictionaries();
    assert_eq!(store.stats().dictionaries, 1, "the current one stays");
}

#[test]
fn each_pool_has_its_own_and_a_closed_one_leaves_none() {
    let store = Store::open(dense(16 << 20)).unwrap();
    let pools = [PoolKind::Ephemeral, PoolKind::Persistent].map(|kind| store.create_pool(kind));
    store.use_dictionary(Some(pools[0]), trained(0)).unwrap();
    assert!(store.dictionary(None).is_none());
    assert!(store.dictionary(Some(pools[0])).is_some());
    assert!(store.dictionary(Some(pools[1])).is_none());
    let page = testing::records(1)[0];
    for pool in pools {
        store.put(&key(pool, 5), &page).unwrap();
        let mut out = [0; PAGE_SIZE];
        assert_eq!(store.get(&key(pool, 5), &mut out), Ok(true));
        assert!(out == page);
    }
    store.destroy_pool(pools[0]);
    assert_eq!(store.stats().dictionaries, 0);
    assert_eq!(
        store.use_dictionary(Some(pools[0]), trained(0)),
        Err(DictionaryError::NoSuchPool)
    );
}

#[test]
fn more_dictionaries_than_can_be_told_apart_are_refused() {
    let store = Store::open(dense(16 << 20)).unwrap();
    let page = testing::records(1)[0];
    let mut handles = Vec::new();
    for round in 0..SLOTS {
        store.use_dictionary(None, trained(round * 10)).unwrap();
        handles.push(store.insert(&page).unwrap());
    }
    assert_eq!(
        store.use_dictionary(None, trained(900)),
        Err(DictionaryError::NoSlot)
    );
    store.release(handles.remove(2));
    store.use_dictionary(None, trained(900)).unwrap();
    for handle in handles {
        assert_eq!(load(&store, handle), Ok(page));
    }
    let raw = Store::open(StoreConfig {
        codec: Codec::PLAIN.into(),
        ..dense(16 << 20)
    });
    assert_eq!(
        raw.unwrap().use_dictionary(None, trained(0)),
        Err(DictionaryError::NotUsed)
    );
}

#[test]
fn codec_ids_of_the_future_are_an_error_and_so_is_a_dictionary_that_is_not_there() {
    let store = Store::open(dense(16 << 20)).unwrap();
    let mut errors = 0;
    for bits in 0..CodecId::COUNT {
        let token = {
            let mut part = store.part(0);
            // The store does not count what comes in beside it.
            part.walks.damaged = true;
            let zpage = Zpage::Bytes {
                bytes: &[1; 100],
                codec: CodecId::new(bits),
                checksum: 0,
            };
            part.place(|core, frames| core.insert(frames, zpage))
                .unwrap()
        };
        let handle = Handle::from_bits(token.0 << store.shard_bits);
        match load(&store, handle) {
            Err(LoadError::Corrupt { .. }) => errors += 1,
            // The three that need no dictionary are held against the checksum.
            Err(LoadError::Checksum { .. }) => assert!((1..=3).contains(&bits)),
            other => panic!("{bits}: {other:?}"),
        }
    }
    assert_eq!(errors, CodecId::COUNT - 3);
}

#[test]
fn threads_that_store_and_load_see_no_change_of_dictionaries() {
    let (store, _) = swapping(8 << 20, 4, None, dense(0));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                let pages = testing::records(200);
                let mut held = Vec::new();
                let mut step = thread;
                while !stop.load(Relaxed) {
                    let number = (step % 200) as usize;
                    held.push((store.insert(&pages[number]).unwrap(), number));
                    if held.len() > 100 {
                        let (handle, number) = held.swap_remove(step as usize * 7 % 100);
                        assert_eq!(load(store, handle), Ok(pages[number]));
                        store.release(handle);
                    }
                    step += 3;
                    if step % 500 < 3 {
                        store.reclaim(1 << 20);
                    }
                }
            });
        }
        for round in 0..60 {
            match store.use_dictionary(None, trained(round * 3)) {
                Ok(()) | Err(DictionaryError::NoSlot) => {}
                Err(other) => panic!("{other}"),
            }
            store.retire_dictionaries();
        }
        stop.store(true, Relaxed);
    });
    assert_eq!(store.stats().checksum_errors, 0);
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn threads_that_give_and_retire_dictionaries_at_once_lose_no_page() {
    let store = Store::open(StoreConfig {
        shards: 64,
        ..dense(64 << 20)
    })
    .unwrap();
    let saved: Vec<Vec<u8>> = (0..3).map(|n| trained(n * 50).save()).collect();
    let pages = testing::records(64);
    let end = Instant::now() + Duration::from_secs(2);
    std::thread::scope(|scope| {
        for saved in &saved {
            let (store, pages) = (&store, &pages);
            scope.spawn(move || {
                while Instant::now() < end {
                    let pool = store.create_pool(PoolKind::Persistent);
                    let dictionary = Dictionary::from_saved(saved).unwrap();
                    // Three threads have three slots at most, and there are seven.
                    let given = store.use_dictionary(Some(pool), Arc::new(dictionary));
                    assert_eq!(given, Ok(()));
                    for (index, page) in (0..4).zip(pages) {
                        store.put(&key(pool, index), page).unwrap();
                    }
                    let mut out = [0; PAGE_SIZE];
                    for (index, page) in (0..4).zip(pages) {
                        assert_eq!(store.get(&key(pool, index), &mut out), Ok(true));
                        assert_eq!(out, *page);
                    }
                    assert_eq!(store.destroy_pool(pool), 4);
                }
            });
        }
        while Instant::now() < end {
            store.train();
        }
    });
    assert_eq!(store.stats().dictionaries, 0);
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn no_slot_is_said_only_while_all_are_in_use() {
    let store = Store::open(dense(16 << 20)).unwrap();
    let page = testing::records(1)[0];
    // Four slots are taken by pages. Of the three others, two threads need two for
    // what is used now, and one for what takes its place.
    for round in 0..SLOTS - 3 {
        store.use_dictionary(None, trained(round * 10)).unwrap();
        store.insert(&page).unwrap();
    }
    store.use_dictionary(None, trained(0)).unwrap();
    let handles = store.create_pool(PoolKind::Ephemeral);
    let pools = [None, Some(handles)];
    let end = Instant::now() + Duration::from_secs(1);
    std::thread::scope(|scope| {
        for pool in pools {
            let store = &store;
            scope.spawn(move || {
                let dictionary = trained(0);
                while Instant::now() < end {
                    let given = store.use_dictionary(pool, Arc::clone(&dictionary));
                    assert_eq!(given, Ok(()));
                }
            });
        }
    });
}

#[test]
fn who_keeps_a_dictionary_outside_the_store_keeps_no_slot() {
    let store = Store::open(dense(16 << 20)).unwrap();
    let dictionary = trained(0);
    for _ in 0..3 * SLOTS {
        store.use_dictionary(None, Arc::clone(&dictionary)).unwrap();
    }
    let current = store.dictionary(None).unwrap();
    assert!(Arc::ptr_eq(&current, &dictionary));
    store.retire_dictionaries();
    assert_eq!(store.stats().dictionaries, 1);
}

#[test]
fn a_pool_that_is_closed_meanwhile_takes_no_dictionary() {
    let store = Store::open(dense(16 << 20)).unwrap();
    let before = store.budget.overhead();
    let pool = store.create_pool(PoolKind::Ephemeral);
    let scope = store.pools.write().unwrap().make_scope(pool).unwrap();
    let encoder = Encoder::new(trained(0), Encoder::LEVEL_FRESH).unwrap();
    store.destroy_pool(pool);
    assert_eq!(
        store.adopt(&scope, encoder),
        Err(DictionaryError::NoSuchPool)
    );
    assert!(scope.current().is_none());
    assert_eq!(store.stats().dictionaries, 0);
    drop(scope);
    // The maps keep room for a few.
    let after = store.budget.overhead();
    assert!(after < before + 200, "{after} after {before}");
}

#[test]
fn pools_by_the_dozen_collect_one_after_the_other_and_the_busy_one_has_its_turn() {
    const LIMIT: u64 = 48 << 20;
    let store = Store::open(dense(LIMIT)).unwrap();
    let pages = testing::records(300);
    let before = store.budget.overhead();
    let round_max = LIMIT / 16;
    let put = |pool, count: usize| {
        for (index, page) in (0..).zip(pages.iter().cycle().take(count)) {
            store.put(&key(pool, index), page).unwrap();
            if index % 16 == 0 && store.training_due_bytes().is_some() {
                store.train();
            }
            assert!(store.budget.overhead() <= before + round_max);
        }
    };
    let pools: Vec<PoolId> = (0..40)
        .map(|_| store.create_pool(PoolKind::Ephemeral))
        .collect();
    // None gets as many as a round collects.
    for pool in &pools {
        put(*pool, 100);
    }
    assert!(store.budget.overhead() < before + 40 * 64, "none collects");
    // Each of these gets so many, and then no more: the first collects.
    for pool in &pools[..5] {
        put(*pool, 200);
    }
    assert!(store.budget.overhead() > before + (1 << 20), "one collects");
    assert_eq!(store.stats().dictionary_trainings, 0);
    put(pools[30], 64 * 192 + 2000);
    let stats = store.stats();
    assert_eq!(stats.dictionary_rounds_given_up, 1);
    assert!(stats.dictionary_adoptions >= 1, "{stats:?}");
    assert!(store.dictionary(Some(pools[30])).is_some());
    for pool in pools {
        store.destroy_pool(pool);
    }
    let after = store.budget.overhead();
    assert!(after < before + 64 * 64, "{after} after {before}");
}

#[test]
fn a_pool_that_is_destroyed_gives_back_what_was_collected() {
    let store = Store::open(dense(64 << 20)).unwrap();
    let page = testing::records(1)[0];
    let pool = store.create_pool(PoolKind::Persistent);
    let before = store.budget.overhead();
    for index in 0..256 {
        store.put(&key(pool, index), &page).unwrap();
        assert_eq!(store.training_due_bytes(), None);
    }
    store.put(&key(pool, 256), &page).unwrap();
    let due = store.training_due_bytes().unwrap();
    let with_scope = store.budget.overhead();
    assert_eq!(store.train(), Trained::Collecting);
    assert_eq!(store.budget.overhead(), with_scope + due);
    store.destroy_pool(pool);
    // Maps of frames grew a little.
    let after = store.budget.overhead();
    assert!(after < before + 1024, "{after} after {before}");
    assert_eq!(store.training_due_bytes(), None);
}
