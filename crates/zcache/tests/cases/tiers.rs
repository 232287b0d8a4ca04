//! Tiers that fail in one place, for a while or by a panic, and threads that fill
//! a store faster than one alone: everything else goes on as before.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use zcache::tier::memory::MemoryTier;
use zcache::{PoolId, PoolKind, Store, StoreConfig};

use crate::support::faulty::{Asked, Damage, Faults, FaultyTier, ReadFault, WriteFault};
use crate::support::pages::{noise, noise_up_to};
use crate::{Tally, get, key, plain, swapping};

fn over(config: &StoreConfig, bytes_max: Option<u64>) -> (Store, Arc<FaultyTier>, PoolId) {
    let tier = Arc::new(FaultyTier::new(Box::new(MemoryTier::new(1)), 1));
    let store = Store::with_tier(config, Box::new(Arc::clone(&tier)), bytes_max).unwrap();
    let pool = store.create_pool(PoolKind::Persistent);
    (store, tier, pool)
}

fn one_shard(pool_bytes_max: u64) -> StoreConfig {
    StoreConfig {
        shards: 1,
        ..plain(pool_bytes_max)
    }
}

/// The part of new pages that a store takes after half of what filled it was
/// freed, so that its tier has to be packed anew.
fn taken_after_half_was_freed(damage: impl FnOnce(&FaultyTier)) -> (u64, u64) {
    let (store, tier, pool) = over(&one_shard(2 << 20), Some(8 << 20));
    let page = |number| noise_up_to(number, 1200);
    let mut count = 0;
    while store.put(&key(pool, 0, count), &page(count)).is_ok() {
        count += 1;
    }
    damage(&tier);
    // Of the first blocks, all but one page: they are the emptiest.
    for index in 0..count {
        if index % 2 == 0 || (index < 60 && index != 7) {
            store.flush_page(&key(pool, 0, index));
        }
    }
    let more = count..count + count / 2;
    let taken = more
        .clone()
        .filter(|index| store.put(&key(pool, 0, *index), &page(*index)).is_ok());
    (taken.count() as u64, count / 2)
}

#[test]
fn one_unreadable_block_does_not_stop_compaction() {
    let (taken, of) = taken_after_half_was_freed(|_| ());
    assert!(taken * 10 >= of * 9, "{taken} of {of} without a fault");
    let (taken_beside, of) =
        taken_after_half_was_freed(|tier| tier.damage_at(Damage::Unreadable, 0..1));
    assert!(
        taken_beside * 20 >= taken * 19,
        "{taken_beside} of {of} are taken beside one unreadable sector, {taken} without"
    );
}

#[test]
fn one_altered_block_does_not_stop_compaction() {
    let (taken, of) = taken_after_half_was_freed(|_| ());
    for damage in [Damage::Flip, Damage::Zeros, Damage::Other] {
        let (beside, _) = taken_after_half_was_freed(|tier| tier.damage_at(damage, 0..4));
        assert!(
            beside * 20 >= taken * 19,
            "{beside} of {of} are taken beside a block with {damage:?}, {taken} without"
        );
    }
}

#[test]
fn a_transient_error_of_compaction_loses_no_page() {
    let (store, tier, pool) = over(&one_shard(2 << 20), Some(8 << 20));
    let page = |number| noise_up_to(number, 1200);
    let mut count = 0;
    while store.put(&key(pool, 0, count), &page(count)).is_ok() {
        count += 1;
    }
    let mut there = Vec::new();
    for index in 0..count {
        match index % 8 {
            0 => there.push(index),
            _ => {
                store.flush_page(&key(pool, 0, index));
            }
        }
    }
    for fault in [
        ReadFault::Error,
        ReadFault::Flip,
        ReadFault::Zeros,
        ReadFault::Short,
    ] {
        tier.set_faults(Faults {
            reads: vec![(fault, u16::MAX)],
            ..Faults::default()
        });
        for _ in 0..20 {
            store.reclaim(64 << 10);
        }
    }
    tier.heal();
    let mut tally = Tally::default();
    for index in &there {
        tally.add(get(&store, &key(pool, 0, *index)), &page(*index));
    }
    assert_eq!(tally, Tally::all_good(there.len() as u64));
}

