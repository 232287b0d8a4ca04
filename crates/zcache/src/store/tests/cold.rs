//! Cold blocks while a store runs.

use super::*;
use crate::codec::Dictionary;
use crate::testing::Rng;

fn config(codec: Codec, allocator: Allocator) -> StoreConfig {
    StoreConfig {
        pool_bytes_max: 32 << 20,
        shards: 2,
        codec: codec.into(),
        allocator,
        ..StoreConfig::default()
    }
}

/// Pages of words from one vocabulary: level 6 finds more in them than level 1.
pub(super) fn texts(count: u64) -> Vec<Page> {
    let mut rng = Rng::new(42);
    let words: Vec<Vec<u8>> = (0..3000)
        .map(|_| {
            (0..3 + rng.below(9))
                .map(|_| rng.next() as u8 & 31 | 64)
                .collect()
        })
        .collect();
    let page = |number| {
        let mut rng = Rng::new(number);
        let text = std::iter::from_fn(|| {
            let most = 1 + rng.below(words.len() as u64);
            Some(&words[rng.below(most) as usize])
        });
        let bytes: Vec<u8> = text.flatten().copied().take(PAGE_SIZE).collect();
        Page::try_from(bytes).expect("a page of text")
    };
    (0..count).map(page).collect()
}

fn trained() -> Arc<Dictionary> {
    let dictionary = Dictionary::train(&texts(256), 16 << 10);
    Arc::new(dictionary.expect("records train a dictionary"))
}

/// Recompresses until nothing is cold any more.
fn recompress_all(store: &Store) -> u64 {
    let mut pages = 0;
    while let Some(mut cold) = store.begin_cold() {
        cold.compress();
        pages += store.finish_cold(cold).pages;
    }
    pages
}

#[test]
fn cold_pages_get_smaller_and_stay_what_they_are() {
    for codec in [Codec::DENSE, Codec::FAST] {
        for allocator in Allocator::ALL {
            let store = Store::open(config(codec, allocator)).unwrap();
            let pages = texts(3000);
            store.use_dictionary(None, trained()).unwrap();
            let handles: Vec<Handle> = pages.iter().map(|p| store.insert(p).unwrap()).collect();
            let before = store.stats();
            assert!(store.cold_due_bytes().is_some());
            let count = recompress_all(&store);
            let after = store.stats();
            assert_eq!(after.cold_pages, count);
            assert!(count > 1000, "{codec} {allocator:?}: {count}");
            assert_eq!(
                before.compressed_bytes - after.compressed_bytes,
                after.cold_bytes_saved
            );
            for (handle, page) in handles.iter().zip(&pages) {
                assert_eq!(load(&store, *handle), Ok(*page));
            }
            assert_eq!(store.validate(), Ok(()));
            assert_eq!(store.begin_cold().map(|_| ()), None);
            for handle in handles {
                store.release(handle);
            }
            assert_eq!(store.stats().stored_pages, 0);
            assert_eq!(store.validate(), Ok(()));
        }
    }
}

