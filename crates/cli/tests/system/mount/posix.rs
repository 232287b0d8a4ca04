//! pjdfstest, the suite that filesystems are held against: modes, owners, times, names, links and errnos, 398 cases.

use super::support::Mounted;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// What Linux has and every filesystem below can do; two users that every Debian has.
const SETTINGS: &str = "
[features]
posix_fallocate = {}
rename_ctime = {}
utimensat = {}
utime_now = {}
[settings]
naptime = 0.01
allow_remount = false
[dummy_auth]
entries = [[\"daemon\", \"daemon\"], [\"bin\", \"bin\"]]
";

#[test]
fn pjdfstest_passes() {
    let mounted = Mounted::new("posix", &["--ram", "32M", "-o", "suid,dev"]);
    std::fs::set_permissions(mounted.target(), PermissionsExt::from_mode(0o777)).expect("for all");
    let settings = mounted.directory().join("pjdfstest.toml");
    std::fs::write(&settings, SETTINGS).expect("written");
    let mut command = Command::new("timeout");
    command.args(["300", "pjdfstest", "-c"]).arg(&settings);
    let output = command
        .arg("-p")
        .arg(mounted.target())
        .output()
        .expect("timeout runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let summary = said
        .lines()
        .rev()
        .find(|line| line.starts_with("Summary: "));
    let summary = summary.unwrap_or_else(|| {
        panic!("pjdfstest did not run (cargo install --locked pjdfstest): {output:?}")
    });
    assert!(summary.contains(" 0 failed"), "{said}");
    let word = summary
        .split(' ')
        .position(|word| word.starts_with("passed"));
    let passed = word.and_then(|at| summary.split(' ').nth(at - 1)?.parse::<u32>().ok());
    assert!(passed >= Some(350), "most of it applies here: {summary}");
}
