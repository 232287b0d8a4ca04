//! A tier as slow as a disk: other threads do a great deal between the moment in which bytes move and the end of the
//! transfer. On request it panics once.
//!
//! Stage on the data path: last, in the place of a disk; the bytes and all other faults are those of the memory tier.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::*;
use crate::tier::{Tier, TierRead, TierWrite};

/// Turns of other threads that a transfer lasts, at most.
const TURNS_MAX: u64 = 100;

/// What the tier says when it panics.
pub(super) const PANIC: &str = "the tier panics";

pub(super) struct SlowTier {
    memory: Arc<MemoryTier>,
    panics: Arc<AtomicBool>,
}

impl SlowTier {
    /// A tier whose next transfer panics when that is set.
    pub(super) fn new(memory: &Arc<MemoryTier>, panics: &Arc<AtomicBool>) -> SlowTier {
        SlowTier {
            memory: Arc::clone(memory),
            panics: Arc::clone(panics),
        }
    }

    fn last(&self) {
        for _ in 0..drawn().below(TURNS_MAX) {
            shuttle::thread::yield_now();
        }
        if self.panics.swap(false, Relaxed) {
            // Not `panic!`, whose hook would report a failed schedule.
            std::panic::resume_unwind(Box::new(PANIC));
        }
    }
}

impl Tier for SlowTier {
    fn write(&self, writes: &mut [TierWrite<'_>]) {
        self.memory.write(writes);
        self.last();
    }

    fn read(&self, reads: &mut [TierRead<'_>]) {
        self.memory.read(reads);
        self.last();
    }
}
