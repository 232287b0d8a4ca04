//! Block records: what the core knows of each block without looking into it, 48 bytes.
//!
//! Stage on the data path: between an entry and the bytes. Only this record says whether a block is in RAM, being
//! written, or in a tier; writeback changes it and never an entry.
//!
//! ```text
//! byte 0  place     frame (InRam, Writing), slot (InTier, SlotFreed), free list (Free)
//!      4  state     InRam, Writing, InTier, SlotFreed, Dead
//!      5  flags     bit 0: ephemeral; bit 1: cold; bit 2: put aside; bit 3: being evacuated
//!      6  live      zpages, u16
//!      8  fill      64 bits that only the packing interprets
//!     16  generation
//!     20  seal of all above
//!     24  age links: the LRU of its kind (InRam, and InTier where ephemeral), the queue of freed slots (SlotFreed)
//!     32  bin links: bins of the packing (InRam), bins of the tier or those put aside (InTier where persistent)
//!     40  first and last zpage
//! ```
//!
//! Invariants:
//! - `live > 0` in states InRam and InTier; `live == 0` in SlotFreed; Writing may have either
//! - a generation comes back only after 2^32 blocks of the shard; that of a Dead one is 0
//!
//! Does not: keep lists; see `list`, `bins` and `members`.

use super::hash::seal;
use super::table::{Table, is_free};
use super::words::{read_word, write_word};
use super::{Checked, Damaged, ensure};
use crate::frames::{FrameId, Frames};
use crate::ids::{BlockToken, Generation, Kind, NONE, Slot};

const SIZE: usize = 48;
const PLACE: usize = 0;
const STATE: usize = 4;
const FLAGS: usize = 5;
const LIVE: usize = 6;
const FILL: usize = 8;
const GENERATION: usize = 16;
const SEAL: usize = 20;

/// Byte of the previous link in the age list; the next link follows.
pub(crate) const AGE_LINKS: usize = 24;
/// Byte of the previous link in the bin list; the next link follows.
pub(crate) const BIN_LINKS: usize = 32;
/// Byte of the first zpage's entry.
pub(crate) const FIRST_MEMBER: usize = 40;
/// Byte of the last zpage's entry.
pub(crate) const LAST_MEMBER: usize = 44;

pub(crate) const BLOCKS_PER_FRAME: u32 = BlockTable::PER_FRAME;

const _: () = assert!(
    super::frame_map::FRAMES_MAX as u64 * BLOCKS_PER_FRAME as u64 <= 1 << 25,
    "an entry names a block in 25 bits"
);

const EPHEMERAL: u8 = 1;
const COLD: u8 = 2;
const ASIDE: u8 = 4;
const EVACUATED: u8 = 8;

/// The table of block records.
pub(crate) type BlockTable = Table<BlockToken, SIZE>;

/// How full a block is, and what kind of block: 64 bits that only the packing interprets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fill(pub(crate) u64);

/// Where a block is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// In RAM, in the LRU of its kind.
    InRam(FrameId),
    /// In RAM and being written: in no list, its bytes are not changed.
    Writing(FrameId),
    /// In a tier only.
    InTier(Slot),
    /// Empty; its slot waits for the home to take it.
    SlotFreed(Slot),
    /// Damage took the record. It is never used again, for somebody may have been handed the block.
    Dead,
}

/// A block record in use, without its links.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    pub(crate) state: State,
    pub(crate) kind: Kind,
    /// Handed out to be recompressed since it last got a fresh page.
    pub(crate) cold: bool,
    /// In a tier, and could not be read whole.
    pub(crate) aside: bool,
    /// Written by nobody: its zpages are on their way to other blocks.
    pub(crate) evacuated: bool,
    pub(crate) live: u16,
    pub(crate) fill: Fill,
    pub(crate) generation: Generation,
}

fn seal_of(record: &[u8; SIZE]) -> u32 {
    let word = |at| read_word(record, at);
    seal([
        word(PLACE),
        word(STATE),
        word(FILL),
        word(FILL + 4),
        word(GENERATION),
        0,
    ])
}

impl BlockTable {
    /// The record, or `None` when the token is free or was never made.
    pub(crate) fn read<F: Frames>(&self, frames: &F, token: BlockToken) -> Checked<Option<Block>> {
        let Some(record) = self.find(frames, token)? else {
            return Ok(None);
        };
        if is_free(record) {
            return Ok(None);
        }
        ensure(read_word(record, SEAL) == seal_of(record))?;
        let place = read_word(record, PLACE);
        let state = match record[STATE] {
            1 => State::InRam(FrameId(place)),
            2 => State::Writing(FrameId(place)),
            3 => State::InTier(Slot(place)),
            4 => State::SlotFreed(Slot(place)),
            5 => State::Dead,
            _ => return Err(Damaged::New),
        };
        let low = u64::from(read_word(record, FILL));
        Ok(Some(Block {
            state,
            kind: match record[FLAGS] & EPHEMERAL {
                0 => Kind::Persistent,
                _ => Kind::Ephemeral,
            },
            cold: record[FLAGS] & COLD != 0,
            aside: record[FLAGS] & ASIDE != 0,
            evacuated: record[FLAGS] & EVACUATED != 0,
            live: u16::from_le_bytes([record[LIVE], record[LIVE + 1]]),
            fill: Fill(low | u64::from(read_word(record, FILL + 4)) << 32),
            generation: Generation(read_word(record, GENERATION)),
        }))
    }

    /// The record that an entry or a list names.
    pub(crate) fn expect<F: Frames>(&self, frames: &F, token: BlockToken) -> Checked<Block> {
        self.read(frames, token)?.ok_or(Damaged::New)
    }

    /// Writes the record; links stay as they are.
    pub(crate) fn write<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        block: &Block,
    ) -> Checked<()> {
        let (state, place) = match block.state {
            State::InRam(frame) => (1, frame.0),
            State::Writing(frame) => (2, frame.0),
            State::InTier(slot) => (3, slot.0),
            State::SlotFreed(slot) => (4, slot.0),
            State::Dead => (5, 0),
        };
        let record = self.record_mut(frames, token)?;
        record[STATE] = state;
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        record[FLAGS] = flag(block.kind == Kind::Ephemeral, EPHEMERAL)
            | flag(block.cold, COLD)
            | flag(block.aside, ASIDE)
            | flag(block.evacuated, EVACUATED);
        record[LIVE..LIVE + 2].copy_from_slice(&block.live.to_le_bytes());
        record[FILL..FILL + 8].copy_from_slice(&block.fill.0.to_le_bytes());
        write_word(record, PLACE, place);
        write_word(record, GENERATION, block.generation.0);
        let seal = seal_of(record);
        write_word(record, SEAL, seal);
        Ok(())
    }

    /// Writes the record of a block without zpages that is in no list.
    pub(crate) fn init<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        block: &Block,
    ) -> Checked<()> {
        self.record_mut(frames, token)?[AGE_LINKS..].fill(u8::MAX);
        debug_assert_eq!(NONE, u32::MAX);
        self.write(frames, token, block)
    }

    /// Leaves a record that is not sound, or contradicts others, to nobody.
    pub(crate) fn bury<F: Frames>(&mut self, frames: &mut F, token: BlockToken) -> Checked<()> {
        self.record_mut(frames, token)?.fill(0);
        let dead = Block {
            state: State::Dead,
            kind: Kind::Persistent,
            cold: false,
            aside: false,
            evacuated: false,
            live: 0,
            fill: Fill(0),
            generation: Generation(0),
        };
        self.init(frames, token, &dead)
    }
}
