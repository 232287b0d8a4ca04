//! What the threads of a run share: the store, its tier with faults, and what is
//! known of both.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use zcache::tier::memory::MemoryTier;
use zcache::tier::{DiskTier, Tier};
use zcache::{Allocator, CodecChoice, Store, StoreConfig};

use crate::complaints::{Complaints, one_more};
use crate::support::counts::used_bytes;
use crate::support::faulty::{Asked, Damage, Faults, FaultyTier, ReadFault, WriteFault};
use crate::support::random::Random;

/// The limit from which a store trains dictionaries by itself.
const TRAINS_BYTES: u64 = 48 << 20;

/// The longest time that a store waits after a failed write before it tries
/// again, and a little.
pub(crate) const RETRY: Duration = Duration::from_millis(1200);

/// RAM that a store may take beyond its limit: dictionaries' samples, transfer
/// buffers, contexts of the threads of this process.
const OVERHEAD_BYTES_MAX: u64 = 24 << 20;

/// RAM that may be free in a store that is full: runs of frames are as long as 32
/// KiB, and a page may need a table too.
const FREE_BYTES: u64 = 256 << 10;

/// What kind of store a run has.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) config: StoreConfig,
    /// Its limit from the first moment after opening.
    pub(crate) pool_bytes_max: u64,
    pub(crate) tier: TierKind,
    pub(crate) tier_bytes_max: Option<u64>,
    pub(crate) threads: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TierKind {
    Absent,
    Memory,
    Disk,
    DiskWithoutRings,
}

impl Shape {
    pub(crate) fn drawn(random: &mut Random, threads: u64) -> Shape {
        let pool_bytes_max = (512 << 10) + random.below(2 << 20);
        let trains = random.one_in(6);
        Shape {
            config: StoreConfig {
                pool_bytes_max: if trains { TRAINS_BYTES } else { pool_bytes_max },
                codec: random.pick(&CodecChoice::ALL),
                allocator: random.pick(&Allocator::ALL),
                shards: 1 << random.below(4),
                dictionaries: !random.one_in(4),
                tiers: Vec::new(),
            },
            pool_bytes_max,
            tier: random.pick(&[
                TierKind::Absent,
                TierKind::Memory,
                TierKind::Memory,
                TierKind::Disk,
                TierKind::Disk,
                TierKind::DiskWithoutRings,
            ]),
            tier_bytes_max: random.one_in(3).then(|| (1 << 20) + random.below(3 << 20)),
            threads,
        }
    }

    pub(crate) fn tier(&self, random: &mut Random) -> Option<Arc<FaultyTier>> {
        let disk = |direct| {
            let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
            let file = zcache_sys::swapfile::open(directory, direct);
            DiskTier::new(file.expect("a file for the tier"))
        };
        let inner: Box<dyn Tier> = match self.tier {
            TierKind::Absent => return None,
            TierKind::Memory => Box::new(MemoryTier::new(random.next())),
            TierKind::Disk => Box::new(disk(random.one_in(2))),
            TierKind::DiskWithoutRings => Box::new(disk(random.one_in(2)).without_rings()),
        };
        Some(Arc::new(FaultyTier::new(inner, random.next())))
    }

    /// A store of this shape over a tier.
    pub(crate) fn open(&self, tier: Option<Box<dyn Tier>>) -> Store {
        let store = match tier {
            None => Store::open(self.config.clone()),
            Some(tier) => Store::with_tier(&self.config, tier, self.tier_bytes_max),
        };
        let store = store.expect("address space for a small store");
        store.set_pool_bytes_max(self.pool_bytes_max);
        store
    }
}

/// What the clients of a run use.
pub(crate) struct Shared<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) store: Store,
    pub(crate) tier: Option<Arc<FaultyTier>>,
    pub(crate) complaints: &'a Complaints,
    limit_bytes: AtomicU64,
    beyond_bytes: AtomicU64,
    /// What RAM may be used now: the limit, or what was used when it was lowered
    /// and not yet given back.
    ceiling_bytes: AtomicU64,
    /// A write of the tier was made to panic: its outcome was told by nobody.
    panicked: AtomicBool,
    overhead_bytes_first: u64,
}

