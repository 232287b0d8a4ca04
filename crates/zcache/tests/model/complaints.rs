//! What is wrong with a store beside its pages, told in the end: one kind does
//! not hide another. And how much was compared, for whoever doubts that it was.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Kinds with how often each came up, and the first of it.
#[derive(Default)]
pub(crate) struct Complaints {
    told: Mutex<Told>,
    pub(crate) seen: Seen,
}

/// How often what was seen in all runs.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) unreadable: AtomicU64,
    pub(crate) refusals: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) pools: AtomicU64,
}

/// Counts one more.
pub(crate) fn one_more(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

#[derive(Default)]
struct Told {
    seed: u64,
    kinds: BTreeMap<String, (u64, String)>,
}

impl Complaints {
    /// A run with this seed begins.
    pub(crate) fn begin(&self, seed: u64) {
        self.told().seed = seed;
    }

    pub(crate) fn add(&self, kind: &str, what: impl std::fmt::Display) {
        let mut told = self.told();
        let first = format!("{what}, ZCACHE_SEED={}", told.seed);
        let (count, _) = told.kinds.entry(kind.to_owned()).or_insert((0, first));
        *count += 1;
    }

    /// # Panics
    /// When there are any.
    pub(crate) fn judge(&self) {
        let told = self.told();
        let lines = told
            .kinds
            .iter()
            .map(|(kind, (count, first))| format!("\n  {count} times: {kind}; first: {first}"));
        let lines: String = lines.collect();
        assert!(told.kinds.is_empty(), "{lines}");
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
