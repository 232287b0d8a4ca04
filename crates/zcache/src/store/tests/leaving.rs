//! The way out of RAM when the tier, the disk or other threads stand in it.

use super::*;
use crate::Event;
use crate::sync::atomic::AtomicU32;
use crate::tier::memory::Faults;
use crate::tier::{TierRead, TierWrite};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use zcache_core::ObjectId;

/// What a tier does before it moves bytes.
type Deed = Box<dyn Fn(&Doing) + Send + Sync>;

/// A transfer that is asked for.
enum Doing {
    Write,
    Read,
}

/// A memory tier that does something else first.
struct Acting {
    inner: Arc<MemoryTier>,
    deed: OnceLock<Deed>,
}

impl Tier for Acting {
    fn write(&self, writes: &mut [TierWrite<'_>]) {
        if let Some(deed) = self.deed.get() {
            deed(&Doing::Write);
        }
        self.inner.write(writes);
    }

    fn read(&self, reads: &mut [TierRead<'_>]) {
        if let Some(deed) = self.deed.get() {
            deed(&Doing::Read);
        }
        self.inner.read(reads);
    }
}

/// Pages of one pool in a store of lz4, numbered by their index.
struct Pages {
    store: Arc<Store>,
    tier: Arc<Acting>,
    pool: PoolId,
    heard: Arc<Mutex<Vec<Event>>>,
}

impl Pages {
    fn new(pool_bytes_max: u64, swap_bytes_max: Option<u64>, allocator: Allocator) -> Pages {
        let tier = Arc::new(Acting {
            inner: Arc::new(MemoryTier::new(1)),
            deed: OnceLock::new(),
        });
        let config = StoreConfig {
            pool_bytes_max,
            codec: Codec::FAST.into(),
            allocator,
            dictionaries: false,
            ..StoreConfig::default()
        };
        let store = Store::with_tier(&config, Box::new(Arc::clone(&tier)), swap_bytes_max);
        let store = Arc::new(store.unwrap());
        let heard: Arc<Mutex<Vec<Event>>> = Arc::default();
        let hook = Arc::clone(&heard);
        assert!(store.on_event(move |event| hook.lock().unwrap().push(*event)));
        Pages {
            pool: store.create_pool(PoolKind::Persistent),
            store,
            tier,
            heard,
        }
    }

    fn act(&self, deed: impl Fn(&Doing) + Send + Sync + 'static) {
        assert!(self.tier.deed.set(Box::new(deed)).is_ok());
    }

    fn key(&self, number: u64) -> Key {
        Key {
            pool: self.pool,
            object: ObjectId([0, 0, number / 256]),
            index: number as u32,
        }
    }

    fn put(&self, number: u64) -> Result<(), Rejected> {
        self.store.put(&self.key(number), &noise(number))
    }

    /// Puts pages until one is refused: how many were taken, and why not more.
    fn fill(&self, from: u64) -> (u64, Rejected) {
        let refused =
            (from..from + 100_000).find_map(|number| Some((number, self.put(number).err()?)));
        let (number, why) = refused.expect("there is a limit");
        (number - from, why)
    }

    fn flush(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            assert!(self.store.flush_page(&self.key(number)), "page {number}");
        }
    }

    fn get(&self, number: u64) -> Result<Option<Page>, LoadError> {
        let mut out = [0; PAGE_SIZE];
        let hit = self.store.get(&self.key(number), &mut out)?;
        Ok(hit.then_some(out))
    }

    fn check(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            assert_eq!(self.get(number), Ok(Some(noise(number))), "page {number}");
        }
        assert_eq!(self.store.validate(), Ok(()));
        let stats = self.store.stats();
        assert_eq!(stats.accepted + stats.rejected(), stats.attempts);
    }

    fn heard(&self) -> Vec<Event> {
        std::mem::take(&mut self.heard.lock().unwrap())
    }
}

/// A page that shrinks to a size of its own, from a tenth to nothing saved.
fn noise(number: u64) -> Page {
    let mut rng = testing::Rng::new(number);
    let random = 400 + rng.below(3600) as usize;
    let mut page = [0; PAGE_SIZE];
    for byte in &mut page[..random] {
        *byte = rng.below(256) as u8;
    }
    page[PAGE_SIZE - 8..].copy_from_slice(&number.to_le_bytes());
    page
}