impl<'a> Shared<'a> {
    pub(crate) fn new(
        shape: &'a Shape,
        tier: Option<Arc<FaultyTier>>,
        complaints: &'a Complaints,
    ) -> Shared<'a> {
        let boxed = |tier: &Arc<FaultyTier>| Box::new(Arc::clone(tier)) as Box<dyn Tier>;
        let store = shape.open(tier.as_ref().map(boxed));
        Shared {
            shape,
            overhead_bytes_first: store.overhead_bytes(),
            store,
            tier,
            complaints,
            limit_bytes: AtomicU64::new(shape.pool_bytes_max),
            beyond_bytes: AtomicU64::new(0),
            ceiling_bytes: AtomicU64::new(shape.pool_bytes_max),
            panicked: AtomicBool::new(false),
        }
    }

    /// Whether one thread uses the store, so that nothing happens meanwhile.
    pub(crate) fn alone(&self) -> bool {
        self.shape.threads == 1
    }

    /// Calls the store; `None` when the tier panicked inside, as it was asked to.
    pub(crate) fn call<R>(&self, call: impl FnOnce(&Store) -> R) -> Option<R> {
        match catch_unwind(AssertUnwindSafe(|| call(&self.store))) {
            Ok(result) => Some(result),
            Err(payload) if payload.is::<Asked>() => {
                one_more(&self.complaints.seen.panics);
                self.panicked.store(true, Relaxed);
                None
            }
            Err(payload) => resume_unwind(payload),
        }
    }

    /// A moment, to ask later what went wrong since.
    pub(crate) fn now(&self) -> usize {
        self.tier.as_ref().map_or(0, |tier| tier.now())
    }

    pub(crate) fn set_limit(&self, bytes: u64) {
        let used = self.used_bytes();
        self.store.set_pool_bytes_max(bytes);
        self.limit_bytes.store(bytes, Relaxed);
        self.ceiling_bytes.store(used.max(bytes), Relaxed);
    }

    pub(crate) fn set_beyond(&self, bytes: u64) {
        let used = self.used_bytes();
        self.store.set_pool_bytes_beyond(bytes);
        self.beyond_bytes.store(bytes, Relaxed);
        let limit = self.limit_bytes.load(Relaxed);
        self.ceiling_bytes.store(used.max(limit), Relaxed);
    }

    /// RAM that the limit bounds.
    fn used_bytes(&self) -> u64 {
        used_bytes(&self.store)
    }

    /// Complains about RAM beyond what may be used. Only while nobody else acts.
    pub(crate) fn check_ram(&self) {
        let used = self.used_bytes();
        let limit = self.limit_bytes.load(Relaxed) + self.beyond_bytes.load(Relaxed);
        let ceiling = self.ceiling_bytes.load(Relaxed).max(limit);
        if used > ceiling {
            let what = format_args!("{used} B of {ceiling} in {:?}", self.shape);
            self.complaints
                .add("frames and tables exceed the limit", what);
        }
        self.ceiling_bytes.store(used.max(limit), Relaxed);
        let overhead = self.store.overhead_bytes();
        if overhead > self.overhead_bytes_first + OVERHEAD_BYTES_MAX {
            let what = format_args!("{} MiB in {:?}", overhead >> 20, self.shape);
            self.complaints.add("RAM grows beyond the limit", what);
        }
    }

    /// A page was refused because the store is full: complains if it is not. Only
    /// while nobody else acts.
    pub(crate) fn refused_as_full(&self) {
        let (used, limit) = (self.used_bytes(), self.limit_bytes.load(Relaxed));
        if self.alone() && used + FREE_BYTES < limit {
            let what = format!("{used} B of {limit} in {:?}", self.shape);
            let kind = "a page is refused although RAM is free";
            self.complaints.add(kind, what);
        }
    }

    /// Whether a persistent page must find room: the tier takes all there is and
    /// did so lately, RAM is not above its limit, and tables do not fill it.
    pub(crate) fn has_room(&self, pages: u64) -> bool {
        const TABLE_BYTES: u64 = 128;
        let limit = self.limit_bytes.load(Relaxed);
        let Some(tier) = &self.tier else { return false };
        self.alone()
            && self.shape.tier_bytes_max.is_none()
            && !tier.write_failed_within(RETRY)
            && !self.panicked.load(Relaxed)
            && self.used_bytes() <= limit
            && pages * TABLE_BYTES < limit / 2
    }

    /// Faults of some kinds happen from now on, or none.
    pub(crate) fn draw_faults(&self, random: &mut Random) {
        let Some(tier) = &self.tier else { return };
        if random.one_in(3) {
            tier.set_faults(Faults::default());
            return;
        }
        let writes = [
            WriteFault::Error,
            WriteFault::Short,
            WriteFault::NoSpace,
            WriteFault::Lost,
            WriteFault::Astray,
            WriteFault::Flip,
            WriteFault::Slow,
            WriteFault::PanicBefore,
            WriteFault::PanicAfter,
        ];
        let reads = [
            ReadFault::Error,
            ReadFault::Short,
            ReadFault::Flip,
            ReadFault::Zeros,
            ReadFault::Astray,
            ReadFault::Slow,
            ReadFault::Panic,
        ];
        let rate = |random: &mut Random| random.pick(&[200, 2000, 20_000, u16::MAX]);
        tier.set_faults(Faults {
            sectors_max: random.one_in(4).then(|| random.below(400)),
            writes: (0..random.below(3))
                .map(|_| (random.pick(&writes), rate(random)))
                .collect(),
            reads: (0..random.below(3))
                .map(|_| (random.pick(&reads), rate(random)))
                .collect(),
        });
    }

    /// Something happens to the medium.
    pub(crate) fn damage(&self, random: &mut Random) {
        let kinds = [
            Damage::Unreadable,
            Damage::Flip,
            Damage::Zeros,
            Damage::Other,
        ];
        if let Some(tier) = &self.tier {
            let sectors = random.pick(&[1, 1, 4, 30]);
            tier.damage(random.pick(&kinds), sectors);
        }
    }
}
