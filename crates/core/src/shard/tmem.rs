//! Pages addressed by key: the tmem contract.
//!
//! Stage on the data path: the door of cleancache, frontswap and the library.
//!
//! Invariants:
//! - a key has at most one page, and a put, stored or refused, leaves nothing of an older one
//! - once a get fails it fails until the next put
//! - an object record exists exactly while the object has pages, and a pool record while it has objects
//!
//! Does not: remove on get. An exclusive get is a get, and a flush of the page under the same lock.

use super::place::Address;
use super::room::tier_range;
use super::{Flushing, Shard};
use crate::exchange::{Found, Refused, TierRange, Zpage};
use crate::frames::Frames;
use crate::ids::{EntryToken, Key, Kind, ObjectId, PoolId};
use crate::tables::block::State;
use crate::tables::entry::{Entry, Owner};
use crate::tables::tokens::{ObjectToken, PoolToken};
use crate::tables::{Checked, Damaged, ensure};

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
        let older = self.sound(frames, |shard, frames| {
            let older = match shard.find_page(frames, key) {
                // Where a record was lost there may be an older page, which nothing finds any more.
                Err(Damaged::Known) => None,
                found => found?,
            };
            if let Some((token, entry)) = older {
                shard.remove_entry(frames, token, &entry)?;
                shard.counters.overwritten += 1;
            }
            Ok(older.is_some())
        });
        let Ok(older) = older else {
            self.counters.puts += 1;
            self.counters.rejected_damaged += 1;
            return Err(Refused::Damaged);
        };
        let result = self.store(frames, Address::Key(key), page);
        if older && result.is_err() {
            self.counters.overwritten -= 1;
            self.counters.put_to_flush += 1;
        }
        result.map(|_| ())
    }

    /// Where the page of a key is; `None` when there is none. The page stays, and does not get younger.
    pub fn get<'f, F: Frames>(&self, frames: &'f F, key: &Key) -> Option<Found<'f>> {
        match self.find_page(frames, key) {
            Ok(page) => page.map(|(_, entry)| self.found(frames, &entry)),
            // A page that may be dropped is not missed.
            Err(_) if key.pool.kind() == Kind::Ephemeral => None,
            Err(_) => Some(Found::Damaged),
        }
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
        let is_persistent = first.pool.kind() == Kind::Persistent;
        let object = match self.find_object(frames, first.pool, first.object) {
            Ok(Some(object)) => Ok(object),
            Ok(None) => return,
            Err(damaged) => Err(damaged),
        };
        let mut youngest = None;
        for ahead in 0..count {
            let Some(index) = first.index.checked_add(ahead) else {
                return;
            };
            let page = object.and_then(|object| self.find_index(frames, object, index));
            let found = match page {
                Ok(None) => continue,
                Ok(Some((_, entry))) => {
                    // Neighbours share blocks.
                    if let Some(span) = entry.span()
                        && youngest != Some(span.block)
                    {
                        // Damage is told by the look at the page.
                        let _ =
                            self.sound(frames, |shard, frames| shard.refresh(frames, span.block));
                        youngest = Some(span.block);
                    }
                    self.found(&*frames, &entry)
                }
                Err(_) if is_persistent => Found::Damaged,
                Err(_) => continue,
            };
            if !take(ahead, found) {
                return;
            }
        }
    }

    /// The key of an entry; `None` when the record is free or a handle's. With [`Shard::entries_made`] it finds every page
    /// that has a key.
    pub fn key<F: Frames>(&self, frames: &F, entry: EntryToken) -> Option<Key> {
        let page = self.entries.read(frames, entry).ok()??;
        let Owner::Key { object, index } = page.owner else {
            return None;
        };
        let (pool, id) = self.objects.name(frames, object).ok()?;
        Some(Key {
            pool: self.pools.id(frames, pool).ok()?,
            object: id,
            index,
        })
    }

    /// Every entry's token is below this.
    #[must_use]
    pub fn entries_made(&self) -> u32 {
        self.entries.made()
    }

    /// Makes the block of a key's page the youngest of its kind, where it is in RAM or an ephemeral one in a tier.
    pub fn touch_page(&mut self, frames: &mut impl Frames, key: &Key) {
        // Damage is told by the look at the page.
        let _ = self.sound(frames, |shard, frames| {
            let page = shard.find_page(frames, key)?;
            match page.and_then(|(_, entry)| entry.span()) {
                Some(span) => shard.refresh(frames, span.block),
                None => Ok(()),
            }
        });
    }

    /// Frees the page of a key; false when there is none.
    pub fn flush_page(&mut self, frames: &mut impl Frames, key: &Key) -> bool {
        self.flush_page_where(frames, key, |_, _, _| Ok(true))
    }

    /// Frees the page of a key if it is still this zpage of a tier: the end of an exclusive get that had to read the tier
    /// without the lock. False when the page has gone or moved, and the get is to begin again.
    pub fn flush_page_if(&mut self, frames: &mut impl Frames, key: &Key, at: TierRange) -> bool {
        self.flush_page_where(frames, key, |shard, frames, entry| {
            let Some(span) = entry.span() else {
                return Ok(false);
            };
            let block = shard.blocks.expect(frames, span.block)?;
            Ok(match block.state {
                State::InTier(slot) => tier_range(span, block.generation, slot) == at,
                _ => false,
            })
        })
    }

    fn flush_page_where<F: Frames>(
        &mut self,
        frames: &mut F,
        key: &Key,
        goes: impl Fn(&Shard, &F, &Entry) -> Checked<bool>,
    ) -> bool {
        self.sound(frames, |shard, frames| {
            let Some((token, entry)) = shard.find_page(frames, key)? else {
                return Ok(false);
            };
            let goes = goes(shard, frames, &entry)?;
            if goes {
                shard.flush_entry(frames, token, &entry)?;
            }
            Ok(goes)
        })
        .unwrap_or(false)
    }

    /// Pages of an object: whether a flush of it would find any.
    pub fn object_pages(&self, frames: &impl Frames, pool: PoolId, object: ObjectId) -> u32 {
        self.find_object(frames, pool, object)
            .ok()
            .flatten()
            .and_then(|token| self.objects.extent(frames, token).ok())
            .map_or(0, |extent| extent.pages)
    }

    pub(super) fn flush_entry<F: Frames>(
        &mut self,
        frames: &mut F,
        token: EntryToken,
        entry: &Entry,
    ) -> Checked<()> {
        self.remove_entry(frames, token, entry)?;
        self.counters.flushed += 1;
        Ok(())
    }

    pub(super) fn find_page<F: Frames>(
        &self,
        frames: &F,
        key: &Key,
    ) -> Checked<Option<(EntryToken, Entry)>> {
        match self.find_object(frames, key.pool, key.object)? {
            Some(object) => self.find_index(frames, object, key.index),
            None => Ok(None),
        }
    }

    pub(super) fn find_pool<F: Frames>(
        &self,
        frames: &F,
        pool: PoolId,
    ) -> Checked<Option<PoolToken>> {
        let hash = self.pool_index.seed().pool(pool);
        let found = self.pool_index.find(frames, &self.pools, hash, |token| {
            Ok(self.pools.id(frames, token)? == pool)
        })?;
        if found.is_none() && self.pools_lost {
            return Err(Damaged::Known);
        }
        Ok(found)
    }

    pub(super) fn find_object<F: Frames>(
        &self,
        frames: &F,
        pool: PoolId,
        id: ObjectId,
    ) -> Checked<Option<ObjectToken>> {
        let Some(pool) = self.find_pool(frames, pool)? else {
            return Ok(None);
        };
        let found = self.find_object_in(frames, pool, id)?;
        if found.is_none() && !self.pools.is_complete(frames, pool)? {
            return Err(Damaged::Known);
        }
        Ok(found)
    }

    fn find_object_in<F: Frames>(
        &self,
        frames: &F,
        pool: PoolToken,
        id: ObjectId,
    ) -> Checked<Option<ObjectToken>> {
        let hash = self.object_index.seed().object(pool.0, id);
        self.object_index
            .find(frames, &self.objects, hash, |token| {
                Ok(self.objects.name(frames, token)? == (pool, id))
            })
    }

    pub(super) fn find_index<F: Frames>(
        &self,
        frames: &F,
        object: ObjectToken,
        index: u32,
    ) -> Checked<Option<(EntryToken, Entry)>> {
        let hash = self.page_index.seed().page(object.0, index);
        let owner = Owner::Key { object, index };
        let mut found = None;
        let token = self.page_index.find(frames, &self.entries, hash, |token| {
            let entry = self.entries.expect(frames, token)?;
            let is = entry.owner == owner;
            if is {
                found = Some(entry);
            }
            Ok(is)
        })?;
        if token.is_none() && !self.objects.is_complete(frames, object)? {
            return Err(Damaged::Known);
        }
        Ok(token.zip(found))
    }

    /// The object of a key, made if there is none, and a bucket for a page of it; `None` when there is no frame for that.
    /// A new one has no pages yet.
    pub(super) fn object_for<F: Frames>(
        &mut self,
        frames: &mut F,
        key: &Key,
    ) -> Checked<Option<ObjectToken>> {
        if !self.page_index.prepare(frames)? {
            return Ok(None);
        }
        let Some(pool) = self.pool_for(frames, key.pool)? else {
            return Ok(None);
        };
        if let Some(object) = self.find_object_in(frames, pool, key.object)? {
            return Ok(Some(object));
        }
        // What takes the place of one that may have been lost is not complete.
        let is_complete = self.pools.is_complete(frames, pool)?;
        let made = self.make_object(frames, pool, key.object, is_complete)?;
        if made.is_none() {
            self.free_pool_if_empty(frames, pool)?;
        }
        Ok(made)
    }

    fn make_object<F: Frames>(
        &mut self,
        frames: &mut F,
        pool: PoolToken,
        id: ObjectId,
        is_complete: bool,
    ) -> Checked<Option<ObjectToken>> {
        if !self.object_index.prepare(frames)? {
            return Ok(None);
        }
        let Some(token) = self.objects.alloc(frames)? else {
            return Ok(None);
        };
        self.objects.init(frames, token, pool, id, is_complete)?;
        let grew = self.object_index.insert(frames, &mut self.objects, token)?;
        self.counters.index_growth_failed += u64::from(!grew);
        let head = self.pools.head(frames, pool)?;
        self.objects.set_pool_links(frames, token, [None, head])?;
        if let Some(head) = head {
            let [previous, next] = self.objects.pool_links(frames, head)?;
            ensure(previous.is_none())?;
            self.objects
                .set_pool_links(frames, head, [Some(token), next])?;
        }
        self.pools.add_object(frames, pool, token)?;
        Ok(Some(token))
    }

    fn pool_for<F: Frames>(&mut self, frames: &mut F, pool: PoolId) -> Checked<Option<PoolToken>> {
        match self.find_pool(frames, pool) {
            Ok(Some(token)) => return Ok(Some(token)),
            Ok(None) | Err(Damaged::Known) => {}
            Err(damaged) => return Err(damaged),
        }
        if !self.pool_index.prepare(frames)? {
            return Ok(None);
        }
        let Some(token) = self.pools.alloc(frames)? else {
            return Ok(None);
        };
        self.pools.init(frames, token, pool)?;
        if self.pools_lost {
            self.pools.set_incomplete(frames, token)?;
        }
        let grew = self.pool_index.insert(frames, &mut self.pools, token)?;
        self.counters.index_growth_failed += u64::from(!grew);
        Ok(Some(token))
    }

    /// Makes an entry the first of its object's pages.
    pub(super) fn add_to_object<F: Frames>(
        &mut self,
        frames: &mut F,
        token: EntryToken,
        object: ObjectToken,
        index: u32,
    ) -> Checked<()> {
        let head = self.objects.head(frames, object)?;
        self.entries.set_object_links(frames, token, [None, head])?;
        if let Some(head) = head {
            let [previous, next] = self.entries.object_links(frames, head)?;
            ensure(previous.is_none())?;
            self.entries
                .set_object_links(frames, head, [Some(token), next])?;
        }
        self.objects.add_page(frames, object, index, token)
    }

    /// Takes an entry out of its object's list.
    pub(super) fn remove_from_object<F: Frames>(
        &mut self,
        frames: &mut F,
        token: EntryToken,
        object: ObjectToken,
    ) -> Checked<()> {
        let [previous, next] = self.entries.object_links(frames, token)?;
        match previous {
            None => {
                ensure(self.objects.head(frames, object)? == Some(token))?;
                self.objects.set_head(frames, object, next)?;
            }
            Some(other) => {
                let [before, behind] = self.entries.object_links(frames, other)?;
                ensure(behind == Some(token))?;
                self.entries
                    .set_object_links(frames, other, [before, next])?;
            }
        }
        if let Some(other) = next {
            let [before, behind] = self.entries.object_links(frames, other)?;
            ensure(before == Some(token))?;
            self.entries
                .set_object_links(frames, other, [previous, behind])?;
        }
        self.objects.remove_page(frames, object)
    }

    pub(super) fn free_object_if_empty<F: Frames>(
        &mut self,
        frames: &mut F,
        object: ObjectToken,
    ) -> Checked<()> {
        if self.objects.extent(frames, object)?.pages != 0 {
            return Ok(());
        }
        ensure(self.objects.head(frames, object)?.is_none())?;
        let (pool, _) = self.objects.name(frames, object)?;
        // Its lost pages have not been flushed with those that were there, unless all of it is.
        if !self.objects.is_complete(frames, object)? && self.flushing == Flushing::Pages {
            self.pools.set_incomplete(frames, pool)?;
        }
        self.object_index
            .remove(frames, &mut self.objects, object)?;
        let [previous, next] = self.objects.pool_links(frames, object)?;
        self.pools.remove_object(frames, pool)?;
        match previous {
            None => {
                ensure(self.pools.head(frames, pool)? == Some(object))?;
                self.pools.set_head(frames, pool, next)?;
            }
            Some(other) => {
                let [before, behind] = self.objects.pool_links(frames, other)?;
                ensure(behind == Some(object))?;
                self.objects.set_pool_links(frames, other, [before, next])?;
            }
        }
        if let Some(other) = next {
            let [before, behind] = self.objects.pool_links(frames, other)?;
            ensure(before == Some(object))?;
            self.objects
                .set_pool_links(frames, other, [previous, behind])?;
        }
        self.free_pool_if_empty(frames, pool)?;
        self.objects.clear(frames, object)?;
        let done = self.objects.free(frames, object);
        self.given_back(done);
        Ok(())
    }

    fn free_pool_if_empty<F: Frames>(&mut self, frames: &mut F, pool: PoolToken) -> Checked<()> {
        if self.pools.objects(frames, pool)? != 0 {
            return Ok(());
        }
        ensure(self.pools.head(frames, pool)?.is_none())?;
        if !self.pools.is_complete(frames, pool)? && self.flushing != Flushing::Pool {
            self.pools_lost = true;
        }
        self.pool_index.remove(frames, &mut self.pools, pool)?;
        self.pools.clear(frames, pool)?;
        let done = self.pools.free(frames, pool);
        self.given_back(done);
        Ok(())
    }
}
