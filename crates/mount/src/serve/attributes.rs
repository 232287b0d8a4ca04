//! Attributes of inodes and of the filesystem.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatVfs, StatxFlags, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::{Done, Filesystem};
use crate::cache::Touched;
use crate::handles::OpenFile;
use crate::inodes::Inode;
use crate::rights::{Asker, SetIds};
use crate::source::{self, Look};
use crate::wire::abi::{GETATTR_HANDLE, set};
use crate::wire::{Answer, Fields, Header};

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

    /// Whether bytes that are written later would undo this: they set the time, and
    /// take set-id bits. While the kernel cuts a file off it writes nothing back.
    fn are_undone_by_writes(&self) -> bool {
        let sets_time = self.has(set::MTIME) && !self.has(set::MTIME_NOW);
        let sets_ids = self.has(set::MODE) && self.mode & 0o6000 != 0;
        (sets_time || sets_ids) && !self.has(set::SIZE)
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

    fn set_mode(&self, place: &OwnedFd) -> Done {
        let mode = Mode::from_raw_mode(self.mode & 0o7777);
        rustix::fs::chmodat(CWD, source::path_of(place), mode, AtFlags::empty())
    }

    /// Sets the owner, or neither owner nor group: that takes set-id bits too.
    fn set_owner(&self, place: &OwnedFd) -> Done {
        let uid = self.has(set::UID).then(|| Uid::from_raw(self.uid));
        let gid = self.has(set::GID).then(|| Gid::from_raw(self.gid));
        rustix::fs::chownat(place, c"", uid, gid, AtFlags::EMPTY_PATH)
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
        let (inode, look) = self.look_at(header, &mut fields)?;
        let lifetime = self.told(&inode, &look.stat);
        answer.attr(lifetime, &self.attributes(&look));
        Ok(())
    }

    /// Looks at what GETATTR and STATX name: an open file, or the inode.
    fn look_at(
        &self,
        header: &Header,
        fields: &mut Fields<'_>,
    ) -> Result<(Arc<Inode>, Look), Errno> {
        let flags = fields.u32()?;
        fields.skip(4)?;
        let handle = fields.u64()?;
        let file = (flags & GETATTR_HANDLE != 0).then(|| self.files.get(handle).ok());
        let (inode, look) = match file.flatten() {
            Some(file) => (Arc::clone(&file.inode), source::look(&file.fd)?),
            None => {
                let (inode, place) = self.place(header.node)?;
                // Reads name an open file, stat(2) does not.
                let look = self.look_written(&inode, &place)?;
                (inode, look)
            }
        };
        self.note(&inode, &look);
        Ok((inode, look))
    }

    /// All attributes with the time of birth, for which the kernel asks when a
    /// program does.
    pub(super) fn get_birth(
        &self,
        header: &Header,
        mut fields: Fields<'_>,
        answer: &mut Answer,
    ) -> Done {
        let (inode, look) = self.look_at(header, &mut fields)?;
        let place = self.inodes.place(&inode)?;
        let found = rustix::fs::statx(&place, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME)?;
        let known = found.stx_mask & StatxFlags::BTIME.bits() != 0;
        let birth = known.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec));
        let lifetime = self.told(&inode, &look.stat);
        answer.statx(lifetime, &self.attributes(&look), birth);
        Ok(())
    }

    pub(super) fn set_attributes(
        &self,
        header: &Header,
        fields: Fields<'_>,
        answer: &mut Answer,
    ) -> Done {
        let changes = Changes::parse(fields)?;
        let asker = Asker::of(header);
        let (inode, place) = self.place(header.node)?;
        let attributes =
            |change: &dyn Fn() -> Done| self.changing(&inode, &place, Touched::Attributes, change);
        if changes.are_undone_by_writes() {
            self.write_stores_back(&inode);
        }
        if changes.has(set::MODE) {
            let change = || changes.set_mode(&place);
            attributes(&|| self.rights.or_as(asker, change))?;
        }
        if changes.has(set::UID | set::GID) {
            let change = || changes.set_owner(&place);
            let untold = SetIds::Untold;
            attributes(&|| self.rights.changing_as(asker, untold, &place, change))?;
        }
        if changes.has(set::SIZE) {
            self.set_size(asker, &inode, &place, &changes)?;
        }
        if changes.has(set::TIMES) {
            let change = || changes.set_times(&place);
            attributes(&|| self.rights.or_as(asker, change))?;
        }
        if !changes.has(set::MODE | set::UID | set::GID | set::SIZE | set::TIMES) {
            attributes(&|| self.take_set_ids(asker, &inode, &changes, &place))?;
        }
        let look = source::look(&place)?;
        let lifetime = self.told(&inode, &look.stat);
        answer.attr(lifetime, &self.attributes(&look));
        Ok(())
    }

    /// What comes of chown(-1, -1), which nobody has checked, and also before
    /// each write to a file with set-id bits or capabilities. That write takes
    /// them itself, by the rules for who writes.
    fn take_set_ids(
        &self,
        asker: Asker,
        inode: &Inode,
        changes: &Changes,
        place: &OwnedFd,
    ) -> Done {
        let is_written = inode.writers.load(Relaxed) > 0;
        if is_written && asker.uid == 0 {
            return Ok(());
        }
        let change = || changes.set_owner(place);
        match self.rights.as_himself(asker, change) {
            Err(Errno::PERM) if is_written => Ok(()),
            result => result,
        }
    }

    fn set_size(
        &self,
        asker: Asker,
        inode: &Inode,
        place: &Arc<OwnedFd>,
        changes: &Changes,
    ) -> Done {
        if inode.kind != FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        let set_ids = SetIds::lost_if(changes.has(set::KILL_PRIVILEGES));
        let open = || source::open_again(place, OFlags::WRONLY | OFlags::NONBLOCK);
        let file = self.file_of(changes).filter(|file| file.writable);
        let opened = match file {
            Some(_) => None,
            None => Some(self.rights.acting_as(asker, open)?),
        };
        let fd = opened.as_ref().or(file.as_ref().map(|file| &file.fd));
        let fd = fd.ok_or(Errno::BADF)?;
        self.changing(inode, place, Touched::All, || {
            let cut = || rustix::fs::ftruncate(fd, changes.size);
            self.rights.changing_as(asker, set_ids, fd, cut)
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

/// Takes bits from a mode that has them.
pub(super) fn take_from_mode(fd: impl AsFd, lost: u32) -> Done {
    let mode = source::look(&fd)?.stat.st_mode;
    if mode & lost == 0 {
        return Ok(());
    }
    let kept = Mode::from_raw_mode(mode & 0o7777 & !lost);
    rustix::fs::chmodat(CWD, source::path_of(&fd), kept, AtFlags::empty())
}
