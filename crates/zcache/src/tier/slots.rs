//! Which places of a tier hold a block. Ours rather than the filesystem's, so
//! that a write never needs a new name or size, and the limit is exact.
//!
//! - `used == bits set <= limit`
//! - Slots are handed out in rising order from where the last search ended, so
//!   blocks that leave together lie together and are written as one.
//!
//! Beside each slot lies the CRC-32C of the whole block in it. Pages have their
//! own checksums; this one is for blocks that are read back whole and packed
//! anew, which would otherwise turn a passing read error into a lasting one.
//!
//! Does not write. A slot is free again only when the core says so.

#[derive(Debug)]
pub(crate) struct Slots {
    words: Vec<u64>,
    block_checksums: Vec<u32>,
    used: u32,
    used_peak: u32,
    limit: u32,
    cursor: u32,
}

impl Slots {
    pub(crate) fn new(limit: u32) -> Slots {
        Slots {
            words: Vec::new(),
            block_checksums: Vec::new(),
            used: 0,
            used_peak: 0,
            limit,
            cursor: 0,
        }
    }

    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    pub(crate) fn used_peak(&self) -> u32 {
        self.used_peak
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    pub(crate) fn is_full(&self) -> bool {
        self.used == self.limit
    }

    /// RAM of the map in bytes.
    pub(crate) fn ram_bytes(&self) -> u64 {
        self.words.capacity() as u64 * 8 + self.block_checksums.capacity() as u64 * 4
    }

    /// Keeps the checksum of the block that a slot holds.
    pub(crate) fn set_block_checksum(&mut self, slot: u32, checksum: u32) {
        self.block_checksums[slot as usize] = checksum;
    }

    /// The checksum kept last for this slot.
    pub(crate) fn block_checksum(&self, slot: u32) -> u32 {
        self.block_checksums[slot as usize]
    }

    /// A free slot, or `None` when the limit is reached.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let slot = self
            .first_free(self.cursor, self.end())
            .or_else(|| self.first_free(0, self.cursor.min(self.end())))
            .or_else(|| self.grow())?;
        self.words[slot as usize / 64] |= 1 << (slot % 64);
        self.used += 1;
        self.used_peak = self.used_peak.max(self.used);
        self.cursor = slot + 1;
        Some(slot)
    }

    /// Makes a slot free again.
    ///
    /// # Panics
    /// When it was free already.
    pub(crate) fn free(&mut self, slot: u32) {
        let word = &mut self.words[slot as usize / 64];
        assert!(*word >> (slot % 64) & 1 == 1, "slot {slot} freed twice");
        *word &= !(1 << (slot % 64));
        self.used -= 1;
    }

    /// The first slot that the map does not cover yet.
    fn end(&self) -> u32 {
        u32::try_from(self.words.len() as u64 * 64)
            .unwrap_or(u32::MAX)
            .min(self.limit)
    }

    fn grow(&mut self) -> Option<u32> {
        let slot = self.end();
        if slot >= self.limit
            || self.words.try_reserve(1).is_err()
            || self.block_checksums.try_reserve(64).is_err()
        {
            return None;
        }
        self.words.push(0);
        self.block_checksums.resize(self.words.len() * 64, 0);
        Some(slot)
    }

    /// The first free slot in the range, which the map covers.
    fn first_free(&self, from: u32, to: u32) -> Option<u32> {
        let mut at = from;
        while at < to {
            let free = !self.words[at as usize / 64] >> (at % 64);
            if free != 0 {
                let slot = at + free.trailing_zeros();
                return (slot < to).then_some(slot);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;
    use std::collections::BTreeSet;

    #[test]
    fn slots_match_a_set_under_random_use() {
        let rng = &mut Rng::from_env("slots");
        for limit in [1, 63, 64, 65, 200] {
            let mut slots = Slots::new(limit);
            let mut model = BTreeSet::new();
            for _ in 0..5000 {
                if rng.below(2) == 0 {
                    match slots.take() {
                        Some(slot) => assert!(slot < limit && model.insert(slot)),
                        None => assert_eq!(model.len(), limit as usize),
                    }
                } else if !model.is_empty() {
                    let n = rng.below(model.len() as u64) as usize;
                    let slot = *model.iter().nth(n).unwrap();
                    model.remove(&slot);
                    slots.free(slot);
                }
                assert_eq!(slots.used() as usize, model.len());
            }
        }
    }

    #[test]
    fn an_empty_map_hands_out_neighbours() {
        let mut slots = Slots::new(u32::MAX);
        let run: Vec<u32> = (0..1000).map(|_| slots.take().unwrap()).collect();
        assert!(run.iter().copied().eq(0..1000));
    }
}
