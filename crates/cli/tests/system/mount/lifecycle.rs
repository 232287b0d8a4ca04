//! Mounting and unmounting: options, refusals, signals, the helper of mount(8).

use super::support::Mounted;
use crate::support::{TempDir, eventually, zcache};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::time::Duration;

const BOUND: Duration = Duration::from_secs(20);

fn is_mounted(path: &std::path::Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("the list of mounts");
    let path = path.to_str().expect("a path");
    mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(path))
}

fn refusal(arguments: &[&str]) -> String {
    let output = Command::new(zcache())
        .args(arguments)
        .output()
        .expect("zcache runs");
    assert_eq!(output.status.code(), Some(125), "{arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_cannot_be_mounted_is_refused_with_a_reason() {
    let files = TempDir::new("refused");
    let here = files.path().to_str().expect("a path");
    for name in ["inner", "other"] {
        std::fs::create_dir(files.file(name)).expect("a directory");
    }
    std::fs::write(files.file("file"), "").expect("a file");
    let inner = format!("{here}/inner");
    let file = format!("{here}/file");
    let other = format!("{here}/other");
    assert!(refusal(&["mount", "/nonexistent", here]).contains("SOURCE /nonexistent"));
    assert!(refusal(&["mount", here, &file]).contains("is no directory"));
    assert!(refusal(&["mount", &inner, here]).contains("would be hidden"));
    assert!(refusal(&["mount", here, &inner]).contains("contain itself"));
    assert!(refusal(&["mount", "--ram", "1M", &inner, &other]).contains("at least 16 MiB"));
    assert!(refusal(&["mount", "--admit", "some", &inner, &other]).contains("seen-again, all"));
    assert!(refusal(&["mount", "-o", "ram=4G,fast", &inner, &other]).contains("-o fast"));
    assert!(refusal(&["umount", &inner]).contains("no mount of zcache's"));
    assert!(refusal(&["umount", "/proc"]).contains("type proc"));
    assert!(!is_mounted(&files.file("inner")));
}

#[test]
fn sigterm_takes_the_mount_away() {
    let mounted = Mounted::new("sigterm", &["--ram", "32M"]);
    std::fs::write(mounted.target().join("file"), "here").expect("written");
    let server = mounted.server().to_string();
    let killed = Command::new("kill")
        .arg(&server)
        .status()
        .expect("kill runs");
    assert!(killed.success());
    assert!(eventually(BOUND, || !is_mounted(&mounted.target())));
    assert!(eventually(BOUND, || !std::path::Path::new("/proc")
        .join(&server)
        .exists()));
    assert_eq!(
        std::fs::read(mounted.source().join("file")).expect("read"),
        b"here"
    );
}

#[test]
fn a_mount_in_use_is_not_taken_away_but_lazily() {
    let mounted = Mounted::new("busy", &["--ram", "32M"]);
    let path = mounted.target().join("file");
    std::fs::write(&path, "here").expect("written");
    let file = std::fs::File::open(&path).expect("open");
    let output = mounted.unmount();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("is in use"),
        "{output:?}"
    );
    let server = mounted.server().to_string();
    let lazily = Command::new(zcache())
        .args(["umount", "--lazy"])
        .arg(mounted.target())
        .status();
    assert!(lazily.expect("zcache runs").success());
    assert_eq!(
        std::io::read_to_string(&file).expect("an open file still works"),
        "here"
    );
    drop(file);
    assert!(eventually(BOUND, || !std::path::Path::new("/proc")
        .join(&server)
        .exists()));
}

#[test]
fn read_only_is_read_only() {
    let files = TempDir::new("read-only");
    std::fs::create_dir(files.file("source")).expect("a source");
    std::fs::write(files.file("source/file"), "here").expect("written");
    let mounted = Mounted::over(files, &["--ram", "32M", "--read-only"]);
    let path = mounted.target().join("file");
    assert_eq!(std::fs::read(&path).expect("read"), b"here");
    let error = std::fs::write(&path, "there").expect_err("read-only");
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn the_helper_of_mount_works() {
    let files = TempDir::new("helper");
    for name in ["source", "target"] {
        std::fs::create_dir(files.file(name)).expect("a directory");
    }
    let helper = files.file("mount.zcache");
    symlink(zcache(), &helper).expect("a link");
    // As mount(8) calls it.
    let mut command = Command::new(&helper);
    command.arg(files.file("source")).arg(files.file("target"));
    command.args(["-o", "rw,noatime,ram=32M,admit=all"]);
    assert!(command.status().expect("the helper runs").success());
    assert!(is_mounted(&files.file("target")));
    let unmounted = Command::new("umount").arg(files.file("target")).status();
    assert!(unmounted.expect("umount runs").success());
}

#[test]
fn what_is_made_belongs_to_who_made_it() {
    let mounted = Mounted::new("owner", &["--ram", "32M"]);
    std::fs::set_permissions(mounted.source(), PermissionsExt::from_mode(0o1777)).expect("for all");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1", "--regid=1", "--clear-groups", "sh", "-c"]);
    command.arg("umask 027; echo here > file; mkdir folder; ln -s file link; mkfifo pipe; cat /root/none || true; ls > /dev/null");
    let status = command
        .current_dir(mounted.target())
        .stderr(Stdio::null())
        .status();
    assert!(status.expect("setpriv runs (util-linux)").success());
    for (name, mode) in [
        ("file", 0o640),
        ("folder", 0o750),
        ("pipe", 0o640),
        ("link", 0o777),
    ] {
        let found = std::fs::symlink_metadata(mounted.source().join(name)).expect(name);
        assert_eq!(
            (found.uid(), found.gid(), found.mode() & 0o7777),
            (1, 1, mode),
            "{name}"
        );
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=2", "--regid=2", "--clear-groups", "cat"]);
    let output = command
        .arg(mounted.target().join("file"))
        .output()
        .expect("setpriv runs");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("Permission denied"),
        "{output:?}"
    );
}
