//! Who writes takes the room, and is refused it: reserved blocks, quotas, and errors that come late.

use super::disk::SmallDisk;
use super::support::{Mounted, python};
use crate::support::TempDir;
use std::os::unix::fs::PermissionsExt;

/// Fills a file as another user, in a way of its own, and says the errno that ended it.
const FILL: &str = "
import errno, mmap, os, sys
os.setgroups([]); os.setgid(1); os.setuid(1)
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
size = 64 << 20
try:
    if sys.argv[2] == 'write':
        for at in range(0, size, 1 << 16):
            os.pwrite(fd, bytes([at >> 16 & 255]) * (1 << 16), at)
    elif sys.argv[2] == 'allocate':
        for at in range(0, size, 1 << 16):
            os.posix_fallocate(fd, at, 1 << 16)
    else:
        os.ftruncate(fd, size)
        view = mmap.mmap(fd, size)
        for at in range(0, size, 1 << 20):
            view[at:at + (1 << 20)] = b'm' * (1 << 20)
            view.flush(at, 1 << 20)
    print('no error')
except OSError as error:
    print(errno.errorcode[error.errno])
";

#[test]
fn what_is_reserved_for_root_is_refused_to_others() {
    for way in ["write", "allocate", "map"] {
        let files = TempDir::new("reserved");
        let _disk = SmallDisk::ext4(&files, 16 << 20, 40);
        let mounted = Mounted::over(files, &["--ram", "32M"]);
        std::fs::set_permissions(mounted.target(), PermissionsExt::from_mode(0o777))
            .expect("for all");
        let path = mounted.target().join("file");
        let said = python(FILL, &[path.to_str().expect("a path"), way]);
        assert_eq!(said.trim(), "ENOSPC", "{way}");
        // Root still has its part.
        std::fs::write(mounted.target().join("root"), vec![7; 2 << 20]).expect("room for root");
    }
}

#[test]
fn a_quota_of_the_source_is_edquot() {
    let files = TempDir::new("quota");
    let _disk = SmallDisk::btrfs(&files, 256 << 20, 16 << 20);
    let mounted = Mounted::over(files, &["--ram", "32M"]);
    std::fs::set_permissions(mounted.target(), PermissionsExt::from_mode(0o777)).expect("for all");
    let path = mounted.target().join("file");
    let said = python(FILL, &[path.to_str().expect("a path"), "write"]);
    assert_eq!(said.trim(), "EDQUOT");
}

#[test]
fn what_the_disk_refuses_late_is_said_by_fsync() {
    let files = TempDir::new("late");
    let _disk = SmallDisk::promising_too_much(&files, 64 << 20, 8 << 20);
    let mounted = Mounted::over(files, &["--ram", "32M"]);
    let script = "
import errno, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
try:
    for at in range(32):
        os.pwrite(fd, bytes([at]) * (1 << 20), at << 20)
    os.fsync(fd)
    print('no error')
except OSError as error:
    print(errno.errorcode[error.errno])
";
    let path = mounted.target().join("file");
    let said = python(script, &[path.to_str().expect("a path")]);
    // Which of the two is between the filesystem and its disk.
    assert!(matches!(said.trim(), "EIO" | "ENOSPC"), "{said}");
}
