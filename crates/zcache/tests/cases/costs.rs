//! What an operation costs depends on what it does, not on what else is stored,
//! and not on which keys a client chose. Times are compared within one run.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use zcache::{Key, ObjectId, PoolKind, Store, StoreConfig};
use zcache_core::{Allocator, Kind, Shard, Zpage};

use crate::flip::Heap;
use crate::support::pages::{record, same};
use crate::{get, key, plain};

/// A measurement that something else on the machine disturbed is made again.
const TRIES: u32 = 3;

/// One step of the hash that once placed keys, which can be undone.
fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let word = (word ^ word >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ word >> 33
}

/// The time that puts and gets of so many objects take. Those that collide have
/// ids that were made to have one hash in a table without a seed.
fn time_of_objects(count: u64, collide: bool) -> Duration {
    let config = StoreConfig {
        shards: 1,
        ..plain(64 << 20)
    };
    let store = Store::open(config).unwrap();
    let pool = store.create_pool(PoolKind::Persistent);
    let bits = u64::from(pool.number());
    let key = |number: u64| {
        let high = number * 7919;
        let second = mix(mix(high ^ bits << 32).wrapping_add(number));
        let low = if collide {
            0_u64.wrapping_sub(second)
        } else {
            number
        };
        Key {
            pool,
            object: ObjectId([high, number, low]),
            index: 0,
        }
    };
    let start = Instant::now();
    for number in 0..count {
        store.put(&key(number), &same(number)).unwrap();
    }
    for number in 0..count {
        assert_eq!(get(&store, &key(number)), Ok(Some(same(number))));
    }
    start.elapsed()
}

#[test]
fn keys_cannot_be_chosen_to_collide() {
    let ratio = |_| {
        let colliding = time_of_objects(2000, true);
        colliding.as_secs_f64() / time_of_objects(2000, false).as_secs_f64()
    };
    let ratios: Vec<f64> = (0..TRIES).map(ratio).collect();
    assert!(
        ratios.iter().any(|ratio| *ratio < 3.0),
        "keys that collide take {ratios:.1?} times as long"
    );
}

/// The longest get beside a flush, and how long the flush took.
fn flush_beside_gets(pages: u64, flush: impl Fn(&Store, Key) -> u64) -> (Duration, Duration) {
    let config = StoreConfig {
        shards: 1,
        ..plain(256 << 20)
    };
    let store = Store::open(config).unwrap();
    let pools = [0; 2].map(|_| store.create_pool(PoolKind::Ephemeral));
    for number in 0..pages {
        store.put(&key(pools[0], 7, number), &same(number)).unwrap();
    }
    for number in 0..64 {
        store
            .put(&key(pools[1], 1, number), &record(number))
            .unwrap();
    }
    let (stop, worst) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut took = Duration::ZERO;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Relaxed) {
                let start = Instant::now();
                get(&store, &key(pools[1], 1, number % 64)).unwrap();
                worst.fetch_max(start.elapsed().as_nanos() as u64, Relaxed);
                number += 1;
            }
        });
        std::thread::sleep(Duration::from_millis(50));
        worst.store(0, Relaxed);
        let start = Instant::now();
        assert_eq!(flush(&store, key(pools[0], 7, 0)), pages);
        took = start.elapsed();
        stop.store(true, Relaxed);
    });
    (Duration::from_nanos(worst.into_inner()), took)
}

fn nobody_waits_long(flush: impl Fn(&Store, Key) -> u64) {
    let measured: Vec<_> = (0..TRIES)
        .map(|_| flush_beside_gets(100_000, &flush))
        .collect();
    assert!(
        measured.iter().any(|(worst, took)| *worst * 8 < *took),
        "the longest get beside a flush, and the flush: {measured:?}"
    );
}

#[test]
fn nobody_waits_for_the_flush_of_a_long_object() {
    nobody_waits_long(|store, key| store.flush_object(key.pool, key.object));
}