const NO_ROOM: Event = Event::WritebackFailed { errno: 28 };

/// What the tier says when it panics.
const PANIC: &str = "the tier's own bug";

#[test]
fn a_tier_that_panics_gives_back_what_it_was_given() {
    for allocator in Allocator::ALL {
        let pages = Pages::new(2 << 20, Some(2 << 20), allocator);
        let (writes, reads) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let panics = (Arc::clone(&writes), Arc::clone(&reads));
        pages.act(move |doing| {
            let flag = match doing {
                Doing::Write => &panics.0,
                Doing::Read => &panics.1,
            };
            if flag.load(Relaxed) {
                // A panic without the hook's message.
                resume_unwind(Box::new(PANIC));
            }
        });
        let store = &pages.store;
        let panicked = |call: &mut dyn FnMut()| catch_unwind(AssertUnwindSafe(call)).is_err();

        // Some in the tier, the rest in RAM, and handles of both kinds.
        let handles: Vec<Handle> = (0..60).map(|n| store.insert(&noise(n)).unwrap()).collect();
        let overhead = store.budget.overhead();
        store.reclaim(u64::MAX);
        let (mut taken, mut number) = (0, 0);
        while store.budget.used() < (2 << 20) - (64 << 10) {
            pages.put(number).unwrap();
            (taken, number) = (taken + 1, number + 1);
        }
        writes.store(true, Relaxed);
        let mut caught = 0;
        for _ in 0..20 {
            caught += u32::from(panicked(&mut || _ = store.reclaim(64 << 10)));
        }
        assert_eq!(
            caught, 20,
            "each reclaim has the same blocks to write again"
        );
        let mut refused = 0;
        for number in number..number + 100 {
            refused += u32::from(panicked(&mut || _ = pages.put(number)));
        }
        assert!(refused > 0, "puts into a full store write blocks");
        assert_eq!(store.oldest_transfer(), None);
        writes.store(false, Relaxed);
        pages.check(0..taken);

        store.reclaim(u64::MAX);
        reads.store(true, Relaxed);
        let mut out = vec![[0; PAGE_SIZE]; handles.len()];
        let mut results = vec![Ok(()); handles.len()];
        assert!(panicked(&mut || _ = store.load(handles[0], &mut out[0])));
        assert!(panicked(&mut || store.load_many(
            &handles,
            &mut out,
            &mut results
        )));
        for handle in handles.iter().enumerate().filter(|(n, _)| n % 8 != 0) {
            store.release(*handle.1);
        }
        // Of eight pages seven go, so blocks are read to be packed anew.
        for number in (0..taken).filter(|n| n % 8 != 0) {
            pages.flush(number..number + 1);
        }
        // The others' shorter blocks are free when these are gone.
        let panics = panicked(&mut || _ = store.reclaim(u64::MAX));
        assert!(panics || allocator != Allocator::Block);
        let swap = store.swap.as_ref().unwrap();
        assert!(
            !swap.compacting.load(Relaxed),
            "another may pack blocks anew"
        );
        assert_eq!(store.oldest_transfer(), None);
        reads.store(false, Relaxed);

        for number in (0..taken).step_by(8) {
            pages.check(number..number + 1);
        }
        for n in (0..handles.len()).step_by(8) {
            assert_eq!(load(store, handles[n]), Ok(noise(n as u64)));
            store.release(handles[n]);
        }
        store.flush_pool(pages.pool);
        assert_eq!(store.stats().swap_bytes, 0, "every slot is free");
        // All of RAM and of the tier can be used, as if nothing had been.
        let (taken, why) = pages.fill(0);
        let fresh = Pages::new(2 << 20, Some(2 << 20), allocator).fill(0);
        assert_eq!(why, Rejected::TierFull);
        assert!(taken * 20 >= fresh.0 * 19, "{taken} of {}", fresh.0);
        pages.check(0..taken);
        store.flush_pool(pages.pool);
        let slack = store.budget.overhead().saturating_sub(overhead);
        assert!(slack < 16 << 10, "{slack} bytes of buffers are missing");
    }
}

/// The number of a page that is whole.
fn number(page: &Page) -> u64 {
    let number = u64::from_le_bytes(*page.last_chunk().unwrap());
    assert!(*page == noise(number), "page {number}");
    number
}

