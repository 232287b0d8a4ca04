//! Reclaim: when, and which block goes next.
//!
//! Stage on the data path: after a block has aged, before the tier. The core plans and the home acts: `begin_writeback`
//! hands out the oldest block of a kind, the home writes its bytes without the lock, `finish_writeback` frees the
//! frames once the tier has acknowledged them. Ephemeral blocks may be dropped whole instead, from RAM and from the tier.
//!
//! Invariants:
//! - a persistent zpage leaves RAM only in `finish_writeback(Ok)`
//! - no byte of a block changes between its `begin_writeback` and its `finish_writeback`
//! - reclaim begins above the high watermark and ends at the low one
//! - no word of an ephemeral page is in a tier: it is not worth a read
//!
//! Does not: bound the writes in flight; the home does.

use super::Shard;
use crate::exchange::{Dropped, Watermarks, WriteFailed, WritebackEnd, WritebackPlan};
use crate::frames::{FrameId, Frames, Run};
use crate::ids::{BlockToken, Kind, Slot};
use crate::tables::block::{AGE_LINKS, Block, State};
use crate::tables::entry::Content;
use crate::tables::{Checked, Damaged, ensure, members};

impl Shard {
    /// Sets when to reclaim.
    ///
    /// # Panics
    /// When the low watermark is above the high one.
    pub fn set_watermarks(&mut self, watermarks: Watermarks) {
        assert!(
            watermarks.low_frames <= watermarks.high_frames,
            "{watermarks:?}"
        );
        self.watermarks = watermarks;
    }

    /// Frames to free now, 0 when there is nothing to do. Blocks being written count as freed already.
    pub fn reclaim_goal(&mut self) -> u32 {
        let staying = self.frames_in_use() - self.usage.writing_frames;
        if staying > self.watermarks.high_frames {
            self.reclaiming = true;
        } else if staying <= self.watermarks.low_frames {
            self.reclaiming = false;
        }
        if self.reclaiming {
            staying - self.watermarks.low_frames
        } else {
            0
        }
    }

    /// Drops the oldest ephemeral block; `None` when there is none.
    pub fn drop_oldest_ephemeral(&mut self, frames: &mut impl Frames) -> Option<Dropped> {
        self.sound(frames, |shard, frames| shard.drop_oldest(frames))
            .ok()
            .flatten()
    }

    pub(super) fn drop_oldest<F: Frames>(&mut self, frames: &mut F) -> Checked<Option<Dropped>> {
        let Some(token) = self.oldest(Kind::Ephemeral) else {
            return Ok(None);
        };
        let block = self.blocks.expect(frames, token)?;
        ensure(matches!(block.state, State::InRam(_)))?;
        self.drop_block(frames, token, &block).map(Some)
    }

    /// Drops the oldest ephemeral block in a tier; `None` when there is none. Its slot is queued.
    pub fn drop_oldest_in_tier(&mut self, frames: &mut impl Frames) -> Option<Dropped> {
        let dropped = self.sound(frames, |shard, frames| {
            let Some(token) = shard.lists.tier_ages.oldest() else {
                return Ok(None);
            };
            let block = shard.blocks.expect(frames, token)?;
            ensure(matches!(block.state, State::InTier(_)))?;
            shard.drop_block(frames, token, &block).map(Some)
        });
        dropped.ok().flatten()
    }

