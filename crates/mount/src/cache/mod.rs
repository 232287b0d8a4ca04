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
mod worth;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use zcache::{
    Key, LoadError, ObjectId, OpenError, PAGE_SIZE, Page, PoolId, PoolKind, SHARDS_MAX, Store,
    StoreConfig,
};

pub(crate) use coherence::{Coherence, Occasion, Touched, Verdict, Version, Watched, Writers};
use ghosts::Ghosts;
pub(crate) use worth::Worth;

use crate::ahead::Ahead;
use crate::config::{Admit, MountConfig};
use crate::session::TRANSFER_PAGES_MAX;

/// The longest tail that has room for its length.
const TAIL_BYTES_MAX: usize = PAGE_SIZE - 2;

/// One part of the budget in so many is for ghosts: 4 bytes for each page of a
/// file set sixteen times as large as the budget.
const GHOST_SHARE: u64 = 64;

const RAM_BYTES_OF_SHARD: u64 = 8 << 30;
const SHARDS_MIN: usize = 4;

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
    /// Pages that a tier has and did not give back, read from the source instead.
    pub(crate) unreachable: AtomicU64,
    /// CPU time of compressing cold pages harder.
    pub(crate) cold_cpu_ns: AtomicU64,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) store: Store,
    pages: PoolId,
    tails: PoolId,
    ghosts: Option<Ghosts>,
    pub(crate) ahead: Ahead,
    /// What pages cost from tiers and from the source, if there are tiers.
    pub(crate) worth: Option<Worth>,
    pub(crate) counts: Counts,
}

/// Parts of the store: each has a number of records that suffices for so much RAM,
/// however well pages shrink; more than the processors need does no harm.
fn shards(ram_bytes: u64) -> usize {
    let wanted = ram_bytes / RAM_BYTES_OF_SHARD;
    usize::try_from(wanted).map_or(SHARDS_MAX, |wanted| wanted.clamp(SHARDS_MIN, SHARDS_MAX))
}

