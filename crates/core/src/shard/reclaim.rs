//! Reclaim: when, and which block goes next.
//!
//! Stage on the data path: after a block has aged, before the tier. The core plans and the home acts: `begin_writeback`
//! hands out the oldest persistent block, the home writes its bytes without the lock, `finish_writeback` frees the
//! frames once the tier has acknowledged them. Ephemeral blocks are dropped whole.
//!
//! Invariants:
//! - a persistent zpage leaves RAM only in `finish_writeback(Ok)`
//! - no byte of a block changes between its `begin_writeback` and its `finish_writeback`
//! - reclaim begins above the high watermark and ends at the low one
//!
//! Does not: bound the writes in flight; the home does.

use super::Shard;
use crate::block::{AGE_LINKS, Block, State};
use crate::frames::{FrameId, Frames, Run};
use crate::ids::{
    BlockToken, Dropped, Kind, NONE, Slot, Watermarks, WriteFailed, WritebackEnd, WritebackPlan,
};

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
        let token = self.oldest(Kind::Ephemeral);
        if token == NONE {
            return None;
        }
        let block = self.blocks.expect(frames, token);
        let State::InRam(frame) = block.state else {
            panic!("the LRU holds blocks in RAM only")
        };
        let zpages = self.remove_all(frames, token, &block, frame);
        self.counters.evicted_eph_blocks += 1;
        self.counters.evicted_eph_zpages += u64::from(zpages);
        Some(Dropped {
            zpages,
            frames: self.allocator.run(block.fill).frames(),
        })
    }

    /// The run of the block that `begin_writeback` would hand out now.
    #[must_use]
    pub fn next_writeback(&self, frames: &impl Frames) -> Option<Run> {
        let token = self.oldest(Kind::Persistent);
        (token != NONE).then(|| self.allocator.run(self.blocks.expect(frames, token).fill))
    }

    /// Hands out the oldest persistent block to be written; `None` when there is none. Several may be in flight.
    pub fn begin_writeback(&mut self, frames: &mut impl Frames) -> Option<WritebackPlan> {
        let token = self.oldest(Kind::Persistent);
        if token == NONE {
            return None;
        }
        self.counters.writebacks_begun += 1;
        Some(self.hand_out(frames, token))
    }

    /// Takes a block out of every list, so that its bytes stay as they are.
    pub(super) fn hand_out<F: Frames>(&mut self, frames: &mut F, token: u32) -> WritebackPlan {
        let block = self.blocks.expect(frames, token);
        let State::InRam(frame) = block.state else {
            panic!("the LRU holds blocks in RAM only")
        };
        self.unage(frames, token, &block);
        self.unbin(frames, token, &block);
        self.blocks.write(
            frames,
            token,
            &Block {
                state: State::Writing(frame),
                cold: false,
                ..block
            },
        );
        let run = self.allocator.run(block.fill);
        self.usage.writing_blocks += 1;
        self.usage.writing_frames += run.frames();
        WritebackPlan {
            block: BlockToken(token),
            frame,
            run,
            zpages: u32::from(block.live),
        }
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
        let token = block.0;
        let block = self.blocks.read(frames, token);
        let Some(
            block @ Block {
                state: State::Writing(frame),
                ..
            },
        ) = block
        else {
            panic!("finish_writeback without begin_writeback: {block:?}")
        };
        let run_frames = self.allocator.run(block.fill).frames();
        self.usage.writing_blocks -= 1;
        self.usage.writing_frames -= run_frames;
        if block.live == 0 {
            self.finish_empty(frames, token, &block, frame, result);
            return WritebackEnd::Empty { frames: run_frames };
        }
        match result {
            Ok(slot) => {
                self.move_to_tier(frames, token, &block, frame, slot);
                WritebackEnd::InTier { frames: run_frames }
            }
            Err(WriteFailed) => {
                let block = Block {
                    state: State::InRam(frame),
                    ..block
                };
                self.blocks.write(frames, token, &block);
                self.ages[block.kind as usize].push(frames, &mut self.blocks, AGE_LINKS, token);
                self.bin(frames, token, &block);
                self.counters.writebacks_failed += 1;
                WritebackEnd::BackInRam
            }
        }
    }

    /// Whether [`Shard::take_freed_slot`] has something.
    #[must_use]
    pub fn has_freed_slots(&self) -> bool {
        self.freed.len != 0
    }

    /// A slot that holds nothing any more, for the home to free in its tier, and the run of the block that was in it.
    pub fn take_freed_slot(&mut self, frames: &mut impl Frames) -> Option<(Slot, Run)> {
        let token = self.freed.head;
        if token == NONE {
            return None;
        }
        let block = self.blocks.expect(frames, token);
        let State::SlotFreed(slot) = block.state else {
            panic!("the queue holds freed slots only")
        };
        self.freed
            .remove(frames, &mut self.blocks, AGE_LINKS, token);
        self.blocks.release(frames, token);
        Some((slot, self.allocator.run(block.fill)))
    }

    fn finish_empty<F: Frames>(
        &mut self,
        frames: &mut F,
        token: u32,
        block: &Block,
        frame: FrameId,
        result: Result<Slot, WriteFailed>,
    ) {
        self.free_frames(frames, block, frame);
        self.counters.writebacks_empty += 1;
        match result {
            Ok(slot) => self.queue_slot(frames, token, block, slot),
            Err(WriteFailed) => self.blocks.release(frames, token),
        }
    }

    fn move_to_tier<F: Frames>(
        &mut self,
        frames: &mut F,
        token: u32,
        block: &Block,
        frame: FrameId,
        slot: Slot,
    ) {
        let zbytes = self.live_bytes(frames, token, block, frame);
        let usage = self.kind_usage(block.kind);
        usage.zpages -= u32::from(block.live);
        usage.zbytes -= zbytes;
        self.usage.tier_zpages += u32::from(block.live);
        self.usage.tier_zbytes += zbytes;
        self.free_frames(frames, block, frame);
        let block = Block {
            state: State::InTier(slot),
            ..*block
        };
        self.blocks.write(frames, token, &block);
        self.bin_tier(frames, token, &block);
        self.counters.writebacks_stored += 1;
    }

    /// Bytes of the live zpages of a block in RAM.
    pub(super) fn live_bytes<F: Frames>(
        &self,
        frames: &F,
        token: u32,
        block: &Block,
        frame: FrameId,
    ) -> u64 {
        let bytes = frames.bytes(frame, self.allocator.run(block.fill));
        self.walk_live(frames, token, block.fill, bytes)
            .map(|live| u64::from(live.len_bytes))
            .sum()
    }

    /// Removes every page of a block in RAM, and so the block; how many there were.
    fn remove_all<F: Frames>(
        &mut self,
        frames: &mut F,
        token: u32,
        block: &Block,
        frame: FrameId,
    ) -> u32 {
        let (mut cursor, mut removed) = (0, 0);
        // With the last page the frames go too, so the count and not the walk ends the loop.
        while removed < u32::from(block.live) {
            let bytes = frames.bytes(frame, self.allocator.run(block.fill));
            let (candidate, next) = self
                .allocator
                .walk(block.fill, bytes, cursor)
                .expect("the walk finds every live zpage");
            cursor = next;
            if self
                .entries
                .len_at(frames, candidate.entry, token, candidate.offset)
                .is_some()
            {
                let entry = self
                    .entries
                    .read(frames, candidate.entry)
                    .expect("a live zpage has an entry");
                self.remove_entry(frames, candidate.entry, &entry);
                removed += 1;
            }
        }
        removed
    }
}
