//! Blocks that live in a tier, and their way back.
//!
//! Stage on the data path: after writeback. Zpages of a block in a tier are freed by their records alone; the slot is
//! queued with the last. Where many blocks are sparse, the home reads the sparsest whole, verifies its zpages and readmits
//! the good ones. A block that it cannot read is put aside, so that the next is another.
//!
//! Invariants:
//! - bytes from a tier are not looked at: what lies where is said by the entries
//!
//! Does not: verify checksums; the home does, and says which zpages are good.

use super::{Shard, TIER_BINS};
use crate::exchange::{LiveZpage, Refused, TierBlock};
use crate::frames::Frames;
use crate::ids::{BlockToken, Kind};
use crate::tables::block::{Block, State};
use crate::tables::entry::{Content, Entry, Span};
use crate::tables::{Checked, members};

impl Shard {
    /// A persistent block in a tier with about the least live bytes (to a sixty-fourth of a block), of those that were not put
    /// aside; `None` when there is none.
    pub fn sparsest_tier_block(&self, frames: &impl Frames) -> Option<TierBlock> {
        let token = self.lists.tier_bins.highest(0..TIER_BINS)?;
        let block = self.blocks.expect(frames, token).ok()?;
        let State::InTier(slot) = block.state else {
            return None;
        };
        Some(TierBlock {
            block: token,
            generation: block.generation,
            slot,
            run: self.allocator.run(block.fill),
            zpages: u32::from(block.live),
            used_bytes: self.allocator.used_bytes(block.fill),
        })
    }

    /// The live zpages of a block in rising order, wherever it is.
    pub fn live_zpages<'a, F: Frames>(
        &'a self,
        frames: &'a F,
        block: BlockToken,
    ) -> impl Iterator<Item = LiveZpage> + 'a {
        let members = members::walk(frames, &self.blocks, &self.entries, block);
        members.map_while(move |member| {
            let (token, span) = member.ok()?;
            let tags = match self.entries.expect(frames, token).ok()?.content {
                Content::Bytes {
                    codec, checksum, ..
                } => Some((codec, checksum)),
                _ => None,
            };
            Some(LiveZpage {
                entry: token,
                offset_bytes: span.offset as u32,
                len_bytes: span.len as u32,
                tags,
            })
        })
    }

    /// Moves the live zpages of a block in a tier into RAM again, from its bytes as the home has read them, and queues
    /// its slot. How many were moved: 0 when the block has left the slot meanwhile.
    ///
    /// # Errors
    /// Why one of them could not be placed; those before it stay moved, the others stay in the tier.
    pub fn readmit(
        &mut self,
        frames: &mut impl Frames,
        from: &TierBlock,
        bytes: &[u8],
    ) -> Result<u32, Refused> {
        self.readmit_good(frames, from, bytes, |_| true)
    }

    /// The same for the zpages that `is_good` says yes to; the others stay in the tier.
    ///
    /// # Errors
    /// As [`Shard::readmit`].
    pub fn readmit_good(
        &mut self,
        frames: &mut impl Frames,
        from: &TierBlock,
        bytes: &[u8],
        mut is_good: impl FnMut(&LiveZpage) -> bool,
    ) -> Result<u32, Refused> {
        let mut moved = 0;
        let result = self.sound(frames, |shard, frames| {
            let Some(block) = shard.tier_block(frames, from)? else {
                return Ok(Ok(()));
            };
            let mut next = members::first(frames, &shard.blocks, from.block)?;
            while let Some(token) = next {
                let entry = shard.entries.expect(frames, token)?;
                let span = shard.entries.span_in(frames, token, from.block)?;
                // With the last zpage the block goes, and the links with the zpage.
                next = shard.entries.member_links(frames, token)?[1];
                let zpage = bytes.get(span.offset..span.end());
                let Some(zpage) = zpage.filter(|_| is_good(&live(token, span, &entry))) else {
                    continue;
                };
                if let Err(refused) = shard.readmit_one(frames, &block, token, span, zpage)? {
                    return Ok(Err(refused));
                }
                moved += 1;
            }
            shard.counters.readmitted_blocks += 1;
            Ok(Ok(()))
        });
        match result {
            Ok(Ok(())) => Ok(moved),
            Ok(Err(refused)) => Err(refused),
            Err(_) => Err(Refused::Damaged),
        }
    }

    /// Takes a block that could not be read out of those that `sparsest_tier_block` finds, until [`Shard::retry_aside`].
    /// Its pages are read and freed as before.
    pub fn put_aside(&mut self, frames: &mut impl Frames, block: &TierBlock) {
        // A block that is damaged is in no bin any more.
        let _ = self.sound(frames, |shard, frames| {
            let Some(now) = shard.tier_block(frames, block)? else {
                return Ok(());
            };
            if now.aside || now.kind == Kind::Ephemeral {
                return Ok(());
            }
            shard.unbin_tier(frames, block.block, &now)?;
            let aside = Block { aside: true, ..now };
            shard.blocks.write(frames, block.block, &aside)?;
            shard.bin_tier(frames, block.block, &aside)
        });
    }

    /// Has blocks that were put aside be found again.
    pub fn retry_aside(&mut self, frames: &mut impl Frames) {
        // What is damaged is made good by the repair, which leaves none aside.
        let _ = self.sound(frames, |shard, frames| {
            while let Some(token) = shard.lists.aside.oldest() {
                let block = shard.blocks.expect(frames, token)?;
                shard.unbin_tier(frames, token, &block)?;
                let back = Block {
                    aside: false,
                    ..block
                };
                shard.blocks.write(frames, token, &back)?;
                shard.bin_tier(frames, token, &back)?;
            }
            Ok(())
        });
    }

    fn tier_block<F: Frames>(&self, frames: &F, block: &TierBlock) -> Checked<Option<Block>> {
        let now = self.blocks.read(frames, block.block)?;
        Ok(now.filter(|now| {
            now.generation == block.generation && now.state == State::InTier(block.slot)
        }))
    }

    fn readmit_one<F: Frames>(
        &mut self,
        frames: &mut F,
        from: &Block,
        entry: crate::ids::EntryToken,
        span: Span,
        zpage: &[u8],
    ) -> Checked<Result<(), Refused>> {
        let room = match self.reserve(frames, from.kind, span.len)? {
            Ok(room) => room,
            Err(refused) => return Ok(Err(refused)),
        };
        room.bytes_mut(frames).copy_from_slice(zpage);
        self.relocate(frames, entry, span, &room)?;
        self.counters.readmitted_zpages += 1;
        Ok(Ok(()))
    }
}

fn live(entry: crate::ids::EntryToken, span: Span, content: &Entry) -> LiveZpage {
    LiveZpage {
        entry,
        offset_bytes: span.offset as u32,
        len_bytes: span.len as u32,
        tags: match content.content {
            Content::Bytes {
                codec, checksum, ..
            } => Some((codec, checksum)),
            _ => None,
        },
    }
}
