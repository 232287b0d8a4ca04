//! Storing and freeing a page: what both addressing modes share.
//!
//! Stage on the data path: after the codec, before reclaim. A store takes, in this order, an entry, an object and a
//! place in a block; each can fail, and then what was taken before is given back. When it fails for want of frames the
//! oldest ephemeral blocks are dropped, at most [`DROPS_PER_PUT_MAX`] of them, and it is tried again.
//!
//! Invariants:
//! - a store that fails leaves no trace but its counters, the blocks it dropped, and frames that tables keep
//! - a persistent block is never dropped here
//!
//! Does not: free anything in a block that is being written or in a tier other than by its records.

use super::{Shard, TIER_BINS};
use crate::block::{AGE_LINKS, Block, State};
use crate::entry::{Content, Entry, Span};
use crate::frames::{FrameId, Frames, Run};
use crate::ids::{
    BlockToken, Found, Key, Kind, NONE, Refused, Slot, TierRange, ZPAGE_LEN_MAX, Zpage,
};
use crate::packing::{Fill, Site};

/// Ephemeral blocks that one put may drop to find room.
const DROPS_PER_PUT_MAX: u32 = 8;

/// How a page is addressed.
#[derive(Clone, Copy)]
pub(super) enum Owner<'k> {
    Handle,
    Key(&'k Key),
}

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

impl Owner<'_> {
    fn kind(self) -> Kind {
        match self {
            Owner::Handle => Kind::Persistent,
            Owner::Key(key) => key.pool.kind(),
        }
    }
}

impl Shard {
    /// Stores a page and counts the attempt. The key has no page yet.
    pub(super) fn store<F: Frames>(
        &mut self,
        frames: &mut F,
        owner: Owner<'_>,
        page: Zpage<'_>,
    ) -> Result<u32, Refused> {
        self.counters.puts += 1;
        let result = check_len(page).and_then(|()| self.store_dropping(frames, owner, page));
        match result {
            Ok(_) => self.counters.stored += 1,
            Err(Refused::NoFrames) => self.counters.rejected_no_frames += 1,
            Err(Refused::NoMetadata) => self.counters.rejected_no_metadata += 1,
            Err(Refused::Length { .. }) => self.counters.rejected_length += 1,
        }
        result
    }

    fn store_dropping<F: Frames>(
        &mut self,
        frames: &mut F,
        owner: Owner<'_>,
        page: Zpage<'_>,
    ) -> Result<u32, Refused> {
        for _ in 0..DROPS_PER_PUT_MAX {
            let result = self.try_store(frames, owner, page);
            if result.is_ok() || self.drop_oldest_ephemeral(frames).is_none() {
                return result;
            }
            if owner.kind() == Kind::Persistent {
                self.counters.pers_ate_eph += 1;
            }
        }
        let result = self.try_store(frames, owner, page);
        if result.is_err() {
            self.counters.drop_bound_reached += 1;
        }
        result
    }

    fn try_store<F: Frames>(
        &mut self,
        frames: &mut F,
        owner: Owner<'_>,
        page: Zpage<'_>,
    ) -> Result<u32, Refused> {
        let token = self.entries.alloc(frames).ok_or(Refused::NoMetadata)?;
        let object = match owner {
            Owner::Handle => Some(NONE),
            Owner::Key(key) => self.object_for(frames, key),
        };
        let Some(object) = object else {
            self.entries.release(frames, token);
            return Err(Refused::NoMetadata);
        };
        match self.place_content(frames, owner.kind(), token, page) {
            Ok(content) => {
                self.commit(frames, owner, token, object, content);
                Ok(token)
            }
            Err(refused) => {
                if object != NONE {
                    self.free_object_if_empty(frames, object);
                }
                self.entries.release(frames, token);
                Err(refused)
            }
        }
    }

    fn place_content<F: Frames>(
        &mut self,
        frames: &mut F,
        kind: Kind,
        token: u32,
        page: Zpage<'_>,
    ) -> Result<Content, Refused> {
        match page {
            Zpage::Same { word } => Ok(Content::Same { word }),
            Zpage::Bytes {
                bytes,
                codec,
                checksum,
            } => {
                let room = self.place(frames, kind, token, bytes.len())?;
                room.bytes_mut(frames).copy_from_slice(bytes);
                self.refresh(frames, room.span.block);
                Ok(Content::Bytes {
                    span: room.span,
                    codec,
                    checksum,
                })
            }
        }
    }

    /// Nothing fails from here on.
    fn commit<F: Frames>(
        &mut self,
        frames: &mut F,
        owner: Owner<'_>,
        token: u32,
        object: u32,
        content: Content,
    ) {
        let (link, index) = match owner {
            Owner::Handle => (1, 0),
            Owner::Key(key) => (NONE, key.index),
        };
        self.entries.write(
            frames,
            token,
            &Entry {
                link,
                object,
                index,
                content,
            },
        );
        match owner {
            Owner::Handle => self.usage.handle_pages += 1,
            Owner::Key(_) => {
                self.objects.add_page(frames, object, index);
                if !self.page_index.insert(frames, &mut self.entries, token) {
                    self.counters.index_growth_failed += 1;
                }
                self.usage.tmem_pages += 1;
            }
        }
        self.usage.entries += 1;
        match content {
            Content::Same { .. } => self.usage.same_filled_pages += 1,
            Content::Bytes { codec, .. } => self.codec_zpages[usize::from(codec.get())] += 1,
        }
    }