#[test]
fn pages_of_one_of_several_pools_get_smaller_too() {
    let store = Store::open(config(Codec::FAST, Allocator::Block)).unwrap();
    let [pool, other] = [(); 2].map(|()| store.create_pool(PoolKind::Ephemeral));
    let key = |pool, index| Key {
        pool,
        object: zcache_core::ObjectId([1, 2, 3]),
        index,
    };
    let pages = texts(3000);
    for (index, page) in (0..).zip(&pages) {
        store.put(&key(pool, index), page).unwrap();
    }
    store.use_dictionary(Some(pool), trained()).unwrap();
    assert!(recompress_all(&store) > 1000);
    let mut out = [0; PAGE_SIZE];
    for (index, page) in (0..).zip(&pages) {
        assert_eq!(store.get(&key(pool, index), &mut out), Ok(true));
        assert_eq!(out, *page);
        assert_eq!(store.get(&key(other, index), &mut out), Ok(false));
    }
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn without_a_dictionary_and_among_few_blocks_nothing_is_done() {
    let store = Store::open(config(Codec::DENSE, Allocator::Block)).unwrap();
    for page in texts(2000) {
        store.insert(&page).unwrap();
    }
    assert_eq!(store.cold_due_bytes(), None);
    let few = Store::open(config(Codec::DENSE, Allocator::Block)).unwrap();
    few.use_dictionary(None, trained()).unwrap();
    few.insert(&texts(1)[0]).unwrap();
    assert_eq!(few.cold_due_bytes(), None);
    assert!(few.begin_cold().is_none());
}

#[test]
fn what_goes_or_leaves_meanwhile_does_not_come_back() {
    let (store, _) = swapping(256 << 10, 1, None, config(Codec::FAST, Allocator::Block));
    store.set_pool_bytes_max(16 << 20);
    store.use_dictionary(None, trained()).unwrap();
    let pages = texts(1000);
    let handles: Vec<Handle> = pages.iter().map(|p| store.insert(p).unwrap()).collect();
    let mut cold = store.begin_cold().unwrap();
    cold.compress();
    // Of the oldest block, some pages go; the others are wanted while it is away.
    store.release(handles[0]);
    store.release(handles[2]);
    assert_eq!(load(&store, handles[1]), Ok(pages[1]));
    // The others are written meanwhile; this one cannot be.
    store.reclaim(u64::MAX);
    assert!(store.in_ram(handles[1]));
    store.finish_cold(cold);
    assert_eq!(load(&store, handles[0]), Err(LoadError::Gone));
    for (handle, page) in handles.iter().zip(&pages).skip(3) {
        assert_eq!(load(&store, *handle), Ok(*page));
    }
    assert_eq!(load(&store, handles[1]), Ok(pages[1]));
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn cold_pages_are_written_first_and_read_back() {
    let (store, _) = swapping(256 << 10, 1, None, config(Codec::DENSE, Allocator::Block));
    store.set_pool_bytes_max(16 << 20);
    store.use_dictionary(None, trained()).unwrap();
    let pages = texts(2000);
    let handles: Vec<Handle> = pages.iter().map(|p| store.insert(p).unwrap()).collect();
    recompress_all(&store);
    store.reclaim(64 << 10);
    // Some found room in younger blocks.
    let out = |handles: &[Handle]| handles.iter().filter(|h| !store.in_ram(**h)).count();
    let (old, young) = (out(&handles[..1000]), out(&handles[1000..]));
    assert!(old > 10 && old > young * 9, "{old} {young}");
    store.use_dictionary(None, trained()).unwrap();
    store.reclaim(u64::MAX);
    for (handle, page) in handles.iter().zip(&pages) {
        assert_eq!(load(&store, *handle), Ok(*page));
    }
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn a_store_without_room_keeps_what_it_has() {
    let store = Store::open(StoreConfig {
        pool_bytes_max: 1 << 20,
        ..config(Codec::FAST, Allocator::Block)
    })
    .unwrap();
    store.use_dictionary(None, trained()).unwrap();
    let pages = texts(3000);
    let kept: Vec<(Handle, &Page)> = pages
        .iter()
        .map_while(|page| Some((store.insert(page).ok()?, page)))
        .collect();
    assert!(kept.len() > 200 && kept.len() < 3000);
    store.set_pool_bytes_max(1);
    recompress_all(&store);
    for (handle, page) in kept {
        assert_eq!(load(&store, handle), Ok(*page));
    }
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn threads_load_store_and_free_while_blocks_are_recompressed() {
    let (store, _) = swapping(8 << 20, 2, None, config(Codec::FAST, Allocator::Block));
    store.use_dictionary(None, trained()).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                let pages = texts(400);
                let mut rng = Rng::new(thread);
                let mut held: Vec<(Handle, usize)> = Vec::new();
                while !stop.load(Relaxed) {
                    let number = rng.below(400) as usize;
                    match store.insert(&pages[number]) {
                        Ok(handle) => held.push((handle, number)),
                        Err(_) => drop(store.reclaim(1 << 20)),
                    }
                    if held.len() > 800 {
                        let at = rng.below(800) as usize;
                        let (handle, number) = held.swap_remove(at);
                        assert_eq!(load(store, handle), Ok(pages[number]));
                        store.release(handle);
                    }
                }
            });
        }
        let start = std::time::Instant::now();
        let mut blocks = 0;
        while start.elapsed() < std::time::Duration::from_secs(2) {
            if let Some(mut cold) = store.begin_cold() {
                cold.compress();
                store.finish_cold(cold);
                blocks += 1;
            }
        }
        stop.store(true, Relaxed);
        assert!(blocks > 10, "{blocks}");
    });
    assert_eq!(store.stats().checksum_errors, 0);
    assert_eq!(store.validate(), Ok(()));
}

