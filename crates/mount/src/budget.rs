//! The one hard budget of a mount.
//!
//! Equation, measured ten times a second:
//! `store + ghosts + zcache's own memory <= ram`.
//! What is not the store is measured as the process's anonymous memory, the
//! rest is the store's limit; when it shrinks, the oldest pages go.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::cache::Cache;

/// How often the process's memory is measured.
pub(crate) const PERIOD: Duration = Duration::from_millis(100);

/// What the process may gain between two measurements, beside the rooms of spare
/// threads. It is left free.
const MARGIN_BYTES: u64 = 1 << 20;

/// The part of the budget that is left free for the rooms of spare threads, at
/// most: they are seldom used all at once.
const SPARE_PART: u64 = 8;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Budget {
    ram_bytes: u64,
    used_bytes: AtomicU64,
    peak_bytes: AtomicU64,
    /// What somebody is about to take and the process does not have yet.
    wanted_bytes: AtomicU64,
    /// What is left free.
    margin_bytes: AtomicU64,
}

impl Budget {
    pub(crate) fn new(ram_bytes: u64) -> Budget {
        Budget {
            ram_bytes,
            used_bytes: AtomicU64::new(0),
            peak_bytes: AtomicU64::new(0),
            wanted_bytes: AtomicU64::new(0),
            margin_bytes: AtomicU64::new(MARGIN_BYTES),
        }
    }

    pub(crate) fn ram_bytes(&self) -> u64 {
        self.ram_bytes
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Relaxed)
    }

    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Relaxed)
    }

    /// Leaves room for spare threads, which touch so many bytes once they are needed.
    pub(crate) fn expect_spares(&self, bytes: u64) {
        let room = bytes.min(self.ram_bytes / SPARE_PART);
        self.margin_bytes.store(MARGIN_BYTES + room, Relaxed);
    }

    /// Does what takes so many bytes, once there is room for them.
    pub(crate) fn within_room<T>(&self, cache: &Cache, bytes: u64, work: impl FnOnce() -> T) -> T {
        self.wanted_bytes.fetch_add(bytes, Relaxed);
        self.enforce(cache);
        let result = work();
        self.wanted_bytes.fetch_sub(bytes, Relaxed);
        result
    }

    /// Sets the store's limit by what the rest of the process takes.
    pub(crate) fn enforce(&self, cache: &Cache) {
        let Some(process_bytes) = anonymous_bytes() else {
            return;
        };
        self.used_bytes.store(process_bytes, Relaxed);
        self.peak_bytes.fetch_max(process_bytes, Relaxed);
        let in_store = cache.store.ram_bytes();
        // Frames that the store has reserved and not touched are not in the
        // process's memory yet.
        let others = process_bytes.saturating_sub(in_store) + cache.store.overhead_bytes();
        let wanted = self.wanted_bytes.load(Relaxed);
        let limit = self
            .ram_bytes
            .saturating_sub(others + wanted + self.margin_bytes.load(Relaxed));
        cache.store.set_pool_bytes_max(limit);
        let in_frames = in_store.saturating_sub(cache.store.overhead_bytes());
        let excess = in_frames.saturating_sub(limit);
        if excess > 0 {
            cache.store.reclaim(excess);
        }
    }
}

/// Anonymous memory of this process in RAM.
fn anonymous_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let mut fields = statm.split(' ').skip(1).map(|field| field.parse::<u64>());
    let (resident, shared) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some(resident.saturating_sub(shared) * 4096)
}
