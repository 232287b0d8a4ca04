use super::*;
use crate::Event;
use crate::tier::memory::Faults;
use std::sync::Mutex;
use std::time::Duration;

const POOL: u64 = 32 << 20;

fn fill(store: &Store, count: u64) -> Vec<Handle> {
    (0..count)
        .map(|n| store.insert(&testing::page(n)).unwrap())
        .collect()
}

fn check_all(store: &Store, handles: &[Handle]) {
    for (n, handle) in handles.iter().enumerate() {
        assert_eq!(
            load(store, *handle),
            Ok(testing::page(n as u64)),
            "page {n}"
        );
    }
}

#[test]
fn pages_go_to_the_tier_and_come_back_singly_and_together() {
    for allocator in Allocator::ALL {
        let (store, _) = swapping(
            POOL,
            2,
            None,
            StoreConfig {
                allocator,
                ..StoreConfig::default()
            },
        );
        let handles = fill(&store, 3000);
        let before = store.budget.used();
        let done = store.reclaim(u64::MAX);
        assert!(done.pages > 2700 && done.failures == 0, "{done:?}");
        assert!(store.budget.used() < before / 4);
        let out_count = handles
            .iter()
            .filter(|handle| !store.in_ram(**handle))
            .count();
        assert_eq!(out_count as u64, store.stats().swapped_pages);
        check_all(&store, &handles);

        let reads = store.stats().swapin_reads;
        let mut out = vec![[0; PAGE_SIZE]; handles.len()];
        let mut results = vec![Err(LoadError::Gone); handles.len()];
        store.load_many(&handles, &mut out, &mut results);
        for (n, page) in out.iter().enumerate() {
            assert_eq!(results[n], Ok(()));
            assert!(*page == testing::page(n as u64), "page {n}");
        }
        let merged = store.stats().swapin_reads - reads;
        assert!(
            merged * 8 < out_count as u64,
            "{merged} reads for {out_count} pages"
        );
        assert_eq!(store.validate(), Ok(()));
    }
}

