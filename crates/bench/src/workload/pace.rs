//! Keeps the threads of a run together.
//!
//! Under memory pressure a thread that is a little faster keeps more of its own pages resident and
//! gets faster still, until one thread runs at the speed of RAM and the others starve; the sum of
//! their accesses then says nothing about the job. Invariant: while a phase lasts, no thread is more
//! than `lead_max + CHECK_EVERY` accesses ahead of the slowest. A thread that waits sleeps, so that
//! the slower ones have its CPU.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a thread looks at the others, in accesses.
const CHECK_EVERY: u64 = 256;
/// How long a thread that is ahead sleeps before it looks again.
const NAP: Duration = Duration::from_micros(100);
/// A thread may be ahead by this share of its own pages.
const LEAD_SHARE: usize = 4;

/// What the threads share.
pub(super) struct Pace {
    barrier: Barrier,
    /// Accesses of each thread in this phase.
    done: Vec<AtomicU64>,
    lead_max: u64,
}

impl Pace {
    /// The pace of `threads` threads over `pages` pages together.
    pub(super) fn new(threads: usize, pages: usize) -> Pace {
        let lead_max = (pages / threads / LEAD_SHARE) as u64;
        let done = (0..threads).map(|_| AtomicU64::new(0)).collect();
        Pace {
            barrier: Barrier::new(threads),
            done,
            lead_max,
        }
    }

    /// One thread's part in it.
    pub(super) fn step(&self, thread: usize) -> Step<'_> {
        Step { pace: self, thread }
    }

    fn slowest(&self) -> u64 {
        self.done
            .iter()
            .map(|done| done.load(Ordering::Relaxed))
            .min()
            .unwrap_or(0)
    }
}

/// One thread's part in the pace.
pub(super) struct Step<'a> {
    pace: &'a Pace,
    thread: usize,
}

impl Step<'_> {
    /// Waits for all threads; a new phase begins.
    pub(super) fn all_wait(&mut self) {
        self.pace.barrier.wait();
        self.pace.done[self.thread].store(0, Ordering::Relaxed);
        self.pace.barrier.wait();
    }

    /// Sleeps while this thread is too far ahead and the phase lasts.
    pub(super) fn keep(&mut self, ops: u64, start: Instant, length: Duration) {
        if !ops.is_multiple_of(CHECK_EVERY) || self.pace.done.len() == 1 {
            return;
        }
        self.pace.done[self.thread].store(ops, Ordering::Relaxed);
        while ops > self.pace.slowest() + self.pace.lead_max && start.elapsed() < length {
            std::thread::sleep(NAP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_waits_for_the_slowest() {
        let pace = Pace::new(2, 2 * 4096);
        std::thread::scope(|scope| {
            let leader = scope.spawn(|| {
                let mut step = pace.step(0);
                step.all_wait();
                let start = Instant::now();
                step.keep(8 * CHECK_EVERY, start, Duration::MAX);
                start.elapsed()
            });
            let mut step = pace.step(1);
            step.all_wait();
            std::thread::sleep(Duration::from_millis(50));
            step.keep(7 * CHECK_EVERY, Instant::now(), Duration::MAX);
            assert!(leader.join().expect("no panic") >= Duration::from_millis(40));
        });
    }

    #[test]
    fn the_end_of_the_phase_frees_a_leader() {
        let pace = Pace::new(2, 2 * 4096);
        pace.step(0)
            .keep(1 << 20, Instant::now(), Duration::from_millis(1));
    }
}