#[test]
fn nobody_waits_for_the_flush_of_a_large_pool() {
    nobody_waits_long(|store, key| store.flush_pool(key.pool));
}

#[test]
fn nobody_waits_for_the_end_of_a_large_pool() {
    nobody_waits_long(|store, key| store.destroy_pool(key.pool));
}

/// Pages of an object, as of a small file.
const OBJECT_PAGES: u64 = 16;
/// Objects that are dropped to time one.
const DROPPED: u64 = 64;

fn object(number: u64) -> ObjectId {
    ObjectId([number * 1024 + 0xffff_8881_0000_0000, 0, 0])
}

/// The time that the core takes to drop a small object among so many pages.
fn drop_one_of(pages: u64) -> Duration {
    let mut heap = Heap::new(1 << 16);
    let mut shard = Shard::new(Allocator::Block);
    let pool = zcache_core::PoolId::new(1, Kind::Ephemeral);
    let objects = pages / OBJECT_PAGES;
    for number in 0..objects {
        for index in 0..OBJECT_PAGES as u32 {
            let key = zcache_core::Key {
                pool,
                object: object(number),
                index,
            };
            let zpage = Zpage::Same { word: number };
            shard.put(&mut heap, &key, zpage).unwrap();
        }
    }
    let start = Instant::now();
    for number in 0..DROPPED {
        let object = object(number * (objects / DROPPED));
        assert_eq!(shard.flush_object(&mut heap, pool, object), OBJECT_PAGES);
    }
    start.elapsed() / DROPPED as u32
}

#[test]
fn dropping_an_object_costs_by_its_pages_not_by_those_stored() {
    let ratio = |_| {
        let few = drop_one_of(4_000);
        drop_one_of(200_000).as_secs_f64() / few.as_secs_f64()
    };
    let ratios: Vec<f64> = (0..TRIES).map(ratio).collect();
    assert!(
        ratios.iter().any(|ratio| *ratio < 5.0),
        "with 50 times as many pages stored it takes {ratios:.1?} times as long"
    );
}

/// The time of an operation on a small pool or object beside so many pages.
fn beside(pages: u64, operation: impl Fn(&Store, zcache::PoolId) -> u64) -> Duration {
    let config = StoreConfig {
        shards: 1,
        ..plain(256 << 20)
    };
    let store = Store::open(config).unwrap();
    let many = store.create_pool(PoolKind::Persistent);
    for number in 0..pages {
        let key = key(many, number / OBJECT_PAGES, number % OBJECT_PAGES);
        store.put(&key, &same(number)).unwrap();
    }
    let mut took = Duration::ZERO;
    for _ in 0..DROPPED {
        let pool = store.create_pool(PoolKind::Persistent);
        for index in 0..OBJECT_PAGES {
            store.put(&key(pool, 0, index), &same(index)).unwrap();
        }
        let start = Instant::now();
        assert_eq!(operation(&store, pool), OBJECT_PAGES);
        took += start.elapsed();
    }
    took / DROPPED as u32
}

fn costs_by_what_is_dropped(operation: impl Fn(&Store, zcache::PoolId) -> u64) {
    let ratio = |_| {
        let few = beside(2_000, &operation);
        beside(100_000, &operation).as_secs_f64() / few.as_secs_f64()
    };
    let ratios: Vec<f64> = (0..TRIES).map(ratio).collect();
    assert!(
        ratios.iter().any(|ratio| *ratio < 5.0),
        "with 50 times as many pages stored it takes {ratios:.1?} times as long"
    );
}

#[test]
fn flushing_an_object_costs_by_its_pages() {
    costs_by_what_is_dropped(|store, pool| store.flush_object(pool, key(pool, 0, 0).object));
}

#[test]
fn flushing_a_pool_costs_by_its_pages() {
    costs_by_what_is_dropped(|store, pool| store.flush_pool(pool));
}

#[test]
fn destroying_a_pool_costs_by_its_pages() {
    costs_by_what_is_dropped(|store, pool| store.destroy_pool(pool));
}
