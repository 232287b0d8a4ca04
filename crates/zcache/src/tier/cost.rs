//! Which of two reads costs less, by what the last ones took.
//!
//! - Only reads of one request count, and only those that succeeded: a batch shares its
//!   waits, and a failure says nothing of the next read.
//! - The dearer side is tried now and then, so that one that has become cheaper is seen.

use std::time::Duration;

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// A new measure counts for one part in so many.
const WEIGHT: u64 = 8;

/// One read in so many goes to the dearer side.
const TRIED_ONE_IN: u32 = 64;

/// The side that is read first has the other's reads cost so much more, in eighths:
/// two that are alike do not alternate.
const STAYS_EIGHTHS: u64 = 9;

/// A first side that costs so many times as much as the second is hardly worth what is
/// written to it.
const DEAR_TIMES: u64 = 2;

/// While it is dear, one batch in so many is written to it all the same, so that its reads
/// are measured.
const WRITTEN_ONE_IN: u32 = 16;

/// Two sides of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The one that is read first.
    First,
    /// The one behind it.
    Second,
}

/// What reads cost on either side: of two tiers, or of a tier and what a client has
/// behind the store.
#[derive(Debug, Default)]
pub struct Costs {
    /// Moving means in nanoseconds; 0 while nothing is known.
    sides: [AtomicU64; 2],
    reads: AtomicU32,
    writes: AtomicU32,
}

impl Costs {
    /// The cheaper side: the first while one of them is unknown.
    #[must_use]
    pub fn cheaper(&self) -> Side {
        let [first, second] = [0, 1].map(|side: usize| self.sides[side].load(Relaxed));
        match first != 0 && second != 0 && first * 8 > second * STAYS_EIGHTHS {
            true => Side::Second,
            false => Side::First,
        }
    }

    /// Whether reads from the first side are hardly worth it; `None` while one side is
    /// unknown.
    #[must_use]
    pub fn is_first_dear(&self) -> Option<bool> {
        let [first, second] = [0, 1].map(|side: usize| self.sides[side].load(Relaxed));
        (first != 0 && second != 0).then_some(first > second * DEAR_TIMES)
    }

    /// Whether a batch is worth a copy on the first side: while its reads are not dear, and
    /// now and then.
    #[must_use]
    pub fn is_worth_a_copy(&self) -> bool {
        self.is_first_dear() != Some(true)
            || self
                .writes
                .fetch_add(1, Relaxed)
                .is_multiple_of(WRITTEN_ONE_IN)
    }

    /// The side to read from: the cheaper one, or now and then the other.
    #[must_use]
    pub fn choose(&self) -> Side {
        let other = self.reads.fetch_add(1, Relaxed) % TRIED_ONE_IN == TRIED_ONE_IN - 1;
        match (self.cheaper(), other) {
            (Side::First, false) | (Side::Second, true) => Side::First,
            (Side::Second, false) | (Side::First, true) => Side::Second,
        }
    }

    /// Learns from a read.
    pub fn learn(&self, side: Side, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        let mean = &self.sides[side as usize];
        let before = mean.load(Relaxed);
        // Two threads at once lose one measure.
        let after = match before {
            0 => took,
            _ => (before / WEIGHT * (WEIGHT - 1)).saturating_add(took / WEIGHT),
        };
        mean.store(after.max(1), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dear_side_gets_few_copies() {
        let costs = Costs::default();
        let copies = |count: usize| (0..count).filter(|_| costs.is_worth_a_copy()).count();
        assert_eq!(copies(32), 32, "nothing is known yet");
        costs.learn(Side::First, Duration::from_micros(90));
        costs.learn(Side::Second, Duration::from_micros(50));
        assert_eq!(copies(32), 32);
        for _ in 0..50 {
            costs.learn(Side::First, Duration::from_micros(300));
        }
        assert_eq!(copies(32), 2);
    }

    #[test]
    fn the_cheaper_side_is_read_and_the_other_tried() {
        let costs = Costs::default();
        assert_eq!(costs.cheaper(), Side::First);
        costs.learn(Side::First, Duration::from_micros(100));
        assert_eq!(
            costs.cheaper(),
            Side::First,
            "nothing is known of the other"
        );
        for _ in 0..50 {
            costs.learn(Side::Second, Duration::from_micros(30));
        }
        assert_eq!(costs.cheaper(), Side::Second);
        let chosen: Vec<_> = (0..640).map(|_| costs.choose()).collect();
        let first = chosen.iter().filter(|side| **side == Side::First);
        assert_eq!(first.count(), 10);
        for _ in 0..50 {
            costs.learn(Side::First, Duration::from_micros(28));
        }
        assert_eq!(costs.cheaper(), Side::First);
    }
}