/// A store over a tier with a cold block for each of its shards, and its pages.
fn with_cold_blocks() -> (Arc<Store>, Vec<Page>, Vec<Handle>) {
    let (store, _) = swapping(256 << 10, 1, None, config(Codec::FAST, Allocator::Block));
    store.set_pool_bytes_max(16 << 20);
    store.use_dictionary(None, trained()).unwrap();
    let pages = texts(600);
    let handles = pages.iter().map(|p| store.insert(p).unwrap()).collect();
    (store, pages, handles)
}

#[test]
fn a_block_that_is_dropped_is_given_back_as_it_was() {
    let (store, pages, handles) = with_cold_blocks();
    let cold = store.begin_cold().unwrap();
    // One goes with the thread that failed at it.
    let failed = std::thread::scope(|scope| {
        let failing = scope.spawn(|| {
            let mut cold = store.begin_cold().unwrap();
            cold.compress();
            panic!("the idler failed");
        });
        failing.join()
    });
    assert!(failed.is_err());
    store.reclaim(u64::MAX);
    let in_ram = || handles.iter().filter(|handle| store.in_ram(**handle));
    assert!(in_ram().count() > 0, "one block is still away");
    drop(cold);
    store.reclaim(u64::MAX);
    assert_eq!(in_ram().count(), 0);
    assert_eq!(store.stats().cold_blocks, 0);
    for (handle, page) in handles.iter().zip(&pages) {
        assert_eq!(load(&store, *handle), Ok(*page));
    }
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn what_failed_once_is_not_tried_again() {
    let (store, ..) = with_cold_blocks();
    let mut blocks = 0;
    while let Some(cold) = store.begin_cold() {
        drop(cold);
        blocks += 1;
        assert!(blocks < 1000, "the same blocks again and again");
    }
    assert!(blocks > 0);
}

#[test]
fn a_block_goes_back_to_its_own_store_or_to_none() {
    let (store, pages, handles) = with_cold_blocks();
    let (other, ..) = with_cold_blocks();
    let mut cold = store.begin_cold().unwrap();
    cold.compress();
    assert_eq!(other.finish_cold(cold), Recompressed::default());
    store.reclaim(u64::MAX);
    assert!(!handles.iter().any(|handle| store.in_ram(*handle)));
    assert_eq!(load(&store, handles[0]), Ok(pages[0]));
    assert_eq!(other.validate(), Ok(()));
    let mut cold = other.begin_cold().unwrap();
    drop(other);
    cold.compress();
    drop(cold);
}

#[test]
fn buffers_and_tables_are_counted_before_and_given_back_at_rest() {
    let (store, ..) = with_cold_blocks();
    let before = store.budget.overhead();
    let due = store.cold_due_bytes().unwrap();
    let mut cold = store.begin_cold().unwrap();
    let taken = store.budget.overhead() - before;
    assert!(taken > 36 << 10 && taken <= due, "{taken} of {due}");
    cold.compress();
    // A second one at the same time takes buffers of its own.
    let due = store.cold_due_bytes().unwrap();
    assert!(due > 36 << 10);
    let second = store.begin_cold().unwrap();
    assert_eq!(store.budget.overhead(), before + taken + due);
    store.finish_cold(cold);
    store.finish_cold(second);
    assert_eq!(store.budget.overhead(), before + taken);
    assert_eq!(store.cold_due_bytes(), Some(0));
    store.rest_cold();
    assert_eq!(store.budget.overhead(), before);
}
