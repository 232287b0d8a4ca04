//! How much of the budget compressed pages may take, when there is a tier
//! behind them.
//!
//! Stage on the data path: between eviction and write-back. Evicted pages form
//! a line by the time of their eviction: the youngest are in the store, the
//! older ones in the tier. Each load tells where in that line its page stood.
//! From these depths follows what a larger or a smaller store would have cost:
//! a page of RAM holds one resident page, or as many stored ones as they shrink.
//!
//! Equation, for a store of `S` pages that shrink by `r`, and `x` pages of RAM
//! given to residents: `cost(x) = ram * hits(x .. x + S - r x) + tier * hits(x + S - r x ..)`.
//! Depths are in pages that are still out, times are measured.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Epochs of eviction that are told apart; what is older counts as the oldest.
const EPOCHS: usize = 512;
/// Evictions in an epoch are this part of what the budget could hold.
const EPOCHS_IN_BUDGET: u64 = 64;
/// Limits of the share, in thousandths of what can be paged.
const SHARE_LEAST: u64 = 100;
const SHARE_MOST: u64 = 850;
const SHARE_FIRST: u64 = 750;
/// Steps of a change, each of ten thousandths.
const STEPS: i64 = 5;
const STEP: u64 = 10;
/// What a change has to save, as part of the cost.
const WORTH: f64 = 0.02;
/// What a fault costs the program beside the load itself.
const ROUND_TRIP_NS: f64 = 10_000.0;
/// Loads that a decision needs at least.
const LOADS_LEAST: f64 = 200.0;

/// A page's eviction on the balance's clock. Wraps around.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Epoch(pub(crate) u16);

/// See the module's description.
pub(crate) struct Balance {
    granule: u64,
    evicted: AtomicU64,
    hits: Box<[AtomicU32]>,
    ram_ns: AtomicU64,
    tier_ns: AtomicU64,
    share: AtomicU64,
}

/// The state of the line of evicted pages when a decision is made.
pub(crate) struct Line {
    /// Pages that are out, by epochs since their eviction.
    out: Vec<u64>,
    /// Pages that the store holds in RAM.
    pub(crate) stored_pages: u64,
    /// How many of them a page of RAM holds.
    pub(crate) ratio: f64,
    /// Pages of RAM that the budget has for pages at all.
    pub(crate) pageable_pages: u64,
}

impl Line {
    pub(crate) fn new(stored_pages: u64, ratio: f64, pageable_pages: u64) -> Line {
        Line {
            out: vec![0; EPOCHS],
            stored_pages,
            ratio,
            pageable_pages,
        }
    }

    pub(crate) fn add(&mut self, ago: usize) {
        self.out[ago.min(EPOCHS - 1)] += 1;
    }
}

impl Balance {
    pub(crate) fn new(budget_pages: u64) -> Balance {
        Balance {
            granule: (budget_pages / EPOCHS_IN_BUDGET).max(1),
            evicted: AtomicU64::new(0),
            hits: (0..EPOCHS).map(|_| AtomicU32::new(0)).collect(),
            ram_ns: AtomicU64::new(15_000),
            tier_ns: AtomicU64::new(90_000),
            share: AtomicU64::new(SHARE_FIRST),
        }
    }

    /// The epoch of pages that are evicted now.
    pub(crate) fn now(&self) -> Epoch {
        Epoch((self.evicted.load(Ordering::Relaxed) / self.granule) as u16)
    }

    pub(crate) fn evicted(&self, pages: u64) {
        self.evicted.fetch_add(pages, Ordering::Relaxed);
    }

    /// How many epochs ago that was.
    pub(crate) fn ago(&self, epoch: Epoch) -> usize {
        usize::from(self.now().0.wrapping_sub(epoch.0))
    }

