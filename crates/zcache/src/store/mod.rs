//! The store: one home of the engine's core, with threads, codecs, RAM and a
//! tier.
//!
//! Stage on the data path: all of them, in order. A page is encoded outside
//! every lock, placed by the core of one shard, aged there with its block,
//! written back by [`Store::reclaim`] and read by [`Store::load`].
//!
//! - `accepted + sum(rejected_*) == attempts`, a reason each
//! - A page whose last acknowledged copy is in RAM is never dropped, unless it
//!   is ephemeral or released.
//! - Every page given out has matched its checksum since it was last copied.
//!
//! Lock order: pools, then one shard, then the slots of the tier or the
//! dictionaries. No tier is
//! called, nothing is encoded and no hook runs under any of them.
//!
//! Does not start threads: reclaim happens in the thread that asks for it.

mod coding;
mod counts;
mod events;
mod inside;
mod load;
mod reclaim;
mod tmem;

pub use coding::cold::{ColdBlock, Recompressed};
pub use coding::training::Trained;
pub use events::Event;
pub use reclaim::Reclaimed;

use crate::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::cell::Cell;
use std::collections::HashSet;
use std::time::Instant;

use zcache_core::{EntryToken, Kind as PoolKind, PoolId, Refused, Shard, Slot, Zpage};

use crate::choice::Turn;
use crate::codec::{self, Codec, Encoded, Kind};
use crate::config::{SHARDS_MAX, StoreConfig};
use crate::error::{OpenError, Rejected};
use crate::frames::{Budget, ShardFrames, Shortage};
use crate::page::{Handle, Page};
use crate::stats::Stats;
use crate::tier::{self, Tier};

use coding::dictionaries::{Coding, Current, Dictionaries, Scope};
use coding::fresh::Fresh;
use counts::Counts;
use events::Events;
use reclaim::Swap;

/// A thread stores this many pages in one shard before it goes on to the next,
/// so that pages evicted together share blocks and come back by few reads.
const SHARD_RUN_PAGES: u32 = 64;

/// A page has shrunk when its zpage is no larger: five of them share a block of
/// four frames.
const SHRUNK_BYTES: usize = 3072;

/// Address space for each shard beyond its share of the limit.
const SHARD_SPACE_MIN_BYTES: u64 = 64 << 20;

/// A compressed page store, shared by reference between threads.
///
/// See the [crate documentation](crate) for what it is and an example.
pub struct Store {
    fresh: Fresh,
    shards: Box<[Mutex<Part>]>,
    shard_bits: u32,
    budget: Arc<Budget>,
    /// The limit that it was opened with.
    pool_bytes_first: u64,
    dictionaries: Dictionaries,
    /// The tmem pools that are open, and the next pool's number.
    pools: RwLock<(HashSet<PoolId>, u32)>,
    swap: Option<Swap>,
    swap_name: Option<String>,
    /// Where the next sweep over the shards begins.
    next_shard: AtomicUsize,
    counts: Counts,
    events: Events,
}

/// One shard: the core and the frames it lives in, under one lock.
pub(crate) struct Part {
    core: Shard,
    frames: ShardFrames,
    /// The tier block of this shard that is being read whole, if any.
    whole_read: Option<WholeRead>,
}

/// A tier block that is being read without the lock.
struct WholeRead {
    slot: Slot,
    /// The slot was freed meanwhile, so what was read may be anything.
    stale: bool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("fresh", &self.fresh)
            .field("shards", &self.shards.len())
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens an empty store, with a swap file if the configuration names one.
    ///
    /// # Errors
    /// [`OpenError`] when address space or the swap file cannot be had.
    pub fn open(config: StoreConfig) -> Result<Store, OpenError> {
        let Some(swap) = &config.swap else {
            return Store::build(&config, None);
        };
        let (disk, name) = tier::open_disk(swap)?;
        let store = Store::build(&config, Some((Box::new(disk), swap.bytes_max)))?;
        Ok(Store {
            swap_name: Some(name),
            ..store
        })
    }

    /// Opens an empty store over a tier of the client's, of which at most
    /// `bytes_max` bytes are used. `config.swap` is ignored.
    ///
    /// # Errors
    /// [`OpenError::NoMemory`].
    pub fn with_tier(
        config: &StoreConfig,
        tier: Box<dyn Tier>,
        bytes_max: Option<u64>,
    ) -> Result<Store, OpenError> {
        Store::build(config, Some((tier, bytes_max)))
    }