/// Pages of one thread by key.
struct Own {
    pool: PoolId,
    /// What the store may answer for each.
    there: [Vec<Option<u64>>; 48],
}

impl Own {
    fn key(&self, index: usize) -> Key {
        Key {
            pool: self.pool,
            object: ObjectId([0, 0, 1]),
            index: index as u32,
        }
    }

    /// One call drawn at random. A put that panics is not acknowledged: its page is there, or the one before, or none.
    /// Every other call that panics did nothing.
    fn step(
        &mut self,
        store: &Store,
        rng: &mut testing::Rng,
        fresh: u64,
    ) -> std::thread::Result<()> {
        let index = rng.below(self.there.len() as u64) as usize;
        let key = self.key(index);
        let mut out = [0; PAGE_SIZE];
        let mut read = |read: fn(&Store, &Key, &mut Page) -> Result<bool, LoadError>| {
            let hit = read(store, &key, &mut out).unwrap();
            hit.then(|| number(&out))
        };
        let there = &mut self.there[index];
        let kind = rng.below(5);
        let call = || match kind {
            0 | 1 => {
                there.extend([None, Some(fresh)]);
                let put = store.put(&key, &noise(fresh));
                *there = vec![put.ok().map(|()| fresh)];
            }
            2 => {
                let found = read(Store::get);
                assert!(there.contains(&found), "{there:?}, got {found:?}");
                *there = vec![found];
            }
            3 => {
                let found = read(Store::get_exclusive);
                assert!(there.contains(&found), "{there:?}, took {found:?}");
                *there = vec![None];
            }
            _ => _ = store.reclaim(64 << 10),
        };
        catch_unwind(AssertUnwindSafe(call))
    }
}

#[test]
fn a_tier_that_panics_beside_others_loses_no_page() {
    for allocator in Allocator::ALL {
        let pages = Pages::new(1 << 20, Some(1 << 20), allocator);
        let seed = testing::Rng::from_env("panics beside others").next();
        let (armed, calls) = (Arc::new(AtomicBool::new(true)), AtomicU32::new(0));
        let panics = Arc::clone(&armed);
        pages.act(move |_| {
            std::thread::yield_now();
            if panics.load(Relaxed) && calls.fetch_add(1, Relaxed) % 5 == 4 {
                resume_unwind(Box::new(PANIC));
            }
        });
        let store = &pages.store;
        let work = |thread: u64| {
            let mut rng = testing::Rng::new(seed ^ thread);
            let pool = store.create_pool(PoolKind::Persistent);
            let there = std::array::from_fn(|_| vec![None]);
            let mut own = Own { pool, there };
            let mut caught = 0;
            for step in 0..2000 {
                if let Err(panic) = own.step(store, &mut rng, step * 4 + thread) {
                    if panic.downcast_ref() != Some(&PANIC) {
                        resume_unwind(panic);
                    }
                    caught += 1;
                }
            }
            (own, caught)
        };
        let ended = std::thread::scope(|scope| {
            let work = &work;
            let threads = [0, 1, 2].map(|thread| scope.spawn(move || work(thread)));
            threads.map(|thread| thread.join().unwrap())
        });
        armed.store(false, Relaxed);
        assert!(ended.iter().all(|(_, caught)| *caught > 0));
        for (own, _) in &ended {
            let mut stored = 0;
            for (index, there) in own.there.iter().enumerate() {
                let mut out = [0; PAGE_SIZE];
                let hit = store.get(&own.key(index), &mut out).unwrap();
                let found = hit.then(|| number(&out));
                assert!(there.contains(&found), "{there:?}, found {found:?}");
                stored += u64::from(hit);
            }
            assert_eq!(store.destroy_pool(own.pool), stored);
        }
        assert_eq!(store.validate(), Ok(()));
        assert_eq!(store.oldest_transfer(), None);
        let stats = store.stats();
        assert_eq!((stats.stored_pages, stats.swap_bytes), (0, 0));
    }
}

