//! Changes beside the mount whose time is set before their bytes arrive: what is read meanwhile is not believed by a later open.

use super::support::{Mounted, python};
use crate::support::compile::mount_program;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const BYTES: usize = 512 << 10;

/// A write that stands still in its midst.
struct SlowWrite {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl SlowWrite {
    fn begin(path: &Path, way: &str) -> SlowWrite {
        let mut command = Command::new(mount_program("slow_write"));
        command.arg(path).arg(way);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let out = child.stdout.take().expect("a pipe");
        let mut slow = SlowWrite {
            child,
            lines: BufReader::new(out).lines(),
        };
        slow.expect("begun");
        slow
    }

    fn go_on(&mut self) {
        self.child
            .stdin
            .as_mut()
            .expect("a pipe")
            .write_all(b"\n")
            .expect("told");
    }

    fn expect(&mut self, word: &str) {
        let line = self.lines.next().expect("it goes on").expect("a line");
        assert_eq!(line, word);
    }
}

impl Drop for SlowWrite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many old bytes the file has, read page by page: a long read would wait for the write.
fn old_bytes(path: &Path) -> usize {
    let script = "
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
print(sum(os.pread(fd, 4096, at).count(b'O') for at in range(0, os.fstat(fd).st_size, 4096)))
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
";
    let printed = python(script, &[path.to_str().expect("a path of the tests")]);
    printed.trim().parse().expect("a number")
}

/// A write by `way` stands still; with `before`, the file was read through the mount before it began.
fn is_seen(options: &[&str], way: &str, before: bool) {
    let mounted = Mounted::new("silent", options);
    let (inner, outer) = (mounted.source().join("file"), mounted.target().join("file"));
    std::fs::write(&inner, vec![b'O'; BYTES]).expect("written");
    if before {
        std::thread::sleep(Duration::from_millis(2100));
        assert_eq!(old_bytes(&outer), BYTES);
    }
    let mut slow = SlowWrite::begin(&inner, way);
    // The time of change is not fresh any more.
    std::thread::sleep(Duration::from_millis(2200));
    let old = old_bytes(&outer);
    assert!(old >= BYTES / 2, "the write has not come so far: {old}");
    slow.go_on();
    slow.expect("done");
    for turn in 0..3 {
        let old = old_bytes(&outer);
        assert_eq!(old, 0, "{options:?} {way}: open {turn} finds old bytes");
    }
}

/// Watched and not, and kept or not before.
fn is_always_seen(way: &str) {
    for options in [
        &["--ram", "32M", "--admit", "all", "--no-watch"][..],
        &["--ram", "32M", "--admit", "all"],
    ] {
        for before in [false, true] {
            is_seen(options, way, before);
        }
    }
}

#[test]
fn a_long_write_beside_is_seen_when_it_has_ended() {
    is_always_seen("write");
}

#[test]
fn an_asynchronous_write_beside_is_seen_when_it_has_ended() {
    is_always_seen("aio");
}
