//! Objects: the 68-byte records of tmem objects that have pages here.
//!
//! Stage on the data path: a key's pool and 192-bit id are looked up once and from then on are a 4-byte token in each of
//! the object's entries.
//!
//! ```text
//! byte 0  link    hash chain, free list
//!      4  pool    token; bit 31: pages of it may have been lost
//!      8  id      three u64
//!     32  pages   entries that name this object
//!     36  first   no page has a lower index
//!     40  last    no page has a higher index
//!     44  head    the first of its pages
//!     48  previous and next object of the pool
//!     56  seal of pool and id
//!     60  seal of pages, first and last
//!     64  while pages are counted anew: how many there were
//! ```
//!
//! Invariants:
//! - `pages == length of the list at head == number of entries that name the object`; the record goes with its last page
//! - `first <= index <= last` for each of them
//!
//! Does not: order the pages of an object.

use super::hash::{Seed, seal};
use super::index::Chained;
use super::table::{Table, is_free};
use super::tokens::{ObjectToken, PoolToken};
use super::words::{read_word, write_word};
use super::{Checked, Damaged, ensure};
use crate::frames::Frames;
use crate::ids::{EntryToken, NONE, ObjectId};

const SIZE: usize = 68;
const LINK: usize = 0;
const POOL: usize = 4;
const ID: usize = 8;
const PAGES: usize = 32;
const FIRST: usize = 36;
const LAST: usize = 40;
const HEAD: usize = 44;
const POOL_LINKS: usize = 48;
const SEAL: usize = 56;
const EXTENT_SEAL: usize = 60;
const EXPECTED: usize = 64;

/// In the pool's word: pages of the object may have been lost, so none is told to be missing.
const INCOMPLETE: u32 = 1 << 31;

pub(crate) const OBJECTS_PER_FRAME: u32 = Objects::PER_FRAME;

const _: () = assert!(
    super::frame_map::FRAMES_MAX as u64 * OBJECTS_PER_FRAME as u64 <= 1 << 25,
    "an entry names an object in 25 bits"
);

/// The table of objects.
pub(crate) type Objects = Table<ObjectToken, SIZE>;

/// Pages of an object and the bounds of their indices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) pages: u32,
    pub(crate) first: u32,
    pub(crate) last: u32,
}

impl Extent {
    fn seal(&self) -> u32 {
        seal([self.pages, self.first, self.last, 0, 0, 0])
    }
}

fn seal_of(record: &[u8; SIZE]) -> u32 {
    let word = |at| read_word(record, at);
    seal([
        word(POOL),
        word(ID),
        word(ID + 4),
        word(ID + 8),
        word(ID + 12),
        word(ID + 16) ^ word(ID + 20).rotate_left(7),
    ])
}

impl Objects {
    /// The pool and the id of an object in use, whose record is sound.
    pub(crate) fn name<F: Frames>(
        &self,
        frames: &F,
        token: ObjectToken,
    ) -> Checked<(PoolToken, ObjectId)> {
        let record = self.record(frames, token)?;
        ensure(read_word(record, SEAL) == seal_of(record))?;
        let half = |at| u64::from(read_word(record, at));
        let id = [ID, ID + 8, ID + 16].map(|at| half(at) | half(at + 4) << 32);
        Ok((
            PoolToken(read_word(record, POOL) & !INCOMPLETE),
            ObjectId(id),
        ))
    }

    /// Whether a page that is not found was never there; the record is sound.
    pub(crate) fn is_complete<F: Frames>(&self, frames: &F, token: ObjectToken) -> Checked<bool> {
        Ok(self.word(frames, token, POOL)? & INCOMPLETE == 0)
    }

    /// Its pages and their bounds; a free record has no pages.
    pub(crate) fn extent<F: Frames>(&self, frames: &F, token: ObjectToken) -> Checked<Extent> {
        let record = self.record(frames, token)?;
        let extent = Extent {
            pages: read_word(record, PAGES),
            first: read_word(record, FIRST),
            last: read_word(record, LAST),
        };
        ensure(read_word(record, EXTENT_SEAL) == extent.seal())?;
        Ok(extent)
    }

    fn set_extent<F: Frames>(
        &mut self,
        frames: &mut F,
        token: ObjectToken,
        extent: Extent,
    ) -> Checked<()> {
        let record = self.record_mut(frames, token)?;
        write_word(record, PAGES, extent.pages);
        write_word(record, FIRST, extent.first);
        write_word(record, LAST, extent.last);
        write_word(record, EXTENT_SEAL, extent.seal());
        Ok(())
    }

    /// Writes a record without pages that is in no list.
    pub(crate) fn init<F: Frames>(
        &mut self,
        frames: &mut F,
        token: ObjectToken,
        pool: PoolToken,
        id: ObjectId,
        is_complete: bool,
    ) -> Checked<()> {
        let record = self.record_mut(frames, token)?;
        let flag = if is_complete { 0 } else { INCOMPLETE };
        write_word(record, POOL, pool.0 | flag);
        for (number, word) in id.0.iter().enumerate() {
            record[ID + number * 8..ID + number * 8 + 8].copy_from_slice(&word.to_le_bytes());
        }
        let seal = seal_of(record);
        write_word(record, SEAL, seal);
        self.forget_pages(frames, token)?;
        self.set_pool_links(frames, token, [None, None])
    }

