//! Running a case alone and under zcache, and comparing; control groups and settings of the machine for as long as a test runs.

use crate::support::{Capped, Ended, Job, Outcome, compile, plain_only};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A case takes some seconds; this is a hang.
const BOUND: Duration = Duration::from_secs(60);
/// What zcache itself needs to come to its end when the program has.
const LINGER: Duration = Duration::from_secs(5);

/// A program of `tests/cases/` with its arguments.
pub(super) fn case(path: &str, arguments: &[&str]) -> Job {
    Job::new(compile::case(path)).args(arguments).bound(BOUND)
}

/// The same, linked statically.
pub(super) fn case_static(path: &str, arguments: &[&str]) -> Job {
    Job::new(compile::case_static(path))
        .args(arguments)
        .bound(BOUND)
}

/// A text for `bash -c`, with `$1` and so on.
pub(super) fn bash(text: &str, arguments: &[&Path]) -> Job {
    Job::new("/bin/bash")
        .args(["-c", text, "bash"])
        .args(arguments.iter().copied())
        .bound(BOUND)
}

/// The usual budget: 64 MiB, and nothing beside RAM.
pub(super) fn usual() -> Capped {
    Capped::ram_mib(64).option("--swap", "none")
}

/// Runs a case of this name and these arguments, alone and under the usual budget.
#[track_caller]
pub(super) fn agree(path: &str, arguments: &[&str]) -> Outcome {
    agree_job(&case(path, arguments))
}

/// The same for any job that ends with status 0.
#[track_caller]
pub(super) fn agree_job(job: &Job) -> Outcome {
    agree_under(job, &usual(), Ended::Exit(0))
}

/// Runs a job alone, where it must end so, and under zcache, where it must do and end the same. Returns the second outcome.
#[track_caller]
pub(super) fn agree_under(job: &Job, capped: &Capped, ended: Ended) -> Outcome {
    let job = job.clone().linger(LINGER);
    let plain = job.plain();
    plain.assert_ended(ended);
    let under = job.under(capped);
    compare(&plain, &under);
    under
}

/// The two runs ended alike, said the same, and left nothing behind.
#[track_caller]
pub(super) fn compare(plain: &Outcome, under: &Outcome) {
    let (alone, capped) = (plain.out(), under.out());
    assert!(
        plain.ended == under.ended && alone == capped,
        "alone it ended with {:?}, under zcache with {:?}\n{}--- stderr under zcache\n{}\n{}",
        plain.ended,
        under.ended,
        difference(&alone, &capped),
        under.err(),
        under.report
    );
    let seconds = |outcome: &Outcome| {
        outcome
            .report
            .lines()
            .find_map(|line| line.strip_prefix("seconds="))
            .unwrap_or_default()
            .to_string()
    };
    eprintln!(
        "{} s alone, {} s under zcache",
        seconds(plain),
        seconds(under)
    );
    assert!(
        plain_only() || under.left_running <= plain.left_running,
        "{} processes were left behind, {} alone\n--- stderr\n{}\n{}",
        under.left_running,
        plain.left_running,
        under.err(),
        under.report
    );
}

/// The lines from the first that differs.
fn difference(alone: &str, capped: &str) -> String {
    let same = alone
        .lines()
        .zip(capped.lines())
        .take_while(|(one, other)| one == other)
        .count();
    let rest = |text: &str| {
        text.lines()
            .skip(same)
            .take(30)
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    format!(
        "--- {same} equal lines, then alone\n{}--- under zcache\n{}",
        rest(alone),
        rest(capped)
    )
}

/// A control group, removed at its end.
pub(super) struct Group(PathBuf);

impl Group {
    /// A group of this controller, of the first version where it is mounted so, of the second otherwise.
    pub(super) fn of(controller: &str) -> Group {
        let mounts = std::fs::read_to_string("/proc/mounts").expect("/proc is mounted");
        let first = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (path, kind, options) = (words.next()?, words.next()?, words.next()?);
            (kind == "cgroup" && options.split(',').any(|option| option == controller))
                .then(|| PathBuf::from(path))
        });
        let Some(parent) = first else {
            let parent = second_version();
            // The freezer belongs to every group of the second version.
            let _ = std::fs::write(
                parent.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
            return Group::below(&parent);
        };
        Group::below(&parent)
    }

    /// A group of the second version without any controller.
    pub(super) fn of_second_version() -> Group {
        Group::below(&second_version())
    }

    fn below(parent: &Path) -> Group {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("zcache-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&path)
            .unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        Group(path)
    }

    pub(super) fn text(&self) -> &str {
        self.0.to_str().expect("a path in ASCII")
    }

    /// Writes one of its files.
    pub(super) fn set(&self, file: &str, value: &str) {
        let path = self.0.join(file);
        std::fs::write(&path, value)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Thaws and ends what is left in it, or it cannot be removed.
        let _ = std::fs::write(self.0.join("freezer.state"), "THAWED");
        let _ = std::fs::write(self.0.join("cgroup.freeze"), "0");
        let members = std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines().filter_map(|line| line.parse().ok()) {
            crate::support::tree::signal(pid, "KILL");
        }
        for _ in 0..50 {
            if std::fs::remove_dir(&self.0).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn second_version() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/mounts").expect("/proc is mounted");
    mounts
        .lines()
        .find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (path, kind) = (words.next()?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(path))
        })
        .expect("control groups of the second version are mounted somewhere")
}

/// A setting of the kernel below /proc/sys, put back at the end.
pub(super) struct Setting {
    path: PathBuf,
    before: String,
}

impl Setting {
    pub(super) fn set(name: &str, value: &str) -> Setting {
        let path = Path::new("/proc/sys").join(name);
        let before = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        std::fs::write(&path, value)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        Setting { path, before }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = std::fs::write(&self.path, &self.before);
    }
}
