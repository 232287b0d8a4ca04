//! Files: opened, made, closed, synced.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::names::masked;
use super::{Done, Filesystem};
use crate::cache::{Verdict, Watched};
use crate::handles::{OpenFile, Opened};
use crate::inodes::Inode;
use crate::notices::Outdated;
use crate::rights::Asker;
use crate::source::{self, Look};
use crate::watch::Taken;
use crate::wire::abi::{self, FSYNC_DATA_ONLY};
use crate::wire::{Answer, Fields, Header};

/// What a file is opened with in the source. The kernel has placed appended
/// bytes itself, and its page cache may hand us pages of a file that somebody
/// opened for appending, so the source must not append again; and O_DIRECT is
/// between the program and the kernel, not between us and the source.
fn flags_in_source(flags: OFlags) -> OFlags {
    let not_ours = OFlags::APPEND | OFlags::DIRECT | OFlags::NOFOLLOW;
    (flags - not_ours) | OFlags::CLOEXEC
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
        let made = OFlags::CREATE | OFlags::EXCL;
        let open = || source::open_again(&place, flags_in_source(flags) - made);
        let fd = self.rights.acting_as(Asker::of(header), open)?;
        let look = source::look(&fd)?;
        let mut opened = Opened::by(header, fd, flags);
        if FileType::from_raw_mode(look.stat.st_mode) == FileType::RegularFile {
            let empty = look.stat.st_size == 0;
            // Such a one is asked, not its size.
            opened.live = self.inodes.is_live(&inode, &opened.fd)
                || (empty && self.inodes.sizes_may_lie(&inode));
        }
        self.answer_open(inode, place, opened, &look, answer);
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
        // What somebody else made meanwhile is not opened here, by our rights:
        // the kernel looks it up and checks those of who asks.
        let how = flags_in_source(flags) | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let made = self.rights.acting_as(Asker::of(header), || {
            rustix::fs::openat(&folder, name, how, permissions)
        });
        let fd = made.map_err(|error| match error {
            Errno::EXIST if !flags.contains(OFlags::EXCL) => Errno::STALE,
            error => error,
        })?;
        self.answer_made(header, Opened::by(header, fd, flags), answer)
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
        let fd = self.rights.acting_as(Asker::of(header), || {
            rustix::fs::openat(&folder, c".", how, permissions)
        })?;
        self.answer_made(header, Opened::by(header, fd, flags), answer)
    }

    fn answer_made(&self, header: &Header, opened: Opened, answer: &mut Answer) -> Done {
        let place = source::open_again(&opened.fd, OFlags::PATH)?;
        let look = source::look(&opened.fd)?;
        let (inode, entry) = self.enter(header.node, place, &look)?;
        answer.entry(&entry);
        let place = self.inodes.place(&inode)?;
        self.answer_open(inode, place, opened, &look, answer);
        Ok(())
    }

    fn answer_open(
        &self,
        inode: Arc<Inode>,
        place: Arc<OwnedFd>,
        opened: Opened,
        look: &Look,
        answer: &mut Answer,
    ) {
        let keep = match self.verdict(&inode, look) {
            Verdict::Right => abi::open::KEEP_CACHE,
            Verdict::KernelBehind | Verdict::Unknown => 0,
            Verdict::Doubtful(object) => {
                self.cache.flush(object);
                0
            }
            Verdict::Stale(object) => {
                self.cache.flush(object);
                self.outdated(&inode, Outdated::Contents);
                0
            }
        };
        let elsewhere = self.inodes.is_elsewhere(&inode);
        // What is changed on another path does not reach the kernel's pages here
        // before it is told.
        let keep = if elsewhere { 0 } else { keep };
        let live = if opened.live { abi::open::DIRECT_IO } else { 0 };
        let file = OpenFile::new(inode, place, opened);
        let no_flush = if file.writable {
            0
        } else {
            abi::open::NO_FLUSH
        };
        answer.open(self.files.add(file), keep | no_flush | live);
    }

    /// What an open may believe of the pages kept.
    fn verdict(&self, inode: &Inode, look: &Look) -> Verdict {
        let coherence = inode.coherence();
        let mut watched = self.watched(inode);
        if watched == Watched::Yes && !coherence.is_known_by_stamp() {
            // Whoever changed it before this open has been told of by now.
            match self.catch_up() {
                Taken::All { .. } => {}
                Taken::NotAll | Taken::Lost => watched = Watched::No,
            }
        }
        coherence.compare(&inode.identity, look, watched, true)
    }

    pub(super) fn release(&self, mut fields: Fields<'_>) -> Done {
        let file = self.files.remove(fields.u64()?).ok_or(Errno::BADF)?;
        let inode = Arc::clone(&file.inode);
        drop(file);
        // The inode's own descriptor was kept for it.
        self.inodes.queue(&inode);
        Ok(())
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
