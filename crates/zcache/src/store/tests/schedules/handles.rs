//! Pages by handle: threads that share some, own others, and let go of both, while blocks are merged, written back and
//! packed anew.

use super::*;

/// Pages that every thread holds a reference to.
const SHARED: u64 = 4;
const THREADS: u64 = 3;

/// A page with its number, by which it is known again.
type Known = (Handle, u64);

fn insert(store: &Store, number: u64) -> Known {
    (store.insert(&noise(number)).expect("there is room"), number)
}

fn load_one(store: &Store, (handle, number): Known) {
    assert!(load(store, handle) == Ok(noise(number)), "page {number}");
}

fn load_all(store: &Store, known: &[Known]) {
    let handles: Vec<Handle> = known.iter().map(|(handle, _)| *handle).collect();
    let mut out = vec![[0; PAGE_SIZE]; known.len()];
    let mut results = vec![Err(LoadError::Gone); known.len()];
    store.load_many(&handles, &mut out, &mut results);
    for ((_, number), (result, page)) in known.iter().zip(results.iter().zip(&out)) {
        assert_eq!(*result, Ok(()), "page {number}");
        assert!(*page == noise(*number), "page {number}");
    }
}

fn client(store: &Store, mut known: Vec<Known>, first: u64) {
    let mut rng = drawn();
    for number in first..first + 6 {
        let at = |rng: &mut Rng| rng.below(known.len() as u64) as usize;
        match rng.below(9) {
            0 | 1 => known.push(insert(store, number)),
            2 => load_one(store, known[at(&mut rng)]),
            3 | 4 => load_all(store, &known),
            5 if known.len() > 1 => {
                let (handle, _) = known.swap_remove(at(&mut rng));
                store.release(handle);
            }
            6 => {
                let shared = known[at(&mut rng)];
                store.retain(shared.0);
                known.push(shared);
            }
            7 => {
                store.compact(4);
            }
            _ => {
                store.reclaim(u64::MAX);
            }
        }
    }
    load_all(store, &known);
    for (handle, _) in known {
        store.release(handle);
    }
}

fn scenario() {
    let mut rng = drawn();
    let config = StoreConfig {
        pool_bytes_max: 1 << 20,
        codec: Codec::PLAIN.into(),
        shards: 1,
        ..StoreConfig::default()
    };
    let (store, _) = over_slow_tier(2 + rng.below(3), config);
    let shared: Vec<Known> = (0..SHARED).map(|number| insert(&store, number)).collect();
    store.reclaim(u64::MAX);
    let threads = (1..=THREADS).map(|number| {
        for (handle, _) in &shared {
            store.retain(*handle);
        }
        let (store, shared) = (Arc::clone(&store), shared.clone());
        thread(move || client(&store, shared, number * 100))
    });
    together(threads.collect());
    load_all(&store, &shared);
    check_at_rest(&store);
    assert_eq!(store.stats().stored_pages, SHARED);
    for (handle, _) in shared {
        let _: bool = store.in_ram(handle);
        store.release(handle);
    }
    check_empty(&store);
}

#[test]
fn a_page_is_found_as_long_as_somebody_holds_a_reference() {
    explore(
        "handles",
        800,
        scenario,
        &[
            ("read of the tier", |stats| stats.swapin_pages),
            ("block packed anew", |stats| stats.swap_compacted_pages),
            ("block merged", |stats| stats.evacuated_blocks),
        ],
    );
}
