//! The measured program: fills memory, works on it, verifies every byte.
//!
//! It knows nothing of zcache: an ordinary program in safe Rust, the same for every contender. Each
//! thread owns an equal part of the pages, so that a page has one writer and its version is known
//! exactly. They do one job together: none gets far ahead of the slowest (`pace`). Stages: fill, warm up, measure, verify.
//!
//! What counts as a fault: an access whose first touch took [`SLOW_NS`] or more **and** across which
//! the thread's own count of page faults (`getrusage`, minor + major) grew. A touch of resident
//! memory takes well under a microsecond and a page fault of any kind more than one here, so no fault
//! is too fast to be seen, and a slow access without a fault (an interrupt, a preempted thread) is
//! not taken for one. The counter is read outside the timed interval and only after slow accesses.
//! Both a kernel swap-in and a fault answered through userfaultfd move that counter, so the rule is
//! the same for every contender.
//!
//! Invariants: `faults <= ops`; `verified_pages == pages`; `wrong_bytes == 0` or the exit code is 1.
//! It does not limit its own memory: that is the contender's part.

mod data;
mod histogram;
mod pace;
mod pattern;
mod worker;

pub(crate) use data::{Data, PAGE_SIZE, Ratio, mix};
pub(crate) use histogram::Histogram;
pub(crate) use pattern::{Pattern, Rng};

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::size::Size;
use data::Page;
use pace::Pace;
use worker::{Outcome, Plan, Worker};

/// Accesses faster than this are not faults (nanoseconds).
pub(crate) const SLOW_NS: u64 = 1000;

/// Options of `zcache-bench workload`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Bytes of data, e.g. 512M
    #[arg(long, default_value = "512M")]
    pub(crate) bytes: Size,
    /// How well the data compresses under lz4: 2 or 3 to one
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=3))]
    pub(crate) ratio: u32,
    /// Order of accesses
    #[arg(long, value_enum, default_value = "uniform")]
    pub(crate) pattern: Pattern,
    /// Threads, each with its own part of the data
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) threads: u32,
    /// Share of accesses that write, in percent
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) writes: u32,
    /// Length of the measured phase in seconds
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Number of accesses of the measured phase, instead of --seconds
    #[arg(long)]
    pub(crate) ops: Option<u64>,
    /// Length of the unmeasured phase before it in seconds
    #[arg(long, default_value_t = 0.5)]
    pub(crate) warmup: f64,
    /// Seed of the data and of the accesses
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// What one run prints, as one line of JSON. Times end in their unit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Bytes of data.
    pub(crate) bytes: u64,
    /// Accesses of the measured phase.
    pub(crate) ops: u64,
    /// Length of the measured phase.
    pub(crate) seconds: f64,
    /// `ops / seconds`.
    pub(crate) ops_per_second: f64,
    /// Accesses that faulted.
    pub(crate) faults: u64,
    /// Mean time of a faulting access.
    pub(crate) fault_ns_mean: u64,
    /// Half of the faulting accesses took no longer.
    pub(crate) fault_ns_p50: u64,
    /// 90% of the faulting accesses took no longer.
    pub(crate) fault_ns_p90: u64,
    /// 99% of the faulting accesses took no longer.
    pub(crate) fault_ns_p99: u64,
    /// 99.9% of the faulting accesses took no longer.
    pub(crate) fault_ns_p999: u64,
    /// The longest faulting access.
    pub(crate) fault_ns_max: u64,
    /// Length of the fill phase.
    pub(crate) fill_seconds: f64,
    /// Length of the last full pass over the data.
    pub(crate) verify_seconds: f64,
    /// Pages compared in full after the measured phase.
    pub(crate) verified_pages: u64,
    /// Bytes that differed from what was written, in all phases.
    pub(crate) wrong_bytes: u64,
}

/// Runs the workload, prints its report on stdout; exit code 1 for wrong bytes.
pub(crate) fn run(options: &Options) -> ExitCode {
    let report = measure(options);
    println!(
        "{}",
        serde_json::to_string(&report).expect("a report of plain numbers")
    );
    if report.wrong_bytes == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}

