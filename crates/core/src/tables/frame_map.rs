//! Data frames by number: the array of frames that a table or an index lies in.
//!
//! Stage on the data path: under the tables. The first frames are named by the shard itself, later ones by directory
//! frames, each name beside its complement. A frame that is given back leaves its number free for the next; those at the
//! end are forgotten, and their directories with them.
//!
//! Invariants:
//! - `present == numbers below places that name a frame`, and the last of them does
//! - directories are as many as `places` needs
//!
//! Does not: know what is in a data frame.

use super::words::{read_word, write_word};
use super::{Checked, Damaged, ensure};
use crate::frames::{FRAME_SIZE, FrameId, Frames, Run};
use crate::ids::NONE;

/// Frames that the shard names itself.
const DIRECT: usize = 64;
/// Directory frames at most.
const DIRECTORIES: usize = 448;
/// Frames that a directory frame names.
const PER_DIRECTORY: usize = FRAME_SIZE / 8;

/// Data frames at most.
pub(crate) const FRAMES_MAX: u32 = (DIRECT + DIRECTORIES * PER_DIRECTORY) as u32;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct FrameMap {
    root: [u32; DIRECT + DIRECTORIES],
    directories: u32,
    places: u32,
    present: u32,
    /// No number below this one is free.
    first_free: u32,
}

impl FrameMap {
    pub(crate) const fn new() -> FrameMap {
        FrameMap {
            root: [NONE; DIRECT + DIRECTORIES],
            directories: 0,
            places: 0,
            present: 0,
            first_free: 0,
        }
    }

    /// Every number in use is below this.
    pub(crate) fn places(&self) -> u32 {
        self.places
    }

    /// Data frames and directories.
    pub(crate) fn frames(&self) -> u32 {
        self.present + self.directories
    }

    /// The frame of a number; `None` where there is none.
    #[inline]
    pub(crate) fn get<F: Frames>(&self, frames: &F, place: u32) -> Checked<Option<FrameId>> {
        if place >= self.places {
            return Ok(None);
        }
        let place = place as usize;
        let frame = match place.checked_sub(DIRECT) {
            None => self.root[place],
            Some(at) => {
                let directory = FrameId(self.root[DIRECT + at / PER_DIRECTORY]);
                let bytes = frames.bytes(directory, Run::FRAME);
                let frame = read_word(bytes, at % PER_DIRECTORY * 8);
                ensure(frame == !read_word(bytes, at % PER_DIRECTORY * 8 + 4))?;
                frame
            }
        };
        Ok((frame != NONE).then_some(FrameId(frame)))
    }

    /// One more frame, of any bytes, and the lowest number that is free; `None` when there is none to be had or the map is
    /// at its bound.
    pub(crate) fn add<F: Frames>(&mut self, frames: &mut F) -> Checked<Option<(u32, FrameId)>> {
        let mut place = self.first_free;
        if self.present == self.places {
            place = self.places;
        } else {
            while self.get(frames, place)?.is_some() {
                place += 1;
            }
        }
        if place == FRAMES_MAX {
            return Ok(None);
        }
        if let Some(at) = (place as usize).checked_sub(DIRECT)
            && at / PER_DIRECTORY == self.directories as usize
        {
            let Some(directory) = frames.alloc(Run::FRAME) else {
                return Ok(None);
            };
            self.root[DIRECT + at / PER_DIRECTORY] = directory.0;
            self.directories += 1;
        }
        let Some(frame) = frames.alloc(Run::FRAME) else {
            self.forget_directories(frames);
            return Ok(None);
        };
        self.set(frames, place, frame.0);
        self.places = self.places.max(place + 1);
        self.present += 1;
        self.first_free = place + 1;
        Ok(Some((place, frame)))
    }

    /// Gives a frame back.
    pub(crate) fn remove<F: Frames>(&mut self, frames: &mut F, place: u32) -> Checked<()> {
        let frame = self.get(frames, place)?.ok_or(Damaged::New)?;
        frames.free(frame, Run::FRAME);
        self.set(frames, place, NONE);
        self.present -= 1;
        self.first_free = self.first_free.min(place);
        while self.places > 0 && self.get(frames, self.places - 1)?.is_none() {
            self.places -= 1;
        }
        self.first_free = self.first_free.min(self.places);
        self.forget_directories(frames);
        Ok(())
    }

    /// Forgets names that are damaged, whose frames are not used again, and counts the others anew. How many there were.
    pub(crate) fn forget_damaged<F: Frames>(&mut self, frames: &mut F) -> u32 {
        let mut forgotten = 0;
        self.present = 0;
        for place in 0..self.places {
            match self.get(frames, place) {
                Ok(Some(_)) => self.present += 1,
                Ok(None) => {}
                Err(_) => {
                    forgotten += 1;
                    self.set(frames, place, NONE);
                }
            }
        }
        self.first_free = 0;
        forgotten
    }

    /// Gives every frame back whose name is sound.
    pub(crate) fn destroy<F: Frames>(&mut self, frames: &mut F) {
        for place in 0..self.places {
            if let Ok(Some(frame)) = self.get(frames, place) {
                frames.free(frame, Run::FRAME);
            }
        }
        self.places = 0;
        self.forget_directories(frames);
        *self = FrameMap::new();
    }

    fn set<F: Frames>(&mut self, frames: &mut F, place: u32, frame: u32) {
        let place = place as usize;
        match place.checked_sub(DIRECT) {
            None => self.root[place] = frame,
            Some(at) => {
                let directory = FrameId(self.root[DIRECT + at / PER_DIRECTORY]);
                let bytes = frames.bytes_mut(directory, Run::FRAME);
                write_word(bytes, at % PER_DIRECTORY * 8, frame);
                write_word(bytes, at % PER_DIRECTORY * 8 + 4, !frame);
            }
        }
    }

    /// Gives directories back that name no place.
    fn forget_directories<F: Frames>(&mut self, frames: &mut F) {
        let behind = (self.places as usize).saturating_sub(DIRECT);
        while self.directories as usize > behind.div_ceil(PER_DIRECTORY) {
            self.directories -= 1;
            let directory = FrameId(self.root[DIRECT + self.directories as usize]);
            frames.free(directory, Run::FRAME);
        }
    }
}
