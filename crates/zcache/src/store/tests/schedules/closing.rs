//! Pools that are closed and stores that are let go of while threads are at them.

use super::*;

fn config(shards: usize) -> StoreConfig {
    StoreConfig {
        pool_bytes_max: 1 << 20,
        codec: Codec::PLAIN.into(),
        shards,
        ..StoreConfig::default()
    }
}

fn client(witness: &Witness, keys: &[Key]) {
    let mut rng = drawn();
    for _ in 0..4 {
        let key = keys[rng.below(keys.len() as u64) as usize];
        match rng.below(7) {
            0..3 => {
                witness.put(key);
            }
            3 => {
                witness.get(key);
            }
            4 => {
                witness.take(key);
            }
            5 => {
                witness.store.reclaim(u64::MAX);
            }
            _ => {
                let mut out = [[0; PAGE_SIZE]; 2];
                let mut results = [Ok(false); 2];
                witness.store.get_run(&keys[0], &mut out, &mut results);
                assert!(results.iter().all(Result::is_ok), "{results:?}");
            }
        }
    }
}

fn a_pool_is_closed() {
    let kind = [PoolKind::Persistent, PoolKind::Ephemeral][drawn().below(2) as usize];
    let (store, _) = over_slow_tier(3, config(2));
    let pool = store.create_pool(kind);
    let keys = keys(pool, 2);
    let witness = Arc::new(Witness::new(store, noise));
    for key in &keys {
        witness.put(*key);
    }
    witness.store.reclaim(u64::MAX);
    let clients = (0..2).map(|_| {
        let (witness, keys) = (Arc::clone(&witness), keys.clone());
        thread(move || client(&witness, &keys))
    });
    let mut threads: Vec<_> = clients.collect();
    let (others, of) = (Arc::clone(&witness), keys.clone());
    threads.push(thread(move || {
        client(&others, &of);
        others.destroy_pool(pool, &of);
        assert!(!others.put(of[0]), "the pool is closed");
    }));
    together(threads);
    // Nothing comes after the end of a pool.
    assert_eq!(witness.judge(&keys), 0);
    check_empty(&witness.store);
}

fn the_last_lets_go() {
    let (store, memory) = over_slow_tier(3, config(1));
    let pool = store.create_pool(PoolKind::Persistent);
    let keys = keys(pool, 2);
    let witness = Arc::new(Witness::new(store, noise));
    let seen = Arc::downgrade(&witness.store);
    let clients = (0..3).map(|_| {
        let (witness, keys) = (Arc::clone(&witness), keys.clone());
        thread(move || client(&witness, &keys))
    });
    let threads: Vec<_> = clients.collect();
    drop(witness);
    together(threads);
    assert!(seen.upgrade().is_none(), "the store is gone");
    assert_eq!(Arc::strong_count(&memory), 1, "and with it the tier");
}

#[test]
fn nothing_is_stored_in_a_pool_after_its_end() {
    explore(
        "closing a pool",
        800,
        a_pool_is_closed,
        &[
            ("refused put", |stats| stats.rejected_no_such_pool),
            ("read of the tier", |stats| stats.swapin_pages),
        ],
    );
}

#[test]
fn a_store_goes_with_the_last_that_holds_it() {
    explore("letting go", 200, the_last_lets_go, &[]);
}
