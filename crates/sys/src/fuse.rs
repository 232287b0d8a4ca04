//! `/dev/fuse`: what its descriptors can beyond read and write. See `fuse(4)`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::fd::check;

/// `_IOR(229, 0, uint32_t)`.
const FUSE_DEV_IOC_CLONE: libc::c_ulong = 0x8004_e500;

/// Makes `fresh`, a newly opened `/dev/fuse`, a second queue of the mount that
/// `mounted` serves.
///
/// # Errors
/// EINVAL when `fresh` already serves a mount or `mounted` does not.
pub fn join_mount(fresh: BorrowedFd<'_>, mounted: BorrowedFd<'_>) -> io::Result<()> {
    let mut number = mounted.as_raw_fd().cast_unsigned();
    // SAFETY: the call reads one 32-bit number, which lives across it.
    let result = unsafe { libc::ioctl(fresh.as_raw_fd(), FUSE_DEV_IOC_CLONE, &raw mut number) };
    check(result.into()).map(drop)
}
