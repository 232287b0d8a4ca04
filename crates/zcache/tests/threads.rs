//! What threads leave behind in a process that has one store. Alone in its process,
//! since working memory is counted for the process.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use zcache::codec::{self, Codec};
use zcache::{Key, ObjectId, PAGE_SIZE, Page, PoolKind, Store, StoreConfig};

const THREADS: u32 = 200;

/// More than a thread's piece of everything takes: two contexts of the dense codec,
/// room for a run, and rooms for pages.
const SET_BYTES: u64 = 320 << 10;

fn page(number: u32) -> Page {
    std::array::from_fn(|at| (at as u32 / 9 % 50 + number) as u8)
}

/// The part of the store's RAM that is no frame.
fn overhead_bytes(store: &Store) -> u64 {
    let stats = store.stats();
    let ram_bytes = store.ram_bytes();
    assert_eq!(ram_bytes, stats.pool_bytes + stats.metadata_bytes);
    store.overhead_bytes()
}

#[test]
fn threads_that_used_a_store_leave_no_more_than_a_few_would() {
    let store = Store::open(StoreConfig {
        codec: Codec::DENSE.into(),
        dictionaries: false,
        ..StoreConfig::default()
    });
    let store = store.unwrap();
    let pool = store.create_pool(PoolKind::Persistent);
    let before = overhead_bytes(&store);
    let used = Barrier::new(THREADS as usize + 1);
    let looked = Barrier::new(THREADS as usize + 1);
    let inside = Barrier::new(THREADS as usize);
    let at_once = AtomicU64::new(0);
    let mut idle = 0;
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let (store, used, looked) = (&store, &used, &looked);
            let (inside, at_once) = (&inside, &at_once);
            scope.spawn(move || {
                let key = Key {
                    pool,
                    object: ObjectId([0, 0, number.into()]),
                    index: 0,
                };
                let mut out = [[0; PAGE_SIZE]; 4];
                let mut results = [Ok(false); 4];
                for round in 0..20 {
                    store.put(&key, &page(number + round)).unwrap();
                    assert_eq!(store.get(&key, &mut out[0]), Ok(true));
                    assert_eq!(out[0], page(number + round));
                    store.get_run(&key, &mut out, &mut results);
                    assert_eq!(results, [Ok(true), Ok(false), Ok(false), Ok(false)]);
                }
                // All of them in the midst of an operation.
                codec::encode(Codec::FAST, &page(number), |_| {
                    if inside.wait().is_leader() {
                        at_once.store(store.overhead_bytes(), Relaxed);
                    }
                    inside.wait();
                });
                assert!(store.flush_page(&key));
                used.wait();
                looked.wait();
            });
        }
        used.wait();
        // They are there, and idle.
        idle = overhead_bytes(&store) - before;
        looked.wait();
    });
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let most = SET_BYTES * 2 * processors.min(32) as u64;
    let left = overhead_bytes(&store) - before;
    assert!(left > 0, "what is kept for the next operations is counted");
    for bytes in [idle, left] {
        assert!(bytes <= most, "{bytes} bytes, at most {most} expected");
    }
    let rooms = u64::from(THREADS) * PAGE_SIZE as u64;
    assert!(at_once.into_inner() > before + rooms);
}