fn measure(options: &Options) -> Report {
    let ratio = Ratio::from_number(options.ratio).expect("the option's range allows 2 and 3");
    let data = Data {
        seed: options.seed,
        ratio,
    };
    let threads = options.threads as usize;
    let pages_count = (options.bytes.0 as usize / PAGE_SIZE).max(threads);

    let start = Instant::now();
    let mut pages: Vec<Page> = Vec::with_capacity(pages_count);
    for page in 0..pages_count as u64 {
        pages.push(data.page(page, 0));
    }
    let fill = start.elapsed();

    let outcomes = work(options, data, &mut pages);
    summarize(pages_count, fill, &outcomes)
}

fn work(options: &Options, data: Data, pages: &mut [Page]) -> Vec<Outcome> {
    let threads = options.threads as usize;
    let plan = Plan {
        pattern: options.pattern,
        writes_percent: u64::from(options.writes),
        warmup: Duration::from_secs_f64(options.warmup),
        length: Duration::from_secs_f64(options.seconds),
        ops_max: options.ops.map(|ops| ops.div_ceil(threads as u64)),
        seed: options.seed,
    };
    let pace = Pace::new(threads, pages.len());
    let mut parts = Vec::with_capacity(threads);
    let (mut rest, mut first) = (pages, 0u64);
    for thread in 0..threads {
        let length = rest.len() / (threads - thread);
        let (part, tail) = rest.split_at_mut(length);
        parts.push(Worker::new(data, first, part));
        first += length as u64;
        rest = tail;
    }
    std::thread::scope(|scope| {
        let handles: Vec<_> = parts
            .into_iter()
            .enumerate()
            .map(|(thread, worker)| {
                let (plan, pace) = (&plan, &pace);
                scope.spawn(move || worker.run(plan, pace, thread))
            })
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().expect("a worker does not panic"))
            .collect()
    })
}

fn summarize(pages: usize, fill: Duration, outcomes: &[Outcome]) -> Report {
    let mut faults = histogram::Histogram::new();
    outcomes
        .iter()
        .for_each(|outcome| faults.merge(&outcome.faults));
    let longest = |length: fn(&Outcome) -> Duration| {
        outcomes
            .iter()
            .map(length)
            .max()
            .unwrap_or_default()
            .as_secs_f64()
    };
    let ops: u64 = outcomes.iter().map(|outcome| outcome.ops).sum();
    let seconds = longest(|outcome| outcome.measured);
    Report {
        bytes: (pages * PAGE_SIZE) as u64,
        ops,
        seconds,
        ops_per_second: ops as f64 / seconds.max(1e-9),
        faults: faults.count(),
        fault_ns_mean: faults.mean_ns(),
        fault_ns_p50: faults.quantile_ns(500),
        fault_ns_p90: faults.quantile_ns(900),
        fault_ns_p99: faults.quantile_ns(990),
        fault_ns_p999: faults.quantile_ns(999),
        fault_ns_max: faults.max_ns(),
        fill_seconds: fill.as_secs_f64(),
        verify_seconds: longest(|outcome| outcome.verify),
        verified_pages: outcomes.iter().map(|outcome| outcome.verified_pages).sum(),
        wrong_bytes: outcomes.iter().map(|outcome| outcome.wrong_bytes).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_is_verified() {
        for pattern in [Pattern::Seq, Pattern::Uniform, Pattern::Zipf] {
            let report = measure(&Options {
                bytes: Size(4 << 20),
                ratio: 3,
                pattern,
                threads: 3,
                writes: 30,
                seconds: 10.0,
                ops: Some(30_000),
                warmup: 0.0,
                seed: 9,
            });
            assert_eq!(report.wrong_bytes, 0);
            assert_eq!(report.verified_pages, 1024);
            assert_eq!(report.ops, 30_000);
            assert!(report.faults <= report.ops);
        }
    }
}
