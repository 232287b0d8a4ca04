//! Threads that train, give and use dictionaries at once lose no page, and what
//! is collected for training is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use zcache::codec::Dictionary;
use zcache::{Codec, PoolKind, Store, StoreConfig};

use crate::support::pages::{self, DICTIONARIES};
use crate::{Tally, child, get, key};

/// How long threads race.
const TIME: Duration = Duration::from_secs(4);

/// Pages of each pool that is opened.
const PAGES: u64 = 8;

fn store(pool_bytes_max: u64, shards: usize) -> Arc<Store> {
    let config = StoreConfig {
        pool_bytes_max,
        codec: Codec::Zstd.into(),
        shards,
        ..StoreConfig::default()
    };
    Arc::new(Store::open(config).unwrap())
}

/// Opens pools with a dictionary of an earlier process, fills, reads and
/// destroys them until it is time; what became of their pages.
fn use_pools(store: &Store, thread: u64, stop: &AtomicBool) -> Tally {
    let saved = DICTIONARIES[thread as usize].save();
    let mut tally = Tally::default();
    let mut number = thread << 32;
    while !stop.load(Relaxed) {
        let pool = store.create_pool(PoolKind::Persistent);
        let dictionary = Arc::new(Dictionary::from_saved(&saved).unwrap());
        // Refused when no slot is free: its pages are then made without.
        store.use_dictionary(Some(pool), dictionary).ok();
        for index in 0..PAGES {
            let page = pages::text(number + index, thread);
            store.put(&key(pool, thread, index), &page).unwrap();
        }
        for index in 0..PAGES {
            let expected = pages::text(number + index, thread);
            tally.add(get(store, &key(pool, thread, index)), &expected);
        }
        store.destroy_pool(pool);
        number += PAGES;
    }
    tally
}

fn race(threads: u64, trainer: bool) {
    let store = store(64 << 20, 64);
    let stop = AtomicBool::new(false);
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let users: Vec<_> = (0..threads)
            .map(|thread| {
                let (store, stop) = (&store, &stop);
                scope.spawn(move || use_pools(store, thread, stop))
            })
            .collect();
        let end = Instant::now() + TIME;
        while Instant::now() < end {
            if trainer {
                store.train();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Relaxed);
        let ended = users.into_iter().map(|user| user.join());
        ended.map(|tally| tally.expect("no panic")).collect()
    });
    for tally in tallies {
        assert!(tally.good > 0);
        assert_eq!(tally, Tally::all_good(tally.good));
    }
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn pages_are_readable_while_threads_give_dictionaries() {
    race(4, false);
}

#[test]
fn pages_are_readable_while_a_thread_trains() {
    race(1, true);
}

#[test]
fn pages_are_readable_while_threads_give_dictionaries_and_one_trains() {
    race(3, true);
}

/// RAM that samples and tables of dictionaries may take beyond the limit,
/// whatever the number of pools.
const OVERHEAD_BYTES_MAX: u64 = 16 << 20;

#[test]
fn what_pools_collect_for_dictionaries_is_bounded() {
    if !child::is_child() {
        return child::passes(
            "dictionaries::what_pools_collect_for_dictionaries_is_bounded",
            "",
        );
    }
    let store = store(64 << 20, 4);
    let limit = 64 << 20;
    let mut worst = 0;
    for number in 0..120 {
        let pool = store.create_pool(PoolKind::Ephemeral);
        store.put(&key(pool, 0, 0), &pages::text(1, 0)).ok();
        for _ in 0..3 {
            store.train();
        }
        for index in 1..100 {
            let page = pages::text(index * number, 0);
            store.put(&key(pool, 0, index), &page).ok();
        }
        store.train();
        worst = worst.max(store.overhead_bytes());
    }
    assert!(
        worst <= OVERHEAD_BYTES_MAX,
        "{} MiB beyond the limit for 120 pools",
        worst >> 20
    );
    assert!(store.ram_bytes() <= limit + OVERHEAD_BYTES_MAX);
}

#[test]
fn what_pools_collected_is_given_back_with_them() {
    if !child::is_child() {
        return child::passes(
            "dictionaries::what_pools_collected_is_given_back_with_them",
            "",
        );
    }
    let store = store(64 << 20, 4);
    let before = store.overhead_bytes();
    for number in 0..60 {
        let pool = store.create_pool(PoolKind::Persistent);
        for round in 0..4 {
            store.train();
            for index in 0..50 {
                let page = pages::text(index * number, round);
                store.put(&key(pool, round, index), &page).unwrap();
            }
        }
        store.destroy_pool(pool);
    }
    store.train();
    let stats = store.stats();
    let kept = store.overhead_bytes() - before;
    assert!(
        kept <= stats.dictionary_bytes + (1 << 20),
        "{} KiB are kept for pools that are gone, {} KiB of them dictionaries",
        kept >> 10,
        stats.dictionary_bytes >> 10
    );
}

#[test]
fn a_pool_costs_less_than_a_kibibyte_and_all_of_it_is_counted() {
    const POOLS: u64 = 20_000;
    if !child::is_child() {
        return child::passes(
            "dictionaries::a_pool_costs_less_than_a_kibibyte_and_all_of_it_is_counted",
            "",
        );
    }
    let store = store(64 << 20, 4);
    let (resident, counted) = (resident_bytes(), store.ram_bytes());
    let open = |_| store.create_pool(PoolKind::Ephemeral);
    let pools: Vec<_> = (0..POOLS).map(open).collect();
    let grown = resident_bytes().saturating_sub(resident);
    let told = store.ram_bytes() - counted;
    assert!(grown <= POOLS * 1024, "{} B a pool", grown / POOLS);
    assert!(
        told + (1 << 20) >= grown,
        "{} KiB for {POOLS} pools, of which {} are counted",
        grown >> 10,
        told >> 10
    );
    for pool in pools {
        store.destroy_pool(pool);
    }
    assert!(store.ram_bytes() <= counted + (64 << 10));
}

/// Anonymous memory of this process.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() << 10
}
