use super::*;

#[test]
fn the_limit_holds_at_every_step_and_nothing_is_lost_at_it() {
    for allocator in Allocator::ALL {
        // Every limit from nothing to a few blocks, one frame more each time.
        for frames in 0..48 {
            let store = Store::open(StoreConfig {
                pool_bytes_max: frames * 4096,
                shards: 2,
                allocator,
                ..StoreConfig::default()
            })
            .unwrap();
            let mut stored = Vec::new();
            for n in 0..200 {
                match store.insert(&testing::page(n)) {
                    Ok(handle) => stored.push((n, handle)),
                    Err(Rejected::PoolFull) => {}
                    Err(other) => panic!("{other} at a limit of {frames} frames"),
                }
                assert!(store.budget.used() <= frames * 4096);
            }
            for (n, handle) in &stored {
                assert_eq!(load(&store, *handle), Ok(testing::page(*n)));
            }
            let stats = store.stats();
            assert_eq!(stats.accepted, stored.len() as u64);
            assert_eq!(stats.accepted + stats.rejected(), stats.attempts);
            assert_eq!(store.validate(), Ok(()));
            for (_, handle) in stored {
                store.release(handle);
            }
        }
    }
}

#[test]
fn a_lower_limit_refuses_and_drops_nothing() {
    let (store, _) = swapping(32 << 20, 2, None, StoreConfig::default());
    let handles: Vec<_> = (0..2000)
        .map(|n| store.insert(&testing::page(n)).unwrap())
        .collect();
    store.set_pool_bytes_max(1 << 20);
    // Holes of blocks that are there already may still be filled.
    let refused = (0..2000).find_map(|n| store.insert(&testing::page(n)).err());
    assert_eq!(refused, Some(Rejected::PoolFull));
    // Room for one more block and its tables is asked for too.
    let over = store.budget.used() - (1 << 20) + (64 << 10);
    let done = store.reclaim(over);
    assert!(done.bytes >= over, "{done:?} of {over}");
    assert!(store.budget.used() <= 1 << 20);
    store.insert(&testing::page(3)).unwrap();
    for (n, handle) in handles.iter().enumerate() {
        assert_eq!(load(&store, *handle), Ok(testing::page(n as u64)));
    }
}

#[test]
fn beyond_the_limit_only_pages_that_shrink_are_taken() {
    let store = Store::open(StoreConfig {
        pool_bytes_max: 0,
        shards: 1,
        ..StoreConfig::default()
    })
    .unwrap();
    let mut rng = testing::Rng::from_env("beyond");
    let noise = std::array::from_fn(|_| rng.below(256) as u8);
    let text = std::array::from_fn(|n| b"some words "[n % 11]);
    for page in [&noise, &text] {
        assert_eq!(store.insert(page), Err(Rejected::PoolFull));
    }
    store.set_pool_bytes_beyond(1 << 20);
    assert_eq!(store.insert(&noise), Err(Rejected::PoolFull));
    let handle = store.insert(&text).unwrap();
    assert_eq!(load(&store, handle), Ok(text));
    assert!(store.budget.used() <= 1 << 20);
    store.set_pool_bytes_max(1 << 20);
    store.insert(&noise).unwrap();
}

#[test]
fn balance_reclaims_between_the_watermarks_only() {
    let (store, _) = swapping(8 << 20, 2, None, StoreConfig::default());
    let mut n = 0;
    while store.budget.used() < (8 << 20) * 93 / 100 {
        n += 1;
        store.insert(&testing::page(n)).unwrap();
        assert_eq!(store.balance(), Reclaimed::default());
    }
    while store.budget.used() <= (8 << 20) * 95 / 100 {
        n += 1;
        store.insert(&testing::page(n)).unwrap();
    }
    assert!(store.balance().bytes > 0);
    assert!(store.budget.used() <= (8 << 20) * 90 / 100);
    assert_eq!(store.balance(), Reclaimed::default());
}

#[test]
fn persistent_pages_displace_ephemeral_ones_of_every_shard_and_never_the_reverse() {
    let store = Store::open(StoreConfig {
        pool_bytes_max: 2 << 20,
        shards: 4,
        ..StoreConfig::default()
    })
    .unwrap();
    let ephemeral = store.create_pool(PoolKind::Ephemeral);
    let key = |pool, index| Key {
        pool,
        object: zcache_core::ObjectId([1, 2, 3]),
        index,
    };
    for index in 0..4000 {
        store
            .put(&key(ephemeral, index), &testing::page(index.into()))
            .unwrap();
    }
    assert!(store.stats().evicted_ephemeral_pages > 0);
    let mut handles = Vec::new();
    while let Ok(handle) = store.insert(&testing::page(handles.len() as u64)) {
        handles.push(handle);
    }
    let stats = store.stats();
    assert!(stats.pers_ate_eph > 0);
    assert!(stats.stored_pages >= handles.len() as u64);
    // Now that persistent pages fill it, ephemeral ones find no room.
    for index in 0..100 {
        store
            .put(&key(ephemeral, index), &testing::page(index.into()))
            .ok();
    }
    for (n, handle) in handles.iter().enumerate() {
        assert_eq!(load(&store, *handle), Ok(testing::page(n as u64)));
    }
}

#[test]
fn any_limit_opens_and_holds_pages() {
    for pool_bytes_max in [0, 1, u64::MAX] {
        for shards in [0, 1, 3, usize::MAX] {
            let store = Store::open(StoreConfig {
                pool_bytes_max,
                shards,
                ..StoreConfig::default()
            })
            .unwrap();
            let inserted = store.insert(&testing::page(5));
            assert_eq!(inserted.is_ok(), pool_bytes_max == u64::MAX);
            store.set_pool_bytes_max(u64::MAX);
            let handle = store.insert(&testing::page(5)).unwrap();
            assert_eq!(load(&store, handle), Ok(testing::page(5)));
        }
    }
}

#[test]
fn density_returns_when_half_was_freed() {
    let store = Store::open(StoreConfig::default()).unwrap();
    let handles: Vec<_> = (0..8000)
        .map(|n| store.insert(&testing::page(n)).unwrap())
        .collect();
    let density = || {
        let stats = store.stats();
        stats.compressed_bytes as f64 / stats.pool_bytes as f64
    };
    let fresh = density();
    for handle in handles.iter().enumerate().filter(|(n, _)| n % 3 != 0) {
        store.release(*handle.1);
    }
    assert!(density() < fresh / 2.0);
    while store.compact(1000) > 0 {}
    assert!(density() > fresh * 0.97, "{} of {fresh}", density());
    for (n, handle) in handles.iter().enumerate().step_by(3) {
        assert_eq!(load(&store, *handle), Ok(testing::page(n as u64)));
    }
}

#[test]
fn a_hook_may_call_the_store() {
    let (store, tier) = swapping(8 << 20, 1, None, StoreConfig::default());
    let handle = store.insert(&testing::page(5)).unwrap();
    // In RAM, because a same-filled page has no block.
    let other = store.insert(&testing::page(16)).unwrap();
    store.reclaim(u64::MAX);
    let inside = Arc::downgrade(&store);
    store.on_event(move |_| {
        let store = inside.upgrade().unwrap();
        assert_eq!(load(&store, other), Ok(testing::page(16)));
    });
    for at in 0..16 {
        tier.flip_bit(at * 64 + 20, 1);
    }
    assert!(matches!(
        load(&store, handle),
        Err(LoadError::Checksum { .. })
    ));
}
