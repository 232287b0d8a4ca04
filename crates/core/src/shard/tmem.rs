//! Pages addressed by key: the tmem contract.
//!
//! Stage on the data path: the door of cleancache, frontswap and the library.
//!
//! Invariants:
//! - a key has at most one page, and a put, stored or refused, leaves nothing of an older one
//! - once a get fails it fails until the next put
//! - an object record exists exactly while the object has pages
//!
//! Does not: remove on get. An exclusive get is a get, and a flush of the page under the same lock.

use super::Shard;
use super::place::{Owner, tier_range};
use crate::block::State;
use crate::entry::Entry;
use crate::frames::Frames;
use crate::ids::{EntryToken, Found, Key, NONE, ObjectId, PoolId, Refused, TierRange, Zpage};
use crate::object::{object_hash, page_hash};
use crate::table::Table;

impl Shard {
    /// Stores a page under a key.
    ///
    /// # Errors
    /// Why it was not stored. An older page under the key is gone in any case.
    pub fn put(
        &mut self,
        frames: &mut impl Frames,
        key: &Key,
        page: Zpage<'_>,
    ) -> Result<(), Refused> {
        let older = self.find_page(frames, key);
        if let Some((token, entry)) = older {
            self.remove_entry(frames, token, &entry);
        }
        let result = self.store(frames, Owner::Key(key), page);
        if older.is_some() {
            match result {
                Ok(_) => self.counters.overwritten += 1,
                Err(_) => self.counters.put_to_flush += 1,
            }
        }
        result.map(|_| ())
    }

