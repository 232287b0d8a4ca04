//! The one hard budget of a run.
//!
//! Equation, at all times:
//! `charged pages + store (frames and metadata) + fixed <= ram - reserve`
//! for every page that is granted; `fixed` is what cannot be paged (zcache's own
//! memory and the program's private file pages), measured by the ticker. The
//! reserve pays for what eviction itself needs while it runs.
//!
//! Stage on the data path: every page passes here before the program gets it.
//! What it does not do: evict. Who is refused waits or parks the fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use zcache::Store;

use crate::sync::{Condvar, Mutex, lock, wait};

pub(crate) mod advance;
pub(crate) mod balance;
pub(crate) mod need;

/// Bytes of a page.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// See the module's description.
pub(crate) struct Budget {
    ram_bytes: u64,
    reserve_bytes: u64,
    low_bytes: u64,
    high_bytes: u64,
    charged_pages: AtomicU64,
    fixed_bytes: AtomicU64,
    wanted_pages: AtomicU64,
    peak_bytes: AtomicU64,
    store: Arc<Store>,
    gate: Mutex<()>,
    freed: Condvar,
    pressed: Condvar,
    evictors_sleep: AtomicBool,
}

impl Budget {
    pub(crate) fn new(ram_bytes: u64, store: Arc<Store>) -> Budget {
        let reserve_bytes = need::reserve_bytes(ram_bytes);
        let low_bytes = need::low_bytes(ram_bytes);
        Budget {
            ram_bytes,
            reserve_bytes,
            low_bytes,
            high_bytes: low_bytes / 2 * 3,
            charged_pages: AtomicU64::new(0),
            fixed_bytes: AtomicU64::new(0),
            wanted_pages: AtomicU64::new(0),
            peak_bytes: AtomicU64::new(0),
            store,
            gate: Mutex::new(()),
            freed: Condvar::new(),
            pressed: Condvar::new(),
            evictors_sleep: AtomicBool::new(false),
        }
    }

    pub(crate) fn ram_bytes(&self) -> u64 {
        self.ram_bytes
    }

