//! The numbers of a store as they are now: its own counters joined with the cores'.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Store;
use super::counts::pages_of;
use crate::codec::{self, Codec};
use crate::page::PAGE_SIZE;
use crate::stats::Stats;
use crate::sync::lock;

impl Store {
    /// RAM in use now in bytes: frames, tables, transfer buffers, and the working
    /// memory of the operations of all stores of the process, with what is kept
    /// for the next ones. At rest it is [`Stats::pool_bytes`] and
    /// [`Stats::metadata_bytes`]. Costs three loads.
    #[must_use]
    pub fn ram_bytes(&self) -> u64 {
        Memory::of(self).ram_bytes()
    }

    /// The part of [`Store::ram_bytes`] that the limit does not bound.
    #[must_use]
    pub fn overhead_bytes(&self) -> u64 {
        Memory::of(self).overhead_bytes
    }

    /// The part of [`Store::ram_bytes`] that would be left if every zpage were
    /// in the tier: that one and tables. Locks one shard after the other.
    #[must_use]
    pub fn unwritable_bytes(&self) -> u64 {
        let frames: u64 = (0..self.shards.len())
            .map(|number| u64::from(self.part(number).core.usage().metadata_frames))
            .sum();
        frames * zcache_core::FRAME_SIZE as u64 + self.overhead_bytes()
    }

    /// Pages read back from the tier since the store was opened.
    #[must_use]
    pub fn swapin_pages(&self) -> u64 {
        self.counts.swapin_pages.load(Relaxed)
    }

    /// The numbers of now. Locks one shard after the other.
    #[must_use]
    pub fn stats(&self) -> Stats {
        stats(self)
    }
}

/// RAM of a store now: the one place where it is added up.
struct Memory {
    /// Frames that hold zpages or tables or wait in free caches.
    frames_bytes: u64,
    /// Everything else: see [`Store::overhead_bytes`].
    overhead_bytes: u64,
}

impl Memory {
    fn of(store: &Store) -> Memory {
        Memory {
            frames_bytes: store.budget.used(),
            overhead_bytes: store.budget.overhead() + codec::context_bytes(),
        }
    }

    fn ram_bytes(&self) -> u64 {
        self.frames_bytes + self.overhead_bytes
    }
}

fn stats(store: &Store) -> Stats {
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
