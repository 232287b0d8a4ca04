//! How long answers take: quantiles of the last thousands, within a ninth.
//!
//! Lock-free; a race between threads loses a sample or two, which no quantile
//! notices.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Buckets for each doubling.
const STEPS: usize = 8;

/// From 1 µs to 16 s.
const BUCKETS: usize = 24 * STEPS;

/// After so many samples each counts half.
const SAMPLES_MAX: u32 = 8192;

/// A histogram of times.
#[derive(Debug)]
pub(crate) struct Latency {
    counts: Vec<AtomicU32>,
    samples: AtomicU32,
}

impl Latency {
    pub(crate) fn new() -> Latency {
        Latency {
            counts: (0..BUCKETS).map(|_| AtomicU32::new(0)).collect(),
            samples: AtomicU32::new(0),
        }
    }

    pub(crate) fn record(&self, time: Duration) {
        self.counts[bucket(time)].fetch_add(1, Relaxed);
        if self.samples.fetch_add(1, Relaxed) >= SAMPLES_MAX {
            let mut left = 0;
            for count in &self.counts {
                let half = count.load(Relaxed) / 2;
                count.store(half, Relaxed);
                left += half;
            }
            self.samples.store(left, Relaxed);
        }
    }

    pub(crate) fn samples(&self) -> u32 {
        self.samples.load(Relaxed)
    }

    /// The time that this part of the samples stays below, in thousandths; zero
    /// without samples.
    pub(crate) fn quantile(&self, thousandths: u32) -> Duration {
        let total: u64 = self.counts.iter().map(|n| u64::from(n.load(Relaxed))).sum();
        let mut left = (total * u64::from(thousandths)).div_ceil(1000);
        for (at, count) in self.counts.iter().enumerate() {
            let count = u64::from(count.load(Relaxed));
            if count >= left && count > 0 {
                return upper_end(at);
            }
            left -= count.min(left);
        }
        Duration::ZERO
    }
}

fn bucket(time: Duration) -> usize {
    let us = time.as_nanos() as f64 / 1000.0;
    let at = us.max(1.0).log2() * STEPS as f64;
    (at as usize).min(BUCKETS - 1)
}

fn upper_end(bucket: usize) -> Duration {
    Duration::from_secs_f64(2f64.powf((bucket + 1) as f64 / STEPS as f64) / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_a_ninth_and_follow_what_changes() {
        let latency = Latency::new();
        assert_eq!(latency.quantile(990), Duration::ZERO);
        for n in 0..1000 {
            let us = if n % 50 == 0 { 5000 } else { 100 };
            latency.record(Duration::from_micros(us));
        }
        let near = |thousandths: u32, us: f64| {
            let found = latency.quantile(thousandths).as_secs_f64() * 1e6;
            assert!((us..us * 1.12).contains(&found), "{found} for {us}");
        };
        near(500, 100.0);
        near(990, 5000.0);
        for _ in 0..200_000 {
            latency.record(Duration::from_micros(900));
        }
        near(10, 900.0);
        near(999, 900.0);
    }
}
