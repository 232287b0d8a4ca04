//! A tier in memory that fails on request, for tests and simulations.
//!
//! The fault model: a write may end in no space or in an I/O error, and then
//! leaves any prefix of its bytes behind; a read may end in an I/O error; a
//! read may succeed with one bit flipped; a write may be acknowledged late. A
//! write that is acknowledged is kept. Faults are drawn from a seed, so a run
//! with one thread repeats.

use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::collections::BTreeMap;

use super::seam::{SECTOR_SIZE, Tier, TierError, TierRead, TierWrite};

/// Which faults happen how often. The rates are out of 65,536 transfers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Sectors beyond this many end in no space. `None` is no limit.
    pub sectors_max: Option<u64>,
    /// Writes that end in an I/O error.
    pub write_error_rate: u16,
    /// Reads that end in an I/O error.
    pub read_error_rate: u16,
    /// Reads that give one wrong bit.
    pub bit_flip_rate: u16,
    /// Whether writes wait, after moving their bytes, until this is unset.
    pub hold_acks: bool,
}

/// A tier in memory.
#[derive(Debug, Default)]
pub struct MemoryTier {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    sectors: BTreeMap<u64, Box<[u8]>>,
    faults: Faults,
    random: u64,
    held: u64,
}

impl MemoryTier {
    /// An empty tier whose faults are drawn from this seed.
    #[must_use]
    pub fn new(seed: u64) -> MemoryTier {
        MemoryTier {
            state: Mutex::new(State {
                random: seed,
                ..State::default()
            }),
            changed: Condvar::new(),
        }
    }

    /// Changes which faults happen from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
        self.changed.notify_all();
    }

    /// Waits until at least `count` calls of [`write`](Tier::write) have moved their bytes and wait
    /// for their acknowledgement.
    pub fn wait_for_held(&self, count: u64) {
        let state = self.state();
        drop(
            self.changed
                .wait_while(state, |state| state.held < count)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Flips one bit of what is stored, if there is a byte at this offset.
    pub fn flip_bit(&self, offset_bytes: u64, bit: u32) {
        let sector_bytes = SECTOR_SIZE as u64;
        if let Some(sector) = self.state().sectors.get_mut(&(offset_bytes / sector_bytes)) {
            sector[(offset_bytes % sector_bytes) as usize] ^= 1 << (bit % 8);
        }
    }

    /// Loses everything, as a file that is cut off and grows again: what was
    /// written before reads as zeros.
    pub fn empty(&self) {
        self.state().sectors.clear();
    }

    /// How many sectors hold bytes.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.state().sectors.len() as u64
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn happens(&mut self, rate: u16) -> bool {
        rate > 0 && (self.draw() & 0xffff) < u64::from(rate)
    }

    fn write(&mut self, first: u64, bytes: &[u8]) -> Result<(), TierError> {
        let fails = self.happens(self.faults.write_error_rate);
        let stop = if fails {
            self.draw() as usize % (bytes.len() / SECTOR_SIZE)
        } else {
            usize::MAX
        };
        for (n, sector) in bytes.chunks(SECTOR_SIZE).enumerate() {
            let number = first + n as u64;
            if n == stop {
                return Err(TierError::IO);
            }
            if self.faults.sectors_max.is_some_and(|max| number >= max) {
                return Err(TierError::NO_SPACE);
            }
            self.sectors.insert(number, sector.into());
        }
        Ok(())
    }

    fn read(&mut self, first: u64, bytes: &mut [u8]) -> Result<(), TierError> {
        if self.happens(self.faults.read_error_rate) {
            return Err(TierError::IO);
        }
        for (n, sector) in bytes.chunks_mut(SECTOR_SIZE).enumerate() {
            match self.sectors.get(&(first + n as u64)) {
                Some(stored) => sector.copy_from_slice(stored),
                // As a hole in a file reads.
                None => sector.fill(0),
            }
        }
        if self.happens(self.faults.bit_flip_rate) {
            let bit = self.draw() as usize % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        Ok(())
    }
}

impl Tier for MemoryTier {
    fn write(&self, writes: &mut [TierWrite<'_>]) {
        let mut state = self.state();
        for write in writes.iter_mut() {
            let first = write.offset_bytes / SECTOR_SIZE as u64;
            write.result = state.write(first, write.bytes);
        }
        state.held += 1;
        self.changed.notify_all();
        let mut state = self
            .changed
            .wait_while(state, |state| state.faults.hold_acks)
            .unwrap_or_else(PoisonError::into_inner);
        state.held -= 1;
    }

    fn read(&self, reads: &mut [TierRead<'_>]) {
        let mut state = self.state();
        for read in reads {
            let first = read.offset_bytes / SECTOR_SIZE as u64;
            read.result = state.read(first, read.bytes);
        }
    }
}
