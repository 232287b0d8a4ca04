//! The pager under chosen schedules, beside a simulated Linux: threads are coroutines, and shuttle says at each lock which of
//! them goes on. Runs with the feature `schedules` only; tests/README.md tells how to run it longer and how to replay.
//!
//! - `linux` is the kernel's side
//! - `program` is a thread of a program, with the model of what its memory holds
//!
//! Half of the schedules are drawn at random at each step, half by priorities that change at a few steps. What the threads do
//! is drawn from shuttle's numbers too, so a schedule replays with all of it.
//!
//! Does not: reorder memory accesses. Atomics are the standard library's here, and no step of a schedule.

mod linux;
mod program;

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, Runner};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime};

use zcache::{Allocator, Codec, Store, StoreConfig};
use zcache_sys::process::GuardTable;

use crate::config::RunConfig;
use crate::pager::Pager;
use crate::paging::evict::Evictor;
use crate::space::Space;
use linux::{Linux, drawn};
use program::Program;

const RAM_BYTES: u64 = 16 << 20;
const STEPS: u64 = 10;
/// Where threads have priorities, these change at one step fewer.
const DEPTH: usize = 4;
/// Copies of pages lie on the stack in debug builds.
const STACK_BYTES: usize = 1 << 20;

/// Tries so many schedules of a scenario, or what `ZCACHE_SCHEDULES` says instead; or replays the one in the file that
/// `ZCACHE_SCHEDULE` names.
fn explore(name: &str, schedules: usize, scenario: fn()) {
    if let Ok(path) = std::env::var("ZCACHE_SCHEDULE") {
        let replay = ReplayScheduler::new_from_file(path).expect("ZCACHE_SCHEDULE is a file");
        return run(replay, scenario);
    }
    let count = std::env::var("ZCACHE_SCHEDULES").ok();
    let schedules = count.map_or(schedules, |count| {
        count.parse().expect("ZCACHE_SCHEDULES is a number")
    });
    let seed = std::env::var("ZCACHE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        since.as_nanos() as u64
    });
    println!("{name}: ZCACHE_SEED={seed}");
    let start = Instant::now();
    run(
        PctScheduler::new_from_seed(seed, DEPTH, schedules / 2),
        scenario,
    );
    run(
        RandomScheduler::new_from_seed(seed, schedules.div_ceil(2)),
        scenario,
    );
    println!("{name}: {schedules} schedules in {:.1?}", start.elapsed());
}

fn run(scheduler: impl Scheduler + 'static, scenario: fn()) {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(move || {
        zcache::schedules::restart();
        scenario();
    });
}

fn pager() -> Arc<Pager> {
    let store = Store::open(StoreConfig {
        pool_bytes_max: RAM_BYTES / 2,
        codec: Codec::FAST.into(),
        allocator: Allocator::Block,
        shards: 1,
        dictionaries: false,
        tiers: Vec::new(),
    });
    let config = RunConfig {
        ram_bytes: RAM_BYTES,
        tiers: Vec::new(),
        codec: Codec::FAST.into(),
        dictionaries: false,
        cold_cpu_percent: 0,
        allocator: Allocator::Block,
        stats: None,
        command: Vec::new(),
        hidden_variables: Vec::new(),
    };
    let store = Arc::new(store.expect("a store without swap opens"));
    let guard = GuardTable::new().expect("a page of memory");
    Arc::new(Pager::new(config, store, 0, guard, &[0]).expect("an epoll"))
}

/// Evicts until the programs have ended.
fn evict(pager: &Arc<Pager>, space: &Arc<Space>, programs: &AtomicU64) {
    let mut evictor = Evictor::new(Arc::clone(pager));
    while programs.load(Relaxed) > 0 {
        match drawn(3) {
            0 => drop(evictor.compress(space, 1 + drawn(16))),
            1 => {
                // Nothing is taken, and what was on its way out comes back.
                pager.store.set_pool_bytes_max(0);
                evictor.compress(space, 1 + drawn(16));
                pager.limit_store();
            }
            _ => drop(evictor.round()),
        }
        shuttle::thread::yield_now();
    }
    // What the servant has not done ends too.
    while !space.limbo_is_empty() {
        evictor.round();
        shuttle::thread::yield_now();
    }
}

/// Threads of one program, with memory of their own, beside evictors.
fn scenario(threads: u64, evictors: u64, forks: bool) {
    let pager = pager();
    let linux = Linux::default();
    let space = Arc::new(Space::new(
        pager.new_space_id(),
        0,
        pager.sizes.shadow_slots,
    ));
    space.equip(Box::new(linux.clone()), None);
    pager.publish(&space).expect("it has no descriptor");
    let running = Arc::new(AtomicU64::new(threads));
    let mut started = Vec::new();
    for number in 0..threads {
        let (pager, space, linux) = (Arc::clone(&pager), Arc::clone(&space), linux.clone());
        let running = Arc::clone(&running);
        started.push(shuttle::thread::spawn(move || {
            let mut program = Program::new(&pager, &space, &linux, number);
            program.begin();
            for _ in 0..STEPS {
                program.step(forks);
            }
            program.verify();
            running.fetch_sub(1, Relaxed);
        }));
    }
    {
        let (pager, space, linux) = (Arc::clone(&pager), Arc::clone(&space), linux.clone());
        started.push(shuttle::thread::spawn(move || {
            program::look_around(&pager, &space, &linux, threads);
        }));
    }
    for _ in 0..evictors {
        let (pager, space) = (Arc::clone(&pager), Arc::clone(&space));
        let running = Arc::clone(&running);
        started.push(shuttle::thread::spawn(move || {
            evict(&pager, &space, &running)
        }));
    }
    for thread in started {
        thread.join().expect("a thread that fails ends the test");
    }
    check_at_rest(&pager, &space, &linux);
}

/// What holds when nobody is at it.
fn check_at_rest(pager: &Pager, space: &Space, linux: &Linux) {
    assert_eq!(pager.counters.lost_pages.get(), 0);
    let core = space.core();
    let known = core.table.resident() + core.shadow.held();
    assert_eq!(
        core.shadow.held(),
        linux.shadow_pages(),
        "pages in the shadow"
    );
    drop(core);
    assert_eq!(
        pager.budget.charged_bytes() >> 12,
        known,
        "pages that are charged"
    );
    pager.close(space);
    pager.bury(space);
    assert_eq!(pager.budget.charged_bytes(), 0);
    assert_eq!(
        pager.store.stats().stored_pages,
        0,
        "pages that nobody owns"
    );
    assert_eq!(pager.store.validate(), Ok(()));
}

#[test]
fn a_program_beside_evictors() {
    explore("a program beside evictors", 800, || scenario(1, 2, false));
}

#[test]
fn two_threads_beside_an_evictor() {
    explore("two threads beside an evictor", 800, || {
        scenario(2, 1, false)
    });
}

#[test]
fn threads_that_fork_beside_an_evictor() {
    explore("threads that fork beside an evictor", 300, || {
        scenario(2, 1, true)
    });
}
