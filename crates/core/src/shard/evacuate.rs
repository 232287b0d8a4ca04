//! Evacuation: emptying sparse blocks in RAM into the room that others have.
//!
//! Stage on the data path: beside reclaim. Random frees leave every block half empty and free hardly any; moving the
//! zpages of the emptiest blocks into the holes of the fullest gives whole blocks back without any I/O.
//!
//! Invariants:
//! - no block is made here, so an evacuation needs no frame and frees one run a block
//! - zpages move within their kind; ages do not change
//!
//! Does not: touch a block that is being written.

use super::Shard;
use crate::block::{Block, State};
use crate::entry::Span;
use crate::frames::{FrameId, Frames};
use crate::ids::{Evacuated, Kind};

/// Bytes carried at once from block to block, so that no page lies on the stack.
const CARRY: usize = 256;

impl Shard {
    /// Empties at most `blocks_max` of the emptiest blocks in RAM into others of their kind.
    pub fn evacuate(&mut self, frames: &mut impl Frames, blocks_max: u32) -> Evacuated {
        let mut done = Evacuated::default();
        for kind in [Kind::Persistent, Kind::Ephemeral] {
            while done.blocks < blocks_max && self.evacuate_one(frames, kind, &mut done) {}
        }
        self.counters.evacuated_blocks += u64::from(done.blocks);
        self.counters.evacuated_zpages += u64::from(done.zpages);
        done
    }

    /// Empties the emptiest block of a kind; false when there is no room for all of it elsewhere.
    fn evacuate_one<F: Frames>(
        &mut self,
        frames: &mut F,
        kind: Kind,
        done: &mut Evacuated,
    ) -> bool {
        let Some(token) = self.bins[kind as usize].highest() else {
            return false;
        };
        let mut block = self.blocks.expect(frames, token);
        let State::InRam(frame) = block.state else {
            panic!("bins hold blocks in RAM only")
        };
        if !self.others_have_room(kind, &block) {
            return false;
        }
        // Out of the bins it cannot be chosen as its own destination.
        self.unbin(frames, token, &block);
        done.zpages += self.move_out(frames, token, &mut block, frame);
        self.blocks.write(frames, token, &block);
        self.bin(frames, token, &block);
        if block.live != 0 {
            self.counters.evacuations_stuck += 1;
            return false;
        }
        self.free_ram_block(frames, token, &block, frame);
        done.blocks += 1;
        done.frames += self.allocator.order().frames();
        true
    }

    /// Whether the free bytes of the other blocks in bins add up to what this one holds.
    fn others_have_room(&self, kind: Kind, block: &Block) -> bool {
        let bins = &self.bins[kind as usize];
        let order_bytes = self.allocator.order().bytes() as u64;
        let used = u64::from(self.allocator.used_bytes(block.fill));
        let others_free = u64::from(bins.blocks - 1) * order_bytes - (bins.used_bytes - used);
        others_free >= used
    }

    /// Moves zpages out of a block until it is empty or one finds no room; how many were moved.
    fn move_out<F: Frames>(
        &mut self,
        frames: &mut F,
        token: u32,
        block: &mut Block,
        frame: FrameId,
    ) -> u32 {
        let (fill, mut cursor, mut moved) = (block.fill, 0, 0);
        let order = self.allocator.order();
        while let Some((candidate, next)) =
            self.allocator
                .walk(fill, frames.bytes(frame, order), cursor)
        {
            cursor = next;
            let Some(len) = self
                .entries
                .len_at(frames, candidate.entry, token, candidate.offset)
            else {
                continue;
            };
            let Some((to, to_frame)) =
                self.place_in_existing(frames, block.kind, candidate.entry, len)
            else {
                break;
            };
            self.carry(frames, frame, candidate.offset, to_frame, to);
            self.entries
                .set_place(frames, candidate.entry, to.block, to.offset);
            self.allocator
                .remove(&mut block.fill, candidate.offset, len);
            block.live -= 1;
            self.count_out_of_ram(block.kind, len);
            moved += 1;
        }
        moved
    }

    fn carry<F: Frames>(
        &self,
        frames: &mut F,
        from: FrameId,
        from_offset: usize,
        to_frame: FrameId,
        to: Span,
    ) {
        let order = self.allocator.order();
        let mut carried = [0; CARRY];
        for done in (0..to.len).step_by(CARRY) {
            let part = CARRY.min(to.len - done);
            carried[..part]
                .copy_from_slice(&frames.bytes(from, order)[from_offset + done..][..part]);
            frames.bytes_mut(to_frame, order)[to.offset + done..][..part]
                .copy_from_slice(&carried[..part]);
        }
    }
}