    /// Frees a page that is in use, with all that goes with it. The caller counts the event.
    pub(super) fn remove_entry<F: Frames>(&mut self, frames: &mut F, token: u32, entry: &Entry) {
        if entry.is_handle() {
            self.usage.handle_pages -= 1;
        } else {
            self.page_index.remove(frames, &mut self.entries, token);
            self.objects.remove_page(frames, entry.object);
            self.free_object_if_empty(frames, entry.object);
            self.usage.tmem_pages -= 1;
        }
        match entry.content {
            Content::Same { .. } => self.usage.same_filled_pages -= 1,
            Content::Bytes { span, codec, .. } => {
                self.codec_zpages[usize::from(codec.get())] -= 1;
                self.detach(frames, span);
            }
        }
        self.usage.entries -= 1;
        self.entries.release(frames, token);
    }

    /// Where an entry's page is.
    pub(super) fn found<'f, F: Frames>(&self, frames: &'f F, entry: &Entry) -> Found<'f> {
        let (span, codec, checksum) = match entry.content {
            Content::Same { word } => return Found::Same { word },
            Content::Bytes {
                span,
                codec,
                checksum,
            } => (span, codec, checksum),
        };
        let block = self.blocks.expect(frames, span.block);
        match block.state {
            State::InRam(frame) | State::Writing(frame) => {
                let bytes = &frames.bytes(frame, self.allocator.run(block.fill))
                    [span.offset..span.offset + span.len];
                Found::InRam {
                    bytes,
                    codec,
                    checksum,
                }
            }
            State::InTier(slot) | State::SlotFreed(slot) => Found::InTier {
                at: tier_range(span, slot),
                codec,
                checksum,
            },
        }
    }

    /// Room for `len` bytes in the tightest block of the kind, or in a new one; the bytes are the caller's to write.
    pub(super) fn place<F: Frames>(
        &mut self,
        frames: &mut F,
        kind: Kind,
        entry: u32,
        len: usize,
    ) -> Result<Room, Refused> {
        match self.place_in_existing(frames, kind, entry, len) {
            Some(placed) => Ok(placed),
            None => {
                let token = self.new_block(frames, kind, len)?;
                Ok(self.place_in(frames, token, entry, len))
            }
        }
    }

    /// The same, but never in a new block.
    pub(super) fn place_in_existing<F: Frames>(
        &mut self,
        frames: &mut F,
        kind: Kind,
        entry: u32,
        len: usize,
    ) -> Option<Room> {
        let token = self.bins[kind as usize].lowest(self.allocator.bins_for(len))?;
        Some(self.place_in(frames, token, entry, len))
    }

    fn place_in<F: Frames>(&mut self, frames: &mut F, token: u32, entry: u32, len: usize) -> Room {
        let before = self.blocks.expect(frames, token);
        let State::InRam(frame) = before.state else {
            panic!("bins hold blocks in RAM only")
        };
        let mut after = before;
        let site = Site {
            block: token,
            frame,
        };
        let placed =
            self.allocator
                .place(frames, &mut self.entries, site, &mut after.fill, entry, len);
        after.live += 1;
        self.blocks.write(frames, token, &after);
        self.rebin(frames, token, &before, &after);
        self.counters.compactions += u64::from(placed.compacted);
        let usage = self.kind_usage(before.kind);
        usage.zpages += 1;
        usage.zbytes += len as u64;
        Room {
            span: Span {
                block: token,
                offset: placed.offset,
                len,
            },
            frame,
            run: self.allocator.run(after.fill),
        }
    }

    /// An empty block with room for `len` bytes.
    fn new_block<F: Frames>(
        &mut self,
        frames: &mut F,
        kind: Kind,
        len: usize,
    ) -> Result<u32, Refused> {
        let fill = self.allocator.empty(len);
        let run = self.allocator.run(fill);
        let frame = frames.alloc(run).ok_or(Refused::NoFrames)?;
        let Some(token) = self.blocks.alloc(frames) else {
            frames.free(frame, run);
            return Err(Refused::NoMetadata);
        };
        let block = Block {
            state: State::InRam(frame),
            kind,
            cold: false,
            live: 0,
            fill,
        };
        self.blocks.write(frames, token, &block);
        self.ages[kind as usize].push(frames, &mut self.blocks, AGE_LINKS, token);
        self.bin(frames, token, &block);
        self.kind_usage(kind).blocks += 1;
        self.usage.block_frames += run.frames();
        Ok(token)
    }

    /// Takes a zpage out of its block, wherever that is.
    pub(super) fn detach<F: Frames>(&mut self, frames: &mut F, span: Span) {
        let before = self.blocks.expect(frames, span.block);
        let mut after = before;
        self.allocator
            .remove(&mut after.fill, span.offset, span.len);
        after.live -= 1;
        self.blocks.write(frames, span.block, &after);
        match before.state {
            State::InRam(frame) => {
                self.rebin(frames, span.block, &before, &after);
                self.count_out_of_ram(before.kind, span.len);
                if after.live == 0 {
                    self.free_ram_block(frames, span.block, &after, frame);
                }
            }
            State::Writing(_) => self.count_out_of_ram(before.kind, span.len),
            State::InTier(slot) => {
                self.rebin_tier(frames, span.block, &before, &after);
                self.usage.tier_zpages -= 1;
                self.usage.tier_zbytes -= span.len as u64;
                if after.live == 0 {
                    self.unbin_tier(frames, span.block, &after);
                    self.queue_slot(frames, span.block, &after, slot);
                }
            }
            State::SlotFreed(_) => panic!("a freed slot holds no zpage"),
        }
    }

    /// Makes a block the youngest of its kind, where it is in RAM.
    pub(super) fn refresh<F: Frames>(&mut self, frames: &mut F, token: u32) {
        let block = self.blocks.expect(frames, token);
        if !matches!(block.state, State::InRam(_)) || self.ages[block.kind as usize].tail == token {
            return;
        }
        self.unage(frames, token, &block);
        if block.cold {
            let block = Block {
                cold: false,
                ..block
            };
            self.blocks.write(frames, token, &block);
        }
        self.ages[block.kind as usize].push(frames, &mut self.blocks, AGE_LINKS, token);
    }

    /// Frees an empty block that is in the lists of RAM.
    pub(super) fn free_ram_block<F: Frames>(
        &mut self,
        frames: &mut F,
        token: u32,
        block: &Block,
        frame: FrameId,
    ) {
        self.unage(frames, token, block);
        self.unbin(frames, token, block);
        self.free_frames(frames, block, frame);
        self.blocks.release(frames, token);
    }

    /// Frees the frames of a block that is in no list of RAM any more.
    pub(super) fn free_frames<F: Frames>(&mut self, frames: &mut F, block: &Block, frame: FrameId) {
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

    pub(super) fn bin<F: Frames>(&mut self, frames: &mut F, token: u32, block: &Block) {
        if let Some(bin) = self.allocator.bin_of(block.fill) {
            let free = self.allocator.free_bytes(block.fill);
            self.bins[block.kind as usize].add(frames, &mut self.blocks, bin, token, free);
        }
    }

    pub(super) fn unbin<F: Frames>(&mut self, frames: &mut F, token: u32, block: &Block) {
        if let Some(bin) = self.allocator.bin_of(block.fill) {
            let free = self.allocator.free_bytes(block.fill);
            self.bins[block.kind as usize].remove(frames, &mut self.blocks, bin, token, free);
        }
    }

    fn rebin<F: Frames>(&mut self, frames: &mut F, token: u32, before: &Block, after: &Block) {
        self.unbin(frames, token, before);
        self.bin(frames, token, after);
    }

    pub(super) fn bin_tier<F: Frames>(&mut self, frames: &mut F, token: u32, block: &Block) {
        let free = self.allocator.free_bytes(block.fill);
        let bin = self.tier_bin(block.fill);
        self.tier_bins
            .add(frames, &mut self.blocks, bin, token, free);
    }

    pub(super) fn unbin_tier<F: Frames>(&mut self, frames: &mut F, token: u32, block: &Block) {
        let free = self.allocator.free_bytes(block.fill);
        let bin = self.tier_bin(block.fill);
        self.tier_bins
            .remove(frames, &mut self.blocks, bin, token, free);
    }

    fn rebin_tier<F: Frames>(&mut self, frames: &mut F, token: u32, before: &Block, after: &Block) {
        self.unbin_tier(frames, token, before);
        self.bin_tier(frames, token, after);
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
        token: u32,
        block: &Block,
        slot: Slot,
    ) {
        self.blocks.write(
            frames,
            token,
            &Block {
                state: State::SlotFreed(slot),
                ..*block
            },
        );
        self.freed.push(frames, &mut self.blocks, AGE_LINKS, token);
        self.counters.slots_freed += 1;
    }
}

/// Where in a tier a span lies, given its block's slot.
pub(super) fn tier_range(span: Span, slot: Slot) -> TierRange {
    TierRange {
        block: BlockToken(span.block),
        slot,
        offset_bytes: span.offset as u32,
        len_bytes: span.len as u32,
    }
}

fn check_len(page: Zpage<'_>) -> Result<(), Refused> {
    match page {
        Zpage::Bytes { bytes, .. } if bytes.is_empty() || bytes.len() > ZPAGE_LEN_MAX => {
            Err(Refused::Length {
                len_bytes: bytes.len(),
            })
        }
        _ => Ok(()),
    }
}
