//! The inodes that the kernel knows, by number and by identity.
//!
//! Stage: every request names an inode by its number here.
//!
//! - An inode has one number as long as the kernel remembers it, and a number
//!   is never used again.
//! - An identity is the file's handle in its filesystem (which the filesystem
//!   never gives to another file), or its device, number and time of birth with
//!   a descriptor held open where there are no handles.
//! - At most `descriptors_max` descriptors of inodes with handles are kept
//!   beyond those of open files.
//!
//! Lock order: the table, then one inode's place. No call into the source is
//! made under either.

use std::collections::{HashMap, VecDeque};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use rustix::fs::{AtFlags, FileType, OFlags, Stat, StatxFlags};
use rustix::io::Errno;
use zcache_sys::fanotify;
use zcache_sys::filehandle::FileHandle;

use crate::cache::{Coherence, Writers};
use crate::source::{self, Look};
use crate::wire::abi::ROOT;

/// ext2 to ext4, XFS, Btrfs, F2FS and tmpfs, by their numbers in statfs(2).
const LOCAL_FILESYSTEMS: [u64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994];

/// What makes an inode itself.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) number: u64,
    pub(crate) name: Arc<Lasting>,
}

/// What tells an inode from a later one of the same number.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Lasting {
    /// The handle in the source's own filesystem, by which it can be opened
    /// again.
    Handle(FileHandle),
    /// Device, number, and seconds and nanoseconds of its birth, where the
    /// filesystem tells. While a descriptor is open the number is not given to
    /// another inode anyway.
    Birth(u64, u64, i64, u32),
}

/// An inode that the kernel knows.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) node: u64,
    pub(crate) identity: Identity,
    pub(crate) kind: FileType,
    /// Open files of it; while there are any, its descriptor stays.
    pub(crate) opens: AtomicU32,
    /// Those of them that can write.
    pub(crate) writers: AtomicU32,
    /// Those that can write by a mapping, too.
    pub(crate) mappers: AtomicU32,
    /// The size that the kernel believes.
    pub(crate) told_size: AtomicU64,
    place: Mutex<Option<Arc<OwnedFd>>>,
    coherence: OnceLock<Box<Coherence>>,
}

impl Identity {
    /// Whether it is of the source's own filesystem and can be opened again.
    pub(crate) fn has_handle(&self) -> bool {
        matches!(*self.name, Lasting::Handle(_))
    }
}

impl Inode {
    /// What is known of the cached pages of this file, begun by the first open.
    pub(crate) fn coherence(&self) -> &Coherence {
        self.coherence.get_or_init(Box::default)
    }

    /// The same if the file was ever opened.
    pub(crate) fn coherence_if_any(&self) -> Option<&Coherence> {
        self.coherence.get().map(|coherence| &**coherence)
    }

    /// We have made the file so long, if it was shorter, and the kernel knows.
    pub(crate) fn grew_to(&self, size: u64) {
        self.told_size.fetch_max(size, Relaxed);
    }

    /// Whether it is longer than the kernel believes.
    pub(crate) fn grew_beside(&self, look: &Look) -> bool {
        look.stat.st_size.cast_unsigned() > self.told_size.load(Relaxed)
    }
}

#[derive(Debug, Default)]
struct Table {
    by_node: HashMap<u64, Known>,
    by_name: HashMap<Arc<Lasting>, u64>,
}

