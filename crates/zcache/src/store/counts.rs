//! The store's own counters, and the snapshot that joins them with the cores'.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

use zcache_core::CodecId;

use super::coding::dictionaries::Coding;
use super::{Store, lock};
use crate::codec::Kind;
use crate::error::Rejected;
use crate::page::PAGE_SIZE;
use crate::stats::Stats;
use crate::tier::SECTOR_SIZE;

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
    pub(crate) loads: AtomicU64,
    pub(crate) writeback_pages: AtomicU64,
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
                add(&self.incompressible, u64::from(kind == Kind::Raw));
                &self.accepted
            }
            Err(Rejected::PoolFull) => &self.rejected_pool_full,
            Err(Rejected::TierFull) => &self.rejected_tier_full,
            Err(Rejected::TierFailing) => &self.rejected_tier_failing,
            Err(Rejected::Forked) => &self.rejected_forked,
            Err(Rejected::NoMemory) => &self.rejected_no_memory,
            Err(Rejected::HandlesExhausted) => &self.rejected_handles_exhausted,
            Err(Rejected::NoSuchPool) => &self.rejected_no_such_pool,
        };
        add(outcome, 1);
    }
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

pub(crate) fn stats(store: &Store) -> Stats {
    let counts = &store.counts;
    let get = |counter: &AtomicU64| counter.load(Relaxed);
    let mut stats = Stats {
        attempts: get(&counts.attempts),
        accepted: get(&counts.accepted),
        incompressible_pages: get(&counts.incompressible),
        rejected_pool_full: get(&counts.rejected_pool_full),
        rejected_tier_full: get(&counts.rejected_tier_full),
        rejected_tier_failing: get(&counts.rejected_tier_failing),
        rejected_forked: get(&counts.rejected_forked),
        room_waits: get(&counts.room_waits),
        room_waits_in_vain: get(&counts.room_waits_in_vain),
        room_rounds_lost: get(&counts.room_rounds_lost),
        room_time_exceeded: get(&counts.room_time_exceeded),
        rejected_no_memory: get(&counts.rejected_no_memory),
        rejected_handles_exhausted: get(&counts.rejected_handles_exhausted),
        rejected_no_such_pool: get(&counts.rejected_no_such_pool),
        loads: get(&counts.loads),
        writeback_pages: get(&counts.writeback_pages),
        writeback_retries_held_back: get(&counts.writeback_retries_held_back),
        swapin_pages: get(&counts.swapin_pages),
        swapin_reads: get(&counts.swapin_reads),
        relocations: get(&counts.relocations),
        pers_ate_eph: get(&counts.pers_ate_eph),
        cold_blocks: get(&counts.cold_blocks),
        cold_pages: get(&counts.cold_pages),
        cold_bytes_saved: get(&counts.cold_bytes_saved),
        read_errors: get(&counts.read_errors),
        checksum_errors: get(&counts.checksum_errors),
        metadata_bytes: store.budget.overhead() + crate::codec::context_bytes(),
        ..Stats::default()
    };
    let mut metadata_frames = 0;
    for shard in &store.shards {
        let part = lock(shard);
        metadata_frames += add_shard(&mut stats, &part.core);
    }
    let metadata_bytes = metadata_frames * SECTOR_SIZE as u64;
    stats.metadata_bytes += metadata_bytes;
    stats.pool_bytes = store.budget.used().saturating_sub(metadata_bytes);
    if let Some(swap) = &store.swap {
        let slots = lock(&swap.slots);
        stats.swap_bytes = slots.used_bytes();
        stats.swap_bytes_peak = slots.used_bytes_peak();
    }
    let dictionaries = &store.dictionaries;
    (stats.dictionaries, stats.dictionary_bytes) = dictionaries.kept();
    stats.dictionary_trainings = get(&dictionaries.trainings);
    stats.dictionary_adoptions = get(&dictionaries.adoptions);
    stats.dictionary_training_ns = get(&dictionaries.training_ns);
    store.fresh.add_to(&mut stats);
    if stats.compressed_bytes > 0 {
        let pages = stats.stored_pages - stats.same_filled_pages;
        let bytes = pages * PAGE_SIZE as u64;
        stats.compression_ratio = bytes as f64 / stats.compressed_bytes as f64;
    }
    stats
}

/// Adds a shard's numbers and returns how many frames its tables take.
fn add_shard(stats: &mut Stats, core: &zcache_core::Shard) -> u64 {
    let usage = core.usage();
    stats.stored_pages += u64::from(usage.entries);
    stats.same_filled_pages += u64::from(usage.same_filled_pages);
    stats.compressed_bytes += usage.persistent.zbytes + usage.ephemeral.zbytes + usage.tier_zbytes;
    stats.swapped_pages += u64::from(usage.tier_zpages);
    let counters = core.counters();
    stats.writeback_blocks += counters.writebacks_stored;
    stats.writeback_failures += counters.writebacks_failed;
    stats.evacuated_pages += counters.evacuated_zpages;
    stats.evacuated_blocks += counters.evacuated_blocks;
    stats.evicted_ephemeral_pages += counters.evicted_eph_zpages;
    stats.pers_ate_eph += counters.pers_ate_eph;
    stats.swap_compacted_pages += counters.readmitted_zpages;
    stats.lz4_pages += pages_of(core, Kind::Lz4);
    stats.zstd_pages += pages_of(core, Kind::Zstd);
    u64::from(usage.metadata_frames)
}

/// Pages of a shard that a codec shrank, with whatever dictionary.
pub(super) fn pages_of(core: &zcache_core::Shard, kind: Kind) -> u64 {
    (0..CodecId::COUNT)
        .map(CodecId::new)
        .filter(|id| Coding::of(*id).is_some_and(|coding| coding.kind == kind))
        .map(|id| u64::from(core.zpages_of(id)))
        .sum()
}
