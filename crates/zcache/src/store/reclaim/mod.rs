//! Out of RAM, cheapest first: ephemeral blocks are dropped, half-empty blocks
//! are merged, and the oldest persistent blocks are written to the tier.
//! Ephemeral blocks are written there ahead of that where the client asks for it:
//! see `ahead`.
//!
//! The blocks of a batch take neighbouring slots where these are free and then go
//! in one transfer. Who finds nothing to write waits for the batches of other
//! threads.

mod ahead;
mod batch;
mod bounds;
mod compaction;
pub(in crate::store) mod outcome;
pub(in crate::store) mod swap;
mod under_way;

use crate::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::store::Store;
use crate::store::counts::add;
use crate::store::events::Event;
use crate::store::inside::Inside;
use crate::store::part::Part;
use crate::tier::Places;

use zcache_core::Kind;

use batch::{Batch, NoPlace};
use bounds::frame_bytes;
use outcome::{Reclaimed, Stop};
use swap::Swap;
use under_way::{ANSWER_WAIT_MAX, Waited};

/// Above the limit less this part, [`Store::balance`] begins to reclaim.
const HIGH_PART: u64 = 20;
/// Below the limit less this part, it stops.
const LOW_PART: u64 = 10;

/// Blocks of a shard hold at least this part of live bytes, or are merged before
/// others are written. Fresh ones hold about 98%, and blocks of large zpages 75%.
const DENSE_PERCENT: u64 = 70;

/// Blocks merged in one shard by one reclaim: its lock is held that long.
const MERGE_BLOCKS_MAX: u32 = 16;

/// How a batch ended.
enum Step {
    /// Blocks were written.
    Written,
    /// The shard has no block to write.
    Empty,
    /// No place was left for the shard's next block.
    NoPlace(Places),
    /// There was no room for any block where the tier would have had to grow.
    NoGrowth,
    /// The tier takes no more for now.
    Stopped(Stop),
}

impl Store {
    /// Frees about `bytes` of RAM: drops ephemeral blocks, merges half-empty
    /// ones, then writes the oldest to the tier and frees each when its write
    /// was acknowledged. Returns when that is done or nothing more can be.
    ///
    /// When all blocks that could leave are on their way in other threads, it
    /// waits for the first of these to arrive, at most 10 s.
    ///
    /// A tier that failed is left alone for a while that doubles with each
    /// failure, from 10 ms to 1 s; pages stay in RAM meanwhile. Of one that had
    /// no room, places that were written before are still used. Called from within
    /// a transfer of the store's own tier, it writes nothing.
    pub fn reclaim(&self, bytes: u64) -> Reclaimed {
        let (done, _) = self.make_room(bytes);
        self.tidy_tier();
        done
    }

    /// Frees RAM, and says why it did no more.
    pub(in crate::store) fn make_room(&self, bytes: u64) -> (Reclaimed, Stop) {
        let mut done = Reclaimed::default();
        self.drop_ephemeral(bytes, &mut done);
        self.merge_sparse(bytes, &mut done);
        let stop = match &self.swap {
            None => Stop::Nothing,
            Some(swap) => match Inside::enter_once(swap) {
                None => Stop::Nothing,
                Some(_inside) => self.write_back(swap, bytes, &mut done),
            },
        };
        if done.bytes < bytes && self.wrote_ephemeral.load(Relaxed) {
            self.drop_in_tiers(bytes, &mut done);
        }
        (done, stop)
    }

