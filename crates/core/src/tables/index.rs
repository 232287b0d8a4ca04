//! The hash index: linear hashing over buckets of chain heads in frames.
//!
//! Stage on the data path: from a key to its record. Records are chained through their own link word, so a bucket is 4
//! bytes. The table grows and shrinks by one bucket at a time (Litwin 1980: split the next bucket in order), so no put ever
//! waits for a rehash, and where no frame is to be had it simply does not grow.
//!
//! Invariants:
//! - a record is in the chain of `bucket(hash(record))` and in no other
//! - `records <= 5/4 * buckets`, unless growth failed; `records >= 1/2 * buckets` or there is one bucket, or none
//!
//! Does not: compare keys; the caller does.

use super::frame_map::FrameMap;
use super::hash::Seed;
use super::tokens::Link;
use super::words::{read_word, write_word};
use super::{Checked, Damaged, ensure};
use crate::frames::{FRAME_SIZE, Frames, Run};
use crate::ids::{EntryToken, NONE};

/// Buckets of a data frame.
const PER_FRAME: u32 = (FRAME_SIZE / 4) as u32;
/// Records that can be chained: each knows its link and its hash.
pub(crate) trait Chained {
    type Token: Link;
    /// The next record of the chain, or `NONE`.
    fn link<F: Frames>(&self, frames: &F, token: Self::Token) -> Checked<u32>;
    /// Changes the next record of the chain.
    fn set_link<F: Frames>(&mut self, frames: &mut F, token: Self::Token, link: u32)
    -> Checked<()>;
    /// The hash of a sound record's key.
    fn hash<F: Frames>(&self, frames: &F, token: Self::Token, seed: Seed) -> Checked<u32>;
}

/// Buckets of chain heads.
#[derive(Debug)]
pub(crate) struct Index {
    heads: FrameMap,
    seed: Seed,
    buckets: u32,
    records: u32,
}

impl Index {
    pub(crate) const fn new(seed: Seed) -> Index {
        Index {
            heads: FrameMap::new(),
            seed,
            buckets: 0,
            records: 0,
        }
    }

    /// What its hashes depend on.
    pub(crate) fn seed(&self) -> Seed {
        self.seed
    }

    /// Frames of the buckets.
    pub(crate) fn frames(&self) -> u32 {
        self.heads.frames()
    }

    /// Records in all chains.
    pub(crate) fn records(&self) -> u32 {
        self.records
    }

    /// The record with this hash that `is` says yes to; `None` when there is none. One that is not sound is passed by, since
    /// its link is not part of what is sealed; but then nobody knows that there is none.
    pub(crate) fn find<F: Frames, C: Chained>(
        &self,
        frames: &F,
        records: &C,
        hash: u32,
        mut is: impl FnMut(C::Token) -> Checked<bool>,
    ) -> Checked<Option<C::Token>> {
        let Some(bucket) = self.bucket(hash) else {
            return Ok(None);
        };
        let (mut next, mut left) = (self.head(frames, bucket)?, self.records);
        let mut all_sound = Ok(());
        while let Some(token) = next {
            left = left.checked_sub(1).ok_or(Damaged::New)?;
            match records.hash(frames, token, self.seed) {
                Ok(hash) => {
                    ensure(self.bucket(hash) == Some(bucket))?;
                    if is(token)? {
                        return Ok(Some(token));
                    }
                }
                Err(damaged) => all_sound = Err(damaged),
            }
            next = link(records.link(frames, token)?);
        }
        all_sound.map(|()| None)
    }

    /// Makes sure that there is a bucket to insert into; false when there is no frame for it.
    pub(crate) fn prepare<F: Frames>(&mut self, frames: &mut F) -> Checked<bool> {
        Ok(self.buckets != 0 || self.add_bucket(frames)?.is_some())
    }

    /// Chains a record, then grows by a bucket if it is time. False when it was time and no frame was to be had. Call
    /// `prepare` before.
    pub(crate) fn insert<F: Frames, C: Chained>(
        &mut self,
        frames: &mut F,
        records: &mut C,
        token: C::Token,
    ) -> Checked<bool> {
        let hash = records.hash(frames, token, self.seed)?;
        let bucket = self.bucket(hash).ok_or(Damaged::New)?;
        let head = self.head::<F, C::Token>(frames, bucket)?;
        records.set_link(frames, token, head.map_or(NONE, Link::to_link))?;
        self.set_head(frames, bucket, Some(token))?;
        self.records += 1;
        // Compared in u64: five times the bound of a table does not fit 32 bits.
        if u64::from(self.records) * 4 <= u64::from(self.buckets) * 5 {
            return Ok(true);
        }
        self.split(frames, records)
    }

    /// Takes a record out of its chain, then gives back a bucket if it is time.
    pub(crate) fn remove<F: Frames, C: Chained>(
        &mut self,
        frames: &mut F,
        records: &mut C,
        token: C::Token,
    ) -> Checked<()> {
        let hash = records.hash(frames, token, self.seed)?;
        let bucket = self.bucket(hash).ok_or(Damaged::New)?;
        let behind = records.link(frames, token)?;
        let head = self.head(frames, bucket)?;
        if head == Some(token) {
            self.set_head::<F, C::Token>(frames, bucket, link(behind))?;
        } else {
            let (mut at, mut left) = (head.ok_or(Damaged::New)?, self.records);
            loop {
                left = left.checked_sub(1).ok_or(Damaged::New)?;
                let next: C::Token = link(records.link(frames, at)?).ok_or(Damaged::New)?;
                if next == token {
                    break;
                }
                at = next;
            }
            records.set_link(frames, at, behind)?;
        }
        self.records = self.records.checked_sub(1).ok_or(Damaged::New)?;
        // Two at a time, so that there are few when there are few records.
        for _ in 0..2 {
            if self.buckets > 1 && u64::from(self.records) * 2 < u64::from(self.buckets) {
                self.merge(frames, records)?;
            }
        }
        if self.buckets == 1 && self.records == 0 {
            self.forget_last_bucket::<F, C::Token>(frames)?;
        }
        Ok(())
    }

