//! Times of accesses, kept in log-linear buckets.
//!
//! Third stage of the workload. A time below 64 ns has a bucket of its own; above, 64 buckets a power
//! of two keep the error of a percentile under 1.6%. Invariant: `sum(buckets) == count`. It keeps no
//! single samples and allocates nothing while it records, so that recording touches the same few
//! kilobytes all the time.

const SUB_BITS: u32 = 6;
const SUB: usize = 1 << SUB_BITS;
const BUCKETS: usize = SUB * (64 - SUB_BITS as usize + 1);

/// A histogram of times in nanoseconds.
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum_ns: u64,
    max_ns: u64,
}

impl Histogram {
    /// An empty histogram.
    pub(crate) fn new() -> Self {
        Histogram {
            buckets: vec![0; BUCKETS],
            count: 0,
            sum_ns: 0,
            max_ns: 0,
        }
    }

    /// Adds one time.
    pub(crate) fn record(&mut self, ns: u64) {
        self.buckets[bucket(ns)] += 1;
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds all times of another histogram.
    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// Number of times recorded.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Mean in nanoseconds, 0 without any.
    pub(crate) fn mean_ns(&self) -> u64 {
        self.sum_ns.checked_div(self.count).unwrap_or(0)
    }

    /// Longest time in nanoseconds.
    pub(crate) fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The time that `per_mille` of 1000 samples do not exceed, in nanoseconds; 0 without any.
    pub(crate) fn quantile_ns(&self, per_mille: u64) -> u64 {
        let rank = (self.count * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, &count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper(index).min(self.max_ns);
            }
        }
        0
    }
}

fn bucket(ns: u64) -> usize {
    if ns < SUB as u64 {
        return ns as usize;
    }
    let exponent = ns.ilog2() - SUB_BITS;
    let sub = (ns >> exponent) as usize - SUB;
    SUB * (exponent as usize + 1) + sub
}

/// The largest time of a bucket.
fn upper(index: usize) -> u64 {
    if index < SUB {
        return index as u64;
    }
    let exponent = index / SUB - 1;
    let low = ((SUB + index % SUB) as u64) << exponent;
    low + ((1u64 << exponent) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_they_say() {
        for ns in [
            0,
            1,
            63,
            64,
            65,
            127,
            128,
            1000,
            123_456,
            u64::from(u32::MAX),
            u64::MAX,
        ] {
            let index = bucket(ns);
            assert!(ns <= upper(index), "{ns}");
            assert!(index == 0 || ns > upper(index - 1), "{ns}");
            assert!((upper(index) - ns) as f64 <= ns as f64 / 63.0, "{ns}");
        }
    }

    #[test]
    fn quantiles_of_a_ramp() {
        let (mut a, mut b) = (Histogram::new(), Histogram::new());
        (1..=500).for_each(|ns| a.record(ns * 1000));
        (501..=1000).for_each(|ns| b.record(ns * 1000));
        a.merge(&b);
        assert_eq!(a.count(), 1000);
        for (per_mille, exact) in [(500, 500_000.0), (990, 990_000.0), (999, 999_000.0)] {
            let error = (a.quantile_ns(per_mille) as f64 - exact).abs() / exact;
            assert!(error < 0.016, "{per_mille}: {error}");
        }
        assert_eq!(a.max_ns(), 1_000_000);
        assert_eq!(Histogram::new().quantile_ns(500), 0);
    }
}
