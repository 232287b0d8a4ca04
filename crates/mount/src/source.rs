//! The source's files by descriptor: looks at them and opens them.
//!
//! Stage: between the inode table and Linux. What it does not do: remember.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
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

/// Opens the name in a folder for nothing but its identity.
pub(crate) fn open_name(folder: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty())
}
