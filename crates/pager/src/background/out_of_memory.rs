//! The end of back-pressure: faults wait, nothing gets better, and somebody has
//! to be told rather than hang.
//!
//! Stage on the data path: beside it; the ticker looks every few milliseconds.
//! Things get better when a fault is granted a page or less memory is used than
//! at any time since the last grant. Eviction that goes round in circles (a full
//! store refuses pages, a full swap file is packed anew) does neither. When it
//! was no better for [`PATIENCE`], the largest of the processes that wait gets
//! SIGBUS, and the user is told why and what helps. One that survives that and
//! goes on asking waits for less long, and after [`VERDICTS_MAX`] it is killed.
//!
//! Invariants: time counts only while the pager runs and no transfer to the swap
//! file is slow, so that a stopped pager or a slow disk condemns nobody; the
//! verdicts of one shortage end within seconds of each other.
//!
//! What it does not do: make room.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use zcache::Event;

use crate::pager::{Pager, say};
use crate::space::page_table::State;
use crate::space::{Space, SpaceId};
use crate::sync::lock;

/// How long faults wait before the first verdict of a shortage.
const PATIENCE: Duration = Duration::from_secs(8);
/// And before those that follow.
const PATIENCE_LATER: Duration = Duration::from_secs(1);
/// Verdicts that a process may survive in one shortage.
const VERDICTS_MAX: u32 = 3;
/// A shortage is over when there was no verdict for so long.
const SHORTAGE: Duration = Duration::from_secs(30);
/// A look counts no more time than this, however long ago the last one was.
const LOOK_MAX: Duration = Duration::from_millis(50);
/// Without a waiting fault for so long nobody waits.
const NOBODY_WAITS: Duration = Duration::from_millis(200);
/// Rounds that the evictors must have made in vain.
const ROUNDS_MIN: u64 = 100;
/// Use that fell by less is no better.
const BETTER_BYTES: u64 = 64 << 10;
/// A transfer that takes longer than this is slow.
const SLOW: Duration = Duration::from_millis(500);
/// And the user hears of one that takes this long.
const SILENT: Duration = Duration::from_secs(10);

/// What one look sees.
#[derive(Clone, Copy, Debug, Default)]
struct Sight {
    /// Pages that faults were granted so far.
    granted: u64,
    /// Whether a fault waits, or has begun to since the last look.
    waiting: bool,
    used_bytes: u64,
    /// Rounds that evictors have made so far.
    rounds: u64,
    /// A transfer to or from the swap file is slow.
    slow: bool,
}

/// For how long it has been no better.
#[derive(Debug, Default)]
struct Plight {
    granted: u64,
    least_bytes: u64,
    rounds: u64,
    lasted: Duration,
    nobody_waited: Duration,
}

impl Plight {
    fn look(&mut self, sight: Sight, passed: Duration) {
        let passed = passed.min(LOOK_MAX);
        self.nobody_waited = match sight.waiting {
            true => Duration::ZERO,
            false => self.nobody_waited + passed,
        };
        let better = sight.granted != self.granted
            || sight.used_bytes + BETTER_BYTES < self.least_bytes
            || self.nobody_waited > NOBODY_WAITS;
        if better {
            *self = Plight {
                granted: sight.granted,
                least_bytes: sight.used_bytes,
                rounds: sight.rounds,
                lasted: Duration::ZERO,
                nobody_waited: self.nobody_waited,
            };
        } else if !sight.slow {
            self.lasted += passed;
        }
    }

    fn is_hopeless(&self, sight: Sight, patience: Duration) -> bool {
        self.lasted > patience && sight.rounds >= self.rounds + ROUNDS_MIN
    }
}

/// See the module's description.
pub(crate) struct Starvation {
    plight: Plight,
    looked: Instant,
    stalled_faults: u64,
    last_verdict: Option<Instant>,
    verdicts: HashMap<SpaceId, u32>,
    silent_said: bool,
}

impl Starvation {
    pub(crate) fn new() -> Starvation {
        Starvation {
            plight: Plight::default(),
            looked: Instant::now(),
            stalled_faults: 0,
            last_verdict: None,
            verdicts: HashMap::new(),
            silent_said: false,
        }
    }

