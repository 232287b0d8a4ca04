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
use super::room::Room;
use crate::exchange::Evacuated;
use crate::frames::{FrameId, Frames, Run};
use crate::ids::{BlockToken, Kind};
use crate::packing::BINS;
use crate::tables::block::{BIN_LINKS, Block, State};
use crate::tables::{Checked, Damaged, members};

/// Bytes carried at once from block to block, so that no page lies on the stack.
const CARRY: usize = 256;

impl Shard {
    /// Empties at most `blocks_max` of the emptiest blocks in RAM into others of their kind.
    pub fn evacuate(&mut self, frames: &mut impl Frames, blocks_max: u32) -> Evacuated {
        let mut done = Evacuated::default();
        let before = self.frames_in_use();
        // What was moved before damage was met is moved.
        let _ = self.sound(frames, |shard, frames| {
            shard.evacuate_groups(frames, blocks_max, &mut done)
        });
        // Tables give back theirs.
        done.frames = before.saturating_sub(self.frames_in_use());
        self.counters.evacuated_blocks += u64::from(done.blocks);
        self.counters.evacuated_zpages += u64::from(done.zpages);
        done
    }

    fn evacuate_groups<F: Frames>(
        &mut self,
        frames: &mut F,
        blocks_max: u32,
        done: &mut Evacuated,
    ) -> Checked<()> {
        let group_bins = self.allocator.group_bins();
        for kind in [Kind::Persistent, Kind::Ephemeral] {
            for first in (0..BINS).step_by(group_bins) {
                let group = first..(first + group_bins).min(BINS);
                while done.blocks < blocks_max && self.evacuate_one(frames, kind, &group, done)? {}
            }
        }
        Ok(())
    }

    /// Empties the emptiest block of a kind and group; false when there is no room for all of it elsewhere.
    fn evacuate_one<F: Frames>(
        &mut self,
        frames: &mut F,
        kind: Kind,
        group: &Range<usize>,
        done: &mut Evacuated,
    ) -> Checked<bool> {
        let Some(token) = self.lists.bins[kind as usize].highest(group.clone()) else {
            return Ok(false);
        };
        let block = self.blocks.expect(frames, token)?;
        let State::InRam(frame) = block.state else {
            return Err(Damaged::New);
        };
        if !self.others_have_room(frames, kind, group, token, &block)? {
            return Ok(false);
        }
        // Out of the bins it cannot be chosen as its own destination. It keeps its place among the ages.
        self.unbin(frames, token, &block)?;
        let leaving = Block {
            state: State::Writing(frame),
            evacuated: true,
            ..block
        };
        self.blocks.write(frames, token, &leaving)?;
        done.zpages += self.move_out(frames, token, frame, kind)?;
        let left = Block {
            state: State::InRam(frame),
            evacuated: false,
            ..self.blocks.expect(frames, token)?
        };
        self.bin(frames, token, &left)?;
        self.blocks.write(frames, token, &left)?;
        if left.live != 0 {
            self.counters.evacuations_stuck += 1;
            return Ok(false);
        }
        self.free_ram_block(frames, token, &left, frame)?;
        done.blocks += 1;
        Ok(true)
    }

    /// Whether the free bytes of the other blocks of the group add up to what this one holds.
    fn others_have_room<F: Frames>(
        &self,
        frames: &F,
        kind: Kind,
        group: &Range<usize>,
        token: BlockToken,
        block: &Block,
    ) -> Checked<bool> {
        let bins = &self.lists.bins[kind as usize];
        let needed = u64::from(self.allocator.used_bytes(block.fill));
        let own = u64::from(self.allocator.free_bytes(block.fill));
        let others = bins.free_bytes.saturating_sub(own);
        if others < needed || group.len() == BINS {
            return Ok(others >= needed);
        }
        // From the emptiest on, so that few are looked at.
        let lists = group.clone().rev().map(|bin| bins.list(bin));
        let members = lists.flat_map(|list| list.walk(frames, &self.blocks, BIN_LINKS));
        let mut free = 0;
        for other in members.filter(|other| *other != token) {
            let fill = self.blocks.expect(frames, other)?.fill;
            free += u64::from(self.allocator.free_bytes(fill));
            if free >= needed {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves zpages out of a block until it is empty or one finds no room; how many were moved.
    fn move_out<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        frame: FrameId,
        kind: Kind,
    ) -> Checked<u32> {
        let mut moved = 0;
        while let Some(entry) = members::first(frames, &self.blocks, token)? {
            let span = self.entries.span_in(frames, entry, token)?;
            let Some(room) = self.reserve_in_existing(frames, kind, span.len)? else {
                break;
            };
            let fill = self.blocks.expect(frames, token)?.fill;
            self.bytes_at(frames, frame, fill, span)?;
            let run = self.allocator.run(fill);
            carry(frames, frame, run, span.offset, &room);
            self.relocate(frames, entry, span, &room)?;
            moved += 1;
        }
        Ok(moved)
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
