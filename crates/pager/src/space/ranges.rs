//! A set of page ranges that follows the mappings: which parts a forked child
//! sees as zeros (`MADV_WIPEONFORK`), which hold guard pages, which are locked.
//!
//! The kernel keeps these marks with each mapping or page; the set follows them
//! through whatever changes mappings, so it must be told of every new, dropped
//! and moved range. Invariant: the ranges are not empty, do not overlap and do
//! not touch.

use std::collections::BTreeMap;
use std::ops::Range;

/// See the module's description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// Ends by starts.
    parts: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Whether a page is in the set.
    pub(crate) fn contains(&self, page: u64) -> bool {
        self.next(page) == Some(page)
    }

    /// The first page of the set at or behind `page`.
    pub(crate) fn next(&self, page: u64) -> Option<u64> {
        let before = self.parts.range(..=page).next_back();
        if before.is_some_and(|(_, end)| *end > page) {
            return Some(page);
        }
        self.parts.range(page..).next().map(|(start, _)| *start)
    }

    /// The parts of the set that lie in `range`.
    pub(crate) fn within(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut found = Vec::new();
        let mut at = range.start;
        while let Some(start) = self.next(at).filter(|start| *start < range.end) {
            let (_, end) = self
                .parts
                .range(..=start)
                .next_back()
                .expect("it was found");
            let end = (*end).min(range.end);
            found.push(start..end);
            at = end;
        }
        found
    }

    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // What touches it becomes one with it.
        while let Some((&first, &last)) = self.parts.range(..=end).next_back() {
            if last < start {
                break;
            }
            self.parts.remove(&first);
            start = start.min(first);
            end = end.max(last);
        }
        self.parts.insert(start, end);
    }

    pub(crate) fn remove(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&first, &last)) = self.parts.range(..range.end).next_back() {
            if last <= range.start {
                break;
            }
            self.parts.remove(&first);
            if first < range.start {
                self.parts.insert(first, range.start);
            }
            if last > range.end {
                self.parts.insert(range.end, last);
            }
        }
    }

    /// A mapping moved, and may have grown: what was in the set of `old` is now
    /// in that of `new`. A mapping has one mark, so what it grew by has that of
    /// its last page. With `keep` the old range keeps its marks too.
    pub(crate) fn relocate(&mut self, old: &Range<u64>, new: &Range<u64>, keep: bool) {
        if self.parts.is_empty() {
            return;
        }
        let moved = self.within(old).into_iter().map(|part| {
            let end = match part.end == old.end {
                true => new.end,
                false => (part.end - old.start + new.start).min(new.end),
            };
            part.start - old.start + new.start..end
        });
        let moved: Vec<Range<u64>> = moved.collect();
        if !keep {
            self.remove(old);
        }
        self.remove(new);
        for part in moved {
            self.insert(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn neighbours_become_one() {
        let mut ranges = set(&[10..20, 30..40, 50..60]);
        ranges.insert(20..30);
        assert_eq!(ranges, set(&[10..40, 50..60]));
        assert_eq!(ranges.within(&(35..55)), [35..40, 50..55]);
        assert_eq!(
            (ranges.next(0), ranges.next(39), ranges.next(40)),
            (Some(10), Some(39), Some(50))
        );
    }

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
