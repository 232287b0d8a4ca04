//! One batch of blocks on its way out.
//!
//! Stage on the data path: blocks are copied under their shard's lock, written
//! without it, and ended under it again.
//!
//! - Each block's frames are freed only when its write was acknowledged.
//! - Nobody waits for a batch of ephemeral blocks: these can be dropped.
//! - A batch that is dropped before its end, as when the tier panics, ends with
//!   every block back in RAM and every slot free.
//!
//! Does not decide when a tier that failed is tried again.

use zcache_core::{Frames, Kind, Run, Slot, WriteFailed, WritebackEnd, WritebackPlan};

use super::bounds::frame_bytes;
use super::outcome::Reclaimed;
use super::swap::{Growth, Swap, Verdict};
use crate::store::Store;
use crate::store::counts::add;
use crate::store::part::Part;
use crate::sync::lock;
use crate::tier::{Places, TierError, TierWrite};

/// Blocks that are passed over in one batch, because they are too long for the
/// places that are left, in search of a shorter one.
const PASSED_OVER_MAX: u32 = 16;

/// Blocks of one shard on their way out.
pub(super) struct Batch<'a> {
    store: &'a Store,
    swap: &'a Swap,
    shard: usize,
    kind: Kind,
    blocks: Vec<Leaving>,
    /// Which places they may have been given.
    growth: Growth,
    ended: bool,
}

/// One block of a batch.
struct Leaving {
    plan: WritebackPlan,
    slot: u32,
    /// Whether its place had been written before.
    was_backed: bool,
    result: Result<(), TierError>,
}

/// The places of which there was none left for a block.
pub(super) struct NoPlace(pub(super) Places);

impl<'a> Batch<'a> {
    pub(super) fn begin(store: &'a Store, swap: &'a Swap, shard: usize, kind: Kind) -> Batch<'a> {
        if kind == Kind::Persistent {
            swap.batches.begin();
        }
        Batch {
            store,
            swap,
            shard,
            kind,
            blocks: Vec::new(),
            growth: swap.growth(),
            ended: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Whether the tier may grow by it.
    pub(super) fn may_grow(&self) -> bool {
        self.growth != Growth::None
    }

    /// Copies blocks that are to leave, until they are `bytes` or fill the room,
    /// and gives each a slot.
    pub(super) fn fill(&mut self, bytes: u64, room: &mut [u8]) -> Result<(), NoPlace> {
        let mut growth = self.growth;
        let mut passed_over = 0;
        let mut end = Ok(());
        let mut part = self.store.part(self.shard);
        let Part { core, frames, .. } = &mut *part;
        let mut filled = 0;
        while (filled as u64) < bytes
            && let Some(run) = core.next_writeback(frames, self.kind)
            && let Some(copy) = room.get_mut(filled..filled + run.bytes())
        {
            let places = match growth {
                Growth::Free | Growth::OneBlock => Places::Any,
                Growth::None => Places::Backed,
            };
            let taken = self.take_slot(run, places);
            if taken.is_err_and(|shorter| shorter) && passed_over < PASSED_OVER_MAX {
                // The next one may be shorter; this one's turn comes again.
                if let Some(plan) = core.begin_writeback(frames, self.kind) {
                    core.finish_writeback(frames, plan.block, Err(WriteFailed));
                    add(&self.store.counts.blocks_not_tried, 1);
                }
                passed_over += 1;
                continue;
            }
            let Ok((slot, was_backed)) = taken else {
                end = Err(NoPlace(places));
                break;
            };
            if growth == Growth::OneBlock && !was_backed {
                growth = Growth::None;
                if !self.swap.try_growth() {
                    lock(&self.swap.slots).free(slot, run);
                    continue;
                }
            }
            // It is the one that was next, unless damage was met and repaired between.
            let plan = core.begin_writeback(frames, self.kind);
            let Some(plan) = plan.filter(|plan| plan.run == run) else {
                lock(&self.swap.slots).free(slot, run);
                if let Some(plan) = plan {
                    core.finish_writeback(frames, plan.block, Err(WriteFailed));
                    add(&self.store.counts.blocks_not_tried, 1);
                }
                break;
            };
            filled += run.bytes();
            copy.copy_from_slice(frames.bytes(plan.frame, plan.run));
            self.blocks.push(Leaving {
                plan,
                slot,
                was_backed,
                result: Err(TierError::IO),
            });
        }
        self.store.free_slots(&mut part);
        end
    }

    /// A slot, and whether it was written before; else whether a shorter block
    /// may find one.
    fn take_slot(&self, run: Run, places: Places) -> Result<(u32, bool), bool> {
        let mut slots = lock(&self.swap.slots);
        match slots.take(run, places) {
            Some(slot) => Ok((slot, slots.was_written(slot, run))),
            None => Err(slots.may_take_shorter(run, places)),
        }
    }

    /// Writes the blocks, which lie one after the other in `bytes`.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        let writes = self.blocks.iter().map(|block| {
            let (bytes, later) = rest.split_at(block.plan.run.bytes());
            rest = later;
            TierWrite {
                offset_bytes: self.swap.offset_bytes(Slot(block.slot)),
                bytes,
                result: Err(TierError::IO),
            }
        });
        let mut writes: Vec<_> = writes.collect();
        self.swap.write(&mut writes);
        for (block, write) in self.blocks.iter_mut().zip(writes) {
            block.result = write.result;
        }
    }

    /// Frees what is safe, and says what the tier is like.
    pub(super) fn end(mut self, done: &mut Reclaimed) -> Verdict {
        let mut verdict = Verdict::default();
        for block in &self.blocks {
            verdict.note(block.result, block.was_backed);
        }
        let ended = self.give_back();
        done.bytes += ended.bytes;
        done.pages += ended.pages;
        done.failures += ended.failures;
        verdict
    }

    /// Tells the core what became of the blocks, and frees the slots of those
    /// that were not written.
    fn give_back(&mut self) -> Reclaimed {
        let mut done = Reclaimed::default();
        let blocks = std::mem::take(&mut self.blocks);
        if !blocks.is_empty() {
            let mut part = self.store.part(self.shard);
            let Part { core, frames, .. } = &mut *part;
            for Leaving {
                plan, slot, result, ..
            } in &blocks
            {
                let acknowledged = result.map(|()| Slot(*slot)).map_err(|_| WriteFailed);
                let end = core.finish_writeback(frames, plan.block, acknowledged);
                match result {
                    Ok(()) => lock(&self.swap.slots).written(*slot, plan.run),
                    Err(error) => {
                        if error.is_no_room() {
                            lock(&self.swap.slots).found_no_room(*slot, plan.run);
                        }
                        self.swap.free(Slot(*slot), plan.run);
                        done.failures += 1;
                    }
                }
                match end {
                    WritebackEnd::InTier { frames } => {
                        done.bytes += frame_bytes(frames);
                        done.pages += u64::from(plan.zpages);
                        add(&self.store.counts.writeback_pages, plan.zpages.into());
                    }
                    WritebackEnd::Empty { frames } => done.bytes += frame_bytes(frames),
                    WritebackEnd::BackInRam => {}
                    WritebackEnd::Damaged if result.is_ok() => {
                        self.swap.free(Slot(*slot), plan.run);
                    }
                    WritebackEnd::Damaged => {}
                }
            }
            self.store.free_slots(&mut part);
            part.frames.trim();
        }
        self.swap.recount();
        if self.kind == Kind::Persistent {
            self.swap.batches.end(blocks.len(), done.bytes);
        }
        self.ended = true;
        done
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.give_back();
        }
    }
}
