//! The store's own counters.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

use zcache_core::CodecId;

use super::coding::dictionaries::Coding;
use crate::codec::{Codec, Kind};
use crate::error::{LoadError, Rejected};

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) attempts: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) incompressible: AtomicU64,
    pub(crate) rejected_pool_full: AtomicU64,
    pub(crate) rejected_tier_full: AtomicU64,
    pub(crate) rejected_tier_failing: AtomicU64,
    pub(crate) rejected_forked: AtomicU64,
    pub(crate) room_waits: AtomicU64,
    pub(crate) room_waits_in_vain: AtomicU64,
    pub(crate) room_rounds_lost: AtomicU64,
    pub(crate) room_time_exceeded: AtomicU64,
    pub(crate) rejected_no_memory: AtomicU64,
    pub(crate) rejected_handles_exhausted: AtomicU64,
    pub(crate) rejected_no_such_pool: AtomicU64,
    pub(crate) rejected_damaged: AtomicU64,
    pub(crate) load_attempts: AtomicU64,
    pub(crate) loads: AtomicU64,
    pub(crate) load_misses: AtomicU64,
    pub(crate) busy_errors: AtomicU64,
    pub(crate) taken_pages: AtomicU64,
    /// Older pages that went with a first attempt of a put whose last was
    /// accepted: the core counts them as flushed by a put.
    pub(crate) overwritten_late_pages: AtomicU64,
    /// Pages that the core took and released again, because no handle can name
    /// them.
    pub(crate) unnamed_pages: AtomicU64,
    pub(crate) writeback_pages: AtomicU64,
    /// Blocks that were to leave and stayed without the tier having been asked: the
    /// core counts them as failed.
    pub(crate) blocks_not_tried: AtomicU64,
    pub(crate) writeback_retries_held_back: AtomicU64,
    pub(crate) swapin_pages: AtomicU64,
    pub(crate) swapin_reads: AtomicU64,
    pub(crate) relocations: AtomicU64,
    pub(crate) pers_ate_eph: AtomicU64,
    pub(crate) cold_blocks: AtomicU64,
    pub(crate) cold_pages: AtomicU64,
    pub(crate) cold_bytes_saved: AtomicU64,
    pub(crate) read_errors: AtomicU64,
    pub(crate) checksum_errors: AtomicU64,
}

impl Counts {
    /// Counts one page that came in and what became of it.
    pub(crate) fn attempt<T>(&self, kind: Kind, result: &Result<T, Rejected>) {
        add(&self.attempts, 1);
        let outcome = match result {
            Ok(_) => {
                add(&self.incompressible, u64::from(kind == Codec::PLAIN.kind()));
                &self.accepted
            }
            Err(Rejected::PoolFull) => &self.rejected_pool_full,
            Err(Rejected::TierFull) => &self.rejected_tier_full,
            Err(Rejected::TierFailing) => &self.rejected_tier_failing,
            Err(Rejected::Forked) => &self.rejected_forked,
            Err(Rejected::NoMemory) => &self.rejected_no_memory,
            Err(Rejected::HandlesExhausted) => &self.rejected_handles_exhausted,
            Err(Rejected::NoSuchPool) => &self.rejected_no_such_pool,
            Err(Rejected::Damaged) => &self.rejected_damaged,
        };
        add(outcome, 1);
    }

    /// Counts pages that were asked for and what became of each: given back,
    /// missed or an error.
    pub(crate) fn asked(&self, results: impl IntoIterator<Item = Result<bool, LoadError>>) {
        let outcomes = [
            &self.loads,
            &self.load_misses,
            &self.busy_errors,
            &self.checksum_errors,
            &self.read_errors,
        ];
        let mut tally = [0; 5];
        for result in results {
            tally[match result {
                Ok(true) => 0,
                Ok(false) | Err(LoadError::Gone) => 1,
                Err(LoadError::Busy { .. }) => 2,
                Err(LoadError::Checksum { .. } | LoadError::Corrupt { .. }) => 3,
                Err(LoadError::Io { .. } | LoadError::Missing { .. }) => 4,
            }] += 1;
        }
        add(&self.load_attempts, tally.iter().sum());
        for (counter, count) in outcomes.into_iter().zip(tally) {
            if count > 0 {
                add(counter, count);
            }
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

/// Pages of a shard whose zpages are of this kind, with whatever dictionary.
pub(super) fn pages_of(core: &zcache_core::Shard, kind: Kind) -> u64 {
    (0..CodecId::COUNT)
        .map(CodecId::new)
        .filter(|id| Coding::of(*id).is_some_and(|coding| coding.kind == kind))
        .map(|id| u64::from(core.zpages_of(id)))
        .sum()
}
