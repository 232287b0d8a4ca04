//! Pools: the 24-byte records of tmem pools that have objects here.
//!
//! Stage on the data path: from a key's pool to its objects, so that a flush of a pool visits what is in it and nothing
//! else.
//!
//! ```text
//! byte 0  link     hash chain, free list
//!      4  pool     id with its kind
//!      8  objects  records that name this pool; 0 for a free record
//!     12  head     the first of its objects
//!     16  1 when objects of it may have been lost
//!     20  seal of pool and that
//! ```
//!
//! Invariants:
//! - `objects == length of the list at head`; the record goes with its last object
//!
//! Does not: know which pools are open; the home does.

use super::hash::{Seed, seal};
use super::index::Chained;
use super::object::ObjectToken;
use super::table::{Table, Token, read_word, write_word};
use super::{Checked, Damaged, ensure};
use crate::frames::Frames;
use crate::ids::{NONE, PoolId};

const SIZE: usize = 24;
const LINK: usize = 0;
const POOL: usize = 4;
const OBJECTS: usize = 8;
const HEAD: usize = 12;
const INCOMPLETE: usize = 16;
const SEAL: usize = 20;

/// Names a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PoolToken(pub(crate) u32);

impl Token for PoolToken {
    fn of(number: u32) -> Self {
        PoolToken(number)
    }

    fn number(self) -> u32 {
        self.0
    }

    fn is_free(record: &[u8]) -> bool {
        read_word(record, OBJECTS) == 0
    }
}

/// The table of pools.
pub(crate) type Pools = Table<PoolToken, SIZE>;

fn seal_of(pool: u32, incomplete: u32) -> u32 {
    seal([pool, incomplete, 0, 0, 0, 0])
}

impl Pools {
    /// The id of a pool in use, whose record is sound.
    pub(crate) fn id<F: Frames>(&self, frames: &F, token: PoolToken) -> Checked<PoolId> {
        let record = self.record(frames, token)?;
        let pool = read_word(record, POOL);
        ensure(read_word(record, SEAL) == seal_of(pool, read_word(record, INCOMPLETE)))?;
        Ok(PoolId::from_bits(pool))
    }

    /// Whether an object that is not found was never there; the record is sound.
    pub(crate) fn is_complete<F: Frames>(&self, frames: &F, token: PoolToken) -> Checked<bool> {
        Ok(self.word(frames, token, INCOMPLETE)? == 0)
    }

    /// Writes a record without objects.
    pub(crate) fn init<F: Frames>(
        &mut self,
        frames: &mut F,
        token: PoolToken,
        pool: PoolId,
        is_complete: bool,
    ) -> Checked<()> {
        let record = self.record_mut(frames, token)?;
        write_word(record, POOL, pool.to_bits());
        let incomplete = u32::from(!is_complete);
        write_word(record, INCOMPLETE, incomplete);
        write_word(record, SEAL, seal_of(pool.to_bits(), incomplete));
        self.set_objects(frames, token, 0, None)
    }

    /// How many objects it has.
    pub(crate) fn objects<F: Frames>(&self, frames: &F, token: PoolToken) -> Checked<u32> {
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

    pub(crate) fn set_objects<F: Frames>(
        &mut self,
        frames: &mut F,
        token: PoolToken,
        objects: u32,
        head: Option<ObjectToken>,
    ) -> Checked<()> {
        let record = self.record_mut(frames, token)?;
        write_word(record, OBJECTS, objects);
        write_word(record, HEAD, head.map_or(NONE, |head| head.0));
        Ok(())
    }

    /// Counts an object in, which is now the first of the list.
    pub(crate) fn add_object<F: Frames>(
        &mut self,
        frames: &mut F,
        token: PoolToken,
        head: ObjectToken,
    ) -> Checked<()> {
        let objects = self.objects(frames, token)?;
        self.set_objects(frames, token, objects + 1, Some(head))
    }

    /// Counts an object out; how many are left.
    pub(crate) fn remove_object<F: Frames>(
        &mut self,
        frames: &mut F,
        token: PoolToken,
    ) -> Checked<u32> {
        let left = self
            .objects(frames, token)?
            .checked_sub(1)
            .ok_or(Damaged::New)?;
        self.set_word(frames, token, OBJECTS, left)?;
        Ok(left)
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