    /// Gives the only bucket back.
    fn forget_last_bucket<F: Frames, T: Link>(&mut self, frames: &mut F) -> Checked<()> {
        ensure(self.head::<F, T>(frames, 0)?.is_none())?;
        self.buckets = 0;
        self.heads.remove(frames, 0)
    }

    /// Empties every chain, for sound records to be inserted again.
    pub(crate) fn forget_records<F: Frames>(&mut self, frames: &mut F) {
        self.records = 0;
        if self.heads.forget_damaged(frames) > 0 {
            self.heads.destroy(frames);
            self.buckets = 0;
        }
        for bucket in 0..self.buckets {
            // All frames are there.
            let _ = self.set_head::<F, EntryToken>(frames, bucket, None);
        }
    }

    /// Gives every frame back.
    pub(crate) fn destroy<F: Frames>(&mut self, frames: &mut F) {
        self.heads.destroy(frames);
        self.buckets = 0;
        self.records = 0;
    }

    fn bucket(&self, hash: u32) -> Option<u32> {
        if self.buckets == 0 {
            return None;
        }
        // The mask covers the buckets of the round under way; those not split yet fold onto the lower half.
        let mask = u32::MAX >> (self.buckets - 1).leading_zeros().min(31);
        let bucket = hash & mask;
        Some(if bucket < self.buckets {
            bucket
        } else {
            bucket & (mask >> 1)
        })
    }

    /// The first record of a chain.
    fn head<F: Frames, T: Link>(&self, frames: &F, bucket: u32) -> Checked<Option<T>> {
        let frame = self
            .heads
            .get(frames, bucket / PER_FRAME)?
            .ok_or(Damaged::New)?;
        let bytes = frames.bytes(frame, Run::FRAME);
        Ok(link(read_word(bytes, (bucket % PER_FRAME) as usize * 4)))
    }

    fn set_head<F: Frames, T: Link>(
        &mut self,
        frames: &mut F,
        bucket: u32,
        head: Option<T>,
    ) -> Checked<()> {
        let frame = self
            .heads
            .get(frames, bucket / PER_FRAME)?
            .ok_or(Damaged::New)?;
        let at = (bucket % PER_FRAME) as usize * 4;
        let word = head.map_or(NONE, Link::to_link);
        write_word(frames.bytes_mut(frame, Run::FRAME), at, word);
        Ok(())
    }

    /// One more bucket, of an empty chain; `None` when there is no frame for it.
    fn add_bucket<F: Frames>(&mut self, frames: &mut F) -> Checked<Option<u32>> {
        let new = self.buckets;
        if new.is_multiple_of(PER_FRAME) && self.heads.add(frames)?.is_none() {
            return Ok(None);
        }
        self.buckets += 1;
        self.set_head::<F, EntryToken>(frames, new, None)?;
        Ok(Some(new))
    }

    /// Adds a bucket and moves to it what belongs there from the one bucket it splits; false when there is no frame.
    fn split<F: Frames, C: Chained>(&mut self, frames: &mut F, records: &mut C) -> Checked<bool> {
        let Some(new) = self.add_bucket(frames)? else {
            return Ok(false);
        };
        let old = buddy(new);
        let mut at = self.head(frames, old)?;
        let (mut stay, mut go) = (None, None);
        let mut left = self.records;
        while let Some(token) = at {
            left = left.checked_sub(1).ok_or(Damaged::New)?;
            at = link(records.link(frames, token)?);
            let bucket = self.bucket(records.hash(frames, token, self.seed)?);
            ensure(bucket == Some(new) || bucket == Some(old))?;
            let chain = if bucket == Some(new) {
                &mut go
            } else {
                &mut stay
            };
            records.set_link(frames, token, chain.map_or(NONE, Link::to_link))?;
            *chain = Some(token);
        }
        self.set_head(frames, old, stay)?;
        self.set_head(frames, new, go)?;
        Ok(true)
    }

    /// Gives the last bucket back and moves its records to the one that it was split from.
    fn merge<F: Frames, C: Chained>(&mut self, frames: &mut F, records: &mut C) -> Checked<()> {
        let last = self.buckets - 1;
        let old = buddy(last);
        let mut at = self.head(frames, last)?;
        let mut head = self.head(frames, old)?;
        let mut left = self.records;
        while let Some(token) = at {
            left = left.checked_sub(1).ok_or(Damaged::New)?;
            let hash = records.hash(frames, token, self.seed)?;
            ensure(self.bucket(hash) == Some(last))?;
            at = link(records.link(frames, token)?);
            records.set_link(frames, token, head.map_or(NONE, Link::to_link))?;
            head = Some(token);
        }
        self.set_head(frames, old, head)?;
        self.buckets = last;
        if last.is_multiple_of(PER_FRAME) {
            self.heads.remove(frames, last / PER_FRAME)?;
        }
        Ok(())
    }
}

fn link<T: Link>(word: u32) -> Option<T> {
    (word != NONE).then(|| T::from_link(word))
}

/// The bucket that this one, not the first, was split from.
fn buddy(bucket: u32) -> u32 {
    bucket & !(1 << (31 - bucket.leading_zeros()))
}