    /// A page that was evicted in `epoch` is wanted back.
    pub(crate) fn wanted(&self, epoch: Epoch) {
        self.hits[self.ago(epoch).min(EPOCHS - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// Evicted and back before a third of what the budget can hold went out: a
    /// page that had better stayed.
    pub(crate) fn is_regretted(&self, epoch: Epoch) -> bool {
        (self.ago(epoch) as u64) < EPOCHS_IN_BUDGET / 3
    }

    /// A load took `time`, from the tier or from RAM.
    pub(crate) fn took(&self, time: Duration, tier: bool) {
        let mean = if tier { &self.tier_ns } else { &self.ram_ns };
        let old = mean.load(Ordering::Relaxed);
        let sample = time.as_nanos().min(50_000_000) as u64;
        mean.store((old * 255 + sample) / 256, Ordering::Relaxed);
    }

    /// The store's share of `pageable` bytes.
    pub(crate) fn share_of(&self, pageable: u64) -> u64 {
        pageable / 1000 * self.share.load(Ordering::Relaxed)
    }

    /// Moves the share by what the loads since the last time say, which then
    /// count half as much.
    pub(crate) fn adjust(&self, line: &Line) {
        let take = |hits: &AtomicU32| {
            let seen = hits.load(Ordering::Relaxed);
            hits.fetch_sub(seen - seen / 2, Ordering::Relaxed);
            f64::from(seen)
        };
        let hits: Vec<f64> = self.hits.iter().map(take).collect();
        if hits.iter().sum::<f64>() < LOADS_LEAST {
            return;
        }
        let costs = Costs {
            ram: self.ram_ns.load(Ordering::Relaxed) as f64 + ROUND_TRIP_NS,
            tier: self.tier_ns.load(Ordering::Relaxed) as f64 + ROUND_TRIP_NS,
        };
        let step_pages = line.pageable_pages as f64 * STEP as f64 / 1000.0;
        let steps = best_steps(&Depths::new(&hits, &line.out), line, &costs, step_pages);
        let share = self.share.load(Ordering::Relaxed);
        let moved = share.saturating_add_signed(-steps * STEP.cast_signed());
        self.share
            .store(moved.clamp(SHARE_LEAST, SHARE_MOST), Ordering::Relaxed);
    }
}

/// Nanoseconds of a load, the program's wait included.
struct Costs {
    ram: f64,
    tier: f64,
}

/// Loads by the depth of their pages in the line.
struct Depths {
    /// Depth at the old end of each epoch, and loads up to there.
    ends: Vec<(f64, f64)>,
    loads: f64,
}

impl Depths {
    fn new(hits: &[f64], out: &[u64]) -> Depths {
        let mut depth = 0.0;
        let mut loads = 0.0;
        let ends = hits
            .iter()
            .zip(out)
            .map(|(hits, out)| {
                // A page that is back is not out any more; it was when it was wanted.
                depth += (*out as f64).max(1.0);
                loads += hits;
                (depth, loads)
            })
            .collect();
        Depths { ends, loads }
    }

    /// Loads of pages up to `depth`.
    fn up_to(&self, depth: f64) -> f64 {
        let mut before = (0.0, 0.0);
        for end in &self.ends {
            if depth < end.0 {
                let part = (depth - before.0) / (end.0 - before.0);
                return before.1 + part.max(0.0) * (end.1 - before.1);
            }
            before = *end;
        }
        self.loads
    }
}

/// By how many steps to change what residents have: more than 0 shrinks the store.
fn best_steps(depths: &Depths, line: &Line, costs: &Costs, step_pages: f64) -> i64 {
    let stored = line.stored_pages as f64;
    let youngest = depths.up_to(step_pages) / step_pages;
    let cost = |steps: i64| {
        let given = steps as f64 * step_pages;
        let tier_from = (given + stored - line.ratio * given).max(given);
        let from_tier = depths.loads - depths.up_to(tier_from);
        let out = depths.loads - depths.up_to(given.max(0.0)) - from_tier;
        // Residents that would leave are wanted about as often as the youngest
        // of those that left.
        let more = (-given).max(0.0) * youngest;
        costs.ram * (out + more) + costs.tier * from_tier
    };
    let now = cost(0);
    let best = (-STEPS..=STEPS).min_by(|one, other| cost(*one).total_cmp(&cost(*other)));
    best.filter(|steps| cost(*steps) < now * (1.0 - WORTH))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: Costs = Costs {
        ram: 15_000.0,
        tier: 100_000.0,
    };

    fn steps(hits: &[f64], stored_pages: u64, ratio: f64) -> i64 {
        let mut line = Line::new(stored_pages, ratio, 10_000);
        line.out.fill(100);
        let mut all = vec![0.0; EPOCHS];
        all[..hits.len()].copy_from_slice(hits);
        best_steps(&Depths::new(&all, &line.out), &line, &COSTS, 100.0)
    }

    #[test]
    fn loads_of_just_evicted_pages_shrink_a_store_that_is_not_used() {
        assert_eq!(steps(&[1000.0, 1000.0, 1000.0], 3000, 3.0), 3);
    }

    #[test]
    fn loads_from_the_tier_just_beyond_the_store_make_it_grow() {
        let mut hits = vec![1.0; 30];
        hits.extend([500.0, 500.0]);
        assert_eq!(steps(&hits, 3000, 3.0), -1);
    }

    #[test]
    fn loads_spread_evenly_leave_pages_that_shrink_where_they_are() {
        assert!(steps(&[10.0; 60], 3000, 3.0) <= 0);
        // A page that does not shrink is better resident than stored.
        assert!(steps(&[10.0; 60], 3000, 1.0) > 0);
    }

    #[test]
    fn without_loads_nothing_changes() {
        assert_eq!(steps(&[0.0; 10], 3000, 3.0), 0);
        let balance = Balance::new(10_000);
        balance.adjust(&Line::new(3000, 3.0, 10_000));
        assert_eq!(balance.share_of(1000), SHARE_FIRST);
    }

    #[test]
    fn the_share_follows_and_keeps_its_limits() {
        let balance = Balance::new(10_000);
        for _ in 0..200 {
            for _ in 0..1000 {
                balance.wanted(balance.now());
            }
            let mut line = Line::new(3000, 3.0, 10_000);
            line.out.fill(100);
            balance.adjust(&line);
        }
        assert_eq!(balance.share_of(1000), SHARE_LEAST);
    }

    #[test]
    fn epochs_wrap_around() {
        let balance = Balance::new(64);
        balance.evicted(65_530);
        let then = balance.now();
        balance.evicted(20);
        assert_eq!(balance.ago(then), 20);
        assert!(balance.is_regretted(then));
        balance.evicted(20);
        assert!(!balance.is_regretted(then));
    }
}
