//! What is changed in the source beside the mount is seen by the next open.

use super::disk::SmallDisk;
use super::support::{Mounted, drop_pages, python};
use crate::support::{TempDir, eventually, tool};
use std::process::Command;
use std::time::Duration;

/// Bytes of several pages that say which version they are.
fn version(number: u8) -> Vec<u8> {
    vec![number; 5 * 4096 + 17]
}

#[test]
fn the_next_open_sees_a_change_of_the_same_length() {
    let mounted = Mounted::new("beside", &["--ram", "32M", "--admit", "all"]);
    let (inner, outer) = (mounted.source().join("file"), mounted.target().join("file"));
    // At once, while the times of change may still be the same ones.
    for number in 0..200 {
        std::fs::write(&inner, version(number)).expect("written beside");
        assert!(
            std::fs::read(&outer).expect("read") == version(number),
            "version {number}"
        );
    }
    // And once the file was trusted and kept.
    std::thread::sleep(Duration::from_millis(2100));
    for _ in 0..3 {
        assert!(std::fs::read(&outer).expect("read") == version(199));
        drop_pages(&outer);
    }
    std::fs::write(&inner, version(7)).expect("written beside");
    assert!(std::fs::read(&outer).expect("read") == version(7));
    assert!(mounted.finish()["hit_pages"].as_u64() > Some(0));
}

#[test]
fn a_replaced_and_a_recreated_file_are_other_files() {
    let mounted = Mounted::new("replaced", &["--ram", "32M", "--admit", "all"]);
    let (inner, outer) = (mounted.source().join("file"), mounted.target().join("file"));
    for number in 0..50 {
        // The number of the inode is likely to be used again.
        let _ = std::fs::remove_file(&inner);
        std::fs::write(&inner, version(number)).expect("written beside");
        // A name may be believed for a second.
        std::thread::sleep(Duration::from_millis(if number % 10 == 0 {
            1100
        } else {
            0
        }));
        let found = std::fs::read(&outer);
        if number % 10 == 0 {
            assert!(found.expect("read") == version(number), "version {number}");
        } else if let Ok(found) = found {
            assert!(
                (0..=number).any(|older| found == version(older)),
                "a mixture at {number}"
            );
        }
    }
    let other = mounted.source().join("other");
    std::fs::write(&other, version(99)).expect("written beside");
    std::fs::rename(&other, &inner).expect("replaced");
    std::thread::sleep(Duration::from_millis(1100));
    assert!(std::fs::read(&outer).expect("read") == version(99));
}

#[test]
fn an_open_file_sees_a_change_within_a_second() {
    let mounted = Mounted::new("open", &["--ram", "32M", "--admit", "all"]);
    let (inner, outer) = (mounted.source().join("file"), mounted.target().join("file"));
    std::fs::write(&inner, version(1)).expect("written beside");
    let script = "import os, sys, time\nfd = os.open(sys.argv[1], os.O_RDONLY)\n\
                  assert set(os.pread(fd, 99999, 0)) == {1}\n\
                  open(sys.argv[2], 'r+b').write(bytes([2]) * (5 * 4096 + 17))\n\
                  time.sleep(1.2)\n\
                  assert set(os.pread(fd, 99999, 0)) == {2}, 'stale'";
    let paths = [outer, inner].map(|path| path.to_str().expect("a path").to_owned());
    python(script, &[&paths[0], &paths[1]]);
}

