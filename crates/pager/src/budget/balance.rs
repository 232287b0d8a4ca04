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
//!
//! The same cost says what another codec, with another `r`, would have spared
//! (`background/codec.rs`).

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
pub(crate) const ROUND_TRIP_NS: f64 = 10_000.0;
/// Loads that a decision needs at least.
const LOADS_LEAST: f64 = 200.0;
/// Places between which the best size of a store is looked for, as parts of what
/// can be paged.
const PLACES: u64 = 100;

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

    /// What the loads since the last time say, which then count half as much;
    /// `None` when there were too few. `line` is asked only if there were enough.
    pub(crate) fn look(&self, line: impl FnOnce() -> Line) -> Option<Prospect> {
        let seen = self.hits.iter().map(|hits| hits.load(Ordering::Relaxed));
        if f64::from(seen.sum::<u32>()) < LOADS_LEAST {
            return None;
        }
        let take = |hits: &AtomicU32| {
            let seen = hits.load(Ordering::Relaxed);
            hits.fetch_sub(seen - seen / 2, Ordering::Relaxed);
            f64::from(seen)
        };
        let hits: Vec<f64> = self.hits.iter().map(take).collect();
        let line = line();
        Some(Prospect {
            depths: Depths::new(&hits, &line.out),
            costs: Costs {
                ram: self.ram_ns.load(Ordering::Relaxed) as f64 + ROUND_TRIP_NS,
                tier: self.tier_ns.load(Ordering::Relaxed) as f64 + ROUND_TRIP_NS,
            },
            line,
        })
    }

    /// Moves the share by what a look saw.
    pub(crate) fn adjust(&self, prospect: &Prospect) {
        let steps = prospect.best_steps();
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

/// Loads that would have come to pass, as parts of those that did.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Loads {
    /// All of them: from 0 when residents had spared them, to more than 1.
    pub(crate) all: f64,
    /// Of the same whole, those from the tier.
    pub(crate) tier: f64,
}

/// More than anybody wants.
const TOO_MANY: Loads = Loads {
    all: 1000.0,
    tier: 0.0,
};

/// What was seen of loads at one look.
pub(crate) struct Prospect {
    depths: Depths,
    line: Line,
    costs: Costs,
}

impl Prospect {
    /// What a load from the tier takes longer than one from RAM.
    pub(crate) fn tier_extra_ns(&self) -> f64 {
        (self.costs.tier - self.costs.ram).max(0.0)
    }

    /// Loads if residents had `given` pages more of RAM, and the store the rest
    /// of its own for pages that shrink by `ratio`.
    fn loads(&self, given: f64, ratio: f64) -> Loads {
        let Prospect { depths, line, .. } = self;
        let room = (line.stored_pages as f64 / line.ratio - given).max(0.0);
        let tier = depths.loads - depths.up_to((given + ratio * room).max(given));
        let out = depths.loads - depths.up_to(given.max(0.0));
        // Residents that would leave are wanted about as often as the youngest
        // of those that left.
        let step = self.step_pages();
        let more = (-given).max(0.0) * depths.up_to(step) / step;
        Loads {
            all: (out + more) / depths.loads,
            tier: tier / depths.loads,
        }
    }

    fn step_pages(&self) -> f64 {
        self.line.pageable_pages as f64 * STEP as f64 / 1000.0
    }

    fn cost(&self, loads: Loads) -> f64 {
        self.costs.ram * loads.all + self.tier_extra_ns() * loads.tier
    }

    /// By how many steps to change what residents have: more than 0 shrinks the
    /// store.
    fn best_steps(&self) -> i64 {
        let cost = |steps: i64| {
            let given = steps as f64 * self.step_pages();
            self.cost(self.loads(given, self.line.ratio))
        };
        let best = (-STEPS..=STEPS).min_by(|one, other| cost(*one).total_cmp(&cost(*other)));
        best.filter(|steps| cost(*steps) < cost(0) * (1.0 - WORTH))
            .unwrap_or(0)
    }

    /// Loads as they came to pass.
    pub(crate) fn loads_now(&self) -> Loads {
        self.loads(0.0, self.line.ratio)
    }

