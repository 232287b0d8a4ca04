//! Pages by key, with the contract of transcendent memory (Magenheimer et al.,
//! "Transcendent Memory and Linux", OLS 2009): pools, objects and indices.
//!
//! - put, put, get never gives the page of the first put, even if the second
//!   was refused.
//! - Once a get misses, gets miss until the next put.
//! - A persistent page stays until it is flushed or taken; an ephemeral one may
//!   go at any time. Persistent pages displace ephemeral ones, never the
//!   reverse.

use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::{Arc, Instant, PoisonError};
use std::cell::Cell;
use std::time::Duration;

use zcache_core::{Flushed, Key, Kind as PoolKind, ObjectId, PoolId, Shard, TierRange, Zpage};

use super::Store;
use super::coding::dictionaries::Scope;
use super::counts::add;
use super::load::Seen;
use super::part::Part;
use super::pools::Owner;
use super::reclaim::outcome::Stop;
use crate::error::{LoadError, PageName, Rejected};
use crate::frames::ShardFrames;
use crate::page::Page;

/// Pages that a flush frees under one holding of a lock: some 100 µs.
const FLUSH_PART_PAGES: u32 = 256;

/// RAM that a put into a full store asks to be reclaimed before it tries again.
const PUT_RECLAIM_BYTES: u64 = 1 << 20;

/// How long a put goes on to make room that other threads take.
const PUT_ROOM_TIME_MAX: Duration = Duration::from_secs(10);

/// How often a put looks for blocks that could leave and finds none, or finds
/// that what became free is not enough, before it is refused.
const PUT_LOOKS_IN_VAIN_MAX: u32 = 3;

/// How often a put has sparse blocks of the tier packed anew, which takes RAM first,
/// before it is refused.
const PUT_PACKINGS_MAX: u32 = 8;

impl Store {
    /// Opens a pool. Numbers are not used again.
    ///
    /// A pool costs 10 to 21 bytes of RAM (12 each of a hundred or of a hundred
    /// thousand), and some 200 more once so many pages came to it that a
    /// dictionary may be trained for them. All of it is counted in
    /// [`Store::ram_bytes`] and given back when pools are destroyed.
    ///
    /// # Panics
    /// When 2^31 pools have been opened.
    pub fn create_pool(&self, kind: PoolKind) -> PoolId {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        pools.open(kind)
    }

    /// Flushes every page of a pool and closes it. Returns how many pages there
    /// were.
    pub fn destroy_pool(&self, pool: PoolId) -> u64 {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        let scope = pools.close(pool);
        // Puts check their pool under the read lock and hold it until they have
        // stored, so none can come after this.
        drop(pools);
        if let Some(scope) = scope {
            scope.close();
            self.turns.leave(&scope);
        }
        let flushed = self.flush_pool(pool);
        self.retire_dictionaries();
        flushed
    }

    /// Whose pages a pool's are, when another comes. A scope is made only when
    /// many came.
    fn scope_of_put(&self, pool: PoolId) -> Option<Arc<Scope>> {
        if !self.dictionaries.enabled {
            return None;
        }
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        let Some(puts_max) = self.puts_before_scope() else {
            // Only a pool that was given a dictionary has one.
            return pools.scope(pool);
        };
        match pools.count_put(pool, puts_max) {
            Owner::Known(scope) => scope,
            Owner::WithoutScope => {
                drop(pools);
                let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
                pools.make_scope(pool)
            }
        }
    }

