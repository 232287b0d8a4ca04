//! Block records: what the core knows of each block without looking into it, 32 bytes.
//!
//! Stage on the data path: between an entry and the bytes. Only this record says whether a block is in RAM, being
//! written, or in a tier; writeback changes it and never an entry.
//!
//! ```text
//! byte 0  state     Free, InRam, Writing, InTier, SlotFreed
//!      1  kind      bit 0: ephemeral; bit 1: cold
//!      2  live      zpages, u16
//!      4  fill      64 bits that only the packing interprets
//!     12  place     frame (InRam, Writing), slot (InTier, SlotFreed), free list (Free)
//!     16  age links: the LRU of its kind (InRam), the queue of freed slots (SlotFreed)
//!     24  bin links: bins of the packing (InRam), bins of the tier (InTier)
//! ```
//!
//! Invariants:
//! - `live > 0` in states InRam and InTier; `live == 0` in SlotFreed; Writing may have either
//!
//! Does not: keep lists; see `list` and `bins`.

use crate::frames::{FrameId, Frames};
use crate::ids::{Kind, Slot};
use crate::packing::Fill;
use crate::table::{Table, read_word, write_word};

const SIZE: usize = 32;
const FILL: usize = 4;
const PLACE: usize = 12;

/// Byte of the previous link in the age list; the next link follows.
pub(crate) const AGE_LINKS: usize = 16;
/// Byte of the previous link in the bin list; the next link follows.
pub(crate) const BIN_LINKS: usize = 24;

/// The table of block records.
pub(crate) type Blocks = Table<SIZE, PLACE>;

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
}

/// A block record in use, without its links.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    pub(crate) state: State,
    pub(crate) kind: Kind,
    /// Handed out to be recompressed since it last got a fresh page.
    pub(crate) cold: bool,
    pub(crate) live: u16,
    pub(crate) fill: Fill,
}

const STATE_FREE: u8 = 0;

impl Blocks {
    /// The record, or `None` when the token is free or was never made.
    pub(crate) fn read<F: Frames>(&self, frames: &F, token: u32) -> Option<Block> {
        if token >= self.made() {
            return None;
        }
        let record = self.record(frames, token);
        let place = read_word(record, PLACE);
        let state = match record[0] {
            STATE_FREE => return None,
            1 => State::InRam(FrameId(place)),
            2 => State::Writing(FrameId(place)),
            3 => State::InTier(Slot(place)),
            _ => State::SlotFreed(Slot(place)),
        };
        Some(Block {
            state,
            kind: if record[1] & 1 == 0 {
                Kind::Persistent
            } else {
                Kind::Ephemeral
            },
            cold: record[1] & 2 != 0,
            live: u16::from_le_bytes([record[2], record[3]]),
            fill: Fill(
                u64::from(read_word(record, FILL)) | u64::from(read_word(record, FILL + 4)) << 32,
            ),
        })
    }

    /// The record that an entry or a list names.
    ///
    /// # Panics
    /// When there is none, which is a bug of the core.
    pub(crate) fn expect<F: Frames>(&self, frames: &F, token: u32) -> Block {
        self.read(frames, token).expect("a named block is in use")
    }

    /// Writes the record; links stay as they are.
    pub(crate) fn write<F: Frames>(&mut self, frames: &mut F, token: u32, block: &Block) {
        let (state, place) = match block.state {
            State::InRam(frame) => (1, frame.0),
            State::Writing(frame) => (2, frame.0),
            State::InTier(slot) => (3, slot.0),
            State::SlotFreed(slot) => (4, slot.0),
        };
        let record = self.record_mut(frames, token);
        record[0] = state;
        record[1] = u8::from(block.kind == Kind::Ephemeral) | u8::from(block.cold) << 1;
        record[2..4].copy_from_slice(&block.live.to_le_bytes());
        record[FILL..FILL + 8].copy_from_slice(&block.fill.0.to_le_bytes());
        write_word(record, PLACE, place);
    }

    /// Marks a record free and takes it back.
    pub(crate) fn release<F: Frames>(&mut self, frames: &mut F, token: u32) {
        self.record_mut(frames, token)[0] = STATE_FREE;
        self.free(frames, token);
    }
}