    fn drop_block<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        block: &Block,
    ) -> Checked<Dropped> {
        let before = self.frames_in_use();
        // With the last page the block goes too.
        for _ in 0..block.live {
            let first = members::first(frames, &self.blocks, token)?.ok_or(Damaged::New)?;
            let entry = self.entries.expect(frames, first)?;
            self.remove_entry(frames, first, &entry)?;
            self.counters.evicted_eph_zpages += 1;
        }
        self.counters.evicted_eph_blocks += 1;
        Ok(Dropped {
            zpages: u32::from(block.live),
            // Tables give back theirs.
            frames: before - self.frames_in_use(),
        })
    }

    /// The run of the block that `begin_writeback` would hand out now.
    #[must_use]
    pub fn next_writeback(&self, frames: &impl Frames, kind: Kind) -> Option<Run> {
        let token = self.oldest(kind)?;
        let block = self.blocks.expect(frames, token).ok()?;
        Some(self.allocator.run(block.fill))
    }

    /// Hands out the oldest block of a kind to be written; `None` when there is none. Several may be in flight.
    pub fn begin_writeback(
        &mut self,
        frames: &mut impl Frames,
        kind: Kind,
    ) -> Option<WritebackPlan> {
        let plan = self.sound(frames, |shard, frames| match shard.oldest(kind) {
            Some(token) => shard.hand_out(frames, token).map(Some),
            None => Ok(None),
        });
        let plan = plan.ok().flatten();
        self.counters.writebacks_begun += u64::from(plan.is_some());
        plan
    }

    /// Takes a block out of every list, so that its bytes stay as they are.
    pub(super) fn hand_out<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
    ) -> Checked<WritebackPlan> {
        let block = self.blocks.expect(frames, token)?;
        let State::InRam(frame) = block.state else {
            return Err(Damaged::New);
        };
        self.unage(frames, token, &block)?;
        self.unbin(frames, token, &block)?;
        let out = Block {
            state: State::Writing(frame),
            cold: false,
            ..block
        };
        self.blocks.write(frames, token, &out)?;
        let run = self.allocator.run(block.fill);
        self.usage.writing_blocks += 1;
        self.usage.writing_frames += run.frames();
        Ok(WritebackPlan {
            block: token,
            generation: block.generation,
            frame,
            run,
            zpages: u32::from(block.live),
        })
    }

    /// Ends a writeback: with the slot that the tier has acknowledged the block in, or without.
    ///
    /// # Panics
    /// When the block is not being written.
    pub fn finish_writeback(
        &mut self,
        frames: &mut impl Frames,
        block: BlockToken,
        result: Result<Slot, WriteFailed>,
    ) -> WritebackEnd {
        let ended = self.end_writing(frames, block, |shard, frames, record, frame| {
            let rest;
            let record = match (record.kind, result) {
                (Kind::Ephemeral, Ok(_)) => {
                    shard.drop_words(frames, block)?;
                    rest = shard.blocks.expect(frames, block)?;
                    &rest
                }
                _ => record,
            };
            if record.live == 0 {
                return shard.finish_empty(frames, block, record, frame, result);
            }
            match result {
                Ok(slot) => shard.move_to_tier(frames, block, record, frame, slot),
                Err(WriteFailed) => shard.move_back(frames, block, record, frame),
            }
        });
        match ended {
            Ok(end) => {
                match end {
                    WritebackEnd::InTier { .. } => self.counters.writebacks_stored += 1,
                    WritebackEnd::Empty { .. } => self.counters.writebacks_empty += 1,
                    _ => self.counters.writebacks_failed += 1,
                }
                end
            }
            Err(_) => {
                self.counters.writebacks_failed += 1;
                WritebackEnd::Damaged
            }
        }
    }

    /// Runs what ends the time that a block was handed out for.
    ///
    /// # Panics
    /// When it was not handed out.
    pub(super) fn end_writing<F: Frames, T>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        mut end: impl FnMut(&mut Shard, &mut F, &Block, FrameId) -> Checked<T>,
    ) -> Checked<T> {
        let mut run_frames = None;
        let ended = self.sound(frames, |shard, frames| {
            let block = shard.blocks.expect(frames, token)?;
            let State::Writing(frame) = block.state else {
                assert!(
                    block.state == State::Dead,
                    "a block was given back that was not handed out: {block:?}"
                );
                return Err(Damaged::Known);
            };
            run_frames = Some(shard.allocator.run(block.fill).frames());
            end(shard, frames, &block, frame)
        });
        // After a repair these are counted anew, from blocks that are still being written.
        if ended.is_ok()
            && let Some(run_frames) = run_frames
        {
            self.usage.writing_blocks -= 1;
            self.usage.writing_frames -= run_frames;
        }
        ended
    }

    /// Whether [`Shard::take_freed_slot`] has something.
    #[must_use]
    pub fn has_freed_slots(&self) -> bool {
        self.lists.freed.len != 0
    }

    /// A slot that holds nothing any more, for the home to free in its tier, and the run of the block that was in it.
    pub fn take_freed_slot(&mut self, frames: &mut impl Frames) -> Option<(Slot, Run)> {
        let taken = self.sound(frames, |shard, frames| {
            let Some(token) = shard.lists.freed.oldest() else {
                return Ok(None);
            };
            let block = shard.blocks.expect(frames, token)?;
            let State::SlotFreed(slot) = block.state else {
                return Err(Damaged::New);
            };
            let freed = &mut shard.lists.freed;
            freed.remove(frames, &mut shard.blocks, AGE_LINKS, token)?;
            shard.blocks.clear(frames, token)?;
            let done = shard.blocks.free(frames, token);
            shard.given_back(done);
            Ok(Some((slot, shard.allocator.run(block.fill))))
        });
        taken.ok().flatten()
    }

    /// Drops the pages of a block that are one word over and over.
    fn drop_words<F: Frames>(&mut self, frames: &mut F, token: BlockToken) -> Checked<()> {
        let mut next = members::first(frames, &self.blocks, token)?;
        while let Some(member) = next {
            next = self.entries.member_links(frames, member)?[1];
            let entry = self.entries.expect(frames, member)?;
            if matches!(entry.content, Content::Word { .. }) {
                self.remove_entry(frames, member, &entry)?;
                self.counters.evicted_eph_zpages += 1;
            }
        }
        Ok(())
    }

    fn finish_empty<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        block: &Block,
        frame: FrameId,
        result: Result<Slot, WriteFailed>,
    ) -> Checked<WritebackEnd> {
        match result {
            Ok(slot) => {
                self.queue_slot(frames, token, block, slot)?;
                self.give_frames(frames, block, frame);
            }
            Err(WriteFailed) => self.free_frames(frames, token, block, frame)?,
        }
        Ok(WritebackEnd::Empty {
            frames: self.allocator.run(block.fill).frames(),
        })
    }

    fn move_to_tier<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        block: &Block,
        frame: FrameId,
        slot: Slot,
    ) -> Checked<WritebackEnd> {
        let mut zbytes = 0;
        for member in members::walk(frames, &self.blocks, &self.entries, token) {
            zbytes += member?.1.len as u64;
        }
        let in_tier = Block {
            state: State::InTier(slot),
            ..*block
        };
        self.bin_tier(frames, token, &in_tier)?;
        self.age_in_tier(frames, token, &in_tier)?;
        self.blocks.write(frames, token, &in_tier)?;
        let usage = self.kind_usage(block.kind);
        usage.zpages -= u32::from(block.live);
        usage.zbytes -= zbytes;
        self.usage.tier_zpages += u32::from(block.live);
        self.usage.tier_zbytes += zbytes;
        self.give_frames(frames, block, frame);
        Ok(WritebackEnd::InTier {
            frames: self.allocator.run(block.fill).frames(),
        })
    }

    fn move_back<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        block: &Block,
        frame: FrameId,
    ) -> Checked<WritebackEnd> {
        let block = Block {
            state: State::InRam(frame),
            ..*block
        };
        self.lists.ages[block.kind as usize].push(frames, &mut self.blocks, AGE_LINKS, token)?;
        self.bin(frames, token, &block)?;
        self.blocks.write(frames, token, &block)?;
        Ok(WritebackEnd::BackInRam)
    }
}
