//! Out of RAM, cheapest first: ephemeral blocks are dropped, half-empty blocks
//! are merged, and the oldest persistent blocks are written to the tier.
//!
//! A batch of blocks is copied under the shard's lock, written without it, and
//! ended under it again: each block's frames are freed only when its write was
//! acknowledged. Blocks of one batch take neighbouring slots where these are
//! free and then go in one transfer.

mod compaction;

use crate::sync::Instant;
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sync::{Arc, Mutex};
use std::time::Duration;

use zcache_core::{Frames, Run, Slot, WriteFailed, WritebackEnd, WritebackPlan};

use crate::codec;
use crate::config::StoreConfig;
use crate::frames::Budget;
use crate::store::counts::add;
use crate::store::{Event, Part, Store, lock};
use crate::tier::{Buffers, IDLE_MAX, SECTOR_SIZE, Slots, Tier, TierError, TierRead, TierWrite};

/// Sectors of one batch, written or read: at most 1 MiB, at least four blocks.
const BATCH_SECTORS_MAX: u32 = 256;
const BATCH_SECTORS_MIN: u32 = 16;

/// Of the limit, the part that the buffers of all batches take.
const BATCHES_PART: u64 = 64;

/// Sectors that one zpage can touch.
const PAGE_SECTORS: u32 = 2;

/// The longest single write, so that a batch is several transfers in flight.
const WRITE_SECTORS_MAX: usize = 64;

/// The wait after a first failed write; it doubles up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LONGEST: Duration = Duration::from_secs(1);

/// Above the limit less this part, [`Store::balance`] begins to reclaim.
const HIGH_PART: u64 = 20;
/// Below the limit less this part, it stops.
const LOW_PART: u64 = 10;

/// Blocks of a shard hold at least this part of live bytes, or are merged before
/// others are written. Fresh ones hold about 98%, and blocks of large zpages 75%.
const DENSE_PERCENT: u64 = 70;

/// Blocks merged in one shard by one reclaim: its lock is held that long.
const MERGE_BLOCKS_MAX: u32 = 16;

/// What a reclaim did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reclaimed {
    /// RAM given back to the system, in bytes.
    pub bytes: u64,
    /// Pages that are now only in the tier.
    pub pages: u64,
    /// Ephemeral pages dropped.
    pub dropped_pages: u64,
    /// Blocks that the tier refused and that stay in RAM.
    pub failures: u64,
    /// Nothing was written because the tier had failed and it is not yet time
    /// to try it again.
    pub held_back: bool,
    /// The tier holds as many blocks as it may.
    pub tier_full: bool,
}

/// The tier and what the store knows of it.
pub(crate) struct Swap {
    tier: Box<dyn Tier>,
    /// What slots are counted in.
    unit: Run,
    pub(in crate::store) slots: Mutex<Slots>,
    pub(in crate::store) page_buffers: Buffers,
    pub(in crate::store) block_buffers: Buffers,
    retry: Mutex<Retry>,
    above_high: AtomicBool,
    /// When each transfer under way began.
    transfers: Mutex<Vec<Instant>>,
}

/// When a tier that failed is tried again.
#[derive(Default)]
struct Retry {
    not_before: Option<Instant>,
    wait: Duration,
}

impl Swap {
    pub(in crate::store) fn new(
        tier: Box<dyn Tier>,
        bytes_max: Option<u64>,
        config: &StoreConfig,
        budget: &Arc<Budget>,
    ) -> Swap {
        let runs = zcache_core::Allocator::from(config.allocator).runs();
        let slots = Slots::new(runs, bytes_max);
        Swap {
            tier,
            unit: slots.unit(),
            slots: Mutex::new(slots),
            page_buffers: Buffers::new(PAGE_SECTORS, Arc::clone(budget)),
            block_buffers: Buffers::new(batch_sectors(config.pool_bytes_max), Arc::clone(budget)),
            retry: Mutex::default(),
            above_high: AtomicBool::new(false),
            transfers: Mutex::default(),
        }
    }

    /// Where a slot begins, in bytes from the start of the tier.
    pub(in crate::store) fn offset_bytes(&self, slot: Slot) -> u64 {
        u64::from(slot.0) * self.unit.bytes() as u64
    }

