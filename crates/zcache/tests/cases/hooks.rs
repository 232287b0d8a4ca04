//! Code of the client's that runs inside a call of the store, or when most of
//! its thread is gone: hooks, tiers and destructors that use the store.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};

use zcache::tier::memory::{Faults, MemoryTier};
use zcache::tier::{Tier, TierRead, TierWrite};
use zcache::{Codec, Key, LoadError, PAGE_SIZE, PoolKind, Store, StoreConfig};

use crate::support::counts::rejected;
use crate::support::pages;
use crate::{child, get, key, plain, swapping};

/// What a hook, a tier or a destructor does with the store.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Use {
    Get,
    Put,
    Insert,
    Flush,
    Reclaim,
    Stats,
}

const USES: [Use; 6] = [
    Use::Get,
    Use::Put,
    Use::Insert,
    Use::Flush,
    Use::Reclaim,
    Use::Stats,
];

fn use_store(store: &Store, what: Use, note: &Key) {
    let mut out = [0; PAGE_SIZE];
    match what {
        Use::Get => match store.get(note, &mut out) {
            Ok(true) => assert_eq!(out, pages::record(1)),
            Ok(false) => panic!("the note is gone"),
            // The tier may be what fails.
            Err(_) => {}
        },
        Use::Put => {
            let another = Key { index: 9, ..*note };
            store.put(&another, &pages::record(2)).ok();
        }
        Use::Insert => {
            if let Ok(handle) = store.insert(&pages::record(3)) {
                store.release(handle);
            }
        }
        Use::Flush => {
            store.flush_page(&Key { index: 8, ..*note });
        }
        Use::Reclaim => {
            store.reclaim(4096);
        }
        Use::Stats => drop(store.stats()),
    }
}

