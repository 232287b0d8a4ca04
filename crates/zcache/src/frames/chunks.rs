//! The address space of runs of one length: chunks that are reserved as runs are
//! first needed, and given back from the end.
//!
//! Stage on the data path: between the packing of zpages and the kernel's memory.
//!
//! Chunks grow: eight of one size, eight of twice that, and so on. So what is
//! reserved beyond what was ever needed is at most a quarter of it or one first
//! chunk, mappings are few however large a store is, and a run's place is
//! computed from its number, as a floating-point number is read:
//!
//! ```text
//! run + 8 * runs of a first chunk == 1mmm xxxx... in binary
//!                                    chunk 8e + m, its run xxxx...
//! ```
//!
//! where `e` is how many more bits the sum has than that of the first run.
//!
//! - `end == sum(runs of each chunk)`; a run below `end` never moves.
//!
//! Does not know which runs are in use, nor count the memory they take.

use std::io;
use std::ops::Range;

use zcache_sys::arena::{Arena, FRAME_SIZE};

/// Frames of a first chunk at most: 256 KiB.
const FIRST_FRAMES: u32 = 64;

/// Chunks of one size, as a power of two.
const ALIKE_BITS: u32 = 3;

#[derive(Debug)]
pub(super) struct Chunks {
    arenas: Vec<Arena>,
    run_bytes: usize,
    /// Runs of a first chunk, as a power of two.
    first_bits: u32,
}

impl Chunks {
    pub(super) fn new(run_frames: u32) -> Chunks {
        Chunks {
            arenas: Vec::new(),
            run_bytes: run_frames as usize * FRAME_SIZE,
            first_bits: (FIRST_FRAMES / run_frames).ilog2(),
        }
    }

    /// Runs that there is address space for.
    pub(super) fn end(&self) -> u32 {
        self.first_run(self.arenas.len())
    }

    /// The runs of the last chunk.
    pub(super) fn last(&self) -> Range<u32> {
        self.first_run(self.arenas.len().saturating_sub(1))..self.end()
    }

    /// Reserves one more chunk.
    ///
    /// # Errors
    /// What `mmap` says, or that run numbers or the heap are used up.
    pub(super) fn grow(&mut self) -> io::Result<()> {
        let runs = 1 << self.scale(self.arenas.len());
        let used_up = || io::Error::from(io::ErrorKind::OutOfMemory);
        let frames = u64::from(self.end()) + runs;
        let frames = frames.checked_mul((self.run_bytes / FRAME_SIZE) as u64);
        // Of the whole pool, so that run numbers and each arena fit 32 bits.
        frames
            .and_then(|frames| u32::try_from(frames).ok())
            .ok_or_else(used_up)?;
        self.arenas.try_reserve(1).map_err(|_| used_up())?;
        let frames = runs as usize * self.run_bytes / FRAME_SIZE;
        self.arenas.push(Arena::reserve(frames as u32)?);
        Ok(())
    }

    /// Gives the last chunk back, whatever is in it.
    pub(super) fn shrink(&mut self) {
        self.arenas.pop();
    }

    /// Gives the memory of neighbouring runs back to the kernel.
    ///
    /// # Errors
    /// What `madvise` says; some of them may have gone all the same.
    pub(super) fn discard(&mut self, runs: Range<u32>) -> io::Result<()> {
        let run_frames = (self.run_bytes / FRAME_SIZE) as u32;
        let mut first = runs.start;
        while first < runs.end {
            let (chunk, within) = self.place(first);
            let end = runs.end.min(self.first_run(chunk + 1));
            let last = within as u32 + (end - first);
            self.arenas[chunk].discard(within as u32 * run_frames..last * run_frames)?;
            first = end;
        }
        Ok(())
    }

    #[inline]
    pub(super) fn bytes(&self, run: u32) -> &[u8] {
        let (chunk, within) = self.place(run);
        let start = within * self.run_bytes;
        &self.arenas[chunk].bytes()[start..start + self.run_bytes]
    }

    #[inline]
    pub(super) fn bytes_mut(&mut self, run: u32) -> &mut [u8] {
        let (chunk, within) = self.place(run);
        let start = within * self.run_bytes;
        &mut self.arenas[chunk].bytes_mut()[start..start + self.run_bytes]
    }

    /// Bytes of the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.arenas.capacity() * size_of::<Arena>()
    }

    #[cfg(test)]
    pub(super) fn resident_bytes(&self) -> u64 {
        let frames = self.arenas.iter().map(|arena| arena.resident_frames());
        frames
            .map(|frames| u64::from(frames.unwrap()) * FRAME_SIZE as u64)
            .sum()
    }

    /// The chunk of a run, and which run of it that is.
    #[inline]
    fn place(&self, run: u32) -> (usize, usize) {
        let sum = u64::from(run) + (1 << (self.first_bits + ALIKE_BITS));
        let scale = sum.ilog2() - ALIKE_BITS;
        let eights = ((scale - self.first_bits) as usize) << ALIKE_BITS;
        let chunk = eights + (sum >> scale) as usize - (1 << ALIKE_BITS);
        (chunk, (sum & ((1 << scale) - 1)) as usize)
    }

    /// Runs of a chunk, as a power of two.
    fn scale(&self, chunk: usize) -> u32 {
        self.first_bits + (chunk >> ALIKE_BITS) as u32
    }

    fn first_run(&self, chunk: usize) -> u32 {
        let alike = 1 << ALIKE_BITS;
        let sum = (alike + chunk as u64 % alike) << self.scale(chunk);
        (sum - (alike << self.first_bits)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_has_a_place_of_its_own_and_chunks_grow_slowly() {
        for run_frames in 1..=8 {
            let mut chunks = Chunks::new(run_frames);
            let mut reserved = 0;
            for chunk in 0..200 {
                let first = chunks.first_run(chunk);
                assert_eq!(first, reserved, "chunk {chunk}");
                let runs = 1 << chunks.scale(chunk);
                assert_eq!(chunks.place(first), (chunk, 0));
                assert_eq!(chunks.place(first + runs - 1), (chunk, runs as usize - 1));
                let first_chunk = 1 << chunks.first_bits;
                assert!(runs <= first_chunk || runs * 4 <= reserved);
                reserved += runs;
                if u64::from(reserved) * 2 * u64::from(run_frames) > u32::MAX.into() {
                    break;
                }
            }
            for _ in 0..20 {
                chunks.grow().unwrap();
            }
            for run in 0..chunks.end() {
                chunks.bytes_mut(run)[..4].copy_from_slice(&run.to_le_bytes());
            }
            chunks.discard(3..chunks.end() - 3).unwrap();
            for run in 0..chunks.end() {
                let kept = !(3..chunks.end() - 3).contains(&run);
                let expected = if kept { run } else { 0 };
                assert_eq!(chunks.bytes(run)[..4], expected.to_le_bytes());
                assert_eq!(chunks.bytes(run).len(), run_frames as usize * FRAME_SIZE);
            }
            let last = chunks.last();
            chunks.shrink();
            assert_eq!(chunks.end(), last.start);
        }
    }

    #[test]
    fn numbers_that_are_used_up_are_an_error() {
        let mut chunks = Chunks::new(8);
        // Address space alone: nothing is touched.
        let error = (0..1000).find_map(|_| chunks.grow().err());
        assert_eq!(error.map(|e| e.kind()), Some(io::ErrorKind::OutOfMemory));
    }
}
