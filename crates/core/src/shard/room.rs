//! Blocks and the zpages in them: finding room, giving it back, and the lists that blocks are in.
//!
//! Stage on the data path: under `place`.
//!
//! Invariants:
//! - a block is in the lists and bins that its record says, and in no others; where both change, the record does last, so
//!   that what ended half way is found as it was
//!
//! - an entry is a member of one block: one that moves is given room, leaves, and is attached
//!
//! Does not: know whose zpage it is, beside the entry that it is told.

use super::{Shard, TIER_BINS};
use crate::exchange::{Refused, TierRange};
use crate::frames::{FrameId, Frames, Run};
use crate::ids::{BlockToken, EntryToken, Generation, Kind, Slot};
use crate::packing::Site;
use crate::tables::block::{AGE_LINKS, BIN_LINKS, Block, Fill, State};
use crate::tables::entry::Span;
use crate::tables::{Checked, Damaged, ensure, members};

/// Room that a zpage was given.
pub(super) struct Room {
    pub(super) span: Span,
    frame: FrameId,
    run: Run,
}

impl Room {
    /// The bytes of the zpage, to be written.
    pub(super) fn bytes_mut<'f, F: Frames>(&self, frames: &'f mut F) -> &'f mut [u8] {
        &mut frames.bytes_mut(self.frame, self.run)[self.span.offset..][..self.span.len]
    }
}

impl Shard {
    /// Room for `len` bytes in the tightest block of the kind, or in a new one. The bytes are the caller's to write, and the
    /// entry is to be attached.
    pub(super) fn reserve<F: Frames>(
        &mut self,
        frames: &mut F,
        kind: Kind,
        len: usize,
    ) -> Checked<Result<Room, Refused>> {
        if let Some(room) = self.reserve_in_existing(frames, kind, len)? {
            return Ok(Ok(room));
        }
        Ok(match self.new_block(frames, kind, len)? {
            Ok(token) => Ok(self.reserve_in(frames, token, len)?),
            Err(refused) => Err(refused),
        })
    }

    /// The same, but never in a new block.
    pub(super) fn reserve_in_existing<F: Frames>(
        &mut self,
        frames: &mut F,
        kind: Kind,
        len: usize,
    ) -> Checked<Option<Room>> {
        let bins = &self.lists.bins[kind as usize];
        match bins.lowest(self.allocator.bins_for(len)) {
            Some(token) => Ok(Some(self.reserve_in(frames, token, len)?)),
            None => Ok(None),
        }
    }

