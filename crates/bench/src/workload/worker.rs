//! One thread of the workload: its pages, their versions, its clock.
//!
//! Stages warm-up, measure and verify of the workload. The first touch of an access is timed, alone;
//! the check of the page's words comes after it. Invariant: page `first + i` holds
//! `data.page(first + i, versions[i])`. It shares nothing with other threads but the [`Pace`].

use std::hint::black_box;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use super::SLOW_NS;
use super::data::{Data, Page, VERSION_WORDS, WORDS, mix, version_index};
use super::histogram::Histogram;
use super::pace::{Pace, Step};
use super::pattern::{Pattern, Rng, Sampler};

/// What a worker is to do.
pub(super) struct Plan {
    pub(super) pattern: Pattern,
    pub(super) writes_percent: u64,
    pub(super) warmup: Duration,
    pub(super) length: Duration,
    /// Accesses of this thread, instead of `length`.
    pub(super) ops_max: Option<u64>,
    pub(super) seed: u64,
}

/// What a worker did.
pub(super) struct Outcome {
    pub(super) ops: u64,
    pub(super) measured: Duration,
    pub(super) faults: Histogram,
    pub(super) verify: Duration,
    pub(super) verified_pages: u64,
    pub(super) wrong_bytes: u64,
}

/// A thread's part of the memory.
pub(super) struct Worker<'a> {
    data: Data,
    first: u64,
    pages: &'a mut [Page],
    versions: Vec<u32>,
    wrong_bytes: u64,
}

impl<'a> Worker<'a> {
    /// A worker over `pages`, the first of which is number `first` and all of which hold version 0.
    pub(super) fn new(data: Data, first: u64, pages: &'a mut [Page]) -> Self {
        let versions = vec![0; pages.len()];
        Worker {
            data,
            first,
            pages,
            versions,
            wrong_bytes: 0,
        }
    }

    /// Warms up, waits for the other threads, measures, verifies.
    pub(super) fn run(mut self, plan: &Plan, pace: &Pace, thread: usize) -> Outcome {
        let mut sampler = Sampler::new(plan.pattern, self.pages.len() as u64);
        let mut rng = Rng::new(plan.seed ^ mix(self.first));
        let mut step = pace.step(thread);
        step.all_wait();
        if !plan.warmup.is_zero() {
            self.access_until(
                plan,
                &mut sampler,
                &mut rng,
                &mut step,
                plan.warmup,
                u64::MAX,
            );
        }
        step.all_wait();
        let (length, ops_max) = match plan.ops_max {
            Some(ops) => (Duration::MAX, ops),
            None => (plan.length, u64::MAX),
        };
        let (ops, measured, faults) =
            self.access_until(plan, &mut sampler, &mut rng, &mut step, length, ops_max);
        step.all_wait();
        let start = Instant::now();
        self.verify_all();
        Outcome {
            ops,
            measured,
            faults,
            verify: start.elapsed(),
            verified_pages: self.pages.len() as u64,
            wrong_bytes: self.wrong_bytes,
        }
    }

    fn access_until(
        &mut self,
        plan: &Plan,
        sampler: &mut Sampler,
        rng: &mut Rng,
        step: &mut Step<'_>,
        length: Duration,
        ops_max: u64,
    ) -> (u64, Duration, Histogram) {
        let mut faults = Histogram::new();
        let mut faults_seen = thread_faults();
        let mut ops = 0;
        let start = Instant::now();
        loop {
            let index = sampler.next(rng) as usize;
            let random = rng.next();
            let write = random % 100 < plan.writes_percent;
            let (elapsed, now) = self.access(index, random, write);
            ops += 1;
            let ns = elapsed.as_nanos() as u64;
            if ns >= SLOW_NS {
                let count = thread_faults();
                if count != faults_seen {
                    faults_seen = count;
                    faults.record(ns);
                }
            }
            let total = now - start;
            if total >= length || ops >= ops_max {
                return (ops, total, faults);
            }
            step.keep(ops, start, length);
        }
    }

    /// One access; returns the time of its first touch and when that ended.
    fn access(&mut self, index: usize, random: u64, write: bool) -> (Duration, Instant) {
        let number = self.first + index as u64;
        let slot = (random >> 32) as usize % VERSION_WORDS;
        let other = (random >> 40) as usize % WORDS;
        let version = self.versions[index];
        let expected = self.data.version_word(number, version, slot);
        let next = version.wrapping_add(1);
        let replacement = self.data.version_word(number, next, slot);

        // The optimizer must not move the touch out of the timed interval: it learns the address only
        // after the first reading of the clock, and the value is used before the second.
        let start = Instant::now();
        let page = black_box(&mut self.pages[index]);
        let touched = &mut page.words[version_index(slot)];
        let found = if write {
            std::mem::replace(touched, replacement)
        } else {
            *touched
        };
        black_box(&mut *page);
        let found = black_box(found);
        let end = Instant::now();

        let mut wrong = differing_bytes(found, expected);
        if write {
            for slot in (0..VERSION_WORDS).filter(|&s| s != slot) {
                let old = self.data.version_word(number, version, slot);
                let word = &mut page.words[version_index(slot)];
                wrong += differing_bytes(*word, old);
                *word = self.data.version_word(number, next, slot);
            }
            self.versions[index] = next;
        }
        let now = self.versions[index];
        wrong += differing_bytes(page.words[other], self.data.word(number, now, other));
        self.wrong_bytes += wrong;
        (end - start, end)
    }

    fn verify_all(&mut self) {
        for (index, page) in self.pages.iter().enumerate() {
            let expected = self
                .data
                .page(self.first + index as u64, self.versions[index]);
            for (&found, &expected) in page.words.iter().zip(&expected.words) {
                self.wrong_bytes += differing_bytes(found, expected);
            }
        }
    }
}

fn differing_bytes(found: u64, expected: u64) -> u64 {
    if found == expected {
        return 0;
    }
    (found ^ expected)
        .to_le_bytes()
        .iter()
        .filter(|&&byte| byte != 0)
        .count() as u64
}

/// Page faults of the calling thread so far, minor and major.
fn thread_faults() -> u64 {
    match getrusage(UsageWho::RUSAGE_THREAD) {
        Ok(usage) => (usage.minor_page_faults() + usage.major_page_faults()) as u64,
        Err(error) => panic!("getrusage(RUSAGE_THREAD) cannot fail with valid arguments: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::data::Ratio;

    #[test]
    fn a_flipped_byte_is_found() {
        let data = Data {
            seed: 2,
            ratio: Ratio::Two,
        };
        let mut pages: Vec<Page> = (0..4).map(|page| data.page(page, 0)).collect();
        pages[2].words[100] ^= 0xff00_0000_0000;
        let mut worker = Worker::new(data, 0, &mut pages);
        worker.verify_all();
        assert_eq!(worker.wrong_bytes, 1);
    }

    #[test]
    fn an_access_checks_the_words_it_touches() {
        let data = Data {
            seed: 2,
            ratio: Ratio::Two,
        };
        let mut pages = vec![data.page(0, 5)];
        let mut worker = Worker::new(data, 0, &mut pages);
        worker.access(0, 0, false);
        assert!(worker.wrong_bytes > 0, "the page is at version 5, not 0");
    }
}