    /// Packs blocks of the tier anew if that is due, which may take some of the
    /// RAM that became free, and has the hook know of trouble that began or ended.
    /// False while the tier takes no more.
    pub(in crate::store) fn tidy_tier(&self) -> bool {
        let Some(swap) = &self.swap else {
            return false;
        };
        let Some(inside) = Inside::enter_once(swap) else {
            return false;
        };
        if !swap.was_forked() {
            self.compact_swap(swap);
        }
        // The hook may store pages, and have room made for them.
        drop(inside);
        let trouble = swap.trouble();
        self.events.settle(trouble, !swap.is_nearly_full());
        trouble.is_none()
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

    fn write_back(&self, swap: &Swap, bytes: u64, done: &mut Reclaimed) -> Stop {
        if swap.was_forked() {
            done.forked = true;
            return Stop::Forked;
        }
        if done.bytes >= bytes {
            return Stop::Enough;
        }
        let seen = swap.batches.ended();
        let stop = match swap.may_write() {
            true => self.write_batches(swap, bytes, done),
            false => Stop::Failing,
        };
        done.tier_full |= stop == Stop::Full;
        if matches!(stop, Stop::Failing | Stop::NoRoom) && done.failures == 0 {
            add(&self.counts.writeback_retries_held_back, 1);
            done.held_back = true;
        }
        if stop != Stop::Nothing || done.bytes > 0 {
            return stop;
        }
        add(&self.counts.room_waits, 1);
        match swap.batches.wait(seen, ANSWER_WAIT_MAX) {
            Waited::Nothing => Stop::Nothing,
            Waited::Ended { freed_bytes } => {
                done.bytes += freed_bytes;
                Stop::Changed
            }
            Waited::Unanswered => {
                add(&self.counts.room_waits_in_vain, 1);
                Stop::Unanswered
            }
        }
    }

    /// Writes batches of one shard after the other, until enough is free or every
    /// shard in a row had nothing to give.
    fn write_batches(&self, swap: &Swap, bytes: u64, done: &mut Reclaimed) -> Stop {
        let mut in_vain = 0;
        let mut stop = Stop::Nothing;
        while done.bytes < bytes {
            if in_vain >= self.shards.len() {
                return stop;
            }
            let number = self.next_shard.fetch_add(1, Relaxed) & (self.shards.len() - 1);
            match self.write_batch(swap, number, Kind::Persistent, bytes - done.bytes, done) {
                Step::Written => (in_vain, stop) = (0, Stop::Nothing),
                Step::Empty => in_vain += 1,
                Step::NoPlace(places) => {
                    in_vain += 1;
                    stop = match places {
                        Places::Any => Stop::Full,
                        Places::Backed => Stop::NoRoom,
                    };
                }
                // The next one finds places that were written before, if any.
                Step::NoGrowth => {}
                Step::Stopped(stop) => return stop,
            }
        }
        Stop::Enough
    }

    /// Writes blocks of one shard until `bytes` are free or the batch is full.
    fn write_batch(
        &self,
        swap: &Swap,
        number: usize,
        kind: Kind,
        bytes: u64,
        done: &mut Reclaimed,
    ) -> Step {
        let Ok(mut buffer) = swap.block_buffers.lend() else {
            return Step::Stopped(Stop::NoMemory);
        };
        let mut batch = Batch::begin(self, swap, number, kind);
        let filled = batch.fill(bytes, buffer.bytes_mut());
        if batch.is_empty() {
            return match filled {
                Ok(()) => Step::Empty,
                Err(NoPlace(places)) => Step::NoPlace(places),
            };
        }
        batch.write(buffer.bytes());
        let may_grow = batch.may_grow();
        let verdict = batch.end(done);
        swap.learn(verdict);
        match (verdict.failed, verdict.no_room) {
            (Some(_), _) => Step::Stopped(Stop::Failing),
            (None, Some(_)) if verdict.wrote => Step::Written,
            (None, Some(_)) if may_grow => Step::NoGrowth,
            (None, Some(_)) => Step::Stopped(Stop::NoRoom),
            (None, None) => Step::Written,
        }
    }

    /// For how long the oldest transfer to or from the tier has been under way;
    /// `None` when there is none. Long is a medium that does not answer.
    #[must_use]
    pub fn oldest_transfer(&self) -> Option<Duration> {
        self.swap.as_ref()?.oldest_transfer()
    }

    /// What keeps blocks in RAM at this moment: [`Event::WritebackFailed`] while
    /// the last write failed, or the tier has no room to grow and no place is free
    /// that was written before; [`Event::TierFull`] while the tier holds all it
    /// may; [`Event::Forked`] in a forked process.
    #[must_use]
    pub fn swap_trouble(&self) -> Option<Event> {
        let trouble = self.swap.as_ref()?.trouble()?;
        Some(trouble.event())
    }

    /// Every shard's number, beginning where the last sweep ended.
    pub(in crate::store) fn shards_in_turn(&self) -> impl Iterator<Item = usize> + use<> {
        let mask = self.shards.len() - 1;
        let start = self.next_shard.fetch_add(1, Relaxed);
        (0..=mask).map(move |number| start.wrapping_add(number) & mask)
    }
}
