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
//! - A unit is backed when a block was written there: the medium keeps room for
//!   it, so it can be written again even where the tier cannot grow any more.
//!   `backed_free == bits of backed units that are not used`
//! - What was looked for in vain is not looked for again until something that
//!   would help is free.
//! - The budget counts the RAM of the map.
//!
//! Does not write. A slot is free again only when the core says so.

use crate::sync::Arc;

use zcache_core::Run;

use crate::frames::Budget;

/// Which places a block may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Places {
    /// Any below the limit.
    Any,
    /// Those that were written before, as the tier cannot grow now.
    Backed,
}

#[derive(Debug)]
pub(crate) struct Slots {
    words: Vec<u64>,
    /// Never shorter than what was ever written, and kept when that is free.
    backed: Vec<u64>,
    unit: Run,
    used: u32,
    used_peak: u32,
    backed_units: u32,
    backed_free: u32,
    limit: u32,
    cursor: u32,
    /// So many units in a row were looked for in vain since the last were freed.
    in_vain: u32,
    /// The same among backed units.
    in_vain_backed: u32,
    budget: Arc<Budget>,
    counted_bytes: u64,
}

/// What has not been looked for in vain.
const NOTHING: u32 = u32::MAX;

impl Slots {
    /// A map for blocks of these runs, of at most so many bytes.
    pub(crate) fn new(runs: &[Run], bytes_max: Option<u64>, budget: Arc<Budget>) -> Slots {
        let unit = match runs {
            [only] => *only,
            _ => Run::FRAME,
        };
        let limit = bytes_max.map_or(u64::MAX, |bytes| bytes / unit.bytes() as u64);
        Slots {
            words: Vec::new(),
            backed: Vec::new(),
            unit,
            used: 0,
            used_peak: 0,
            backed_units: 0,
            backed_free: 0,
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            cursor: 0,
            in_vain: NOTHING,
            in_vain_backed: NOTHING,
            budget,
            counted_bytes: 0,
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

    /// RAM of the map.
    pub(crate) fn ram_bytes(&self) -> u64 {
        self.counted_bytes
    }

    /// The most that they ever were.
    pub(crate) fn used_bytes_peak(&self) -> u64 {
        u64::from(self.used_peak) * self.unit.bytes() as u64
    }

    /// Whether a block found none of these places since the last were freed, or
    /// there is none.
    pub(crate) fn lacks(&self, places: Places) -> bool {
        self.in_vain(places) != NOTHING || (places == Places::Backed && self.backed_free == 0)
    }

    /// Whether nine tenths of these places are in use, or a block found none.
    pub(crate) fn is_nearly_full(&self, places: Places) -> bool {
        let all = match places {
            Places::Any => self.limit,
            Places::Backed => self.backed_units,
        };
        self.lacks(places) || u64::from(self.used) * 10 > u64::from(all) * 9
    }

    /// Whether a shorter block than one that was refused may still find a place.
    pub(crate) fn may_take_shorter(&self, run: Run, places: Places) -> bool {
        let free = match places {
            Places::Any => self.limit - self.used,
            Places::Backed => self.backed_free,
        };
        self.units(run) > 1 && free > 0 && self.in_vain(places) > 1
    }

    /// A place for a block, or `None` when there is no such place.
    pub(crate) fn take(&mut self, run: Run, places: Places) -> Option<u32> {
        let units = self.units(run);
        if self.limit - self.used < units || units >= self.in_vain(places) {
            self.note_in_vain(places, units);
            return None;
        }
        let end = match places {
            Places::Any => self.end(),
            Places::Backed => units_of(&self.backed).min(self.limit),
        };
        let slot = self
            .first_free(self.cursor, end, units, places)
            .or_else(|| self.first_free(0, end, units, places))
            .or_else(|| (places == Places::Any).then(|| self.end_of_used()));
        let Some(slot) = slot.filter(|slot| self.cover(*slot, units)) else {
            self.note_in_vain(places, units);
            return None;
        };
        for unit in slot..slot + units {
            self.words[unit as usize / 64] |= 1 << (unit % 64);
            self.backed_free -= u32::from(self.is_backed(unit));
        }
        self.used += units;
        self.used_peak = self.used_peak.max(self.used);
        self.cursor = slot + units;
        Some(slot)
    }

    /// Notes that the block which holds a slot was written there, so that its
    /// place is backed from now on.
    pub(crate) fn written(&mut self, slot: u32, run: Run) {
        let end = slot + self.units(run);
        let words = (end as usize).div_ceil(64);
        if words > self.backed.len() {
            // Without memory for it, the place is only not known to be backed.
            if self.backed.try_reserve(words - self.backed.len()).is_err() {
                return;
            }
            self.backed.resize(words, 0);
            self.recount();
        }
        for unit in slot..end {
            self.backed_units += u32::from(!self.is_backed(unit));
            self.backed[unit as usize / 64] |= 1 << (unit % 64);
        }
    }

    /// Notes that there was no room for a block at the slot that it holds,
    /// whatever was written there before.
    pub(crate) fn found_no_room(&mut self, slot: u32, run: Run) {
        for unit in slot..slot + self.units(run) {
            if self.is_backed(unit) {
                self.backed[unit as usize / 64] &= !(1 << (unit % 64));
                self.backed_units -= 1;
            }
        }
    }

    /// Whether the whole place of a block was written before.
    pub(crate) fn was_written(&self, slot: u32, run: Run) -> bool {
        (slot..slot + self.units(run)).all(|unit| self.is_backed(unit))
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
            if self.is_backed(unit) {
                self.backed_free += 1;
                self.in_vain_backed = NOTHING;
            }
        }
        self.used -= units;
        self.in_vain = NOTHING;
        self.shrink();
    }

    fn units(&self, run: Run) -> u32 {
        debug_assert!(run.frames().is_multiple_of(self.unit.frames()));
        run.frames() / self.unit.frames()
    }

    fn in_vain(&self, places: Places) -> u32 {
        match places {
            Places::Any => self.in_vain,
            Places::Backed => self.in_vain_backed,
        }
    }

    fn note_in_vain(&mut self, places: Places, units: u32) {
        let in_vain = match places {
            Places::Any => &mut self.in_vain,
            Places::Backed => &mut self.in_vain_backed,
        };
        *in_vain = units.min(*in_vain);
    }

    /// The first unit that the map does not cover yet.
    fn end(&self) -> u32 {
        units_of(&self.words).min(self.limit)
    }

    /// Where the free units begin that the map ends with.
    fn end_of_used(&self) -> u32 {
        let mut slot = self.end();
        while slot > 0 && !self.is_used(slot - 1) {
            slot -= 1;
        }
        slot
    }

    /// Makes the map cover a place; false beyond the limit or without memory.
    fn cover(&mut self, slot: u32, units: u32) -> bool {
        if self.limit - slot < units {
            return false;
        }
        let words = (slot as usize + units as usize).div_ceil(64);
        if words > self.words.len() {
            let more = words - self.words.len();
            if self.words.try_reserve(more).is_err() {
                return false;
            }
            self.words.resize(words, 0);
            self.recount();
        }
        true
    }

    /// Gives the memory of what lies behind the last slot in use back, when that
    /// is more than half.
    fn shrink(&mut self) {
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
        if self.words.capacity() > self.words.len() * 4 {
            self.words.shrink_to(self.words.len() * 2);
            self.recount();
        }
    }

    /// Has the budget count the map as long as it is now.
    fn recount(&mut self) {
        let bytes = (self.words.capacity() + self.backed.capacity()) as u64 * 8;
        self.budget.charge_overhead(bytes);
        self.budget.discharge_overhead(self.counted_bytes);
        self.counted_bytes = bytes;
    }

    fn is_used(&self, unit: u32) -> bool {
        is_set(&self.words, unit)
    }

    fn is_backed(&self, unit: u32) -> bool {
        is_set(&self.backed, unit)
    }

    /// Of 64 units, those that a block must not take.
    fn taken(&self, word: usize, places: Places) -> u64 {
        let used = self.words.get(word).copied().unwrap_or(0);
        match places {
            Places::Any => used,
            Places::Backed => used | !self.backed.get(word).copied().unwrap_or(0),
        }
    }

    /// The first of so many units in a row within the range that may be taken.
    fn first_free(&self, from: u32, to: u32, units: u32, places: Places) -> Option<u32> {
        let is_taken = |unit: u32| self.taken(unit as usize / 64, places) >> (unit % 64) & 1 == 1;
        let mut at = from;
        while at < to && to - at >= units {
            let free = !self.taken(at as usize / 64, places) >> (at % 64);
            if free == 0 {
                at = (at / 64 + 1) * 64;
                continue;
            }
            let slot = at + free.trailing_zeros();
            if slot >= to || to - slot < units {
                return None;
            }
            match (slot + 1..slot + units).find(|unit| is_taken(*unit)) {
                None => return Some(slot),
                Some(taken) => at = taken + 1,
            }
        }
        None
    }
}

/// How many units so many words are for.
fn units_of(words: &[u64]) -> u32 {
    u32::try_from(words.len() as u64 * 64).unwrap_or(u32::MAX)
}

fn is_set(words: &[u64], unit: u32) -> bool {
    let word = words.get(unit as usize / 64);
    word.is_some_and(|word| word >> (unit % 64) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;
    use std::collections::{BTreeMap, BTreeSet};

    fn bytes(units: u64, run: Run) -> Option<u64> {
        Some(units * run.bytes() as u64)
    }

    fn slots(runs: &[Run], bytes_max: Option<u64>) -> Slots {
        Slots::new(runs, bytes_max, Arc::new(Budget::new(0)))
    }

    #[test]
    fn slots_match_a_set_under_random_use() {
        let rng = &mut Rng::from_env("slots");
        let all: Vec<Run> = (1..=Run::FRAMES_MAX).map(Run::of_frames).collect();
        for runs in [&[Run::BLOCK][..], &[Run::FRAME], &all] {
            let unit = if runs.len() == 1 { runs[0] } else { Run::FRAME };
            for limit in [1, 7, 63, 64, 65, 200] {
                let mut slots = slots(runs, bytes(limit, unit));
                let mut model = BTreeMap::new();
                let mut backed = BTreeSet::new();
                for _ in 0..5000 {
                    let places = [Places::Any, Places::Backed][rng.below(2) as usize];
                    step(
                        rng,
                        runs,
                        places,
                        limit as u32,
                        &mut slots,
                        &mut model,
                        &mut backed,
                    );
                }
            }
        }
    }

    /// Takes or frees a place, and compares with the sets of what is taken and
    /// of which units were written.
    fn step(
        rng: &mut Rng,
        runs: &[Run],
        places: Places,
        limit: u32,
        slots: &mut Slots,
        model: &mut BTreeMap<u32, Run>,
        backed: &mut BTreeSet<u32>,
    ) {
        let units_of = |run: &Run| run.frames() / slots.unit.frames();
        let taken: BTreeSet<u32> = model
            .iter()
            .flat_map(|(slot, run)| *slot..*slot + units_of(run))
            .collect();
        assert_eq!(
            slots.used_bytes(),
            (taken.len() * slots.unit.bytes()) as u64
        );
        assert_eq!(slots.backed_units as usize, backed.len());
        assert_eq!(
            slots.backed_free as usize,
            backed.difference(&taken).count()
        );
        assert_eq!(slots.budget.overhead(), slots.counted_bytes);
        if rng.below(5) < 3 {
            let run = runs[rng.below(runs.len() as u64) as usize];
            let units = units_of(&run);
            let is_free = |slot: u32| {
                let is_right = |unit: u32| {
                    !taken.contains(&unit) && (places == Places::Any || backed.contains(&unit))
                };
                (slot..slot + units).all(is_right)
            };
            match slots.take(run, places) {
                Some(slot) => {
                    assert!(slot + units <= limit && is_free(slot));
                    model.insert(slot, run);
                    if rng.below(3) > 0 {
                        slots.written(slot, run);
                        backed.extend(slot..slot + units);
                        assert!(slots.was_written(slot, run));
                    } else if rng.below(4) == 0 {
                        slots.found_no_room(slot, run);
                        backed.retain(|unit| !(slot..slot + units).contains(unit));
                        assert!(!slots.was_written(slot, run));
                    }
                }
                None => {
                    let mut room = (0..=limit).take_while(|slot| slot + units <= limit);
                    assert!(!room.any(is_free), "there was room for {run:?}");
                    assert!(slots.lacks(places) && slots.is_nearly_full(places));
                }
            }
        } else if !model.is_empty() {
            let n = rng.below(model.len() as u64) as usize;
            let (slot, run) = model.iter().nth(n).map(|(s, r)| (*s, *r)).unwrap();
            model.remove(&slot);
            slots.free(slot, run);
            assert!(!slots.lacks(Places::Any));
        }
    }

    #[test]
    fn an_empty_map_hands_out_neighbours() {
        let mut slots = slots(&[Run::BLOCK], None);
        let mut take = |places| slots.take(Run::BLOCK, places);
        let places: Vec<u32> = (0..1000).map(|_| take(Places::Any).unwrap()).collect();
        assert!(places.iter().copied().eq(0..1000));
        let runs = [1, 2, 3, 4, 5, 6, 7, 8].map(Run::of_frames);
        let mut slots = self::slots(&runs, None);
        let mut expected = 0;
        for run in runs.iter().cycle().take(1000) {
            assert_eq!(slots.take(*run, Places::Any), Some(expected));
            expected += run.frames();
        }
        assert_eq!(slots.used_bytes(), 4500 * 4096);
    }

    #[test]
    fn places_that_were_written_are_handed_out_again_as_neighbours_when_all_were_freed() {
        for run in [Run::FRAME, Run::of_frames(3)] {
            let mut slots = slots(&[Run::FRAME, run], None);
            assert_eq!(
                slots.take(run, Places::Backed),
                None,
                "nothing is backed yet"
            );
            let places: Vec<u32> = (0..300)
                .map(|_| slots.take(run, Places::Any).unwrap())
                .collect();
            for slot in &places[..200] {
                slots.written(*slot, run);
            }
            assert_eq!(slots.take(run, Places::Backed), None);
            assert!(slots.lacks(Places::Backed) && !slots.lacks(Places::Any));
            for slot in &places {
                slots.free(*slot, run);
            }
            assert!(!slots.lacks(Places::Backed));
            let again: Vec<u32> = std::iter::from_fn(|| slots.take(run, Places::Backed)).collect();
            assert_eq!(again, places[..200], "no more and no other ones");
        }
    }

    #[test]
    fn the_map_is_counted_while_it_is_there_and_given_back() {
        let mut slots = slots(&[Run::BLOCK], None);
        let places: Vec<u32> = (0..100_000)
            .map(|_| slots.take(Run::BLOCK, Places::Any).unwrap())
            .collect();
        let full = slots.budget.overhead();
        // A bit a slot, and at most as much again to grow into.
        assert!((12_500..=25_000).contains(&full), "{full} bytes");
        for slot in places {
            slots.free(slot, Run::BLOCK);
        }
        assert!(slots.budget.overhead() < 200, "{slots:?}");
    }
}
