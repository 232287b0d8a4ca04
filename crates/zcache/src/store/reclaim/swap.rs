//! The tier and what the store knows of it: which places are taken, whether it
//! can be written now, and which transfers are under way.
//!
//! Stage on the data path: between a batch and the tier.
//!
//! - A tier whose medium failed is left alone for a while that doubles with each
//!   failure. One that had no room is only kept from growing for as long: places
//!   that were written before are written again at once.
//! - What a transfer takes is given back when the tier panics.
//! - In a forked process nothing is written.

use std::time::Duration;

use crate::sync::Instant;

use zcache_core::{Run, Slot};
use zcache_sys::fork::Process;

use super::bounds::{PAGE_SECTORS, batch_sectors};
use super::under_way::UnderWay;
use crate::config::StoreConfig;
use crate::frames::Budget;
use crate::store::events::Trouble;
use crate::store::inside::Inside;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use crate::sync::{Arc, Mutex, lock};
use crate::tier::{Buffers, Places, Slots, Tier, TierError, TierRead, TierReport, TierWrite};

/// The wait after a first failed write; it doubles up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_LONGEST: Duration = Duration::from_secs(1);

/// The tier and what the store knows of it.
pub(crate) struct Swap {
    tier: Box<dyn Tier>,
    /// What of the budget is counted for the tier's own RAM.
    tier_ram_bytes: AtomicU64,
    budget: Arc<Budget>,
    /// What slots are counted in.
    unit: Run,
    pub(in crate::store) slots: Mutex<Slots>,
    pub(in crate::store) page_buffers: Buffers,
    pub(in crate::store) block_buffers: Buffers,
    health: Mutex<Health>,
    pub(super) above_high: AtomicBool,
    /// When each transfer under way began.
    transfers: Mutex<Vec<Instant>>,
    /// Batches of blocks under way.
    pub(super) batches: UnderWay,
    opened_in: Process,
    /// Whether a thread is packing sparse blocks anew.
    pub(in crate::store) compacting: AtomicBool,
    /// When blocks that could not be read are tried again, if there are any.
    pub(super) aside_until: Mutex<Option<Instant>>,
}

/// What keeps the tier from being written, and until when.
#[derive(Default)]
struct Health {
    /// The medium failed at the last write.
    failing: Option<Hold>,
    /// There was no room for the last block at a place not written before.
    stuck: Option<Hold>,
}

/// When what failed is tried again.
struct Hold {
    errno: i32,
    not_before: Instant,
    wait: Duration,
}

impl Hold {
    /// After another failure, or the first.
    fn again(before: Option<&Hold>, errno: i32) -> Hold {
        let before = before.map_or(Duration::ZERO, |hold| hold.wait);
        let wait = (before * 2).clamp(RETRY_FIRST, RETRY_LONGEST);
        Hold {
            errno,
            not_before: Instant::now() + wait,
            wait,
        }
    }
}

/// Whether blocks may go to places that were not written before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Growth {
    Free,
    /// One may, to see whether there is room again.
    OneBlock,
    None,
}

/// What the writes of a batch say of the tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Verdict {
    /// The medium failed, with this error number.
    pub(super) failed: Option<i32>,
    /// There was no room, with this error number.
    pub(super) no_room: Option<i32>,
    /// A place that was not written before was.
    pub(super) grew: bool,
    /// Anything was written.
    pub(super) wrote: bool,
}

impl Verdict {
    pub(super) fn note(&mut self, result: Result<(), TierError>, was_backed: bool) {
        match result {
            Ok(()) => {
                self.wrote = true;
                self.grew |= !was_backed;
            }
            Err(error) if error.is_no_room() => self.no_room = error.errno(),
            Err(error) => self.failed = Some(error.errno().unwrap_or(EIO)),
        }
    }
}

/// What a tier's own kinds of failure are told as.
const EIO: i32 = 5;

impl Swap {
    pub(in crate::store) fn new(
        tier: Box<dyn Tier>,
        bytes_max: Option<u64>,
        config: &StoreConfig,
        budget: &Arc<Budget>,
    ) -> Swap {
        let runs = zcache_core::Allocator::from(config.allocator).runs();
        let slots = Slots::new(runs, bytes_max, Arc::clone(budget));
        let swap = Swap {
            tier,
            tier_ram_bytes: AtomicU64::new(0),
            budget: Arc::clone(budget),
            unit: slots.unit(),
            slots: Mutex::new(slots),
            page_buffers: Buffers::new(PAGE_SECTORS, Arc::clone(budget)),
            block_buffers: Buffers::new(batch_sectors(config.pool_bytes_max), Arc::clone(budget)),
            health: Mutex::default(),
            above_high: AtomicBool::new(false),
            transfers: Mutex::default(),
            batches: UnderWay::default(),
            opened_in: Process::this(),
            compacting: AtomicBool::new(false),
            aside_until: Mutex::default(),
        };
        swap.recount();
        swap
    }

    /// Where a slot begins, in bytes from the start of the tier.
    pub(in crate::store) fn offset_bytes(&self, slot: Slot) -> u64 {
        u64::from(slot.0) * self.unit.bytes() as u64
    }

