//! The store: pages in, pages out, by handle. This stage ties codec, packing
//! and tiers together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::codec::{self, Kind};
use crate::config::{SHARDS_MAX, StoreConfig};
use crate::error::{LoadError, OpenError, Rejected};
use crate::page::{Handle, Page};
use crate::stats::Stats;

/// What one call of [`Store::reclaim`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reclaimed {
    /// RAM given back to the system, in bytes.
    pub bytes: u64,
    /// Pages that are now only in the tier.
    pub pages: u64,
    /// Blocks that the tier refused and that stay in RAM.
    pub failures: u64,
}

/// A compressed page store, shared by reference between threads.
pub struct Store {
    config: StoreConfig,
    shards: Vec<Mutex<Shard>>,
    pool_bytes_max: AtomicU64,
    pool_bytes: AtomicU64,
    next_shard: AtomicU64,
    attempts: AtomicU64,
    rejected_pool_full: AtomicU64,
    loads: AtomicU64,
}

#[derive(Default)]
struct Shard {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
}

struct Entry {
    references: u32,
    kind: Kind,
    checksum: u32,
    bytes: Box<[u8]>,
}

const TOKEN_BITS: u32 = 22;

impl Store {
    /// Opens an empty store.
    ///
    /// # Errors
    /// [`OpenError`] when memory or the swap file cannot be had.
    pub fn open(config: StoreConfig) -> Result<Store, OpenError> {
        let shards = config.shards.clamp(1, SHARDS_MAX).next_power_of_two();
        Ok(Store {
            pool_bytes_max: AtomicU64::new(config.pool_bytes_max),
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            config,
            pool_bytes: AtomicU64::new(0),
            next_shard: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            rejected_pool_full: AtomicU64::new(0),
            loads: AtomicU64::new(0),
        })
    }

    fn shard(&self, handle: Handle) -> (MutexGuard<'_, Shard>, usize) {
        let bits = handle.to_bits();
        let shard = (bits >> TOKEN_BITS) as usize % self.shards.len();
        (
            lock(&self.shards[shard]),
            (bits & ((1 << TOKEN_BITS) - 1)) as usize,
        )
    }

