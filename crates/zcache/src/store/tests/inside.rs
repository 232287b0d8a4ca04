//! Operations inside operations, and in places where a thread has nothing left of
//! its own: hooks, tiers, destructors of thread-locals.

use zcache_core::PoolId;

use super::*;
use crate::PageName;
use crate::tier::{TierError, TierRead, TierWrite};
use std::cell::RefCell;
use std::sync::atomic::AtomicU32;

fn key(pool: PoolId, index: u32) -> Key {
    Key {
        pool,
        object: zcache_core::ObjectId([1, 2, 3]),
        index,
    }
}

/// Pages that no codec shrinks.
fn noise(number: u64) -> Page {
    let mut rng = testing::Rng::new(number);
    std::array::from_fn(|_| rng.next() as u8)
}

/// What a hook, or a destructor, does with a store that has a page under this key.
fn use_store(store: &Store, key: &Key, page: &Page) {
    let mut out = [0; PAGE_SIZE];
    assert_eq!(store.get(key, &mut out), Ok(true));
    assert_eq!(out, *page);
    let mut run = [[0; PAGE_SIZE]; 2];
    let mut results = [Ok(false); 2];
    store.get_run(key, &mut run, &mut results);
    assert_eq!((results[0], run[0]), (Ok(true), *page));
    // There may be no room for it, and then it is refused.
    let other = Key {
        index: key.index + 100_000,
        ..*key
    };
    if store.put(&other, page).is_ok() {
        assert_eq!(store.get_exclusive(&other, &mut out), Ok(true));
        assert_eq!(out, *page);
    }
    if let Ok(handle) = store.insert(page) {
        assert_eq!(load(store, handle), Ok(*page));
        let mut many = [[0; PAGE_SIZE]];
        let mut results = [Ok(())];
        store.load_many(&[handle], &mut many, &mut results);
        assert_eq!((results[0], many[0]), (Ok(()), *page));
        store.release(handle);
    }
    assert!(store.stats().stored_pages > 0);
    store.reclaim(4096);
    assert!(store.ram_bytes() > store.overhead_bytes());
}

#[test]
fn a_hook_may_use_the_store_out_of_whose_put_it_is_called() {
    for codec in Codec::ALL {
        let config = StoreConfig {
            codec: codec.into(),
            ..StoreConfig::default()
        };
        let (store, _) = swapping(1 << 20, 4, Some(1 << 20), config);
        let [pages, notes] = [(); 2].map(|()| store.create_pool(PoolKind::Persistent));
        let note = testing::records(1)[0];
        store.put(&key(notes, 1), &note).unwrap();
        let calls = Arc::new(AtomicU32::new(0));
        let (weak, counted) = (Arc::downgrade(&store), Arc::clone(&calls));
        store.on_event(move |_| {
            let store = weak.upgrade().expect("it is being used");
            use_store(&store, &key(notes, 1), &note);
            counted.fetch_add(1, Relaxed);
        });
        let accepted =
            (0..1500).filter(|n| store.put(&key(pages, *n), &noise(u64::from(*n))).is_ok());
        let accepted = accepted.count() as u64;
        assert!(calls.load(Relaxed) > 0, "{codec}: the tier was never full");
        assert!(accepted > 300, "{codec}: {accepted}");
        let stats = store.stats();
        assert_eq!(stats.attempts, stats.accepted + stats.rejected());
        assert_eq!(store.validate(), Ok(()));
    }
}

