//! The codec of fresh pages changes while a store runs.

use super::*;
use crate::choice::{Chooser, Holding, LOOKS, Outlook, PERIOD};
use crate::codec::Dictionary;
use crate::config::CodecChoice;

fn auto(pool_bytes_max: u64) -> StoreConfig {
    StoreConfig {
        pool_bytes_max,
        codec: CodecChoice::Auto,
        ..StoreConfig::default()
    }
}

/// How many pages each codec made.
fn made(stats: &Stats) -> [u64; Codec::COUNT] {
    Codec::ALL.map(|codec| stats.by_codec[codec].pages)
}

#[test]
fn pages_of_all_codecs_lie_beside_each_other_and_come_back() {
    for allocator in Allocator::ALL {
        let config = StoreConfig {
            allocator,
            codec: Codec::DENSE.into(),
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
        assert_eq!(made(&stats), [400, 400, 400]);
        // It began with the dense codec.
        assert_eq!(stats.codec_switches, 12);
        assert!(stats.swapped_pages > 0);
        while let Some(mut cold) = store.begin_cold() {
            cold.compress();
            store.finish_cold(cold);
        }
        let stats = store.stats();
        assert!(stats.by_codec[Codec::DENSE].pages > 400, "{stats:?}");
        for (handle, page) in handles.iter().zip(&pages) {
            assert_eq!(load(&store, *handle), Ok(*page));
        }
        assert_eq!(store.validate(), Ok(()));
        for handle in handles {
            store.release(handle);
        }
        let stats = store.stats();
        assert_eq!(made(&stats), [0, 0, 0]);
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
    assert_eq!(has(&small), (Codec::FAST, false));
    let large = swapping(48 << 20, 1, None, auto(0)).0;
    assert_eq!(has(&large), (Codec::DENSE, true));
    let alone = Store::open(auto(16 << 20)).unwrap();
    assert_eq!(has(&alone), (Codec::DENSE, true));
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
    let [fast, dense] = [Codec::FAST, Codec::DENSE].map(|codec| stats.by_codec[codec].cost);
    assert!(fast.zpage_bytes > dense.zpage_bytes);
}

#[test]
fn a_change_of_codecs_is_no_change_of_pages() {
    let store = Store::open(auto(128 << 20)).unwrap();
    let pages = testing::records(12_000);
    let mut trainings = Vec::new();
    for codec in [Codec::DENSE, Codec::FAST, Codec::DENSE, Codec::FAST] {
        store.set_fresh_codec(codec);
        for page in &pages {
            store.insert(page).unwrap();
            while store.training_due_bytes().is_some() {
                store.train();
            }
        }
        trainings.push(store.stats().dictionary_trainings);
    }
    // Small, large, and one more for four times as many pages; not because the fast
    // codec leaves more of each.
    assert!(trainings[3] <= 3, "{trainings:?}");
    assert!(trainings[0] >= 2, "{trainings:?}");
}

/// Looks with an outlook that makes one codec cost a second more.
fn look(chooser: &mut Chooser, store: &Store, slow: Codec) {
    std::thread::sleep(PERIOD);
    let mut times = [Codec::FAST, Codec::DENSE].into_iter();
    chooser.look_with(store, |_, holding| match holding {
        Holding::Now => Outlook::default(),
        Holding::Times(_) => Outlook {
            wait_ns: if times.next() == Some(slow) { 1e9 } else { 0.0 },
            ..Outlook::default()
        },
    });
}

#[test]
fn a_store_follows_both_ways_after_looks_that_agree() {
    let store = Store::open(StoreConfig::default()).unwrap();
    let mut chooser = Chooser::new();
    assert_eq!(store.fresh_codec(), Codec::DENSE);
    let mut codecs = Vec::new();
    for slow in [Codec::DENSE, Codec::FAST] {
        for _ in 0..LOOKS {
            look(&mut chooser, &store, slow);
            codecs.push(store.fresh_codec());
        }
    }
    let (fast, dense) = (Codec::FAST, Codec::DENSE);
    assert_eq!(codecs, [dense, dense, fast, fast, fast, dense]);
    assert_eq!(store.stats().codec_switches, 2);
    // One that comes at once is none.
    for _ in 0..2 * LOOKS {
        chooser.look(&store);
    }
    assert_eq!(store.stats().codec_switches, 2);
}

#[test]
fn a_codec_that_was_given_stays() {
    for codec in Codec::ALL {
        let config = StoreConfig {
            codec: CodecChoice::Always(codec),
            ..StoreConfig::default()
        };
        let store = Store::open(config).unwrap();
        let mut chooser = Chooser::new();
        for _ in 0..=LOOKS {
            chooser.look_with(&store, |_, _| unreachable!("nothing is to be chosen"));
        }
        for page in testing::records(20) {
            store.insert(&page).unwrap();
        }
        assert_eq!(store.fresh_codec(), codec);
        assert_eq!(store.stats().compared_pages, 0);
    }
}
