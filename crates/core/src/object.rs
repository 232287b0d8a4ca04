//! Objects: the 44-byte records of tmem objects that have pages here.
//!
//! Stage on the data path: a key's pool and 192-bit id are looked up once and from then on are a 4-byte token in each of
//! the object's entries.
//!
//! ```text
//! byte 0  link    hash chain, free list
//!      4  pool    id with its kind
//!      8  id      three u64
//!     32  pages   entries that name this object; 0 for a free record
//!     36  first   no page has a lower index
//!     40  last    no page has a higher index
//! ```
//!
//! Invariants:
//! - `pages == number of entries that name the object`; the record goes with its last page
//! - `first <= index <= last` for each of them
//!
//! Does not: list the pages. A flush probes the indices from first to last, or walks all entries where that is less.

use crate::frames::Frames;
use crate::ids::{Key, ObjectId, PoolId};
use crate::index::{Chained, mix};
use crate::table::{Table, read_word, write_word};

const SIZE: usize = 44;
const LINK: usize = 0;
const POOL: usize = 4;
const ID: usize = 8;
const PAGES: usize = 32;
const FIRST: usize = 36;
const LAST: usize = 40;

/// The table of objects.
pub(crate) type Objects = Table<SIZE, LINK>;

/// Pages of an object and the bounds of their indices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) pages: u32,
    pub(crate) first: u32,
    pub(crate) last: u32,
}

/// The hash of an object's key.
pub(crate) fn object_hash(pool: PoolId, id: ObjectId) -> u32 {
    let [a, b, c] = id.0;
    let hash = mix(mix(mix(a ^ u64::from(pool.to_bits()) << 32).wrapping_add(b)).wrapping_add(c));
    (hash >> 32) as u32
}

/// The hash of a page's key, given its object's token.
pub(crate) fn page_hash(object: u32, index: u32) -> u32 {
    (mix(u64::from(object) << 32 | u64::from(index)) >> 32) as u32
}

impl Objects {
    /// The pool of an object in use.
    pub(crate) fn pool<F: Frames>(&self, frames: &F, token: u32) -> PoolId {
        PoolId::from_bits(self.word(frames, token, POOL))
    }

    /// The id of an object in use.
    pub(crate) fn id<F: Frames>(&self, frames: &F, token: u32) -> ObjectId {
        let record = self.record(frames, token);
        let half = |at| u64::from(read_word(record, at));
        ObjectId([ID, ID + 8, ID + 16].map(|at| half(at) | half(at + 4) << 32))
    }

    /// Whether the object is the one a key names.
    pub(crate) fn is<F: Frames>(&self, frames: &F, token: u32, pool: PoolId, id: ObjectId) -> bool {
        self.pool(frames, token) == pool && self.id(frames, token) == id
    }

    /// Its pages and their bounds; a free record has no pages.
    pub(crate) fn extent<F: Frames>(&self, frames: &F, token: u32) -> Extent {
        let record = self.record(frames, token);
        Extent {
            pages: read_word(record, PAGES),
            first: read_word(record, FIRST),
            last: read_word(record, LAST),
        }
    }

    /// Writes a new record without pages.
    pub(crate) fn init<F: Frames>(&mut self, frames: &mut F, token: u32, key: &Key) {
        let record = self.record_mut(frames, token);
        write_word(record, POOL, key.pool.to_bits());
        for (number, word) in key.object.0.iter().enumerate() {
            record[ID + number * 8..ID + number * 8 + 8].copy_from_slice(&word.to_le_bytes());
        }
        write_word(record, PAGES, 0);
        write_word(record, FIRST, u32::MAX);
        write_word(record, LAST, 0);
    }

    /// Counts a page in.
    pub(crate) fn add_page<F: Frames>(&mut self, frames: &mut F, token: u32, index: u32) {
        let extent = self.extent(frames, token);
        let record = self.record_mut(frames, token);
        write_word(record, PAGES, extent.pages + 1);
        write_word(record, FIRST, extent.first.min(index));
        write_word(record, LAST, extent.last.max(index));
    }

    /// Counts a page out; how many are left.
    pub(crate) fn remove_page<F: Frames>(&mut self, frames: &mut F, token: u32) -> u32 {
        let left = self.word(frames, token, PAGES) - 1;
        self.set_word(frames, token, PAGES, left);
        left
    }
}

impl Chained for Objects {
    fn link<F: Frames>(&self, frames: &F, token: u32) -> u32 {
        self.word(frames, token, LINK)
    }

    fn set_link<F: Frames>(&mut self, frames: &mut F, token: u32, link: u32) {
        self.set_word(frames, token, LINK, link);
    }

    fn hash<F: Frames>(&self, frames: &F, token: u32) -> u32 {
        object_hash(self.pool(frames, token), self.id(frames, token))
    }
}
