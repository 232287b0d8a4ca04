//! Runs of frames of one length: which are free, which of the free ones the
//! kernel still backs, and when it gets them back.
//!
//! A freed run waits in a small cache, because the next allocation is likely
//! close. When the cache is full, its older half goes back to the kernel in as
//! few calls as neighbouring runs allow: one system call for some dozens of
//! frees, not one for each.
//!
//! - `handed out + warm + cold + never used == runs of all chunks`
//! - the budget counts `handed out + warm`, and the heap of the lists here

use zcache_sys::arena::FRAME_SIZE;

use super::budget::{Budget, Shortage};
use super::chunks::Chunks;

#[derive(Debug)]
pub(crate) struct RunPool {
    chunks: Chunks,
    run_frames: u32,
    /// Runs below this number have been handed out at least once.
    fresh: u32,
    /// Freed and still backed, the latest last.
    warm: Vec<u32>,
    warm_max: usize,
    /// Freed and given back: a bit for each run below `fresh`, rounded up.
    cold: Vec<u64>,
    cold_runs: u32,
    /// No word of `cold` before this one has a bit set.
    cold_from: usize,
    /// False once the kernel refused to take memory back, as it does for
    /// locked memory. Runs then stay warm, so that the count stays true.
    gives_back: bool,
    /// Bytes of the heap that the budget counts.
    heap_counted: u64,
}

impl RunPool {
    /// Runs of so many frames; those that are freed wait until they are this many
    /// frames.
    pub(crate) fn new(run_frames: u32, warm_frames_max: u32, budget: &Budget) -> RunPool {
        let warm_max = (warm_frames_max / run_frames) as usize;
        let mut pool = RunPool {
            chunks: Chunks::new(run_frames),
            run_frames,
            fresh: 0,
            warm: Vec::with_capacity(warm_max + 1),
            warm_max,
            cold: Vec::new(),
            cold_runs: 0,
            cold_from: 0,
            gives_back: true,
            heap_counted: 0,
        };
        pool.count_heap(budget);
        pool
    }

    pub(crate) fn alloc(&mut self, budget: &Budget, shrinks: bool) -> Result<u32, Shortage> {
        if let Some(run) = self.warm.pop() {
            return Ok(run);
        }
        if !budget.take(self.run_bytes(), shrinks) {
            return Err(Shortage::Budget);
        }
        if self.cold_runs > 0 {
            return Ok(self.lowest_cold());
        }
        let fresh = self.next_fresh(budget);
        if fresh.is_none() {
            budget.give(self.run_bytes());
        }
        fresh.ok_or(Shortage::Space)
    }

    pub(crate) fn free(&mut self, run: u32, budget: &Budget) {
        debug_assert!(run < self.fresh, "freed run {run} of {}", self.fresh);
        self.warm.push(run);
        if self.warm.len() > self.warm_max {
            self.trim(self.warm_max / 2, budget);
        }
    }

    /// Gives runs back to the kernel, the longest free first, until at most
    /// `keep` wait.
    pub(crate) fn trim(&mut self, keep: usize, budget: &Budget) {
        if !self.gives_back || self.warm.len() <= keep {
            return;
        }
        let count = self.warm.len() - keep;
        self.warm[..count].sort_unstable();
        let mut given = 0;
        while given < count {
            let first = self.warm[given];
            let mut end = given + 1;
            while end < count && self.warm[end] == first + (end - given) as u32 {
                end += 1;
            }
            let last = first + (end - given) as u32;
            if self.chunks.discard(first..last).is_err() {
                self.gives_back = false;
                break;
            }
            for run in first..last {
                self.set_cold(run);
            }
            given = end;
        }
        self.warm.drain(..given);
        budget.give(given as u64 * self.run_bytes());
        self.give_space_back();
    }

    #[inline]
    pub(crate) fn bytes(&self, run: u32) -> &[u8] {
        self.chunks.bytes(run)
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self, run: u32) -> &mut [u8] {
        self.chunks.bytes_mut(run)
    }

    #[cfg(test)]
    pub(super) fn resident_bytes(&self) -> u64 {
        self.chunks.resident_bytes()
    }

    /// Bytes of address space.
    #[cfg(test)]
    pub(super) fn reserved_bytes(&self) -> u64 {
        u64::from(self.chunks.end()) * self.run_bytes()
    }

    fn run_bytes(&self) -> u64 {
        u64::from(self.run_frames) * FRAME_SIZE as u64
    }

    /// A run that was never used; `None` when address space cannot be had.
    fn next_fresh(&mut self, budget: &Budget) -> Option<u32> {
        let run = self.fresh;
        if run == self.chunks.end() {
            self.chunks.grow().ok()?;
            self.count_heap(budget);
        }
        if run as usize == self.cold.len() * 64 {
            self.cold.try_reserve(1).ok()?;
            self.cold.push(0);
            self.count_heap(budget);
        }
        self.fresh += 1;
        Some(run)
    }

    /// Gives the address space of the last chunks back, where nothing in them is
    /// backed and as many runs elsewhere can be handed out first.
    fn give_space_back(&mut self) {
        loop {
            let last = self.chunks.last();
            let unused = last.start..self.fresh;
            if last.is_empty() || self.cold_runs < 2 * last.len() as u32 || !self.is_cold(&unused) {
                return;
            }
            self.chunks.shrink();
            self.cold_runs -= unused.len() as u32;
            self.fresh = last.start;
            self.cold.truncate(last.start.div_ceil(64) as usize);
            if let Some(word) = self.cold.get_mut(last.start as usize / 64) {
                *word &= (1 << (last.start % 64)) - 1;
            }
            self.cold_from = self.cold_from.min(self.cold.len());
        }
    }

    /// The last are looked at first, since they are handed out last.
    fn is_cold(&self, runs: &std::ops::Range<u32>) -> bool {
        let mut runs = runs.clone().rev();
        runs.all(|run| self.cold[run as usize / 64] >> (run % 64) & 1 == 1)
    }

    /// Counts what the lists take of the heap now. They never shrink.
    fn count_heap(&mut self, budget: &Budget) {
        let lists = self.warm.capacity() * 4 + self.cold.capacity() * 8;
        let bytes = (lists + self.chunks.heap_bytes()) as u64;
        budget.charge_overhead(bytes - self.heap_counted);
        self.heap_counted = bytes;
    }

    fn set_cold(&mut self, run: u32) {
        let word = run as usize / 64;
        debug_assert_eq!(
            self.cold[word] >> (run % 64) & 1,
            0,
            "run {run} freed twice"
        );
        self.cold[word] |= 1 << (run % 64);
        self.cold_runs += 1;
        self.cold_from = self.cold_from.min(word);
    }

    fn lowest_cold(&mut self) -> u32 {
        while self.cold[self.cold_from] == 0 {
            self.cold_from += 1;
        }
        let bit = self.cold[self.cold_from].trailing_zeros();
        self.cold[self.cold_from] &= !(1 << bit);
        self.cold_runs -= 1;
        self.cold_from as u32 * 64 + bit
    }
}
