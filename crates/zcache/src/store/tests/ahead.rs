use super::*;
use crate::tier::memory::Faults;

const POOL: u64 = 16 << 20;

/// Puts pages of an ephemeral pool under their numbers.
fn put_all(store: &Store, pool: PoolId, numbers: std::ops::Range<u64>) {
    for number in numbers {
        store
            .put(&key(pool, number), &testing::page(number))
            .unwrap();
    }
}

fn key(pool: PoolId, number: u64) -> Key {
    Key {
        pool,
        object: zcache_core::ObjectId([number / 1024, 2, 3]),
        index: (number % 1024) as u32,
    }
}

/// Which pages of these are there, as [`Store::get_run`] finds them; each is right.
fn found(store: &Store, pool: PoolId, numbers: std::ops::Range<u64>) -> Vec<u64> {
    let mut there = Vec::new();
    let mut first = numbers.start;
    while first < numbers.end {
        let count = 32.min(numbers.end - first) as usize;
        let mut out = vec![[0x5a; PAGE_SIZE]; count];
        let mut results = vec![Ok(false); count];
        store.get_run(&key(pool, first), &mut out, &mut results);
        for (ahead, (page, result)) in out.iter().zip(results).enumerate() {
            let number = first + ahead as u64;
            if result == Ok(true) {
                assert!(*page == testing::page(number), "page {number}");
                there.push(number);
            }
        }
        first += count as u64;
    }
    there
}

#[test]
fn ephemeral_pages_go_to_the_tier_only_where_that_is_asked_for() {
    for allocator in Allocator::ALL {
        let config = StoreConfig {
            allocator,
            ..StoreConfig::default()
        };
        let (store, tier) = swapping(POOL, 2, None, config);
        let pool = store.create_pool(PoolKind::Ephemeral);
        put_all(&store, pool, 0..2000);
        let before = store.budget.used();
        let done = store.write_back_ephemeral(u64::MAX);
        assert!(done.pages > 1500 && done.failures == 0, "{done:?}");
        assert!(store.budget.used() < before / 3);
        assert!(tier.sectors() > 0);
        let there = found(&store, pool, 0..2000);
        // Words are not worth a read.
        let words = (0..2000).filter(|n| is_word(&testing::page(*n))).count();
        assert_eq!(there.len(), 2000 - words);
        assert!(store.stats().swapin_pages > 1000);
        let mut one = [0; PAGE_SIZE];
        assert_eq!(store.get(&key(pool, there[0]), &mut one), Ok(true));
        assert_eq!(one, testing::page(there[0]));
        assert_eq!(store.validate(), Ok(()));

        // A reclaim drops what is in RAM, and leaves what is not.
        put_all(&store, pool, 2000..3000);
        let written = tier.sectors();
        assert!(store.reclaim(64 << 10).dropped_pages > 0);
        assert_eq!(tier.sectors(), written);
        assert_eq!(found(&store, pool, 0..2000), there);

        // What is put anew, or flushed, is not found in the tier.
        let newer = testing::page(77_777);
        store.put(&key(pool, there[1]), &newer).unwrap();
        assert_eq!(store.get(&key(pool, there[1]), &mut one), Ok(true));
        assert_eq!(one, newer);
        assert!(store.flush_page(&key(pool, there[2])));
        assert_eq!(store.get(&key(pool, there[2]), &mut one), Ok(false));
        store.destroy_pool(pool);
        assert_eq!(store.stats().swap_bytes, 0);
        assert_eq!(store.validate(), Ok(()));
    }
}

fn is_word(page: &Page) -> bool {
    let (words, _) = page.as_chunks::<8>();
    words.iter().all(|word| *word == words[0])
}

