//! What a store says it takes of the heap is what it does. Alone in its process,
//! because the heap is counted for all of it.

use zcache::{Codec, Handle, Key, ObjectId, PAGE_SIZE, Page, PoolKind, Stats, Store, StoreConfig};
use zcache_sys::heap::CountedHeap;

#[global_allocator]
static HEAP: CountedHeap = CountedHeap::new();

/// What the two figures may differ by: the scope of dictionaries, which every store
/// has.
const TOLERANCE_BYTES: u64 = 4 << 10;

/// What there was before a store was opened.
#[derive(Clone, Copy)]
struct Before {
    heap_bytes: u64,
    /// Of that, the working memory that is kept for the next operation of any
    /// store, and that every store counts.
    kept_bytes: u64,
}

fn page(number: u64) -> Page {
    let mut state = number;
    let mut page = [7; PAGE_SIZE];
    let random = &mut page[..500 + number as usize % 2000 / 8 * 8];
    random.as_chunks_mut::<8>().0.fill_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state ^ (state >> 29)).to_le_bytes()
    });
    page
}

/// Compares both figures, and the two sums of the statistics.
fn check(store: &Store, before: Before, when: &str) -> Stats {
    // The store itself lies on the stack, and is counted as if it did not.
    let heap = HEAP.bytes() - before.heap_bytes + size_of::<Store>() as u64;
    let said = store.overhead_bytes() - before.kept_bytes;
    assert!(
        heap.abs_diff(said) <= TOLERANCE_BYTES,
        "{when}: {heap} bytes of the heap, {said} counted"
    );
    let stats = store.stats();
    assert_eq!(stats.ram_bytes, store.ram_bytes(), "{when}");
    assert_eq!(
        stats.pool_bytes + stats.metadata_bytes,
        stats.ram_bytes,
        "{when}"
    );
    assert_eq!(store.validate(), Ok(()), "{when}");
    stats
}

/// Works in a thread that ends, so that what each thread keeps for its codecs is
/// gone when this returns.
fn work(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap());
}

fn config(shards: usize) -> StoreConfig {
    StoreConfig {
        pool_bytes_max: 8 << 20,
        shards,
        codec: Codec::Lz4.into(),
        dictionaries: false,
        ..StoreConfig::default()
    }
}

fn use_and_drop(shards: usize, kept_bytes: u64) {
    let mut handles: Vec<Handle> = Vec::with_capacity(20_000);
    let mut pools = Vec::with_capacity(1000);
    let before = Before {
        heap_bytes: HEAP.bytes(),
        kept_bytes,
    };
    let store = Store::open(config(shards)).unwrap();
    check(&store, before, "open");
    work(|| {
        while let Ok(handle) = store.insert(&page(handles.len() as u64)) {
            handles.push(handle);
        }
    });
    let full = check(&store, before, "full");
    assert!(full.pool_bytes > 6 << 20, "{full:?}");
    handles.drain(..).for_each(|handle| store.release(handle));
    check(&store, before, "emptied");

    pools.extend((0..1000).map(|_| store.create_pool(PoolKind::Persistent)));
    work(|| {
        for pool in &pools {
            let key = Key {
                pool: *pool,
                object: ObjectId([0, 0, 1]),
                index: 0,
            };
            store.put(&key, &page(1)).unwrap();
        }
    });
    for pool in pools.drain(..) {
        assert_eq!(store.destroy_pool(pool), 1);
    }
    let padding = [7u8; 6000];
    store.on_event(move |_| assert_eq!(padding[0], 7));
    check(&store, before, "with a hook, after a thousand pools");
    drop(store);
    assert_eq!(HEAP.bytes(), before.heap_bytes, "{shards} shards, dropped");
}

#[test]
fn the_heap_that_a_store_takes_is_what_it_counts_and_goes_with_it() {
    // What the process keeps comes with its first store and its first operations.
    let first = Store::open(config(1)).unwrap();
    let none_kept = first.overhead_bytes();
    work(|| {
        let handle = first.insert(&page(0)).unwrap();
        first.load(handle, &mut [0; PAGE_SIZE]).unwrap();
    });
    let handles: Vec<Handle> = (0..500)
        .map_while(|n| first.insert(&page(n)).ok())
        .collect();
    handles.into_iter().for_each(|handle| first.release(handle));
    drop(first);
    let kept_bytes = Store::open(config(1)).unwrap().overhead_bytes() - none_kept;
    for shards in [1, 4, 64] {
        use_and_drop(shards, kept_bytes);
    }
}
