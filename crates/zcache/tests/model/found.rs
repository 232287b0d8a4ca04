//! Runs that found something, by their seeds.

use crate::complaints::Complaints;
use crate::one;

/// Runs with this seed as the test with so many threads does.
fn replay(seed: u64, threads: &[u64]) {
    let complaints = Complaints::default();
    one(seed, threads, &complaints);
    complaints.judge();
}

#[test]
fn ephemeral_pages_of_one_word_kept_persistent_ones_out() {
    replay(1_796_043_238_266_691_595, &[1]);
}

#[test]
fn samples_for_dictionaries_of_many_pools_grew_without_bound() {
    replay(1_796_043_238_266_691_610, &[1]);
}

#[test]
fn panics_of_the_tier_left_its_places_taken() {
    replay(1_796_043_238_266_691_599, &[1]);
}

#[test]
fn a_full_tier_was_told_of_when_it_was_empty() {
    replay(1_796_043_238_266_691_596, &[1]);
}
