//! Flushes of many pages: by object, by a range of its indices, by pool.
//!
//! Stage on the data path: the end of files, of processes and of caches. Each takes time by what it frees, whatever else is
//! stored, and can be done a part at a time, so that the shard's lock is not held for long.
//!
//! Does not: see pages that are put between two parts of a flush as others than those that were there.

use super::{Flushing, Shard};
use crate::frames::Frames;
use crate::ids::{EntryToken, ObjectId, PoolId};
use crate::tables::entry::{Entry, Owner};
use crate::tables::table::is_free;
use crate::tables::tokens::ObjectToken;
use crate::tables::{Checked, Damaged};

/// What a part of a flush came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flushed {
    /// Pages freed.
    pub pages: u32,
    /// Whether nothing is left to free.
    pub is_whole: bool,
}

impl Shard {
    /// Frees every page of an object; how many there were.
    pub fn flush_object(
        &mut self,
        frames: &mut impl Frames,
        pool: PoolId,
        object: ObjectId,
    ) -> u64 {
        let flushed = self.flush_object_part(frames, pool, object, u32::MAX);
        u64::from(flushed.pages)
    }

    /// Frees at most so many pages of an object.
    pub fn flush_object_part(
        &mut self,
        frames: &mut impl Frames,
        pool: PoolId,
        object: ObjectId,
        pages_max: u32,
    ) -> Flushed {
        self.flush_part(
            frames,
            Flushing::Object,
            pages_max,
            |shard, frames| match shard.find_object(frames, pool, object)? {
                Some(object) => shard.first_page(frames, object).map(Some),
                None => Ok(None),
            },
        )
    }

    /// Frees every page of a pool; how many there were.
    pub fn flush_pool(&mut self, frames: &mut impl Frames, pool: PoolId) -> u64 {
        u64::from(self.flush_pool_part(frames, pool, u32::MAX).pages)
    }

    /// Frees at most so many pages of a pool.
    pub fn flush_pool_part(
        &mut self,
        frames: &mut impl Frames,
        pool: PoolId,
        pages_max: u32,
    ) -> Flushed {
        self.flush_part(frames, Flushing::Pool, pages_max, |shard, frames| {
            let Some(pool) = shard.find_pool(frames, pool)? else {
                return Ok(None);
            };
            let object = shard.pools.head(frames, pool)?.ok_or(Damaged::New)?;
            shard.first_page(frames, object).map(Some)
        })
    }

    /// Frees every page of an object with an index in this range, both ends included; how many there were. Takes time by the
    /// pages of the object or by the length of the range within them, whichever is less.
    pub fn flush_range(
        &mut self,
        frames: &mut impl Frames,
        pool: PoolId,
        object: ObjectId,
        first: u32,
        last: u32,
    ) -> u64 {
        let before = self.counters.flushed;
        // What damage has lost is not found by a look either.
        let _ = self.sound(frames, |shard, frames| {
            let Some(object) = shard.find_object(frames, pool, object)? else {
                return Ok(());
            };
            let extent = shard.objects.extent(frames, object)?;
            let (from, to) = (first.max(extent.first), last.min(extent.last));
            if from > to {
                return Ok(());
            }
            if to - from < extent.pages {
                shard.flush_indices(frames, object, from, to)?;
            } else {
                shard.flush_listed(frames, object, from, to)?;
            }
            if last >= extent.last && first > extent.first && shard.has_pages(frames, object)? {
                shard.objects.lower_last(frames, object, first - 1)?;
            }
            Ok(())
        });
        self.counters.flushed - before
    }

    /// Looks for each index.
    fn flush_indices<F: Frames>(
        &mut self,
        frames: &mut F,
        object: ObjectToken,
        first: u32,
        last: u32,
    ) -> Checked<()> {
        for index in first..=last {
            match self.find_index(frames, object, index) {
                Ok(Some((token, entry))) => self.flush_entry(frames, token, &entry)?,
                Ok(None) | Err(Damaged::Known) => continue,
                Err(damaged) => return Err(damaged),
            }
            // The record of the object goes with its last page.
            if !self.has_pages(frames, object)? {
                break;
            }
        }
        Ok(())
    }

    /// Looks at each page of the object.
    fn flush_listed<F: Frames>(
        &mut self,
        frames: &mut F,
        object: ObjectToken,
        first: u32,
        last: u32,
    ) -> Checked<()> {
        let mut next = self.objects.head(frames, object)?;
        let mut left = self.objects.extent(frames, object)?.pages;
        while let Some(token) = next {
            left = left.checked_sub(1).ok_or(Damaged::New)?;
            next = self.entries.object_links(frames, token)?[1];
            let entry = self.entries.expect(frames, token)?;
            let index = index_in(&entry, object)?;
            if (first..=last).contains(&index) {
                self.flush_entry(frames, token, &entry)?;
            }
        }
        Ok(())
    }

    /// Frees pages that `next` names until it names none.
    fn flush_part<F: Frames>(
        &mut self,
        frames: &mut F,
        what: Flushing,
        pages_max: u32,
        mut next: impl FnMut(&Shard, &F) -> Checked<Option<EntryToken>>,
    ) -> Flushed {
        let before = self.counters.flushed;
        self.flushing = what;
        let is_whole = self.sound(frames, |shard, frames| {
            while shard.counters.flushed - before < u64::from(pages_max) {
                let Some(token) = next(shard, frames)? else {
                    return Ok(true);
                };
                let entry = shard.entries.expect(frames, token)?;
                shard.flush_entry(frames, token, &entry)?;
            }
            Ok(false)
        });
        self.flushing = Flushing::Pages;
        Flushed {
            pages: (self.counters.flushed - before) as u32,
            is_whole: is_whole.unwrap_or(true),
        }
    }

    fn first_page<F: Frames>(&self, frames: &F, object: ObjectToken) -> Checked<EntryToken> {
        self.objects.head(frames, object)?.ok_or(Damaged::New)
    }

    fn has_pages<F: Frames>(&self, frames: &F, object: ObjectToken) -> Checked<bool> {
        // With the last of its frame's objects the record's frame is gone.
        let record = self.objects.find(frames, object)?;
        Ok(record.is_some_and(|record| !is_free(record)))
    }
}

fn index_in(entry: &Entry, of: ObjectToken) -> Checked<u32> {
    match entry.owner {
        Owner::Key { object, index } if object == of => Ok(index),
        _ => Err(Damaged::New),
    }
}
