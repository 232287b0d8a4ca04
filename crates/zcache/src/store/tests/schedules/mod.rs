//! The store under chosen schedules: threads are coroutines, and shuttle says at each lock and each atomic which of them
//! goes on. Runs with the feature `schedules` only; tests/README.md tells how to run it longer and how to replay.
//!
//! - `history` is the model: what calls by key may answer when they overlap
//! - `witness` is a store whose calls are noted for it
//! - every other file is a scenario
//!
//! Half of the schedules are drawn at random at each step, half by priorities that change at a few steps (PCT; Burckhardt
//! et al., "A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", 2010). What a scenario does is drawn
//! from shuttle's numbers too, so a schedule replays with all of it.
//!
//! Does not: reorder memory accesses. Atomics are sequentially consistent here.

mod closing;
mod dictionaries;
mod faults;
mod handles;
mod history;
mod limits;
mod lists;
mod places;
mod tier;
mod witness;

use shuttle::rand::RngCore;
use shuttle::scheduler::{
    PctScheduler, RandomScheduler, ReplayScheduler, Scheduler,
    UncontrolledNondeterminismCheckScheduler,
};
use shuttle::{Config, Runner};
use std::cell::RefCell;
use std::time::Instant;

use super::*;
use crate::testing::Rng;
use tier::SlowTier;
use witness::Witness;

/// Where threads have priorities, these change at one step fewer.
const DEPTH: usize = 4;

/// Schedules of each scenario that are run twice.
const REPLAYED: usize = 5;

/// Room for the copies of pages that lie on the stack of a thread, in debug builds.
const STACK_BYTES: usize = 256 << 10;

/// Numbers of the store of which each has to move in some schedule, or the scenario does not reach what it is for.
type Reaches = &'static [(&'static str, fn(&Stats) -> u64)];

thread_local! {
    // Threads of a schedule all run in one of the system's, that of the test.
    static SEEN: RefCell<Vec<Stats>> = RefCell::default();
}

/// Tries so many schedules of a scenario, or what `ZCACHE_SCHEDULES` says instead; or replays the one in the file that
/// `ZCACHE_SCHEDULE` names.
fn explore(name: &str, schedules: usize, scenario: fn(), reaches: Reaches) {
    if let Ok(path) = std::env::var("ZCACHE_SCHEDULE") {
        let replay = ReplayScheduler::new_from_file(path).expect("ZCACHE_SCHEDULE is a file");
        run(&format!("{name}, replayed"), replay, scenario);
        return;
    }
    let schedules = match std::env::var("ZCACHE_SCHEDULES") {
        Ok(count) => count.parse().expect("ZCACHE_SCHEDULES is a number"),
        Err(_) => schedules,
    };
    let seed = Rng::from_env(name).next();
    let half = schedules.div_ceil(2);
    let random = |count| RandomScheduler::new_from_seed(seed, count);
    // Fails when a schedule that is run twice differs, so that one that fails can be replayed.
    let twice = UncontrolledNondeterminismCheckScheduler::new(random(REPLAYED));
    let by_priorities = PctScheduler::new_from_seed(seed, DEPTH, half);
    run(&format!("{name}, twice each"), twice, scenario);
    run(&format!("{name}, by priorities"), by_priorities, scenario);
    run(&format!("{name}, at random"), random(half), scenario);
    let seen = SEEN.take();
    for (what, number) in reaches {
        assert!(seen.iter().any(|stats| number(stats) > 0), "no {what}");
    }
}

fn run(name: &str, scheduler: impl Scheduler + 'static, scenario: fn()) {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.silence_warnings = true;
    let tried = Tried {
        name: name.to_owned(),
        start: Instant::now(),
        schedules: Arc::default(),
    };
    let schedules = Arc::clone(&tried.schedules);
    Runner::new(scheduler, config).run(move || {
        schedules.fetch_add(1, Relaxed);
        crate::sync::clock::restart();
        scenario();
    });
}

/// Says at its end how many schedules were tried, up to one that failed.
struct Tried {
    name: String,
    start: Instant,
    schedules: Arc<std::sync::atomic::AtomicUsize>,
}

impl Drop for Tried {
    fn drop(&mut self) {
        let schedules = self.schedules.load(Relaxed);
        let took = self.start.elapsed();
        println!("{}: {schedules} schedules in {took:.1?}", self.name);
    }
}

/// Numbers for what a thread does, which belong to the schedule.
fn drawn() -> Rng {
    Rng::new(shuttle::rand::thread_rng().next_u64())
}

/// Runs each of these in a thread of its own until all have ended.
fn together(threads: Vec<Box<dyn FnOnce() + Send>>) {
    let started: Vec<_> = threads.into_iter().map(shuttle::thread::spawn).collect();
    for thread in started {
        thread.join().expect("a thread that fails ends the test");
    }
}

fn thread(run: impl FnOnce() + Send + 'static) -> Box<dyn FnOnce() + Send> {
    Box::new(run)
}

/// A store over a slow tier of so many blocks, and the memory behind it.
fn over_slow_tier(blocks: u64, config: StoreConfig) -> (Arc<Store>, Arc<MemoryTier>) {
    let memory = Arc::new(MemoryTier::new(drawn().next()));
    let tier = Box::new(SlowTier::new(&memory));
    let bytes_max = blocks * zcache_core::Run::BLOCK.bytes() as u64;
    let store = Store::with_tier(&config, tier, Some(bytes_max));
    (Arc::new(store.unwrap()), memory)
}

/// Keys of one object.
fn keys(pool: PoolId, count: u32) -> Vec<Key> {
    let object = zcache_core::ObjectId([0, 0, 1]);
    let key = |index| Key {
        pool,
        object,
        index,
    };
    (0..count).map(key).collect()
}

/// A page of a number that no codec shrinks, so that all are equally long.
fn noise(value: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    let mut rng = Rng::new(value);
    page.as_chunks_mut::<8>()
        .0
        .fill_with(|| rng.next().to_le_bytes());
    page[..8].copy_from_slice(&value.to_le_bytes());
    page
}

/// What holds whenever no call is under way.
fn check_at_rest(store: &Store) {
    assert_eq!(store.validate(), Ok(()));
    let stats = store.stats();
    let rejected = stats.rejected_pool_full
        + stats.rejected_no_memory
        + stats.rejected_handles_exhausted
        + stats.rejected_no_such_pool;
    assert_eq!(stats.accepted + rejected, stats.attempts);
}

/// What holds when every page was released or flushed.
fn check_empty(store: &Store) {
    check_at_rest(store);
    let stats = store.stats();
    assert_eq!((stats.stored_pages, stats.compressed_bytes), (0, 0));
    assert_eq!((stats.swapped_pages, stats.swap_bytes), (0, 0));
    assert_eq!(store.oldest_transfer(), None);
    SEEN.with_borrow_mut(|seen| seen.push(stats));
}
