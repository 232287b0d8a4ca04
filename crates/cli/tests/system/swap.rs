//! The swap file fills up, cannot be read, or is not there: right bytes, SIGBUS or a clear message, and never a silent hang.

use crate::support::{
    Capped, Ended, Job, Outcome, TempDir, compile, eventually, plain_only, tool, tree,
};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Longer than this nothing may be stuck without a word, on a busy machine too.
const BOUND: Duration = Duration::from_secs(60);

/// What is on its way out at the program's end is gone after this.
const LINGER: Duration = Duration::from_secs(5);

fn hold(bytes: &str, kind: &str) -> Job {
    Job::new(compile::hold())
        .args(["--bytes", bytes, "--kind", kind])
        .bound(BOUND)
        .linger(LINGER)
}

/// An ext4 filesystem in a file, mounted through a loop device.
struct Filesystem {
    files: TempDir,
}

impl Filesystem {
    fn new(mib: u64) -> Filesystem {
        tree::need_root();
        let files = TempDir::new("filesystem");
        let image = files.file("image");
        std::fs::create_dir(files.file("mount")).expect("a directory to mount at");
        tool(
            "coreutils",
            Command::new("truncate")
                .args(["-s", &format!("{mib}M")])
                .arg(&image),
        );
        tool(
            "e2fsprogs",
            Command::new("mkfs.ext4")
                .args(["-q", "-O", "^has_journal", "-m", "0"])
                .arg(&image),
        );
        tool(
            "mount",
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(files.file("mount")),
        );
        Filesystem { files }
    }

    fn image(&self) -> PathBuf {
        self.files.file("image")
    }

    fn swap_file(&self) -> PathBuf {
        self.files.file("mount").join("swap")
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        // The processes that had a file open there may be on their way out still.
        eventually(Duration::from_secs(30), || {
            Command::new("umount")
                .arg(self.files.file("mount"))
                .output()
                .is_ok_and(|output| output.status.success())
        });
    }
}

/// Either the program came to its right end, or it ended with a message of zcache; wrong bytes are neither.
fn assert_right_or_told(outcome: &Outcome, words: &[&str]) {
    assert!(
        !outcome.err().contains("WRONG"),
        "wrong bytes: {}",
        outcome.err()
    );
    if outcome.ended == Ended::Exit(0) {
        assert_eq!(outcome.out(), "ready\nheld\n");
        return;
    }
    outcome.assert_says(&["zcache"]);
    outcome.assert_says(words);
    assert_eq!(outcome.left_running, 0, "{}", outcome.report);
}

#[test]
fn a_full_filesystem_is_no_danger() {
    if plain_only() {
        return;
    }
    let small = Filesystem::new(16);
    let capped = Capped::ram_mib(32).option("--swap", small.swap_file());
    // What does not fit in RAM and 16 MiB: the end may only be a message.
    let outcome = hold("96M", "random").under(&capped);
    assert_ne!(
        outcome.ended,
        Ended::Exit(0),
        "96 MiB of random bytes cannot fit: {}",
        outcome.report
    );
    assert_right_or_told(&outcome, &["swap", "No space left on device", "--ram"]);
    // What fits compressed must come to its right end, however full the filesystem is.
    let outcome = hold("64M", "text").under(&capped);
    outcome.assert_success();
}

#[test]
fn a_full_store_without_swap_waits_and_then_says_so() {
    if plain_only() {
        return;
    }
    for capped in [
        Capped::ram_mib(32).option("--swap", "none"),
        Capped::ram_mib(32).option("--swap-max", "4M"),
    ] {
        let outcome = hold("96M", "random").under(&capped);
        assert_ne!(
            outcome.ended,
            Ended::Exit(0),
            "96 MiB of random bytes cannot fit: {}",
            outcome.report
        );
        assert_right_or_told(&outcome, &["--swap"]);
    }
}

#[test]
fn a_program_that_survives_its_sigbus_does_not_go_on_for_ever() {
    if plain_only() {
        return;
    }
    let outcome = hold("96M", "random")
        .args(["--survive-bus"])
        .under(&Capped::ram_mib(32).option("--swap", "none"));
    // It is killed in the end, or has lost a page that it cannot do without.
    assert!(
        matches!(outcome.ended, Ended::Signal(_)),
        "{:?}: {}",
        outcome.ended,
        outcome.err()
    );
    outcome.assert_says(&["zcache", "--swap"]);
}

