//! How much RAM a store may hold and does hold, in numbers that every shard
//! changes without a lock.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why the last [`Frames::alloc`](zcache_core::Frames::alloc) that failed did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shortage {
    /// The budget is spent.
    Budget,
    /// The system gives no address space.
    Space,
}

/// The count of one store's RAM.
#[derive(Debug)]
pub(crate) struct Budget {
    max: AtomicU64,
    /// By how much pages that shrink may exceed it.
    beyond: AtomicU64,
    used: AtomicU64,
    overhead: AtomicU64,
}

impl Budget {
    pub(crate) fn new(max: u64) -> Budget {
        Budget {
            max: AtomicU64::new(max),
            beyond: AtomicU64::new(0),
            used: AtomicU64::new(0),
            overhead: AtomicU64::new(0),
        }
    }

    /// Takes bytes for frames, unless that would exceed the limit, for a page
    /// that shrinks with what is allowed beyond it.
    pub(crate) fn take(&self, bytes: u64, shrinks: bool) -> bool {
        let beyond = match shrinks {
            true => self.beyond.load(Relaxed),
            false => 0,
        };
        let max = self.max.load(Relaxed).saturating_add(beyond);
        self.used
            .fetch_update(Relaxed, Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= max)
            })
            .is_ok()
    }

    /// Gives back bytes that were taken.
    pub(crate) fn give(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Relaxed);
        debug_assert!(before >= bytes, "gave {bytes} of {before}");
    }

    /// Counts memory that is needed to run at all (bitmaps, transfer buffers)
    /// and is therefore counted but never refused.
    pub(crate) fn charge_overhead(&self, bytes: u64) {
        self.overhead.fetch_add(bytes, Relaxed);
    }

    /// Takes back what `charge_overhead` counted.
    pub(crate) fn discharge_overhead(&self, bytes: u64) {
        self.overhead.fetch_sub(bytes, Relaxed);
    }

    pub(crate) fn max(&self) -> u64 {
        self.max.load(Relaxed)
    }

    pub(crate) fn set_max(&self, bytes: u64) {
        self.max.store(bytes, Relaxed);
    }

    pub(crate) fn set_beyond(&self, bytes: u64) {
        self.beyond.store(bytes, Relaxed);
    }

    /// Bytes of frames taken now.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Bytes counted by `charge_overhead` now.
    pub(crate) fn overhead(&self) -> u64 {
        self.overhead.load(Relaxed)
    }
}