    /// Loads if each page of the store's RAM held so many `times` as many pages,
    /// with the RAM shared out anew. Without a tier everything that is out has to
    /// be stored, and what is left is for residents; too many loads to be wanted
    /// if that is less than the least. With one, the store may also have less,
    /// within the limits of its share.
    pub(crate) fn loads_at_best(&self, times: f64, has_tier: bool) -> Loads {
        let line = &self.line;
        let ratio = (line.ratio * times).max(1.0 + f64::EPSILON);
        let room = line.stored_pages as f64 / line.ratio;
        let out = line.out.iter().sum::<u64>() as f64;
        let all_fit = (room * ratio - out) / (ratio - 1.0);
        let pageable = line.pageable_pages as f64;
        let given = |share: u64| room - pageable * share as f64 / 1000.0;
        if !has_tier {
            return match all_fit < given(SHARE_FIRST) {
                true => TOO_MANY,
                false => self.loads(all_fit.min(room), ratio),
            };
        }
        let most = given(SHARE_LEAST);
        let least = all_fit.max(given(SHARE_MOST)).min(most);
        (0..=PLACES)
            .map(|place| least + (most - least) * place as f64 / PLACES as f64)
            .map(|given| self.loads(given, ratio))
            .min_by(|one, other| self.cost(*one).total_cmp(&self.cost(*other)))
            .expect("there is a first place")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: Costs = Costs {
        ram: 15_000.0,
        tier: 100_000.0,
    };

    fn prospect(hits: &[f64], stored_pages: u64, ratio: f64) -> Prospect {
        let mut line = Line::new(stored_pages, ratio, 10_000);
        line.out.fill(100);
        let mut all = vec![0.0; EPOCHS];
        all[..hits.len()].copy_from_slice(hits);
        Prospect {
            depths: Depths::new(&all, &line.out),
            line,
            costs: COSTS,
        }
    }

    fn steps(hits: &[f64], stored_pages: u64, ratio: f64) -> i64 {
        prospect(hits, stored_pages, ratio).best_steps()
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
        assert!(balance.look(|| unreachable!("no loads")).is_none());
        assert_eq!(balance.share_of(1000), SHARE_FIRST);
    }

    #[test]
    fn a_denser_store_spares_loads_as_far_as_pages_are_wanted_where_it_helps() {
        // 51,200 pages are out. All are stored without a tier, at 8:1 in 6,400
        // of 10,000 pages of RAM; at 16:1 residents get (6,400 * 16 - 51,200) / 15.
        let even = prospect(&[10.0; EPOCHS], 51_200, 8.0);
        let Loads { all, tier } = even.loads_at_best(2.0, false);
        assert!((all - 0.933).abs() < 0.01 && tier == 0.0, "{all} {tier}");
        let same = even.loads_at_best(1.0, false);
        assert!((same.all - 1.0).abs() < 0.01, "{same:?}");
        let looser = even.loads_at_best(0.9, false);
        assert!(looser.all > 1.01 && looser.all < 1.1, "{looser:?}");
        // At 4:1 the store would need more than there is.
        assert_eq!(even.loads_at_best(0.5, false), TOO_MANY);
        // A sweep wants what has been out longest: a few more residents spare nothing.
        let mut hits = [0.0; EPOCHS];
        hits[EPOCHS - 1] = 1000.0;
        let sweep = prospect(&hits, 10_000, 2.0);
        assert!((sweep.loads_at_best(2.0, true).all - 1.0).abs() < 0.01);
    }

    #[test]
    fn a_denser_store_spares_loads_from_the_tier() {
        // 17,000 pages of 51,200 are stored, in all of the share.
        let even = prospect(&[10.0; EPOCHS], 17_000, 2.0);
        let now = even.loads_now();
        assert!((now.tier - 0.668).abs() < 0.01, "{now:?}");
        let denser = even.loads_at_best(1.5, true);
        assert!(denser.tier < 0.55, "{denser:?}");
        assert!(even.cost(denser) < even.cost(even.loads_at_best(1.0, true)));
    }

    #[test]
    fn the_share_follows_and_keeps_its_limits() {
        let balance = Balance::new(10_000);
        for _ in 0..200 {
            for _ in 0..1000 {
                balance.wanted(balance.now());
            }
            let line = || {
                let mut line = Line::new(3000, 3.0, 10_000);
                line.out.fill(100);
                line
            };
            balance.adjust(&balance.look(line).expect("loads enough"));
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