#[test]
fn after_no_space_places_that_are_free_again_are_used_at_once() {
    let (store, tier, pool) = over(&plain(1 << 20), None);
    tier.set_faults(Faults {
        sectors_max: Some(512),
        ..Faults::default()
    });
    let mut count = 0;
    let mut refused = 0;
    while refused < 200 {
        match store.put(&key(pool, 0, count), &noise(count)) {
            Ok(()) => refused = 0,
            Err(_) => refused += 1,
        }
        count += 1;
    }
    // The filesystem is as full as before, but half of our places are free.
    for index in 0..count {
        if index / 16 % 2 == 0 {
            store.flush_page(&key(pool, 0, index));
        }
    }
    let start = Instant::now();
    let mut refusals = 0;
    for index in count..count + 200 {
        while store.put(&key(pool, 0, index), &noise(index)).is_err() {
            refusals += 1;
            assert!(
                start.elapsed() < Duration::from_secs(3),
                "page {} of 200 is refused for seconds",
                index - count
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert!(
        refusals < 20,
        "{refusals} refusals of 200 pages for which there was room"
    );
}

#[test]
fn after_no_space_and_room_again_all_is_taken() {
    let (store, tier, pool) = over(&plain(1 << 20), None);
    tier.set_faults(Faults {
        sectors_max: Some(128),
        ..Faults::default()
    });
    let mut there = Vec::new();
    for index in 0..1000 {
        if store.put(&key(pool, 0, index), &noise(index)).is_ok() {
            there.push(index);
        }
    }
    tier.heal();
    // The longest wait between two tries is a second.
    std::thread::sleep(Duration::from_millis(1100));
    let mut refused = 0;
    for index in 1000..2000 {
        match store.put(&key(pool, 0, index), &noise(index)) {
            Ok(()) => there.push(index),
            Err(_) => refused += 1,
        }
    }
    assert_eq!(refused, 0, "of 1000 pages for which there was room");
    assert_eq!(store.swap_trouble(), None, "the trouble is over");
    let mut tally = Tally::default();
    for index in &there {
        tally.add(get(&store, &key(pool, 0, *index)), &noise(*index));
    }
    assert_eq!(tally, Tally::all_good(there.len() as u64));
}

/// Reclaims while the tier panics, as often as that.
fn panics(store: &Store, tries: u32) -> u32 {
    let caught = |_: &u32| {
        let reclaim = AssertUnwindSafe(|| store.reclaim(64 << 10));
        match catch_unwind(reclaim) {
            Ok(_) => false,
            Err(payload) => payload.is::<Asked>(),
        }
    };
    (0..tries).filter(caught).count() as u32
}

fn after_panics_of_writes(fault: WriteFault) {
    let (store, tier, pool) = over(&plain(2 << 20), Some(8 << 20));
    for index in 0..300 {
        store.put(&key(pool, 0, index), &noise(index)).unwrap();
    }
    let (stats, empty) = (store.stats(), tier.writes());
    assert_eq!((stats.swap_bytes, empty), (0, 0));
    tier.set_faults(Faults {
        writes: vec![(fault, u16::MAX)],
        ..Faults::default()
    });
    assert!(panics(&store, 40) > 0);
    tier.heal();
    assert_eq!(store.validate(), Ok(()));
    assert_eq!(store.oldest_transfer(), None, "no transfer is under way");
    let mut tally = Tally::default();
    for index in 0..300 {
        tally.add(get(&store, &key(pool, 0, index)), &noise(index));
    }
    assert_eq!(tally, Tally::all_good(300));
    // The longest wait between two tries is a second.
    std::thread::sleep(Duration::from_millis(1100));
    store.reclaim(u64::MAX);
    let stats = store.stats();
    assert_eq!(
        stats.swapped_pages,
        300,
        "every page can leave RAM: {} KiB are left there",
        stats.pool_bytes >> 10
    );
    let mut refused = 0;
    for index in 300..900 {
        refused += u32::from(store.put(&key(pool, 0, index), &noise(index)).is_err());
    }
    assert_eq!(refused, 0, "of 600 pages for which there is room");
    store.flush_pool(pool);
    store.reclaim(u64::MAX);
    let stats = store.stats();
    assert_eq!((stats.stored_pages, stats.swap_bytes), (0, 0));
}

#[test]
fn a_tier_that_panics_before_it_writes_leaves_nothing_taken() {
    after_panics_of_writes(WriteFault::PanicBefore);
}

#[test]
fn a_tier_that_panics_after_it_wrote_leaves_nothing_taken() {
    after_panics_of_writes(WriteFault::PanicAfter);
}

#[test]
fn a_tier_that_panics_on_reads_leaves_nothing_taken() {
    let (store, tier, pool) = over(&one_shard(2 << 20), Some(16 << 20));
    let page = |number| noise_up_to(number, 1200);
    let count = 3000;
    for index in 0..count {
        store.put(&key(pool, 0, index), &page(index)).unwrap();
    }
    store.reclaim(u64::MAX);
    for index in 0..count {
        if index % 8 != 0 {
            store.flush_page(&key(pool, 0, index));
        }
    }
    tier.set_faults(Faults {
        reads: vec![(ReadFault::Panic, u16::MAX)],
        ..Faults::default()
    });
    assert!(panics(&store, 40) > 0, "nothing was compacted");
    for index in (0..count).step_by(64) {
        let read = catch_unwind(AssertUnwindSafe(|| get(&store, &key(pool, 0, index))));
        assert!(read.is_err() || matches!(read, Ok(Ok(Some(_)))));
    }
    tier.heal();
    assert_eq!(store.oldest_transfer(), None, "no transfer is under way");
    let swap_bytes = store.stats().swap_bytes;
    for _ in 0..40 {
        store.reclaim(u64::MAX);
    }
    let stats = store.stats();
    assert!(
        stats.swap_bytes < swap_bytes / 2,
        "the tier is packed anew: {} of {} KiB, {} pages compacted",
        stats.swap_bytes >> 10,
        swap_bytes >> 10,
        stats.swap_compacted_pages
    );
    for index in (0..count).step_by(8) {
        assert_eq!(get(&store, &key(pool, 0, index)), Ok(Some(page(index))));
    }
    assert_eq!(store.validate(), Ok(()));
}

/// Threads put into a full store over a tier with room; how many puts were
/// refused and how many older pages went with them.
fn contend(store: &Store, threads: u64, each: u64) -> (u64, u64) {
    let pool = store.create_pool(PoolKind::Persistent);
    let (refused, lost) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (refused, lost) = (&refused, &lost);
            scope.spawn(move || {
                for number in 0..each {
                    let key = key(pool, thread, number % 500);
                    let before = matches!(get(store, &key), Ok(Some(_)));
                    if store.put(&key, &noise(number ^ thread << 32)).is_err() {
                        refused.fetch_add(1, Relaxed);
                        lost.fetch_add(u64::from(before), Relaxed);
                    }
                }
            });
        }
    });
    (refused.into_inner(), lost.into_inner())
}

