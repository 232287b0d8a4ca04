//! Tables: records of one size in frames.
//!
//! Stage on the data path: under the index, the entries and the block records. Record `i` never moves, so its number is a
//! token for life. Free records of a frame are threaded through their first word, frames with a free record through their
//! heads; the frame that was full last is filled first, and a frame without a record in use is given back.
//!
//! ```text
//! data frame  0 number  4 records in use (u16)  6 first free record, counted from 1 (u16)  8 previous open  12 next open
//!            16 records
//! ```
//!
//! Invariants:
//! - `live == sum(records in use of each frame)`
//! - a frame is in the list of open frames exactly while it has a free record, and each frame has a record in use
//!
//! Does not: know what a record means, but for whether it is free.

use core::marker::PhantomData;

use super::frame_map::FrameMap;
use super::words::{read_half, read_word, write_half, write_word};
use super::{Checked, Damaged, ensure};
use crate::frames::{FRAME_SIZE, FrameId, Frames, Run};
use crate::ids::NONE;

/// Bytes before the records of a frame.
const HEAD: usize = 16;
const IN_USE: usize = 4;
const FIRST_FREE: usize = 6;
const PREVIOUS: usize = 8;
const NEXT: usize = 12;

/// Names a record of a table.
pub(crate) trait Token: Copy + Eq {
    fn of(number: u32) -> Self;
    fn number(self) -> u32;
}

/// Whether a record is free: zeros, but for the word that threads it. No single bit makes one free that is in use.
pub(crate) fn is_free(record: &[u8]) -> bool {
    record[4..].iter().all(|byte| *byte == 0)
}

/// An array of records of `SIZE` bytes.
#[derive(Debug)]
pub(crate) struct Table<T, const SIZE: usize> {
    map: FrameMap,
    live: u32,
    /// The first open frame.
    open: u32,
    token: PhantomData<T>,
}

impl<T: Token, const SIZE: usize> Table<T, SIZE> {
    pub(crate) const PER_FRAME: u32 = ((FRAME_SIZE - HEAD) / SIZE) as u32;

    pub(crate) const fn new() -> Self {
        assert!(SIZE.is_multiple_of(4));
        Table {
            map: FrameMap::new(),
            live: 0,
            open: NONE,
            token: PhantomData,
        }
    }

    /// Frames of records and directories.
    pub(crate) fn frames(&self) -> u32 {
        self.map.frames()
    }

    /// Records in use.
    pub(crate) fn live(&self) -> u32 {
        self.live
    }

    /// Every token's number is below this.
    pub(crate) fn made(&self) -> u32 {
        self.map.places() * Self::PER_FRAME
    }

    /// A record that still says it is free; `None` when no frame is to be had or the table is at its bound.
    pub(crate) fn alloc<F: Frames>(&mut self, frames: &mut F) -> Checked<Option<T>> {
        if self.open == NONE && !self.add_frame(frames)? {
            return Ok(None);
        }
        let place = self.open;
        let frame = self.data_frame(frames, place)?;
        let bytes = frames.bytes_mut(frame, Run::FRAME);
        let free = read_half(bytes, FIRST_FREE);
        ensure((1..=Self::PER_FRAME).contains(&free))?;
        let at = HEAD + (free - 1) as usize * SIZE;
        let next = read_word(bytes, at);
        ensure(next <= Self::PER_FRAME && is_free(&bytes[at..at + SIZE]))?;
        write_half(bytes, FIRST_FREE, next);
        let in_use = read_half(bytes, IN_USE) + 1;
        ensure(in_use <= Self::PER_FRAME)?;
        write_half(bytes, IN_USE, in_use);
        self.live += 1;
        if next == 0 {
            self.close(frames, place)?;
        }
        Ok(Some(T::of(place * Self::PER_FRAME + free - 1)))
    }

    /// Makes a record free, for `free` to take it back.
    pub(crate) fn clear<F: Frames>(&mut self, frames: &mut F, token: T) -> Checked<()> {
        self.record_mut(frames, token)?[4..].fill(0);
        Ok(())
    }

