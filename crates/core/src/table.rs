//! Tables: growable arrays of fixed-size records in frames.
//!
//! Stage on the data path: under the index, the entries and the block records. A table is a root inside the shard that
//! names directory frames, which name data frames, which hold the records as little-endian words. Record `i` never
//! moves, so its number is a token for life. A freed record goes on a free list threaded through the word at byte `LINK`.
//!
//! Invariants:
//! - `records made == live + length of the free list`
//! - `data frames == ceil(records made / PER_FRAME)` or one more, when growth failed half way
//!
//! Does not: know what a record means, or give frames back before it is destroyed.

use crate::frames::{FRAME_SIZE, FrameId, Frames, Run};
use crate::ids::NONE;

/// Directory frames a table can have.
pub(crate) const ROOT: usize = 256;
/// Data frames a directory frame names.
const PER_DIRECTORY: usize = FRAME_SIZE / 4;

/// An array of records of `SIZE` bytes with the free list's link at byte `LINK` of a free one.
#[derive(Debug)]
pub(crate) struct Table<const SIZE: usize, const LINK: usize> {
    root: [u32; ROOT],
    directory_frames: u32,
    data_frames: u32,
    made: u32,
    live: u32,
    free_head: u32,
}

impl<const SIZE: usize, const LINK: usize> Table<SIZE, LINK> {
    const PER_FRAME: u32 = (FRAME_SIZE / SIZE) as u32;

    /// Records at most.
    pub(crate) const RECORDS_MAX: u32 = (ROOT * PER_DIRECTORY) as u32 * Self::PER_FRAME;

    pub(crate) const fn new() -> Self {
        assert!(LINK + 4 <= SIZE && LINK.is_multiple_of(4) && SIZE.is_multiple_of(4));
        Table {
            root: [NONE; ROOT],
            directory_frames: 0,
            data_frames: 0,
            made: 0,
            live: 0,
            free_head: NONE,
        }
    }

    /// Frames of records and directories.
    pub(crate) fn frames(&self) -> u32 {
        self.directory_frames + self.data_frames
    }

    /// Records in use.
    pub(crate) fn live(&self) -> u32 {
        self.live
    }

    /// Records ever made: every token is below this.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }

    /// A record that still says it is free; `None` when no frame is to be had or the table is at its bound.
    pub(crate) fn alloc<F: Frames>(&mut self, frames: &mut F) -> Option<u32> {
        let token = if self.free_head != NONE {
            let token = self.free_head;
            self.free_head = self.word(frames, token, LINK);
            token
        } else {
            if self.made == self.data_frames * Self::PER_FRAME {
                self.grow(frames)?;
            }
            self.made += 1;
            self.made - 1
        };
        self.live += 1;
        Some(token)
    }

    /// Takes a record back. The caller has marked it free in a word other than the link.
    pub(crate) fn free<F: Frames>(&mut self, frames: &mut F, token: u32) {
        self.set_word(frames, token, LINK, self.free_head);
        self.free_head = token;
        self.live -= 1;
    }

    /// The bytes of a record.
    ///
    /// # Panics
    /// When the token was never made.
    pub(crate) fn record<'f, F: Frames>(&self, frames: &'f F, token: u32) -> &'f [u8; SIZE] {
        let (frame, at) = self.locate(frames, token);
        frames.bytes(frame, Run::FRAME)[at..at + SIZE]
            .try_into()
            .expect("SIZE bytes were sliced")
    }

    /// The bytes of a record, to be written.
    ///
    /// # Panics
    /// When the token was never made.
    pub(crate) fn record_mut<'f, F: Frames>(
        &self,
        frames: &'f mut F,
        token: u32,
    ) -> &'f mut [u8; SIZE] {
        let (frame, at) = self.locate(frames, token);
        let bytes = &mut frames.bytes_mut(frame, Run::FRAME)[at..at + SIZE];
        bytes.try_into().expect("SIZE bytes were sliced")
    }

    /// One word of a record.
    pub(crate) fn word<F: Frames>(&self, frames: &F, token: u32, at: usize) -> u32 {
        read_word(self.record(frames, token), at)
    }

    /// Changes one word of a record.
    pub(crate) fn set_word<F: Frames>(
        &mut self,
        frames: &mut F,
        token: u32,
        at: usize,
        value: u32,
    ) {
        write_word(self.record_mut(frames, token), at, value);
    }

    /// Length of the free list, by walking it. A list that does not end counts as `u32::MAX`.
    pub(crate) fn walk_free<F: Frames>(&self, frames: &F) -> u32 {
        let (mut token, mut count) = (self.free_head, 0);
        while token != NONE {
            count += 1;
            if count > self.made {
                return u32::MAX;
            }
            token = self.word(frames, token, LINK);
        }
        count
    }

    /// Gives every frame back and forgets all records.
    pub(crate) fn destroy<F: Frames>(&mut self, frames: &mut F) {
        for number in 0..self.data_frames {
            let frame = self.data_frame(frames, number);
            frames.free(frame, Run::FRAME);
        }
        for directory in &self.root[..self.directory_frames as usize] {
            frames.free(FrameId(*directory), Run::FRAME);
        }
        *self = Table::new();
    }

    /// Adds a data frame, and first a directory frame where the last one is full.
    fn grow<F: Frames>(&mut self, frames: &mut F) -> Option<()> {
        let slot = self.data_frames as usize;
        if slot == self.directory_frames as usize * PER_DIRECTORY {
            let root = self.root.get_mut(self.directory_frames as usize)?;
            *root = frames.alloc(Run::FRAME)?.0;
            self.directory_frames += 1;
        }
        let frame = frames.alloc(Run::FRAME)?;
        // Zero is how every record says that it is free.
        frames.bytes_mut(frame, Run::FRAME).fill(0);
        let directory = FrameId(self.root[slot / PER_DIRECTORY]);
        write_word(
            frames.bytes_mut(directory, Run::FRAME),
            slot % PER_DIRECTORY * 4,
            frame.0,
        );
        self.data_frames += 1;
        Some(())
    }

    fn data_frame<F: Frames>(&self, frames: &F, number: u32) -> FrameId {
        let directory = FrameId(self.root[number as usize / PER_DIRECTORY]);
        FrameId(read_word(
            frames.bytes(directory, Run::FRAME),
            number as usize % PER_DIRECTORY * 4,
        ))
    }

    fn locate<F: Frames>(&self, frames: &F, token: u32) -> (FrameId, usize) {
        assert!(token < self.made, "token {token} of {}", self.made);
        let frame = self.data_frame(frames, token / Self::PER_FRAME);
        (frame, (token % Self::PER_FRAME) as usize * SIZE)
    }
}

/// The little-endian word at a byte offset.
pub(crate) fn read_word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes were sliced"))
}

/// Writes the little-endian word at a byte offset.
pub(crate) fn write_word(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}