#[test]
fn pages_pass_through_to_the_disk_when_tables_fill_the_stores_share() {
    if plain_only() {
        return;
    }
    // Eighty times the RAM: the entries alone take most of it. Where it ends lies between 1350 and 1450 MiB.
    let outcome = hold("1300M", "text")
        .args(["--passes", "0"])
        .under(&Capped::ram_mib(16).option("--codec", "lz4"));
    outcome.assert_success();
}

#[test]
fn what_compresses_needs_no_swap() {
    for kind in ["text", "same"] {
        let outcome = hold("64M", kind).under(&Capped::ram_mib(40).option("--swap", "none"));
        outcome.assert_success();
        assert_eq!(outcome.out(), "ready\nheld\n");
    }
}

#[test]
fn the_default_and_a_named_swap_file_leave_nothing_behind() {
    let files = TempDir::new("named-swap");
    let before: Vec<_> = std::fs::read_dir("/var/tmp")
        .expect("/var/tmp")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    let named = files.file("swap");
    hold("64M", "random")
        .under(&Capped::ram_mib(32).option("--swap", &named))
        .assert_success();
    assert!(!named.exists(), "the swap file is still there");
    hold("64M", "random")
        .under(&Capped::ram_mib(32))
        .assert_success();
    let ours = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("zcache-test");
    for entry in std::fs::read_dir("/var/tmp").expect("/var/tmp").flatten() {
        let name = entry.file_name();
        assert!(
            before.contains(&name) || ours(&name),
            "{name:?} was left in /var/tmp"
        );
    }
}

/// A program whose evicted pages are mostly on disk, and the pager's way to its unlinked swap file.
fn on_disk(swap: &Path) -> Option<(crate::support::job::Running, PathBuf)> {
    if plain_only() {
        return None;
    }
    let job = Job::new(compile::hold())
        .args(["--bytes", "96M", "--kind", "random", "--forever"])
        .bound(BOUND)
        .linger(LINGER);
    let mut running = job.start_under(&Capped::ram_mib(32).option("--swap", swap));
    running.wait_for_stdout("ready", 1);
    let pager = running.pager();
    let mut found = Vec::new();
    let there = eventually(Duration::from_secs(30), || {
        found = tree::unlinked_files(pager);
        !found.is_empty()
    });
    assert!(
        there,
        "the pager has no unlinked swap file open: {}",
        tree::describe(running.root())
    );
    Some((running, found.remove(0)))
}

/// The process must end by SIGBUS, and zcache must say why.
fn assert_bus_error(outcome: &Outcome, words: &[&str]) {
    assert!(
        !outcome.err().contains("WRONG"),
        "wrong bytes: {}",
        outcome.err()
    );
    outcome
        .assert_ended(Ended::Signal(7))
        .assert_says(&["zcache"])
        .assert_says(words);
    assert_eq!(outcome.left_running, 0, "{}", outcome.report);
}

#[test]
fn a_swap_file_that_was_cut_off_is_a_bus_error() {
    let files = TempDir::new("cut-off");
    let Some((running, swap)) = on_disk(&files.file("swap")) else {
        return;
    };
    std::fs::OpenOptions::new()
        .write(true)
        .open(&swap)
        .and_then(|file| file.set_len(0))
        .expect("the swap file can be cut off");
    assert_bus_error(&running.wait(), &["short read", "swap file", "cut-off"]);
}

#[test]
fn a_swap_file_with_other_bytes_is_a_bus_error() {
    let files = TempDir::new("spoiled");
    let Some((running, swap)) = on_disk(&files.file("swap")) else {
        return;
    };
    let bytes = std::fs::metadata(&swap).expect("the swap file").len();
    let junk: Vec<u8> = (0..1_048_576u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&swap)
        .expect("the swap file can be opened");
    for at in (0..bytes).step_by(junk.len()) {
        std::os::unix::fs::FileExt::write_at(&file, &junk, at)
            .expect("the swap file can be written");
    }
    assert_bus_error(&running.wait(), &["checksum", "swap file"]);
}

#[test]
fn a_disk_that_fails_to_read_is_a_bus_error() {
    if plain_only() {
        return;
    }
    let disk = Filesystem::new(256);
    let Some((running, _)) = on_disk(&disk.swap_file()) else {
        return;
    };
    // Reads beyond the image's end fail with EIO at the loop device, or give zeros.
    std::fs::OpenOptions::new()
        .write(true)
        .open(disk.image())
        .and_then(|file| file.set_len(1 << 20))
        .expect("the image can be cut off");
    assert_bus_error(&running.wait(), &["swap file", "byte"]);
}
