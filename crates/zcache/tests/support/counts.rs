//! The equations that hold between a store's numbers while nobody uses it.
//!
//! Numbers are read by the names of their fields, so that a new reason to refuse
//! a page belongs to the sums from its first day.

use std::collections::BTreeMap;

use zcache::{Stats, Store};

/// Why a page that was accepted is not stored any more.
const GONE: [&str; 7] = [
    "released_pages",
    "overwritten_pages",
    "put_to_flush_pages",
    "flushed_pages",
    "taken_pages",
    "evicted_ephemeral_pages",
    "lost_pages",
];

/// Every whole number of a snapshot by its name.
pub(crate) fn numbers(stats: &Stats) -> BTreeMap<String, u64> {
    let text = format!("{stats:#?}");
    let fields = text.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("    ")?.split_once(": ")?;
        Some((name.to_owned(), value.trim_end_matches(',').parse().ok()?))
    });
    fields.collect()
}

/// Pages refused, for whatever reason.
pub(crate) fn rejected(stats: &Stats) -> u64 {
    let numbers = numbers(stats);
    let rejected = numbers
        .iter()
        .filter(|(name, _)| name.starts_with("rejected_"));
    rejected.map(|(_, count)| count).sum()
}

/// Pages that were accepted and went since.
pub(crate) fn gone(stats: &Stats) -> u64 {
    let numbers = numbers(stats);
    GONE.iter().filter_map(|name| numbers.get(*name)).sum()
}

/// What is read of a store while nothing that counts for all stores of the
/// process changes: the codecs' memory of its threads, of which other tests have
/// some.
pub(crate) fn undisturbed<R>(store: &Store, read: impl Fn() -> R) -> R {
    loop {
        let before = store.overhead_bytes();
        let result = read();
        if store.overhead_bytes() == before {
            return result;
        }
    }
}

/// RAM that the limit bounds: frames and tables.
pub(crate) fn used_bytes(store: &Store) -> u64 {
    undisturbed(store, || {
        store.ram_bytes().saturating_sub(store.overhead_bytes())
    })
}

/// The equations of a store at rest that do not hold.
pub(crate) fn broken(store: &Store) -> Vec<String> {
    let (stats, ram_bytes) = undisturbed(store, || (store.stats(), store.ram_bytes()));
    let equations = [
        (
            "attempts == accepted + rejected",
            stats.attempts,
            stats.accepted + rejected(&stats),
        ),
        (
            "accepted == stored + gone",
            stats.accepted,
            stats.stored_pages + gone(&stats),
        ),
        (
            "pool_bytes + metadata_bytes == ram_bytes",
            stats.pool_bytes + stats.metadata_bytes,
            ram_bytes,
        ),
    ];
    let failed = equations
        .into_iter()
        .filter(|(_, left, right)| left != right);
    failed
        .map(|(name, left, right)| format!("{name}: {left} != {right}"))
        .collect()
}