    fn build(
        config: &StoreConfig,
        tier: Option<(Box<dyn Tier>, Option<u64>)>,
    ) -> Result<Store, OpenError> {
        if !codec::prepare() {
            let error = std::io::ErrorKind::OutOfMemory.into();
            return Err(OpenError::NoMemory(error));
        }
        let count = config.shards.clamp(1, SHARDS_MAX).next_power_of_two();
        let budget = Arc::new(Budget::new(config.pool_bytes_max));
        let mut shards = Vec::with_capacity(count);
        let space_bytes = address_space_bytes(config.pool_bytes_max);
        for _ in 0..count {
            let part = Part::new(config, space_bytes / count as u64, &budget);
            let part = part.map_err(OpenError::NoMemory)?;
            shards.push(Mutex::new(part));
        }
        budget.charge_overhead((size_of::<Store>() + count * size_of::<Mutex<Part>>()) as u64);
        Ok(Store {
            fresh: Fresh::new(config.codec, config.pool_bytes_max, tier.is_some()),
            shards: shards.into(),
            shard_bits: count.trailing_zeros(),
            swap: tier.map(|(tier, bytes_max)| Swap::new(tier, bytes_max, config, &budget)),
            swap_name: None,
            pool_bytes_first: config.pool_bytes_max,
            dictionaries: Dictionaries::new(config.codec, config.dictionaries, &budget),
            budget,
            pools: RwLock::default(),
            next_shard: AtomicUsize::new(0),
            counts: Counts::default(),
            events: Events::default(),
        })
    }

    /// Compresses and stores a page and gives it one reference.
    ///
    /// # Errors
    /// [`Rejected`] says why the page was not taken. After
    /// [`Rejected::PoolFull`], [`Store::reclaim`] can make room; an insert does
    /// not call it by itself.
    pub fn insert(&self, page: &Page) -> Result<Handle, Rejected> {
        let number = self.shard_of_thread();
        self.encode(Some(&self.dictionaries.handles), page, |kind, zpage| {
            let result = self.insert_encoded(number, zpage);
            let result = match result {
                Err(Rejected::PoolFull)
                    if self.displace_ephemeral(number, PoolKind::Persistent) =>
                {
                    self.insert_encoded(number, zpage)
                }
                result => result,
            };
            let result = match (result, &self.swap) {
                (Err(Rejected::PoolFull), Some(swap)) if swap.was_forked() => Err(Rejected::Forked),
                (result, _) => result,
            };
            self.counts.attempt(kind, &result);
            result
        })
    }

    /// Encodes a page as its scope's pages are now, and has `take` store it.
    fn encode<R>(
        &self,
        scope: Option<&Scope>,
        page: &Page,
        take: impl FnOnce(Kind, Zpage<'_>) -> R,
    ) -> R {
        let codec = self.fresh_codec();
        // Fresh pages of lz4 have no dictionary; cold ones do.
        let scoped = scope.filter(|_| codec == Codec::Zstd);
        let current = scoped.and_then(Scope::current);
        let turn = self.fresh.costs.turn_of_store();
        if let Turn::Compared { timed } = turn
            && self.fresh.is_auto
        {
            let current = scope.and_then(Scope::current);
            let encoder = current.as_deref().map(|current| &current.encoder);
            self.fresh.costs.compare(page, encoder, timed);
        }
        let start = (turn == Turn::Timed).then(Instant::now);
        let take = |encoded: Encoded<'_>| {
            if let Some(start) = start {
                self.fresh.costs.encoded(encoded.kind, start.elapsed());
            }
            if self.dictionaries.enabled
                && encoded.kind != Kind::Same
                && let Some(scope) = scope
            {
                scope.training.offer(page, encoded.bytes.len());
            }
            take(encoded.kind, zpage(encoded, current.as_deref()))
        };
        match &current {
            Some(current) => codec::encode_with(&current.encoder, page, take),
            None => codec::encode(codec, page, take),
        }
    }

    fn insert_encoded(&self, number: usize, zpage: Zpage<'_>) -> Result<Handle, Rejected> {
        let mut part = self.part(number);
        part.frames.shrinks = match zpage {
            Zpage::Same { .. } => true,
            Zpage::Bytes { bytes, .. } => bytes.len() <= SHRUNK_BYTES,
        };
        let token = part.place(|core, frames| core.insert(frames, zpage));
        part.frames.shrinks = false;
        let token = token?;
        let handle = u64::from(token.0) << self.shard_bits | number as u64;
        if handle >> Handle::BITS != 0 {
            part.release(token);
            return Err(Rejected::HandlesExhausted);
        }
        Ok(Handle::from_bits(handle as u32))
    }

