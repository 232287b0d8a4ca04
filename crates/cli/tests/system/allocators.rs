//! Every packing under a real program at half of its uncapped peak, with a swap file that is used: same output.

use crate::support::job::number;
use crate::support::{Job, compile, half_with, plain_only, tests_file};

/// sqlite keeps a database in memory: rows, an index, updates, deletes, and digests that depend on every row.
fn sqlite_packed_by(allocator: &str) {
    let job = Job::new("sqlite3")
        .arg(":memory:")
        .stdin(&tests_file("programs/memory.sql"));
    let (_, _, statistics) = half_with(&job, &[("--allocator", allocator)], || ());
    if !plain_only() {
        // Blocks of every fill went to the file, and pages came back from the middle of them.
        for name in ["writeback_pages", "swapin_pages"] {
            let count = number(&statistics, name).unwrap_or(0.0);
            assert!(count > 1000.0, "{name} is {count}: {statistics}");
        }
    }
}

#[test]
fn sqlite_in_two_a_frame() {
    sqlite_packed_by("zbud");
}

#[test]
fn sqlite_in_three_a_frame() {
    sqlite_packed_by("ztri");
}

#[test]
fn sqlite_in_size_classes() {
    sqlite_packed_by("zsmalloc");
}

/// A small file makes blocks of every length look for room in it, and sparse ones come back to be packed anew.
#[test]
fn size_classes_in_a_small_swap_file() {
    let job =
        Job::new(compile::hold()).args(["--bytes", "96M", "--kind", "mixed", "--passes", "3"]);
    let options = [("--allocator", "zsmalloc"), ("--swap-max", "48M")];
    let (_, _, statistics) = half_with(&job, &options, || ());
    if !plain_only() {
        let bytes = number(&statistics, "swap_bytes").unwrap_or(f64::MAX);
        assert!(bytes <= f64::from(48 << 20), "{statistics}");
    }
}