    /// Compresses and stores a page and gives it one reference.
    ///
    /// # Errors
    /// [`Rejected`] says why the page was not taken.
    pub fn insert(&self, page: &Page) -> Result<Handle, Rejected> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        codec::encode(self.config.codec, page, |zpage| {
            let cost = zpage.bytes.len() as u64 + 32;
            let before = self.pool_bytes.fetch_add(cost, Ordering::Relaxed);
            if before + cost > self.pool_bytes_max.load(Ordering::Relaxed) {
                self.pool_bytes.fetch_sub(cost, Ordering::Relaxed);
                self.rejected_pool_full.fetch_add(1, Ordering::Relaxed);
                return Err(Rejected::PoolFull);
            }
            let entry = Entry {
                references: 1,
                kind: zpage.kind,
                checksum: codec::checksum(zpage.kind, zpage.bytes),
                bytes: zpage.bytes.into(),
            };
            let at = self.next_shard.fetch_add(1, Ordering::Relaxed) as usize / 64;
            let at = at % self.shards.len();
            let mut shard = lock(&self.shards[at]);
            let token = match shard.free.pop() {
                Some(token) => token,
                None => {
                    shard.entries.push(None);
                    shard.entries.len() as u32 - 1
                }
            };
            shard.entries[token as usize] = Some(entry);
            Ok(Handle::from_bits((at as u32) << TOKEN_BITS | token))
        })
    }

    /// Gives back a stored page and keeps it.
    ///
    /// # Errors
    /// [`LoadError`]; `out` then holds bytes of no meaning.
    pub fn load(&self, handle: Handle, out: &mut Page) -> Result<(), LoadError> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let (shard, token) = self.shard(handle);
        let Some(Some(entry)) = shard.entries.get(token) else {
            return Err(LoadError::Gone);
        };
        let found = codec::checksum(entry.kind, &entry.bytes);
        if found != entry.checksum {
            return Err(LoadError::Checksum {
                handle,
                expected: entry.checksum,
                found,
            });
        }
        codec::decode(entry.kind, &entry.bytes, out).map_err(|_| LoadError::Corrupt { handle })
    }

    /// Gives back many pages; reads of the tier are merged and run together.
    ///
    /// # Panics
    /// When the three slices differ in length.
    pub fn load_many(
        &self,
        handles: &[Handle],
        out: &mut [Page],
        results: &mut [Result<(), LoadError>],
    ) {
        assert_eq!(handles.len(), out.len());
        assert_eq!(handles.len(), results.len());
        for ((handle, page), result) in handles.iter().zip(out).zip(results) {
            *result = self.load(*handle, page);
        }
    }

    /// Whether a load would need no read of the tier.
    pub fn in_ram(&self, handle: Handle) -> bool {
        let (shard, token) = self.shard(handle);
        matches!(shard.entries.get(token), Some(Some(_)))
    }

    /// Adds a reference.
    ///
    /// # Panics
    /// When the handle names no page.
    pub fn retain(&self, handle: Handle) {
        let (mut shard, token) = self.shard(handle);
        let entry = shard.entries[token].as_mut();
        entry.expect("retain of a page that is gone").references += 1;
    }

    /// Takes a reference away; with the last one the page is freed.
    ///
    /// # Panics
    /// When the handle names no page.
    pub fn release(&self, handle: Handle) {
        let (mut shard, token) = self.shard(handle);
        let entry = shard.entries[token].as_mut();
        let entry = entry.expect("release of a page that is gone");
        entry.references -= 1;
        if entry.references == 0 {
            let cost = entry.bytes.len() as u64 + 32;
            shard.entries[token] = None;
            shard.free.push(token as u32);
            self.pool_bytes.fetch_sub(cost, Ordering::Relaxed);
        }
    }

    /// Changes the limit on RAM. A lower one refuses inserts until enough was
    /// reclaimed; it drops nothing by itself.
    pub fn set_pool_bytes_max(&self, bytes: u64) {
        self.pool_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// RAM in use now, frames and metadata, in bytes.
    pub fn ram_bytes(&self) -> u64 {
        self.pool_bytes.load(Ordering::Relaxed)
    }

    /// Writes the oldest blocks to the tier until about `bytes` of RAM are free.
    pub fn reclaim(&self, _bytes: u64) -> Reclaimed {
        Reclaimed::default()
    }

    /// Empties up to `blocks_max` half-empty blocks and says how many frames
    /// that freed.
    pub fn compact(&self, _blocks_max: usize) -> usize {
        0
    }

    /// The numbers of now.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            attempts: self.attempts.load(Ordering::Relaxed),
            rejected_pool_full: self.rejected_pool_full.load(Ordering::Relaxed),
            loads: self.loads.load(Ordering::Relaxed),
            pool_bytes: self.pool_bytes.load(Ordering::Relaxed),
            ..Stats::default()
        };
        stats.accepted = stats.attempts - stats.rejected_pool_full;
        for shard in &self.shards {
            let shard = lock(shard);
            for entry in shard.entries.iter().flatten() {
                stats.stored_pages += 1;
                stats.same_filled_pages += u64::from(entry.kind == Kind::Same);
                stats.incompressible_pages += u64::from(entry.kind == Kind::Raw);
                stats.compressed_bytes += entry.bytes.len() as u64;
            }
        }
        stats
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::PAGE_SIZE;

    #[test]
    fn a_page_comes_back() {
        let store = Store::open(StoreConfig::default()).unwrap();
        let mut page = [7; PAGE_SIZE];
        page[100] = 1;
        let handle = store.insert(&page).unwrap();
        let mut out = [0; PAGE_SIZE];
        store.load(handle, &mut out).unwrap();
        assert_eq!(page, out);
        store.retain(handle);
        store.release(handle);
        assert!(store.in_ram(handle));
        store.release(handle);
        assert_eq!(store.load(handle, &mut out), Err(LoadError::Gone));
        assert_eq!(store.ram_bytes(), 0);
    }
}
