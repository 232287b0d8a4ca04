//! What a run counts: faults and their times, evictions, losses.
//!
//! Times are kept in a histogram of quarter powers of two, so a percentile is
//! exact to 19%.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const BUCKETS: usize = 160;

/// A histogram of nanoseconds that any thread may add to.
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

fn bucket(ns: u64) -> usize {
    let ns = ns.max(4);
    let octave = 63 - ns.leading_zeros() as usize;
    let quarter = (ns >> (octave - 2)) as usize & 3;
    ((octave - 2) * 4 + quarter).min(BUCKETS - 1)
}

/// Upper bound of a bucket in nanoseconds.
fn bound(index: usize) -> u64 {
    let (octave, quarter) = (index / 4, index as u64 % 4);
    ((5 + quarter) << octave) - 1
}

impl Histogram {
    pub(crate) fn add(&self, time: Duration) {
        let ns = time.as_nanos().min(u64::MAX.into()) as u64;
        self.buckets[bucket(ns)].fetch_add(1, Ordering::Relaxed);
    }

    /// The time below which `share` (0 to 1) of the samples lie; 0 when empty.
    pub(crate) fn percentile_ns(&self, share: f64) -> u64 {
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .collect();
        let total: u64 = counts.iter().sum();
        let rank = (total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= rank && total > 0 {
                return bound(index);
            }
        }
        0
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of one run; all only grow.
        #[derive(Default)]
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: Counter,)*
            /// Time from reading a fault's message to its resolution.
            pub(crate) fault_ns: Histogram,
        }
    };
}

counters! {
    /// Messages of missing pages that were read.
    faults,
    /// Pages given as zeros.
    zero_filled_pages,
    /// Pages brought back from the store.
    loaded_pages,
    /// Of these, pages that nobody had asked for yet (fault-around).
    around_pages,
    /// Pages that came back from the shadow: their second chance.
    second_chances,
    /// Faults that waited for room.
    stalled_faults,
    /// Pages moved to the shadow.
    shadowed_pages,
    /// Pages put into the store.
    evicted_pages,
    /// Pages that could not be moved (pinned, locked).
    unmovable_pages,
    /// Pages that left by the pen, since they are not plain data.
    penned_pages,
    /// Batches that a servant did not finish in time.
    stuck_batches,
    /// Processes and images that run unpaged.
    unpaged,
    /// Pages that the store refused and that went back to the program.
    returned_pages,
    /// Pages lost: touching them raises SIGBUS.
    lost_pages,
    /// Address spaces taken care of since the start.
    spaces,
    /// Forks served.
    forks,
    /// CPU time of recompressing cold pages.
    cold_cpu_ns,
    /// System calls on memory maps carried out.
    mapping_calls,
    /// Faults answered with SIGBUS because nothing could be freed.
    out_of_memory,
    /// Rounds of the evictors, in vain or not.
    eviction_rounds,
}

impl Counters {
    /// Pages that faults were given.
    pub(crate) fn granted_pages(&self) -> u64 {
        self.zero_filled_pages.get() + self.loaded_pages.get() + self.second_chances.get()
    }
}

/// One counter.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// For what is counted elsewhere.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_falls_below_its_bound_and_above_the_one_before() {
        for ns in (4..100_000).chain([1 << 30, (1 << 40) - 1]) {
            let index = bucket(ns);
            assert!(ns <= bound(index), "{ns}");
            assert!(index == 0 || ns > bound(index - 1), "{ns}");
        }
    }

    #[test]
    fn percentiles_of_a_known_spread() {
        let histogram = Histogram::default();
        assert_eq!(histogram.percentile_ns(0.5), 0);
        for ns in 1..=1000u64 {
            histogram.add(Duration::from_nanos(ns * 10));
        }
        let p50 = histogram.percentile_ns(0.5);
        assert!((5000..6000).contains(&p50), "{p50}");
        let p99 = histogram.percentile_ns(0.99);
        assert!((9900..12000).contains(&p99), "{p99}");
    }
}
