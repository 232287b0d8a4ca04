//! The source's files by descriptor: looks at them and opens them.
//!
//! Stage: between the inode table and Linux. What it does not do: remember.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat, StatxFlags};
use rustix::io::Errno;

/// An inode's attributes, and a time at which they were not yet looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) stat: Stat,
    /// Since 1970.
    pub(crate) before: Duration,
}

/// The attributes of what `fd` (`O_PATH` suffices) stands for.
pub(crate) fn look(fd: impl AsFd) -> Result<Look, Errno> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(Look {
        before: now.unwrap_or_default(),
        stat: rustix::fs::statat(fd, c"", AtFlags::EMPTY_PATH)?,
    })
}

/// Whether a file has been unlinked, as far as this machine knows.
pub(crate) fn has_no_name(fd: impl AsFd) -> bool {
    let known = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = rustix::fs::statx(fd, c"", known, StatxFlags::NLINK);
    found.is_ok_and(|found| found.stx_mask & StatxFlags::NLINK.bits() != 0 && found.stx_nlink == 0)
}

/// A path to what a descriptor stands for, for calls that take no `O_PATH`.
pub(crate) fn path_of(fd: impl AsFd) -> CString {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    CString::new(path).expect("digits and slashes")
}

/// Opens what an `O_PATH` descriptor stands for.
pub(crate) fn open_again(fd: impl AsFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = (flags - OFlags::NOFOLLOW) | OFlags::CLOEXEC;
    rustix::fs::open(path_of(fd), flags, Mode::empty())
}

/// Opens the name in a folder for nothing but its identity, unless that is on the
/// device `except`, of which nothing is asked.
///
/// # Errors
/// ELOOP where it is; what openat(2) says.
pub(crate) fn open_name(
    folder: BorrowedFd<'_>,
    name: &CStr,
    except: u64,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::NO_XDEV;
    match rustix::fs::openat2(folder, name, flags, Mode::empty(), within) {
        // Something is mounted there, or this is before Linux 5.6.
        Err(Errno::XDEV | Errno::NOSYS) => {}
        opened => return opened,
    }
    let fd = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    let known = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = rustix::fs::statx(&fd, c"", known, StatxFlags::empty())?;
    let device = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
    match device == except {
        true => Err(Errno::LOOP),
        false => Ok(fd),
    }
}

/// FUSE, NFS, CIFS, SMB 2, 9P, Ceph and AFS, by their numbers in statfs(2).
const REMOTE_FILESYSTEMS: [u64; 7] = [
    0x6573_5546,
    0x6969,
    0xff53_4d42,
    0xfe53_4d42,
    0x0102_1997,
    0x00c3_6400,
    0x5346_414f,
];

/// Whether leases tell who can write a file. A remote one is changed at its
/// server, which sets its time when the bytes arrive; and a lease is refused
/// there for other reasons.
pub(crate) fn tells_writers(fd: impl AsFd) -> bool {
    let kind = rustix::fs::fstatfs(fd).map(|stat| stat.f_type as u64);
    kind.is_ok_and(|kind| !REMOTE_FILESYSTEMS.contains(&kind))
}
