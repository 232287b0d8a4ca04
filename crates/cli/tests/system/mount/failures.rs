//! Sources that fail, fill up or vanish, and a zcache that is killed.

use super::support::Mounted;
use crate::support::{TempDir, eventually, tool};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const MIB: usize = 1 << 20;

/// A small filesystem in a file, mounted at `source` of a directory.
struct SmallDisk {
    image: PathBuf,
    at: PathBuf,
}

impl SmallDisk {
    fn new(files: &TempDir, bytes: u64) -> SmallDisk {
        let (image, at) = (files.file("image"), files.file("source"));
        let file = std::fs::File::create(&image).expect("an image");
        file.set_len(bytes).expect("its size");
        tool(
            "e2fsprogs",
            Command::new("mkfs.ext4")
                .args(["-q", "-m", "0", "-O", "^has_journal"])
                .arg(&image),
        );
        std::fs::create_dir(&at).expect("a directory");
        let disk = SmallDisk { image, at };
        disk.mount();
        disk
    }

    fn mount(&self) {
        tool(
            "mount",
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&self.image)
                .arg(&self.at),
        );
    }

    fn unmount(&self) {
        tool("mount", Command::new("umount").arg(&self.at));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).output();
    }
}

#[test]
fn a_full_source_is_enospc() {
    let files = TempDir::new("full");
    let _disk = SmallDisk::new(&files, 8 << 20);
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
    let disk = SmallDisk::new(&files, 64 << 20);
    std::fs::write(disk.at.join("file"), vec![5; 32 * MIB]).expect("written");
    // With its page cache empty.
    disk.unmount();
    disk.mount();
    let mounted = Mounted::over(files, &["--ram", "32M", "--admit", "all"]);
    let path = mounted.target().join("file");
    let file = std::fs::File::open(&path).expect("open");
    // The disk behind it ends in the midst of the file.
    let image = std::fs::OpenOptions::new()
        .write(true)
        .open(&disk.image)
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
        assert!(eventually(Duration::from_secs(20), || is_dead(
            &mounted.target()
        )));
        check_records(&mounted.source().join(&name), acknowledged);
        // Nobody serves it any more; it is taken away and mounted again.
        let output = mounted.unmount();
        assert!(output.status.success(), "{output:?}");
        mounted.mount();
        check_records(&mounted.target().join(&name), acknowledged);
    }
}

fn is_dead(target: &Path) -> bool {
    let error = std::fs::read_dir(target).err();
    error.and_then(|error| error.raw_os_error()) == Some(107)
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