    /// Takes a record back that is free.
    pub(crate) fn free<F: Frames>(&mut self, frames: &mut F, token: T) -> Checked<()> {
        let (place, position) = Self::split(token);
        let frame = self.data_frame(frames, place)?;
        let bytes = frames.bytes_mut(frame, Run::FRAME);
        let (in_use, free) = (read_half(bytes, IN_USE), read_half(bytes, FIRST_FREE));
        ensure(in_use > 0 && free <= Self::PER_FRAME && self.live > 0)?;
        write_word(bytes, HEAD + position * SIZE, free);
        write_half(bytes, FIRST_FREE, position as u32 + 1);
        write_half(bytes, IN_USE, in_use - 1);
        self.live -= 1;
        let was_open = free != 0;
        if in_use == 1 {
            let mut records = bytes[HEAD..].chunks_exact(SIZE);
            ensure(records.all(is_free))?;
            if was_open {
                self.close(frames, place)?;
            }
            return self.map.remove(frames, place);
        }
        if !was_open {
            self.open(frames, place)?;
        }
        Ok(())
    }

    /// The bytes of a record; `None` where there is no frame for it.
    #[inline]
    pub(crate) fn find<'f, F: Frames>(
        &self,
        frames: &'f F,
        token: T,
    ) -> Checked<Option<&'f [u8; SIZE]>> {
        let (place, position) = Self::split(token);
        let Some(frame) = self.map.get(frames, place)? else {
            return Ok(None);
        };
        let at = HEAD + position * SIZE;
        let record = frames.bytes(frame, Run::FRAME).get(at..at + SIZE);
        record
            .and_then(|record| record.try_into().ok())
            .map(Some)
            .ok_or(Damaged::New)
    }

    /// The bytes of a record that there must be.
    #[inline]
    pub(crate) fn record<'f, F: Frames>(&self, frames: &'f F, token: T) -> Checked<&'f [u8; SIZE]> {
        self.find(frames, token)?.ok_or(Damaged::New)
    }

    /// The bytes of a record that there must be, to be written.
    #[inline]
    pub(crate) fn record_mut<'f, F: Frames>(
        &self,
        frames: &'f mut F,
        token: T,
    ) -> Checked<&'f mut [u8; SIZE]> {
        let (place, position) = Self::split(token);
        let frame = self.map.get(frames, place)?.ok_or(Damaged::New)?;
        let at = HEAD + position * SIZE;
        let record = frames.bytes_mut(frame, Run::FRAME).get_mut(at..at + SIZE);
        record
            .and_then(|record| record.try_into().ok())
            .ok_or(Damaged::New)
    }

    /// One word of a record.
    #[inline]
    pub(crate) fn word<F: Frames>(&self, frames: &F, token: T, at: usize) -> Checked<u32> {
        Ok(read_word(self.record(frames, token)?, at))
    }

    /// Changes one word of a record.
    #[inline]
    pub(crate) fn set_word<F: Frames>(
        &mut self,
        frames: &mut F,
        token: T,
        at: usize,
        value: u32,
    ) -> Checked<()> {
        write_word(self.record_mut(frames, token)?, at, value);
        Ok(())
    }

    /// Every token that may be in use.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = T> + use<T, SIZE> {
        (0..self.made()).map(T::of)
    }

    /// Frees records of a single bit again: free ones in which that has flipped, since one in use has three at least.
    pub(crate) fn forget_flipped_free<F: Frames>(&mut self, frames: &mut F) {
        for token in self.tokens() {
            if let Ok(record) = self.record_mut(frames, token)
                && record[4..]
                    .iter()
                    .map(|byte| byte.count_ones())
                    .sum::<u32>()
                    == 1
            {
                record[4..].fill(0);
            }
        }
    }

    /// Makes free lists and counts anew from what records say of themselves, and gives back frames without a record in
    /// use. Frames whose number is damaged are forgotten; how many.
    pub(crate) fn rebuild<F: Frames>(&mut self, frames: &mut F) -> u32 {
        let forgotten = self.map.forget_damaged(frames);
        self.open = NONE;
        self.live = 0;
        for place in (0..self.map.places()).rev() {
            let Ok(Some(frame)) = self.map.get(frames, place) else {
                continue;
            };
            let (in_use, is_open) = Self::rethread(frames.bytes_mut(frame, Run::FRAME), place);
            self.live += in_use;
            if in_use == 0 {
                // The number was just read.
                self.map.remove(frames, place).ok();
            } else if is_open {
                // Frames that come later in this loop are not in the list, so its head is sound.
                self.open(frames, place).ok();
            }
        }
        forgotten
    }

    /// Makes the head of a frame and the thread of its free records anew; records in use, and whether any is free.
    fn rethread(bytes: &mut [u8], place: u32) -> (u32, bool) {
        let (mut in_use, mut first) = (0, 0);
        for position in (0..Self::PER_FRAME).rev() {
            let at = HEAD + position as usize * SIZE;
            if is_free(&bytes[at..at + SIZE]) {
                write_word(bytes, at, first);
                first = position + 1;
            } else {
                in_use += 1;
            }
        }
        write_word(bytes, 0, place);
        write_half(bytes, IN_USE, in_use);
        write_half(bytes, FIRST_FREE, first);
        write_word(bytes, PREVIOUS, NONE);
        write_word(bytes, NEXT, NONE);
        (in_use, first != 0)
    }

    /// Records in use and free records, by walking every frame.
    pub(crate) fn walk<F: Frames>(&self, frames: &F) -> Checked<(u32, u32)> {
        let (mut all_in_use, mut all_free, mut open) = (0, 0, 0);
        for place in 0..self.map.places() {
            let Some(frame) = self.map.get(frames, place)? else {
                continue;
            };
            let bytes = frames.bytes(frame, Run::FRAME);
            let (in_use, mut free, mut threaded) = (read_half(bytes, IN_USE), 0, 0);
            let mut next = read_half(bytes, FIRST_FREE);
            open += u32::from(next != 0);
            while next != 0 {
                threaded += 1;
                ensure(threaded <= Self::PER_FRAME && next <= Self::PER_FRAME)?;
                let at = HEAD + (next - 1) as usize * SIZE;
                ensure(is_free(&bytes[at..at + SIZE]))?;
                next = read_word(bytes, at);
            }
            for position in 0..Self::PER_FRAME as usize {
                let at = HEAD + position * SIZE;
                free += u32::from(is_free(&bytes[at..at + SIZE]));
            }
            ensure(in_use > 0 && free == threaded && in_use + free == Self::PER_FRAME)?;
            all_in_use += in_use;
            all_free += free;
        }
        let mut place = self.open;
        while place != NONE {
            ensure(open > 0)?;
            open -= 1;
            let frame = self.data_frame(frames, place)?;
            place = read_word(frames.bytes(frame, Run::FRAME), NEXT);
        }
        ensure(open == 0)?;
        Ok((all_in_use, all_free))
    }

    /// Gives every frame back and forgets all records.
    pub(crate) fn destroy<F: Frames>(&mut self, frames: &mut F) {
        self.map.destroy(frames);
        self.live = 0;
        self.open = NONE;
    }

    fn split(token: T) -> (u32, usize) {
        let number = token.number();
        (
            number / Self::PER_FRAME,
            (number % Self::PER_FRAME) as usize,
        )
    }

    /// The frame of a number that its head confirms.
    fn data_frame<F: Frames>(&self, frames: &F, place: u32) -> Checked<FrameId> {
        let frame = self.map.get(frames, place)?.ok_or(Damaged::New)?;
        ensure(read_word(frames.bytes(frame, Run::FRAME), 0) == place)?;
        Ok(frame)
    }

    /// Adds a frame of free records; false when there is none to be had.
    fn add_frame<F: Frames>(&mut self, frames: &mut F) -> Checked<bool> {
        let Some((place, frame)) = self.map.add(frames)? else {
            return Ok(false);
        };
        let bytes = frames.bytes_mut(frame, Run::FRAME);
        bytes.fill(0);
        Self::rethread(bytes, place);
        self.open(frames, place)?;
        Ok(true)
    }

    /// Puts a frame at the head of the list of open ones.
    fn open<F: Frames>(&mut self, frames: &mut F, place: u32) -> Checked<()> {
        self.set_link(frames, place, PREVIOUS, NONE)?;
        self.set_link(frames, place, NEXT, self.open)?;
        if self.open != NONE {
            self.set_link(frames, self.open, PREVIOUS, place)?;
        }
        self.open = place;
        Ok(())
    }

    /// Takes a frame out of the list of open ones.
    fn close<F: Frames>(&mut self, frames: &mut F, place: u32) -> Checked<()> {
        let frame = self.data_frame(frames, place)?;
        let bytes = frames.bytes(frame, Run::FRAME);
        let (previous, next) = (read_word(bytes, PREVIOUS), read_word(bytes, NEXT));
        match previous {
            NONE => {
                ensure(self.open == place)?;
                self.open = next;
            }
            previous => self.set_link(frames, previous, NEXT, next)?,
        }
        if next != NONE {
            self.set_link(frames, next, PREVIOUS, previous)?;
        }
        Ok(())
    }

    fn set_link<F: Frames>(
        &mut self,
        frames: &mut F,
        place: u32,
        at: usize,
        value: u32,
    ) -> Checked<()> {
        let frame = self.data_frame(frames, place)?;
        write_word(frames.bytes_mut(frame, Run::FRAME), at, value);
        Ok(())
    }
}
