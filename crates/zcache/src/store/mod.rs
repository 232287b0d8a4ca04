//! The store: one home of the engine's core, with threads, codecs, RAM and a
//! tier.
//!
//! Stage on the data path: all of them, in order. A page is encoded outside
//! every lock, placed by the core of one shard, aged there with its block,
//! written back by [`Store::reclaim`] and read by [`Store::load`].
//!
//! - the equations of [`Stats::validate`](crate::Stats::validate)
//! - A page whose last acknowledged copy is in RAM is never dropped, unless it
//!   is ephemeral or released.
//! - Every page given out has matched its checksum since it was last copied.
//!
//! Lock order: who takes a slot for a dictionary, pools, one shard, then one of the
//! slots of the tier, its health and the dictionaries. No tier is called, nothing is
//! encoded and no hook runs under any of them.
//!
//! Does not start threads: reclaim happens in the thread that asks for it.

mod coding;
mod counts;
mod events;
mod guard;
mod inside;
mod load;
mod part;
mod pools;
mod reclaim;
mod seed;
mod snapshot;
mod tmem;

pub use coding::cold::{ColdBlock, Recompressed};
pub use coding::training::Trained;
pub use events::Event;
pub use reclaim::outcome::Reclaimed;

use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
#[cfg(feature = "schedules")]
use crate::sync::local::LocalCell;
use crate::sync::{Arc, Instant, Mutex, RwLock, lock, yield_now};
use std::cell::Cell;
use std::sync::TryLockError;
use std::time::Duration;

use zcache_core::{EntryToken, Kind as PoolKind, Shard, Zpage};

use crate::codec::{self, Encoded, Kind};
use crate::config::StoreConfig;
use crate::error::{OpenError, Rejected};
use crate::frames::{Budget, ShardFrames};
use crate::page::{Handle, Page};
use crate::tier::{self, Folded, Tier, TierReport, TierSource};

use coding::cold::ColdSpare;
use coding::costs::Turn;
use coding::dictionaries::{Dictionaries, Scope};
use coding::fresh::Fresh;
use coding::tags::zpage;
use coding::training::{Trainings, Turns};
use counts::{Counts, add};
use events::Events;
use guard::Locked;
use part::Part;
use pools::Pools;
use reclaim::swap::Swap;
use seed::Seed;

/// A thread stores this many pages in one shard before it goes on to the next,
/// so that pages evicted together share blocks and come back by few reads.
const SHARD_RUN_PAGES: u32 = 64;

/// A thread that holds a lock again and again waits this long at most for those who
/// want it too.
const GIVE_WAY_MAX: Duration = Duration::from_millis(1);

/// Ephemeral blocks of any shard that are dropped for one persistent page at most.
/// A page needs a few frames, and a block has one at least: more go only where other
/// threads take what becomes free. Then the page is refused and counted as such.
const DISPLACED_BLOCKS_MAX: u32 = 64;

/// A page has shrunk when its zpage is no larger: five of them share a block of
/// four frames.
const SHRUNK_BYTES: usize = 3072;

/// A compressed page store, shared by reference between threads.
///
/// See the [crate documentation](crate) for what it is and an example.
pub struct Store {
    fresh: Fresh,
    /// Cold blocks that are away refer to it.
    shards: Arc<[Mutex<Part>]>,
    /// Threads that wait for each shard.
    waiting: Box<[AtomicU32]>,
    shard_bits: u32,
    /// What hashes of keys depend on.
    seed: Seed,
    budget: Arc<Budget>,
    /// The limit that it was opened with.
    pool_bytes_first: u64,
    dictionaries: Dictionaries,
    turns: Turns,
    trainings: Trainings,
    cold: ColdSpare,
    pools: RwLock<Pools>,
    swap: Option<Swap>,
    swap_name: Option<String>,
    /// Whether ephemeral blocks were ever written to the tier. Where none was, nobody
    /// looks for them, and sweeps begin as they would.
    wrote_ephemeral: AtomicBool,
    /// Where the next sweep over the shards begins.
    next_shard: AtomicUsize,
    counts: Counts,
    events: Events,
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
    /// Opens an empty store, with the tiers that the configuration names.
    ///
    /// # Errors
    /// [`OpenError`] when the limit is below
    /// [`StoreConfig::pool_bytes_min`], or memory or a tier cannot be had.
    pub fn open(config: StoreConfig) -> Result<Store, OpenError> {
        // Before a file is made for nothing.
        config.shard_count()?;
        let tiers: Result<Vec<_>, _> = config.tiers.iter().map(TierSource::open).collect();
        match tier::fold(tiers?)? {
            None => Store::build(&config, None, None),
            Some(Folded {
                tier,
                bytes_max,
                name,
            }) => Store::build(&config, Some((tier, bytes_max)), Some(name)),
        }
    }

