//! Files: opened, made, closed, synced.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::holes::lifetimes;
use super::names::masked;
use super::{Done, Filesystem};
use crate::cache::{Occasion, Verdict, Watched, Writers};
use crate::handles::{OpenFile, Opened};
use crate::inodes::Inode;
use crate::source;
use crate::watch::Taken;
use crate::wire::abi::{self, FSYNC_DATA_ONLY};
use crate::wire::{Answer, Fields, Header};

/// What a file is opened with in the source. The kernel's page cache may hand us
/// pages of a file by a descriptor that somebody opened for appending, and those
/// have a place, so the source must not append by itself; and O_DIRECT is between
/// the program and the kernel, not between us and the source.
fn flags_in_source(flags: OFlags) -> OFlags {
    let not_ours = OFlags::APPEND | OFlags::DIRECT | OFlags::NOFOLLOW;
    (flags - not_ours) | OFlags::CLOEXEC
}

/// Opens what `place` stands for. A file that may only be appended to (chattr +a)
/// is opened for nothing else.
fn open_in_source(header: &Header, place: &OwnedFd, flags: OFlags) -> Result<Opened, Errno> {
    let made = OFlags::CREATE | OFlags::EXCL;
    let how = flags_in_source(flags) - made;
    match source::open_again(place, how) {
        Err(Errno::PERM) if flags.contains(OFlags::APPEND) => {
            let fd = source::open_again(place, how | OFlags::APPEND)?;
            Ok(Opened {
                appends: true,
                ..Opened::by(header, fd, flags)
            })
        }
        opened => Ok(Opened::by(header, opened?, flags)),
    }
}

impl Filesystem {
    pub(super) fn open(
        &self,
        header: &Header,
        mut fields: Fields<'_>,
        answer: &mut Answer,
    ) -> Done {
        // The kernel cuts a file off by itself, after it has opened it.
        let flags = OFlags::from_bits_retain(fields.u32()?);
        let (inode, place) = self.place(header.node)?;
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        // Our own descriptor would hide who else can write.
        let reader = (writes && self.inodes.tells_writers(&inode, &place))
            .then(|| source::open_again(&place, OFlags::RDONLY | OFlags::NONBLOCK).ok())
            .flatten();
        let before = match &reader {
            Some(reader) => Some(self.verdict(&inode, reader, false)?),
            None => None,
        };
        let opened = open_in_source(header, &place, flags)?;
        let verdict = match before {
            Some(verdict) => verdict,
            None => self.verdict(&inode, &opened.fd, writes)?,
        };
        self.answer_open(inode, place, opened, verdict, answer);
        Ok(())
    }

    pub(super) fn create(
        &self,
        header: &Header,
        mut fields: Fields<'_>,
        answer: &mut Answer,
    ) -> Done {
        let (flags, mode) = (OFlags::from_bits_retain(fields.u32()?), fields.u32()?);
        let umask = fields.u32()?;
        fields.skip(4)?;
        let name = fields.name()?;
        let (_, folder) = self.place(header.node)?;
        let permissions = masked(folder.as_fd(), mode, umask);
        // What is there by now is to be looked up: it may be a fifo, at which an
        // open waits, and the kernel has not checked who may open it.
        let how = flags_in_source(flags) | OFlags::CREATE | OFlags::EXCL;
        let made = self.rights.acting_as(header.uid, header.gid, || {
            rustix::fs::openat(&folder, name, how - OFlags::TRUNC, permissions)
        });
        let fd = made.map_err(|error| match error {
            // Linux looks again, once.
            Errno::EXIST if !flags.contains(OFlags::EXCL) => Errno::STALE,
            error => error,
        })?;
        self.answer_made(Opened::by(header, fd, flags), answer)
    }

