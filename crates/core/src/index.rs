//! The hash index: linear hashing over buckets of chain heads in frames.
//!
//! Stage on the data path: from a key to its record. Records are chained through their own link word, so a bucket is 4
//! bytes. The table grows by one bucket at a time (Litwin 1980: split the next bucket in order), so no put ever waits
//! for a rehash, and where no frame is to be had it simply does not grow.
//!
//! Invariants:
//! - a record is in the chain of `bucket(hash(record))` and in no other
//! - `records <= 5/4 * buckets`, unless growth failed
//!
//! Does not: compare keys; the caller walks the chain.

use crate::frames::Frames;
use crate::ids::NONE;
use crate::table::Table;

/// Records that can be chained: each knows its link and its hash.
pub(crate) trait Chained {
    /// The next record of the chain, or `NONE`.
    fn link<F: Frames>(&self, frames: &F, token: u32) -> u32;
    /// Changes the next record of the chain.
    fn set_link<F: Frames>(&mut self, frames: &mut F, token: u32, link: u32);
    /// The hash of the record's key.
    fn hash<F: Frames>(&self, frames: &F, token: u32) -> u32;
}

/// Buckets of chain heads.
#[derive(Debug)]
pub(crate) struct Index {
    heads: Table<4, 0>,
    records: u32,
}

impl Index {
    pub(crate) const fn new() -> Index {
        Index {
            heads: Table::new(),
            records: 0,
        }
    }

    /// Frames of the buckets.
    pub(crate) fn frames(&self) -> u32 {
        self.heads.frames()
    }

    /// Records in all chains.
    pub(crate) fn records(&self) -> u32 {
        self.records
    }

    /// The first record of the chain for a hash, or `NONE`.
    pub(crate) fn head<F: Frames>(&self, frames: &F, hash: u32) -> u32 {
        match self.bucket(hash) {
            None => NONE,
            Some(bucket) => self.heads.word(frames, bucket, 0),
        }
    }

    /// Makes sure that there is a bucket to insert into.
    pub(crate) fn prepare<F: Frames>(&mut self, frames: &mut F) -> Option<()> {
        if self.heads.made() == 0 {
            let bucket = self.heads.alloc(frames)?;
            self.heads.set_word(frames, bucket, 0, NONE);
        }
        Some(())
    }

    /// Chains a record, then grows by a bucket if it is time. False when it was time and no frame was to be had.
    ///
    /// # Panics
    /// Without an earlier successful `prepare`.
    pub(crate) fn insert<F: Frames>(
        &mut self,
        frames: &mut F,
        records: &mut impl Chained,
        token: u32,
    ) -> bool {
        let bucket = self
            .bucket(records.hash(frames, token))
            .expect("prepare was called");
        let head = self.heads.word(frames, bucket, 0);
        records.set_link(frames, token, head);
        self.heads.set_word(frames, bucket, 0, token);
        self.records += 1;
        // Compared in u64: five times the bound of a table does not fit 32 bits.
        u64::from(self.records) * 4 <= u64::from(self.heads.made()) * 5
            || self.split(frames, records).is_some()
    }

    /// Takes a record out of its chain.
    ///
    /// # Panics
    /// When it is not in its chain, which is a bug of the core.
    pub(crate) fn remove<F: Frames>(
        &mut self,
        frames: &mut F,
        records: &mut impl Chained,
        token: u32,
    ) {
        let bucket = self
            .bucket(records.hash(frames, token))
            .expect("a chained record has a bucket");
        let next = records.link(frames, token);
        let mut at = self.heads.word(frames, bucket, 0);
        if at == token {
            self.heads.set_word(frames, bucket, 0, next);
        } else {
            loop {
                assert!(at != NONE, "record {token} is not in its chain");
                let after = records.link(frames, at);
                if after == token {
                    break;
                }
                at = after;
            }
            records.set_link(frames, at, next);
        }
        self.records -= 1;
    }

    /// Gives every frame back.
    pub(crate) fn destroy<F: Frames>(&mut self, frames: &mut F) {
        self.heads.destroy(frames);
        self.records = 0;
    }

    fn bucket(&self, hash: u32) -> Option<u32> {
        let buckets = self.heads.made();
        if buckets == 0 {
            return None;
        }
        // The mask covers the buckets of the round under way; those not split yet fold onto the lower half.
        let mask = u32::MAX >> (buckets - 1).leading_zeros().min(31);
        let bucket = hash & mask;
        Some(if bucket < buckets {
            bucket
        } else {
            bucket & (mask >> 1)
        })
    }

    /// Adds a bucket and moves to it what belongs there from the one bucket it splits.
    fn split<F: Frames>(&mut self, frames: &mut F, records: &mut impl Chained) -> Option<()> {
        let new = self.heads.alloc(frames)?;
        let old = new & !(1 << (31 - new.leading_zeros()));
        let mut at = self.heads.word(frames, old, 0);
        let (mut stay, mut go) = (NONE, NONE);
        while at != NONE {
            let next = records.link(frames, at);
            let hash = records.hash(frames, at);
            let chain = if self.bucket(hash) == Some(new) {
                &mut go
            } else {
                &mut stay
            };
            records.set_link(frames, at, *chain);
            *chain = at;
            at = next;
        }
        self.heads.set_word(frames, old, 0, stay);
        self.heads.set_word(frames, new, 0, go);
        Some(())
    }
}

/// Scatters 64 bits over 64 bits (the finaliser of MurmurHash3).
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let value = (value ^ value >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ value >> 33
}