    /// Opens an empty store over a tier of the client's, of which at most
    /// `bytes_max` bytes are used. `config.tiers` is ignored.
    ///
    /// # Errors
    /// [`OpenError::PoolTooSmall`], [`OpenError::NoMemory`].
    pub fn with_tier(
        config: &StoreConfig,
        tier: Box<dyn Tier>,
        bytes_max: Option<u64>,
    ) -> Result<Store, OpenError> {
        Store::build(config, Some((tier, bytes_max)), None)
    }

    fn build(
        config: &StoreConfig,
        tier: Option<(Box<dyn Tier>, Option<u64>)>,
        swap_name: Option<String>,
    ) -> Result<Store, OpenError> {
        let count = config.shard_count()?;
        if !codec::prepare() {
            let error = std::io::ErrorKind::OutOfMemory.into();
            return Err(OpenError::NoMemory(error));
        }
        let budget = Arc::new(Budget::new(config.pool_bytes_max));
        let seed = Seed::draw();
        let shards: Arc<[_]> = (0..count)
            .map(|_| Mutex::new(Part::new(config, count, seed, &budget)))
            .collect();
        let name_bytes = swap_name.as_ref().map_or(0, String::capacity);
        let own = size_of::<Store>()
            + size_of_val(&*shards)
            + count * size_of::<AtomicU32>()
            + size_of::<Budget>()
            + name_bytes;
        budget.charge_overhead(own as u64);
        Ok(Store {
            fresh: Fresh::new(config.codec, config.pool_bytes_max, tier.is_some()),
            shards,
            waiting: (0..count).map(|_| AtomicU32::new(0)).collect(),
            seed,
            shard_bits: count.trailing_zeros(),
            swap: tier.map(|(tier, bytes_max)| Swap::new(tier, bytes_max, config, &budget)),
            swap_name,
            pool_bytes_first: config.pool_bytes_max,
            dictionaries: Dictionaries::new(config.codec, config.dictionaries, &budget),
            turns: Turns::new(),
            trainings: Trainings::default(),
            cold: ColdSpare::default(),
            pools: RwLock::new(Pools::new(&budget)),
            budget,
            wrote_ephemeral: AtomicBool::new(false),
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
            let result =
                self.store_displacing(PoolKind::Persistent, || self.insert_encoded(number, zpage));
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
        scope: Option<&Arc<Scope>>,
        page: &Page,
        take: impl FnOnce(Kind, Zpage<'_>) -> R,
    ) -> R {
        let codec = self.fresh_codec();
        // Cold pages have a dictionary whatever the codec of fresh ones.
        let scoped = scope.filter(|_| codec.has_dictionaries());
        let current = scoped.and_then(|scope| scope.current());
        let turn = self.fresh.costs.turn_of_store();
        if let Turn::Compared { timed } = turn
            && self.fresh.is_auto
        {
            let current = scope.and_then(|scope| scope.current());
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
                self.turns.offer(scope, page, encoded.bytes.len());
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
            add(&self.counts.unnamed_pages, 1);
            return Err(Rejected::HandlesExhausted);
        }
        Ok(Handle::from_bits(handle as u32))
    }

    /// Adds a reference, as when a process that shares the page forks. A page that
    /// comes to have 2^25 - 1 of them stays for ever.
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
    /// reclaimed; it drops nothing by itself. One below
    /// [`StoreConfig::pool_bytes_min`] may refuse every page until it is raised.
    pub fn set_pool_bytes_max(&self, bytes: u64) {
        self.budget.set_max(bytes);
    }

    /// Lets pages that are inserted and shrink to three quarters or less exceed
    /// the limit by so much, for clients to whom each of them gives back more
    /// room than it takes here. Zero at first.
    pub fn set_pool_bytes_beyond(&self, bytes: u64) {
        self.budget.set_beyond(bytes);
    }

    /// Calls `hook` for what operators should hear of, in the thread where it
    /// happens, before the operation that it happens in goes on. No lock is held
    /// and nothing that it borrowed is in the way: the hook may use this store and
    /// any other. It is not called for what it brings about itself. Only the first
    /// hook is kept; false when there was one.
    pub fn on_event(&self, hook: impl Fn(&Event) + Send + Sync + 'static) -> bool {
        let bytes = size_of_val(&hook) as u64;
        let kept = self.events.set_hook(Box::new(hook));
        if kept {
            self.budget.charge_overhead(bytes);
        }
        kept
    }

    /// The swap file in words for messages; `None` without one of its own.
    #[must_use]
    pub fn swap_name(&self) -> Option<&str> {
        self.swap_name.as_deref()
    }

    /// Has the tiers give back what they hold elsewhere. Pages that are there can be read
    /// no more; for a client that ends without dropping the store.
    pub fn end_tiers(&self) {
        if let Some(swap) = &self.swap {
            swap.end();
        }
    }

    /// What the tiers say of themselves, in their order.
    #[must_use]
    pub fn tier_reports(&self) -> Vec<TierReport> {
        self.swap.as_ref().map_or_else(Vec::new, Swap::reports)
    }

    /// Walks everything and checks the core's equations. For tests: it takes time in
    /// proportion to what is stored, with each shard locked in turn.
    /// [`Stats::validate`](crate::Stats::validate) checks the store's own, at rest.
    ///
    /// In builds with debug assertions this happens by itself, at intervals and
    /// when the store is dropped, and panics where an equation does not hold.
    ///
    /// # Errors
    /// The equation that does not hold.
    pub fn validate(&self) -> Result<(), String> {
        for number in 0..self.shards.len() {
            let part = self.part(number);
            part.core
                .validate(&part.frames)
                .map_err(|broken| format!("shard {number}: {broken}"))?;
        }
        Ok(())
    }

    fn part(&self, number: usize) -> Locked<'_> {
        let shard = &self.shards[number];
        let part = match shard.try_lock() {
            Ok(part) => part,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let waiting = &self.waiting[number];
                waiting.fetch_add(1, Relaxed);
                let part = lock(shard);
                waiting.fetch_sub(1, Relaxed);
                part
            }
        };
        Locked::new(part)
    }

    /// Lets those who wait for a shard have it, whose lock this thread is about to
    /// take again and again.
    fn give_way(&self, number: usize) {
        let waiting = &self.waiting[number];
        if waiting.load(Relaxed) == 0 {
            return;
        }
        let start = Instant::now();
        while waiting.load(Relaxed) != 0 && start.elapsed() < GIVE_WAY_MAX {
            yield_now();
        }
    }

    fn part_of(&self, handle: Handle) -> (Locked<'_>, EntryToken) {
        let bits = handle.to_bits();
        let number = bits as usize & (self.shards.len() - 1);
        (self.part(number), EntryToken(bits >> self.shard_bits))
    }

    /// The shard that this thread stores in now.
    fn shard_of_thread(&self) -> usize {
        static NEXT_RUN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        crate::sync::thread_local! {
            static RUN: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
        }
        let (run, left) = match RUN.get() {
            (_, 0) => (NEXT_RUN.fetch_add(1, Relaxed), SHARD_RUN_PAGES),
            run => run,
        };
        RUN.set((run, left - 1));
        run as usize & (self.shards.len() - 1)
    }

    /// Stores a page. While it finds no room, drops ephemeral blocks, which may lie in
    /// any shard, and tries again. An ephemeral page displaces one other block at most.
    fn store_displacing<T>(
        &self,
        by: PoolKind,
        store: impl Fn() -> Result<T, Rejected>,
    ) -> Result<T, Rejected> {
        let blocks_max = match by {
            PoolKind::Persistent => DISPLACED_BLOCKS_MAX,
            PoolKind::Ephemeral => 1,
        };
        let mut result = store();
        for _ in 0..blocks_max {
            if !matches!(result, Err(Rejected::PoolFull)) || !self.displace_ephemeral(by) {
                break;
            }
            result = store();
        }
        result
    }

    /// Drops an ephemeral block of the next shard that has one: from RAM, or else from
    /// the tier, for the sake of its tables. False when none has.
    fn displace_ephemeral(&self, by: PoolKind) -> bool {
        let from_ram = |core: &mut Shard, frames: &mut ShardFrames| {
            core.drop_oldest_ephemeral(frames).is_some()
        };
        let from_tier =
            |core: &mut Shard, frames: &mut ShardFrames| core.drop_oldest_in_tier(frames).is_some();
        self.displace_by(by, from_ram)
            || self.wrote_ephemeral.load(Relaxed) && self.displace_by(by, from_tier)
    }

    fn displace_by(
        &self,
        by: PoolKind,
        drop_one: impl Fn(&mut Shard, &mut ShardFrames) -> bool,
    ) -> bool {
        self.shards_in_turn().any(|number| {
            let mut part = self.part(number);
            let Part { core, frames, .. } = &mut *part;
            let dropped = drop_one(core, frames);
            if dropped {
                frames.trim();
                self.free_slots(&mut part);
                add(
                    &self.counts.pers_ate_eph,
                    u64::from(by == PoolKind::Persistent),
                );
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
        let Part { core, frames, .. } = part;
        while let Some((slot, run)) = core.take_freed_slot(frames) {
            swap.free(slot, run);
        }
        swap.recount();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !cfg!(debug_assertions) || std::thread::panicking() {
            return;
        }
        let mut damaged = false;
        for shard in self.shards.iter() {
            let part = lock(shard);
            part.assert_valid();
            damaged |= part.walks.damaged;
        }
        if !damaged && let Err(broken) = self.stats().validate() {
            panic!("an equation of the store does not hold: {broken}");
        }
    }
}

#[cfg(test)]
mod tests;
