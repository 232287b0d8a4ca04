//! What holds while nobody uses the store.

use std::sync::Arc;

use zcache::tier::Tier;
use zcache::tier::memory::MemoryTier;
use zcache::{Key, ObjectId, PoolId, PoolKind, Store};

use crate::client::Client;
use crate::shared::{RETRY, Shape, Shared};
use crate::support::counts::{broken, undisturbed};
use crate::support::faulty::FaultyTier;
use crate::support::pages::noise;

/// RAM that an empty store may hold beyond what a fresh one does, for each shard
/// and for all.
const SHARD_BYTES: u64 = 32 << 10;
const STORE_BYTES: u64 = 128 << 10;
/// Beyond that where dictionaries are trained: one round that has begun.
const TRAINING_BYTES: u64 = 4 << 20;

/// The store's equations, and its count of pages beside that of the models.
pub(crate) fn check(shared: &Shared<'_>, clients: &[Client<'_>]) {
    let store = &shared.store;
    assert_eq!(store.validate(), Ok(()), "in {:?}", shared.shape);
    for equation in broken(store) {
        let name = equation.split(": ").next().unwrap_or_default();
        let what = format!("{equation} in {:?}", shared.shape);
        shared.complaints.add(name, what);
    }
    let (least, most) = clients
        .iter()
        .map(Client::counts)
        .fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    let stored = store.stats().stored_pages;
    assert!(
        (least..=most).contains(&stored),
        "{stored} pages are stored of {least} to {most} in {:?}",
        shared.shape
    );
    if store.oldest_transfer().is_some() {
        let what = format!("{:?}", shared.shape);
        let kind = "a transfer is said to be under way while nobody acts";
        shared.complaints.add(kind, what);
    }
    shared.check_ram();
}

/// Faults are over: what was never lost can be read, and an empty store is as
/// good as a fresh one. Whether it takes as many pages is seen only if it is not
/// too long to wait for a tier that failed.
pub(crate) fn finish(shared: &Shared<'_>, clients: &mut [Client<'_>], patient: bool) {
    if let Some(tier) = &shared.tier {
        tier.heal();
        tier.forget_past();
    }
    for client in clients.iter_mut() {
        client.end_recompressions();
        client.read_all();
    }
    check(shared, clients);
    for client in clients.iter_mut() {
        client.leave();
    }
    let store = &shared.store;
    assert_eq!(store.validate(), Ok(()), "in {:?}", shared.shape);
    shared.set_beyond(0);
    shared.set_limit(shared.shape.pool_bytes_max);
    store.train();
    store.rest_cold();
    store.compact(usize::MAX);
    // Twice: the first may only find out that the tier works again.
    store.reclaim(u64::MAX);
    store.reclaim(u64::MAX);
    let stats = store.stats();
    assert_eq!(
        (stats.stored_pages, stats.compressed_bytes),
        (0, 0),
        "in {:?}",
        shared.shape
    );
    if stats.swap_bytes != 0 {
        let what = format!("{} KiB in {:?}", stats.swap_bytes >> 10, shared.shape);
        let kind = "an empty store has places of the tier taken";
        shared.complaints.add(kind, what);
    }
    let boxed = || Box::new(MemoryTier::new(1)) as Box<dyn Tier>;
    let fresh = shared.shape.open(shared.tier.as_ref().map(|_| boxed()));
    ram_is_given_back(shared, &fresh);
    if patient {
        takes_as_much(shared, &fresh);
    }
}

fn ram_is_given_back(shared: &Shared<'_>, fresh: &Store) {
    let stats = shared.store.stats();
    let both = || (shared.store.ram_bytes(), fresh.ram_bytes());
    let (ram, ram_fresh) = undisturbed(fresh, both);
    let may = ram_fresh
        + stats.dictionary_bytes
        + STORE_BYTES
        + SHARD_BYTES * shared.shape.config.shards as u64
        + match shared.shape.config.pool_bytes_max > shared.shape.pool_bytes_max {
            true => TRAINING_BYTES,
            false => 0,
        };
    if ram > may {
        let what = format!(
            "{} KiB of which {} overhead and {} dictionaries, a fresh one {} of which {} overhead, in {:?}",
            ram >> 10,
            shared.store.overhead_bytes() >> 10,
            stats.dictionary_bytes >> 10,
            ram_fresh >> 10,
            fresh.overhead_bytes() >> 10,
            shared.shape
        );
        let kind = "an empty store holds more RAM than a fresh one";
        shared.complaints.add(kind, what);
    }
}

/// Frames of the tables of a shard with few pages.
const TABLE_FRAMES: u64 = 8;

fn takes_as_much(shared: &Shared<'_>, fresh: &Store) {
    let attempts = attempts(shared.shape, shared.tier.is_some());
    // Where the tier failed it is tried again after a second at most.
    let failed = |tier: &Arc<FaultyTier>| tier.write_failed_within(RETRY);
    if shared.tier.as_ref().is_some_and(failed) {
        std::thread::sleep(RETRY);
    }
    let again = taken(&shared.store, attempts);
    let before = taken(fresh, attempts);
    // Other keys lie in other shards, and each that has any takes its tables.
    let tables = TABLE_FRAMES * shared.shape.config.shards as u64;
    if (again + tables) * 20 < before * 19 {
        let what = format!(
            "{again} of {attempts} pages, a fresh one {before}, in {:?}",
            shared.shape
        );
        let kind = "an empty store takes fewer pages than a fresh one";
        shared.complaints.add(kind, what);
    }
    if let Some(trouble) = shared.store.swap_trouble() {
        let what = format!("{trouble:?} in {:?}", shared.shape);
        let kind = "an empty store over a tier that works tells of trouble";
        shared.complaints.add(kind, what);
    }
}

/// Pages of random bytes that are some more than fit.
fn attempts(shape: &Shape, tier: bool) -> u64 {
    let tier_bytes = match tier {
        true => shape.tier_bytes_max.unwrap_or(1 << 20),
        false => 0,
    };
    (shape.pool_bytes_max + tier_bytes) / 4096 * 5 / 4
}

fn taken(store: &Store, attempts: u64) -> u64 {
    let pool: PoolId = store.create_pool(PoolKind::Persistent);
    let put = |number: &u64| {
        let key = Key {
            pool,
            object: ObjectId([1, 2, *number >> 9]),
            index: *number as u32,
        };
        store.put(&key, &noise(*number)).is_ok()
    };
    let taken = (0..attempts).filter(put).count() as u64;
    assert_eq!(store.destroy_pool(pool), taken);
    taken
}
