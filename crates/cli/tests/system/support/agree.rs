//! A program alone and the same program under zcache, which must not be told apart.
//!
//! The budget is 60% of what the program took alone, so pages are evicted all the time. Compared are the exit status, stdout and,
//! of stderr, what zcache said there: nothing, since none of these programs does anything that is worth a message.
//! A program whose other output matters writes it to stdout.

use super::job::{number, tail};
use super::{Capped, Job, Outcome, TempDir, plain_only, tool};
use std::process::Command;
use std::time::Duration;

/// The budget's share of what the program takes alone, in percent.
const SHARE: u64 = 60;

/// The least budget, in bytes.
const RAM_BYTES_MIN: u64 = 24 << 20;

/// What a program must take alone, so that the least budget still makes it page.
const PEAK_BYTES_MIN: u64 = 36 << 20;

/// After so long a run counts as hung. None of these programs takes a tenth of it alone.
const BOUND: Duration = Duration::from_secs(150);

/// Lines that zcache writes to standard error at the end when it is asked for statistics.
const SUMMARY: [&str; 6] = [
    "zcache: done:",
    "zcache: running:",
    "zcache: pages:",
    "zcache: store:",
    "zcache: swap:",
    "zcache: faults:",
];

/// Runs a job alone and then at 60% of the memory that it took, and checks that it says and does the same, that the budget held,
/// and that faults were served. Returns both outcomes; `between` prepares the second run.
#[track_caller]
pub(crate) fn agrees(job: &Job, between: impl FnOnce()) -> (Outcome, Outcome) {
    let job = job.clone().bound(BOUND);
    let plain = job.plain();
    assert!(
        plain.peak_bytes > PEAK_BYTES_MIN,
        "the program is too small to tell anything: peak {} bytes\n{}\n--- stdout\n{}\n--- stderr\n{}",
        plain.peak_bytes,
        plain.report,
        tail(&plain.out()),
        tail(&plain.err())
    );
    between();
    let files = TempDir::new("agree");
    // The job may be another user's.
    tool(
        "coreutils",
        Command::new("chmod").arg("777").arg(files.path()),
    );
    let stats = files.file("stats.json");
    let ram_bytes = (plain.peak_bytes / 100 * SHARE).max(RAM_BYTES_MIN);
    let budget = Capped::ram(ram_bytes).option("--stats", &stats);
    let capped = job.start_under(&budget).wait();
    capped.assert_ended(plain.ended);
    assert_eq!(
        plain.out(),
        capped.out(),
        "stdout differs: {}\n--- stderr\n{}",
        capped.report,
        tail(&capped.err())
    );
    if !plain_only() {
        capped.assert_within(ram_bytes);
        let text = std::fs::read_to_string(&stats).expect("zcache wrote its statistics");
        assert!(
            number(&text, "faults").is_some_and(|faults| faults > 0.0),
            "no fault was served: {text}"
        );
        assert_eq!(
            complaints(&capped),
            "",
            "zcache complains: {}",
            capped.report
        );
    }
    eprintln!(
        "alone {} KiB, budget {} KiB, peak {} KiB",
        plain.peak_bytes >> 10,
        ram_bytes >> 10,
        capped.peak_bytes >> 10
    );
    (plain, capped)
}

/// What zcache wrote to standard error but for its summary.
fn complaints(outcome: &Outcome) -> String {
    let err = outcome.err();
    let lines = err.lines().filter(|line| {
        line.starts_with("zcache: ") && !SUMMARY.iter().any(|start| line.starts_with(start))
    });
    lines.collect::<Vec<_>>().join("\n")
}