    /// Looks whether faults starve, and ends it if they do.
    pub(crate) fn look(&mut self, pager: &Pager) {
        let passed = self.looked.elapsed();
        self.looked = Instant::now();
        let transfer = pager.store.oldest_transfer().unwrap_or_default();
        self.tell_of_silence(pager, transfer);
        let stalled_faults = pager.counters.stalled_faults.get();
        let sight = Sight {
            granted: pager.counters.granted_pages(),
            waiting: pager.stalled.load(Ordering::Relaxed) > 0
                || !lock(&pager.holds).is_empty()
                || stalled_faults != self.stalled_faults,
            used_bytes: pager.budget.used_bytes(),
            rounds: pager.counters.eviction_rounds.get(),
            slow: transfer > SLOW,
        };
        self.stalled_faults = stalled_faults;
        self.plight.look(sight, passed);
        if self
            .last_verdict
            .is_some_and(|time| time.elapsed() > SHORTAGE)
        {
            self.last_verdict = None;
            self.verdicts.clear();
        }
        let patience = match self.last_verdict {
            None => PATIENCE,
            Some(_) => PATIENCE_LATER,
        };
        if self.plight.is_hopeless(sight, patience) && self.give_up(pager) {
            self.last_verdict = Some(Instant::now());
            self.plight.lasted = Duration::ZERO;
        }
    }

    fn tell_of_silence(&mut self, pager: &Pager, transfer: Duration) {
        if transfer < SILENT {
            self.silent_said = false;
        } else if !self.silent_said {
            self.silent_said = true;
            say!(
                "the swap file ({}) has not answered for {} s; what needs it waits",
                pager.store.swap_name().unwrap_or(""),
                transfer.as_secs()
            );
        }
    }

    /// Condemns the largest process that waits; false when none does just now.
    fn give_up(&mut self, pager: &Pager) -> bool {
        let mut waiting: Vec<(u64, Arc<Space>)> = pager
            .all_spaces()
            .into_iter()
            .filter_map(|space| {
                let core = space.core();
                let waits = !core.stalled.is_empty();
                let pages = core.table.pages();
                drop(core);
                waits.then_some((pages, space))
            })
            .collect();
        waiting.sort_unstable_by_key(|(pages, _)| std::cmp::Reverse(*pages));
        // Pages of the shadow are in RAM and come back when the store refuses
        // them, so they are given up last.
        if waiting.is_empty() {
            return self.condemn_held(pager);
        }
        [false, true].into_iter().any(|with_shadow| {
            waiting
                .iter()
                .any(|(_, space)| self.condemn(pager, space, with_shadow))
        })
    }

    /// Nobody waits by a fault: a process that is held for its unpageable memory
    /// gets SIGBUS.
    fn condemn_held(&mut self, pager: &Pager) -> bool {
        let held = lock(&pager.holds).iter().next().copied();
        let Some(space) = held.and_then(|id| pager.space(id)) else {
            return false;
        };
        say!("{}", shortage(pager));
        say!("process {} gets SIGBUS", space.leader());
        pager.counters.out_of_memory.add(1);
        let verdicts = self.verdicts.entry(space.id).or_default();
        *verdicts += 1;
        space.signal(match *verdicts > VERDICTS_MAX {
            true => libc::SIGKILL,
            false => libc::SIGBUS,
        });
        lock(&pager.holds).remove(&space.id);
        pager.tracer.poke();
        true
    }

    fn condemn(&mut self, pager: &Pager, space: &Space, with_shadow: bool) -> bool {
        let mut core = space.core();
        for _ in 0..core.stalled.len() {
            let Some(page) = core.stalled.pop_front() else {
                break;
            };
            let state = core.table.get(page);
            if matches!(state, State::Shadow(_)) && !with_shadow {
                core.stalled.push_back(page);
                continue;
            }
            pager.stalled.fetch_sub(1, Ordering::Relaxed);
            // What became of the page meanwhile may have settled its fault.
            if core.is_busy(page)
                || !matches!(state, State::Absent | State::Stored(_) | State::Shadow(_))
            {
                space.wake(page);
                continue;
            }
            pager.counters.out_of_memory.add(1);
            let verdicts = self.verdicts.entry(space.id).or_default();
            *verdicts += 1;
            if *verdicts > VERDICTS_MAX {
                say!(
                    "process {} goes on in spite of {VERDICTS_MAX} SIGBUS; it is killed",
                    space.leader()
                );
                space.signal(libc::SIGKILL);
                return true;
            }
            say!("{}", shortage(pager));
            if let State::Shadow(slot) = state {
                core.shadow.set_owner(slot, None);
            }
            pager.lose(space, &mut core, page, "there is no memory for it");
            return true;
        }
        false
    }
}

