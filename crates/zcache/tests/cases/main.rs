//! Programs that once lost a page, stopped a store, ended a process or cost more
//! than was told: each as a test with the value that is right, and others of its
//! kind. All of them use the public API only.
//!
//! Costs are compared within one run, never with a clock of another machine.

mod child;
mod costs;
mod counts;
mod dictionaries;
mod flip;
mod forks;
mod hooks;
mod memory;
mod swapfile;
mod tiers;

#[path = "../support/mod.rs"]
mod support;

use zcache::tier::TierSource;
use zcache::{
    Codec, Key, LoadError, ObjectId, PAGE_SIZE, Page, PoolId, Store, StoreConfig, SwapConfig,
};

/// A store without surprises: lz4, no dictionaries.
fn plain(pool_bytes_max: u64) -> StoreConfig {
    StoreConfig {
        pool_bytes_max,
        codec: Codec::Lz4.into(),
        dictionaries: false,
        ..StoreConfig::default()
    }
}

/// The same with a swap file in the default directory.
fn swapping(pool_bytes_max: u64, bytes_max: Option<u64>) -> StoreConfig {
    StoreConfig {
        tiers: vec![TierSource::disk(SwapConfig {
            path: None,
            bytes_max,
        })],
        ..plain(pool_bytes_max)
    }
}

fn key(pool: PoolId, object: u64, index: u64) -> Key {
    Key {
        pool,
        object: ObjectId([object, 0, 0]),
        index: u32::try_from(index).expect("an index of 32 bits"),
    }
}

fn get(store: &Store, key: &Key) -> Result<Option<Page>, LoadError> {
    let mut out = [0; PAGE_SIZE];
    store.get(key, &mut out).map(|hit| hit.then_some(out))
}

/// What became of pages that were acknowledged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Tally {
    good: u64,
    wrong: u64,
    missing: u64,
    errors: u64,
}

impl Tally {
    fn add(&mut self, found: Result<Option<Page>, LoadError>, expected: &Page) {
        match found {
            Ok(Some(page)) if page == *expected => self.good += 1,
            Ok(Some(_)) => self.wrong += 1,
            Ok(None) => self.missing += 1,
            Err(_) => self.errors += 1,
        }
    }

    /// All of so many came back as they were.
    fn all_good(count: u64) -> Tally {
        Tally {
            good: count,
            ..Tally::default()
        }
    }
}
