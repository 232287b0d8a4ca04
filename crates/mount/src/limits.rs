//! What the system allows this process.
//!
//! Stage: before anything is opened. The limits of whoever started it are for
//! his own programs: here they would bound what others may write and open.

use rustix::process::Resource;

use crate::error::MountError;
use crate::inodes::Limits;

/// Descriptors kept for inodes that are not open, at most and as a part of
/// those that the system allows.
const DESCRIPTORS_MAX: u64 = 4096;
const DESCRIPTORS_PART: u64 = 4;

/// Inodes that cannot be opened again may take this part of the descriptors; the
/// rest is for files that are open.
const PINNED_PART: u64 = 2;

/// Inodes may take this part of the budget.
const INODES_PART: u64 = 8;

/// `RLIM_INFINITY`.
const UNLIMITED: u64 = u64::MAX;

/// Raises the limits that would reach into other people's calls: descriptors, as
/// far as that may be done, and the length of files and CPU time.
///
/// # Errors
/// [`MountError::Limited`] where one of the latter cannot be raised, as by root
/// without CAP_SYS_RESOURCE.
pub(crate) fn raise() -> Result<(), MountError> {
    zcache_sys::process::raise_own_descriptors();
    for (limit, option) in [(Resource::Fsize, "-f"), (Resource::Cpu, "-t")] {
        zcache_sys::process::raise_limit(0, limit as u32, UNLIMITED);
        if rustix::process::getrlimit(limit).current.is_some() {
            return Err(MountError::Limited { option });
        }
    }
    Ok(())
}

/// What may be kept of inodes within a budget.
pub(crate) fn of_inodes(ram_bytes: u64) -> Limits {
    let allowed = rustix::process::getrlimit(Resource::Nofile).current;
    let allowed = allowed.unwrap_or(u64::from(u32::MAX));
    Limits {
        descriptors_max: (allowed / DESCRIPTORS_PART).min(DESCRIPTORS_MAX) as usize,
        pinned_max: (allowed / PINNED_PART) as usize,
        bytes_max: ram_bytes / INODES_PART,
    }
}
