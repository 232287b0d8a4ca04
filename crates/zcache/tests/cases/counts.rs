//! A store's numbers say what happened: at rest their equations hold, and what
//! is over is not told any more.

use std::sync::Arc;

use zcache::tier::memory::MemoryTier;
use zcache::{Allocator, PAGE_SIZE, PoolId, PoolKind, Store, StoreConfig};

use crate::support::counts::{broken, gone, rejected, undisturbed};
use crate::support::faulty::{Faults, FaultyTier, ReadFault};
use crate::support::pages::{noise, page, record, same};
use crate::{get, key, plain};

fn over_memory(
    pool_bytes_max: u64,
    bytes_max: Option<u64>,
) -> (Store, Arc<FaultyTier>, [PoolId; 2]) {
    let tier = Arc::new(FaultyTier::new(Box::new(MemoryTier::new(1)), 1));
    let config = plain(pool_bytes_max);
    let store = Store::with_tier(&config, Box::new(Arc::clone(&tier)), bytes_max).unwrap();
    let pools = [PoolKind::Ephemeral, PoolKind::Persistent].map(|kind| store.create_pool(kind));
    (store, tier, pools)
}

fn holds(store: &Store, after: &str) {
    assert_eq!(broken(store), Vec::<String>::new(), "after {after}");
}

#[test]
fn every_page_that_came_in_is_held_or_told_gone() {
    let (store, _, [ephemeral, persistent]) = over_memory(1 << 20, Some(1 << 20));
    holds(&store, "opening");
    let handles: Vec<_> = (0..40)
        .map(|number| store.insert(&page(number)).unwrap())
        .collect();
    holds(&store, "inserts");
    for handle in &handles[..20] {
        store.retain(*handle);
        store.release(*handle);
        store.release(*handle);
    }
    holds(&store, "releases");
    for round in 0..3 {
        for index in 0..60 {
            let page = page(index * 3 + round);
            store.put(&key(ephemeral, 1, index), &page).unwrap();
            store.put(&key(persistent, 1, index), &page).unwrap();
        }
        holds(&store, "puts, later ones in place of older ones");
    }
    let mut out = [0; PAGE_SIZE];
    for index in 0..10 {
        let key = key(persistent, 1, index);
        assert_eq!(store.get_exclusive(&key, &mut out), Ok(true));
        assert_eq!(store.get_exclusive(&key, &mut out), Ok(false));
    }
    holds(&store, "exclusive gets");
    for index in 10..20 {
        assert!(store.flush_page(&key(persistent, 1, index)));
        assert!(!store.flush_page(&key(persistent, 1, index)));
    }
    store.flush_object(ephemeral, key(ephemeral, 1, 0).object);
    holds(&store, "flushes");
    for index in 0..900 {
        let pool = [ephemeral, persistent][index as usize % 2];
        store.put(&key(pool, 2, index), &noise(index)).ok();
    }
    let stats = store.stats();
    assert!(rejected(&stats) > 0 && stats.evicted_ephemeral_pages > 0);
    holds(&store, "evictions, writebacks and refusals");
    // A put that is refused frees the older page of its key all the same.
    for index in 0..900 {
        store
            .put(&key(persistent, 2, index), &noise(index + 1000))
            .ok();
    }
    holds(&store, "refusals of pages that had an older one");
    store.destroy_pool(persistent);
    assert!(store.put(&key(persistent, 1, 1), &record(1)).is_err());
    holds(&store, "a pool that was destroyed");
    store.destroy_pool(ephemeral);
    for handle in &handles[20..] {
        store.release(*handle);
    }
    holds(&store, "everything went");
    let stats = store.stats();
    assert_eq!((stats.stored_pages, gone(&stats)), (0, stats.accepted));
}

#[test]
fn both_figures_of_memory_are_equal() {
    for allocator in Allocator::ALL {
        for tier in [false, true] {
            let config = StoreConfig {
                allocator,
                dictionaries: true,
                codec: zcache::Codec::Zstd.into(),
                ..plain(2 << 20)
            };
            let store = match tier {
                true => Store::with_tier(&config, Box::new(MemoryTier::new(1)), None).unwrap(),
                false => Store::open(config).unwrap(),
            };
            let pool = store.create_pool(PoolKind::Persistent);
            let equal = |after: &str| {
                let both = || (store.stats(), store.ram_bytes());
                let (stats, ram_bytes) = undisturbed(&store, both);
                assert_eq!(
                    stats.pool_bytes + stats.metadata_bytes,
                    ram_bytes,
                    "{allocator:?}, tier: {tier}, after {after}"
                );
            };
            equal("opening");
            for number in 0..3000 {
                store.put(&key(pool, 0, number), &page(number)).ok();
                if number % 500 == 0 {
                    store.train();
                }
            }
            equal("puts");
            store.reclaim(u64::MAX);
            equal("a reclaim");
            store.destroy_pool(pool);
            equal("the end of its pool");
        }
    }
}

