//! A tier that fails: writes and reads that end in errors.
//!
//! Does not: let the tier panic. All coroutines run in one thread of the system, so while one of them unwinds, the locks
//! of the others break too; `leaving` does that with threads.

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

/// A store over a tier, with a persistent pool of so many keys, all in RAM.
fn fixture(count: u32) -> (Arc<Witness>, Arc<MemoryTier>, Vec<Key>) {
    let memory = Arc::new(MemoryTier::new(drawn().next()));
    let config = StoreConfig {
        pool_bytes_max: 1 << 20,
        codec: Codec::PLAIN.into(),
        shards: 1,
        ..StoreConfig::default()
    };
    let tier = Box::new(SlowTier::new(&memory));
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
    let (witness, memory, keys) = fixture(3);
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
