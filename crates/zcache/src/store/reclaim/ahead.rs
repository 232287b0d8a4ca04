//! Ephemeral blocks to the tier, ahead of need: what is read again then comes from
//! there, where it would have been dropped.
//!
//! Stage on the data path: in a thread that waits for the tier, so that nobody who
//! stores a page does.
//!
//! - What the tier has no room for makes room itself: the oldest ephemeral blocks
//!   there are dropped.
//! - The tables that say what is in the tier take at most one part in
//!   [`TABLES_PART`] of the limit: what they have no room for is dropped.

use zcache_core::Kind;

use super::bounds::frame_bytes;
use super::outcome::{Reclaimed, Stop};
use super::swap::Swap;
use super::{HIGH_PART, LOW_PART, Step, Store};
use crate::store::inside::Inside;
use crate::store::part::Part;
use crate::sync::atomic::Ordering::Relaxed;
use crate::tier::Places;

/// Of the limit, the part that tables may take while more goes to the tier.
const TABLES_PART: u64 = 2;

/// Blocks dropped from the tier at once.
const DROPPED_TOGETHER: usize = 16;

impl Store {
    /// Bytes of RAM that [`write_back_ephemeral`](Store::write_back_ephemeral) is to free
    /// now, so that pages which come need not displace others; `None` while less than
    /// 95% of the limit is in use, or there is no tier.
    #[must_use]
    pub fn ahead_due_bytes(&self) -> Option<u64> {
        let (used, max) = (self.budget.used(), self.budget.max());
        let is_due = self.swap.is_some() && used > max - max / HIGH_PART;
        is_due.then(|| used.saturating_sub(max - max / LOW_PART))
    }

    /// Writes the oldest ephemeral blocks to the tier until about `bytes` of RAM are
    /// free, and returns when they are, or nothing more can be: the tier failed and
    /// it is not time to try again, or no block is left. Without this, ephemeral
    /// pages are dropped from RAM and never written.
    ///
    /// It waits for the tier. Puts and [`reclaim`](Store::reclaim), which do not,
    /// drop ephemeral blocks where this was too late.
    pub fn write_back_ephemeral(&self, bytes: u64) -> Reclaimed {
        let mut done = Reclaimed::default();
        let Some(swap) = &self.swap else {
            return done;
        };
        let Some(inside) = Inside::enter_once(swap) else {
            return done;
        };
        if swap.was_forked() {
            done.forked = true;
            return done;
        }
        self.wrote_ephemeral.store(true, Relaxed);
        self.write_ephemeral(swap, bytes, &mut done);
        // The hook may store pages.
        drop(inside);
        self.events.settle(swap.trouble(), !swap.is_nearly_full());
        done
    }

    fn write_ephemeral(&self, swap: &Swap, bytes: u64, done: &mut Reclaimed) {
        let mut in_vain = 0;
        while done.bytes < bytes && in_vain < self.shards.len() {
            if !swap.may_write() {
                done.held_back = true;
                return;
            }
            let number = self.next_shard.fetch_add(1, Relaxed) & (self.shards.len() - 1);
            while self.has_large_tables(number) && self.drop_in_tier(number, done) {}
            let Some(left @ 1..) = bytes.checked_sub(done.bytes) else {
                return;
            };
            in_vain += 1;
            match self.write_batch(swap, number, Kind::Ephemeral, left, done) {
                Step::Written => in_vain = 0,
                Step::Empty => {}
                Step::NoPlace(Places::Any) => {
                    if self.drop_in_tier(number, done) {
                        in_vain = 0;
                    }
                }
                // What is dropped is free there a moment later.
                Step::NoPlace(Places::Backed) | Step::NoGrowth | Step::Stopped(Stop::NoRoom) => {
                    self.drop_in_tier(number, done);
                    return;
                }
                Step::Stopped(_) => return,
            }
        }
    }

    /// Whether a shard's tables take as much of its part of the limit as they may.
    fn has_large_tables(&self, number: usize) -> bool {
        let tables = self.part(number).core.metadata_bytes() * self.shards.len() as u64;
        tables > self.budget.max() / TABLES_PART
    }

    /// Drops some of the oldest ephemeral blocks that a shard has in the tier. False
    /// when it has none.
    fn drop_in_tier(&self, number: usize, done: &mut Reclaimed) -> bool {
        let mut part = self.part(number);
        let Part { core, frames, .. } = &mut *part;
        let mut any = false;
        for _ in 0..DROPPED_TOGETHER {
            let Some(dropped) = core.drop_oldest_in_tier(frames) else {
                break;
            };
            any = true;
            done.bytes += frame_bytes(dropped.frames);
            done.dropped_pages += u64::from(dropped.zpages);
        }
        // Where nothing went, the spare frames stay: a store that is full of tables lives on them.
        if any {
            self.free_slots(&mut part);
            part.frames.trim();
        }
        any
    }

    /// Drops ephemeral blocks that are in the tier until their tables have freed so
    /// much: what nothing else made room for has precedence over them.
    pub(super) fn drop_in_tiers(&self, bytes: u64, done: &mut Reclaimed) {
        for number in self.shards_in_turn() {
            while done.bytes < bytes && self.drop_in_tier(number, done) {}
        }
    }
}
