//! The filesystem: what each request does to the source and to the cache.
//!
//! Stage: behind the protocol. Parents branch here; the leaves are by subject:
//! names, attributes, files, data, folders.
//!
//! - Who may do what was decided by the kernel that asks (it checks modes and
//!   access lists); what is made belongs to the user who asked.
//! - An error of the source is the answer, unchanged.
//! - No lock is held while the source works.

mod attributes;
mod beside;
mod changes;
mod data;
mod extended;
mod files;
mod folders;
mod holes;
mod names;

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::io::Errno;

use crate::cache::{Cache, Occasion, Verdict, Watched};
use crate::device::Device;
use crate::handles::{Handles, OpenFile, OpenFolder};
use crate::inodes::{Inode, Inodes};
use crate::notices::{Notices, Outdated};
use crate::rights::Rights;
use crate::source::Look;
use crate::watch::Watch;
use crate::wire::abi::opcode;
use crate::wire::{Answer, Attributes, Entry, Fields, Header, Lifetimes};

/// How long the kernel believes names and attributes: so late it may see what
/// is changed beside us in a file that is open already.
pub(crate) const LIFETIMES: Lifetimes = Lifetimes {
    entry: Duration::from_secs(1),
    attributes: Duration::from_secs(1),
};

/// How often, and after what time each, a descriptor is asked for again.
const TRIES_MAX: usize = 20;
const TRY_PERIOD: Duration = Duration::from_millis(25);

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Filesystem {
    pub(crate) inodes: Inodes,
    pub(crate) files: Handles<OpenFile>,
    pub(crate) folders: Handles<OpenFolder>,
    pub(crate) cache: Cache,
    /// Where the source's filesystem can be watched.
    pub(crate) watch: Option<Watch>,
    pub(crate) notices: Notices,
    /// Where the kernel is told what it did not ask for, once there is a mount.
    pub(crate) kernel: OnceLock<Device>,
    rights: Rights,
    /// The source's filesystem reads without leaving pages in the page cache.
    reads_uncached: AtomicBool,
}

type Done = Result<(), Errno>;

impl Filesystem {
    pub(crate) fn new(inodes: Inodes, cache: Cache, watch: Option<Watch>) -> Filesystem {
        Filesystem {
            inodes,
            files: Handles::default(),
            folders: Handles::default(),
            cache,
            watch,
            notices: Notices::default(),
            kernel: OnceLock::new(),
            rights: Rights::of_this_process(),
            reads_uncached: AtomicBool::new(true),
        }
    }

    /// Carries a request out and writes what it is answered. READ and the
    /// requests without an answer do not come here.
    pub(crate) fn serve(&self, header: &Header, fields: Fields<'_>, answer: &mut Answer) -> Done {
        let done = self.carry_out(header, fields, answer);
        match done {
            // The kernel has found this inode by a name: it looks again what that
            // stands for now.
            Err(Errno::NOENT) if is_about_an_inode(header.opcode) => Err(Errno::STALE),
            done => done,
        }
    }

    fn carry_out(&self, header: &Header, fields: Fields<'_>, answer: &mut Answer) -> Done {
        match header.opcode {
            opcode::LOOKUP => self.lookup(header, fields, answer),
            opcode::GETATTR => self.get_attributes(header, fields, answer),
            opcode::STATX => self.get_birth(header, fields, answer),
            opcode::SETATTR => self.set_attributes(header, fields, answer),
            opcode::READLINK => self.read_link(header, answer),
            opcode::SYMLINK => self.make_symlink(header, fields, answer),
            opcode::MKNOD => self.make_node(header, fields, answer),
            opcode::MKDIR => self.make_folder(header, fields, answer),
            opcode::UNLINK => self.unlink(header, fields, false),
            opcode::RMDIR => self.unlink(header, fields, true),
            opcode::RENAME => self.rename(header, fields, false),
            opcode::RENAME2 => self.rename(header, fields, true),
            opcode::LINK => self.link(header, fields, answer),
            opcode::OPEN => self.open(header, fields, answer),
            opcode::CREATE => self.create(header, fields, answer),
            opcode::TMPFILE => self.make_unnamed(header, fields, answer),
            opcode::RELEASE => self.release(fields),
            opcode::FLUSH => self.flush(fields),
            opcode::FSYNC => self.sync(fields),
            opcode::WRITE => self.write(header, fields, answer),
            opcode::FALLOCATE => self.allocate(header, fields),
            opcode::LSEEK => self.seek(fields, answer),
            opcode::COPY_FILE_RANGE => self.copy_range(header, fields, answer),
            opcode::STATFS => self.stat_filesystem(header, answer),
            opcode::SETXATTR => self.set_extended(header, fields),
            opcode::GETXATTR => self.get_extended(header, fields, answer),
            opcode::LISTXATTR => self.list_extended(header, fields, answer),
            opcode::REMOVEXATTR => self.remove_extended(header, fields),
            opcode::OPENDIR => self.open_folder(header, answer),
            opcode::READDIR => self.read_folder(header, fields, answer, false),
            opcode::READDIRPLUS => self.read_folder(header, fields, answer, true),
            opcode::RELEASEDIR => self.release_folder(fields),
            opcode::FSYNCDIR => self.sync_folder(fields),
            opcode::IOCTL => Err(Errno::NOTTY),
            opcode::DESTROY => Ok(()),
            _ => Err(Errno::NOSYS),
        }
    }

