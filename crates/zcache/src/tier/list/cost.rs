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

/// Two sides of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    First,
    Second,
}

/// What reads cost on either side.
#[derive(Debug, Default)]
pub(super) struct Costs {
    /// Moving means in nanoseconds; 0 while nothing is known.
    sides: [AtomicU64; 2],
    reads: AtomicU32,
}

impl Costs {
    /// The cheaper side: the first while one of them is unknown.
    pub(super) fn cheaper(&self) -> Side {
        let [first, second] = [0, 1].map(|side: usize| self.sides[side].load(Relaxed));
        match first != 0 && second != 0 && first * 8 > second * STAYS_EIGHTHS {
            true => Side::Second,
            false => Side::First,
        }
    }

    /// The side to read from: the cheaper one, or now and then the other.
    pub(super) fn choose(&self) -> Side {
        let other = self.reads.fetch_add(1, Relaxed) % TRIED_ONE_IN == TRIED_ONE_IN - 1;
        match (self.cheaper(), other) {
            (Side::First, false) | (Side::Second, true) => Side::First,
            (Side::Second, false) | (Side::First, true) => Side::Second,
        }
    }

    /// Learns from a read.
    pub(super) fn learn(&self, side: Side, took: Duration) {
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
