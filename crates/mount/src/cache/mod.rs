//! The pages of files that are kept compressed.
//!
//! Stage on the data path: behind the page cache, in front of the source.
//!
//! - Two ephemeral pools: whole pages, and *tails*, the last page of a file
//!   that does not end on a page. A tail carries its length in its last two
//!   bytes.
//! - A page is kept only if [`Coherence`] says that nothing changed it since
//!   before it was read.
//! - `hits + misses == pages asked for`;
//!   `admitted + passed + changed + refused == misses that were read`.
//!
//! Does not: read the source, or wait for anything but a shard's lock.

mod coherence;
mod ghosts;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use zcache::{Codec, Key, OpenError, PAGE_SIZE, Page, PoolId, PoolKind, Store, StoreConfig};

pub(crate) use coherence::{Coherence, Verdict, Version};
use ghosts::Ghosts;

use crate::config::{Admit, MountConfig};

/// The longest tail that has room for its length.
const TAIL_BYTES_MAX: usize = PAGE_SIZE - 2;

/// More pages than this are not looked for one by one when they are dropped.
const FLUSH_PAGES_MAX: u64 = 4096;

/// One part of the budget in so many is for ghosts: 4 bytes for each page of a
/// file set sixteen times as large as the budget.
const GHOST_SHARE: u64 = 64;

/// Counts since the mount began.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    /// Misses that were kept.
    pub(crate) admitted: AtomicU64,
    /// Misses that were only remembered.
    pub(crate) passed: AtomicU64,
    /// Misses that were changed while they were read.
    pub(crate) changed: AtomicU64,
    /// Misses that the store did not take.
    pub(crate) refused: AtomicU64,
    /// Pages dropped because the file changed.
    pub(crate) invalidated: AtomicU64,
    /// Pages found damaged in RAM and read from the source instead.
    pub(crate) damaged: AtomicU64,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) store: Store,
    pages: PoolId,
    tails: PoolId,
    ghosts: Option<Ghosts>,
    pub(crate) counts: Counts,
}

impl Cache {
    pub(crate) fn open(config: &MountConfig) -> Result<Cache, OpenError> {
        let ghosts =
            (config.admit == Admit::SeenAgain).then(|| Ghosts::new(config.ram_bytes / GHOST_SHARE));
        let store = Store::open(StoreConfig {
            pool_bytes_max: config.ram_bytes,
            codec: config.codec,
            allocator: config.allocator,
            // lz4 uses them for cold pages only, which nobody looks for here.
            dictionaries: config.codec == Codec::Zstd,
            swap: None,
            ..StoreConfig::default()
        })?;
        Ok(Cache {
            pages: store.create_pool(PoolKind::Ephemeral),
            tails: store.create_pool(PoolKind::Ephemeral),
            store,
            ghosts,
            counts: Counts::default(),
        })
    }

    /// Bytes that remember pages read once.
    pub(crate) fn ghost_bytes(&self) -> u64 {
        self.ghosts.as_ref().map_or(0, Ghosts::bytes)
    }

    /// Pages that can be remembered as read once.
    pub(crate) fn ghost_capacity(&self) -> u64 {
        self.ghosts.as_ref().map_or(0, Ghosts::capacity)
    }

    /// Fills `out` with the page and gives how many bytes of it there are;
    /// `last` says that it may be the file's last.
    pub(crate) fn get(
        &self,
        version: &Version,
        index: u32,
        last: bool,
        out: &mut Page,
    ) -> Option<usize> {
        let len = self
            .get_from(self.pages, version, index, out)
            .then_some(PAGE_SIZE);
        let len = len.or_else(|| {
            let hit = last && self.get_from(self.tails, version, index, out);
            hit.then(|| usize::from(u16::from_le_bytes([out[PAGE_SIZE - 2], out[PAGE_SIZE - 1]])))
        });
        let count = match len {
            Some(_) => &self.counts.hits,
            None => &self.counts.misses,
        };
        count.fetch_add(1, Relaxed);
        len
    }

    fn get_from(&self, pool: PoolId, version: &Version, index: u32, out: &mut Page) -> bool {
        let key = key(pool, version, index);
        self.store.get(&key, out).unwrap_or_else(|_| {
            // The source has the page, so nothing is lost.
            self.store.flush_page(&key);
            self.counts.damaged.fetch_add(1, Relaxed);
            false
        })
    }

    /// Keeps or remembers a page that was just read from the source, of which
    /// `len` bytes exist.
    pub(crate) fn offer(
        &self,
        coherence: &Coherence,
        version: &Version,
        index: u32,
        page: &mut Page,
        len: usize,
    ) {
        if !self.is_worth_keeping(version, index) {
            self.counts.passed.fetch_add(1, Relaxed);
            return;
        }
        let pool = match len {
            PAGE_SIZE => self.pages,
            1..=TAIL_BYTES_MAX => {
                page[len..].fill(0);
                page[PAGE_SIZE - 2..].copy_from_slice(&(len as u16).to_le_bytes());
                self.tails
            }
            _ => {
                self.counts.refused.fetch_add(1, Relaxed);
                return;
            }
        };
        let mut kept = false;
        let unchanged = coherence.if_unchanged(version, index, || {
            kept = self.store.put(&key(pool, version, index), page).is_ok();
        });
        let count = match (unchanged, kept) {
            (false, _) => &self.counts.changed,
            (true, false) => &self.counts.refused,
            (true, true) => &self.counts.admitted,
        };
        count.fetch_add(1, Relaxed);
    }

    fn is_worth_keeping(&self, version: &Version, index: u32) -> bool {
        let ghosts = self.ghosts.as_ref();
        ghosts.is_none_or(|ghosts| ghosts.seen(&key(self.pages, version, index)))
    }

    /// Drops what is kept of bytes that have just been changed.
    pub(crate) fn changed(&self, coherence: &Coherence, offset: u64, len: u64) {
        let first = offset / PAGE_SIZE as u64;
        let end = offset.saturating_add(len).div_ceil(PAGE_SIZE as u64);
        if end - first > FLUSH_PAGES_MAX {
            return self.changed_all(coherence);
        }
        let Some(object) = coherence.changed(first, end) else {
            return;
        };
        let pages = (first..end).filter(|index| {
            let Ok(index) = u32::try_from(*index) else {
                return false;
            };
            self.store.flush_page(&Key {
                pool: self.pages,
                object,
                index,
            })
        });
        // A file that grew has no tail where it had one.
        let flushed = pages.count() as u64 + self.store.flush_object(self.tails, object);
        self.counts.invalidated.fetch_add(flushed, Relaxed);
    }

    /// Drops what is kept of a file whose whole contents have just been changed.
    pub(crate) fn changed_all(&self, coherence: &Coherence) {
        if let Some(object) = coherence.changed_all() {
            self.flush(object);
        }
    }

    /// Drops all pages of one object.
    pub(crate) fn flush(&self, object: zcache::ObjectId) {
        let flushed = [self.pages, self.tails].map(|pool| self.store.flush_object(pool, object));
        self.counts
            .invalidated
            .fetch_add(flushed.iter().sum(), Relaxed);
    }
}

fn key(pool: PoolId, version: &Version, index: u32) -> Key {
    Key {
        pool,
        object: version.object,
        index,
    }
}