#[test]
fn ram_is_freed_only_after_the_acknowledgement() {
    let (store, tier) = swapping(POOL, 1, None, StoreConfig::default());
    let handles = fill(&store, 500);
    let used = store.budget.used();
    tier.set_faults(Faults {
        hold_acks: true,
        ..Faults::default()
    });
    std::thread::scope(|scope| {
        let reclaim = scope.spawn(|| store.reclaim(u64::MAX));
        tier.wait_for_held(1);
        assert_eq!(store.budget.used(), used);
        assert!(handles.iter().all(|handle| store.in_ram(*handle)));
        check_all(&store, &handles);
        // What is released meanwhile must not come back or leak its slot.
        for handle in &handles[..250] {
            store.release(*handle);
        }
        tier.set_faults(Faults::default());
        reclaim.join().unwrap();
    });
    for (n, handle) in handles.iter().enumerate().skip(250) {
        assert_eq!(load(&store, *handle), Ok(testing::page(n as u64)));
        store.release(*handle);
    }
    assert_eq!(store.stats().swap_bytes, 0);
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn a_full_or_failing_tier_leaves_pages_in_ram_says_so_once_and_is_tried_again() {
    let faults = [
        Faults {
            sectors_max: Some(10),
            ..Faults::default()
        },
        Faults {
            write_error_rate: u16::MAX,
            ..Faults::default()
        },
    ];
    for faults in faults {
        let (store, tier) = swapping(POOL, 2, None, StoreConfig::default());
        let heard: Arc<Mutex<Vec<Event>>> = Arc::default();
        let hook = Arc::clone(&heard);
        assert!(store.on_event(move |event| hook.lock().unwrap().push(*event)));
        let handles = fill(&store, 1000);
        tier.set_faults(faults);
        let mut failures = 0;
        let mut held_back = 0;
        for _ in 0..20 {
            let done = store.reclaim(u64::MAX);
            failures += done.failures;
            held_back += u64::from(done.held_back);
            check_all(&store, &handles);
        }
        assert!(failures > 0 && held_back > 0);
        assert_eq!(store.stats().writeback_failures, failures);
        assert_eq!(heard.lock().unwrap().len(), 1);
        assert!(matches!(
            heard.lock().unwrap()[0],
            Event::WritebackFailed { .. }
        ));
        tier.set_faults(Faults::default());
        std::thread::sleep(Duration::from_millis(1100));
        assert!(store.reclaim(u64::MAX).bytes > 0);
        assert_eq!(heard.lock().unwrap()[1..], [Event::WritebackResumed]);
        check_all(&store, &handles);
        assert_eq!(store.validate(), Ok(()));
    }
}

#[test]
fn the_swap_limit_holds_and_sparse_blocks_are_packed_anew() {
    let (store, tier) = swapping(POOL, 2, Some(1 << 20), StoreConfig::default());
    let handles = fill(&store, 3000);
    let done = store.reclaim(u64::MAX);
    assert!(done.tier_full && tier.sectors() <= 256, "{done:?}");
    // A block that was only begun may have come back already.
    assert_eq!(store.stats().swap_bytes_peak, 1 << 20);
    // Three of four pages go away, spread over all blocks.
    for handle in handles.iter().enumerate().filter(|(n, _)| n % 4 != 0) {
        store.release(*handle.1);
    }
    let sparse = store.stats().swapped_pages;
    for _ in 0..100 {
        store.reclaim(64 << 10);
    }
    let stats = store.stats();
    assert!(stats.swap_compacted_pages > 0);
    assert!(stats.swapped_pages > sparse, "{stats:?}");
    for (n, handle) in handles.iter().enumerate().step_by(4) {
        assert_eq!(load(&store, *handle), Ok(testing::page(n as u64)));
    }
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn a_flipped_bit_at_any_byte_of_a_zpage_in_the_tier_is_found() {
    let (store, tier) = swapping(POOL, 1, None, StoreConfig::default());
    let page = testing::page(5);
    let handle = store.insert(&page).unwrap();
    let len = store.stats().compressed_bytes;
    assert_eq!(store.reclaim(u64::MAX).pages, 1);
    let mut found = 0;
    for at in 0..16384 {
        tier.flip_bit(at, (at % 8) as u32);
        for result in [load(&store, handle), {
            let mut out = [[0; PAGE_SIZE]];
            let mut results = [Ok(())];
            store.load_many(&[handle], &mut out, &mut results);
            results[0].map(|()| out[0])
        }] {
            match result {
                Ok(got) => assert_eq!(got, page),
                Err(LoadError::Checksum { page, .. }) => {
                    assert_eq!(page, crate::PageName::Handle(handle));
                    found += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        tier.flip_bit(at, (at % 8) as u32);
    }
    assert_eq!(found, 2 * len);
    assert_eq!(load(&store, handle), Ok(page));
}

#[test]
fn a_read_that_fails_is_an_error_with_its_page_and_the_page_stays() {
    let (store, tier) = swapping(POOL, 1, None, StoreConfig::default());
    let handles = fill(&store, 100);
    store.reclaim(u64::MAX);
    tier.set_faults(Faults {
        read_error_rate: u16::MAX,
        ..Faults::default()
    });
    let mut out = vec![[0; PAGE_SIZE]; handles.len()];
    let mut results = vec![Ok(()); handles.len()];
    store.load_many(&handles, &mut out, &mut results);
    let mut failed = 0;
    for (handle, result) in handles.iter().zip(results) {
        if store.in_ram(*handle) {
            assert_eq!(result, Ok(()));
        } else {
            let page = crate::PageName::Handle(*handle);
            match result {
                Err(LoadError::Io {
                    page: of, errno, ..
                }) => assert_eq!((of, errno), (page, 5)),
                other => panic!("{other:?}"),
            }
            failed += 1;
        }
    }
    assert!(failed > 80);
    assert_eq!(store.stats().read_errors, failed);
    tier.set_faults(Faults::default());
    check_all(&store, &handles);
}

#[test]
fn a_tier_that_was_emptied_is_told_from_one_with_other_bytes() {
    let (store, tier) = swapping(POOL, 1, None, StoreConfig::default());
    let handle = store.insert(&testing::page(5)).unwrap();
    assert_eq!(store.reclaim(u64::MAX).pages, 1);
    tier.empty();
    let error = load(&store, handle).unwrap_err();
    assert!(matches!(error, LoadError::Missing { .. }), "{error:?}");
    assert!(error.to_string().contains("short read"), "{error}");
    assert_eq!(store.stats().read_errors, 1);
    assert_eq!(store.stats().checksum_errors, 0);
}

#[test]
fn the_disk_keeps_pages_too() {
    let store = Store::open(StoreConfig {
        tiers: vec![crate::tier::TierSource::disk(crate::SwapConfig {
            path: Some(env!("CARGO_MANIFEST_DIR").into()),
            bytes_max: None,
        })],
        ..StoreConfig::default()
    })
    .unwrap();
    let handles = fill(&store, 3000);
    assert!(store.reclaim(u64::MAX).pages > 2700);
    check_all(&store, &handles);
    let mut out = vec![[0; PAGE_SIZE]; handles.len()];
    let mut results = vec![Err(LoadError::Gone); handles.len()];
    store.load_many(&handles, &mut out, &mut results);
    for (n, page) in out.iter().enumerate() {
        assert_eq!(results[n], Ok(()));
        assert!(*page == testing::page(n as u64), "page {n}");
    }
}
