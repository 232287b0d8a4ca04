//! A tier as slow as a disk: other threads do a great deal between the moment in which bytes move and the end of the
//! transfer.
//!
//! Stage on the data path: last, in the place of a disk; the bytes and all other faults are those of the memory tier.

use super::*;
use crate::tier::{Tier, TierRead, TierWrite};

/// Turns of other threads that a transfer lasts, at most.
const TURNS_MAX: u64 = 100;

pub(super) struct SlowTier {
    memory: Arc<MemoryTier>,
}

impl SlowTier {
    pub(super) fn new(memory: &Arc<MemoryTier>) -> SlowTier {
        SlowTier {
            memory: Arc::clone(memory),
        }
    }

    /// Lets others go on for some turns.
    fn last() {
        for _ in 0..drawn().below(TURNS_MAX) {
            shuttle::thread::yield_now();
        }
    }
}

impl Tier for SlowTier {
    fn write(&self, writes: &mut [TierWrite<'_>]) {
        self.memory.write(writes);
        Self::last();
    }

    fn read(&self, reads: &mut [TierRead<'_>]) {
        self.memory.read(reads);
        Self::last();
    }
}
