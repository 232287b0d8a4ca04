//! Tests that need a process of their own: limits of the system, forks, the ends
//! of threads. The test runs this program again, for itself only.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Set in the process that does the work.
const CHILD: &str = "ZCACHE_CASE_CHILD";

/// How long such a process may take.
const SECONDS_MAX: u64 = 120;

/// Whether this is the process that does the work.
pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs the test of this name in a process of its own, after these commands of
/// the shell, and expects it to pass there.
///
/// # Panics
/// When it fails, is killed or does not end.
pub(crate) fn passes(name: &str, before: &str) {
    let output = run(name, before);
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{}:\n{said}", output.status);
    assert!(said.contains("1 passed"), "no such test: {name}\n{said}");
}

fn run(name: &str, before: &str) -> Output {
    let program = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{before} exec \"$0\" \"$@\""))
        .arg(program)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("the program starts again");
    let start = Instant::now();
    while child.try_wait().expect("a child of ours").is_none() {
        if start.elapsed() > Duration::from_secs(SECONDS_MAX) {
            child.kill().expect("it can be killed");
            let output = child.wait_with_output().expect("its output");
            panic!(
                "{name} does not end:\n{}",
                String::from_utf8_lossy(&output.stdout)
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().expect("its output")
}