#[test]
fn writes_and_mappings_are_seen_at_once_on_both_sides() {
    let mounted = Mounted::new("mapped", &["--ram", "32M", "--admit", "all"]);
    let script = "
import mmap, os, random, sys
rng = random.Random(5)
size = 40 * 4096 + 100
open(sys.argv[1], 'wb').write(bytes(size))
model = bytearray(size)
one = os.open(sys.argv[1], os.O_RDWR)
two = os.open(sys.argv[1], os.O_RDWR)
view = mmap.mmap(one, size)
for step in range(4000):
    at, n, byte = rng.randrange(size), rng.choice([1, 50, 5000, 20000]), rng.randrange(256)
    n = min(n, size - at)
    if rng.random() < 0.4:
        view[at:at + n] = bytes([byte]) * n
        model[at:at + n] = bytes([byte]) * n
    elif rng.random() < 0.5:
        os.pwrite(two, bytes([byte]) * n, at)
        model[at:at + n] = bytes([byte]) * n
    elif rng.random() < 0.7:
        assert os.pread(two, n, at) == model[at:at + n], step
    elif rng.random() < 0.5:
        assert view[at:at + n] == model[at:at + n], step
    else:
        os.fsync(two)
        os.posix_fadvise(two, 0, 0, os.POSIX_FADV_DONTNEED)
view.flush()
assert open(sys.argv[2], 'rb').read() == model, 'the source differs'
";
    let paths = ["target", "source"].map(|name| mounted.directory().join(name).join("file"));
    let paths = paths.map(|path| path.to_str().expect("a path").to_owned());
    python(script, &[&paths[0], &paths[1]]);
}

/// A file gets longer and shorter beside the mount, and is opened and read through it at once.
const ENDS: &str = "
import os, random, sys
outer, inner, rng = sys.argv[1], sys.argv[2], random.Random(7)
open(inner, 'wb').close()
held = os.open(outer, os.O_RDONLY)
for turn in range(600):
    size = rng.choice([0, 1, 4096, 5000, rng.randrange(300000)])
    fd = os.open(inner, os.O_RDWR)
    os.ftruncate(fd, rng.choice([0, min(size, os.fstat(fd).st_size)]))
    os.pwrite(fd, bytes([turn % 255 + 1]) * size, 0)
    os.close(fd)
    fd = os.open(outer, os.O_RDONLY)
    found = b''
    while part := os.read(fd, 70000):
        found += part
    os.close(fd)
    assert found == bytes([turn % 255 + 1]) * size, f'turn {turn}: {len(found)} bytes of {size}'
";

#[test]
fn the_next_open_sees_the_new_end() {
    for options in [&["--ram", "32M"][..], &["--ram", "32M", "--no-watch"]] {
        let mounted = Mounted::new("new-end", options);
        let paths = [mounted.target(), mounted.source()].map(|path| path.join("file"));
        let [outer, inner] = paths.map(|path| path.to_str().expect("a path").to_owned());
        python(ENDS, &[&outer, &inner]);
    }
}

#[test]
fn the_room_of_a_file_that_is_unlinked_beside_is_free() {
    for options in [&["--ram", "32M"][..], &["--ram", "32M", "--no-watch"]] {
        let files = TempDir::new("room");
        let disk = SmallDisk::ext4(&files, 64 << 20, 0);
        let mounted = Mounted::over(files, options);
        let used = || {
            let mut command = Command::new("df");
            command.args(["--output=used", "-m"]).arg(disk.at());
            let said = tool("coreutils", &mut command);
            let number = said.lines().last().expect("a line").trim().to_owned();
            number.parse::<u32>().expect("a number")
        };
        let before = used();
        let (inner, outer) = (mounted.source().join("f"), mounted.target().join("f"));
        for open_meanwhile in [false, true] {
            std::fs::write(&inner, vec![1; 32 << 20]).expect("written beside");
            let mut opened = Some(std::fs::File::open(&outer).expect("seen"));
            std::io::copy(opened.as_mut().expect("open"), &mut std::io::sink()).expect("read");
            if !open_meanwhile {
                opened = None;
            }
            std::fs::remove_file(&inner).expect("unlinked beside");
            if let Some(file) = opened.take() {
                std::thread::sleep(Duration::from_millis(500));
                let bytes = file.metadata().expect("an open file lives on").len();
                assert_eq!(bytes, 32 << 20);
                assert!(used() >= before + 32, "what is open keeps its room");
            }
            assert!(
                eventually(Duration::from_secs(10), || used() <= before + 1),
                "{} MiB are used, and were {before} before, {options:?}",
                used()
            );
        }
    }
}
