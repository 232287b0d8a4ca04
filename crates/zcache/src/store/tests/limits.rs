use super::*;

/// An empty store of two shards with the least limit.
fn two_shards(allocator: Allocator) -> Store {
    let mut config = StoreConfig {
        shards: 2,
        allocator,
        ..StoreConfig::default()
    };
    config.pool_bytes_max = 2 * config.pool_bytes_min();
    Store::open(config).unwrap()
}

#[test]
fn the_limit_holds_at_every_step_and_nothing_is_lost_at_it() {
    for allocator in Allocator::ALL {
        // Every limit from nothing to a few blocks, one frame more each time.
        for frames in 0..48 {
            let store = two_shards(allocator);
            store.set_pool_bytes_max(frames * 4096);
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
        shards: 1,
        ..StoreConfig::default()
    })
    .unwrap();
    store.set_pool_bytes_max(0);
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
fn no_persistent_page_is_refused_while_any_shard_holds_ephemeral_ones() {
    const PAGES: u32 = 600;
    for allocator in Allocator::ALL {
        let store = Store::open(StoreConfig {
            pool_bytes_max: 8 << 20,
            shards: 16,
            allocator,
            ..StoreConfig::default()
        })
        .unwrap();
        let ephemeral = store.create_pool(PoolKind::Ephemeral);
        let persistent = store.create_pool(PoolKind::Persistent);
        let key = |pool, index| Key {
            pool,
            object: zcache_core::ObjectId([1, 2, 3]),
            index,
        };
        for index in 0..12_000 {
            // These displace little, and may be refused.
            store
                .put(&key(ephemeral, index), &testing::page(index.into()))
                .ok();
        }
        let full = store.stats();
        assert!(full.evicted_ephemeral_pages > 0);
        // A third of the limit, whether they shrink or not.
        let refused = (0..PAGES)
            .filter(|index| {
                let page = testing::page(u64::from(*index) * 7);
                match index % 2 {
                    0 => store.insert(&page).is_err(),
                    _ => store.put(&key(persistent, *index), &page).is_err(),
                }
            })
            .count();
        let stats = store.stats();
        assert_eq!(refused, 0, "{allocator:?}: {stats:?}");
        assert!(stats.pers_ate_eph > 0, "{allocator:?}");
        let left = (0..store.shards.len())
            .filter(|number| store.part(*number).core.usage().ephemeral.zpages > 0);
        assert!(left.count() > 0, "{allocator:?}");
    }
}

#[test]
fn a_limit_opens_if_a_page_of_every_kind_fits_and_divides_no_further_than_that() {
    for allocator in Allocator::ALL {
        let config = StoreConfig {
            allocator,
            ..StoreConfig::default()
        };
        let least = config.pool_bytes_min();
        let open = |pool_bytes_max, shards| {
            Store::open(StoreConfig {
                pool_bytes_max,
                shards,
                ..config.clone()
            })
        };
        for pool_bytes_max in [0, 1, least - 1] {
            let error = open(pool_bytes_max, 4).unwrap_err();
            assert!(
                matches!(error, OpenError::PoolTooSmall { least_bytes, .. } if least_bytes == least)
            );
            assert!(error.to_string().contains(&least.to_string()), "{error}");
        }
        for (pool_bytes_max, shards, expected) in [
            (least, 4, 1),
            (least * 2 - 1, 64, 1),
            (least * 3, 64, 2),
            (least * 64, 63, 64),
            (u64::MAX, 0, 1),
            (u64::MAX, 3, 4),
            (u64::MAX, usize::MAX, 64),
        ] {
            let store = open(pool_bytes_max, shards).unwrap();
            assert_eq!(store.shards.len(), expected);
            let handle = store.insert(&testing::page(5)).unwrap();
            assert_eq!(load(&store, handle), Ok(testing::page(5)));
        }
    }
}

#[test]
fn no_swap_file_is_made_for_a_limit_that_does_not_open() {
    let path = std::env::temp_dir().join(format!("zcache-too-small-{}", std::process::id()));
    let error = Store::open(StoreConfig {
        pool_bytes_max: 4096,
        tiers: vec![crate::tier::TierSource::disk(crate::SwapConfig {
            path: Some(path.clone()),
            bytes_max: None,
        })],
        ..StoreConfig::default()
    });
    assert!(matches!(error, Err(OpenError::PoolTooSmall { .. })));
    assert!(!path.exists());
}

#[test]
fn at_the_least_limit_no_page_is_refused_for_the_order_in_which_pages_come() {
    for allocator in Allocator::ALL {
        for shards in [1, 2, 4] {
            let mut config = StoreConfig {
                shards: 4,
                allocator,
                codec: Codec::FAST.into(),
                ..StoreConfig::default()
            };
            config.pool_bytes_max = config.pool_bytes_min() * shards as u64;
            let mut rng = testing::Rng::from_env("least");
            let store = Store::open(config).unwrap();
            assert_eq!(store.shards.len(), shards);
            let pools = [PoolKind::Persistent, PoolKind::Ephemeral].map(|k| store.create_pool(k));
            for round in 0..300 {
                // A page of each kind at a time, in any order, by key or handle, in any shard.
                let mut kinds = [1, rng.below(2) * 2];
                kinds.swap(0, rng.below(2) as usize);
                let index = rng.below(1 << 20) as u32;
                let mut handle = None;
                let page = testing::page(16 * round + 1 + rng.below(15));
                for kind in kinds {
                    let result = match kind {
                        2 => store.insert(&page).map(|h| handle = Some(h)),
                        _ => store.put(&by_key(pools[kind as usize], index), &page),
                    };
                    assert_eq!(
                        result,
                        Ok(()),
                        "{allocator:?}, {shards} shards, round {round}"
                    );
                }
                handle.into_iter().for_each(|handle| store.release(handle));
                for pool in pools {
                    store.flush_pool(pool);
                }
            }
        }
    }
}

fn by_key(pool: PoolId, index: u32) -> Key {
    Key {
        pool,
        object: zcache_core::ObjectId([7, 0, u64::from(index) % 5]),
        index,
    }
}

#[test]
fn tables_in_ram_address_as_many_pages_in_the_tier_as_is_told() {
    let config = StoreConfig {
        codec: Codec::FAST.into(),
        ..StoreConfig::default()
    };
    let (store, _) = swapping(512 << 10, 1, None, config.clone());
    let told = StoreConfig {
        pool_bytes_max: 512 << 10,
        ..config
    }
    .handle_pages_max();
    assert_eq!(told, 18724);
    let page = |number: u64| -> Page {
        let mut page = [7; PAGE_SIZE];
        let mut rng = testing::Rng::new(number);
        page[..1200]
            .as_chunks_mut::<8>()
            .0
            .fill_with(|| rng.next().to_le_bytes());
        page
    };
    let mut handles = Vec::new();
    loop {
        match store.insert(&page(handles.len() as u64)) {
            Ok(handle) => handles.push(handle),
            Err(Rejected::PoolFull) if store.reclaim(64 << 10).bytes > 0 => {}
            Err(error) => break assert_eq!(error, Rejected::PoolFull),
        }
    }
    let held = handles.len() as u64;
    assert!(
        held * 10 >= told * 8 && held <= told * 11 / 10,
        "{held} of {told}"
    );
    for at in (0..handles.len()).step_by(977) {
        assert_eq!(load(&store, handles[at]), Ok(page(at as u64)));
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