#[test]
fn what_is_read_stays_longest_in_a_tier_that_is_full() {
    let (store, _) = swapping(POOL, 1, Some(1 << 20), StoreConfig::default());
    let pool = store.create_pool(PoolKind::Ephemeral);
    let mut last = 0;
    while store.stats().swap_bytes < 900 << 10 {
        put_all(&store, pool, last..last + 100);
        store.write_back_ephemeral(u64::MAX);
        last += 100;
    }
    let kept = found(&store, pool, 0..100);
    assert!(kept.len() > 80);
    for round in 0..6 {
        let first = last + round * 100;
        put_all(&store, pool, first..first + 100);
        let done = store.write_back_ephemeral(u64::MAX);
        assert!(done.pages > 80, "{done:?}");
        assert_eq!(found(&store, pool, 0..100), kept, "round {round}");
    }
    assert!(store.stats().swap_bytes <= 1 << 20);
    assert_eq!(found(&store, pool, 100..400), [], "the oldest went");
    assert!(found(&store, pool, last + 500..last + 600).len() > 80);
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn tables_of_what_is_in_the_tier_leave_room_for_pages() {
    const RAM: u64 = 4 << 20;
    let (store, _) = swapping(RAM, 1, None, StoreConfig::default());
    let pool = store.create_pool(PoolKind::Ephemeral);
    for round in 0..100 {
        put_all(&store, pool, round * 500..round * 500 + 500);
        // Tables that shrink may free more than that.
        store.write_back_ephemeral(1);
        store.write_back_ephemeral(u64::MAX);
    }
    let stats = store.stats();
    assert!(stats.metadata_bytes < RAM * 3 / 4, "{stats:?}");
    assert!(stats.swapped_pages > 35_000, "{stats:?}");
    assert!(found(&store, pool, 49_500..50_000).len() > 400);
    // A limit that they exceed has them go.
    store.set_pool_bytes_max(1 << 20);
    store.reclaim(store.budget.used() - (1 << 20));
    assert!(store.budget.used() <= 1 << 20);
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn a_tier_that_fails_costs_hits_and_nothing_else() {
    let (store, tier) = swapping(POOL, 2, None, StoreConfig::default());
    let pool = store.create_pool(PoolKind::Ephemeral);
    put_all(&store, pool, 0..1000);
    let there = found(&store, pool, 0..1000);
    tier.set_faults(Faults {
        write_error_rate: u16::MAX,
        ..Faults::default()
    });
    let done = store.write_back_ephemeral(u64::MAX);
    assert!(done.failures > 0 && done.pages == 0, "{done:?}");
    assert_eq!(found(&store, pool, 0..1000), there);
    // Puts and reclaims do not wait for it.
    assert!(store.reclaim(64 << 10).dropped_pages > 0);
    tier.set_faults(Faults::default());
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(store.write_back_ephemeral(u64::MAX).pages > 500);
    tier.set_faults(Faults {
        bit_flip_rate: u16::MAX,
        ..Faults::default()
    });
    // Each that is found is right.
    found(&store, pool, 0..1000);
    tier.set_faults(Faults {
        read_error_rate: u16::MAX,
        ..Faults::default()
    });
    let reads = store.stats().swapin_reads;
    assert!(found(&store, pool, 0..1000).len() < 100);
    // Neighbours share reads, and none is tried again: the pages are elsewhere too.
    let reads = store.stats().swapin_reads - reads;
    assert!((1..500).contains(&reads), "{reads} reads");
    tier.set_faults(Faults::default());
    assert!(found(&store, pool, 0..1000).len() > 500);
    tier.empty();
    assert_eq!(found(&store, pool, 0..1000), []);
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn nobody_who_puts_or_reclaims_waits_for_ephemeral_blocks_on_their_way() {
    let (store, tier) = swapping(1 << 20, 1, None, StoreConfig::default());
    let pool = store.create_pool(PoolKind::Ephemeral);
    put_all(&store, pool, 0..100);
    tier.set_faults(Faults {
        hold_acks: true,
        ..Faults::default()
    });
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| store.write_back_ephemeral(u64::MAX));
        tier.wait_for_held(1);
        let start = std::time::Instant::now();
        store.reclaim(u64::MAX);
        put_all(&store, pool, 100..3000);
        assert!(found(&store, pool, 2900..3000).len() > 80);
        assert!(start.elapsed() < std::time::Duration::from_secs(5));
        tier.set_faults(Faults::default());
        writing.join().unwrap();
    });
    assert_eq!(store.validate(), Ok(()));
}
