//! What other tools expect of a mount: that it can be remounted, that its source can be unmounted behind it, that files have the times and
//! rights that they should have.

use super::disk::SmallDisk;
use super::support::Mounted;
use crate::support::{TempDir, tool, zcache};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

#[test]
fn the_source_can_be_unmounted_right_behind_the_target() {
    let files = TempDir::new("behind");
    let disk = SmallDisk::ext4(&files, 16 << 20, 0);
    std::fs::write(disk.at().join("file"), "here").expect("written");
    let mounted = Mounted::over(files, &["--ram", "16M"]);
    for round in 0..20 {
        let read = std::fs::read_to_string(mounted.target().join("file"));
        assert_eq!(read.expect("read"), "here");
        assert!(mounted.unmount().status.success(), "round {round}");
        // EBUSY would be a failure here.
        disk.unmount();
        disk.mount();
        mounted.mount();
    }
}

#[test]
fn a_lazy_unmount_does_not_wait() {
    let mounted = Mounted::new("lazy", &["--ram", "16M"]);
    let held = std::fs::File::create(mounted.target().join("held")).expect("made");
    let begun = std::time::Instant::now();
    let mut command = Command::new(zcache());
    tool(
        "zcache",
        command.args(["umount", "--lazy"]).arg(mounted.target()),
    );
    assert!(begun.elapsed().as_secs() < 5);
    drop(held);
}

#[test]
fn mount_8_remounts_by_the_helper() {
    let mounted = Mounted::new("remount", &["--ram", "16M"]);
    let helper = mounted.directory().join("mount.fuse.zcache");
    symlink(zcache(), &helper).expect("a link");
    let file = mounted.target().join("file");
    let remount = |options: &str| {
        // As mount(8) calls it, with what its lists say of the mount.
        let mut command = Command::new(&helper);
        command.arg(mounted.source()).arg(mounted.target());
        command.args([
            "-o",
            &format!("nosuid,nodev,user_id=0,allow_other,remount,{options}"),
        ]);
        tool("zcache", &mut command);
    };
    remount("ro");
    let error = std::fs::write(&file, "x").expect_err("read-only");
    assert_eq!(error.raw_os_error(), Some(30), "{error}");
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("the list");
    let ours = mounts
        .lines()
        .find(|line| line.contains("zcache-test") && line.contains("remount"));
    let ours = ours.expect("it is mounted");
    assert!(ours.contains(" ro,nosuid,nodev"), "{ours}");
    remount("rw");
    std::fs::write(&file, "x").expect("written");
}

#[test]
fn a_file_has_its_time_of_birth() {
    let mounted = Mounted::new("birth", &["--ram", "16M"]);
    std::fs::write(mounted.source().join("old"), "x").expect("written");
    std::fs::write(mounted.target().join("new"), "x").expect("written");
    std::fs::create_dir(mounted.target().join("folder")).expect("made");
    for name in ["old", "new", "folder"] {
        let of = |root: std::path::PathBuf| {
            let mut command = Command::new("stat");
            tool(
                "coreutils",
                command
                    .args(["-c", "%w %W %s %h %a %i"])
                    .arg(root.join(name)),
            )
        };
        let source = of(mounted.source());
        assert!(!source.starts_with('-'), "the source tells it: {source}");
        assert_eq!(of(mounted.target()), source, "{name}");
    }
}

#[test]
fn the_statistics_are_nobody_else_s_to_write() {
    for (mask, mode) in [("022", 0o644), ("077", 0o600)] {
        let files = TempDir::new("mask");
        std::fs::create_dir(files.file("source")).expect("a source");
        let script = format!("umask {mask}; exec \"$@\"");
        let mounted = Mounted::started_by(files, &["sh", "-c", &script, "sh"], &["--ram", "16M"]);
        mounted.finish();
        let stats = mounted
            .directory()
            .join("stats")
            .metadata()
            .expect("a file");
        assert_eq!(stats.permissions().mode() & 0o777, mode);
    }
}
