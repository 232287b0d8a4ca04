//! Files: opened, made, closed, synced.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::names::masked;
use super::{Done, Filesystem};
use crate::cache::{Occasion, Verdict, Watched, Writers};
use crate::handles::{OpenFile, Opened};
use crate::inodes::Inode;
use crate::notices::Outdated;
use crate::rights::Asker;
use crate::source::{self, Look};
use crate::watch::Taken;
use crate::wire::abi::{self, FSYNC_DATA_ONLY, notice};
use crate::wire::{Answer, Fields, Header};

/// What a file is opened with in the source. The kernel's page cache may hand us
/// pages of a file by a descriptor that somebody opened for appending, and those
/// have a place, so the source must not append by itself; and O_DIRECT is between
/// the program and the kernel, not between us and the source.
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
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        // Our own descriptor would hide who else can write.
        let reader = (writes && self.inodes.tells_writers(&inode, &place))
            .then(|| source::open_again(&place, OFlags::RDONLY | OFlags::NONBLOCK).ok())
            .flatten();
        let before = match &reader {
            Some(reader) => Some(self.verdict(&inode, reader, false)?),
            None => None,
        };
        let mut opened = self.open_in_source(header, &place, flags)?;
        opened.live = self.is_live(&inode, &opened.fd)?;
        let verdict = match before {
            Some(verdict) => verdict,
            None => self.verdict(&inode, &opened.fd, writes)?,
        };
        self.answer_open(inode, place, opened, verdict, answer);
        Ok(())
    }

    /// Opens what `place` stands for. A file that may only be appended to (chattr
    /// +a) is opened for nothing else.
    fn open_in_source(
        &self,
        header: &Header,
        place: &OwnedFd,
        flags: OFlags,
    ) -> Result<Opened, Errno> {
        let made = OFlags::CREATE | OFlags::EXCL;
        let how = flags_in_source(flags) - made;
        let asker = Asker::of(header);
        let open = |how| {
            let open = || source::open_again(place, how);
            self.with_room(|| self.rights.acting_as(asker, open))
        };
        let appends = || open(how | OFlags::APPEND).map(|fd| (fd, true));
        let (fd, appends) = match open(how) {
            Err(Errno::PERM) if flags.contains(OFlags::APPEND) => appends()?,
            opened => (opened?, false),
        };
        let mut opened = Opened::by(header, fd, flags);
        opened.appends = appends;
        Ok(opened)
    }

    /// Whether a file that was just opened is to be asked itself, not its size.
    fn is_live(&self, inode: &Inode, fd: &OwnedFd) -> Result<bool, Errno> {
        let stat = source::look(fd)?.stat;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let empty = stat.st_size == 0;
        let lies = || empty && self.inodes.sizes_may_lie(inode);
        Ok(is_file && (self.inodes.is_live(inode, fd) || lies()))
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
        // What somebody else made meanwhile is not opened here, by our rights: the
        // kernel looks it up and checks those of who asks. And it may be a fifo, at
        // which an open waits.
        let how = flags_in_source(flags) | OFlags::CREATE | OFlags::EXCL;
        let made = self.rights.acting_as(Asker::of(header), || {
            rustix::fs::openat(&folder, name, how - OFlags::TRUNC, permissions)
        });
        let fd = made.map_err(|error| match error {
            // Linux looks again, once.
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
                self.outdated_by_answer(&inode);
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

    /// Has the kernel ask where a file ends that somebody else made longer or shorter:
    /// the answer to an open cannot say it, and the first read ends where the kernel
    /// believes the file to end. Nobody is waited for, since no pages are told of.
    fn tell_size(&self, inode: &Inode, look: &Look) {
        let told = inode.told_size.load(Relaxed) == look.stat.st_size.cast_unsigned();
        if !told && self.watched(inode) == Watched::Yes {
            // What comes of these events is not to come behind the answer.
            self.catch_up();
        }
        self.notices.after_answer(inode.node);
        if !told {
            self.send(&Answer::outdated_inode(inode.node, notice::NO_CONTENTS));
            inode.may_not_be_told();
        }
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
        let verdict = coherence.compare(&inode.identity, &look, watched, occasion);
        self.tell_size(inode, &look);
        Ok(verdict)
    }

    pub(super) fn release(&self, mut fields: Fields<'_>) -> Done {
        let file = self.files.remove(fields.u64()?).ok_or(Errno::BADF)?;
        let inode = Arc::clone(&file.inode);
        drop(file);
        // The inode's own descriptor was kept for it.
        self.inodes.queue(&inode);
        if inode.is_held_without_name() {
            self.notices.inode(inode.node, Outdated::Attributes);
        }
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
