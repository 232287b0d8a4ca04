//! Whose turn it is to be trained for: one round at a time in a store.
//!
//! Stage on the data path: beside the codec, at each page that is stored.
//!
//! ```text
//! free -> waiting -> collecting -> training -> free
//!            |           |
//!            v           v
//!          free        free: not due after all, closed, or out of patience
//! ```
//!
//! - Pages of one scope at a time are collected: so what that takes is bounded,
//!   however many pools there are.
//! - The turn goes to the scope whose page comes next while it is free: mostly
//!   to one of which many come, never to one of which none come.
//! - A scope that does not get its pages while [`PATIENCE`] times as many come
//!   to the store loses its turn, and what was collected goes.
//! - No turn is that of a scope that was closed.
//!
//! Does not train.

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use crate::sync::{Arc, Mutex, MutexGuard, lock};

use super::samples::Samples;
use crate::page::Page;
use crate::store::coding::dictionaries::Scope;

/// Of so many pages that come to the store, one has to be of the scope whose
/// turn it is. One that gets fewer is not worth one of seven slots.
pub(super) const PATIENCE: u64 = 64;

enum Turn {
    Free,
    /// It had a page when it was due.
    Waiting(Arc<Scope>),
    Collecting {
        scope: Arc<Scope>,
        samples: Samples,
        /// The store's traffic after which it loses its turn.
        traffic_last: u64,
    },
    Training,
}

/// What is due next.
pub(super) enum Due {
    /// To collect pages of this scope.
    Collect(Arc<Scope>),
    /// To train on what was collected.
    Train,
    /// To give up what was collected.
    GiveUp,
}

/// What was done next.
pub(super) enum Done<'a> {
    Nothing,
    Collecting,
    GaveUp,
    /// Pages that are there to be trained on.
    Collected(Round<'a>),
}

/// A round that is being trained for. Whoever drops it ends the round.
pub(super) struct Round<'a> {
    turns: &'a Turns,
    pub(super) scope: Arc<Scope>,
    pub(super) samples: Option<Samples>,
}

/// See the module's description.
pub(in crate::store) struct Turns {
    turn: Mutex<Turn>,
    /// Whether it is free. A hint that costs one load.
    is_free: AtomicBool,
    /// Rounds that were given up because too few pages came.
    pub(in crate::store) given_up: AtomicU64,
}

impl Turns {
    pub(in crate::store) fn new() -> Turns {
        Turns {
            turn: Mutex::new(Turn::Free),
            is_free: AtomicBool::new(true),
            given_up: AtomicU64::new(0),
        }
    }

    /// A page of a scope that is not same-filled came, and how long its zpage
    /// is. Never waits.
    pub(in crate::store) fn offer(&self, scope: &Arc<Scope>, page: &Page, len: usize) {
        let may_be_due = scope.pace.note(len);
        let is_wanted = scope.is_collecting() || may_be_due && self.is_free.load(Relaxed);
        if !is_wanted {
            return;
        }
        let Ok(mut turn) = self.turn.try_lock() else {
            return;
        };
        match &mut *turn {
            Turn::Collecting {
                scope: collecting,
                samples,
                ..
            } if Arc::ptr_eq(collecting, scope) => samples.offer(page),
            // Whoever closes a scope says so first, and then takes its turn away.
            Turn::Free if may_be_due && !scope.is_closed() => {
                self.set(&mut turn, Turn::Waiting(Arc::clone(scope)));
            }
            _ => {}
        }
    }

    /// What is due, when so many pages have come to the store in all.
    pub(super) fn due(&self, traffic: u64) -> Option<Due> {
        self.due_in(&mut lock(&self.turn), traffic)
    }

    fn due_in(&self, turn: &mut MutexGuard<'_, Turn>, traffic: u64) -> Option<Due> {
        match &**turn {
            Turn::Free | Turn::Training => None,
            Turn::Waiting(scope) if scope.pace.is_due() => Some(Due::Collect(Arc::clone(scope))),
            Turn::Waiting(_) => {
                self.set(turn, Turn::Free);
                None
            }
            Turn::Collecting { samples, .. } if samples.is_complete() => Some(Due::Train),
            Turn::Collecting { traffic_last, .. } => {
                (traffic >= *traffic_last).then_some(Due::GiveUp)
            }
        }
    }

