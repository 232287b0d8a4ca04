//! A tier that fails: writes and reads that end in errors, and a transfer that panics, once.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::tier::PANIC;
use super::*;
use crate::tier::memory::Faults;

/// One transfer in so many fails.
const ONE_IN: u16 = 4;

/// A call by key of any kind.
fn call(witness: &Witness, keys: &[Key], rng: &mut Rng) {
    let key = keys[rng.below(keys.len() as u64) as usize];
    match rng.below(6) {
        0 | 1 => {
            witness.take(key);
        }
        2 => {
            witness.get(key);
        }
        3 => {
            witness.flush(key);
        }
        _ => {
            witness.put(key);
        }
    }
}

/// Runs a call in which the tier may panic. One that does is not noted, for then it did nothing.
fn spared(call: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(call))
        && panic.downcast_ref::<&str>() != Some(&PANIC)
    {
        resume_unwind(panic);
    }
}

/// A store over a tier that panics when that is set, with a persistent pool of these keys, all in RAM.
fn fixture(panics: &Arc<AtomicBool>, count: u32) -> (Arc<Witness>, Arc<MemoryTier>, Vec<Key>) {
    let memory = Arc::new(MemoryTier::new(drawn().next()));
    let config = StoreConfig {
        pool_bytes_max: 1 << 20,
        codec: Codec::PLAIN.into(),
        shards: 1,
        ..StoreConfig::default()
    };
    let tier = Box::new(SlowTier::new(&memory, panics));
    let store = Store::with_tier(&config, tier, Some(64 << 10)).unwrap();
    let pool = store.create_pool(PoolKind::Persistent);
    let keys = keys(pool, count);
    let witness = Arc::new(Witness::with_failing_reads(Arc::new(store), noise));
    for key in &keys {
        witness.put(*key);
    }
    (witness, memory, keys)
}

fn failing() {
    let (witness, memory, keys) = fixture(&Arc::default(), 3);
    witness.store.reclaim(u64::MAX);
    memory.set_faults(Faults {
        write_error_rate: u16::MAX / ONE_IN,
        read_error_rate: u16::MAX / ONE_IN,
        ..Faults::default()
    });
    let clients = (0..2).map(|_| {
        let (witness, keys) = (Arc::clone(&witness), keys.clone());
        thread(move || {
            let mut rng = drawn();
            for _ in 0..4 {
                call(&witness, &keys, &mut rng);
            }
        })
    });
    let mut threads: Vec<_> = clients.collect();
    let store = Arc::clone(&witness.store);
    threads.push(thread(move || {
        for _ in 0..3 {
            store.reclaim(u64::MAX);
        }
    }));
    together(threads);
    memory.set_faults(Faults::default());
    witness.settle(&keys);
}

fn panicking() {
    let panics = Arc::new(AtomicBool::new(false));
    let (witness, _, keys) = fixture(&panics, 3);
    let client = {
        let (witness, keys) = (Arc::clone(&witness), keys.clone());
        thread(move || {
            let mut rng = drawn();
            for _ in 0..4 {
                spared(|| call(&witness, &keys, &mut rng));
            }
        })
    };
    let reclaims = {
        let (store, panics) = (Arc::clone(&witness.store), Arc::clone(&panics));
        thread(move || {
            for bytes in [16 << 10, u64::MAX] {
                spared(|| {
                    store.reclaim(bytes);
                });
                panics.store(true, Relaxed);
            }
        })
    };
    together(vec![client, reclaims]);
    panics.store(false, Relaxed);
    witness.settle(&keys);
}

#[test]
fn a_tier_that_fails_loses_no_page() {
    explore(
        "failing tier",
        800,
        failing,
        &[
            ("failed write", |stats| stats.writeback_failures),
            ("failed read", |stats| stats.read_errors),
            ("wait", |stats| stats.writeback_retries_held_back),
        ],
    );
}

#[test]
fn a_tier_that_panics_loses_no_page_and_keeps_no_place() {
    explore(
        "panicking tier",
        400,
        panicking,
        &[("read of the tier", |stats| stats.swapin_pages)],
    );
}
