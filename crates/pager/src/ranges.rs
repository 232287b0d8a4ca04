//! A set of page ranges: which parts of an address space a forked child sees as
//! zeros or not at all (`MADV_WIPEONFORK`, `MADV_DONTFORK`).
//!
//! The kernel keeps this mark with each mapping; the set follows it through
//! whatever changes mappings, so it must be told of every new, dropped and moved
//! range. Invariant: the ranges are not empty and do not overlap.

use std::ops::Range;

/// See the module's description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    parts: Vec<Range<u64>>,
}

impl Ranges {
    pub(crate) fn contains(&self, page: u64) -> bool {
        self.parts.iter().any(|part| part.contains(&page))
    }

    pub(crate) fn insert(&mut self, range: Range<u64>) {
        self.remove(&range);
        if !range.is_empty() {
            self.parts.push(range);
        }
    }

    pub(crate) fn remove(&mut self, range: &Range<u64>) {
        if range.is_empty() || self.parts.is_empty() {
            return;
        }
        self.parts = self
            .parts
            .drain(..)
            .flat_map(|part| {
                let before = part.start..part.end.min(range.start);
                let after = part.start.max(range.end)..part.end;
                [before, after]
            })
            .filter(|part| !part.is_empty())
            .collect();
    }

    /// A mapping moved, and may have grown: what was in the set of `old` is now
    /// in that of `new`. A mapping has one mark, so what it grew by has that of
    /// its last page. With `keep` the old range keeps its marks too.
    pub(crate) fn relocate(&mut self, old: &Range<u64>, new: &Range<u64>, keep: bool) {
        if self.parts.is_empty() {
            return;
        }
        let mut moved: Vec<Range<u64>> = self
            .parts
            .iter()
            .map(|part| part.start.max(old.start)..part.end.min(old.end))
            .filter(|part| !part.is_empty())
            .map(|part| {
                let end = if part.end == old.end {
                    new.end
                } else {
                    (part.end - old.start + new.start).min(new.end)
                };
                part.start - old.start + new.start..end
            })
            .collect();
        moved.retain(|part| !part.is_empty());
        if !keep {
            self.remove(old);
        }
        self.remove(new);
        self.parts.append(&mut moved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn set(parts: &[Range<u64>]) -> Ranges {
        let mut ranges = Ranges::default();
        for part in parts {
            ranges.insert(part.clone());
        }
        ranges
    }

    #[test]
    fn a_part_is_removed() {
        let mut ranges = set(&[10..20, 30..40]);
        ranges.remove(&(15..35));
        assert_eq!(ranges, set(&[10..15, 35..40]));
        ranges.remove(&(0..100));
        assert_eq!(ranges, Ranges::default());
    }

    #[test]
    fn a_mapping_that_moves_over_a_marked_range_takes_its_own_mark_there() {
        let mut ranges = Ranges::default();
        ranges.insert(100..200);
        ranges.relocate(&(0..10), &(150..160), false);
        assert_eq!(ranges, set(&[100..150, 160..200]));
        ranges.relocate(&(190..200), &(300..340), false);
        assert!(ranges.contains(339) && !ranges.contains(190) && ranges.contains(189));
        ranges.relocate(&(300..340), &(300..305), false);
        assert!(ranges.contains(304) && !ranges.contains(305));
    }

    #[test]
    fn agrees_with_a_set_of_pages_under_random_operations() {
        for start in 1..200u64 {
            let mut seed = start.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut random = |limit: u64| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed % limit
            };
            let mut ranges = Ranges::default();
            let mut model: BTreeSet<u64> = BTreeSet::new();
            for _ in 0..100 {
                let first = random(100);
                let range = first..first + random(20);
                match random(3) {
                    0 => {
                        ranges.insert(range.clone());
                        model.extend(range);
                    }
                    1 => {
                        ranges.remove(&range);
                        model.retain(|page| !range.contains(page));
                    }
                    _ => {
                        let new = 200 + random(50)..0;
                        let new = new.start..new.start + (range.end - range.start);
                        ranges.relocate(&range, &new, false);
                        let moved: Vec<u64> = range
                            .clone()
                            .filter(|page| model.contains(page))
                            .map(|page| page - range.start + new.start)
                            .collect();
                        model.retain(|page| !range.contains(page) && !new.contains(page));
                        model.extend(moved);
                    }
                }
                for page in 0..300 {
                    assert_eq!(
                        ranges.contains(page),
                        model.contains(&page),
                        "page {page}, seed {start}"
                    );
                }
            }
        }
    }
}