#[derive(Debug)]
struct Known {
    inode: Arc<Inode>,
    /// Times that the kernel was told of it and has not forgotten it.
    lookups: u64,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Inodes {
    table: RwLock<Table>,
    next_node: AtomicU64,
    /// Inodes whose place may be closed, the oldest first.
    placed: Mutex<VecDeque<u64>>,
    descriptors_max: usize,
    /// A descriptor of the source's filesystem, if handles can be opened.
    mount: Option<OwnedFd>,
    device: u64,
    /// See [`source::tells_writers`], of the source's own filesystem.
    tells_writers: bool,
    /// The device of our own mount, once there is one.
    own_device: OnceLock<u64>,
}

impl Inodes {
    /// A table that knows the root only.
    pub(crate) fn new(root: OwnedFd, descriptors_max: usize) -> Result<Inodes, Errno> {
        let look = source::look(&root)?;
        let mount = source::open_again(&root, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let usable = FileHandle::of(root.as_fd())
            .and_then(|handle| handle.open(mount.as_fd(), OFlags::PATH.bits().cast_signed()))
            .is_ok();
        let inodes = Inodes {
            table: RwLock::default(),
            next_node: AtomicU64::new(ROOT),
            placed: Mutex::default(),
            descriptors_max,
            mount: usable.then_some(mount),
            device: look.stat.st_dev,
            tells_writers: source::tells_writers(&root),
            own_device: OnceLock::new(),
        };
        // Without a name in the queue the root's descriptor is never closed.
        let identity = inodes.identify(&root, &look.stat)?;
        inodes.insert(identity, &look.stat, root);
        Ok(inodes)
    }

    /// Says which device the mount is that is served.
    pub(crate) fn mounted_as(&self, minor: u32) {
        let _ = self.own_device.set(rustix::fs::makedev(0, minor));
    }

    /// Opens the name in a folder for nothing but its identity.
    ///
    /// # Errors
    /// ELOOP where our own mount shows up: we would ask ourselves.
    pub(crate) fn open_name(&self, folder: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
        let own = self.own_device.get().copied();
        source::open_name(folder, name, own.unwrap_or(u64::MAX))
    }

    /// Whether files are found again without keeping them open.
    pub(crate) fn has_handles(&self) -> bool {
        self.mount.is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.read().by_node.len()
    }

    /// The inode of a number.
    ///
    /// # Errors
    /// ESTALE when the kernel was not told of it.
    pub(crate) fn get(&self, node: u64) -> Result<Arc<Inode>, Errno> {
        let table = self.read();
        let known = table.by_node.get(&node).ok_or(Errno::STALE)?;
        Ok(Arc::clone(&known.inode))
    }

    /// The inode of a handle in the source's own filesystem, if the kernel knows
    /// it.
    pub(crate) fn find(&self, handle: FileHandle) -> Option<Arc<Inode>> {
        let table = self.read();
        let node = table.by_name.get(&Lasting::Handle(handle))?;
        Some(Arc::clone(&table.by_node.get(node)?.inode))
    }

    /// All inodes whose files were ever opened.
    pub(crate) fn opened(&self) -> Vec<Arc<Inode>> {
        let table = self.read();
        let inodes = table.by_node.values().map(|known| &known.inode);
        let opened = inodes.filter(|inode| inode.coherence_if_any().is_some());
        opened.map(Arc::clone).collect()
    }

    /// Watches the source's filesystem, if that is possible and tells all.
    pub(crate) fn watch(&self) -> io::Result<fanotify::Watch> {
        let mount = self.mount.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        match is_told_of_everything(mount)? {
            true => fanotify::Watch::of_filesystem(mount.as_fd()),
            false => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether the filesystem of an inode tells who can write a file.
    pub(crate) fn tells_writers(&self, inode: &Inode, fd: impl AsFd) -> bool {
        match inode.identity.device == self.device {
            true => self.tells_writers,
            false => source::tells_writers(fd),
        }
    }

    /// Whether anybody but us has a file open for writing; `fd` was opened just
    /// now, perhaps so that it can write itself.
    pub(crate) fn writers_beside(&self, inode: &Inode, fd: &OwnedFd, writes: bool) -> Writers {
        if !self.tells_writers(inode, fd) {
            return Writers::Nobody;
        }
        if writes {
            return Writers::Unknown;
        }
        match zcache_sys::lease::is_open_for_writing(fd.as_fd()) {
            Ok(false) => Writers::Nobody,
            Ok(true) if inode.writers.load(Relaxed) == 0 => Writers::Somebody,
            Ok(true) => Writers::Unknown,
            // Without leases nobody can be found out.
            Err(_) => Writers::Nobody,
        }
    }

    /// Counts one more time that the kernel is told of what `fd` stands for.
    pub(crate) fn enter(&self, fd: OwnedFd, look: &Look) -> Result<Arc<Inode>, Errno> {
        let identity = self.identify(&fd, &look.stat)?;
        let evictable = identity.has_handle();
        let inode = self.insert(identity, &look.stat, fd);
        if let Some(inode) = &inode.1
            && evictable
        {
            self.queue(inode.node);
        }
        Ok(inode.0)
    }

    fn insert(
        &self,
        identity: Identity,
        stat: &Stat,
        fd: OwnedFd,
    ) -> (Arc<Inode>, Option<Arc<Inode>>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = table.by_name.get(&identity.name).copied() {
            let known = table.by_node.get_mut(&node).expect("both maps agree");
            known.lookups += 1;
            return (Arc::clone(&known.inode), None);
        }
        let node = self.next_node.fetch_add(1, Relaxed);
        let inode = Arc::new(Inode {
            node,
            identity: identity.clone(),
            kind: FileType::from_raw_mode(stat.st_mode),
            opens: AtomicU32::new(0),
            writers: AtomicU32::new(0),
            mappers: AtomicU32::new(0),
            told_size: AtomicU64::new(0),
            place: Mutex::new(Some(Arc::new(fd))),
            coherence: OnceLock::new(),
        });
        table.by_name.insert(identity.name, node);
        let known = Known {
            inode: Arc::clone(&inode),
            lookups: 1,
        };
        table.by_node.insert(node, known);
        (Arc::clone(&inode), Some(inode))
    }

    /// Takes back what [`Inodes::enter`] counted. Gives the inode when the
    /// kernel does not know it any more.
    pub(crate) fn forget(&self, node: u64, times: u64) -> Option<Arc<Inode>> {
        if node == ROOT {
            return None;
        }
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let known = table.by_node.get_mut(&node)?;
        known.lookups = known.lookups.saturating_sub(times);
        if known.lookups > 0 {
            return None;
        }
        let known = table.by_node.remove(&node)?;
        table.by_name.remove(&known.inode.identity.name);
        Some(known.inode)
    }

    /// A descriptor (`O_PATH`) of an inode.
    ///
    /// # Errors
    /// ESTALE when the file is gone.
    pub(crate) fn place(&self, inode: &Inode) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(fd) = &*lock(&inode.place) {
            return Ok(Arc::clone(fd));
        }
        let (Lasting::Handle(handle), Some(mount)) = (&*inode.identity.name, &self.mount) else {
            return Err(Errno::STALE);
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let fd = handle
            .open(mount.as_fd(), flags.bits().cast_signed())
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::STALE))?;
        let fd = Arc::new(fd);
        let mut place = lock(&inode.place);
        let fresh = place.is_none();
        let fd = Arc::clone(place.get_or_insert(fd));
        drop(place);
        if fresh {
            self.queue(inode.node);
        }
        Ok(fd)
    }

    /// Notes an inode with a descriptor, and closes the oldest when there are
    /// too many.
    fn queue(&self, node: u64) {
        let mut placed = lock(&self.placed);
        placed.push_back(node);
        let mut tries = placed.len();
        while placed.len() > self.descriptors_max && tries > 0 {
            tries -= 1;
            let Some(oldest) = placed.pop_front() else {
                return;
            };
            let Ok(inode) = self.get(oldest) else {
                continue;
            };
            if inode.opens.load(Relaxed) > 0 {
                // An unlinked file lives by this descriptor.
                placed.push_back(oldest);
            } else {
                drop(lock(&inode.place).take());
            }
        }
    }

    fn identify(&self, fd: &OwnedFd, stat: &Stat) -> Result<Identity, Errno> {
        let handle = (self.has_handles() && stat.st_dev == self.device)
            .then(|| FileHandle::of(fd.as_fd()).ok())
            .flatten();
        let name = match handle {
            Some(handle) => Lasting::Handle(handle),
            None => {
                let flags = AtFlags::EMPTY_PATH;
                let birth = rustix::fs::statx(fd, c"", flags, StatxFlags::BTIME)?.stx_btime;
                Lasting::Birth(stat.st_dev, stat.st_ino, birth.tv_sec, birth.tv_nsec)
            }
        };
        Ok(Identity {
            device: stat.st_dev,
            number: stat.st_ino,
            name: Arc::new(name),
        })
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Filesystems that nobody else than this machine's kernel changes, and by
/// system calls that it tells of.
fn is_told_of_everything(mount: &OwnedFd) -> io::Result<bool> {
    let magic = rustix::fs::fstatfs(mount)?.f_type as u64;
    Ok(LOCAL_FILESYSTEMS.contains(&magic))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
