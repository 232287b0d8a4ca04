//! The torturer under zcache: whatever Linux allows a program to do with its memory, and not one wrong byte.

use crate::support::{Capped, Ended, Job, Outcome, TempDir, compile, job::number, plain_only};
use std::path::PathBuf;
use std::time::Duration;

/// Seconds of the long run; `ZCACHE_TORTURE_SECONDS` makes it any other length.
fn seconds() -> u64 {
    match std::env::var("ZCACHE_TORTURE_SECONDS") {
        Ok(text) => text.parse().expect("ZCACHE_TORTURE_SECONDS is a number"),
        Err(_) => 60,
    }
}

/// A seed that differs from run to run, unless `ZCACHE_TORTURE_SEED` names one to run again.
fn seed() -> String {
    std::env::var("ZCACHE_TORTURE_SEED").unwrap_or_else(|_| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_secs()).to_string()
    })
}

fn torture(program: PathBuf, seconds: u64, bytes: &str, more: &[&str]) -> Job {
    let seed = seed();
    eprintln!("torture: seed {seed} (ZCACHE_TORTURE_SEED={seed} runs it again)");
    Job::new(program)
        .args([
            "--seconds",
            &seconds.to_string(),
            "--bytes",
            bytes,
            "--seed",
            &seed,
        ])
        .args(more.iter().copied())
        .bound(Duration::from_secs(seconds * 4 + 240))
}

fn assert_no_wrong_byte(outcome: &Outcome) {
    outcome.assert_success();
    assert!(outcome.out().contains("0 wrong bytes"), "{}", outcome.out());
    eprintln!("{}", outcome.out());
}

#[test]
fn every_operation_at_once() {
    let job = torture(compile::torture(), seconds(), "96M", &["--threads", "4"]);
    assert_no_wrong_byte(&job.under(&Capped::ram_mib(64)));
}

#[test]
fn every_operation_at_once_in_a_static_binary() {
    let job = torture(compile::torture_static(), 15, "64M", &["--threads", "2"]);
    assert_no_wrong_byte(&job.under(&Capped::ram_mib(40)));
}

/// Blocks of 1 to 8 frames, and frames in which a zpage moves.
#[test]
fn every_operation_in_the_other_packings() {
    for allocator in ["ztri", "zsmalloc"] {
        let job = torture(compile::torture(), 8, "64M", &["--threads", "2"]);
        let capped = Capped::ram_mib(40).option("--allocator", allocator);
        assert_no_wrong_byte(&job.under(&capped));
    }
}

#[test]
fn more_threads_than_processors() {
    let more = [
        "--threads",
        "12",
        "--ops",
        "remap,map_fixed,move,dontneed,free,protect,signal,pipe,file_io,stack",
    ];
    let job = torture(compile::torture(), 10, "72M", &more);
    assert_no_wrong_byte(&job.under(&Capped::ram_mib(40)));
}

#[test]
fn forks_only() {
    let more = [
        "--threads",
        "2",
        "--ops",
        "fork,fork_exec,spawn,vfork,wipe_on_fork,dont_fork",
    ];
    let job = torture(compile::torture(), 10, "48M", &more);
    assert_no_wrong_byte(&job.under(&Capped::ram_mib(40)));
}

/// A torturer that cannot fail proves nothing: it must notice one byte that it spoils itself.
#[test]
fn a_spoiled_byte_is_noticed() {
    let job = torture(
        compile::torture(),
        4,
        "48M",
        &["--threads", "2", "--canary"],
    );
    let outcome = job.under(&Capped::ram_mib(32));
    outcome.assert_ended(Ended::Exit(1)).assert_says(&[
        "wrong byte",
        "offset 1234",
        "1 bytes differ",
    ]);
    if !plain_only() {
        job.plain().assert_ended(Ended::Exit(1));
    }
}

/// zstd, whose dictionaries change while pages made with older ones are in RAM and on disk.
#[test]
fn every_operation_while_dictionaries_are_learned() {
    let files = TempDir::new("dictionaries");
    let path = files.file("stats.json");
    let capped = Capped::ram_mib(56).option("--codec", "zstd");
    let job = torture(compile::torture(), 15, "96M", &["--threads", "3"]);
    assert_no_wrong_byte(&job.under(&capped.option("--stats", &path)));
    let text = std::fs::read_to_string(&path).expect("the statistics");
    let trained = number(&text, "dictionary_trainings");
    assert!(trained.is_some_and(|n| n > 0.0), "{text}");
}
