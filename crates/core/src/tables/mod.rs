//! The records of a shard, in frames: what is stored, where it lies, and the lists through both.
//!
//! Stage on the data path: under every operation of the shard.
//!
//! - `frame_map`: data frames by number; `table`: records of one size in them
//! - `entry`, `object`, `pool`, `block`: the four kinds of records
//! - `index`: hash chains through records; `hash`: their hashes, and the seals of records
//! - `members`: the zpages of a block in rising order; `list`, `bins`: blocks by age and by room
//!
//! Invariants:
//! - a record is *sound* when its seal fits its fields; links are not sealed, since records say all that links say
//! - whoever follows a link checks that what it leads to points back, and ends with `Damaged` where it does not
//!
//! Does not: make anything good again; see `shard::repair`.

pub(crate) mod bins;
pub(crate) mod block;
pub(crate) mod entry;
mod frame_map;
pub(crate) mod hash;
pub(crate) mod index;
pub(crate) mod list;
pub(crate) mod members;
pub(crate) mod object;
pub(crate) mod pool;
pub(crate) mod table;
pub(crate) mod tokens;
mod words;

pub use entry::ENTRIES_MAX;

/// Bytes that sizes in this core are told by: what a record takes with its share of the frame's head.
pub mod metadata {
    /// Bytes of tables for a page with a handle, beside its share of a block's record.
    pub const HANDLE_BYTES: usize = 4096 / super::entry::HANDLES_PER_FRAME as usize;
    /// Bytes of tables for a page with a key, with its bucket at the usual load, beside its shares of an object's and a
    /// block's record.
    pub const KEY_BYTES: usize = 4096 / super::entry::KEYED_PER_FRAME as usize + 4;
    /// Bytes of tables for an object, with its bucket.
    pub const OBJECT_BYTES: usize = 4096 / super::object::OBJECTS_PER_FRAME as usize + 4;
    /// Bytes of tables for a block.
    pub const BLOCK_BYTES: usize = 4096 / super::block::BLOCKS_PER_FRAME as usize;
}

/// Why an answer cannot be given: a bit of long-held memory has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Damaged {
    /// Records contradict one another.
    New,
    /// They did before, and a record may have been lost here then.
    Known,
}

/// What reads records in frames: a contradiction is found, never believed.
pub(crate) type Checked<T> = Result<T, Damaged>;

/// `Ok` where something holds that undamaged records make sure of.
pub(crate) fn ensure(holds: bool) -> Checked<()> {
    if holds { Ok(()) } else { Err(Damaged::New) }
}
