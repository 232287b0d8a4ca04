//! Sources that fail, fill up or vanish, and a zcache that is killed.

use super::disk::SmallDisk;
use super::support::{Mounted, python, wait_until_dead};
use crate::support::{TempDir, tool};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const MIB: usize = 1 << 20;

#[test]
fn a_full_source_is_enospc() {
    let files = TempDir::new("full");
    let _disk = SmallDisk::ext4(&files, 8 << 20, 0);
    let mounted = Mounted::over(files, &["--ram", "32M"]);
    let path = mounted.target().join("file");
    let mut file = std::fs::File::create(&path).expect("made");
    let written = (0..64).find_map(|mib| {
        let failed = file.write_all(&vec![mib as u8; MIB]).err();
        failed.map(|error| (mib, error))
    });
    let (mib, error) = written.expect("8 MiB hold no 64 MiB");
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    // What was accepted is there.
    let bytes = std::fs::read(&path).expect("read");
    assert!(bytes.len() >= mib * MIB);
    for (at, byte) in bytes.iter().enumerate() {
        assert_eq!(*byte, (at / MIB) as u8, "at {at}");
    }
    drop(file);
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(mounted.target().join("next"), b"room again").expect("written");
}

#[test]
fn a_source_that_cannot_be_read_is_eio() {
    let files = TempDir::new("eio");
    let disk = SmallDisk::ext4(&files, 64 << 20, 0);
    std::fs::write(disk.at().join("file"), vec![5; 32 * MIB]).expect("written");
    // With its page cache empty.
    disk.unmount();
    disk.mount();
    let mounted = Mounted::over(files, &["--ram", "32M", "--admit", "all"]);
    let path = mounted.target().join("file");
    let file = std::fs::File::open(&path).expect("open");
    // The disk behind it ends in the midst of the file.
    let image = std::fs::OpenOptions::new()
        .write(true)
        .open(disk.image())
        .expect("the image");
    image.set_len(16 << 20).expect("cut off");
    let mut at = 0;
    let mut page = [0; 4096];
    let error = loop {
        match std::os::unix::fs::FileExt::read_at(&file, &mut page, at) {
            Ok(len) => {
                assert!(
                    len == 4096 && page == [5; 4096],
                    "{len} bytes at {at}: wrong bytes instead of an error"
                );
                at += 4096;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(5), "{error}");
    assert!(at > 0, "the first half was there");
}

#[test]
fn a_vanished_source_is_an_error_and_not_a_hang() {
    let files = TempDir::new("vanished");
    std::fs::create_dir_all(files.file("source/folder")).expect("a source");
    std::fs::write(files.file("source/folder/file"), "here").expect("written");
    let mounted = Mounted::over(files, &["--ram", "32M"]);
    let path = mounted.target().join("folder/file");
    let file = std::fs::File::open(&path).expect("open");
    std::fs::remove_dir_all(mounted.source()).expect("gone");
    assert_eq!(
        std::io::read_to_string(&file).expect("an open file lives on"),
        "here"
    );
    std::thread::sleep(Duration::from_millis(1100));
    let error = std::fs::read(&path).expect_err("gone");
    assert!(matches!(error.raw_os_error(), Some(2 | 116)), "{error}");
    let error = std::fs::write(mounted.target().join("new"), "x").expect_err("gone");
    assert!(matches!(error.raw_os_error(), Some(2 | 116)), "{error}");
}

/// Writes records and tells each after fsync.
const WRITER: &str = "
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for number in range(100000):
    os.pwrite(fd, number.to_bytes(8, 'little') * 700, number * 5600)
    os.fsync(fd)
    print(number, flush=True)
";

#[test]
fn a_killed_zcache_loses_nothing_that_fsync_acknowledged() {
    let mounted = Mounted::new("killed", &["--ram", "32M"]);
    for round in 0..3 {
        let name = format!("file{round}");
        let mut writer = Command::new("python3")
            .args(["-c", WRITER])
            .arg(mounted.target().join(&name))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 runs");
        let mut lines = BufReader::new(writer.stdout.take().expect("a pipe")).lines();
        let mut acknowledged = 0;
        for _ in 0..100 + 50 * round {
            let line = lines.next().expect("the writer goes on").expect("a line");
            acknowledged = line.parse().expect("a number");
        }
        let server = mounted.server();
        tool(
            "procps",
            Command::new("kill").args(["-9", &server.to_string()]),
        );
        for line in lines {
            acknowledged = line.expect("a line").parse().expect("a number");
        }
        let _ = writer.wait();
        wait_until_dead(&mounted.target());
        check_records(&mounted.source().join(&name), acknowledged);
        // Nobody serves it any more; it is taken away and mounted again.
        let output = mounted.unmount();
        assert!(output.status.success(), "{output:?}");
        mounted.mount();
        check_records(&mounted.target().join(&name), acknowledged);
    }
}

/// Changes files in every way that is acknowledged, and tells after each what is there from then on: name, place, byte, length.
const CHANGER: &str = "
import mmap, os, random, sys
os.chdir(sys.argv[1])
number, rng = int(sys.argv[2]), random.Random(int(sys.argv[3]))
name, size = f'file{number}', 40 * 4096
fd = os.open(name, os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, size)
os.fsync(fd)
synced = os.open(name, os.O_RDWR | os.O_DSYNC)
view = mmap.mmap(fd, size)
folder = os.open('.', os.O_RDONLY)
while True:
    page, byte, way = rng.randrange(40), rng.randrange(1, 256), rng.randrange(4)
    if way == 0:
        os.pwrite(fd, bytes([byte]) * 4096, page * 4096)
        os.fdatasync(fd)
    elif way == 1:
        os.pwrite(synced, bytes([byte]) * 4096, page * 4096)
    elif way == 2:
        view[page * 4096:(page + 1) * 4096] = bytes([byte]) * 4096
        view.flush(page * 4096, 4096)
    else:
        new = os.open('new' + name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.write(new, bytes([byte]) * (page + 1) * 100)
        os.fsync(new)
        os.close(new)
        os.rename('new' + name, 'whole' + name)
        os.fsync(folder)
        print('whole' + name, 0, byte, (page + 1) * 100, flush=True)
        continue
    print(name, page * 4096, byte, 4096, flush=True)
";

#[test]
fn a_killed_zcache_keeps_every_change_that_was_acknowledged() {
    let mounted = Mounted::new("killed-changes", &["--ram", "32M", "--admit", "all"]);
    let seed: u64 =
        std::env::var("ZCACHE_MOUNT_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    println!("ZCACHE_MOUNT_SEED={seed}");
    for round in 0..3 {
        let changers: Vec<_> = (0..3)
            .map(|number| {
                let seed = (seed * 100 + round * 10 + number).to_string();
                let mut command = Command::new("python3");
                command.args(["-c", CHANGER]).arg(mounted.target());
                command.args([number.to_string(), seed]);
                command.stdout(Stdio::piped()).stderr(Stdio::null());
                command.spawn().expect("python3 runs")
            })
            .collect();
        std::thread::sleep(Duration::from_millis(700 + 150 * round));
        let server = mounted.server().to_string();
        tool("procps", Command::new("kill").args(["-9", &server]));
        let told: Vec<String> = changers
            .into_iter()
            .map(|mut changer| {
                let out = changer.stdout.take().expect("a pipe");
                let text = std::io::read_to_string(out).expect("text");
                let _ = changer.wait();
                text
            })
            .collect();
        wait_until_dead(&mounted.target());
        check_changes(&mounted.source(), &told);
        assert!(mounted.unmount().status.success());
        mounted.mount();
        check_changes(&mounted.target(), &told);
    }
}

/// Of each place, the last change that was told is there, or one that came after it and was not told any more: the whole place
/// has one byte then all the same.
fn check_changes(folder: &Path, told: &[String]) {
    let mut changes = 0;
    for lines in told {
        let mut last = std::collections::HashMap::new();
        let mut bytes_after: Vec<u8> = Vec::new();
        for line in lines.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [name, at, byte, len] = words[..] else {
                continue;
            };
            let number = |word: &str| word.parse::<usize>().expect("a number");
            last.insert(
                (name.to_owned(), number(at)),
                (number(byte) as u8, number(len)),
            );
            changes += 1;
        }
        for ((name, at), (byte, len)) in last {
            let bytes = std::fs::read(folder.join(&name)).expect("what was acknowledged is there");
            let end = if name.starts_with("whole") {
                bytes.len()
            } else {
                at + len
            };
            let place = bytes.get(at..end).expect("what was acknowledged is there");
            assert!(
                place.iter().all(|other| *other == place[0]),
                "{name} at {at} is torn"
            );
            if place[0] != byte {
                bytes_after.push(place[0]);
            }
        }
        assert!(
            bytes_after.len() <= 1,
            "only the last change may have come untold: {bytes_after:?}"
        );
    }
    assert!(changes > 30, "{changes} changes");
}

/// Writes through the target, and says how much of it each call had the disk write.
const SYNCED: &str = "
import ctypes, os, sys
target, source, counts = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)

def written(call, path):
    fd = os.open(path, os.O_RDONLY)
    before = int(open(counts).read().split()[6])
    assert call(fd) in (None, 0)
    os.close(fd)
    return (int(open(counts).read().split()[6]) - before) * 512

def some(name):
    with open(target + '/' + name, 'wb') as file:
        file.write(os.urandom(8 << 20))

some('one')
print('syncfs of the target', written(libc.syncfs, target) >= 8 << 20)
print('syncfs of the source', written(libc.syncfs, source) >= 8 << 20)
some('two')
print('fsync of the target', written(os.fsync, target + '/two') >= 8 << 20)
some('three')
print('fdatasync of the target', written(os.fdatasync, target + '/three') >= 8 << 20)
";

#[test]
fn fsync_reaches_the_disk_and_syncfs_of_the_target_does_not() {
    let files = TempDir::new("synced");
    let disk = SmallDisk::ext4(&files, 64 << 20, 0);
    let mounted = Mounted::over(files, &["--ram", "32M"]);
    let mut command = Command::new("findmnt");
    let device = tool(
        "mount",
        command.args(["-no", "SOURCE", "-M"]).arg(disk.at()),
    );
    let counts = device.trim().replace("/dev/", "/sys/block/") + "/stat";
    let paths = [mounted.target(), mounted.source()];
    let [target, source] = paths.map(|path| path.to_str().expect("a path").to_owned());
    let said = python(SYNCED, &[&target, &source, &counts]);
    // As docs/mount.md says of this kernel.
    let expected = "syncfs of the target False\nsyncfs of the source True\n\
                    fsync of the target True\nfdatasync of the target True\n";
    assert_eq!(said, expected);
}

fn check_records(path: &Path, last: u64) {
    let bytes = std::fs::read(path).expect("the file");
    for number in 0..=last {
        let at = number as usize * 5600;
        let record = bytes
            .get(at..at + 5600)
            .expect("what was acknowledged is there");
        assert!(
            record == number.to_le_bytes().repeat(700),
            "record {number} of {last}"
        );
    }
}