/// What is short, and what helps.
fn shortage(pager: &Pager) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let ram = pager.budget.ram_bytes();
    let fixed = pager.budget.fixed_bytes();
    let name = pager.store.swap_name().unwrap_or("none");
    let helps = match (pager.config.tiers.is_empty(), pager.store.swap_trouble()) {
        _ if fixed > ram / 4 * 3 => {
            "most of the budget cannot be paged; give a larger --ram".to_owned()
        }
        (true, _) => "there is no swap file; give --swap PATH or a larger --ram".to_owned(),
        (false, Some(Event::WritebackFailed { errno })) => format!(
            "the swap file ({name}) cannot be written: {}; give --swap PATH on a disk with room, or a larger --ram",
            std::io::Error::from_raw_os_error(errno)
        ),
        (false, Some(Event::TierFull { bytes })) => format!(
            "what is behind RAM ({name}) is full at {} MiB; give a larger --swap-max (of servers, --remote-max) or --ram",
            mib(bytes)
        ),
        (false, _) => {
            "what is in memory cannot be evicted (locked, pinned or in use); give a larger --ram"
                .to_owned()
        }
    };
    format!(
        "out of memory: of {} MiB, {} are resident, {} in the store, {} cannot be paged; {helps}",
        mib(ram),
        mib(pager.budget.charged_bytes()),
        mib(pager.store.ram_bytes()),
        mib(fixed),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(10);

    /// Looks at the same sight for this long, evictors going round meanwhile.
    fn stare(plight: &mut Plight, sight: &mut Sight, time: Duration) {
        for _ in 0..time.as_millis() / TICK.as_millis() {
            sight.rounds += 1;
            plight.look(*sight, TICK);
        }
    }

    fn waiting() -> Sight {
        Sight {
            granted: 7,
            waiting: true,
            used_bytes: 100 << 20,
            ..Sight::default()
        }
    }

    #[test]
    fn a_fault_that_waits_in_vain_is_hopeless_when_the_patience_is_over() {
        let (mut plight, mut sight) = (Plight::default(), waiting());
        stare(&mut plight, &mut sight, PATIENCE - TICK);
        assert!(!plight.is_hopeless(sight, PATIENCE));
        stare(&mut plight, &mut sight, TICK * 4);
        assert!(plight.is_hopeless(sight, PATIENCE));
    }

    #[test]
    fn a_grant_or_less_use_begins_anew_and_going_round_does_not() {
        let (mut plight, mut sight) = (Plight::default(), waiting());
        for turn in 0..20 {
            stare(&mut plight, &mut sight, PATIENCE / 2);
            match turn % 2 {
                0 => sight.granted += 1,
                _ => sight.used_bytes -= BETTER_BYTES + 1,
            }
            assert!(!plight.is_hopeless(sight, PATIENCE));
        }
        stare(&mut plight, &mut sight, TICK);
        let base = sight.used_bytes;
        for turn in 0..1000 {
            sight.used_bytes = base + turn % 7 * (256 << 10);
            stare(&mut plight, &mut sight, TICK);
        }
        assert!(plight.is_hopeless(sight, PATIENCE));
    }

    #[test]
    fn a_stopped_pager_a_slow_disk_and_an_idle_program_condemn_nobody() {
        let (mut plight, mut sight) = (Plight::default(), waiting());
        stare(&mut plight, &mut sight, TICK * 2);
        sight.rounds += 1000;
        plight.look(sight, Duration::from_secs(600));
        assert!(!plight.is_hopeless(sight, PATIENCE));
        sight.slow = true;
        stare(&mut plight, &mut sight, PATIENCE * 3);
        assert!(!plight.is_hopeless(sight, PATIENCE));
        sight.slow = false;
        sight.waiting = false;
        stare(&mut plight, &mut sight, PATIENCE * 3);
        assert!(!plight.is_hopeless(sight, PATIENCE));
    }

    #[test]
    fn evictors_that_had_no_turn_condemn_nobody() {
        let (mut plight, sight) = (Plight::default(), waiting());
        for _ in 0..10_000 {
            plight.look(sight, TICK);
        }
        assert!(!plight.is_hopeless(sight, PATIENCE));
    }
}
