//! What the system tests share: building programs, running them plain and under zcache, and looking at processes.

pub(crate) mod agree;
pub(crate) mod compile;
pub(crate) mod job;
pub(crate) mod temp;
pub(crate) mod tree;
pub(crate) mod user;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

pub(crate) use agree::agrees;
pub(crate) use job::{Capped, Ended, Job, Outcome, half, half_with};
pub(crate) use temp::TempDir;
pub(crate) use user::User;

/// The repository's root.
pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the repository has a root")
}

/// A file below `tests/` at the repository's root.
pub(crate) fn tests_file(path: &str) -> PathBuf {
    repository().join("tests").join(path)
}

/// The command under test: the one that cargo built, unless `ZCACHE_TESTS_BINARY` names another.
pub(crate) fn zcache() -> PathBuf {
    std::env::var_os("ZCACHE_TESTS_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_zcache").into(), PathBuf::from)
}

/// Whether the programs run without zcache, to check the tests themselves.
pub(crate) fn plain_only() -> bool {
    std::env::var_os("ZCACHE_TESTS_PLAIN").is_some()
}

/// Runs a helper of the machine to its end and returns its stdout; a failure names the package that has the helper.
pub(crate) fn tool(package: &str, command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("cannot run {command:?}: {error}; it is in the Debian package {package} (tests/packages.txt)")
    });
    assert!(
        output.status.success(),
        "{command:?} failed: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asks `condition` again and again until it holds; false when it does not within `bound`.
pub(crate) fn eventually(bound: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + bound;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