    /// Adds a reference, as when a process that shares the page forks.
    ///
    /// # Panics
    /// When the handle names no page.
    pub fn retain(&self, handle: Handle) {
        let (mut part, token) = self.part_of(handle);
        let Part { core, frames, .. } = &mut *part;
        assert!(
            core.retain(frames, token),
            "retained {handle:?}, which is gone"
        );
    }

    /// Takes a reference away; with the last one the page is freed.
    ///
    /// # Panics
    /// When the handle names no page.
    pub fn release(&self, handle: Handle) {
        let (mut part, token) = self.part_of(handle);
        assert!(part.release(token), "released {handle:?}, which is gone");
        self.free_slots(&mut part);
    }

    /// Changes the limit on RAM. A lower one refuses pages until enough was
    /// reclaimed; it drops nothing by itself.
    pub fn set_pool_bytes_max(&self, bytes: u64) {
        self.budget.set_max(bytes);
    }

    /// Lets pages that are inserted and shrink to three quarters or less exceed
    /// the limit by so much, for clients to whom each of them gives back more
    /// room than it takes here. Zero at first.
    pub fn set_pool_bytes_beyond(&self, bytes: u64) {
        self.budget.set_beyond(bytes);
    }

    /// RAM in use now in bytes: frames, tables, transfer buffers, and the
    /// codecs' memory of every thread of the process. Costs three loads.
    #[must_use]
    pub fn ram_bytes(&self) -> u64 {
        self.budget.used() + self.overhead_bytes()
    }

    /// The part of [`Store::ram_bytes`] that the limit does not bound.
    #[must_use]
    pub fn overhead_bytes(&self) -> u64 {
        self.budget.overhead() + codec::context_bytes()
    }

    /// The part of [`Store::ram_bytes`] that would be left if every zpage were
    /// in the tier: that one and tables. Locks one shard after the other.
    #[must_use]
    pub fn unwritable_bytes(&self) -> u64 {
        let frames: u64 = (0..self.shards.len())
            .map(|number| u64::from(self.part(number).core.usage().metadata_frames))
            .sum();
        frames * tier::SECTOR_SIZE as u64 + self.overhead_bytes()
    }

    /// Calls `hook` for what operators should hear of, in the thread where it
    /// happens and without locks held. It may call this store, and is not called
    /// for what it brings about itself. Only the first hook is kept; false when
    /// there was one.
    pub fn on_event(&self, hook: impl Fn(&Event) + Send + Sync + 'static) -> bool {
        self.events.set_hook(Box::new(hook))
    }

    /// Pages read back from the tier since the store was opened.
    #[must_use]
    pub fn swapin_pages(&self) -> u64 {
        self.counts
            .swapin_pages
            .load(crate::sync::atomic::Ordering::Relaxed)
    }

    /// The swap file in words for messages; `None` without one of its own.
    #[must_use]
    pub fn swap_name(&self) -> Option<&str> {
        self.swap_name.as_deref()
    }

    /// The numbers of now. Locks one shard after the other.
    #[must_use]
    pub fn stats(&self) -> Stats {
        counts::stats(self)
    }

    /// Walks everything and checks the core's equations. For tests: it takes
    /// time in proportion to what is stored, with each shard locked in turn.
    ///
    /// # Errors
    /// The equation that does not hold.
    pub fn validate(&self) -> Result<(), String> {
        for number in 0..self.shards.len() {
            let part = self.part(number);
            part.core
                .validate(&part.frames)
                .map_err(|broken| format!("shard {number}: {broken:?}"))?;
        }
        Ok(())
    }

