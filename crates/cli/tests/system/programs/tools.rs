//! Compilers, builds in parallel, databases in a process, sort, a terminal multiplexer, and a machine in software.

use super::PYTHON;
use crate::support::{Job, TempDir, User, agrees, compile, half, tests_file, tool};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Writes what a generator says to a file.
fn generate(out: &Path, command: &mut Command) {
    std::fs::write(out, tool("python3", command)).expect("the generated file");
}

#[test]
fn gcc_compiles_a_large_cxx_file() {
    let files = TempDir::new("cxx");
    let source = files.file("big.cpp");
    generate(
        &source,
        Command::new(PYTHON).arg(tests_file("programs/make_cxx.py")),
    );
    let object = files.file("big.o");
    let job = Job::new("g++")
        .args(["-O1", "-g", "-c", "big.cpp", "-o", "big.o"])
        .directory(files.path());
    let mut plain = Vec::new();
    half(&job, || {
        plain = std::fs::read(&object).expect("the object of the plain run");
        std::fs::remove_file(&object).expect("the object can be removed");
    });
    assert!(
        std::fs::read(&object).expect("the object under zcache") == plain,
        "the object differs"
    );
}

#[test]
fn cargo_builds_a_crate_with_dependencies() {
    let files = TempDir::new("cargo");
    // A copy, so that the build finds nothing of this repository's own configuration above it.
    tool(
        "coreutils",
        Command::new("cp")
            .arg("-r")
            .arg(tests_file("programs/crate"))
            .arg(files.path()),
    );
    let target = files.file("target");
    let program = target.join("release/app");
    let job = Job::new("cargo")
        .args(["build", "--release", "--offline", "--quiet"])
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_INCREMENTAL", "0")
        .directory(&files.file("crate"));
    let mut plain = Vec::new();
    half(&job, || {
        plain = std::fs::read(&program).expect("the program of the plain build");
        std::fs::remove_dir_all(&target).expect("the target can be removed");
    });
    assert!(
        std::fs::read(&program).expect("the program built under zcache") == plain,
        "the binary differs"
    );
    assert_eq!(tool("cargo", &mut Command::new(&program)).trim().len(), 16);
}

#[test]
fn sqlite_in_memory() {
    half(
        &Job::new("sqlite3")
            .arg(":memory:")
            .stdin(&tests_file("programs/memory.sql")),
        || (),
    );
}

#[test]
fn gnu_sort_with_a_large_buffer() {
    let files = TempDir::new("sort");
    let lines = files.file("lines");
    let program = "BEGIN { x = 1; for (i = 0; i < 1500000; i++) { x = (x * 1103515245 + 12345) % 2147483648; print x, \"line\", i } }";
    std::fs::write(&lines, tool("mawk", Command::new("awk").arg(program))).expect("lines to sort");
    let sorted = files.file("sorted");
    let job = Job::new("sort")
        .args(["-S", "100M", "--parallel=2", "-o"])
        .arg(&sorted)
        .arg(&lines)
        .env("LC_ALL", "C")
        .env("TMPDIR", files.path());
    let mut plain = Vec::new();
    half(&job, || {
        plain = std::fs::read(&sorted).expect("the sorted file")
    });
    assert!(
        std::fs::read(&sorted).expect("the file sorted under zcache") == plain,
        "the sorted file differs"
    );
}

#[test]
fn a_program_that_only_holds_and_checks() {
    half(
        &Job::new(compile::hold())
            .args(["--bytes", "128M", "--passes", "3"])
            .bound(Duration::from_secs(240)),
        || (),
    );
}

/// A build of generated C files by four jobs, beginning from nothing in a directory.
fn make_in(directory: &Path) -> Job {
    Job::new("make")
        .args(["-s", "-j4", "-C"])
        .arg(directory)
        .arg("check")
}

fn clean(directory: &Path) {
    tool(
        "make",
        Command::new("make")
            .args(["-s", "-C"])
            .arg(directory)
            .arg("clean"),
    );
}

#[test]
fn make_with_four_jobs() {
    let files = TempDir::new("make");
    let makefile = files.file("Makefile");
    std::fs::copy(tests_file("programs/many_files.mk"), makefile).expect("a copy of the makefile");
    agrees(&make_in(files.path()), || clean(files.path()));
}

#[test]
#[ignore = "long"]
fn make_with_four_jobs_of_an_ordinary_user() {
    let user = User::nobody();
    let makefile = user.brings(&tests_file("programs/many_files.mk"));
    std::fs::rename(makefile, user.file("Makefile")).expect("another name");
    agrees(&make_in(user.home()).by(&user), || clean(user.home()));
}

#[test]
#[ignore = "long"]
fn tmux_with_a_program_in_a_session() {
    let files = TempDir::new("tmux");
    let job = Job::new("sh")
        .arg(tests_file("programs/tmux.sh"))
        .arg(files.path())
        .arg(compile::churn_static());
    agrees(&job, || ());
}

#[test]
#[ignore = "long"]
fn tmux_of_an_ordinary_user() {
    let user = User::nobody();
    let job = Job::new("sh")
        .arg(user.brings(&tests_file("programs/tmux.sh")))
        .arg(user.home())
        .arg(user.brings(&compile::churn_static()));
    agrees(&job.by(&user), || ());
}

/// Code that is made while it runs, over a heap whose bytes are shadowed bit by bit. Its report holds the number of the process.
fn valgrind(churn: &Path) -> Job {
    const REPORT: &str = "{ \"$@\"; echo \"ended with $?\"; } | sed 's/^==[0-9]*==//'";
    Job::shell(REPORT)
        .args(["sh", "valgrind", "-q", "--error-exitcode=9", "--log-fd=1"])
        .arg("--leak-check=full")
        .arg(churn)
        .args(["5000", "15000"])
}

#[test]
#[ignore = "long"]
fn valgrind_over_a_program_that_allocates() {
    agrees(&valgrind(&compile::churn()), || ());
}

#[test]
#[ignore = "long"]
fn valgrind_of_an_ordinary_user() {
    let user = User::nobody();
    let churn = user.brings(&compile::churn());
    agrees(&valgrind(&churn).by(&user), || ());
}

#[test]
fn a_program_that_holds_and_checks_of_an_ordinary_user() {
    let user = User::nobody();
    let job = Job::new(user.brings(&compile::hold())).args(["--bytes", "64M", "--passes", "2"]);
    agrees(&job.by(&user), || ());
}