    /// A file without a name in a folder (O_TMPFILE).
    pub(super) fn make_unnamed(
        &self,
        header: &Header,
        mut fields: Fields<'_>,
        answer: &mut Answer,
    ) -> Done {
        let (flags, mode) = (OFlags::from_bits_retain(fields.u32()?), fields.u32()?);
        let umask = fields.u32()?;
        let (_, folder) = self.place(header.node)?;
        let permissions = masked(folder.as_fd(), mode, umask);
        let how = flags_in_source(flags) | OFlags::TMPFILE;
        let fd = self.rights.acting_as(header.uid, header.gid, || {
            rustix::fs::openat(&folder, c".", how, permissions)
        })?;
        self.answer_made(Opened::by(header, fd, flags), answer)
    }

    fn answer_made(&self, opened: Opened, answer: &mut Answer) -> Done {
        let place = source::open_again(&opened.fd, OFlags::PATH)?;
        let look = source::look(&opened.fd)?;
        let (inode, entry) = self.enter(place, &look)?;
        answer.entry(lifetimes(&inode, &look.stat), &entry);
        let place = self.inodes.place(&inode)?;
        let verdict = self.verdict(&inode, &opened.fd, true)?;
        self.answer_open(inode, place, opened, verdict, answer);
        Ok(())
    }

    fn answer_open(
        &self,
        inode: Arc<Inode>,
        place: Arc<OwnedFd>,
        opened: Opened,
        verdict: Verdict,
        answer: &mut Answer,
    ) {
        let keep = match verdict {
            Verdict::Right => abi::open::KEEP_CACHE,
            Verdict::KernelBehind | Verdict::Unknown => 0,
            Verdict::Doubtful(object) => {
                self.cache.flush(object);
                0
            }
            Verdict::Stale(object) => {
                self.cache.flush(object);
                self.notices.contents_later(inode.node);
                0
            }
        };
        let file = OpenFile::new(inode, place, opened);
        let no_flush = if file.writable {
            0
        } else {
            abi::open::NO_FLUSH
        };
        answer.open(self.files.add(file), keep | no_flush);
    }

    /// What an open may believe of the pages kept; `fd` was opened by it, and
    /// perhaps so that it can write.
    fn verdict(&self, inode: &Inode, fd: &OwnedFd, writes: bool) -> Result<Verdict, Errno> {
        let look = source::look(fd)?;
        let coherence = inode.coherence();
        let mut watched = self.watched(inode);
        let doubtful = coherence.differs(&look) || !coherence.is_known_by_stamp();
        if watched == Watched::Yes && doubtful {
            // Whoever changed it before this open has been told of by now.
            match self.catch_up() {
                Taken::All { .. } => {}
                Taken::NotAll | Taken::Lost => watched = Watched::No,
            }
        }
        let writers = match coherence.is_trusted(&look, watched) {
            true => Writers::Unknown,
            false => self.inodes.writers_beside(inode, fd, writes),
        };
        let occasion = Occasion::Open(writers);
        Ok(coherence.compare(&inode.identity, &look, watched, occasion))
    }

    pub(super) fn release(&self, mut fields: Fields<'_>) -> Done {
        self.files
            .remove(fields.u64()?)
            .map(drop)
            .ok_or(Errno::BADF)
    }

    /// A descriptor was closed. Filesystems that write late (NFS) say at a close
    /// what went wrong.
    pub(super) fn flush(&self, mut fields: Fields<'_>) -> Done {
        let file = self.files.get(fields.u64()?)?;
        if !file.writable {
            return Ok(());
        }
        let copy = rustix::io::fcntl_dupfd_cloexec(&file.fd, 0)?;
        zcache_sys::fd::close(copy)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    pub(super) fn sync(&self, mut fields: Fields<'_>) -> Done {
        let file = self.files.get(fields.u64()?)?;
        match fields.u32()? & FSYNC_DATA_ONLY != 0 {
            true => rustix::fs::fdatasync(&file.fd),
            false => rustix::fs::fsync(&file.fd),
        }
    }
}
