//! The codec of fresh pages changes while a store runs.

use super::*;
use crate::codec::Dictionary;
use crate::config::CodecChoice;

fn auto(pool_bytes_max: u64) -> StoreConfig {
    StoreConfig {
        pool_bytes_max,
        codec: CodecChoice::Auto,
        ..StoreConfig::default()
    }
}

#[test]
fn pages_of_all_codecs_lie_beside_each_other_and_come_back() {
    for allocator in Allocator::ALL {
        let config = StoreConfig {
            allocator,
            codec: Codec::Zstd.into(),
            ..StoreConfig::default()
        };
        let (store, _) = swapping(16 << 20, 2, None, config);
        let pages = testing::records(1200);
        let dictionary = Dictionary::train(&pages[..64], 4096);
        store
            .use_dictionary(None, Arc::new(dictionary.unwrap()))
            .unwrap();
        let mut handles = Vec::new();
        for (round, some) in pages.chunks(100).enumerate() {
            store.set_fresh_codec(Codec::ALL[round % 3]);
            handles.extend(some.iter().map(|page| store.insert(page).unwrap()));
            if round == 5 {
                store.reclaim(1 << 20);
            }
        }
        let stats = store.stats();
        assert_eq!((stats.lz4_pages, stats.zstd_pages), (400, 400));
        // It began with zstd.
        assert_eq!(stats.codec_switches, 12);
        assert!(stats.swapped_pages > 0);
        while let Some(mut cold) = store.begin_cold() {
            cold.compress();
            store.finish_cold(cold);
        }
        assert!(store.stats().zstd_pages > 400, "{:?}", store.stats());
        for (handle, page) in handles.iter().zip(&pages) {
            assert_eq!(load(&store, *handle), Ok(*page));
        }
        assert_eq!(store.validate(), Ok(()));
        for handle in handles {
            store.release(handle);
        }
        let stats = store.stats();
        assert_eq!((stats.lz4_pages, stats.zstd_pages), (0, 0));
    }
}

#[test]
fn threads_that_store_and_load_see_no_change_of_codecs() {
    let (store, _) = swapping(8 << 20, 4, None, auto(0));
    let dictionary = Dictionary::train(&testing::records(64), 4096);
    store
        .use_dictionary(None, Arc::new(dictionary.unwrap()))
        .unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..3usize {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                let pages = testing::records(200);
                let mut held = Vec::new();
                let mut step = thread;
                while !stop.load(Relaxed) {
                    let number = step % 200;
                    held.push((store.insert(&pages[number]).unwrap(), number));
                    if held.len() > 100 {
                        let (handle, number) = held.swap_remove(step * 7 % 100);
                        assert_eq!(load(store, handle), Ok(pages[number]));
                        store.release(handle);
                    }
                    step += 3;
                    if step % 500 < 3 {
                        store.reclaim(1 << 20);
                    }
                }
            });
        }
        for round in 0..2000 {
            store.set_fresh_codec(Codec::ALL[round % 3]);
            std::thread::yield_now();
        }
        stop.store(true, Relaxed);
    });
    assert_eq!(store.stats().checksum_errors, 0);
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn small_stores_with_a_tier_choose_the_codec_that_takes_no_memory() {
    let has = |store: &Store| (store.fresh_codec(), store.chooses_codec());
    let small = swapping(47 << 20, 1, None, auto(0)).0;
    assert_eq!(has(&small), (Codec::Lz4, false));
    let large = swapping(48 << 20, 1, None, auto(0)).0;
    assert_eq!(has(&large), (Codec::Zstd, true));
    let alone = Store::open(auto(16 << 20)).unwrap();
    assert_eq!(has(&alone), (Codec::Zstd, true));
}

#[test]
fn what_codecs_cost_is_measured_on_pages_that_are_stored() {
    let store = Store::open(auto(64 << 20)).unwrap();
    let handles: Vec<Handle> = testing::records(2000)
        .iter()
        .map(|page| store.insert(page).unwrap())
        .collect();
    for handle in handles {
        load(&store, handle).unwrap();
    }
    let stats = store.stats();
    // Four of each 1024 of a thread.
    assert!((4..=12).contains(&stats.compared_pages), "{stats:?}");
    assert!(stats.comparing_ns > 0);
    assert!(stats.lz4.zpage_bytes > stats.zstd.zpage_bytes);
}

#[test]
fn a_change_of_codecs_is_no_change_of_pages() {
    let store = Store::open(auto(128 << 20)).unwrap();
    let pages = testing::records(12_000);
    let mut trainings = Vec::new();
    for codec in [Codec::Zstd, Codec::Lz4, Codec::Zstd, Codec::Lz4] {
        store.set_fresh_codec(codec);
        for page in &pages {
            store.insert(page).unwrap();
            while store.training_due_bytes().is_some() {
                store.train();
            }
        }
        trainings.push(store.stats().dictionary_trainings);
    }
    // Small, large, and one more for four times as many pages; not because lz4
    // leaves more of each.
    assert!(trainings[3] <= 3, "{trainings:?}");
    assert!(trainings[0] >= 2, "{trainings:?}");
}
