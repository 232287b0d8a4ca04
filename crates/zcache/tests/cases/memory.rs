//! What a store may hold and what it costs: tables give their memory back,
//! everything ephemeral ages, a page that does not shrink costs little more than
//! itself.

use zcache::{Allocator, Codec, Key, ObjectId, PoolId, PoolKind, Rejected, Store, StoreConfig};

use crate::support::counts::used_bytes;
use crate::support::pages::{noise, record, same};
use crate::{child, get, key, plain, swapping};

/// Refusals in a row after which a store is full.
const REFUSALS: u32 = 200;

fn spread(pool: PoolId, number: u64) -> Key {
    Key {
        pool,
        object: ObjectId([number >> 12, 0, 1]),
        index: number as u32 & 0xfff,
    }
}

/// Puts same-filled pages until the store is full, at most so many.
fn fill_with_same(store: &Store, pool: PoolId, most: u64) -> u64 {
    let (mut number, mut refused) = (0, 0);
    while refused < REFUSALS && number < most {
        match store.put(&spread(pool, number), &same(0)) {
            Ok(()) => refused = 0,
            Err(_) => refused += 1,
        }
        number += 1;
    }
    number
}

/// How many of so many persistent pages are taken.
fn taken(store: &Store, pool: PoolId, count: u64) -> u64 {
    let put = |number: &u64| {
        let key = spread(pool, (1 << 20) + number);
        store.put(&key, &record(*number)).is_ok()
    };
    (0..count).filter(put).count() as u64
}

fn full_of_same(config: StoreConfig) -> (Store, PoolId, PoolId) {
    let store = Store::open(config).unwrap();
    let ephemeral = store.create_pool(PoolKind::Ephemeral);
    let persistent = store.create_pool(PoolKind::Persistent);
    fill_with_same(&store, ephemeral, 150_000);
    (store, ephemeral, persistent)
}

#[test]
fn persistent_pages_displace_ephemeral_ones_that_need_no_frame() {
    for swap in [false, true] {
        let config = match swap {
            true => swapping(1 << 20, Some(1 << 30)),
            false => plain(1 << 20),
        };
        let (store, _, persistent) = full_of_same(config);
        assert_eq!(taken(&store, persistent, 200), 200, "swap file: {swap}");
        assert_eq!(store.validate(), Ok(()));
    }
}

#[test]
fn ephemeral_pages_that_need_no_frame_age() {
    let store = Store::open(plain(1 << 20)).unwrap();
    let pool = store.create_pool(PoolKind::Ephemeral);
    let mut refused = 0;
    for number in 0..150_000 {
        refused += u32::from(store.put(&spread(pool, number), &same(number)).is_err());
    }
    assert_eq!(refused, 0, "the oldest make room");
    assert!(store.stats().evicted_ephemeral_pages > 0);
    let last = get(&store, &spread(pool, 149_999));
    assert_eq!(last, Ok(Some(same(149_999))));
    assert!(used_bytes(&store) <= 1 << 20);
}

#[test]
fn tables_give_their_memory_back() {
    for allocator in Allocator::ALL {
        let config = StoreConfig {
            allocator,
            ..plain(8 << 20)
        };
        let store = Store::open(config).unwrap();
        let fresh = used_bytes(&store);
        let pool = store.create_pool(PoolKind::Persistent);
        fill_with_same(&store, pool, 100_000);
        let full = used_bytes(&store);
        assert!(full > 2 << 20, "tables of 100,000 pages: {full} B");
        store.flush_pool(pool);
        store.reclaim(u64::MAX);
        store.compact(usize::MAX);
        let after = used_bytes(&store);
        assert!(
            after <= fresh + (128 << 10),
            "{allocator:?}: an empty store holds {} KiB, a fresh one {}",
            after >> 10,
            fresh >> 10
        );
    }
}

#[test]
fn tables_of_handles_give_their_memory_back() {
    let store = Store::open(plain(8 << 20)).unwrap();
    let fresh = used_bytes(&store);
    let insert = |number| store.insert(&same(number)).unwrap();
    let handles: Vec<_> = (0..100_000).map(insert).collect();
    for handle in handles {
        store.release(handle);
    }
    store.reclaim(u64::MAX);
    let after = used_bytes(&store);
    assert!(
        after <= fresh + (128 << 10),
        "an empty store holds {} KiB, a fresh one {}",
        after >> 10,
        fresh >> 10
    );
}

#[test]
fn after_everything_was_flushed_a_store_takes_as_much_as_an_empty_one() {
    let config = plain(2 << 20);
    let (store, ephemeral, persistent) = full_of_same(config.clone());
    store.flush_pool(ephemeral);
    store.reclaim(u64::MAX);
    let empty = Store::open(config).unwrap();
    let pool = empty.create_pool(PoolKind::Persistent);
    let (again, fresh) = (
        pages_until_full(&store, persistent),
        pages_until_full(&empty, pool),
    );
    assert!(
        again * 20 >= fresh * 19,
        "{again} pages fit, {fresh} into an empty store"
    );
}

/// How many random pages a store takes.
fn pages_until_full(store: &Store, pool: PoolId) -> u64 {
    let mut count = 0;
    while store
        .put(&key(pool, count >> 6, count), &noise(count))
        .is_ok()
    {
        count += 1;
    }
    count
}

