//! Real programs at half of their uncapped peak: same output, same files, same status, within the budget.

use crate::support::{Capped, Job, TempDir, compile, half, job::number, tests_file, tool};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The distribution's own interpreter, not one that a version manager puts before it in PATH.
const PYTHON: &str = "/usr/bin/python3";

fn python(script: &str) {
    half(
        &Job::new(PYTHON)
            .arg(tests_file(script))
            .env("PYTHONHASHSEED", "0"),
        || (),
    );
}

#[test]
fn cpython_with_a_pool_of_processes() {
    python("programs/multiprocessing_pool.py");
}

#[test]
fn cpython_with_subprocesses_and_exec_chains() {
    python("programs/subprocess_chain.py");
}

#[test]
fn cpython_with_threads() {
    python("programs/threads.py");
}

#[test]
fn cpython_whose_pages_get_cold() {
    let files = TempDir::new("cold");
    let path = files.file("stats.json");
    let job = Job::new(PYTHON).arg(tests_file("programs/syntax_trees.py"));
    let plain = job.plain();
    plain.assert_success();
    let capped = Capped::ram_mib(64).option("--stats", &path);
    let outcome = job.under(&capped.option("--cold-cpu", "50"));
    outcome.assert_success();
    assert_eq!(outcome.out(), plain.out());
    let text = std::fs::read_to_string(&path).expect("the statistics");
    let of = |name| number(&text, name).unwrap_or(0.0);
    assert!(of("cold_pages") > 100.0, "{text}");
    assert!(of("cold_bytes_saved") > 50_000.0, "{text}");
    assert!(of("ram_bytes_peak") <= f64::from(64 << 20) * 1.02, "{text}");
}

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
fn redis_under_its_benchmark() {
    let files = TempDir::new("redis");
    let directory = files.file("data");
    std::fs::create_dir(&directory).expect("a directory for redis");
    let job = Job::new("sh")
        .arg(tests_file("programs/redis.sh"))
        .arg(&directory);
    let (plain, _) = half(&job, || {
        std::fs::remove_dir_all(&directory).expect("the data can be removed");
        std::fs::create_dir(&directory).expect("a directory for redis again");
    });
    for line in [
        "100000",
        "rdb_last_bgsave_status:ok",
        "dump is whole",
        "server ended with 0",
    ] {
        assert!(plain.out().contains(line), "{line}: {}", plain.out());
    }
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
fn node_sorts_a_large_map() {
    half(&Job::new("node").arg(tests_file("programs/map.js")), || ());
}

#[test]
fn openjdk_with_a_heap_of_objects() {
    let job = Job::new("java")
        .args(["-Xmx160m", "-XX:+UseSerialGC", "-cp"])
        .arg(compile::heap_classes())
        .arg("Heap");
    half(&job, || ());
}

#[test]
fn openjdk_with_the_parallel_collector() {
    let job = Job::new("java")
        .args(["-Xmx160m", "-XX:+UseG1GC", "-cp"])
        .arg(compile::heap_classes())
        .arg("Heap");
    half(&job, || ());
}

#[test]
fn go_with_goroutines_under_the_collector() {
    half(&Job::new(compile::goroutines()), || ());
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
fn a_static_c_program() {
    half(
        &Job::new(compile::churn_static()).args(["40000", "150000"]),
        || (),
    );
}

#[test]
fn a_musl_program() {
    half(
        &Job::new(compile::churn_musl()).args(["40000", "150000"]),
        || (),
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