    /// The kernel forgets inodes; it waits for no answer.
    pub(crate) fn forget(&self, header: &Header, mut fields: Fields<'_>) -> Done {
        if header.opcode == opcode::FORGET {
            self.forget_one(header.node, fields.u64()?);
            return Ok(());
        }
        let count = fields.u32()?;
        fields.skip(4)?;
        for _ in 0..count {
            let node = fields.u64()?;
            self.forget_one(node, fields.u64()?);
        }
        Ok(())
    }

    fn forget_one(&self, node: u64, times: u64) {
        let Some(inode) = self.inodes.forget(node, times) else {
            return;
        };
        let object = inode.coherence_if_any().and_then(|c| c.not_to_be_kept());
        if let Some(object) = object {
            self.cache.flush(object);
        }
    }

    /// Opens something. At the limit of descriptors inodes make room for it: a
    /// look-up that fails would be a file that is not there, and an open would have
    /// less room than there is.
    fn with_room<T>(&self, open: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        for _ in 0..TRIES_MAX {
            match open() {
                Err(Errno::MFILE | Errno::NFILE) => {
                    self.inodes.close_all_places();
                    self.notices.too_many();
                    std::thread::sleep(TRY_PERIOD);
                }
                result => return result,
            }
        }
        open()
    }

    /// Has the kernel asked to forget inodes where there are too many.
    pub(crate) fn keep_few_inodes(&self) {
        if self.inodes.are_too_many() {
            self.notices.too_many();
        }
    }

    /// The inode of a request and a descriptor of it.
    fn place(&self, node: u64) -> Result<(Arc<Inode>, Arc<OwnedFd>), Errno> {
        let inode = self.inodes.get(node)?;
        let place = self.inodes.place(&inode)?;
        Ok((inode, place))
    }

    /// Tells the kernel of an inode that a name in a folder stands for, which
    /// counts as its having looked it up.
    fn enter(&self, folder: u64, fd: OwnedFd, look: &Look) -> Result<(Arc<Inode>, Entry), Errno> {
        let inode = self.inodes.enter(fd, look)?;
        self.note(&inode, look);
        let entry = Entry {
            node: inode.node,
            lifetimes: Lifetimes {
                entry: self.lifetime(&*self.inodes.get(folder)?, LIFETIMES.entry),
                attributes: self.told(&inode, &look.stat),
            },
            attributes: self.attributes(look),
        };
        if entry.lifetimes.attributes.is_zero() {
            self.outdated_elsewhere(&inode, Outdated::Attributes);
        }
        Ok((inode, entry))
    }

    /// How long attributes of an inode may be believed, or names in it: what other
    /// paths (of bind mounts) change as well, not at all.
    fn lifetime(&self, inode: &Inode, usual: Duration) -> Duration {
        match self.inodes.is_elsewhere(inode) {
            true => Duration::ZERO,
            false => usual,
        }
    }

    /// Attributes as they are shown.
    fn attributes(&self, look: &Look) -> Attributes {
        let mut stat = look.stat;
        stat.st_ino = self.inodes.numbers.shown(stat.st_dev, stat.st_ino);
        Attributes(stat)
    }

    /// The kernel has outdated contents of a file, on whichever path. An answer
    /// about this inode is about to be sent.
    fn outdated_by_answer(&self, inode: &Inode) {
        self.notices.contents_later(inode.node);
        self.outdated_elsewhere(inode, Outdated::Contents);
    }

    /// The same on all other paths (of bind mounts) than that of this inode.
    fn outdated_elsewhere(&self, inode: &Inode, what: Outdated) {
        for other in self.inodes.others_of_file(inode) {
            self.notices.inode(other.node, what);
        }
    }

    /// Drops the pages of a file that was changed beside us.
    fn note(&self, inode: &Inode, look: &Look) {
        let Some(coherence) = inode.coherence_if_any() else {
            return;
        };
        let watched = self.watched_until(inode, look);
        if watched == Watched::No && inode.grew_beside(look) && !coherence.is_changing() {
            // Our own writes hide the time of others' but not this.
            if let Some(object) = coherence.changed_beside() {
                self.cache.flush(object);
            }
            self.outdated_by_answer(inode);
        }
        match coherence.compare(&inode.identity, look, watched, Occasion::Other) {
            Verdict::Right | Verdict::KernelBehind | Verdict::Unknown => {}
            Verdict::Doubtful(object) => self.cache.flush(object),
            Verdict::Stale(object) => {
                self.cache.flush(object);
                self.outdated_by_answer(inode);
            }
        }
    }
}

/// Whether a request names nothing but an inode that the kernel has found
/// before, so that it cannot be absent but only gone.
fn is_about_an_inode(code: u32) -> bool {
    matches!(
        code,
        opcode::GETATTR
            | opcode::STATX
            | opcode::SETATTR
            | opcode::READLINK
            | opcode::OPEN
            | opcode::OPENDIR
            | opcode::STATFS
            | opcode::GETXATTR
            | opcode::SETXATTR
            | opcode::LISTXATTR
            | opcode::REMOVEXATTR
    )
}