/// Four pages that do not shrink fill a block of four frames, and the tables of a
/// page with a key take 1.4% more.
#[test]
fn a_page_that_does_not_shrink_costs_little_more_than_itself() {
    for codec in [Codec::Lz4, Codec::Raw] {
        let limit = 64 << 20;
        let store = Store::open(StoreConfig {
            codec: codec.into(),
            ..plain(limit)
        });
        let store = store.unwrap();
        let pool = store.create_pool(PoolKind::Persistent);
        let count = pages_until_full(&store, pool);
        let percent = limit as f64 * 100.0 / (count * 4096) as f64;
        assert!(
            percent <= 101.6,
            "{codec}: {count} random pages fill 64 MiB, {percent:.1}% of their size each"
        );
        assert_eq!(store.stats().incompressible_pages, count);
    }
}

/// Pages that shrink by a little must not cost more than those that do not.
#[test]
fn a_page_that_hardly_shrinks_costs_little_more_than_itself() {
    for bytes in [2100, 2800, 3400, 3900] {
        let limit = 16 << 20;
        let store = Store::open(plain(limit)).unwrap();
        let pool = store.create_pool(PoolKind::Persistent);
        let mut count = 0;
        let page = |number| crate::support::pages::noise_up_to(number, bytes);
        while store.put(&key(pool, 0, count), &page(count)).is_ok() {
            count += 1;
        }
        let percent = limit as f64 * 100.0 / (count * 4096) as f64;
        assert!(
            percent <= 102.0,
            "pages of {bytes} random bytes cost {percent:.1}% of a page each"
        );
    }
}

#[test]
fn the_limit_holds_for_every_kind_of_page() {
    for allocator in Allocator::ALL {
        let store = Store::open(StoreConfig {
            allocator,
            ..plain(1 << 20)
        });
        let store = store.unwrap();
        let pools = [PoolKind::Ephemeral, PoolKind::Persistent].map(|kind| store.create_pool(kind));
        for number in 0..6000 {
            let page = match number % 3 {
                0 => same(number),
                1 => record(number),
                _ => noise(number),
            };
            store
                .put(&key(pools[number as usize % 2], number % 7, number), &page)
                .ok();
            let used = used_bytes(&store);
            assert!(used <= 1 << 20, "{allocator:?}: {used} B");
        }
    }
}

/// A limit is refused, or every key can be stored by itself.
#[test]
fn a_small_store_refuses_no_key_for_ever() {
    for kib in [16_u64, 64, 128, 256, 512] {
        for shards in [1, 4, 64] {
            let opened = Store::open(StoreConfig {
                shards,
                ..plain(kib << 10)
            });
            let Ok(store) = opened else { continue };
            let pool = store.create_pool(PoolKind::Persistent);
            for number in 0..300 {
                let key = key(pool, number, number);
                let put = store.put(&key, &noise(number));
                assert_eq!(
                    put,
                    Ok(()),
                    "{kib} KiB, {shards} shards: the only page, after {number} others came and went"
                );
                store.flush_page(&key);
            }
        }
    }
}

#[test]
fn a_store_needs_little_address_space() {
    if !child::is_child() {
        // In KiB: 1 GiB.
        return child::passes(
            "memory::a_store_needs_little_address_space",
            "ulimit -v 1048576;",
        );
    }
    for shards in [1, 4, 64] {
        for allocator in Allocator::ALL {
            let config = StoreConfig {
                shards,
                allocator,
                ..swapping(256 << 20, None)
            };
            let store = Store::open(config).unwrap();
            let pool = store.create_pool(PoolKind::Persistent);
            for number in 0..4000 {
                let put = store.put(&key(pool, number, 0), &noise(number));
                assert_eq!(put, Ok(()), "{allocator:?}, {shards} shards");
            }
            for number in 0..4000 {
                assert_eq!(get(&store, &key(pool, number, 0)), Ok(Some(noise(number))));
            }
        }
    }
}

/// With no address space left, pages are refused and none is lost.
#[test]
fn without_address_space_pages_are_refused() {
    if !child::is_child() {
        return child::passes(
            "memory::without_address_space_pages_are_refused",
            "ulimit -v 262144;",
        );
    }
    let opened = Store::open(plain(1 << 30));
    let Ok(store) = opened else { return };
    let pool = store.create_pool(PoolKind::Persistent);
    let mut count = 0;
    let refused = loop {
        match store.put(&key(pool, 0, count), &noise(count)) {
            Ok(()) => count += 1,
            Err(refused) => break refused,
        }
    };
    assert!(count > 10_000, "{count} pages in 256 MiB: {refused}");
    assert_ne!(refused, Rejected::PoolFull, "the limit was not reached");
    for number in 0..count {
        assert_eq!(get(&store, &key(pool, 0, number)), Ok(Some(noise(number))));
    }
}

/// A swap file many times as large as RAM can be used.
#[test]
fn what_lies_in_the_tier_costs_little_ram() {
    let store = Store::open(swapping(2 << 20, None)).unwrap();
    let pool = store.create_pool(PoolKind::Persistent);
    let pages = 20_000;
    for number in 0..pages {
        let put = store.put(&key(pool, 0, number), &noise(number));
        assert_eq!(put, Ok(()), "page {number} of {pages}, 40 times the limit");
    }
    for number in (0..pages).step_by(97) {
        assert_eq!(get(&store, &key(pool, 0, number)), Ok(Some(noise(number))));
    }
}
