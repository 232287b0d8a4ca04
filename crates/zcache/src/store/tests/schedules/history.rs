//! What calls on one key may answer: the contract of tmem, checked on a history of calls that overlapped.
//!
//! Stage on the data path: none; it judges what a test saw from outside.
//!
//! A history is right if its calls can be put in a sequence in which each has the answer that it gave, and in which a
//! call that ended before another began comes first (Herlihy and Wing, "Linearizability", 1990). The search tries every
//! sequence and remembers where it has been; histories here are a few dozen calls.
//!
//! - A page that was acknowledged is found until a call overwrites, takes or flushes it. An ephemeral one may go at any
//!   time, and then stays away until the next put.
//! - A put may drop the older page at any moment before it ends, whatever becomes of it.
//!
//! Does not: relate keys to each other. A call on many keys is one call on each of them, all of the same length.

use std::collections::HashSet;

use crate::PoolKind;

/// A page, by the number that made it. Every put has its own.
pub(super) type Value = u64;

/// What a call on a key was, and what it answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// A put, and whether it was acknowledged.
    Put { value: Value, stored: bool },
    /// A put into a pool that is closed, whose older page goes now or then.
    PutIntoClosed,
    /// A get: the page that was found.
    Got(Option<Value>),
    /// An exclusive get.
    Took(Option<Value>),
    /// A get of either kind that the tier failed. The page is there and stays.
    Unread,
    /// A flush, and whether there was a page where the call says so.
    Flushed(Option<bool>),
}

/// A call on a key, with the moments between which it ran.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) begun: u64,
    pub(super) ended: u64,
    pub(super) answer: Answer,
}

impl Answer {
    /// The key's page after this call if it ran now, or `None` when it could not have given this answer.
    fn after(self, page: Option<Value>) -> Option<Option<Value>> {
        let (possible, after) = match self {
            Answer::Put { value, stored } => (true, stored.then_some(value)),
            Answer::PutIntoClosed => (true, page),
            Answer::Got(found) => (found == page, page),
            Answer::Took(found) => (found == page, None),
            Answer::Unread => (page.is_some(), page),
            Answer::Flushed(found) => (found.is_none_or(|found| found == page.is_some()), None),
        };
        possible.then_some(after)
    }

    /// Whether the page that was there may go while this call is under way.
    fn drops_older(self) -> bool {
        matches!(self, Answer::Put { .. } | Answer::PutIntoClosed)
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>4} to {:>4}  {:?}",
            self.begun, self.ended, self.answer
        )
    }
}

/// Whether these calls on one key, in any order, can have given the answers that they gave.
pub(super) fn is_right(kind: PoolKind, calls: &[Call]) -> bool {
    assert!(calls.len() < 128, "a bit for each call");
    let search = Search {
        calls,
        ephemeral: kind == PoolKind::Ephemeral,
    };
    search.explains(0, None, &mut HashSet::new())
}

struct Search<'a> {
    calls: &'a [Call],
    ephemeral: bool,
}

impl Search<'_> {
    /// Whether what is left can follow, when the calls of these bits have run and left this page.
    fn explains(
        &self,
        done: u128,
        page: Option<Value>,
        been: &mut HashSet<(u128, Option<Value>)>,
    ) -> bool {
        let left = || (0..self.calls.len()).filter(|n| done >> n & 1 == 0);
        let Some(horizon) = left().map(|n| self.calls[n].ended).min() else {
            return true;
        };
        if !been.insert((done, page)) {
            return false;
        }
        let mut may_run = left().filter(|n| self.calls[*n].begun < horizon);
        may_run.any(|n| {
            let answer = self.calls[n].answer;
            let ran = answer.after(page);
            ran.is_some_and(|page| self.explains(done | 1 << n, page, been))
                || answer.drops_older() && self.explains(done, None, been)
        }) || self.ephemeral && self.explains(done, None, been)
    }
}

#[cfg(test)]
mod tests {
    use super::Answer::*;
    use super::*;

    /// Calls as `(begun, ended, answer)`.
    fn right(kind: PoolKind, calls: &[(u64, u64, Answer)]) -> bool {
        let call = |&(begun, ended, answer): &(u64, u64, Answer)| Call {
            begun,
            ended,
            answer,
        };
        is_right(kind, &calls.iter().map(call).collect::<Vec<_>>())
    }

