//! Interpreters, compilers at run time and collectors: CPython, PyPy, Node, OpenJDK, LuaJIT, Go, and C with two libraries.

use super::PYTHON;
use crate::support::{Capped, Job, TempDir, User, agrees, compile, half, job::number, tests_file};

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

/// Traces of compiled code come and go, and the collector writes to all of the heap.
fn luajit() -> Job {
    Job::new("luajit").arg(tests_file("programs/tables.lua"))
}

#[test]
#[ignore = "long"]
fn luajit_with_a_heap_of_tables() {
    agrees(&luajit(), || ());
}

#[test]
#[ignore = "long"]
fn luajit_of_an_ordinary_user() {
    let user = User::nobody();
    let script = user.brings(&tests_file("programs/tables.lua"));
    agrees(&Job::new("luajit").arg(script).by(&user), || ());
}

#[test]
#[ignore = "long"]
fn node_of_an_ordinary_user() {
    let user = User::nobody();
    let script = user.brings(&tests_file("programs/map.js"));
    agrees(&Job::new("node").arg(script).by(&user), || ());
}

#[test]
#[ignore = "long"]
fn openjdk_of_an_ordinary_user() {
    let user = User::nobody();
    let job = Job::new("java")
        .args(["-Xmx160m", "-XX:+UseG1GC", "-cp"])
        .arg(user.brings(&compile::heap_classes()))
        .arg("Heap");
    agrees(&job.by(&user), || ());
}

#[test]
fn cpython_of_an_ordinary_user() {
    let user = User::nobody();
    let script = user.brings(&tests_file("programs/multiprocessing_pool.py"));
    let job = Job::new(PYTHON).arg(script).env("PYTHONHASHSEED", "0");
    agrees(&job.by(&user), || ());
}

#[test]
#[ignore = "long: needs the package pypy3"]
fn pypy_with_a_heap_of_objects() {
    let job = Job::new("pypy3").arg(tests_file("programs/syntax_trees.py"));
    agrees(&job.env("PYTHONHASHSEED", "0"), || ());
}