#[test]
fn places_that_are_free_again_on_a_full_disk_are_used_at_once() {
    for allocator in Allocator::ALL {
        let pages = Pages::new(1 << 20, None, allocator);
        pages.tier.inner.set_faults(Faults {
            sectors_max: Some(512),
            ..Faults::default()
        });
        let (taken, why) = pages.fill(0);
        assert_eq!(why, Rejected::TierFull, "{allocator:?}");
        // Blocks of several lengths leave gaps that are too short for the next.
        let (least, tenths) = match allocator {
            Allocator::Zsmalloc => (512 * 4096 * 8 / 10, 6),
            _ => (512 * 4096, 8),
        };
        let full_bytes = pages.store.stats().swap_bytes;
        assert!(full_bytes >= least, "{allocator:?}: {full_bytes} of 2 MiB");
        assert_eq!(pages.store.swap_trouble(), Some(NO_ROOM), "{allocator:?}");
        assert_eq!(pages.heard(), [NO_ROOM]);
        pages.check(0..taken);
        let mut held = 0..taken;
        for _ in 0..3 {
            // The oldest are those in the tier. With them the trouble goes.
            let half = held.start + (held.end - held.start) / 2;
            pages.flush(held.start..half);
            assert_eq!(pages.store.swap_trouble(), None, "{allocator:?}");
            let (more, why) = pages.fill(held.end);
            assert_eq!(why, Rejected::TierFull);
            let freed = half - held.start;
            assert!(
                more * 10 >= freed * tenths,
                "{allocator:?}: {more} for {freed}"
            );
            held = half..held.end + more;
            pages.check(held.clone());
        }
        assert!(pages.tier.inner.sectors() <= 512);
        // Room on the disk is found by trying one block now and then.
        let heard_last = pages.heard().pop();
        pages.tier.inner.set_faults(Faults::default());
        std::thread::sleep(Duration::from_millis(1100));
        for number in held.end..held.end + 400 {
            pages.put(number).unwrap();
        }
        assert_eq!(pages.store.swap_trouble(), None);
        // Said by now, or already when the last block to be packed made room.
        let heard_last = pages.heard().pop().or(heard_last);
        assert_eq!(heard_last, Some(Event::WritebackResumed));
    }
}

#[test]
fn a_block_that_is_passed_over_for_want_of_a_place_is_no_failure() {
    let pages = Pages::new(1 << 20, Some(1 << 20), Allocator::Zsmalloc);
    let (mut first, mut end) = (0, 0);
    for _ in 0..3 {
        let (taken, why) = pages.fill(end);
        assert_eq!(why, Rejected::TierFull);
        end += taken;
        // Blocks of several lengths leave gaps that are too short for the next.
        let half = first + (end - first) / 2;
        pages.flush(first..half);
        first = half;
        assert_eq!(pages.store.reclaim(u64::MAX).failures, 0);
    }
    let passed_over = pages.store.counts.blocks_not_tried.load(Relaxed);
    assert!(passed_over > 0, "no block was too long");
    assert_eq!(pages.store.stats().writeback_failures, 0);
}

#[test]
fn a_full_tier_a_failing_one_and_none_are_three_reasons_with_a_counter_each() {
    let none = Pages::new(1 << 20, None, Allocator::Block);
    let none = Pages {
        store: Arc::new(
            Store::open(StoreConfig {
                pool_bytes_max: 1 << 20,
                ..StoreConfig::default()
            })
            .unwrap(),
        ),
        ..none
    };
    let none = Pages {
        pool: none.store.create_pool(PoolKind::Persistent),
        ..none
    };
    let (taken, why) = none.fill(0);
    assert_eq!(why, Rejected::PoolFull);
    assert_eq!(none.store.stats().rejected_pool_full, 1);
    none.check(0..taken);

    let full = Pages::new(1 << 20, Some(1 << 20), Allocator::Block);
    let (taken, why) = full.fill(0);
    assert_eq!(why, Rejected::TierFull);
    assert_eq!(full.store.stats().rejected_tier_full, 1);
    let trouble = Event::TierFull { bytes: 1 << 20 };
    assert_eq!(full.store.swap_trouble(), Some(trouble));
    assert_eq!(full.heard(), [trouble]);
    full.check(0..taken);
    full.flush(0..taken / 4 * 3);
    assert_eq!(full.store.swap_trouble(), None, "slots are free again");
    for number in taken..taken + taken / 4 {
        full.put(number).unwrap();
    }
    full.store.reclaim(1);
    assert_eq!(full.heard(), [Event::WritebackResumed]);

    let failing = Pages::new(1 << 20, None, Allocator::Block);
    failing.tier.inner.set_faults(Faults {
        write_error_rate: u16::MAX,
        ..Faults::default()
    });
    let (taken, why) = failing.fill(0);
    assert_eq!(why, Rejected::TierFailing);
    assert_eq!(failing.put(taken), Err(Rejected::TierFailing), "held back");
    assert_eq!(failing.store.stats().rejected_tier_failing, 2);
    let trouble = Event::WritebackFailed { errno: 5 };
    assert_eq!(failing.store.swap_trouble(), Some(trouble));
    assert_eq!(failing.heard(), [trouble]);
    failing.tier.inner.set_faults(Faults::default());
    std::thread::sleep(Duration::from_millis(1100));
    failing.put(taken).unwrap();
    assert_eq!(failing.store.swap_trouble(), None, "the next write worked");
    assert_eq!(failing.heard(), [Event::WritebackResumed]);
    failing.check(0..taken);
    let reasons = [
        Rejected::PoolFull,
        Rejected::TierFull,
        Rejected::TierFailing,
        Rejected::Forked,
    ];
    let texts: std::collections::BTreeSet<String> = reasons.map(|why| why.to_string()).into();
    assert_eq!(texts.len(), 4);
}

