//! Which codec fresh pages get: what the pager knows of it.
//!
//! Stage on the data path: beside the store. The engine's
//! [`Chooser`](zcache::Chooser) measures what codecs cost and compares; from
//! here it hears what faults cost beside that, and, by the depths of
//! `balance.rs`, which loads another codec would have spared or added.

use zcache::{Chooser, Holding, Outlook, Traffic};

use crate::budget::balance::{Loads, Prospect, ROUND_TRIP_NS};
use crate::pager::Pager;

/// Processor time of a page that is loaded, and evicted for it, beside the
/// codec and the fault: moving it, reading it, giving its RAM back, copying it
/// in (measured: 1.4 to 1.7 and 1.2 to 2 µs).
const PAGE_WORK_NS: f64 = 3_000.0;

/// The chooser and what it needs to remember.
pub(crate) struct Choice {
    chooser: Chooser,
    /// Pages loaded, and of these, those along in a sweep, at the last look.
    loaded: (u64, u64),
    /// Pages that a fault brought lately.
    pages_a_fault: f64,
}

impl Choice {
    pub(crate) fn new() -> Choice {
        Choice {
            chooser: Chooser::new(),
            loaded: (0, 0),
            pages_a_fault: 1.0,
        }
    }

    /// Looks, and changes the codec if that is worth it. `prospect` is `None`
    /// when there were too few loads to say what others would have come.
    pub(crate) fn look(&mut self, pager: &Pager, prospect: Option<&Prospect>) {
        self.count(pager);
        let pages_a_fault = self.pages_a_fault;
        let has_tier = !pager.config.tiers.is_empty();
        self.chooser.look_with(&pager.store, |traffic, holding| {
            let now = prospect.map_or(NO_CHANGE, Prospect::loads_now);
            let then = match (holding, prospect) {
                (Holding::Times(times), Some(seen)) => seen.loads_at_best(times, has_tier),
                _ => now,
            };
            let tier_ns = prospect.map_or(0.0, Prospect::tier_extra_ns);
            let tier_ns = has_tier.then_some(tier_ns);
            outlook(traffic, &now, &then, pages_a_fault, tier_ns)
        });
    }

    fn count(&mut self, pager: &Pager) {
        let counters = &pager.counters;
        let now = (counters.loaded_pages.get(), counters.around_pages.get());
        let (pages, around) = (now.0 - self.loaded.0, now.1.saturating_sub(self.loaded.1));
        if pages > 0 {
            self.pages_a_fault = pages as f64 / pages.saturating_sub(around).max(1) as f64;
        }
        self.loaded = now;
    }
}

/// Loads that are all there were, from RAM.
const NO_CHANGE: Loads = Loads {
    all: 1.0,
    tier: 0.0,
};

/// What `then` loads for those of `now` would have come to. Each page that is
/// loaded makes another one leave; pages that left beyond that, as when memory
/// is filled, leave whatever the codec. Without a tier these do not count:
/// what is filled has to fit, however long that takes.
fn outlook(
    traffic: &Traffic,
    now: &Loads,
    then: &Loads,
    pages_a_fault: f64,
    tier_ns: Option<f64>,
) -> Outlook {
    let loads = traffic.loads * then.all / now.all.max(f64::EPSILON);
    let faults = loads / pages_a_fault;
    let from_tier = match then.all > 0.0 {
        true => faults * then.tier / then.all,
        false => 0.0,
    };
    let replaced = traffic.stores.min(traffic.loads);
    let beyond = match tier_ns {
        Some(_) => traffic.stores - replaced,
        None => 0.0,
    };
    let stores = match traffic.loads > 0.0 {
        true => beyond + replaced * loads / traffic.loads,
        false => beyond,
    };
    Outlook {
        stores,
        loads,
        wait_ns: faults * ROUND_TRIP_NS + from_tier * tier_ns.unwrap_or(0.0),
        work_ns: faults * ROUND_TRIP_NS + loads * PAGE_WORK_NS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(stores: f64, loads: f64) -> Traffic {
        Traffic {
            time_ns: 1e9,
            idle_ns: 1e9,
            stores,
            loads,
        }
    }

    fn loads(all: f64, tier: f64) -> Loads {
        Loads { all, tier }
    }

    #[test]
    fn loads_that_are_spared_spare_their_evictions_and_waits() {
        let now = outlook(
            &traffic(900.0, 1000.0),
            &loads(1.0, 0.5),
            &loads(1.0, 0.5),
            4.0,
            Some(80_000.0),
        );
        assert_eq!((now.loads, now.stores), (1000.0, 900.0));
        assert_eq!(now.wait_ns, 250.0 * ROUND_TRIP_NS + 125.0 * 80_000.0);
        let then = outlook(
            &traffic(900.0, 1000.0),
            &loads(1.0, 0.5),
            &loads(0.5, 0.0),
            4.0,
            Some(80_000.0),
        );
        assert_eq!((then.loads, then.stores), (500.0, 450.0));
        assert_eq!(then.wait_ns, 125.0 * ROUND_TRIP_NS);
        assert!(then.work_ns < now.work_ns);
    }

    #[test]
    fn pages_that_leave_for_new_ones_leave_whatever_the_codec() {
        let then = outlook(
            &traffic(5000.0, 1000.0),
            &NO_CHANGE,
            &loads(0.5, 0.0),
            1.0,
            Some(0.0),
        );
        assert_eq!((then.loads, then.stores), (500.0, 4500.0));
        let filling = traffic(5000.0, 0.0);
        let some = outlook(&filling, &NO_CHANGE, &NO_CHANGE, 1.0, Some(0.0));
        assert_eq!((some.loads, some.stores, some.wait_ns), (0.0, 5000.0, 0.0));
        let none = outlook(&filling, &NO_CHANGE, &NO_CHANGE, 1.0, None);
        assert_eq!((none.loads, none.stores), (0.0, 0.0));
    }
}
