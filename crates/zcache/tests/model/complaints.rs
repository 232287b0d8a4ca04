//! What is wrong with a store beside its pages, told in the end: one kind does
//! not hide another.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Kinds with how often each came up, and the first of it.
#[derive(Default)]
pub(crate) struct Complaints(Mutex<Told>);

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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