    fn forget_pages<F: Frames>(&mut self, frames: &mut F, token: ObjectToken) -> Checked<()> {
        let none = Extent {
            pages: 0,
            first: u32::MAX,
            last: 0,
        };
        self.set_extent(frames, token, none)?;
        self.set_head(frames, token, None)
    }

    /// Begins to count the pages of an object anew, with what it says itself kept for the end. False for a record that is
    /// not sound, which is free then.
    pub(crate) fn begin_recount<F: Frames>(
        &mut self,
        frames: &mut F,
        token: ObjectToken,
    ) -> Checked<bool> {
        if self.name(frames, token).is_err() {
            self.clear(frames, token)?;
            return Ok(false);
        }
        // Of a count that is not sound, nobody knows that it is reached.
        let expected = self.extent(frames, token);
        let expected = expected.map_or(u32::MAX, |extent| extent.pages);
        self.forget_pages(frames, token)?;
        self.set_word(frames, token, EXPECTED, expected)
            .map(|()| true)
    }

    /// Ends that: whether pages are missing, which the record remembers.
    pub(crate) fn end_recount<F: Frames>(
        &mut self,
        frames: &mut F,
        token: ObjectToken,
    ) -> Checked<bool> {
        let expected = self.word(frames, token, EXPECTED)?;
        self.set_word(frames, token, EXPECTED, 0)?;
        let is_short = self.extent(frames, token)?.pages < expected;
        if is_short {
            let record = self.record_mut(frames, token)?;
            let pool = read_word(record, POOL) | INCOMPLETE;
            write_word(record, POOL, pool);
            let seal = seal_of(record);
            write_word(record, SEAL, seal);
        }
        Ok(is_short)
    }

    /// Counts a page in, which is now the first of the list.
    pub(crate) fn add_page<F: Frames>(
        &mut self,
        frames: &mut F,
        token: ObjectToken,
        index: u32,
        head: EntryToken,
    ) -> Checked<()> {
        let extent = self.extent(frames, token)?;
        let more = Extent {
            pages: extent.pages + 1,
            first: extent.first.min(index),
            last: extent.last.max(index),
        };
        self.set_extent(frames, token, more)?;
        self.set_head(frames, token, Some(head))
    }

    /// Counts a page out.
    pub(crate) fn remove_page<F: Frames>(
        &mut self,
        frames: &mut F,
        token: ObjectToken,
    ) -> Checked<()> {
        let extent = self.extent(frames, token)?;
        let pages = extent.pages.checked_sub(1).ok_or(Damaged::New)?;
        self.set_extent(frames, token, Extent { pages, ..extent })
    }

    /// Notes that every page has an index up to this.
    pub(crate) fn lower_last<F: Frames>(
        &mut self,
        frames: &mut F,
        token: ObjectToken,
        last: u32,
    ) -> Checked<()> {
        let extent = self.extent(frames, token)?;
        self.set_extent(frames, token, Extent { last, ..extent })
    }

    /// The first of its pages.
    pub(crate) fn head<F: Frames>(
        &self,
        frames: &F,
        token: ObjectToken,
    ) -> Checked<Option<EntryToken>> {
        Ok(match self.word(frames, token, HEAD)? {
            NONE => None,
            head => Some(EntryToken(head)),
        })
    }

    pub(crate) fn set_head<F: Frames>(
        &mut self,
        frames: &mut F,
        token: ObjectToken,
        head: Option<EntryToken>,
    ) -> Checked<()> {
        self.set_word(frames, token, HEAD, head.map_or(NONE, |head| head.0))
    }

    /// The object before this one in its pool's list, and the one behind it.
    pub(crate) fn pool_links<F: Frames>(
        &self,
        frames: &F,
        token: ObjectToken,
    ) -> Checked<[Option<ObjectToken>; 2]> {
        let record = self.record(frames, token)?;
        ensure(!is_free(record))?;
        Ok(
            [POOL_LINKS, POOL_LINKS + 4].map(|at| match read_word(record, at) {
                NONE => None,
                token => Some(ObjectToken(token)),
            }),
        )
    }

    pub(crate) fn set_pool_links<F: Frames>(
        &mut self,
        frames: &mut F,
        token: ObjectToken,
        [previous, next]: [Option<ObjectToken>; 2],
    ) -> Checked<()> {
        let record = self.record_mut(frames, token)?;
        write_word(record, POOL_LINKS, previous.map_or(NONE, |token| token.0));
        write_word(record, POOL_LINKS + 4, next.map_or(NONE, |token| token.0));
        Ok(())
    }
}

impl Chained for Objects {
    type Token = ObjectToken;

    fn link<F: Frames>(&self, frames: &F, token: ObjectToken) -> Checked<u32> {
        self.word(frames, token, LINK)
    }

    fn set_link<F: Frames>(
        &mut self,
        frames: &mut F,
        token: ObjectToken,
        link: u32,
    ) -> Checked<()> {
        self.set_word(frames, token, LINK, link)
    }

    fn hash<F: Frames>(&self, frames: &F, token: ObjectToken, seed: Seed) -> Checked<u32> {
        let (pool, id) = self.name(frames, token)?;
        Ok(seed.object(pool.0, id))
    }
}
