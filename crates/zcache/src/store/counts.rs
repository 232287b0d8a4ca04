//! The store's own counters, and the snapshot that joins them with the cores'.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

use zcache_core::CodecId;

use super::coding::dictionaries::Coding;
use super::{Store, lock};
use crate::codec::{Codec, Kind};
use crate::error::{LoadError, Rejected};
use crate::page::PAGE_SIZE;
use crate::stats::Stats;

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

/// RAM of a store now: the one place where it is added up.
pub(crate) struct Memory {
    /// Frames that hold zpages or tables or wait in free caches.
    pub(crate) frames_bytes: u64,
    /// Everything else: see [`Store::overhead_bytes`].
    pub(crate) overhead_bytes: u64,
}

impl Memory {
    pub(crate) fn of(store: &Store) -> Memory {
        Memory {
            frames_bytes: store.budget.used(),
            overhead_bytes: store.budget.overhead() + crate::codec::context_bytes(),
        }
    }

    pub(crate) fn ram_bytes(&self) -> u64 {
        self.frames_bytes + self.overhead_bytes
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
        rejected_damaged: get(&counts.rejected_damaged),
        load_attempts: get(&counts.load_attempts),
        loads: get(&counts.loads),
        load_misses: get(&counts.load_misses),
        busy_errors: get(&counts.busy_errors),
        taken_pages: get(&counts.taken_pages),
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
        ..Stats::default()
    };
    let mut table_frames = 0;
    for number in 0..store.shards.len() {
        table_frames += add_shard(&mut stats, &store.part(number).core);
    }
    // What the core calls flushed is more than what clients do.
    let late = get(&counts.overwritten_late_pages);
    stats.overwritten_pages += late;
    stats.put_to_flush_pages = stats.put_to_flush_pages.saturating_sub(late);
    stats.flushed_pages = stats.flushed_pages.saturating_sub(stats.taken_pages);
    let not_tried = get(&counts.blocks_not_tried);
    stats.writeback_failures = stats.writeback_failures.saturating_sub(not_tried);
    let unnamed = get(&counts.unnamed_pages);
    stats.released_pages = stats.released_pages.saturating_sub(unnamed);
    let memory = Memory::of(store);
    let table_bytes = table_frames * zcache_core::FRAME_SIZE as u64;
    stats.ram_bytes = memory.ram_bytes();
    stats.metadata_bytes = memory.overhead_bytes + table_bytes;
    stats.pool_bytes = memory.frames_bytes.saturating_sub(table_bytes);
    if let Some(swap) = &store.swap {
        let slots = lock(&swap.slots);
        stats.swap_bytes = slots.used_bytes();
        stats.swap_bytes_peak = slots.used_bytes_peak();
    }
    let dictionaries = &store.dictionaries;
    (stats.dictionaries, stats.dictionary_bytes) = dictionaries.kept();
    stats.dictionary_trainings = get(&store.trainings.count);
    stats.dictionary_adoptions = get(&dictionaries.adoptions);
    stats.dictionary_training_ns = get(&store.trainings.time_ns);
    stats.dictionary_rounds_given_up = get(&store.turns.given_up);
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
    stats.lost_pages += counters.lost_pages;
    stats.repairs += counters.repairs;
    stats.pers_ate_eph += counters.pers_ate_eph;
    stats.released_pages += counters.released;
    stats.overwritten_pages += counters.overwritten;
    stats.put_to_flush_pages += counters.put_to_flush;
    stats.flushed_pages += counters.flushed;
    stats.swap_compacted_pages += counters.readmitted_zpages;
    for codec in Codec::ALL {
        stats.by_codec[codec].pages += pages_of(core, codec.kind());
    }
    u64::from(usage.metadata_frames)
}

/// Pages of a shard whose zpages are of this kind, with whatever dictionary.
pub(super) fn pages_of(core: &zcache_core::Shard, kind: Kind) -> u64 {
    (0..CodecId::COUNT)
        .map(CodecId::new)
        .filter(|id| Coding::of(*id).is_some_and(|coding| coding.kind == kind))
        .map(|id| u64::from(core.zpages_of(id)))
        .sum()
}
