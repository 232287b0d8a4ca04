//! Which places of a tier hold a block. Ours rather than the filesystem's, so
//! that a write never needs a new name or size, and the limit is exact.
//!
//! The map counts in units, the longest run of frames of which every block is a
//! multiple: a block where all are alike, else one frame. A block takes
//! neighbouring units, and its slot is the number of the first.
//!
//! - `used == bits set <= limit`
//! - Slots are handed out in rising order from where the last search ended, so
//!   blocks that leave together lie together and are written as one.
//! - `units_refused` in a row are nowhere free, below the limit.
//!
//! Beside each slot lies the CRC-32C of the whole block in it. Pages have their
//! own checksums; this one is for blocks that are read back whole and packed
//! anew, which would otherwise turn a passing read error into a lasting one.
//!
//! Does not write. A slot is free again only when the core says so.

use zcache_core::Run;

#[derive(Debug)]
pub(crate) struct Slots {
    words: Vec<u64>,
    block_checksums: Vec<u32>,
    unit: Run,
    used: u32,
    used_peak: u32,
    limit: u32,
    cursor: u32,
    /// So many units in a row were looked for in vain since the last were freed.
    units_refused: u32,
}

impl Slots {
    /// A map for blocks of these runs, of at most so many bytes.
    pub(crate) fn new(runs: &[Run], bytes_max: Option<u64>) -> Slots {
        let unit = match runs {
            [only] => *only,
            _ => Run::FRAME,
        };
        let limit = bytes_max.map_or(u64::MAX, |bytes| bytes / unit.bytes() as u64);
        Slots {
            words: Vec::new(),
            block_checksums: Vec::new(),
            unit,
            used: 0,
            used_peak: 0,
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            cursor: 0,
            units_refused: u32::MAX,
        }
    }

    /// What slots are counted in.
    pub(crate) fn unit(&self) -> Run {
        self.unit
    }

    /// Bytes of all blocks.
    pub(crate) fn used_bytes(&self) -> u64 {
        u64::from(self.used) * self.unit.bytes() as u64
    }

    /// The most that they ever were.
    pub(crate) fn used_bytes_peak(&self) -> u64 {
        u64::from(self.used_peak) * self.unit.bytes() as u64
    }