    /// Does what is due. `begin` says what a scope's round is to collect.
    pub(super) fn go_on(&self, traffic: u64, begin: impl FnOnce(&Scope) -> Samples) -> Done<'_> {
        let mut turn = lock(&self.turn);
        match self.due_in(&mut turn, traffic) {
            None => Done::Nothing,
            Some(Due::Collect(scope)) => {
                let samples = begin(&scope);
                let traffic_last = traffic + samples.offered_last() * PATIENCE;
                scope.is_collecting.store(true, Relaxed);
                let next = Turn::Collecting {
                    scope,
                    samples,
                    traffic_last,
                };
                self.set(&mut turn, next);
                Done::Collecting
            }
            Some(Due::Train) => match self.set(&mut turn, Turn::Training) {
                Turn::Collecting { scope, samples, .. } => Done::Collected(Round {
                    turns: self,
                    scope,
                    samples: Some(samples),
                }),
                _ => unreachable!("what is complete was being collected"),
            },
            Some(Due::GiveUp) => {
                let before = self.set(&mut turn, Turn::Free);
                drop(turn);
                if let Turn::Collecting { scope, samples, .. } = before {
                    scope.pace.put_off(samples.offered_last());
                }
                self.given_up.fetch_add(1, Relaxed);
                Done::GaveUp
            }
        }
    }

    /// Takes the turn of a scope that was closed away, with what was collected.
    pub(in crate::store) fn leave(&self, closed: &Arc<Scope>) {
        let mut turn = lock(&self.turn);
        let of = match &*turn {
            Turn::Free | Turn::Training => None,
            Turn::Waiting(scope) | Turn::Collecting { scope, .. } => Some(scope),
        };
        if of.is_some_and(|scope| Arc::ptr_eq(scope, closed)) {
            let before = self.set(&mut turn, Turn::Free);
            drop(turn);
            drop(before);
        }
    }

    /// The only way from one turn to another; gives back the one before.
    fn set(&self, turn: &mut MutexGuard<'_, Turn>, next: Turn) -> Turn {
        if let Turn::Collecting { scope, .. } = &**turn {
            scope.is_collecting.store(false, Relaxed);
        }
        self.is_free.store(matches!(next, Turn::Free), Relaxed);
        std::mem::replace(&mut **turn, next)
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.scope.pace.ended();
        self.turns.set(&mut lock(&self.turns.turn), Turn::Free);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{Budget, Charge};
    use crate::page::PAGE_SIZE;

    const PAGE: Page = [7; PAGE_SIZE];

    struct Fixture {
        budget: Arc<Budget>,
        turns: Turns,
    }

    impl Fixture {
        fn new() -> Fixture {
            Fixture {
                budget: Arc::new(Budget::new(0)),
                turns: Turns::new(),
            }
        }

        fn go_on(&self, traffic: u64) -> Done<'_> {
            let charge = || Charge::new(&self.budget, 1 << 20);
            self.turns.go_on(traffic, |_| Samples::new(4, 8, charge()))
        }

        fn offer(&self, scope: &Arc<Scope>, pages: u64) {
            (0..pages).for_each(|_| self.turns.offer(scope, &PAGE, 1000));
        }

        fn collects(&self) -> bool {
            self.budget.overhead() >= 1 << 20
        }
    }

    #[test]
    fn one_scope_at_a_time_collects_and_who_gets_pages_is_next() {
        let all = Fixture::new();
        let [first, second, third] = [(); 3].map(|()| Scope::new(&all.budget));
        all.offer(&first, 1);
        all.offer(&second, 1);
        assert!(matches!(all.go_on(0), Done::Collecting));
        assert!(first.is_collecting() && !second.is_collecting());
        all.offer(&second, 8);
        assert!(matches!(all.go_on(0), Done::Nothing));
        all.offer(&first, 8);
        let Done::Collected(mut round) = all.go_on(0) else {
            panic!("eight pages came")
        };
        assert!(Arc::ptr_eq(&round.scope, &first));
        all.offer(&third, 1);
        assert!(matches!(all.go_on(0), Done::Nothing), "one trains");
        round.samples = None;
        drop(round);
        assert!(!all.collects());
        assert!(matches!(all.go_on(0), Done::Nothing), "nobody asks");
        all.offer(&third, 1);
        assert!(matches!(all.go_on(0), Done::Collecting));
        assert!(third.is_collecting());
    }

    #[test]
    fn a_scope_whose_pages_do_not_come_gives_its_turn_back() {
        let all = Fixture::new();
        let [quiet, busy] = [(); 2].map(|()| Scope::new(&all.budget));
        all.offer(&quiet, 1);
        assert!(matches!(all.go_on(100), Done::Collecting));
        all.offer(&quiet, 7);
        let last = 100 + 8 * PATIENCE;
        assert!(matches!(all.go_on(last - 1), Done::Nothing));
        assert!(all.collects());
        assert!(matches!(all.go_on(last), Done::GaveUp));
        assert!(!all.collects() && !quiet.is_collecting());
        assert_eq!(all.turns.given_up.load(Relaxed), 1);
        // It is not due again before as many pages came as it lacked.
        all.offer(&quiet, 7);
        assert!(all.turns.due(last).is_none());
        all.offer(&busy, 1);
        assert!(matches!(all.go_on(last), Done::Collecting));
        assert!(busy.is_collecting());
    }

    #[test]
    fn a_scope_that_is_closed_leaves_its_turn_at_once_and_gets_none() {
        let all = Fixture::new();
        let close = |scope: &Arc<Scope>| {
            scope.close();
            all.turns.leave(scope);
        };
        let [waiting, collecting, late] = [(); 3].map(|()| Scope::new(&all.budget));
        all.offer(&waiting, 1);
        close(&waiting);
        assert!(all.turns.due(0).is_none());
        all.offer(&collecting, 1);
        assert!(matches!(all.go_on(0), Done::Collecting));
        close(&waiting);
        assert!(all.collects());
        close(&collecting);
        assert!(!all.collects());
        // Whoever was encoding its page meanwhile.
        close(&late);
        all.offer(&late, 1);
        assert!(all.turns.due(0).is_none());
    }

    #[test]
    fn a_round_that_ends_in_a_panic_ends() {
        let all = Fixture::new();
        let [first, second] = [(); 2].map(|()| Scope::new(&all.budget));
        all.offer(&first, 1);
        assert!(matches!(all.go_on(0), Done::Collecting));
        all.offer(&first, 8);
        let trainer = std::panic::AssertUnwindSafe(|| {
            let Done::Collected(_round) = all.go_on(0) else {
                unreachable!()
            };
            panic!("the trainer failed");
        });
        assert!(std::panic::catch_unwind(trainer).is_err());
        assert!(!all.collects());
        all.offer(&second, 1);
        assert!(matches!(all.go_on(0), Done::Collecting));
    }
}
