//! The same tree on every kind of source: whatever tools say of it through the mount, they say of the source itself, for root and
//! for a user who has nothing; and a tree that is made through the mount is the one that is made on the source.
//!
//! What a filesystem lacks is left out of its tree on both sides.

use super::disk::SmallDisk;
use super::network::Remote;
use super::support::Mounted;
use crate::support::{TempDir, tests_file, tool, tree};
use std::path::Path;
use std::process::Command;

const DISK_BYTES: u64 = 400 << 20;

/// Runs a script of `mount/` in a directory; what it says.
fn script(name: &str, user: &[&str], directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.arg("120").args(user).arg("bash");
    command.arg(tests_file(name)).args(arguments);
    // What a tool says of a failure is part of what is compared, in one language.
    command.env("LC_ALL", "C").current_dir(directory);
    tool("bash", &mut command)
}

fn tools(user: &[&str], directory: &Path) -> String {
    let room = TempDir::new("room");
    let path = room.path().to_str().expect("a path of the tests");
    tool("coreutils", Command::new("chmod").args(["777", path]));
    let said = script("mount/tools.sh", user, directory, &[path]);
    // rsync names files by their whole paths.
    let here = directory.to_str().expect("a path of the tests");
    said.replace(path, "ROOM").replace(here, "TREE")
}

#[track_caller]
fn alike(what: &str, expected: &str, found: &str) {
    let lines = expected.lines().zip(found.lines());
    if let Some((expected, found)) = lines.into_iter().find(|(one, other)| one != other) {
        panic!("{what}: the source says\n{expected}\nand zcache mount\n{found}");
    }
    assert_eq!(expected.len(), found.len(), "{what}");
}

/// Compares both sides over a source that is mounted at `source` of a directory. Not every source judges users.
fn compare(files: TempDir, users: bool) {
    tree::need_root();
    let mounted = Mounted::over(files, &["--ram", "32M", "--admit", "all", "-o", "suid,dev"]);
    let (source, target) = (mounted.source(), mounted.target());
    for (side, name) in [(&source, "made-beside"), (&target, "made-through")] {
        std::fs::create_dir(side.join(name)).expect("a directory");
    }
    let beside = script("mount/tree.sh", &[], &source.join("made-beside"), &[]);
    let through = script("mount/tree.sh", &[], &target.join("made-through"), &[]);
    alike("making the tree", &beside, &through);
    for name in ["made-beside", "made-through"] {
        let expected = tools(&[], &source.join(name));
        alike(name, &expected, &tools(&[], &target.join(name)));
        let again = tools(&[], &target.join(name));
        alike(&format!("{name}, out of RAM"), &expected, &again);
    }
    if users {
        let user = [&["setpriv"], tree::WITHOUT_RIGHTS.as_slice()].concat();
        let expected = tools(&user, &source.join("made-beside"));
        let found = tools(&user, &target.join("made-beside"));
        alike("for a user who has nothing", &expected, &found);
    }
    let stats = mounted.finish();
    assert_eq!(stats["damaged_pages"], 0, "{stats}");
}

#[test]
fn ext4() {
    let files = TempDir::new("source-ext4");
    let _disk = SmallDisk::ext4(&files, DISK_BYTES, 0);
    compare(files, true);
}

#[test]
fn xfs() {
    let files = TempDir::new("source-xfs");
    let _disk = SmallDisk::xfs(&files, DISK_BYTES);
    compare(files, true);
}

#[test]
fn btrfs() {
    let files = TempDir::new("source-btrfs");
    let _disk = SmallDisk::btrfs(&files, DISK_BYTES, DISK_BYTES);
    compare(files, true);
}

#[test]
fn tmpfs() {
    let files = TempDir::new("source-tmpfs");
    let _memory = SmallDisk::tmpfs(&files, 64 << 20);
    compare(files, true);
}

#[test]
fn overlayfs() {
    let files = TempDir::new("source-overlay");
    let _layers = SmallDisk::overlay(&files);
    compare(files, true);
}

#[test]
#[ignore = "takes long"]
fn sshfs() {
    let files = TempDir::new("source-sshfs");
    let _remote = Remote::new(&files);
    compare(files, false);
}