    fn part(&self, number: usize) -> MutexGuard<'_, Part> {
        lock(&self.shards[number])
    }

    fn part_of(&self, handle: Handle) -> (MutexGuard<'_, Part>, EntryToken) {
        let bits = handle.to_bits();
        let number = bits as usize & (self.shards.len() - 1);
        (self.part(number), EntryToken(bits >> self.shard_bits))
    }

    /// The shard that this thread stores in now.
    fn shard_of_thread(&self) -> usize {
        static NEXT_RUN: AtomicU32 = AtomicU32::new(0);
        thread_local! {
            static RUN: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
        }
        let (run, left) = match RUN.get() {
            (_, 0) => (NEXT_RUN.fetch_add(1, Relaxed), SHARD_RUN_PAGES),
            run => run,
        };
        RUN.set((run, left - 1));
        run as usize & (self.shards.len() - 1)
    }

    /// Drops ephemeral blocks of other shards so that a page fits into this
    /// one, whose own the core has already dropped. False when there are none.
    fn displace_ephemeral(&self, number: usize, by: PoolKind) -> bool {
        let mut others = (0..self.shards.len()).filter(|other| *other != number);
        others.any(|other| {
            let mut part = self.part(other);
            let Part { core, frames, .. } = &mut *part;
            let dropped = core.drop_oldest_ephemeral(frames).is_some();
            if dropped {
                frames.trim();
                let eaten = u64::from(by == PoolKind::Persistent);
                self.counts.pers_ate_eph.fetch_add(eaten, Relaxed);
            }
            dropped
        })
    }

    /// Hands slots that hold nothing any more back to the tier's map.
    fn free_slots(&self, part: &mut Part) {
        let Some(swap) = &self.swap else { return };
        if !part.core.has_freed_slots() {
            return;
        }
        let mut slots = lock(&swap.slots);
        let Part {
            core,
            frames,
            whole_read,
        } = part;
        while let Some((slot, run)) = core.take_freed_slot(frames) {
            slots.free(slot.0, run);
            if let Some(read) = whole_read
                && read.slot == slot
            {
                read.stale = true;
            }
        }
    }
}

impl Part {
    fn new(config: &StoreConfig, space_bytes: u64, budget: &Arc<Budget>) -> std::io::Result<Part> {
        let allocator = zcache_core::Allocator::from(config.allocator);
        let space = |bytes| ShardFrames::new(allocator.runs(), bytes, Arc::clone(budget));
        // Where address space is limited, no more than the limit set now.
        let frames = space(space_bytes.saturating_add(SHARD_SPACE_MIN_BYTES))
            .or_else(|_| space(space_bytes.min(config.pool_bytes_max)))?;
        Ok(Part {
            core: Shard::new(allocator),
            frames,
            whole_read: None,
        })
    }

    /// Runs an operation that stores, and says why it did not.
    fn place<T>(
        &mut self,
        store: impl FnOnce(&mut Shard, &mut ShardFrames) -> Result<T, Refused>,
    ) -> Result<T, Rejected> {
        self.frames.shortage = None;
        store(&mut self.core, &mut self.frames).map_err(|refused| {
            match (refused, self.frames.shortage) {
                (_, Some(Shortage::Budget)) => Rejected::PoolFull,
                (_, Some(Shortage::Space)) | (Refused::NoFrames, None) => Rejected::NoMemory,
                (Refused::NoMetadata, None) => Rejected::HandlesExhausted,
                (Refused::Length { len_bytes }, _) => {
                    unreachable!("the codec made a zpage of {len_bytes} bytes")
                }
            }
        })
    }

    fn release(&mut self, token: EntryToken) -> bool {
        self.core.release(&mut self.frames, token).is_some()
    }
}

/// A zpage in the core's words, with its checksum. `current` is the dictionary
/// that it was made with, if it is of a kind that has one.
fn zpage<'a>(encoded: Encoded<'a>, current: Option<&Current>) -> Zpage<'a> {
    let current = current.filter(|_| encoded.kind == Kind::Zstd);
    match encoded.kind {
        Kind::Same => {
            let mut word = [0; 8];
            word.copy_from_slice(encoded.bytes);
            Zpage::Same {
                word: u64::from_le_bytes(word),
            }
        }
        kind => Zpage::Bytes {
            bytes: encoded.bytes,
            codec: Coding::fresh(kind, current.map_or(0, |current| current.slot)).id(),
            checksum: match current {
                Some(current) => current.encoder.dictionary().checksum(encoded.bytes),
                None => codec::checksum(kind, encoded.bytes),
            },
        },
    }
}

/// Address space for all shards of a store together: twice what they may hold, so
/// that an uneven spread finds room. They may come to hold all of RAM, because
/// the limit can be raised, but no more than a little beyond it.
fn address_space_bytes(pool_bytes_max: u64) -> u64 {
    let ram = match system_ram_bytes() {
        0 => pool_bytes_max,
        ram => pool_bytes_max.clamp(ram, ram * 2),
    };
    ram.saturating_mul(2)
}

/// RAM of this machine in bytes, or zero where it cannot be read.
fn system_ram_bytes() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under a lock is a bug of ours that the core's assertions found;
    // other shards and readers go on.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