    /// Frees the place of a block that was written, or where writing it failed.
    pub(in crate::store) fn free(&self, slot: Slot, run: Run) {
        // Before the place can be another block's.
        let bytes = run.bytes() as u64;
        self.tier.free(self.offset_bytes(slot), bytes);
        lock(&self.slots).free(slot.0, run);
    }

    /// Has the tiers give back what they hold elsewhere.
    pub(in crate::store) fn end(&self) {
        self.tier.end();
    }

    /// What its tiers say of themselves.
    pub(in crate::store) fn reports(&self) -> Vec<TierReport> {
        self.tier.reports()
    }

    /// Has the budget count what the tier holds of RAM now.
    pub(in crate::store) fn recount(&self) {
        let bytes = self.tier.ram_bytes();
        let counted = self.tier_ram_bytes.swap(bytes, Relaxed);
        if bytes != counted {
            self.budget.charge_overhead(bytes);
            self.budget.discharge_overhead(counted);
        }
    }

    /// Whether nine tenths of the places that can be had are in use, or a block
    /// found none.
    pub(in crate::store) fn is_nearly_full(&self) -> bool {
        let places = match lock(&self.health).stuck {
            Some(_) => Places::Backed,
            None => Places::Any,
        };
        lock(&self.slots).is_nearly_full(places)
    }

    /// Whether this process was forked from the one that opened the store.
    pub(in crate::store) fn was_forked(&self) -> bool {
        self.opened_in.was_forked()
    }

    pub(in crate::store) fn read(&self, reads: &mut [TierRead<'_>]) {
        self.read_by(reads, |tier, reads| tier.read(reads));
    }

    /// The same of what came and was not what was written.
    pub(in crate::store) fn read_again(&self, reads: &mut [TierRead<'_>]) {
        self.read_by(reads, |tier, reads| tier.read_again(reads));
    }

    fn read_by(&self, reads: &mut [TierRead<'_>], by: fn(&dyn Tier, &mut [TierRead<'_>])) {
        let Some(_inside) = Inside::enter(self) else {
            for read in reads {
                read.result = Err(TierError::Nested);
            }
            return;
        };
        let _transfer = Transfer::begin(self);
        by(&*self.tier, reads);
    }

    pub(super) fn write(&self, writes: &mut [TierWrite<'_>]) {
        let refusal = match Inside::enter(self) {
            _ if self.was_forked() => TierError::Forked,
            None => TierError::Nested,
            Some(_inside) => {
                let _transfer = Transfer::begin(self);
                return self.tier.write(writes);
            }
        };
        for write in writes {
            write.result = Err(refusal);
        }
    }

    /// Whether it is time to write to the tier, if it failed before.
    pub(super) fn may_write(&self) -> bool {
        let health = lock(&self.health);
        let failing = health.failing.as_ref();
        failing.is_none_or(|hold| Instant::now() >= hold.not_before)
    }

    /// Whether the next batch may have the tier grow.
    pub(super) fn growth(&self) -> Growth {
        match &lock(&self.health).stuck {
            None => Growth::Free,
            Some(hold) if Instant::now() >= hold.not_before => Growth::OneBlock,
            Some(_) => Growth::None,
        }
    }

    /// Takes the right to try one block at a place that was not written before,
    /// which one batch has after each wait.
    pub(super) fn try_growth(&self) -> bool {
        match &mut lock(&self.health).stuck {
            None => true,
            Some(hold) if Instant::now() >= hold.not_before => {
                hold.not_before = Instant::now() + hold.wait;
                true
            }
            Some(_) => false,
        }
    }

    /// Learns from a batch that was written.
    pub(super) fn learn(&self, verdict: Verdict) {
        let mut health = lock(&self.health);
        health.failing = verdict
            .failed
            .map(|errno| Hold::again(health.failing.as_ref(), errno));
        if let Some(errno) = verdict.no_room {
            health.stuck = Some(Hold::again(health.stuck.as_ref(), errno));
        } else if verdict.grew {
            health.stuck = None;
        }
    }

    /// What keeps blocks in RAM at this moment.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        if self.was_forked() {
            return Some(Trouble::Forked);
        }
        let health = lock(&self.health);
        let failing = health.failing.as_ref().map(|hold| hold.errno);
        let stuck = health.stuck.as_ref().map(|hold| hold.errno);
        drop(health);
        let slots = lock(&self.slots);
        match (failing, stuck) {
            (Some(errno), _) => Some(Trouble::Failing { errno }),
            (None, Some(errno)) if slots.lacks(Places::Backed) => Some(Trouble::NoRoom { errno }),
            _ if slots.lacks(Places::Any) => Some(Trouble::Full {
                bytes: slots.used_bytes(),
            }),
            _ => None,
        }
    }

    /// For how long the oldest transfer has been under way.
    pub(super) fn oldest_transfer(&self) -> Option<Duration> {
        lock(&self.transfers).iter().map(Instant::elapsed).max()
    }
}

/// A transfer under way; over when dropped.
struct Transfer<'a> {
    swap: &'a Swap,
    start: Instant,
}

impl<'a> Transfer<'a> {
    fn begin(swap: &'a Swap) -> Transfer<'a> {
        let start = Instant::now();
        lock(&swap.transfers).push(start);
        Transfer { swap, start }
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        let mut transfers = lock(&self.swap.transfers);
        if let Some(index) = transfers.iter().position(|other| *other == self.start) {
            transfers.swap_remove(index);
        }
    }
}
