//! What a mount did: the JSON of `--stats`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use crate::budget::Budget;
use crate::serve::Filesystem;
use crate::session::Requests;

/// The statistics of a mount; the names and units are documented in
/// `docs/mount.md` and stable.
#[derive(Clone, Debug, Serialize)]
pub struct MountStats {
    /// Version of this list of names.
    pub format: u32,
    /// The budget.
    pub ram_bytes_budget: u64,
    /// What of it is in use.
    pub ram_bytes_used: u64,
    /// The most that was measured.
    pub ram_bytes_peak: u64,
    /// Frames that hold compressed pages.
    pub pool_bytes: u64,
    /// The store's metadata.
    pub metadata_bytes: u64,
    /// Memory that remembers pages read once.
    pub ghost_bytes: u64,
    /// Pages that can be remembered so.
    pub ghost_pages_max: u64,
    /// Pages kept now.
    pub stored_pages: u64,
    /// Original bytes to compressed bytes of these.
    pub compression_ratio: f64,
    /// Requests that the kernel made.
    pub requests: u64,
    /// Of these, answered with an error other than in a read.
    pub failed_requests: u64,
    /// Pages asked for that were kept.
    pub hit_pages: u64,
    /// Pages asked for that were not.
    pub missed_pages: u64,
    /// Misses that are kept from then on.
    pub admitted_pages: u64,
    /// Misses that were remembered as read once.
    pub passed_pages: u64,
    /// Misses not kept because they were written while they were read.
    pub changed_pages: u64,
    /// Misses that the store did not take.
    pub refused_pages: u64,
    /// Pages dropped for newer ones.
    pub evicted_pages: u64,
    /// Pages dropped because their file changed.
    pub invalidated_pages: u64,
    /// Pages found damaged in RAM and read from the source instead.
    pub damaged_pages: u64,
    /// Inodes that the kernel remembers.
    pub inodes: u64,
    /// Files that are open.
    pub open_files: u64,
}

impl MountStats {
    pub(crate) fn gather(
        filesystem: &Filesystem,
        requests: &Requests,
        budget: &Budget,
    ) -> MountStats {
        let store = filesystem.cache.store.stats();
        let counts = &filesystem.cache.counts;
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        MountStats {
            format: 1,
            ram_bytes_budget: budget.ram_bytes(),
            ram_bytes_used: budget.used_bytes(),
            ram_bytes_peak: budget.peak_bytes(),
            pool_bytes: store.pool_bytes,
            metadata_bytes: store.metadata_bytes,
            ghost_bytes: filesystem.cache.ghost_bytes(),
            ghost_pages_max: filesystem.cache.ghost_capacity(),
            stored_pages: store.stored_pages,
            compression_ratio: store.compression_ratio,
            requests: count(&requests.served),
            failed_requests: count(&requests.failed),
            hit_pages: count(&counts.hits),
            missed_pages: count(&counts.misses),
            admitted_pages: count(&counts.admitted),
            passed_pages: count(&counts.passed),
            changed_pages: count(&counts.changed),
            refused_pages: count(&counts.refused),
            evicted_pages: store.evicted_ephemeral_pages,
            invalidated_pages: count(&counts.invalidated),
            damaged_pages: count(&counts.damaged),
            inodes: filesystem.inodes.len() as u64,
            open_files: filesystem.files.len() as u64,
        }
    }

    /// The statistics as they are written to a file.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Numbers under fixed names always are JSON.
        serde_json::to_string_pretty(self).expect("plain numbers") + "\n"
    }
}