/// A hook that uses the store each time. The events come out of puts into a full
/// tier, or out of gets that a tier fails.
fn hook(codec: Codec, what: Use) {
    let tier = Arc::new(MemoryTier::new(1));
    let config = StoreConfig {
        codec: codec.into(),
        ..plain(1 << 20)
    };
    let store = Store::with_tier(&config, Box::new(Arc::clone(&tier)), Some(1 << 20));
    let store = Arc::new(store.unwrap());
    let pool = store.create_pool(PoolKind::Persistent);
    let note = key(store.create_pool(PoolKind::Persistent), 7, 1);
    store.put(&note, &pages::record(1)).unwrap();
    let heard = Arc::new(AtomicU64::new(0));
    let weak: Mutex<Weak<Store>> = Mutex::new(Arc::downgrade(&store));
    let count = Arc::clone(&heard);
    store.on_event(move |event| {
        // A loss inside the hook would say so again, without end.
        if count.fetch_add(1, Relaxed) > 50 {
            return;
        }
        let lost = matches!(event, zcache::Event::PageLost(_));
        if let Some(store) = weak.lock().unwrap().upgrade()
            && !(lost && what == Use::Get)
        {
            use_store(&store, what, &note);
        }
    });
    let filled = catch_unwind(AssertUnwindSafe(|| {
        for index in 0..900 {
            store.put(&key(pool, 0, index), &pages::noise(index)).ok();
        }
    }));
    assert!(filled.is_ok(), "{codec}, {what:?}: a put panicked");
    assert!(heard.load(Relaxed) > 0, "the tier never was full");
    tier.set_faults(Faults {
        read_error_rate: u16::MAX,
        ..Faults::default()
    });
    let before = heard.load(Relaxed);
    let read = catch_unwind(AssertUnwindSafe(|| {
        for index in 0..20 {
            get(&store, &key(pool, 0, index)).ok();
        }
    }));
    assert!(read.is_ok(), "{codec}, {what:?}: a get panicked");
    assert!(heard.load(Relaxed) > before, "no page was lost");
    let stats = store.stats();
    assert_eq!(stats.attempts, stats.accepted + rejected(&stats));
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn a_hook_may_use_the_store_by_lz4() {
    USES.into_iter().for_each(|what| hook(Codec::Lz4, what));
}

#[test]
fn a_hook_may_use_the_store_by_zstd() {
    USES.into_iter().for_each(|what| hook(Codec::Zstd, what));
}

/// A tier that keeps its own books in a store: another one, or the one it serves.
struct Bookkeeper {
    inner: MemoryTier,
    books: Mutex<Weak<Store>>,
    note: Mutex<Option<Key>>,
    what: Use,
    calls: AtomicU64,
}

impl Bookkeeper {
    fn keep(&self) {
        // As deep as a tier would go: what a put inside writes back is not noted again.
        thread_local! {
            static INSIDE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
        }
        if INSIDE.replace(true) {
            return;
        }
        let (books, note) = (
            self.books.lock().unwrap().upgrade(),
            *self.note.lock().unwrap(),
        );
        if let (Some(books), Some(note)) = (books, note) {
            self.calls.fetch_add(1, Relaxed);
            use_store(&books, self.what, &note);
        }
        INSIDE.set(false);
    }
}

impl Tier for Bookkeeper {
    fn write(&self, writes: &mut [TierWrite<'_>]) {
        self.keep();
        self.inner.write(writes);
    }

    fn read(&self, reads: &mut [TierRead<'_>]) {
        self.keep();
        self.inner.read(reads);
    }
}

fn bookkeeping(own: bool, what: Use) {
    let keeper = Arc::new(Bookkeeper {
        inner: MemoryTier::new(1),
        books: Mutex::default(),
        note: Mutex::default(),
        what,
        calls: AtomicU64::new(0),
    });
    let store = Store::with_tier(&plain(1 << 20), Box::new(Arc::clone(&keeper)), None);
    let store = Arc::new(store.unwrap());
    let books = match own {
        true => Arc::clone(&store),
        false => Arc::new(Store::open(plain(1 << 20)).unwrap()),
    };
    let note = key(books.create_pool(PoolKind::Persistent), 7, 1);
    books.put(&note, &pages::record(1)).unwrap();
    *keeper.note.lock().unwrap() = Some(note);
    *keeper.books.lock().unwrap() = Arc::downgrade(&books);
    let pool = store.create_pool(PoolKind::Persistent);
    let used = catch_unwind(AssertUnwindSafe(|| {
        for index in 0..600 {
            store
                .put(&key(pool, 0, index), &pages::noise(index))
                .unwrap();
        }
        for index in 0..600 {
            let found = get(&store, &key(pool, 0, index));
            assert_eq!(found, Ok(Some(pages::noise(index))));
        }
    }));
    assert!(used.is_ok(), "own store: {own}, {what:?}: a panic");
    assert!(keeper.calls.load(Relaxed) > 0);
}

#[test]
fn a_tier_may_use_another_store() {
    USES.into_iter().for_each(|what| bookkeeping(false, what));
}

#[test]
fn a_tier_may_use_the_store_it_serves() {
    USES.into_iter().for_each(|what| bookkeeping(true, what));
}

/// A thread's own buffer that uses the store when the thread ends.
struct Buffer {
    store: Option<Arc<Store>>,
    key: Option<Key>,
    what: Use,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let (Some(store), Some(key)) = (&self.store, &self.key) {
            use_store(store, self.what, key);
            if self.what == Use::Get {
                let mut out = [[0; PAGE_SIZE]; 3];
                let mut results = [Err(LoadError::Gone); 3];
                store.get_run(key, &mut out, &mut results);
                assert_eq!(results[0], Ok(true));
                assert_eq!(out[0], pages::record(1));
            }
        }
    }
}

thread_local! {
    static BUFFER: RefCell<Buffer> = const {
        RefCell::new(Buffer { store: None, key: None, what: Use::Get })
    };
}

/// A panic in such a destructor aborts the process, hence one for each.
fn at_the_end_of_a_thread(what: Use, name: &str) {
    if !child::is_child() {
        return child::passes(name, "");
    }
    for codec in Codec::ALL {
        let config = StoreConfig {
            codec: codec.into(),
            ..swapping(1 << 20, None)
        };
        let store = Arc::new(Store::open(config).unwrap());
        let note = key(store.create_pool(PoolKind::Persistent), 0, 0);
        let thread = std::thread::spawn({
            let store = Arc::clone(&store);
            move || {
                // Used first, so that what the store keeps for the thread goes before it.
                BUFFER.with_borrow_mut(|buffer| {
                    *buffer = Buffer {
                        store: Some(Arc::clone(&store)),
                        key: Some(note),
                        what,
                    };
                });
                store.put(&note, &pages::record(1)).unwrap();
                assert_eq!(get(&store, &note), Ok(Some(pages::record(1))));
                let mut out = [[0; PAGE_SIZE]; 2];
                store.get_run(&note, &mut out, &mut [Ok(false); 2]);
            }
        });
        thread.join().unwrap();
        assert_eq!(get(&store, &note), Ok(Some(pages::record(1))));
    }
}

#[test]
fn a_destructor_of_a_thread_may_get() {
    at_the_end_of_a_thread(Use::Get, "hooks::a_destructor_of_a_thread_may_get");
}

#[test]
fn a_destructor_of_a_thread_may_put() {
    at_the_end_of_a_thread(Use::Put, "hooks::a_destructor_of_a_thread_may_put");
}

#[test]
fn a_destructor_of_a_thread_may_insert() {
    at_the_end_of_a_thread(Use::Insert, "hooks::a_destructor_of_a_thread_may_insert");
}

#[test]
fn a_destructor_of_a_thread_may_reclaim() {
    at_the_end_of_a_thread(Use::Reclaim, "hooks::a_destructor_of_a_thread_may_reclaim");
}