    fn put(value: Value) -> Answer {
        Put {
            value,
            stored: true,
        }
    }

    const REFUSED: Answer = Put {
        value: 9,
        stored: false,
    };

    #[test]
    fn a_page_that_was_acknowledged_is_found_until_it_is_overwritten_taken_or_flushed() {
        for (kind, may_be_lost) in [(PoolKind::Persistent, false), (PoolKind::Ephemeral, true)] {
            let right = |calls: &[(u64, u64, Answer)]| right(kind, calls);
            assert!(right(&[(0, 1, put(1)), (2, 3, Got(Some(1)))]));
            assert_eq!(right(&[(0, 1, put(1)), (2, 3, Got(None))]), may_be_lost);
            let flushed_in_vain = [(0, 1, put(1)), (2, 3, Flushed(Some(false)))];
            assert_eq!(right(&flushed_in_vain), may_be_lost);
            assert!(right(&[
                (0, 1, put(1)),
                (2, 3, Unread),
                (4, 5, Got(Some(1)))
            ]));
            for ends in [Took(Some(1)), Flushed(Some(true)), Flushed(None), REFUSED] {
                assert!(right(&[(0, 1, put(1)), (2, 3, ends), (4, 5, Got(None))]));
                let comes_back = [(0, 1, put(1)), (2, 3, ends), (4, 5, Got(Some(1)))];
                assert!(!right(&comes_back), "{ends:?}");
            }
        }
    }

    #[test]
    fn a_newer_page_hides_the_older() {
        for kind in [PoolKind::Persistent, PoolKind::Ephemeral] {
            let stale = [(0, 1, put(1)), (2, 3, put(2)), (4, 5, Got(Some(1)))];
            assert!(!right(kind, &stale));
            let never_put = [(0, 1, put(1)), (2, 3, Got(Some(2)))];
            assert!(!right(kind, &never_put));
            // Once a get misses, gets miss.
            let again = [(0, 1, put(1)), (2, 3, Got(None)), (4, 5, Got(Some(1)))];
            assert!(!right(kind, &again));
        }
    }

    #[test]
    fn calls_that_overlap_run_in_any_order_that_explains_them() {
        let kind = PoolKind::Persistent;
        let both = |after| [(0, 9, put(1)), (1, 8, put(2)), (10, 11, Got(Some(after)))];
        assert!(right(kind, &both(1)) && right(kind, &both(2)));
        // A put that is under way may have dropped the older page, and has not brought it back.
        let under_way = |first, then| {
            [
                (0, 1, put(1)),
                (2, 9, put(2)),
                (3, 4, Got(first)),
                (5, 6, Got(then)),
            ]
        };
        assert!(right(kind, &under_way(Some(1), None)));
        assert!(right(kind, &under_way(None, Some(2))));
        assert!(!right(kind, &under_way(None, Some(1))));
        assert!(!right(kind, &under_way(Some(2), Some(1))));
        let with_refused = [(0, 1, put(1)), (2, 9, REFUSED), (3, 4, Got(None))];
        assert!(right(kind, &with_refused));
    }

    #[test]
    fn of_many_that_take_a_page_one_gets_it() {
        let kind = PoolKind::Persistent;
        let takes = |first, second| {
            right(
                kind,
                &[(0, 1, put(1)), (2, 9, Took(first)), (2, 9, Took(second))],
            )
        };
        assert!(takes(Some(1), None) && takes(None, Some(1)));
        assert!(!takes(Some(1), Some(1)) && !takes(None, None));
    }

    /// What an exclusive get did that freed by place: it gave the older page and freed the newer.
    #[test]
    fn an_exclusive_get_of_an_older_page_does_not_free_the_newer() {
        let calls = |last| {
            [
                (0, 1, put(1)),
                (2, 7, Took(Some(1))),
                (3, 6, put(2)),
                (8, 9, Got(last)),
            ]
        };
        assert!(right(PoolKind::Persistent, &calls(Some(2))));
        assert!(!right(PoolKind::Persistent, &calls(None)));
    }
}
