//! Blocks that live in a tier, and their way back.
//!
//! Stage on the data path: after writeback. Zpages of a block in a tier are freed by their records alone; the slot is
//! queued with the last. Where many blocks are sparse, the home reads the sparsest whole and readmits what is alive.
//!
//! Invariants:
//! - bytes from a tier are looked at only to find entries, and an entry is believed only if it names the same place
//!
//! Does not: verify checksums. A zpage damaged in the tier moves as it is and is found out when it is loaded.

use super::{Shard, TIER_BINS};
use crate::block::{Block, State};
use crate::entry::Span;
use crate::frames::Frames;
use crate::ids::{BlockToken, EntryToken, LiveZpage, Refused, TierBlock};
use crate::packing::Fill;

impl Shard {
    /// A block in a tier with about the least live bytes (to a sixty-fourth of a block); `None` when there is none.
    pub fn sparsest_tier_block(&self, frames: &impl Frames) -> Option<TierBlock> {
        let token = self.tier_bins.highest(0..TIER_BINS)?;
        let block = self.blocks.expect(frames, token);
        let State::InTier(slot) = block.state else {
            panic!("tier bins hold blocks in a tier only")
        };
        Some(TierBlock {
            block: BlockToken(token),
            slot,
            run: self.allocator.run(block.fill),
            zpages: u32::from(block.live),
            used_bytes: self.allocator.used_bytes(block.fill),
        })
    }

    /// The live zpages of a block, found by walking its bytes: those the home has read from a tier, or those of a
    /// writeback under way. Of bytes that are not the block's, nothing is alive.
    pub fn live_zpages<'a, F: Frames>(
        &'a self,
        frames: &'a F,
        block: BlockToken,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = LiveZpage> + 'a {
        let block_now = self.blocks.read(frames, block.0);
        block_now
            .into_iter()
            .flat_map(move |now| self.walk_live(frames, block.0, now.fill, bytes))
    }

    /// Moves the live zpages of a block in a tier into RAM again, from its bytes as the home has read them, and queues
    /// its slot. How many were moved: 0 when the block has left the slot meanwhile, fewer than all where bytes are
    /// damaged; the others stay in the tier.
    ///
    /// # Errors
    /// Why one of them could not be placed; those before it stay moved, the others stay in the tier.
    pub fn readmit(
        &mut self,
        frames: &mut impl Frames,
        from: &TierBlock,
        bytes: &[u8],
    ) -> Result<u32, Refused> {
        let token = from.block.0;
        let Some(block) = self.blocks.read(frames, token) else {
            return Ok(0);
        };
        if block.state != State::InTier(from.slot) {
            return Ok(0);
        }
        let (mut cursor, mut moved) = (0, 0);
        while moved < u32::from(block.live) {
            let Some((candidate, next)) = self.allocator.walk(block.fill, bytes, cursor) else {
                break;
            };
            cursor = next;
            if let Some(len) = self
                .entries
                .len_at(frames, candidate.entry, token, candidate.offset)
                && let Some(zpage) = bytes.get(candidate.offset..candidate.offset + len)
            {
                let span = Span {
                    block: token,
                    offset: candidate.offset,
                    len,
                };
                self.readmit_one(frames, &block, candidate.entry, span, zpage)?;
                moved += 1;
            }
        }
        self.counters.readmitted_blocks += u64::from(moved == u32::from(block.live));
        Ok(moved)
    }

    fn readmit_one<F: Frames>(
        &mut self,
        frames: &mut F,
        from: &Block,
        entry: u32,
        span: Span,
        zpage: &[u8],
    ) -> Result<(), Refused> {
        let room = self.place(frames, from.kind, entry, span.len)?;
        room.bytes_mut(frames).copy_from_slice(zpage);
        self.entries
            .set_place(frames, entry, room.span.block, room.span.offset);
        self.detach(frames, span);
        self.counters.readmitted_zpages += 1;
        Ok(())
    }

    /// The live zpages of a block with this fill among its bytes.
    pub(super) fn walk_live<'a, F: Frames>(
        &'a self,
        frames: &'a F,
        token: u32,
        fill: Fill,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = LiveZpage> + 'a {
        let mut cursor = 0;
        core::iter::from_fn(move || {
            loop {
                let (candidate, next) = self.allocator.walk(fill, bytes, cursor)?;
                cursor = next;
                if let Some(len) =
                    self.entries
                        .len_at(frames, candidate.entry, token, candidate.offset)
                {
                    return Some(LiveZpage {
                        entry: EntryToken(candidate.entry),
                        offset_bytes: candidate.offset as u32,
                        len_bytes: len as u32,
                    });
                }
            }
        })
    }
}