    pub(crate) fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes
    }

    /// What is kept free of pages: the reserve, and what eviction goes on up to.
    pub(crate) fn apart_bytes(&self) -> u64 {
        self.reserve_bytes + self.high_bytes
    }

    pub(crate) fn charged_bytes(&self) -> u64 {
        self.charged_pages.load(Ordering::Relaxed) * PAGE_BYTES
    }

    pub(crate) fn fixed_bytes(&self) -> u64 {
        self.fixed_bytes.load(Ordering::Relaxed)
    }

    /// All that counts against the budget now.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.charged_bytes() + self.fixed_bytes() + self.store.ram_bytes()
    }

    /// The highest use that was seen, at charges and ticks.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_fixed_bytes(&self, bytes: u64) {
        self.fixed_bytes.store(bytes, Ordering::Relaxed);
        self.peak_bytes
            .fetch_max(self.used_bytes(), Ordering::Relaxed);
        self.press_if_low();
    }

    pub(crate) fn add_fixed_bytes(&self, bytes: u64) {
        self.fixed_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.press_if_low();
    }

    /// What may still be granted.
    pub(crate) fn available_bytes(&self) -> u64 {
        self.ram_bytes
            .saturating_sub(self.reserve_bytes + self.used_bytes())
    }

    /// Grants `pages` pages, or refuses all of them.
    pub(crate) fn try_charge(&self, pages: u64) -> bool {
        self.try_charge_but(pages, self.reserve_bytes)
    }

    /// Grants one page for one of the shadow's, which will be given back, from
    /// the reserve if need be.
    pub(crate) fn try_charge_for_shadow(&self) -> bool {
        self.try_charge_but(1, 0)
    }

    fn try_charge_but(&self, pages: u64, reserve_bytes: u64) -> bool {
        let other = self.fixed_bytes() + self.store.ram_bytes() + reserve_bytes;
        let room = self.ram_bytes.saturating_sub(other) / PAGE_BYTES;
        let result =
            self.charged_pages
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |charged| {
                    (charged + pages <= room).then_some(charged + pages)
                });
        if let Ok(before) = result {
            let used = (before + pages) * PAGE_BYTES + other - reserve_bytes;
            self.peak_bytes.fetch_max(used, Ordering::Relaxed);
        }
        self.press_if_low();
        result.is_ok()
    }

    /// Charges pages that are there already, whatever the budget says.
    pub(crate) fn charge_anyway(&self, pages: u64) {
        self.charged_pages.fetch_add(pages, Ordering::Relaxed);
        self.peak_bytes
            .fetch_max(self.used_bytes(), Ordering::Relaxed);
        self.press_if_low();
    }

    /// Gives pages back.
    pub(crate) fn uncharge(&self, pages: u64) {
        if pages > 0 {
            let before = self.charged_pages.fetch_sub(pages, Ordering::Relaxed);
            assert!(before >= pages, "more pages uncharged than were charged");
            self.freed.notify_all();
        }
    }

    /// Sleeps until something was given back or `timeout` passed.
    pub(crate) fn wait_freed(&self, timeout: Duration) {
        let guard = lock(&self.gate);
        drop(wait(&self.freed, &self.gate, guard, timeout));
    }

    /// Asks the evictors for `pages` pages of room beyond the watermark until
    /// the returned value is dropped.
    pub(crate) fn want(self: &Arc<Self>, pages: u64) -> Wanted {
        self.wanted_pages.fetch_add(pages, Ordering::Relaxed);
        self.press();
        Wanted {
            budget: Arc::clone(self),
            pages,
        }
    }

    /// Whether somebody wants room beyond the watermark.
    pub(crate) fn is_wished_for(&self) -> bool {
        self.wanted_pages.load(Ordering::Relaxed) > 0
    }

    fn wanted_bytes(&self) -> u64 {
        self.wanted_pages.load(Ordering::Relaxed) * PAGE_BYTES
    }

    /// True while eviction should begin.
    pub(crate) fn is_low(&self) -> bool {
        self.available_bytes() < self.low_bytes + self.wanted_bytes()
    }

    /// True while eviction, once begun, should go on (hysteresis).
    pub(crate) fn is_below_high(&self) -> bool {
        self.available_bytes() < self.high_bytes + self.wanted_bytes()
    }

    /// True when faults are about to wait: no time for second chances.
    pub(crate) fn is_urgent(&self) -> bool {
        self.available_bytes() < self.low_bytes / 2 + self.wanted_bytes()
    }

    fn press_if_low(&self) {
        if self.evictors_sleep.load(Ordering::Relaxed) && self.is_low() {
            self.press();
        }
    }

    pub(crate) fn press(&self) {
        self.evictors_sleep.store(false, Ordering::Relaxed);
        self.pressed.notify_all();
    }

    /// An evictor sleeps here until pressure or `timeout`.
    pub(crate) fn wait_pressed(&self, timeout: Duration) {
        let guard = lock(&self.gate);
        self.evictors_sleep.store(true, Ordering::Relaxed);
        if !self.is_low() {
            drop(wait(&self.pressed, &self.gate, guard, timeout));
        }
    }
}

/// A standing wish for room; see [`Budget::want`].
pub(crate) struct Wanted {
    budget: Arc<Budget>,
    pages: u64,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.budget
            .wanted_pages
            .fetch_sub(self.pages, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zcache::{Allocator, Codec, StoreConfig};

    fn budget(ram_bytes: u64) -> Budget {
        let store = Store::open(StoreConfig {
            pool_bytes_max: ram_bytes,
            codec: Codec::FAST.into(),
            allocator: Allocator::Block,
            shards: 1,
            dictionaries: false,
            tiers: Vec::new(),
        });
        Budget::new(
            ram_bytes,
            Arc::new(store.expect("a store without swap opens")),
        )
    }

    #[test]
    fn grants_end_at_the_budget_less_the_reserve() {
        let budget = budget(64 << 20);
        let mut granted = 0;
        while budget.try_charge(16) {
            granted += 16;
        }
        let rest = budget.available_bytes();
        assert!(
            rest < 16 * PAGE_BYTES,
            "{rest} bytes left after {granted} pages"
        );
        assert!(budget.used_bytes() <= budget.ram_bytes());
        assert!(budget.is_low() && budget.is_urgent());
        budget.uncharge(granted);
        assert_eq!(budget.charged_bytes(), 0);
        assert!(!budget.is_low());
        assert!(budget.peak_bytes() >= granted * PAGE_BYTES);
    }

    #[test]
    fn a_standing_wish_keeps_the_evictors_going() {
        let budget = Arc::new(budget(64 << 20));
        assert!(!budget.is_below_high());
        let wanted = budget.want(64 << 20 >> 12);
        assert!(budget.is_low());
        drop(wanted);
        assert!(!budget.is_low());
    }
}
