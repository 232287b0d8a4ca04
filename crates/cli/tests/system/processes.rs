//! Process trees of every shape stay in one budget: daemons, closed descriptors, exec chains, options of the engine.

use crate::support::{Capped, Ended, Job, TempDir, compile, eventually};
use std::time::Duration;

#[test]
fn a_daemon_that_forks_twice_goes_on_rightly() {
    let files = TempDir::new("daemon");
    let result = files.file("result");
    let outcome = Job::new(compile::hold())
        .args(["--bytes", "64M", "--passes", "6", "--daemon"])
        .arg(&result)
        .linger(Duration::from_secs(120))
        .under(&Capped::ram_mib(32));
    outcome.assert_success();
    assert!(
        eventually(Duration::from_secs(5), || std::fs::read_to_string(&result)
            .is_ok_and(|text| text == "held\n")),
        "the daemon did not come to its end: {}",
        outcome.report
    );
}

#[test]
fn a_program_that_closes_every_descriptor() {
    let job = Job::new(compile::hold()).args([
        "--bytes",
        "64M",
        "--passes",
        "3",
        "--close-fds",
        "--exit",
        "42",
    ]);
    job.under(&Capped::ram_mib(32))
        .assert_ended(Ended::Exit(42));
}

#[test]
fn chains_of_exec_are_paged_to_the_last() {
    let hold = compile::hold();
    let text = format!(
        "exec env NAME=value nice -n 1 sh -c 'exec setsid -w {} --bytes 64M --passes 2'",
        hold.display()
    );
    let outcome = Job::shell(&text).under(&Capped::ram_mib(32));
    outcome.assert_success();
    assert_eq!(outcome.out(), "ready\nheld\n");
}

#[test]
fn an_image_that_grew_before_exec_is_forgotten() {
    let hold = compile::hold();
    let script = format!(
        "import os, sys\ndata = [bytes([i % 251]) * 4096 for i in range(10000)]\nassert len(data) == 10000\nos.execv('{0}', ['{0}', '--bytes', '48M'])",
        hold.display()
    );
    Job::new("/usr/bin/python3")
        .args(["-c", &script])
        .under(&Capped::ram_mib(32))
        .assert_success();
}

#[test]
fn several_processes_share_one_budget() {
    let hold = compile::hold();
    let one = format!("{} --bytes 32M --passes 3", hold.display());
    let text = format!("{one} & a=$!; {one} & b=$!; {one}; c=$?; wait $a && wait $b && exit $c");
    let outcome = Job::shell(&text).under(&Capped::ram_mib(48));
    outcome.assert_success();
    assert_eq!(outcome.out().matches("held").count(), 3);
}

#[test]
fn many_short_processes() {
    let text = "i=0; while [ $i -lt 150 ]; do /bin/true || exit 1; i=$((i + 1)); done; echo done";
    let outcome = Job::shell(text).under(&Capped::ram_mib(48));
    outcome.assert_success();
    assert_eq!(outcome.out(), "done\n");
}

#[test]
fn every_codec_and_allocator() {
    for codec in ["lz4", "zstd"] {
        for allocator in ["block", "zbud", "ztri", "zsmalloc"] {
            let capped = Capped::ram_mib(32)
                .option("--codec", codec)
                .option("--allocator", allocator);
            let outcome = Job::new(compile::hold())
                .args(["--bytes", "64M"])
                .under(&capped);
            outcome.assert_success();
            assert_eq!(outcome.out(), "ready\nheld\n", "{codec} {allocator}");
        }
    }
}

#[test]
fn every_kind_of_content() {
    for kind in ["random", "text", "same", "mixed"] {
        let outcome = Job::new(compile::hold())
            .args(["--bytes", "64M", "--kind", kind])
            .under(&Capped::ram_mib(32));
        outcome.assert_success();
        assert_eq!(outcome.out(), "ready\nheld\n", "{kind}");
    }
}

/// While a call waits for the pager a signal may come; without zcache none of these calls can be interrupted.
#[test]
fn signals_interrupt_no_call_that_changes_the_map() {
    Job::new(compile::interrupted())
        .arg("4")
        .under(&Capped::ram_mib(32))
        .assert_success();
}
