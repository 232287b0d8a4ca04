//! Runs of frames of one length in one arena: which are free, which of the free
//! ones the kernel still backs, and when it gets them back.
//!
//! A freed run waits in a small cache, because the next allocation is likely
//! close. When the cache is full, its older half goes back to the kernel in as
//! few calls as neighbouring runs allow: one system call for some dozens of
//! frees, not one for each.
//!
//! - `handed out + warm + cold + never used == runs of the arena`
//! - the budget counts `handed out + warm`

use std::io;

use zcache_sys::arena::{Arena, FRAME_SIZE};

use super::{Budget, Shortage};

#[derive(Debug)]
pub(crate) struct RunPool {
    arena: Arena,
    run_frames: u32,
    runs_max: u32,
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
}

impl RunPool {
    /// Runs of so many frames; those that are freed wait until they are this many frames.
    pub(crate) fn new(
        run_frames: u32,
        bytes_max: u64,
        warm_frames_max: u32,
    ) -> io::Result<RunPool> {
        let run_bytes = run_frames as usize * FRAME_SIZE;
        let runs_max = (bytes_max / run_bytes as u64).clamp(1, (u32::MAX / run_frames).into());
        let runs_max = u32::try_from(runs_max).expect("clamped to 32 bits");
        let warm_max = (warm_frames_max / run_frames) as usize;
        Ok(RunPool {
            arena: Arena::reserve(runs_max * run_frames)?,
            run_frames,
            runs_max,
            fresh: 0,
            warm: Vec::with_capacity(warm_max + 1),
            warm_max,
            cold: Vec::new(),
            cold_runs: 0,
            cold_from: 0,
            gives_back: true,
        })
    }

    pub(crate) fn alloc(&mut self, budget: &Budget, shrinks: bool) -> Result<u32, Shortage> {
        if let Some(run) = self.warm.pop() {
            return Ok(run);
        }
        if self.cold_runs == 0 && self.fresh == self.runs_max {
            return Err(Shortage::Space);
        }
        if !budget.take(self.run_bytes(), shrinks) {
            return Err(Shortage::Budget);
        }
        Ok(if self.cold_runs > 0 {
            self.lowest_cold()
        } else {
            self.next_fresh(budget)
        })
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
            let frames = first * self.run_frames..last * self.run_frames;
            if self.arena.discard(frames).is_err() {
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
    }

    pub(crate) fn bytes(&self, run: u32) -> &[u8] {
        let len = self.run_frames as usize * FRAME_SIZE;
        let start = run as usize * len;
        &self.arena.bytes()[start..start + len]
    }

    pub(crate) fn bytes_mut(&mut self, run: u32) -> &mut [u8] {
        let len = self.run_frames as usize * FRAME_SIZE;
        let start = run as usize * len;
        &mut self.arena.bytes_mut()[start..start + len]
    }

    #[cfg(test)]
    pub(super) fn resident_bytes(&self) -> u64 {
        u64::from(self.arena.resident_frames().unwrap()) * FRAME_SIZE as u64
    }

    fn run_bytes(&self) -> u64 {
        u64::from(self.run_frames) * FRAME_SIZE as u64
    }

    fn next_fresh(&mut self, budget: &Budget) -> u32 {
        let run = self.fresh;
        self.fresh += 1;
        if self.cold.len() * 64 < self.fresh as usize {
            self.cold.push(0);
            budget.charge_overhead(8);
        }
        run
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
