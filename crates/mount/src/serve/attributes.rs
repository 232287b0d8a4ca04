//! Attributes of inodes and of the filesystem.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatVfs, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::holes::lifetimes;
use super::{Done, Filesystem};
use crate::cache::Touched;
use crate::handles::OpenFile;
use crate::inodes::Inode;
use crate::source;
use crate::wire::abi::{GETATTR_HANDLE, set};
use crate::wire::{Answer, Attributes, Fields, Header};

/// The body of SETATTR, whose `valid` says which of the others count.
#[derive(Clone, Copy, Debug)]
struct Changes {
    valid: u32,
    handle: u64,
    size: u64,
    atime: (u64, u32),
    mtime: (u64, u32),
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Changes {
    fn parse(mut fields: Fields<'_>) -> Result<Changes, Errno> {
        let valid = fields.u32()?;
        fields.skip(4)?;
        let (handle, size) = (fields.u64()?, fields.u64()?);
        fields.skip(8)?;
        let (atime, mtime, _ctime) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (atime_ns, mtime_ns, _ctime_ns) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let mode = fields.u32()?;
        fields.skip(4)?;
        Ok(Changes {
            valid,
            handle,
            size,
            atime: (atime, atime_ns),
            mtime: (mtime, mtime_ns),
            mode,
            uid: fields.u32()?,
            gid: fields.u32()?,
        })
    }

    fn has(&self, what: u32) -> bool {
        self.valid & what != 0
    }

    /// One time: now, as told, or as it is.
    fn time(&self, told: u32, now: u32, (seconds, nanoseconds): (u64, u32)) -> Timespec {
        let (tv_sec, tv_nsec) = match (self.has(told), self.has(now)) {
            (_, true) => (0, rustix::fs::UTIME_NOW),
            (true, false) => (seconds.cast_signed(), nanoseconds.into()),
            (false, false) => (0, rustix::fs::UTIME_OMIT),
        };
        Timespec { tv_sec, tv_nsec }
    }

    fn set_owner_and_mode(&self, place: &OwnedFd) -> Done {
        if self.has(set::MODE) {
            let mode = Mode::from_raw_mode(self.mode & 0o7777);
            rustix::fs::chmodat(CWD, source::path_of(place), mode, AtFlags::empty())?;
        }
        if self.has(set::UID | set::GID) {
            let uid = self.has(set::UID).then(|| Uid::from_raw(self.uid));
            let gid = self.has(set::GID).then(|| Gid::from_raw(self.gid));
            rustix::fs::chownat(place, c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        Ok(())
    }

    fn set_times(&self, place: &OwnedFd) -> Done {
        let times = Timestamps {
            last_access: self.time(set::ATIME, set::ATIME_NOW, self.atime),
            last_modification: self.time(set::MTIME, set::MTIME_NOW, self.mtime),
        };
        rustix::fs::utimensat(place, c"", &times, AtFlags::EMPTY_PATH)
    }
}

impl Filesystem {
    pub(super) fn get_attributes(
        &self,
        header: &Header,
        mut fields: Fields<'_>,
        answer: &mut Answer,
    ) -> Done {
        let flags = fields.u32()?;
        fields.skip(4)?;
        let handle = fields.u64()?;
        let (inode, look) = match flags & GETATTR_HANDLE != 0 && self.files.get(handle).is_ok() {
            true => {
                let file = self.files.get(handle)?;
                (Arc::clone(&file.inode), source::look(&file.fd)?)
            }
            false => {
                let (inode, place) = self.place(header.node)?;
                // Reads name an open file, stat(2) does not.
                let look = self.look_written(&inode, &place)?;
                (inode, look)
            }
        };
        self.note(&inode, &look);
        let lifetime = lifetimes(&inode, &look.stat).attributes;
        answer.attr(lifetime, &Attributes(look.stat));
        Ok(())
    }

    pub(super) fn set_attributes(
        &self,
        header: &Header,
        fields: Fields<'_>,
        answer: &mut Answer,
    ) -> Done {
        let changes = Changes::parse(fields)?;
        let (inode, place) = self.place(header.node)?;
        if changes.has(set::MODE | set::UID | set::GID) {
            self.changing(&inode, &place, Touched::Attributes, || {
                changes.set_owner_and_mode(&place)
            })?;
        }
        if changes.has(set::SIZE) {
            self.set_size(header, &inode, &place, &changes)?;
        }
        if changes.has(set::ATIME | set::MTIME | set::ATIME_NOW | set::MTIME_NOW) {
            self.changing(&inode, &place, Touched::Attributes, || {
                changes.set_times(&place)
            })?;
        }
        let look = source::look(&place)?;
        let lifetime = lifetimes(&inode, &look.stat).attributes;
        answer.attr(lifetime, &Attributes(look.stat));
        Ok(())
    }

    fn set_size(
        &self,
        header: &Header,
        inode: &Inode,
        place: &Arc<OwnedFd>,
        changes: &Changes,
    ) -> Done {
        if inode.kind != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        if changes.has(set::KILL_PRIVILEGES) {
            kill_privileges(place)?;
        }
        let file = self.file_of(changes).filter(|file| file.writable);
        self.changing(inode, place, Touched::All, || {
            self.rights
                .acting_as(header.uid, header.gid, || match file {
                    Some(file) => rustix::fs::ftruncate(&file.fd, changes.size),
                    None => source::open_again(place, OFlags::WRONLY | OFlags::NONBLOCK)
                        .and_then(|fd| rustix::fs::ftruncate(&fd, changes.size)),
                })
        })
    }

    fn file_of(&self, changes: &Changes) -> Option<Arc<OpenFile>> {
        changes
            .has(set::HANDLE)
            .then(|| self.files.get(changes.handle).ok())
            .flatten()
    }

    pub(super) fn stat_filesystem(&self, header: &Header, answer: &mut Answer) -> Done {
        let (_, place) = self.place(header.node)?;
        let StatVfs {
            f_bsize,
            f_frsize,
            f_blocks,
            f_bfree,
            f_bavail,
            f_files,
            f_ffree,
            f_namemax,
            ..
        } = rustix::fs::fstatvfs(&place)?;
        for number in [f_blocks, f_bfree, f_bavail, f_files, f_ffree] {
            answer.u64(number);
        }
        for number in [f_bsize, f_namemax, f_frsize] {
            answer.u32(number as u32);
        }
        answer.zeros(28);
        Ok(())
    }
}

/// Takes set-user-id away, and set-group-id where it is not a mark of locking:
/// what a change by somebody else does to a file.
pub(super) fn kill_privileges(fd: impl AsFd) -> Done {
    let mode = source::look(&fd)?.stat.st_mode;
    take_from_mode(fd, 0o4000 | if mode & 0o010 != 0 { 0o2000 } else { 0 })
}

/// Takes bits from a mode that has them.
pub(super) fn take_from_mode(fd: impl AsFd, lost: u32) -> Done {
    let mode = source::look(&fd)?.stat.st_mode;
    if mode & lost == 0 {
        return Ok(());
    }
    let kept = Mode::from_raw_mode(mode & 0o7777 & !lost);
    rustix::fs::chmodat(CWD, source::path_of(&fd), kept, AtFlags::empty())
}
