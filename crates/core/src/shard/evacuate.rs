//! Evacuation: emptying sparse blocks in RAM into the room that others have.
//!
//! Stage on the data path: beside reclaim. Random frees leave every block half empty and free hardly any; moving the
//! zpages of the emptiest blocks into the holes of the fullest gives whole blocks back without any I/O. Where a packing
//! has bins in groups, as zsmalloc has its size classes, each group is emptied into itself.
//!
//! Invariants:
//! - no block is made here, so an evacuation needs no frame and frees one run a block
//! - zpages move within their kind and group; ages do not change
//!
//! Does not: touch a block that is being written.

use core::ops::Range;

use super::Shard;
use super::place::Room;
use crate::block::{BIN_LINKS, Block, State};
use crate::frames::{FrameId, Frames, Run};
use crate::ids::{Evacuated, Kind};
use crate::packing::BINS;

/// Bytes carried at once from block to block, so that no page lies on the stack.
const CARRY: usize = 256;

impl Shard {
    /// Empties at most `blocks_max` of the emptiest blocks in RAM into others of their kind.
    pub fn evacuate(&mut self, frames: &mut impl Frames, blocks_max: u32) -> Evacuated {
        let mut done = Evacuated::default();
        let group_bins = self.allocator.group_bins();
        for kind in [Kind::Persistent, Kind::Ephemeral] {
            for first in (0..BINS).step_by(group_bins) {
                let group = first..(first + group_bins).min(BINS);
                while done.blocks < blocks_max && self.evacuate_one(frames, kind, &group, &mut done)
                {
                }
            }
        }
        self.counters.evacuated_blocks += u64::from(done.blocks);
        self.counters.evacuated_zpages += u64::from(done.zpages);
        done
    }

    /// Empties the emptiest block of a kind and group; false when there is no room for all of it elsewhere.
    fn evacuate_one<F: Frames>(
        &mut self,
        frames: &mut F,
        kind: Kind,
        group: &Range<usize>,
        done: &mut Evacuated,
    ) -> bool {
        let Some(token) = self.bins[kind as usize].highest(group.clone()) else {
            return false;
        };
        let mut block = self.blocks.expect(frames, token);
        let State::InRam(frame) = block.state else {
            panic!("bins hold blocks in RAM only")
        };
        if !self.others_have_room(frames, kind, group, token, &block) {
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
        done.frames += self.allocator.run(block.fill).frames();
        true
    }

    /// Whether the free bytes of the other blocks of the group add up to what this one holds.
    fn others_have_room<F: Frames>(
        &self,
        frames: &F,
        kind: Kind,
        group: &Range<usize>,
        token: u32,
        block: &Block,
    ) -> bool {
        let bins = &self.bins[kind as usize];
        let needed = u64::from(self.allocator.used_bytes(block.fill));
        let own = u64::from(self.allocator.free_bytes(block.fill));
        if bins.free_bytes - own < needed || group.len() == BINS {
            return bins.free_bytes - own >= needed;
        }
        // From the emptiest on, so that few are looked at.
        let lists = group.clone().rev().map(|bin| bins.list(bin));
        let members = lists.flat_map(|list| list.walk(frames, &self.blocks, BIN_LINKS));
        let mut free = 0;
        members.filter(|other| *other != token).any(|other| {
            let fill = self.blocks.expect(frames, other).fill;
            free += u64::from(self.allocator.free_bytes(fill));
            free >= needed
        })
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
        let run = self.allocator.run(fill);
        while let Some((candidate, next)) =
            self.allocator.walk(fill, frames.bytes(frame, run), cursor)
        {
            cursor = next;
            let Some(len) = self
                .entries
                .len_at(frames, candidate.entry, token, candidate.offset)
            else {
                continue;
            };
            let Some(room) = self.place_in_existing(frames, block.kind, candidate.entry, len)
            else {
                break;
            };
            carry(frames, frame, run, candidate.offset, &room);
            self.entries
                .set_place(frames, candidate.entry, room.span.block, room.span.offset);
            self.allocator
                .remove(&mut block.fill, candidate.offset, len);
            block.live -= 1;
            self.count_out_of_ram(block.kind, len);
            moved += 1;
        }
        moved
    }
}

/// Copies a zpage from its block to the room that it was given.
fn carry<F: Frames>(frames: &mut F, from: FrameId, run: Run, from_offset: usize, room: &Room) {
    let mut carried = [0; CARRY];
    for done in (0..room.span.len).step_by(CARRY) {
        let part = CARRY.min(room.span.len - done);
        carried[..part].copy_from_slice(&frames.bytes(from, run)[from_offset + done..][..part]);
        room.bytes_mut(frames)[done..][..part].copy_from_slice(&carried[..part]);
    }
}
