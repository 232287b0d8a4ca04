//! The second speed: a thread that has the store compress harder what stays.
//!
//! Stage on the data path: beside the store. It works while memory is not short,
//! few faults come and a processor has nothing else to do, within a share of CPU
//! time.
//!
//! - `CPU time used <= share * time since the start + burst + one block`
//! - Its work runs in the idle class; the store's locks are taken in the normal
//!   one, so that no fault waits for a thread that gets no processor.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use zcache_sys::process::{set_idle_class, thread_cpu_time};

use crate::pager::{Pager, say};

/// Between two looks when there was nothing to do or no time for it.
const PERIOD: Duration = Duration::from_millis(20);
/// Faults in a period from which the program is not idle: a thousand a second.
const FAULTS_MAX: u64 = 20;
/// CPU time that may be saved up.
const BURST: Duration = Duration::from_millis(50);
/// Looks in vain after which the tables are given back: a second.
const LOOKS_IN_VAIN: u32 = 50;
/// How long new tables wait for room.
const PATIENCE: Duration = Duration::from_millis(200);

/// CPU time that may be spent: it comes in by the share and goes out by use.
struct Allowance {
    percent: u32,
    saved: Duration,
    at: Instant,
    used: Duration,
}

impl Allowance {
    fn new(percent: u32, at: Instant) -> Allowance {
        Allowance {
            percent,
            saved: Duration::ZERO,
            at,
            used: Duration::ZERO,
        }
    }

    /// Whether there is any, now that `used` was used in all.
    fn has_any(&mut self, now: Instant, used: Duration) -> bool {
        let came = now.duration_since(self.at) * self.percent / 100;
        let spent = used.saturating_sub(self.used);
        (self.at, self.used) = (now, used);
        // What was spent beyond the allowance has to come in first.
        let saved = (self.saved + came).min(BURST);
        match saved.checked_sub(spent) {
            Some(left) => {
                self.saved = left;
                !left.is_zero()
            }
            None => {
                self.saved = Duration::ZERO;
                self.at = now + (spent - saved) * 100 / self.percent.max(1);
                false
            }
        }
    }
}

impl Pager {
    /// Recompresses until the run ends.
    pub(crate) fn recompress(self: &Arc<Self>) {
        // A thread that could not come back from the idle class must not enter.
        if let Err(error) = set_idle_class(true).and_then(|()| set_idle_class(false)) {
            say!("cold pages keep their codec: a thread of the idle class is refused ({error})");
            return;
        }
        let mut allowance = Allowance::new(self.config.cold_cpu_percent, Instant::now());
        let mut in_vain = 0;
        let mut faults = (Instant::now(), self.counters.faults.get());
        let mut pages_much = false;
        while !self.stopping.load(Ordering::Relaxed) {
            let used = thread_cpu_time();
            self.counters.cold_cpu_ns.set(used.as_nanos() as u64);
            let now = Instant::now();
            if now.duration_since(faults.0) >= PERIOD {
                let count = self.counters.faults.get();
                pages_much = count - faults.1 > FAULTS_MAX;
                faults = (now, count);
            }
            if allowance.has_any(now, used) && !pages_much {
                if self.recompress_block() {
                    in_vain = 0;
                    continue;
                }
                in_vain += 1;
                if in_vain == LOOKS_IN_VAIN {
                    self.store.rest_cold();
                }
            }
            std::thread::sleep(PERIOD);
        }
    }

    /// Recompresses one block, if there is one and nothing is more urgent.
    fn recompress_block(&self) -> bool {
        if self.budget.is_low() || self.stalled.load(Ordering::Relaxed) > 0 {
            return false;
        }
        let Some(bytes) = self.store.cold_due_bytes() else {
            return false;
        };
        let begun = match bytes {
            0 => self.store.begin_cold(),
            _ => self
                .within_room(bytes, PATIENCE, || self.store.begin_cold())
                .flatten(),
        };
        let Some(mut cold) = begun else {
            return false;
        };
        // Refused, it works in the normal class: the allowance holds all the same.
        let idle = set_idle_class(true).is_ok();
        cold.compress();
        if idle && let Err(error) = set_idle_class(false) {
            say!("the thread that recompresses cold pages stays in the idle class ({error})");
        }
        self.store.finish_cold(cold);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_used_than_the_share_and_a_burst() {
        let start = Instant::now();
        let mut allowance = Allowance::new(10, start);
        let block = Duration::from_millis(1);
        let (mut used, mut now) = (Duration::ZERO, start);
        while now < start + Duration::from_secs(10) {
            match allowance.has_any(now, used) {
                true => {
                    used += block;
                    now += block;
                }
                false => now += PERIOD,
            }
        }
        let share = Duration::from_secs(1);
        assert!(used <= share + BURST + block, "{used:?}");
        assert!(used >= share * 8 / 10, "{used:?}");
    }

    #[test]
    fn a_block_that_took_long_is_paid_for_before_the_next() {
        let start = Instant::now();
        let mut allowance = Allowance::new(10, start);
        assert!(allowance.has_any(start + Duration::from_millis(100), Duration::ZERO));
        let used = Duration::from_millis(100);
        assert!(!allowance.has_any(start + Duration::from_millis(200), used));
        assert!(!allowance.has_any(start + Duration::from_millis(900), used));
        assert!(allowance.has_any(start + Duration::from_millis(1200), used));
    }
}