#[test]
fn no_page_is_refused_because_other_threads_were_faster() {
    let pages = Pages::new(512 << 10, None, Allocator::Block);
    pages.act(|doing| {
        if let Doing::Write = doing {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let pages = &pages;
            scope.spawn(move || {
                for number in 0..200 {
                    let number = thread << 20 | number;
                    assert_eq!(pages.put(number), Ok(()), "page {number:#x}");
                }
            });
        }
    });
    let stats = pages.store.stats();
    assert_eq!((stats.rejected(), stats.room_time_exceeded), (0, 0));
    assert!(stats.room_rounds_lost + stats.room_waits > 0, "{stats:?}");
    for thread in 0..16 {
        pages.check(thread << 20..thread << 20 | 200);
    }
}

#[test]
fn a_put_waits_for_blocks_on_their_way_in_other_threads_and_an_ephemeral_one_does_not() {
    let pages = Pages::new(256 << 10, None, Allocator::Block);
    let cache = pages.store.create_pool(PoolKind::Ephemeral);
    let mut taken = 0;
    while pages.store.budget.used() + (16 << 10) < 256 << 10 {
        pages.put(taken).unwrap();
        taken += 1;
    }
    // Not a frame more, so that the put makes no block of its own.
    pages.store.set_pool_bytes_max(pages.store.budget.used());
    let hold_acks = |hold_acks| {
        pages.tier.inner.set_faults(Faults {
            hold_acks,
            ..Faults::default()
        });
    };
    hold_acks(true);
    std::thread::scope(|scope| {
        // Each takes a batch, until together they have every block.
        let is_left = |part: &crate::sync::Mutex<Part>| {
            let part = lock(part);
            part.core
                .next_writeback(&part.frames, PoolKind::Persistent)
                .is_some()
        };
        let mut others = Vec::new();
        while pages.store.shards.iter().any(is_left) {
            others.push(scope.spawn(|| pages.store.reclaim(u64::MAX).bytes));
            pages.tier.inner.wait_for_held(others.len() as u64);
        }
        assert_eq!(pages.store.stats().room_waits, 0);
        let putting = scope.spawn(|| {
            (taken..taken + 60)
                .map(|n| pages.put(n))
                .collect::<Vec<_>>()
        });
        let start = Instant::now();
        while pages.store.stats().room_waits == 0 {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "the put does not wait"
            );
            std::thread::yield_now();
        }
        let key = |index| Key {
            pool: cache,
            object: ObjectId([9; 3]),
            index,
        };
        let start = Instant::now();
        let refused = (0..200).find_map(|n| pages.store.put(&key(n), &noise(n.into())).err());
        assert_eq!(refused, Some(Rejected::PoolFull));
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        // One that did not wait would be refused by now.
        std::thread::sleep(Duration::from_millis(100));
        hold_acks(false);
        let results = putting.join().unwrap();
        assert_eq!(results, vec![Ok(()); 60]);
        let freed = others.into_iter().map(|other| other.join().unwrap());
        assert!(freed.sum::<u64>() > 0);
    });
    pages.check(0..taken + 60);
}