    /// Whether nine tenths are in use, or a block found no room.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.units_refused != u32::MAX || u64::from(self.used) * 10 > u64::from(self.limit) * 9
    }

    /// Keeps the checksum of the block that a slot holds.
    pub(crate) fn set_block_checksum(&mut self, slot: u32, checksum: u32) {
        self.block_checksums[slot as usize] = checksum;
    }

    /// The checksum kept last for this slot.
    pub(crate) fn block_checksum(&self, slot: u32) -> u32 {
        self.block_checksums[slot as usize]
    }

    /// A place for a block, or `None` when there is none below the limit.
    pub(crate) fn take(&mut self, run: Run) -> Option<u32> {
        let units = self.units(run);
        if self.limit - self.used < units || units >= self.units_refused {
            self.units_refused = self.units_refused.min(units);
            return None;
        }
        let slot = self
            .first_free(self.cursor, self.end(), units)
            .or_else(|| self.first_free(0, self.end(), units))
            .or_else(|| self.grow(units));
        let Some(slot) = slot else {
            self.units_refused = units;
            return None;
        };
        for unit in slot..slot + units {
            self.words[unit as usize / 64] |= 1 << (unit % 64);
        }
        self.used += units;
        self.used_peak = self.used_peak.max(self.used);
        self.cursor = slot + units;
        Some(slot)
    }

    /// Frees the place of a block.
    ///
    /// # Panics
    /// When it was free already.
    pub(crate) fn free(&mut self, slot: u32, run: Run) {
        let units = self.units(run);
        for unit in slot..slot + units {
            let word = &mut self.words[unit as usize / 64];
            assert!(*word >> (unit % 64) & 1 == 1, "slot {slot} freed twice");
            *word &= !(1 << (unit % 64));
        }
        self.used -= units;
        self.units_refused = u32::MAX;
    }

    fn units(&self, run: Run) -> u32 {
        debug_assert!(run.frames().is_multiple_of(self.unit.frames()));
        run.frames() / self.unit.frames()
    }

    /// The first unit that the map does not cover yet.
    fn end(&self) -> u32 {
        u32::try_from(self.words.len() as u64 * 64)
            .unwrap_or(u32::MAX)
            .min(self.limit)
    }

    /// Makes the map cover more; the place begins with what is free at its end.
    fn grow(&mut self, units: u32) -> Option<u32> {
        let mut slot = self.end();
        while slot > 0 && !self.is_used(slot - 1) {
            slot -= 1;
        }
        if self.limit - slot < units
            || self.words.try_reserve(1).is_err()
            || self.block_checksums.try_reserve(64).is_err()
        {
            return None;
        }
        self.words.push(0);
        self.block_checksums.resize(self.words.len() * 64, 0);
        Some(slot)
    }

    fn is_used(&self, unit: u32) -> bool {
        self.words[unit as usize / 64] >> (unit % 64) & 1 == 1
    }

    /// The first of so many free units in a row within the range, which the map
    /// covers.
    fn first_free(&self, from: u32, to: u32, units: u32) -> Option<u32> {
        let mut at = from;
        while at < to && to - at >= units {
            let free = !self.words[at as usize / 64] >> (at % 64);
            if free == 0 {
                at = (at / 64 + 1) * 64;
                continue;
            }
            let slot = at + free.trailing_zeros();
            if slot >= to || to - slot < units {
                return None;
            }
            match (slot + 1..slot + units).find(|unit| self.is_used(*unit)) {
                None => return Some(slot),
                Some(used) => at = used + 1,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;
    use std::collections::{BTreeMap, BTreeSet};

    fn bytes(units: u64, run: Run) -> Option<u64> {
        Some(units * run.bytes() as u64)
    }

    #[test]
    fn slots_match_a_set_under_random_use() {
        let rng = &mut Rng::from_env("slots");
        let all: Vec<Run> = (1..=Run::FRAMES_MAX).map(Run::of_frames).collect();
        for runs in [&[Run::BLOCK][..], &[Run::FRAME], &all] {
            let unit = if runs.len() == 1 { runs[0] } else { Run::FRAME };
            for limit in [1, 7, 63, 64, 65, 200] {
                let mut slots = Slots::new(runs, bytes(limit, unit));
                let mut model = BTreeMap::new();
                for _ in 0..5000 {
                    let taken: BTreeSet<u32> = model
                        .iter()
                        .flat_map(|(slot, run): (&u32, &Run)| {
                            *slot..*slot + run.frames() / unit.frames()
                        })
                        .collect();
                    assert_eq!(slots.used_bytes(), (taken.len() * unit.bytes()) as u64);
                    if rng.below(5) < 3 {
                        let run = runs[rng.below(runs.len() as u64) as usize];
                        let units = run.frames() / unit.frames();
                        let is_free = |slot: u32| (slot..slot + units).all(|u| !taken.contains(&u));
                        match slots.take(run) {
                            Some(slot) => {
                                assert!(slot + units <= limit as u32 && is_free(slot));
                                model.insert(slot, run);
                            }
                            None => {
                                let room =
                                    (0..=limit as u32).take_while(|s| s + units <= limit as u32);
                                assert!(!{ room }.any(is_free), "there was room for {run:?}");
                                assert!(slots.is_nearly_full());
                            }
                        }
                    } else if !model.is_empty() {
                        let n = rng.below(model.len() as u64) as usize;
                        let (slot, run) = model.iter().nth(n).map(|(s, r)| (*s, *r)).unwrap();
                        model.remove(&slot);
                        slots.free(slot, run);
                    }
                }
            }
        }
    }

    #[test]
    fn an_empty_map_hands_out_neighbours() {
        let mut slots = Slots::new(&[Run::BLOCK], None);
        let places: Vec<u32> = (0..1000).map(|_| slots.take(Run::BLOCK).unwrap()).collect();
        assert!(places.iter().copied().eq(0..1000));
        let runs = [1, 2, 3, 4, 5, 6, 7, 8].map(Run::of_frames);
        let mut slots = Slots::new(&runs, None);
        let mut expected = 0;
        for run in runs.iter().cycle().take(1000) {
            assert_eq!(slots.take(*run), Some(expected));
            expected += run.frames();
        }
        assert_eq!(slots.used_bytes(), 4500 * 4096);
    }
}
