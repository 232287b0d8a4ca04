//! The second speed: a thread that has the store compress harder what stays.
//!
//! Stage on the data path: beside the store, in a thread of whoever has it. It
//! works while memory is not short, few pages are wanted and a processor has
//! nothing else to do, within a share of CPU time.
//!
//! - `CPU time used <= share * time since the start + burst + one block`
//! - Its work runs in the idle class; the store's locks are taken in the normal
//!   one, so that nobody waits for a thread that gets no processor.

use std::io;
use std::time::{Duration, Instant};

use zcache_sys::process::{set_idle_class, thread_cpu_time};

use crate::store::Store;

/// Between two looks when there was nothing to do or no time for it.
const PERIOD: Duration = Duration::from_millis(20);
/// Pages wanted in a period from which the store's owner is not idle: a thousand
/// a second.
const WANTED_MAX: u64 = 20;
/// CPU time that may be saved up.
const BURST: Duration = Duration::from_millis(50);
/// Looks in vain after which the tables are given back: a second.
const LOOKS_IN_VAIN: u32 = 50;

/// Whoever has a store whose cold pages are to be compressed harder.
pub trait Idler {
    /// The store.
    fn store(&self) -> &Store;

    /// Whether to stop.
    fn has_ended(&self) -> bool;

    /// How many times somebody waited for a page since the start.
    fn wanted_pages(&self) -> u64;

    /// Whether something is more urgent, whatever the processors do.
    fn is_pressed(&self) -> bool;

    /// Does what takes so many bytes of the store's RAM once there is room for
    /// them; leaves it when there is none within a short time.
    fn within_room(&self, bytes: u64, work: &mut dyn FnMut());

    /// So much CPU time was used since the start.
    fn spent(&self, cpu_time: Duration);
}

/// Recompresses cold pages until the idler has ended, in the calling thread, with
/// at most so many percent of one processor.
///
/// # Errors
/// When the system does not let a thread leave the idle class, in which it must
/// not hold a lock.
pub fn recompress_when_idle(idler: &impl Idler, cpu_percent: u32) -> io::Result<()> {
    set_idle_class(true)?;
    set_idle_class(false)?;
    let mut allowance = Allowance::new(cpu_percent, Instant::now());
    let mut in_vain = 0;
    let mut wanted = (Instant::now(), idler.wanted_pages());
    let mut wanted_much = false;
    while !idler.has_ended() {
        let used = thread_cpu_time();
        idler.spent(used);
        let now = Instant::now();
        if now.duration_since(wanted.0) >= PERIOD {
            let count = idler.wanted_pages();
            wanted_much = count - wanted.1 > WANTED_MAX;
            wanted = (now, count);
        }
        if allowance.has_any(now, used) && !wanted_much {
            if recompress_block(idler)? {
                in_vain = 0;
                continue;
            }
            in_vain += 1;
            if in_vain == LOOKS_IN_VAIN {
                idler.store().rest_cold();
            }
        }
        std::thread::sleep(PERIOD);
    }
    Ok(())
}

/// Recompresses one block, if there is one and nothing is more urgent.
fn recompress_block(idler: &impl Idler) -> io::Result<bool> {
    if idler.is_pressed() {
        return Ok(false);
    }
    let store = idler.store();
    let Some(bytes) = store.cold_due_bytes() else {
        return Ok(false);
    };
    let mut begun = None;
    match bytes {
        0 => begun = store.begin_cold(),
        _ => idler.within_room(bytes, &mut || begun = store.begin_cold()),
    }
    let Some(mut cold) = begun else {
        return Ok(false);
    };
    // Refused, it works in the normal class: the allowance holds all the same.
    let idle = set_idle_class(true).is_ok();
    cold.compress();
    let back = if idle { set_idle_class(false) } else { Ok(()) };
    store.finish_cold(cold);
    back.map(|()| true)
}

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