impl Cache {
    pub(crate) fn open(config: &MountConfig) -> Result<Cache, OpenError> {
        let ghosts =
            (config.admit == Admit::SeenAgain).then(|| Ghosts::new(config.ram_bytes / GHOST_SHARE));
        let store = Store::open(StoreConfig {
            pool_bytes_max: config.ram_bytes,
            codec: config.codec,
            allocator: config.allocator,
            shards: shards(config.ram_bytes),
            // Cold pages have them whatever the codec of fresh ones.
            dictionaries: config.codec.has_dictionaries() || config.cold_cpu_percent > 0,
            tiers: config.tiers.clone(),
        })?;
        Ok(Cache {
            pages: store.create_pool(PoolKind::Ephemeral),
            tails: store.create_pool(PoolKind::Ephemeral),
            store,
            ghosts,
            ahead: Ahead::default(),
            worth: (!config.tiers.is_empty()).then(Worth::default),
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

    /// Fills `out` with the pages from `first` on that are kept, and says in
    /// `lens` how many bytes of each there are. The last one may be the file's
    /// last.
    pub(crate) fn get(
        &self,
        version: &Version,
        first: u32,
        out: &mut [Page],
        lens: &mut [Option<usize>],
    ) {
        let mut results = [Ok(false); TRANSFER_PAGES_MAX];
        let results = &mut results[..out.len()];
        let whole = key(self.pages, version, first);
        let source_is_cheaper = self.source_is_cheaper(out.len());
        self.get_run(source_is_cheaper, &whole, out, results);
        for (number, result) in results.iter().enumerate() {
            let index = first + number as u32;
            let hit =
                result.unwrap_or_else(|error| self.failed(&key(self.pages, version, index), error));
            lens[number] = hit.then_some(PAGE_SIZE);
        }
        if let (Some(page), Some(len @ None)) = (out.last_mut(), lens.last_mut()) {
            let tail = key(self.tails, version, first + results.len() as u32 - 1);
            let mut result = [Ok(false)];
            let out = std::slice::from_mut(&mut *page);
            self.get_run(source_is_cheaper, &tail, out, &mut result);
            let [result] = result;
            let hit = result.unwrap_or_else(|error| self.failed(&tail, error));
            let [.., low, high] = *page;
            *len = hit.then(|| usize::from(u16::from_le_bytes([low, high])));
        }
        let hits = lens.iter().flatten().count();
        self.counts.hits.fetch_add(hits as u64, Relaxed);
        let misses = lens.len() - hits;
        self.counts.misses.fetch_add(misses as u64, Relaxed);
    }

    /// Whether a request for so many pages is to leave the tiers alone.
    fn source_is_cheaper(&self, pages: usize) -> bool {
        let worth = self.worth.as_ref();
        worth.is_some_and(|worth| worth.is_source_cheaper(pages))
    }

    fn get_run(
        &self,
        source_is_cheaper: bool,
        first: &Key,
        out: &mut [Page],
        results: &mut [Result<bool, LoadError>],
    ) {
        if source_is_cheaper {
            return self.store.get_run_from_ram(first, out, results);
        }
        let start = Instant::now();
        let asked = self.store.get_run(first, out, results);
        if let Some(worth) = &self.worth
            && asked > 0
            && results.iter().all(Result::is_ok)
        {
            worth.learn_of_tiers(out.len(), asked, start.elapsed());
        }
    }

    /// Drops a page that is not what was kept, and gives a miss: the source has
    /// it, so nothing is lost. One that a tier has and does not give now stays.
    fn failed(&self, key: &Key, error: LoadError) -> bool {
        let count = match error {
            LoadError::Io { .. } | LoadError::Busy { .. } => &self.counts.unreachable,
            LoadError::Missing { .. } => {
                self.store.flush_page(key);
                &self.counts.unreachable
            }
            LoadError::Gone | LoadError::Checksum { .. } | LoadError::Corrupt { .. } => {
                self.store.flush_page(key);
                &self.counts.damaged
            }
        };
        count.fetch_add(1, Relaxed);
        false
    }

    /// Whether a page that was just read from the source is to be kept; it is
    /// remembered if not.
    pub(crate) fn wants(&self, version: &Version, index: u32) -> bool {
        let wants = self.is_worth_keeping(version, index);
        if !wants {
            self.counts.passed.fetch_add(1, Relaxed);
        }
        wants
    }

    /// Keeps a page that was just read from the source, of which `len` bytes
    /// exist.
    pub(crate) fn keep(
        &self,
        coherence: &Coherence,
        version: &Version,
        index: u32,
        page: &mut Page,
        len: usize,
    ) {
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
        let unchanged = coherence.if_unchanged(version, index, len < PAGE_SIZE, || {
            kept = self.store.put(&key(pool, version, index), page).is_ok();
        });
        let count = match (unchanged, kept) {
            (false, _) => &self.counts.changed,
            (true, false) => &self.counts.refused,
            (true, true) => &self.counts.admitted,
        };
        count.fetch_add(1, Relaxed);
        if self.store.ahead_due_bytes().is_some() {
            self.ahead.wake();
        }
    }

    fn is_worth_keeping(&self, version: &Version, index: u32) -> bool {
        let ghosts = self.ghosts.as_ref();
        ghosts.is_none_or(|ghosts| ghosts.seen(&key(self.pages, version, index)))
    }

    /// Drops what is kept of what has just been changed.
    pub(crate) fn flush_touched(&self, object: ObjectId, touched: Touched) {
        let (first, end) = match touched {
            Touched::Pages(first, end) => (first, end),
            Touched::All => return self.flush(object),
            Touched::Attributes => return,
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

    /// Drops all pages of one object.
    pub(crate) fn flush(&self, object: ObjectId) {
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
