//! The order in which resident pages are asked to leave: first in, first out,
//! in two classes (2Q).
//!
//! Stage on the data path: admission to the shadow. There is no per-page access
//! bit to be had, so order of arrival stands for age, and the shadow gives each
//! page a second chance. What proved to be wanted is protected from what only
//! passes by. Entries are hints: a page may have left meanwhile, and
//! the table decides. Runs of pages are one entry of eight bytes.

use std::collections::VecDeque;

use crate::space::page_table::Vpn;

const RUN_BITS: u32 = 12;
const RUN_MAX: u64 = (1 << RUN_BITS) - 1;
const SEGMENT_RUNS: usize = 512;
/// A segment has the stamp of its oldest run, so none may be much younger: what
/// came back to an idle space's queue would look old for ever.
const SEGMENT_STAMPS: u64 = 1024;

/// Which of a space's two queues a page is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// It came once, and leaves first.
    Probation,
    /// It was wanted again soon after it had been evicted.
    Protected,
}

impl Standing {
    pub(crate) fn other(self) -> Standing {
        match self {
            Standing::Probation => Standing::Protected,
            Standing::Protected => Standing::Probation,
        }
    }
}

/// Neighbouring pages that arrived together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) first: Vpn,
    pub(crate) count: u64,
}

struct Segment {
    stamp: u64,
    runs: VecDeque<u64>,
}

/// See the module's description.
#[derive(Default)]
pub(crate) struct Queue {
    segments: VecDeque<Segment>,
    pages: u64,
}

impl Queue {
    /// Adds pages at the young end; `stamp` never falls from call to call.
    pub(crate) fn push(&mut self, first: Vpn, count: u64, stamp: u64) {
        let mut at = first.0;
        let mut left = count;
        self.pages += count;
        while left > 0 {
            let some = left.min(RUN_MAX);
            self.push_run(at << RUN_BITS | some, stamp);
            at += some;
            left -= some;
        }
    }

    fn push_run(&mut self, run: u64, stamp: u64) {
        let full = self.segments.back().is_none_or(|last| {
            last.runs.len() >= SEGMENT_RUNS || stamp.saturating_sub(last.stamp) > SEGMENT_STAMPS
        });
        if full {
            self.segments.push_back(Segment {
                stamp,
                runs: VecDeque::new(),
            });
        }
        if let Some(last) = self.segments.back_mut() {
            last.runs.push_back(run);
        }
    }

    /// Takes at most `limit` neighbouring pages from the old end.
    pub(crate) fn pop(&mut self, limit: u64) -> Option<Run> {
        let segment = self.segments.front_mut()?;
        let run = segment.runs.front_mut()?;
        let (first, count) = (*run >> RUN_BITS, *run & RUN_MAX);
        let taken = count.min(limit);
        if taken == count {
            segment.runs.pop_front();
            if segment.runs.is_empty() {
                self.segments.pop_front();
            }
        } else {
            *run = (first + taken) << RUN_BITS | (count - taken);
        }
        self.pages -= taken;
        Some(Run {
            first: Vpn(first),
            count: taken,
        })
    }

    /// Stamp of the oldest pages, or `None` when empty.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.segments.front().map(|segment| segment.stamp)
    }

    /// Pages that stand in the queue, stale ones included.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    pub(crate) fn clear(&mut self) {
        self.segments.clear();
        self.pages = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_leave_in_the_order_of_arrival() {
        let mut queue = Queue::default();
        queue.push(Vpn(10), 3, 1);
        queue.push(Vpn(100), 5000, 2);
        queue.push(Vpn(7), 1, 3);
        let mut seen = Vec::new();
        while let Some(run) = queue.pop(64) {
            assert!(run.count <= 64);
            seen.extend((0..run.count).map(|ahead| run.first.0 + ahead));
        }
        let expected: Vec<u64> = (10..13).chain(100..5100).chain(7..8).collect();
        assert_eq!(seen, expected);
        assert_eq!(queue.pages(), 0);
    }

    #[test]
    fn the_oldest_stamp_is_that_of_the_first_segment() {
        let mut queue = Queue::default();
        assert_eq!(queue.oldest(), None);
        for page in 0..2000 {
            queue.push(Vpn(page * 2), 1, page);
        }
        assert_eq!(queue.oldest(), Some(0));
        while queue.pages() > 100 {
            queue.pop(1);
        }
        assert!(queue.oldest() > Some(1000));
    }
}