#[test]
fn persistent_pages_are_not_refused_while_the_tier_has_room() {
    for (mib, threads) in [(1, 1), (1, 4), (1, 16), (4, 16), (4, 64)] {
        let (store, _, _) = over(&plain(mib << 20), None);
        let refused = contend(&store, threads, 6_000 / threads);
        assert_eq!(
            refused,
            (0, 0),
            "{mib} MiB over a memory tier, {threads} threads: refused, of these with an older page"
        );
    }
}

#[test]
fn persistent_pages_are_not_refused_while_the_disk_has_room() {
    for (mib, threads) in [(1, 4), (1, 16), (4, 64)] {
        let store = Store::open(swapping(mib << 20, None)).unwrap();
        let refused = contend(&store, threads, 6_000 / threads);
        assert_eq!(
            refused,
            (0, 0),
            "{mib} MiB over a swap file, {threads} threads: refused, of these with an older page"
        );
    }
}

#[test]
fn ephemeral_pages_of_many_threads_do_not_get_persistent_ones_refused() {
    let store = Store::open(plain(4 << 20)).unwrap();
    let pools = [PoolKind::Ephemeral, PoolKind::Persistent].map(|kind| store.create_pool(kind));
    let refused = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (store, refused) = (&store, &refused);
            scope.spawn(move || {
                for number in 0..1500 {
                    let ephemeral = thread != 0;
                    let pool = pools[usize::from(!ephemeral)];
                    let key = key(pool, thread, number % 400);
                    let put = store.put(&key, &noise(number ^ thread << 32));
                    refused.fetch_add(u64::from(!ephemeral && put.is_err()), Relaxed);
                }
            });
        }
    });
    assert_eq!(refused.into_inner(), 0, "of 400 pages in a store for 1000");
}
