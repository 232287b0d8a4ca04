//! Batches of blocks under way, and waiting for one to end.
//!
//! Stage on the data path: between threads that make room. Who finds nothing to
//! write, because the blocks of the store are on their way out in other threads,
//! waits here for the first of these to arrive.
//!
//! - A batch is under way before it takes its first block and until its last is
//!   free or back in RAM, so who sees a block missing sees the batch.
//! - What ended since a look before the search is never waited for: no wake-up
//!   is lost.
//! - Nobody waits longer than [`ANSWER_WAIT_MAX`], and after somebody did nobody
//!   waits at all until the tier answers.

use std::time::Duration;

use crate::sync::{Condvar, Mutex, PoisonError, lock};

/// A tier that does not end a batch in this time is not waited for.
pub(super) const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// The batches under way of one store.
#[derive(Default)]
pub(super) struct UnderWay {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    under_way: usize,
    /// Batches that ended, and the RAM that they freed.
    ended: Ended,
    /// Somebody waited in vain since the last batch ended.
    unanswered: bool,
}

/// What had ended at some moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Ended {
    batches: u64,
    freed_bytes: u64,
}

/// What came of waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waited {
    /// No batch was under way, so there was nothing to wait for.
    Nothing,
    /// At least one ended.
    Ended {
        /// The RAM that was freed by all that did, in bytes.
        freed_bytes: u64,
    },
    /// The tier did not answer in time.
    Unanswered,
}

impl UnderWay {
    pub(super) fn begin(&self) {
        lock(&self.state).under_way += 1;
    }

    /// A batch of so many blocks has ended.
    pub(super) fn end(&self, blocks: usize, freed_bytes: u64) {
        let mut state = lock(&self.state);
        state.under_way -= 1;
        if blocks > 0 {
            state.ended.batches += 1;
            state.ended.freed_bytes += freed_bytes;
            state.unanswered = false;
        }
        let awaited = blocks > 0 || state.under_way == 0;
        drop(state);
        if awaited {
            self.ended.notify_all();
        }
    }

    pub(super) fn ended(&self) -> Ended {
        lock(&self.state).ended
    }

    /// Waits until more has ended than `seen`.
    pub(super) fn wait(&self, seen: Ended, longest: Duration) -> Waited {
        let state = lock(&self.state);
        if state.ended == seen && state.under_way > 0 && state.unanswered {
            return Waited::Unanswered;
        }
        let waiting = |state: &mut State| state.ended == seen && state.under_way > 0;
        let (mut state, _) = self
            .ended
            .wait_timeout_while(state, longest, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        if state.ended != seen {
            Waited::Ended {
                freed_bytes: state.ended.freed_bytes - seen.freed_bytes,
            }
        } else if state.under_way == 0 {
            Waited::Nothing
        } else {
            state.unanswered = true;
            Waited::Unanswered
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn who_waits_learns_of_what_ended_before_and_meanwhile() {
        let batches = UnderWay::default();
        let seen = batches.ended();
        assert_eq!(batches.wait(seen, ANSWER_WAIT_MAX), Waited::Nothing);
        batches.begin();
        batches.begin();
        batches.end(3, 100);
        let before = Waited::Ended { freed_bytes: 100 };
        assert_eq!(batches.wait(seen, ANSWER_WAIT_MAX), before);
        let seen = batches.ended();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| batches.wait(seen, ANSWER_WAIT_MAX));
            std::thread::sleep(SHORT);
            assert!(!waiting.is_finished());
            batches.end(1, 0);
            let failed = Waited::Ended { freed_bytes: 0 };
            assert_eq!(waiting.join().unwrap(), failed);
        });
        assert_eq!(batches.wait(batches.ended(), SHORT), Waited::Nothing);
    }

    #[test]
    fn a_tier_that_does_not_answer_is_waited_for_once() {
        let batches = UnderWay::default();
        let seen = batches.ended();
        batches.begin();
        assert_eq!(batches.wait(seen, SHORT), Waited::Unanswered);
        let start = Instant::now();
        assert_eq!(batches.wait(seen, ANSWER_WAIT_MAX), Waited::Unanswered);
        assert!(start.elapsed() < ANSWER_WAIT_MAX / 2);
        batches.begin();
        batches.end(1, 7);
        let ended = Waited::Ended { freed_bytes: 7 };
        assert_eq!(batches.wait(seen, ANSWER_WAIT_MAX), ended);
        assert_eq!(batches.wait(batches.ended(), SHORT), Waited::Unanswered);
    }
}
