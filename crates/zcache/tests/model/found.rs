//! Runs that found something, by their seeds.

use crate::complaints::Complaints;
use crate::one;

/// Runs with this seed as the test with so many threads does.
fn replay(seed: u64, threads: &[u64]) {
    let complaints = Complaints::default();
    one(seed, threads, &complaints);
    complaints.judge();
}