#[test]
fn a_hook_may_use_the_store_out_of_whose_load_it_is_called() {
    for codec in Codec::ALL {
        let config = StoreConfig {
            codec: codec.into(),
            shards: 1,
            ..StoreConfig::default()
        };
        let store = Arc::new(Store::open(config).unwrap());
        // The first of all lies in the first block.
        let lost = store.insert(&noise(5)).unwrap();
        let pool = store.create_pool(PoolKind::Persistent);
        let pages = testing::records(3);
        for (page, n) in pages.iter().zip(0..) {
            store.put(&key(pool, n), page).unwrap();
        }
        {
            let part = &mut *store.part(0);
            let block = zcache_core::FrameId(0);
            let bytes =
                zcache_core::Frames::bytes_mut(&mut part.frames, block, zcache_core::Run::BLOCK);
            let at = bytes.windows(64).position(|some| some == &noise(5)[..64]);
            bytes[at.expect("noise is kept as it is")] ^= 1;
        }
        let calls = Arc::new(AtomicU32::new(0));
        let (weak, counted) = (Arc::downgrade(&store), Arc::clone(&calls));
        let good = pages[1];
        store.on_event(move |event| {
            assert!(matches!(event, Event::PageLost(_)));
            use_store(&weak.upgrade().unwrap(), &key(pool, 1), &good);
            counted.fetch_add(1, Relaxed);
        });
        let error = load(&store, lost).unwrap_err();
        let LoadError::Checksum { page, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(page, PageName::Handle(lost));
        let mut results = [Ok(())];
        store.load_many(&[lost], &mut [[0; PAGE_SIZE]], &mut results);
        assert_eq!(results[0], Err(error));
        assert_eq!(calls.load(Relaxed), 2);
    }
}

/// A tier in memory that keeps what it holds in another store, page by page.
struct Stacked {
    below: Store,
    pool: PoolId,
}

impl Tier for Stacked {
    fn write(&self, writes: &mut [TierWrite<'_>]) {
        for write in writes {
            let first = (write.offset_bytes / PAGE_SIZE as u64) as u32;
            let pages = write.bytes.as_chunks::<PAGE_SIZE>().0;
            let mut put = pages.iter().zip(first..);
            let ok = put.all(|(page, at)| self.below.put(&key(self.pool, at), page).is_ok());
            write.result = ok.then_some(()).ok_or(TierError::NO_SPACE);
        }
    }

    fn read(&self, reads: &mut [TierRead<'_>]) {
        for read in reads {
            let first = (read.offset_bytes / PAGE_SIZE as u64) as u32;
            let pages = read.bytes.as_chunks_mut::<PAGE_SIZE>().0;
            let mut get = pages.iter_mut().zip(first..);
            let ok = get.all(|(page, at)| self.below.get(&key(self.pool, at), page) == Ok(true));
            read.result = ok.then_some(()).ok_or(TierError::IO);
        }
    }
}

#[test]
fn a_tier_may_use_another_store() {
    for codec in Codec::ALL {
        let config = StoreConfig {
            codec: codec.into(),
            pool_bytes_max: 1 << 20,
            ..StoreConfig::default()
        };
        let below = Store::open(StoreConfig {
            pool_bytes_max: 64 << 20,
            ..config.clone()
        });
        let below = below.unwrap();
        let pool = below.create_pool(PoolKind::Persistent);
        let tier = Box::new(Stacked { below, pool });
        let store = Store::with_tier(&config, tier, None).unwrap();
        let pool = store.create_pool(PoolKind::Persistent);
        for n in 0..600 {
            store.put(&key(pool, n), &noise(n.into())).unwrap();
        }
        assert!(store.stats().swapped_pages > 200);
        for n in 0..600 {
            let mut out = [0; PAGE_SIZE];
            assert_eq!(store.get_exclusive(&key(pool, n), &mut out), Ok(true));
            assert!(out == noise(n.into()));
        }
    }
}

/// Does something when its thread ends.
#[derive(Default)]
struct AtTheEnd(Option<Box<dyn FnOnce()>>);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

thread_local! {
    static END: RefCell<AtTheEnd> = RefCell::default();
}

#[test]
fn the_destructor_of_a_thread_local_may_use_a_store() {
    for codec in Codec::ALL {
        let config = StoreConfig {
            codec: codec.into(),
            ..StoreConfig::default()
        };
        let store = Arc::new(Store::open(config).unwrap());
        let pool = store.create_pool(PoolKind::Persistent);
        let page = testing::records(1)[0];
        let key = key(pool, 1);
        let ended = Arc::new(AtomicU32::new(0));
        let (inside, counted) = (Arc::clone(&store), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            // The thread's own value comes first and the store's use after it, so
            // whatever the store might keep for the thread would go first.
            let last = Arc::clone(&inside);
            END.with_borrow_mut(|end| {
                end.0 = Some(Box::new(move || {
                    use_store(&last, &key, &page);
                    assert!(last.flush_page(&key));
                    last.put(&key, &page).unwrap();
                    counted.fetch_add(1, Relaxed);
                }));
            });
            inside.put(&key, &page).unwrap();
            use_store(&inside, &key, &page);
        });
        thread.join().unwrap();
        assert_eq!(ended.load(Relaxed), 1);
        let mut out = [0; PAGE_SIZE];
        assert_eq!(store.get(&key, &mut out), Ok(true));
        assert_eq!(out, page);
    }
}