    /// Whether nine tenths of the slots are in use, or a block found none.
    pub(in crate::store) fn is_nearly_full(&self) -> bool {
        lock(&self.slots).is_nearly_full()
    }

    pub(in crate::store) fn read(&self, reads: &mut [TierRead<'_>]) {
        self.timed(|| self.tier.read(reads));
    }

    fn write(&self, writes: &mut [TierWrite<'_>]) {
        self.timed(|| self.tier.write(writes));
    }

    fn timed(&self, transfer: impl FnOnce()) {
        let start = Instant::now();
        lock(&self.transfers).push(start);
        transfer();
        let mut transfers = lock(&self.transfers);
        if let Some(index) = transfers.iter().position(|other| *other == start) {
            transfers.swap_remove(index);
        }
    }

    fn may_try(&self) -> bool {
        let not_before = lock(&self.retry).not_before;
        not_before.is_none_or(|time| Instant::now() >= time)
    }

    fn failed(&self) {
        let mut retry = lock(&self.retry);
        retry.wait = (retry.wait * 2).clamp(RETRY_FIRST, RETRY_LONGEST);
        retry.not_before = Some(Instant::now() + retry.wait);
    }

    fn worked(&self) {
        *lock(&self.retry) = Retry::default();
    }
}

/// One block of a batch.
struct Leaving {
    plan: WritebackPlan,
    slot: u32,
    result: Result<(), TierError>,
}

/// How a batch ended.
enum Batch {
    /// The shard has no block to write.
    Empty,
    /// Blocks were written.
    Written,
    /// The tier takes no more for now.
    Stopped,
}

impl Store {
    /// Frees about `bytes` of RAM: drops ephemeral blocks, merges half-empty
    /// ones, then writes the oldest to the tier and frees each when its write
    /// was acknowledged. Returns when that is done or nothing more can be.
    ///
    /// A tier that failed is left alone for a while that doubles with each
    /// failure, from 10 ms to 1 s; pages stay in RAM meanwhile.
    pub fn reclaim(&self, bytes: u64) -> Reclaimed {
        let mut done = Reclaimed::default();
        self.drop_ephemeral(bytes, &mut done);
        self.merge_sparse(bytes, &mut done);
        if let Some(swap) = &self.swap {
            self.write_back(swap, bytes, &mut done);
            self.compact_swap(swap);
        }
        done
    }

    /// Reclaims if more than 95% of the limit is in use, down to 90%. For
    /// clients that have no better idea of when; does nothing in between.
    pub fn balance(&self) -> Reclaimed {
        let Some(swap) = &self.swap else {
            return Reclaimed::default();
        };
        let max = self.budget.max();
        let used = self.budget.used();
        let low = max - max / LOW_PART;
        if used > max - max / HIGH_PART {
            swap.above_high.store(true, Relaxed);
        }
        if !swap.above_high.load(Relaxed) {
            return Reclaimed::default();
        }
        let done = self.reclaim(used.saturating_sub(low));
        if self.budget.used() <= low {
            swap.above_high.store(false, Relaxed);
        }
        done
    }

    /// Empties up to `blocks_max` half-empty blocks into others and returns how
    /// many frames that freed.
    pub fn compact(&self, blocks_max: usize) -> usize {
        let mut left = u32::try_from(blocks_max).unwrap_or(u32::MAX);
        let mut frames_freed = 0;
        for number in 0..self.shards.len() {
            if left == 0 {
                break;
            }
            let mut part = self.part(number);
            let Part { core, frames, .. } = &mut *part;
            let evacuated = core.evacuate(frames, left);
            frames.trim();
            left = left.saturating_sub(evacuated.blocks);
            frames_freed += evacuated.frames as usize;
        }
        frames_freed
    }

    fn drop_ephemeral(&self, bytes: u64, done: &mut Reclaimed) {
        for number in self.shards_in_turn() {
            let mut part = self.part(number);
            let Part { core, frames, .. } = &mut *part;
            while done.bytes < bytes
                && let Some(dropped) = core.drop_oldest_ephemeral(frames)
            {
                done.bytes += frame_bytes(dropped.frames);
                done.dropped_pages += u64::from(dropped.zpages);
            }
            frames.trim();
        }
    }

    /// Merges blocks of shards whose blocks are much emptier than they need be.
    fn merge_sparse(&self, bytes: u64, done: &mut Reclaimed) {
        for number in self.shards_in_turn() {
            if done.bytes >= bytes {
                return;
            }
            let mut part = self.part(number);
            let Part { core, frames, .. } = &mut *part;
            let usage = core.usage();
            let live = usage.persistent.zbytes + usage.ephemeral.zbytes;
            if live * 100 >= frame_bytes(usage.block_frames) * DENSE_PERCENT {
                continue;
            }
            let evacuated = core.evacuate(frames, MERGE_BLOCKS_MAX);
            frames.trim();
            done.bytes += frame_bytes(evacuated.frames);
        }
    }

    fn write_back(&self, swap: &Swap, bytes: u64, done: &mut Reclaimed) {
        if done.bytes < bytes && !swap.may_try() {
            add(&self.counts.writeback_retries_held_back, 1);
            done.held_back = true;
            return;
        }
        let mut empty = 0;
        while done.bytes < bytes && empty < self.shards.len() {
            let number = self.next_shard.fetch_add(1, Relaxed) & (self.shards.len() - 1);
            match self.write_batch(swap, number, bytes - done.bytes, done) {
                Batch::Empty => empty += 1,
                Batch::Written => empty = 0,
                Batch::Stopped => break,
            }
        }
    }

    /// Writes blocks of one shard until `bytes` are free or the batch is full.
    fn write_batch(&self, swap: &Swap, number: usize, bytes: u64, done: &mut Reclaimed) -> Batch {
        let Ok(mut buffer) = swap.block_buffers.lend() else {
            return Batch::Stopped;
        };
        let mut leaving = self.begin(swap, number, bytes, buffer.bytes_mut(), done);
        if leaving.is_empty() {
            return if done.tier_full {
                Batch::Stopped
            } else {
                Batch::Empty
            };
        }
        write(swap, &mut leaving, buffer.bytes());
        keep_checksums(swap, &leaving, buffer.bytes());
        self.end(swap, number, &leaving, done);
        self.judge(swap, &leaving);
        if leaving.iter().any(|block| block.result.is_err()) {
            Batch::Stopped
        } else {
            Batch::Written
        }
    }

    /// Copies blocks that are to leave, until they are `bytes` or fill the room,
    /// and gives each a slot.
    fn begin(
        &self,
        swap: &Swap,
        number: usize,
        bytes: u64,
        mut room: &mut [u8],
        done: &mut Reclaimed,
    ) -> Vec<Leaving> {
        let mut leaving = Vec::new();
        let mut part = self.part(number);
        let Part { core, frames, .. } = &mut *part;
        let room_bytes = room.len();
        while ((room_bytes - room.len()) as u64) < bytes
            && let Some(run) = core.next_writeback(frames)
            && let Some((copy, later)) = room.split_at_mut_checked(run.bytes())
        {
            let Some(slot) = lock(&swap.slots).take(run) else {
                done.tier_full = true;
                break;
            };
            let Some(plan) = core.begin_writeback(frames) else {
                unreachable!("there is a block to be written, of {run:?}")
            };
            room = later;
            copy.copy_from_slice(frames.bytes(plan.frame, plan.run));
            leaving.push(Leaving {
                plan,
                slot,
                result: Err(TierError::IO),
            });
        }
        self.free_slots(&mut part);
        drop(part);
        if done.tier_full {
            self.announce_full(swap);
        }
        leaving
    }

    /// Tells the core what became of the blocks, and frees those that are safe.
    fn end(&self, swap: &Swap, number: usize, leaving: &[Leaving], done: &mut Reclaimed) {
        let mut part = self.part(number);
        let Part { core, frames, .. } = &mut *part;
        for block in leaving {
            let result = match block.result {
                Ok(()) => Ok(Slot(block.slot)),
                Err(_) => Err(WriteFailed),
            };
            let end = core.finish_writeback(frames, block.plan.block, result);
            if result.is_err() {
                lock(&swap.slots).free(block.slot, block.plan.run);
                done.failures += 1;
            }
            match end {
                WritebackEnd::InTier { frames } => {
                    done.bytes += frame_bytes(frames);
                    done.pages += u64::from(block.plan.zpages);
                    add(&self.counts.writeback_pages, block.plan.zpages.into());
                }
                WritebackEnd::Empty { frames } => done.bytes += frame_bytes(frames),
                WritebackEnd::BackInRam => {}
            }
        }
        self.free_slots(&mut part);
        part.frames.trim();
    }

    /// Says when the tier begins to fail and when it works again.
    fn judge(&self, swap: &Swap, leaving: &[Leaving]) {
        match leaving.iter().find_map(|block| block.result.err()) {
            Some(error) => {
                swap.failed();
                self.events.writeback_failed(error.errno);
            }
            None => {
                swap.worked();
                self.events.writeback_worked(!swap.is_nearly_full());
            }
        }
    }

    /// For how long the oldest transfer to or from the tier has been under way;
    /// `None` when there is none. Long is a medium that does not answer.
    #[must_use]
    pub fn oldest_transfer(&self) -> Option<Duration> {
        let transfers = lock(&self.swap.as_ref()?.transfers);
        transfers.iter().map(Instant::elapsed).max()
    }

    /// What keeps blocks in RAM now: [`Event::WritebackFailed`] while the last
    /// write failed, [`Event::TierFull`] while the tier holds all it may.
    #[must_use]
    pub fn swap_trouble(&self) -> Option<Event> {
        let swap = self.swap.as_ref()?;
        self.events.trouble(lock(&swap.slots).used_bytes())
    }

    fn announce_full(&self, swap: &Swap) {
        let used_bytes = lock(&swap.slots).used_bytes();
        self.events.tier_full(used_bytes);
    }

    /// Every shard's number, beginning where the last sweep ended.
    pub(in crate::store) fn shards_in_turn(&self) -> impl Iterator<Item = usize> + use<> {
        let mask = self.shards.len() - 1;
        let start = self.next_shard.fetch_add(1, Relaxed);
        (0..=mask).map(move |number| start.wrapping_add(number) & mask)
    }
}

/// Writes blocks that lie one after the other in `bytes`, neighbours in the
/// tier by one transfer.
fn write(swap: &Swap, leaving: &mut [Leaving], bytes: &[u8]) {
    let sectors = |block: &Leaving| block.plan.run.bytes() / SECTOR_SIZE;
    let mut joined = leaving.first().map_or(0, sectors);
    let mut runs: Vec<&mut [Leaving]> = leaving
        .chunk_by_mut(|before, after| {
            joined += sectors(after);
            let joins = swap.offset_bytes(Slot(after.slot))
                == swap.offset_bytes(Slot(before.slot)) + before.plan.run.bytes() as u64
                && joined <= WRITE_SECTORS_MAX;
            if !joins {
                joined = sectors(after);
            }
            joins
        })
        .collect();
    let mut rest = bytes;
    let mut writes: Vec<TierWrite<'_>> = Vec::with_capacity(runs.len());
    for run in &runs {
        let (bytes, later) = rest.split_at(run.iter().map(|block| block.plan.run.bytes()).sum());
        rest = later;
        writes.push(TierWrite {
            offset_bytes: swap.offset_bytes(Slot(run[0].slot)),
            bytes,
            result: Err(TierError::IO),
        });
    }
    swap.write(&mut writes);
    for (run, write) in runs.iter_mut().zip(writes) {
        for block in run.iter_mut() {
            block.result = write.result;
        }
    }
}

fn keep_checksums(swap: &Swap, leaving: &[Leaving], mut bytes: &[u8]) {
    for block in leaving {
        let (copy, later) = bytes.split_at(block.plan.run.bytes());
        bytes = later;
        let checksum = codec::block_checksum(copy);
        lock(&swap.slots).set_block_checksum(block.slot, checksum);
    }
}

/// Sectors of one batch, in proportion to what the store may hold.
fn batch_sectors(pool_bytes_max: u64) -> u32 {
    let bytes = pool_bytes_max / BATCHES_PART / IDLE_MAX as u64;
    let sectors = u32::try_from(bytes / SECTOR_SIZE as u64).unwrap_or(u32::MAX);
    // Whole blocks of any size that the store has.
    (sectors & !3).clamp(BATCH_SECTORS_MIN, BATCH_SECTORS_MAX)
}

fn frame_bytes(frames: u32) -> u64 {
    u64::from(frames) * zcache_core::FRAME_SIZE as u64
}