#[test]
fn a_miss_is_no_load() {
    let (store, _, [ephemeral, persistent]) = over_memory(1 << 20, None);
    store.put(&key(persistent, 0, 0), &record(1)).unwrap();
    let mut out = [0; PAGE_SIZE];
    for pool in [ephemeral, persistent] {
        assert_eq!(get(&store, &key(pool, 9, 9)), Ok(None));
        assert_eq!(store.get_exclusive(&key(pool, 9, 9), &mut out), Ok(false));
    }
    assert_eq!(store.stats().loads, 0, "no page was given back");
    get(&store, &key(persistent, 0, 0)).unwrap();
    assert_eq!(store.stats().loads, 1);
    let mut run = [[0; PAGE_SIZE]; 4];
    store.get_run(&key(persistent, 0, 0), &mut run, &mut [Ok(false); 4]);
    assert_eq!(store.stats().loads, 2, "one page of the four is there");
    let handle = store.insert(&record(2)).unwrap();
    store.load(handle, &mut out).unwrap();
    store.release(handle);
    assert!(store.load(handle, &mut out).is_err());
    assert_eq!(store.stats().loads, 3);
}

#[test]
fn trouble_that_is_over_is_not_told() {
    let (store, tier, [_, persistent]) = over_memory(1 << 20, Some(1 << 20));
    for index in 0..900 {
        store.put(&key(persistent, 0, index), &noise(index)).ok();
    }
    assert!(store.swap_trouble().is_some(), "the tier is full");
    store.flush_pool(persistent);
    assert_eq!(store.swap_trouble(), None, "the tier is empty");
    tier.set_faults(Faults {
        sectors_max: Some(0),
        ..Faults::default()
    });
    for index in 0..400 {
        store.put(&key(persistent, 0, index), &noise(index)).ok();
    }
    assert!(store.swap_trouble().is_some(), "no write works");
    tier.heal();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    store.reclaim(1 << 20);
    assert_eq!(store.swap_trouble(), None, "a write worked");
}

#[test]
fn what_came_from_the_tier_and_what_failed_is_counted() {
    let (store, tier, [_, persistent]) = over_memory(1 << 20, None);
    for index in 0..600 {
        store
            .put(&key(persistent, 0, index), &noise(index))
            .unwrap();
    }
    let before = store.stats();
    assert!(before.swapped_pages > 100 && before.writeback_pages >= before.swapped_pages);
    for index in 0..600 {
        assert_eq!(
            get(&store, &key(persistent, 0, index)),
            Ok(Some(noise(index)))
        );
    }
    let after = store.stats();
    assert_eq!(after.swapin_pages, before.swapped_pages);
    assert_eq!(after.loads, before.loads + 600);
    for (fault, errors) in [(ReadFault::Error, [1, 0]), (ReadFault::Flip, [0, 1])] {
        let before = store.stats();
        tier.set_faults(Faults {
            reads: vec![(fault, u16::MAX)],
            ..Faults::default()
        });
        let lost = (0..600).filter(|index| get(&store, &key(persistent, 0, *index)).is_err());
        let lost = lost.count() as u64;
        tier.heal();
        let after = store.stats();
        assert!(lost > 0);
        assert_eq!(
            [
                after.read_errors - before.read_errors,
                after.checksum_errors - before.checksum_errors
            ],
            errors.map(|part| part * lost)
        );
        assert_eq!(after.loads, before.loads + 600 - lost);
    }
}

#[test]
fn a_same_filled_page_is_counted_while_it_is_held() {
    let (store, _, [_, persistent]) = over_memory(1 << 20, None);
    for index in 0..10 {
        store.put(&key(persistent, 0, index), &same(index)).unwrap();
    }
    assert_eq!(store.stats().same_filled_pages, 10);
    for index in 0..10 {
        store
            .put(&key(persistent, 0, index), &noise(index))
            .unwrap();
    }
    let stats = store.stats();
    assert_eq!((stats.same_filled_pages, stats.stored_pages), (0, 10));
    assert_eq!(stats.incompressible_pages, 10);
}
