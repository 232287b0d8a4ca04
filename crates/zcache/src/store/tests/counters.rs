//! Every page that came in is accounted for, whichever way it went.

use super::*;
use crate::tier::memory::Faults;

fn key(pool: PoolId, index: u32) -> Key {
    Key {
        pool,
        object: zcache_core::ObjectId([1, 2, 3]),
        index,
    }
}

#[test]
fn each_way_that_a_page_goes_has_its_counter() {
    let (store, _) = swapping(8 << 20, 2, None, StoreConfig::default());
    let page = testing::page(5);
    let mut out = [0; PAGE_SIZE];
    let pool = store.create_pool(PoolKind::Persistent);

    let handle = store.insert(&page).unwrap();
    store.retain(handle);
    store.release(handle);
    assert_eq!(store.stats().released_pages, 0, "a reference is left");
    store.release(handle);

    for index in 0..6 {
        store.put(&key(pool, index), &page).unwrap();
    }
    store.put(&key(pool, 0), &page).unwrap();
    store.put(&key(pool, 0), &page).unwrap();
    // One from RAM, one same-filled, one from the tier.
    assert_eq!(store.get_exclusive(&key(pool, 1), &mut out), Ok(true));
    store.put(&key(pool, 100), &[0; PAGE_SIZE]).unwrap();
    assert_eq!(store.get_exclusive(&key(pool, 100), &mut out), Ok(true));
    store.reclaim(u64::MAX);
    assert_eq!(store.get_exclusive(&key(pool, 2), &mut out), Ok(true));
    assert_eq!(store.get_exclusive(&key(pool, 2), &mut out), Ok(false));
    store.set_pool_bytes_max(0);
    store.set_pool_bytes_max(8 << 20);
    assert!(store.flush_page(&key(pool, 3)));
    assert!(!store.flush_page(&key(pool, 3)));
    assert_eq!(store.destroy_pool(pool), 3);
    assert_eq!(store.put(&key(pool, 0), &page), Err(Rejected::NoSuchPool));

    let stats = store.stats();
    assert_eq!(stats.released_pages, 1);
    assert_eq!(stats.overwritten_pages, 2);
    assert_eq!(stats.taken_pages, 3);
    assert_eq!(stats.flushed_pages, 4);
    assert_eq!(stats.put_to_flush_pages, 0);
    assert_eq!(stats.rejected_no_such_pool, 1);
    assert_eq!((stats.stored_pages, stats.accepted), (0, 10));
    assert_eq!((stats.attempts, stats.load_attempts), (11, 4));
    assert_eq!((stats.loads, stats.load_misses), (3, 1));
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn an_older_page_is_overwritten_or_flushed_by_what_became_of_the_put() {
    let (store, tier) = swapping(1 << 20, 1, None, StoreConfig::default());
    let pool = store.create_pool(PoolKind::Persistent);
    // Pages that no codec shrinks, in a store that is full of them.
    let noise = |number: u64| testing::page(number * 16 + 1);
    let mut last = 0;
    tier.set_faults(Faults {
        write_error_rate: u16::MAX,
        ..Faults::default()
    });
    while store.put(&key(pool, last), &noise(last.into())).is_ok() {
        last += 1;
    }
    let before = store.stats();
    // An older page that is small makes no room for one that is not.
    store.set_pool_bytes_max(2 << 20);
    store.put(&key(pool, last), &[0; PAGE_SIZE]).unwrap();
    store.set_pool_bytes_max(1 << 20);
    while store.insert(&noise(999)).is_ok() {}
    let put = || store.put(&key(pool, last), &noise(7));
    assert_eq!(put(), Err(Rejected::TierFailing));
    let stats = store.stats();
    assert_eq!(stats.put_to_flush_pages, before.put_to_flush_pages + 1);
    assert_eq!(stats.overwritten_pages, before.overwritten_pages);
    assert_eq!(store.validate(), Ok(()));

    // The same, but the tier takes blocks at the second attempt.
    store.set_pool_bytes_max(2 << 20);
    store.put(&key(pool, last), &[0; PAGE_SIZE]).unwrap();
    store.set_pool_bytes_max(1 << 20);
    while store.insert(&noise(999)).is_ok() {}
    tier.set_faults(Faults::default());
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(put(), Ok(()));
    let after = store.stats();
    assert_eq!(after.overwritten_pages, stats.overwritten_pages + 1);
    assert_eq!(after.put_to_flush_pages, stats.put_to_flush_pages);
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn pages_asked_for_are_loads_misses_or_errors_by_whichever_door() {
    let (store, tier) = swapping(8 << 20, 1, None, StoreConfig::default());
    let pool = store.create_pool(PoolKind::Persistent);
    let page = testing::page(5);
    let handle = store.insert(&page).unwrap();
    for index in 0..4 {
        store.put(&key(pool, index), &page).unwrap();
    }
    let mut out = [[0; PAGE_SIZE]; 8];
    store.load(handle, &mut out[0]).unwrap();
    let gone = Handle::from_bits(12345);
    assert_eq!(store.load(gone, &mut out[0]), Err(LoadError::Gone));
    let mut results = [Err(LoadError::Gone); 3];
    store.load_many(&[handle, gone, handle], &mut out[..3], &mut results);
    let mut results = [Ok(false); 8];
    store.get_run(&key(pool, 0), &mut out, &mut results);
    assert_eq!(store.get(&key(pool, 2), &mut out[0]), Ok(true));
    assert_eq!(store.get(&key(pool, 9), &mut out[0]), Ok(false));
    let stats = store.stats();
    assert_eq!(stats.loads, 1 + 2 + 4 + 1);
    assert_eq!(stats.load_misses, 1 + 1 + 4 + 1);

    store.reclaim(u64::MAX);
    tier.set_faults(Faults {
        read_error_rate: u16::MAX,
        ..Faults::default()
    });
    assert!(store.load(handle, &mut out[0]).is_err());
    let mut results = [Err(LoadError::Gone); 2];
    store.load_many(&[handle, handle], &mut out[..2], &mut results);
    let mut results = [Ok(false); 2];
    store.get_run(&key(pool, 0), &mut out[..2], &mut results);
    assert!(store.get_exclusive(&key(pool, 0), &mut out[0]).is_err());
    let after = store.stats();
    assert_eq!(after.read_errors, 1 + 2 + 2 + 1);
    assert_eq!(
        (after.loads, after.load_misses),
        (stats.loads, stats.load_misses)
    );
    assert_eq!(after.load_attempts, stats.load_attempts + 6);
    assert_eq!(store.validate(), Ok(()));
}