    fn reserve_in<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        len: usize,
    ) -> Checked<Room> {
        let before = self.blocks.expect(frames, token)?;
        let State::InRam(frame) = before.state else {
            return Err(Damaged::New);
        };
        let mut after = before;
        let site = Site {
            block: token,
            frame,
            first: members::first(frames, &self.blocks, token)?,
        };
        let placed = self
            .allocator
            .place(frames, &mut self.entries, site, &mut after.fill, len)?;
        after.live = before.live.checked_add(1).ok_or(Damaged::New)?;
        self.blocks.write(frames, token, &after)?;
        self.rebin(frames, token, &before, &after)?;
        self.counters.compactions += u64::from(placed.compacted);
        let usage = self.kind_usage(before.kind);
        usage.zpages += 1;
        usage.zbytes += len as u64;
        Ok(Room {
            span: Span {
                block: token,
                offset: placed.offset,
                len,
            },
            frame,
            run: self.allocator.run(after.fill),
        })
    }

    /// Makes an entry that is in no block a member of the block that it was given room in.
    pub(super) fn attach<F: Frames>(
        &mut self,
        frames: &mut F,
        entry: EntryToken,
        room: &Room,
    ) -> Checked<()> {
        members::link(
            frames,
            &mut self.blocks,
            &mut self.entries,
            entry,
            room.span,
        )
    }

    /// Moves the zpage of an entry to the room that it was given, whose bytes are written.
    pub(super) fn relocate<F: Frames>(
        &mut self,
        frames: &mut F,
        entry: EntryToken,
        from: Span,
        room: &Room,
    ) -> Checked<()> {
        self.detach(frames, entry, from)?;
        let span = room.span;
        self.entries
            .set_place(frames, entry, span.block, span.offset)?;
        self.attach(frames, entry, room)
    }

    /// An empty block with room for `len` bytes.
    fn new_block<F: Frames>(
        &mut self,
        frames: &mut F,
        kind: Kind,
        len: usize,
    ) -> Checked<Result<BlockToken, Refused>> {
        let fill = self.allocator.empty(len);
        let run = self.allocator.run(fill);
        let Some(frame) = frames.alloc(run) else {
            return Ok(Err(Refused::NoFrames));
        };
        let token = match self.blocks.alloc(frames) {
            Ok(Some(token)) => token,
            other => {
                frames.free(frame, run);
                return other.map(|_| Err(Refused::NoMetadata));
            }
        };
        let block = Block {
            state: State::InRam(frame),
            kind,
            cold: false,
            aside: false,
            evacuated: false,
            live: 0,
            fill,
            generation: self.next_generation(),
        };
        self.blocks.init(frames, token, &block)?;
        self.lists.ages[kind as usize].push(frames, &mut self.blocks, AGE_LINKS, token)?;
        self.bin(frames, token, &block)?;
        self.kind_usage(kind).blocks += 1;
        self.usage.block_frames += run.frames();
        Ok(Ok(token))
    }

    fn next_generation(&mut self) -> Generation {
        self.generation = self.generation.wrapping_add(1);
        Generation(self.generation)
    }

    /// Takes a zpage out of its block, wherever that is.
    pub(super) fn detach<F: Frames>(
        &mut self,
        frames: &mut F,
        entry: EntryToken,
        span: Span,
    ) -> Checked<()> {
        let before = self.blocks.expect(frames, span.block)?;
        ensure(before.live > 0)?;
        let gap = members::unlink(
            frames,
            &mut self.blocks,
            &mut self.entries,
            entry,
            span.block,
        )?;
        let after = Block {
            live: before.live - 1,
            fill: self
                .allocator
                .remove(before.fill, span.offset, span.len, gap)?,
            ..before
        };
        self.blocks.write(frames, span.block, &after)?;
        match before.state {
            State::InRam(frame) => {
                self.rebin(frames, span.block, &before, &after)?;
                self.count_out_of_ram(before.kind, span.len);
                if after.live == 0 {
                    self.free_ram_block(frames, span.block, &after, frame)?;
                }
            }
            State::Writing(_) => self.count_out_of_ram(before.kind, span.len),
            State::InTier(slot) => {
                self.unbin_tier(frames, span.block, &before)?;
                self.usage.tier_zpages -= 1;
                self.usage.tier_zbytes -= span.len as u64;
                if after.live == 0 {
                    if after.kind == Kind::Ephemeral {
                        let ages = &mut self.lists.tier_ages;
                        ages.remove(frames, &mut self.blocks, AGE_LINKS, span.block)?;
                    }
                    self.queue_slot(frames, span.block, &after, slot)?;
                } else {
                    self.bin_tier(frames, span.block, &after)?;
                }
            }
            State::SlotFreed(_) | State::Dead => return Err(Damaged::New),
        }
        Ok(())
    }

    /// Makes a block the youngest of its kind, where it is in RAM or an ephemeral one in a tier.
    pub(super) fn refresh<F: Frames>(&mut self, frames: &mut F, token: BlockToken) -> Checked<()> {
        let block = self.blocks.expect(frames, token)?;
        if matches!(block.state, State::InTier(_)) && block.kind == Kind::Ephemeral {
            let ages = &mut self.lists.tier_ages;
            if ages.youngest() == Some(token) {
                return Ok(());
            }
            ages.remove(frames, &mut self.blocks, AGE_LINKS, token)?;
            return ages.push(frames, &mut self.blocks, AGE_LINKS, token);
        }
        let youngest = self.lists.ages[block.kind as usize].youngest();
        if !matches!(block.state, State::InRam(_)) || youngest == Some(token) {
            return Ok(());
        }
        self.unage(frames, token, &block)?;
        if block.cold {
            let block = Block {
                cold: false,
                ..block
            };
            self.blocks.write(frames, token, &block)?;
        }
        self.lists.ages[block.kind as usize].push(frames, &mut self.blocks, AGE_LINKS, token)
    }

    /// Takes a block out of its list of ages.
    pub(super) fn unage<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        block: &Block,
    ) -> Checked<()> {
        let lists = match block.cold {
            true => &mut self.lists.cold,
            false => &mut self.lists.ages,
        };
        lists[block.kind as usize].remove(frames, &mut self.blocks, AGE_LINKS, token)
    }

    /// The oldest block of a kind.
    pub(super) fn oldest(&self, kind: Kind) -> Option<BlockToken> {
        let cold = self.lists.cold[kind as usize].oldest();
        cold.or(self.lists.ages[kind as usize].oldest())
    }

    /// Frees an empty block that is in the lists of RAM.
    pub(super) fn free_ram_block<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        block: &Block,
        frame: FrameId,
    ) -> Checked<()> {
        self.unage(frames, token, block)?;
        self.unbin(frames, token, block)?;
        self.free_frames(frames, token, block, frame)
    }

    /// Frees an empty block that is in no list of RAM any more, and its frames.
    pub(super) fn free_frames<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        block: &Block,
        frame: FrameId,
    ) -> Checked<()> {
        self.blocks.clear(frames, token)?;
        self.give_frames(frames, block, frame);
        let done = self.blocks.free(frames, token);
        self.given_back(done);
        Ok(())
    }

    /// Gives the frames of a block back whose record is free or says so.
    pub(super) fn give_frames<F: Frames>(&mut self, frames: &mut F, block: &Block, frame: FrameId) {
        let run = self.allocator.run(block.fill);
        frames.free(frame, run);
        self.kind_usage(block.kind).blocks -= 1;
        self.usage.block_frames -= run.frames();
    }

    pub(super) fn count_out_of_ram(&mut self, kind: Kind, len: usize) {
        let usage = self.kind_usage(kind);
        usage.zpages -= 1;
        usage.zbytes -= len as u64;
    }

    pub(super) fn bin<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        block: &Block,
    ) -> Checked<()> {
        let Some(bin) = self.allocator.bin_of(block.fill) else {
            return Ok(());
        };
        let free = self.allocator.free_bytes(block.fill);
        self.lists.bins[block.kind as usize].add(frames, &mut self.blocks, bin, token, free)
    }

    pub(super) fn unbin<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        block: &Block,
    ) -> Checked<()> {
        let Some(bin) = self.allocator.bin_of(block.fill) else {
            return Ok(());
        };
        let free = self.allocator.free_bytes(block.fill);
        self.lists.bins[block.kind as usize].remove(frames, &mut self.blocks, bin, token, free)
    }

    fn rebin<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        before: &Block,
        after: &Block,
    ) -> Checked<()> {
        self.unbin(frames, token, before)?;
        self.bin(frames, token, after)
    }

    /// Puts a block in a tier among those to be read back, or aside. Ephemeral ones go without having been read.
    pub(super) fn bin_tier<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        block: &Block,
    ) -> Checked<()> {
        if block.kind == Kind::Ephemeral {
            return Ok(());
        }
        if block.aside {
            return self
                .lists
                .aside
                .push(frames, &mut self.blocks, BIN_LINKS, token);
        }
        let free = self.allocator.free_bytes(block.fill);
        let bin = self.tier_bin(block.fill);
        self.lists
            .tier_bins
            .add(frames, &mut self.blocks, bin, token, free)
    }

    /// Makes a block that has come to a tier the youngest there, if it may be dropped from there.
    pub(super) fn age_in_tier<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        block: &Block,
    ) -> Checked<()> {
        match block.kind {
            Kind::Persistent => Ok(()),
            Kind::Ephemeral => {
                let ages = &mut self.lists.tier_ages;
                ages.push(frames, &mut self.blocks, AGE_LINKS, token)
            }
        }
    }

    pub(super) fn unbin_tier<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        block: &Block,
    ) -> Checked<()> {
        if block.kind == Kind::Ephemeral {
            return Ok(());
        }
        if block.aside {
            return self
                .lists
                .aside
                .remove(frames, &mut self.blocks, BIN_LINKS, token);
        }
        let free = self.allocator.free_bytes(block.fill);
        let bin = self.tier_bin(block.fill);
        self.lists
            .tier_bins
            .remove(frames, &mut self.blocks, bin, token, free)
    }

    /// The bin of a block in a tier: the highest are the emptiest.
    pub(super) fn tier_bin(&self, fill: Fill) -> usize {
        let free = self.allocator.free_bytes(fill) as usize;
        free * (TIER_BINS - 1) / self.allocator.run(fill).bytes()
    }

    /// Queues the slot of an empty block for the home; the block record is the queue's link.
    pub(super) fn queue_slot<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        block: &Block,
        slot: Slot,
    ) -> Checked<()> {
        let block = Block {
            state: State::SlotFreed(slot),
            ..*block
        };
        self.lists
            .freed
            .push(frames, &mut self.blocks, AGE_LINKS, token)?;
        self.blocks.write(frames, token, &block)?;
        self.counters.slots_freed += 1;
        Ok(())
    }
}

/// Where in a tier a span lies, given its block and slot.
pub(super) fn tier_range(span: Span, generation: Generation, slot: Slot) -> TierRange {
    TierRange {
        block: span.block,
        generation,
        slot,
        offset_bytes: span.offset as u32,
        len_bytes: span.len as u32,
    }
}