    /// Where the page of a key is; `None` when there is none. The page stays, and does not get younger.
    pub fn get<'f, F: Frames>(&self, frames: &'f F, key: &Key) -> Option<Found<'f>> {
        let (_, entry) = self.find_page(frames, key)?;
        Some(self.found(frames, &entry))
    }

    /// Shows `take` the pages of an object at `first.index` and after it, up to `count` indices, by how far they lie from
    /// the first; those that there are not, not. Their blocks get the youngest of their kind. Ends early when `take` says
    /// false. One lookup of the object serves all.
    pub fn get_run<F: Frames>(
        &mut self,
        frames: &mut F,
        first: &Key,
        count: u32,
        mut take: impl FnMut(u32, Found<'_>) -> bool,
    ) {
        let Some(object) = self.find_object(frames, first.pool, first.object) else {
            return;
        };
        let mut youngest = NONE;
        for ahead in 0..count {
            let Some(index) = first.index.checked_add(ahead) else {
                return;
            };
            let Some((_, entry)) = self.find_index(frames, object, index) else {
                continue;
            };
            // Neighbours share blocks.
            if let Some(span) = entry.span()
                && span.block != youngest
            {
                self.refresh(frames, span.block);
                youngest = span.block;
            }
            if !take(ahead, self.found(&*frames, &entry)) {
                return;
            }
        }
    }

    /// The key of an entry; `None` when the record is free or a handle's. With [`Shard::entries_made`] it finds every page
    /// that has a key.
    pub fn key<F: Frames>(&self, frames: &F, entry: EntryToken) -> Option<Key> {
        if entry.0 >= self.entries.made() {
            return None;
        }
        let page = self.entries.read(frames, entry.0)?;
        (!page.is_handle()).then(|| Key {
            pool: self.objects.pool(frames, page.object),
            object: self.objects.id(frames, page.object),
            index: page.index,
        })
    }

    /// Every entry's token is below this.
    #[must_use]
    pub fn entries_made(&self) -> u32 {
        self.entries.made()
    }

    /// Makes the block of a key's page the youngest of its kind, where it is in RAM.
    pub fn touch_page(&mut self, frames: &mut impl Frames, key: &Key) {
        if let Some(span) = self
            .find_page(frames, key)
            .and_then(|(_, entry)| entry.span())
        {
            self.refresh(frames, span.block);
        }
    }

    /// Frees the page of a key; false when there is none.
    pub fn flush_page(&mut self, frames: &mut impl Frames, key: &Key) -> bool {
        let Some((token, entry)) = self.find_page(frames, key) else {
            return false;
        };
        self.flush_entry(frames, token, &entry);
        true
    }

    /// Frees the page of a key if it is still at this place in a tier: the end of an exclusive get that had to read the
    /// tier without the lock. False when the page has gone or moved, and the get is to begin again.
    pub fn flush_page_if(&mut self, frames: &mut impl Frames, key: &Key, at: TierRange) -> bool {
        let Some((token, entry)) = self.find_page(frames, key) else {
            return false;
        };
        let Some(span) = entry.span() else {
            return false;
        };
        let State::InTier(slot) = self.blocks.expect(frames, span.block).state else {
            return false;
        };
        let unmoved = tier_range(span, slot) == at;
        if unmoved {
            self.flush_entry(frames, token, &entry);
        }
        unmoved
    }

    /// Frees every page of an object; how many there were. Takes time by the distance of the object's lowest and highest
    /// index, or by the number of entries of the shard, whichever is less.
    pub fn flush_object(
        &mut self,
        frames: &mut impl Frames,
        pool: PoolId,
        object: ObjectId,
    ) -> u64 {
        let Some(object) = self.find_object(frames, pool, object) else {
            return 0;
        };
        let extent = self.objects.extent(frames, object);
        let before = self.counters.flushed;
        if extent.last - extent.first >= self.entries.made() {
            self.flush_entries_where(frames, |entry, _, _| entry.object == object);
        } else {
            let mut left = extent.pages;
            for index in extent.first..=extent.last {
                if let Some((token, entry)) = self.find_index(frames, object, index) {
                    self.flush_entry(frames, token, &entry);
                    left -= 1;
                    // The record of the object has gone with its last page.
                    if left == 0 {
                        break;
                    }
                }
            }
        }
        self.counters.flushed - before
    }

    /// Pages of an object: whether a flush of it would find any, and so whether it is worth to divide one that is long.
    pub fn object_pages(&self, frames: &impl Frames, pool: PoolId, object: ObjectId) -> u32 {
        self.find_object(frames, pool, object)
            .map_or(0, |token| self.objects.extent(frames, token).pages)
    }

    /// Frees every page of a pool; how many there were. Takes time by the number of entries of the shard.
    pub fn flush_pool(&mut self, frames: &mut impl Frames, pool: PoolId) -> u64 {
        let before = self.counters.flushed;
        self.flush_entries_where(frames, |entry, shard, frames| {
            shard.objects.pool(frames, entry.object) == pool
        });
        self.counters.flushed - before
    }

    fn flush_entries_where<F: Frames>(
        &mut self,
        frames: &mut F,
        goes: impl Fn(&Entry, &Shard, &F) -> bool,
    ) {
        for token in 0..self.entries.made() {
            if let Some(entry) = self.entries.read(frames, token)
                && !entry.is_handle()
                && goes(&entry, self, frames)
            {
                self.flush_entry(frames, token, &entry);
            }
        }
    }

    fn flush_entry<F: Frames>(&mut self, frames: &mut F, token: u32, entry: &Entry) {
        self.remove_entry(frames, token, entry);
        self.counters.flushed += 1;
    }

    fn find_page<F: Frames>(&self, frames: &F, key: &Key) -> Option<(u32, Entry)> {
        let object = self.find_object(frames, key.pool, key.object)?;
        self.find_index(frames, object, key.index)
    }

    pub(super) fn find_object<F: Frames>(
        &self,
        frames: &F,
        pool: PoolId,
        id: ObjectId,
    ) -> Option<u32> {
        let mut token = self.object_index.head(frames, object_hash(pool, id));
        while token != NONE && !self.objects.is(frames, token, pool, id) {
            token = crate::index::Chained::link(&self.objects, frames, token);
        }
        (token != NONE).then_some(token)
    }

    pub(super) fn find_index<F: Frames>(
        &self,
        frames: &F,
        object: u32,
        index: u32,
    ) -> Option<(u32, Entry)> {
        let mut token = self.page_index.head(frames, page_hash(object, index));
        while token != NONE {
            let (entry_object, entry_index, link) = self.entries.chain_key(frames, token);
            if entry_object == object && entry_index == index {
                return Some((
                    token,
                    self.entries
                        .read(frames, token)
                        .expect("a chained entry is in use"),
                ));
            }
            token = link;
        }
        None
    }

    /// The object of a key, made if there is none, and a bucket for a page of it. A new one has no pages yet.
    pub(super) fn object_for<F: Frames>(&mut self, frames: &mut F, key: &Key) -> Option<u32> {
        self.page_index.prepare(frames)?;
        if let Some(object) = self.find_object(frames, key.pool, key.object) {
            return Some(object);
        }
        self.object_index.prepare(frames)?;
        let token = Table::alloc(&mut self.objects, frames)?;
        self.objects.init(frames, token, key);
        if !self.object_index.insert(frames, &mut self.objects, token) {
            self.counters.index_growth_failed += 1;
        }
        Some(token)
    }

    pub(super) fn free_object_if_empty<F: Frames>(&mut self, frames: &mut F, object: u32) {
        if self.objects.extent(frames, object).pages == 0 {
            self.object_index.remove(frames, &mut self.objects, object);
            self.objects.free(frames, object);
        }
    }
}
