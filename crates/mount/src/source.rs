//! The source's files by descriptor: looks at them, opens them, and acts as the
//! user who asked.
//!
//! Stage: between the inode table and Linux. What it does not do: remember.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat, StatxFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

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

/// What this process may do on behalf of others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rights {
    /// The capabilities to keep while acting as another user; `None` when this
    /// process is not root and can only act as itself.
    acting: Option<CapabilitySets>,
}

impl Rights {
    pub(crate) fn of_this_process() -> Rights {
        let root = rustix::process::geteuid().is_root();
        let acting = rustix::thread::capabilities(None).ok().filter(|_| root);
        // Who asks has been checked by the kernel that asks; a second check
        // here would not know of the user's other groups.
        let kept = CapabilitySet::DAC_OVERRIDE
            | CapabilitySet::DAC_READ_SEARCH
            | CapabilitySet::FOWNER
            | CapabilitySet::FSETID
            | CapabilitySet::MKNOD
            | CapabilitySet::SETUID
            | CapabilitySet::SETGID;
        Rights {
            acting: acting.map(|sets| CapabilitySets {
                effective: sets.permitted & kept,
                ..sets
            }),
        }
    }

    /// Runs `make` with the files that it makes belonging to that user.
    pub(crate) fn acting_as<T>(
        &self,
        uid: u32,
        gid: u32,
        make: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let Some(sets) = self.acting.filter(|_| (uid, gid) != (0, 0)) else {
            return make();
        };
        let _back = BecomeRoot;
        set_user(uid, gid)?;
        rustix::thread::set_capabilities(None, sets)?;
        make()
    }
}

/// Only of this thread: Linux keeps users by thread.
fn set_user(uid: u32, gid: u32) -> Result<(), Errno> {
    rustix::thread::set_thread_res_gid(None::<Gid>, Gid::from_raw(gid), None::<Gid>)?;
    rustix::thread::set_thread_res_uid(None::<Uid>, Uid::from_raw(uid), None::<Uid>)
}

struct BecomeRoot;

impl Drop for BecomeRoot {
    fn drop(&mut self) {
        let user = rustix::thread::set_thread_res_uid(None::<Uid>, Uid::ROOT, None::<Uid>);
        let group = rustix::thread::set_thread_res_gid(None::<Gid>, Gid::ROOT, None::<Gid>);
        // A worker that stayed another user would make files of the wrong
        // owner from now on. Root was the real user all the time.
        assert!(user.is_ok() && group.is_ok(), "cannot be root again");
    }
}
