use super::*;
use crate::testing::Rng;
use crate::tier::memory::Faults;

/// Threads insert, load, share, release and reclaim at once over a tier that
/// sometimes fails; every page must be the right one or an announced error.
#[test]
fn threads_get_their_own_pages_whatever_the_others_do() {
    for allocator in Allocator::ALL {
        let (store, tier) = swapping(
            3 << 20,
            4,
            Some(8 << 20),
            StoreConfig {
                codec: Codec::FAST.into(),
                allocator,
                ..StoreConfig::default()
            },
        );
        tier.set_faults(Faults {
            write_error_rate: 300,
            read_error_rate: 300,
            bit_flip_rate: 300,
            ..Faults::default()
        });
        let seed = Rng::from_env("stress").next();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let store = &store;
                scope.spawn(move || handles(store, &mut Rng::new(seed ^ thread), thread));
            }
            for thread in 4..6 {
                let store = &store;
                scope.spawn(move || keys(store, &mut Rng::new(seed ^ thread), thread));
            }
        });
        assert_eq!(store.validate(), Ok(()));
        let stats = store.stats();
        assert_eq!(stats.accepted + stats.rejected(), stats.attempts);
        assert_eq!(stats.stored_pages, 0);
        assert_eq!(stats.swap_bytes, 0);
        assert!(
            stats.writeback_pages > 0 && stats.swapin_pages > 0,
            "{stats:?}"
        );
    }
}

fn handles(store: &Store, rng: &mut Rng, thread: u64) {
    let mut mine: Vec<(u64, Handle)> = Vec::new();
    for step in 0..2500 {
        let number = step * 8 + thread;
        match rng.below(8) {
            0..4 => match store.insert(&testing::page(number)) {
                Ok(handle) => mine.push((number, handle)),
                Err(Rejected::PoolFull) => {
                    store.reclaim(256 << 10);
                }
                Err(other) => panic!("{other}"),
            },
            4 if !mine.is_empty() => {
                let at = rng.below(mine.len() as u64) as usize;
                store.release(mine.swap_remove(at).1);
            }
            5 if !mine.is_empty() => {
                let (number, handle) = mine[rng.below(mine.len() as u64) as usize];
                expect(load(store, handle), number);
            }
            6 if !mine.is_empty() => {
                let start = rng.below(mine.len() as u64) as usize;
                let some = &mine[start..mine.len().min(start + 20)];
                let names: Vec<_> = some.iter().map(|(_, handle)| *handle).collect();
                let mut out = vec![[0; PAGE_SIZE]; some.len()];
                let mut results = vec![Err(LoadError::Gone); some.len()];
                store.load_many(&names, &mut out, &mut results);
                for ((number, _), (page, result)) in some.iter().zip(out.iter().zip(results)) {
                    expect(result.map(|()| *page), *number);
                }
            }
            7 if rng.below(50) == 0 => {
                store.compact(4);
            }
            _ => {}
        }
    }
    for (number, handle) in mine {
        expect(load(store, handle), number);
        store.release(handle);
    }
}

fn keys(store: &Store, rng: &mut Rng, thread: u64) {
    let pool = store.create_pool(PoolKind::Persistent);
    let mut there = [None; 64];
    let mut out = [0; PAGE_SIZE];
    for step in 0..2500 {
        let index = rng.below(64) as u32;
        let key = Key {
            pool,
            object: zcache_core::ObjectId([0, 0, u64::from(index % 4)]),
            index,
        };
        let expected = &mut there[index as usize];
        match rng.below(4) {
            0 | 1 => {
                let number = step * 8 + thread;
                let result = store.put(&key, &testing::page(number));
                *expected = result.ok().map(|()| number);
            }
            2 => match store.get(&key, &mut out) {
                Ok(hit) => assert_eq!(hit.then_some(out), expected.map(testing::page)),
                Err(error) => expect(Err(error), 0),
            },
            _ => match store.get_exclusive(&key, &mut out) {
                Ok(hit) => assert_eq!(hit.then_some(out), expected.take().map(testing::page)),
                Err(error) => expect(Err(error), 0),
            },
        }
    }
    let pages = there.iter().flatten().count() as u64;
    assert_eq!(store.destroy_pool(pool), pages);
}

fn expect(result: Result<Page, LoadError>, number: u64) {
    match result {
        Ok(page) => assert!(page == testing::page(number), "page {number}"),
        // Two flips or failures in a row; nothing else may be given as one.
        Err(LoadError::Checksum { .. } | LoadError::Io { errno: 5, .. }) => {}
        Err(error) => panic!("{error}"),
    }
}
