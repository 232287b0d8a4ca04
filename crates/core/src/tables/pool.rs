//! Pools: the 28-byte records of tmem pools that have objects here.
//!
//! Stage on the data path: from a key's pool to its objects, so that a flush of a pool visits what is in it and nothing
//! else.
//!
//! ```text
//! byte 0  link     hash chain, free list
//!      4  pool     id with its kind
//!      8  objects  records that name this pool
//!     12  head     the first of its objects
//!     16  1 when objects of it may have been lost
//!     20  seal of pool, objects and that
//!     24  while objects are counted anew: how many there were
//! ```
//!
//! Invariants:
//! - `objects == length of the list at head`; the record goes with its last object
//!
//! Does not: know which pools are open; the home does.

use super::hash::{Seed, seal};
use super::index::Chained;
use super::table::Table;
use super::tokens::{ObjectToken, PoolToken};
use super::words::{read_word, write_word};
use super::{Checked, Damaged, ensure};
use crate::frames::Frames;
use crate::ids::{NONE, PoolId};

const SIZE: usize = 28;
const LINK: usize = 0;
const POOL: usize = 4;
const OBJECTS: usize = 8;
const HEAD: usize = 12;
const INCOMPLETE: usize = 16;
const SEAL: usize = 20;
const EXPECTED: usize = 24;

/// The table of pools.
pub(crate) type Pools = Table<PoolToken, SIZE>;

fn seal_of(record: &[u8]) -> u32 {
    let word = |at| read_word(record, at);
    seal([word(POOL), word(INCOMPLETE), word(OBJECTS), 0, 0, 0])
}

impl Pools {
    /// The id of a pool in use, whose record is sound.
    pub(crate) fn id<F: Frames>(&self, frames: &F, token: PoolToken) -> Checked<PoolId> {
        let record = self.record(frames, token)?;
        ensure(read_word(record, SEAL) == seal_of(record))?;
        Ok(PoolId::from_bits(read_word(record, POOL)))
    }

    /// Whether an object that is not found was never there; the record is sound.
    pub(crate) fn is_complete<F: Frames>(&self, frames: &F, token: PoolToken) -> Checked<bool> {
        Ok(self.word(frames, token, INCOMPLETE)? == 0)
    }

    /// Remembers that objects of it may have been lost.
    pub(crate) fn set_incomplete<F: Frames>(
        &mut self,
        frames: &mut F,
        token: PoolToken,
    ) -> Checked<()> {
        self.id(frames, token)?;
        self.set_sealed(frames, token, INCOMPLETE, 1)
    }

    /// Writes a record without objects.
    pub(crate) fn init<F: Frames>(
        &mut self,
        frames: &mut F,
        token: PoolToken,
        pool: PoolId,
    ) -> Checked<()> {
        let record = self.record_mut(frames, token)?;
        write_word(record, POOL, pool.to_bits());
        write_word(record, INCOMPLETE, 0);
        write_word(record, EXPECTED, 0);
        self.set_sealed(frames, token, OBJECTS, 0)?;
        self.set_head(frames, token, None)
    }

    /// How many objects it has.
    pub(crate) fn objects<F: Frames>(&self, frames: &F, token: PoolToken) -> Checked<u32> {
        self.id(frames, token)?;
        self.word(frames, token, OBJECTS)
    }

    /// The first of its objects.
    pub(crate) fn head<F: Frames>(
        &self,
        frames: &F,
        token: PoolToken,
    ) -> Checked<Option<ObjectToken>> {
        Ok(match self.word(frames, token, HEAD)? {
            NONE => None,
            head => Some(ObjectToken(head)),
        })
    }

    pub(crate) fn set_head<F: Frames>(
        &mut self,
        frames: &mut F,
        token: PoolToken,
        head: Option<ObjectToken>,
    ) -> Checked<()> {
        self.set_word(frames, token, HEAD, head.map_or(NONE, |head| head.0))
    }

    /// Counts an object in, which is now the first of the list.
    pub(crate) fn add_object<F: Frames>(
        &mut self,
        frames: &mut F,
        token: PoolToken,
        head: ObjectToken,
    ) -> Checked<()> {
        let objects = self.objects(frames, token)?;
        self.set_sealed(frames, token, OBJECTS, objects + 1)?;
        self.set_head(frames, token, Some(head))
    }

    /// Counts an object out.
    pub(crate) fn remove_object<F: Frames>(
        &mut self,
        frames: &mut F,
        token: PoolToken,
    ) -> Checked<()> {
        let left = self.objects(frames, token)?.checked_sub(1);
        self.set_sealed(frames, token, OBJECTS, left.ok_or(Damaged::New)?)
    }

    /// Begins to count the objects of a pool anew, with what it says itself kept for the end. False for a record that is
    /// not sound, which is free then.
    pub(crate) fn begin_recount<F: Frames>(
        &mut self,
        frames: &mut F,
        token: PoolToken,
    ) -> Checked<bool> {
        let Ok(expected) = self.objects(frames, token) else {
            self.clear(frames, token)?;
            return Ok(false);
        };
        self.set_word(frames, token, EXPECTED, expected)?;
        self.set_sealed(frames, token, OBJECTS, 0)?;
        self.set_head(frames, token, None).map(|()| true)
    }

    /// Ends that: whether objects are missing, which the record remembers.
    pub(crate) fn end_recount<F: Frames>(
        &mut self,
        frames: &mut F,
        token: PoolToken,
    ) -> Checked<bool> {
        let expected = self.word(frames, token, EXPECTED)?;
        self.set_word(frames, token, EXPECTED, 0)?;
        let is_short = self.objects(frames, token)? < expected;
        if is_short {
            self.set_incomplete(frames, token)?;
        }
        Ok(is_short)
    }

    fn set_sealed<F: Frames>(
        &mut self,
        frames: &mut F,
        token: PoolToken,
        at: usize,
        value: u32,
    ) -> Checked<()> {
        let record = self.record_mut(frames, token)?;
        write_word(record, at, value);
        let seal = seal_of(record);
        write_word(record, SEAL, seal);
        Ok(())
    }
}

impl Chained for Pools {
    type Token = PoolToken;

    fn link<F: Frames>(&self, frames: &F, token: PoolToken) -> Checked<u32> {
        self.word(frames, token, LINK)
    }

    fn set_link<F: Frames>(&mut self, frames: &mut F, token: PoolToken, link: u32) -> Checked<()> {
        self.set_word(frames, token, LINK, link)
    }

    fn hash<F: Frames>(&self, frames: &F, token: PoolToken, seed: Seed) -> Checked<u32> {
        Ok(seed.pool(self.id(frames, token)?))
    }
}
