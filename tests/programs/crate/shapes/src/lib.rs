//! Generic containers, so that the compiler has many instances to make.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

/// Sorts, groups and prints values of any kind.
pub fn digest<T: Ord + Clone + Debug + std::hash::Hash>(values: impl Iterator<Item = T>) -> u64 {
    let mut sorted: Vec<T> = values.collect();
    sorted.sort();
    let mut groups: BTreeMap<T, usize> = BTreeMap::new();
    let mut counts: HashMap<T, usize> = HashMap::new();
    for value in &sorted {
        *groups.entry(value.clone()).or_default() += 1;
        *counts.entry(value.clone()).or_default() += 1;
    }
    let bytes: Vec<u64> = format!("{groups:?}").bytes().map(u64::from).collect();
    numbers::fold_7(&bytes).wrapping_add(counts.len() as u64)
}