#[test]
fn a_tier_may_use_its_own_store_from_within_a_transfer() {
    let pages = Pages::new(512 << 10, None, Allocator::Block);
    let notes = pages.store.create_pool(PoolKind::Persistent);
    let key = move |index| Key {
        pool: notes,
        object: ObjectId([7; 3]),
        index,
    };
    pages.store.put(&key(0), &noise(0)).unwrap();
    let own: Weak<Store> = Arc::downgrade(&pages.store);
    let (outcomes, next) = (Arc::new(Mutex::new(Vec::new())), AtomicU32::new(1));
    let noted = Arc::clone(&outcomes);
    pages.act(move |doing| {
        let store = own.upgrade().unwrap();
        let mut out = [0; PAGE_SIZE];
        if let Doing::Write = doing {
            assert_eq!(store.get(&key(0), &mut out), Ok(true));
            assert_eq!(out, noise(0));
            let number = next.fetch_add(1, Relaxed);
            let put = store.put(&key(number), &noise(number.into()));
            store.reclaim(1 << 20);
            noted.lock().unwrap().push((number, put));
        }
    });
    for number in 0..600 {
        assert_eq!(pages.put(number), Ok(()), "page {number}");
    }
    let outcomes = outcomes.lock().unwrap();
    assert!(!outcomes.is_empty());
    for (number, put) in &*outcomes {
        let mut out = [0; PAGE_SIZE];
        let hit = pages.store.get(&key(*number), &mut out);
        match put {
            Ok(()) => assert_eq!((hit, out), (Ok(true), noise(u64::from(*number)))),
            Err(why) => assert_eq!((hit, *why), (Ok(false), Rejected::PoolFull)),
        }
    }
    pages.check(0..600);
}

#[test]
fn a_tier_that_asks_for_a_page_to_read_that_page_gets_an_end() {
    let pages = Pages::new(1 << 20, None, Allocator::Block);
    for number in 0..100 {
        pages.put(number).unwrap();
    }
    pages.store.reclaim(u64::MAX);
    let (own, key) = (Arc::downgrade(&pages.store), pages.key(50));
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    pages.act(move |_| {
        let store = own.upgrade().unwrap();
        count.fetch_add(1, Relaxed);
        store.get(&key, &mut [0; PAGE_SIZE]).ok();
    });
    assert_eq!(pages.get(20), Ok(Some(noise(20))));
    assert!(asked.load(Relaxed) < 2000, "{asked:?} reads for one");
    assert_eq!(pages.heard(), [], "nothing is lost");
}

#[test]
fn a_hook_may_put_pages_and_lose_some_itself() {
    for codec in Codec::ALL {
        let pages = Pages::new(512 << 10, Some(512 << 10), Allocator::Block);
        let store = Arc::new(
            Store::with_tier(
                &StoreConfig {
                    pool_bytes_max: 512 << 10,
                    codec: codec.into(),
                    ..StoreConfig::default()
                },
                Box::new(Arc::clone(&pages.tier)),
                Some(512 << 10),
            )
            .unwrap(),
        );
        let pool = store.create_pool(PoolKind::Persistent);
        let pages = Pages {
            store,
            pool,
            ..pages
        };
        let (own, calls) = (Arc::downgrade(&pages.store), Arc::new(AtomicU32::new(0)));
        let (count, key) = (Arc::clone(&calls), pages.key(0));
        pages.store.on_event(move |_| {
            let store = own.upgrade().unwrap();
            count.fetch_add(1, Relaxed);
            store.get(&key, &mut [0; PAGE_SIZE]).ok();
            store.put(&Key { index: 9999, ..key }, &noise(1)).ok();
            store.reclaim(64 << 10);
        });
        let (taken, why) = pages.fill(0);
        assert_eq!(
            (why, calls.load(Relaxed)),
            (Rejected::TierFull, 1),
            "full is said once"
        );
        pages.check(1..taken);
        pages.tier.inner.empty();
        assert!(matches!(pages.get(0), Err(LoadError::Missing { .. })));
        assert_eq!(calls.load(Relaxed), 2, "one page, one call");
        assert_eq!(pages.store.validate(), Ok(()));
    }
}