    /// Every scope that there is: that of the handles first.
    pub(super) fn scopes(&self) -> Vec<Arc<Scope>> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        let handles = Arc::clone(&self.dictionaries.handles);
        std::iter::once(handles).chain(pools.scopes()).collect()
    }

    /// Stores a page under a key, in place of an older one.
    ///
    /// In a store that is full, ephemeral pages make room for it. Then, for a
    /// persistent page, the oldest persistent blocks go to the tier, in this
    /// thread; when they are on their way in others, it waits for these. A page
    /// of an ephemeral pool waits for nothing.
    ///
    /// # Errors
    /// [`Rejected`] says why the page was not stored. The older page is gone
    /// all the same.
    pub fn put(&self, key: &Key, page: &Page) -> Result<(), Rejected> {
        let scope = self.scope_of_put(key.pool);
        let number = self.shard_of_key(key);
        let older = Cell::new(Older::Kept);
        // Room is made outside of this, so that whoever is called for it may
        // store pages too. A stored page counts at once: the tier, which is
        // tidied after this, may panic.
        let put = || {
            self.encode(scope.as_ref(), page, |kind, zpage| {
                let result = self.store_displacing(key.pool.kind(), || {
                    self.put_encoded(number, key, zpage, &older)
                });
                if result.is_ok() {
                    let is_late = older.get() == Older::Flushed;
                    add(&self.counts.overwritten_late_pages, is_late.into());
                    self.counts.attempt(kind, &result);
                }
                (kind, result)
            })
        };
        let (kind, result) = match put() {
            (_, Err(Rejected::PoolFull)) if key.pool.kind() == PoolKind::Persistent => {
                self.put_with_room(put)
            }
            done => done,
        };
        if result.is_err() {
            self.counts.attempt(kind, &result);
        }
        result
    }

    /// Makes room until a page is stored, or the tier takes no more, or nothing is
    /// left that could leave.
    #[cold]
    fn put_with_room<T>(
        &self,
        put: impl Fn() -> (T, Result<(), Rejected>),
    ) -> (T, Result<(), Rejected>) {
        let start = Instant::now();
        let (mut in_vain, mut packings) = (0, 0);
        loop {
            let accepted = self.counts.accepted.load(Relaxed);
            let (done, stop) = self.make_room(PUT_RECLAIM_BYTES);
            let (coding, result) = put();
            let takes_more = self.tidy_tier();
            if result != Err(Rejected::PoolFull) {
                return (coding, result);
            }
            // Places that were packed anew may take what found none.
            let has_places = takes_more && matches!(stop, Stop::Full | Stop::NoRoom);
            let refusal = stop.refusal();
            if done.bytes == 0 && refusal != Rejected::PoolFull && !has_places {
                return (coding, Err(refusal));
            }
            // Others may have taken what became free. Without them, it is not
            // enough and will not be.
            let others_stored = self.counts.accepted.load(Relaxed) != accepted;
            packings += u32::from(has_places && !others_stored);
            let has_changed = has_places || stop == Stop::Changed;
            if !has_changed && (done.bytes == 0 || !others_stored) {
                in_vain += 1;
            }
            let is_late = start.elapsed() > PUT_ROOM_TIME_MAX;
            add(&self.counts.room_rounds_lost, 1);
            if in_vain >= PUT_LOOKS_IN_VAIN_MAX || packings >= PUT_PACKINGS_MAX || is_late {
                add(&self.counts.room_time_exceeded, is_late.into());
                return (coding, Err(refusal));
            }
        }
    }

    fn put_encoded(
        &self,
        number: usize,
        key: &Key,
        zpage: Zpage<'_>,
        older: &Cell<Older>,
    ) -> Result<(), Rejected> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        if !pools.contains(key.pool) {
            return Err(Rejected::NoSuchPool);
        }
        let mut part = self.part(number);
        let before = part.core.counters().put_to_flush;
        let result = part.place(|core, frames| core.put(frames, key, zpage));
        if part.core.counters().put_to_flush > before {
            older.set(Older::Flushed);
        }
        self.free_slots(&mut part);
        result
    }

    /// Gives back the page of a key and keeps it. False is a miss.
    ///
    /// # Errors
    /// [`LoadError`], never [`LoadError::Gone`]; `out` then holds bytes of no
    /// meaning.
    pub fn get(&self, key: &Key, out: &mut Page) -> Result<bool, LoadError> {
        let result = hit(self.fetch(PageName::Key(*key), out));
        self.counts.asked([result]);
        result
    }

    /// Gives back the page of a key and frees it: of many that ask at once, one
    /// gets it. False is a miss.
    ///
    /// # Errors
    /// [`LoadError`], never [`LoadError::Gone`]. A page that the tier failed to
    /// read is kept, one that is corrupt in RAM is freed.
    pub fn get_exclusive(&self, key: &Key, out: &mut Page) -> Result<bool, LoadError> {
        let result = hit(self.fetch_and_free(key, out));
        self.counts.asked([result]);
        result
    }

    fn fetch_and_free(&self, key: &Key, out: &mut Page) -> Result<(), LoadError> {
        self.fetch_with(
            PageName::Key(*key),
            out,
            |copy| self.take(key, copy),
            |at| self.take_page_at(key, at),
        )
    }

    /// Copies a page that is in RAM and frees it under the same lock.
    fn take(&self, key: &Key, copy: &mut Page) -> Seen {
        let mut part = self.part(self.shard_of_key(key));
        let seen = part.look_key(key, &self.dictionaries, copy);
        if matches!(seen, Seen::Copied { .. } | Seen::Same { .. }) {
            let Part { core, frames, .. } = &mut *part;
            core.flush_page(frames, key);
            add(&self.counts.taken_pages, 1);
        }
        seen
    }

    /// Frees the page of a key if it is still at this place in the tier.
    fn take_page_at(&self, key: &Key, at: TierRange) -> bool {
        let mut part = self.part(self.shard_of_key(key));
        let Part { core, frames, .. } = &mut *part;
        let taken = core.flush_page_if(frames, key, at);
        add(&self.counts.taken_pages, taken.into());
        self.free_slots(&mut part);
        taken
    }

    /// Frees the page of a key; false when there was none.
    pub fn flush_page(&self, key: &Key) -> bool {
        let mut part = self.part(self.shard_of_key(key));
        let Part { core, frames, .. } = &mut *part;
        let flushed = core.flush_page(frames, key);
        self.free_slots(&mut part);
        flushed
    }

    /// Frees every page of an object and returns how many there were. Takes time by
    /// what it frees, and no lock for long.
    pub fn flush_object(&self, pool: PoolId, object: ObjectId) -> u64 {
        self.flush_everywhere(|core, frames| {
            core.flush_object_part(frames, pool, object, FLUSH_PART_PAGES)
        })
    }

    /// Frees every page of a pool, which stays open, and returns how many there
    /// were. Takes time by what it frees, and no lock for long.
    pub fn flush_pool(&self, pool: PoolId) -> u64 {
        self.flush_everywhere(|core, frames| core.flush_pool_part(frames, pool, FLUSH_PART_PAGES))
    }

    /// Frees pages of every shard, a part under each holding of its lock.
    fn flush_everywhere(
        &self,
        flush_part: impl Fn(&mut Shard, &mut ShardFrames) -> Flushed,
    ) -> u64 {
        let mut pages = 0;
        for number in 0..self.shards.len() {
            loop {
                let mut part = self.part(number);
                let Part { core, frames, .. } = &mut *part;
                let flushed = flush_part(core, frames);
                self.free_slots(&mut part);
                if part.core.usage().entries == 0 {
                    part.frames.trim();
                }
                drop(part);
                pages += u64::from(flushed.pages);
                if flushed.is_whole {
                    break;
                }
                self.give_way(number);
            }
        }
        pages
    }

    /// The shard of a key's neighbourhood.
    pub(super) fn shard_of_key(&self, key: &Key) -> usize {
        let hash = self.seed.neighbourhood(key);
        hash as usize & (self.shards.len() - 1)
    }
}

/// What became of the page that a put replaces, before its last attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Older {
    /// There was none, or it is still there.
    Kept,
    /// It went when an earlier attempt was refused.
    Flushed,
}

/// A page by key that is gone is a miss and no error.
pub(super) fn hit(result: Result<(), LoadError>) -> Result<bool, LoadError> {
    match result {
        Ok(()) => Ok(true),
        Err(LoadError::Gone) => Ok(false),
        Err(error) => Err(error),
    }
}
