//! The inodes that the kernel knows, by number and by identity.
//!
//! Stage: every request names an inode by its number here.
//!
//! - An inode has one number as long as the kernel remembers it, and a number
//!   is never used again.
//! - An inode that can be opened again by its handle keeps a descriptor only
//!   while it is used: at most `descriptors_max` beyond those of open files. Any
//!   other is *pinned*: it keeps one as long as the kernel remembers it.
//! - When there are more inodes, or more pinned ones, than their limits, the
//!   kernel is asked to forget the oldest that nobody uses.
//!
//! Lock order: the table, then one inode's place. No call into the source is
//! made under either.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::CStr;
use std::hash::{Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use std::time::{Duration, Instant};

use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;
use zcache_sys::fanotify;
use zcache_sys::filehandle::{FileHandle, MountId};

use crate::cache::{Coherence, Writers};
use crate::identity::{self, Identity, Key, Lasting, Numbers};
use crate::source::{self, Look};
use crate::wire::abi::ROOT;

/// ext2 to ext4, XFS, Btrfs, F2FS and tmpfs, by their numbers in statfs(2).
const LOCAL_FILESYSTEMS: [u64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994];

/// Room of the maps beyond their inodes, as a multiple, before it is given back.
const SLACK: usize = 4;
/// When the kernel is asked again to forget inodes that were in use.
const ASKED_AGAIN: Duration = Duration::from_secs(5);

/// Inodes for which the maps always have room.
const ROOM_MIN: usize = 1024;

/// What an inode takes in RAM, with its places in the maps.
const INODE_BYTES: usize = size_of::<Inode>() + 16 + 2 * 2 * (size_of::<usize>() + 1);

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
    /// The mode, owner and group that it believes, if that is known.
    told_rights: Mutex<Option<(u32, u32, u32)>>,
    /// Waits among those whose descriptor may be closed.
    queued: AtomicBool,
    /// Times that the kernel was told of it and has not forgotten it. Goes down
    /// with the table locked for writing.
    lookups: AtomicU64,
    place: Mutex<Option<Arc<OwnedFd>>>,
    coherence: OnceLock<Arc<Coherence>>,
}

impl Inode {
    /// What is known of the cached pages of this file, begun by the first open.
    pub(crate) fn coherence(&self) -> &Coherence {
        self.coherence.get_or_init(Arc::default)
    }

    /// The same if the file was ever opened.
    pub(crate) fn coherence_if_any(&self) -> Option<&Coherence> {
        self.coherence.get().map(|coherence| &**coherence)
    }

    /// We have made the file so long, if it was shorter, and the kernel knows.
    pub(crate) fn grew_to(&self, size: u64) {
        self.told_size.fetch_max(size, Relaxed);
    }

    /// Whether nothing but our descriptor keeps the file, unless the kernel uses it.
    pub(crate) fn is_held_without_name(&self) -> bool {
        if self.kind != FileType::RegularFile || self.opens.load(Relaxed) > 0 {
            return false;
        }
        let place = lock(&self.place).clone();
        place.is_some_and(source::has_no_name)
    }

    /// The kernel is told of these attributes.
    pub(crate) fn tell(&self, stat: &Stat) {
        self.told_size.store(stat.st_size.cast_unsigned(), Relaxed);
        *lock(&self.told_rights) = Some(rights_of(stat));
    }

    /// A notice is sent, with which the kernel may drop attributes that are on their
    /// way.
    pub(crate) fn may_not_be_told(&self) {
        *lock(&self.told_rights) = None;
    }

    /// Whether the kernel knows where the file ends and who may use it.
    pub(crate) fn is_told(&self, stat: &Stat) -> bool {
        self.told_size.load(Relaxed) == stat.st_size.cast_unsigned()
            && *lock(&self.told_rights) == Some(rights_of(stat))
    }

    /// Whether it is longer than the kernel believes.
    pub(crate) fn grew_beside(&self, look: &Look) -> bool {
        look.stat.st_size.cast_unsigned() > self.told_size.load(Relaxed)
    }
}

fn rights_of(stat: &Stat) -> (u32, u32, u32) {
    (stat.st_mode, stat.st_uid, stat.st_gid)
}

/// An inode in the map by numbers.
#[derive(Debug)]
struct ByNode(Arc<Inode>);

/// An inode in the map by identities.
#[derive(Debug)]
struct ByKey(Arc<Inode>);

/// Hashed and compared by what it is borrowed as.
macro_rules! is_its_key {
    ($holder:ty, $key:ty, $of:expr) => {
        impl Borrow<$key> for $holder {
            fn borrow(&self) -> &$key {
                let of: fn(&Inode) -> &$key = $of;
                of(&self.0)
            }
        }
        impl Hash for $holder {
            fn hash<H: Hasher>(&self, state: &mut H) {
                Borrow::<$key>::borrow(self).hash(state);
            }
        }
        impl PartialEq for $holder {
            fn eq(&self, other: &Self) -> bool {
                Borrow::<$key>::borrow(self) == Borrow::<$key>::borrow(other)
            }
        }
        impl Eq for $holder {}
    };
}

is_its_key!(ByNode, u64, |inode| &inode.node);
is_its_key!(ByKey, Key, |inode| &inode.identity.key);

#[derive(Debug, Default)]
struct Table {
    by_node: HashSet<ByNode>,
    by_key: HashSet<ByKey>,
    /// How many inodes each mount shows.
    mounts: HashMap<MountId, usize>,
}

impl Table {
    fn known(&self, key: &Key) -> Option<&Arc<Inode>> {
        self.by_key.get(key).map(|ByKey(inode)| inode)
    }

    /// All inodes of a file, one for each mount that shows it.
    fn of_file<'a>(&'a self, name: &'a Lasting) -> impl Iterator<Item = &'a Arc<Inode>> {
        self.mounts.keys().filter_map(|mount| {
            self.known(&Key {
                mount: *mount,
                name: name.clone(),
            })
        })
    }

    fn insert(&mut self, inode: &Arc<Inode>) {
        let mount = inode.identity.key.mount;
        *self.mounts.entry(mount).or_default() += 1;
        self.by_node.insert(ByNode(Arc::clone(inode)));
        self.by_key.insert(ByKey(Arc::clone(inode)));
    }

    fn remove(&mut self, inode: &Inode) {
        self.by_node.remove(&inode.node);
        self.by_key.remove(&inode.identity.key);
        let mount = inode.identity.key.mount;
        if let Some(count) = self.mounts.get_mut(&mount) {
            *count -= 1;
            if *count == 0 {
                self.mounts.remove(&mount);
            }
        }
        let len = self.by_node.len().max(ROOM_MIN);
        if self.by_node.capacity() > SLACK * len {
            self.by_node.shrink_to(2 * len);
            self.by_key.shrink_to(2 * len);
        }
    }
}

/// What may be kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Descriptors of inodes that can be opened again.
    pub(crate) descriptors_max: usize,
    /// Descriptors of those that cannot.
    pub(crate) pinned_max: usize,
    /// Memory of all inodes.
    pub(crate) bytes_max: u64,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Inodes {
    table: RwLock<Table>,
    next_node: AtomicU64,
    /// Inodes whose place may be closed, the oldest first.
    placed: Mutex<VecDeque<u64>>,
    limits: Limits,
    pinned: AtomicUsize,
    /// How many inodes there were when the kernel was last asked to forget some.
    asked_at: Mutex<Option<(Instant, usize)>>,
    /// The source's mount, and a descriptor of it if handles can be opened.
    own_mount: MountId,
    mount: Option<OwnedFd>,
    device: u64,
    /// The source itself is of a filesystem whose files are made as they are read.
    live: bool,
    /// It is one whose files are what their size says.
    local: bool,
    pub(crate) numbers: Numbers,
    /// Whether the source's own filesystem tells who can write a file.
    tells_writers: bool,
    /// The device of our own mount, once there is one.
    own_device: OnceLock<u64>,
}

impl Inodes {
    /// A table that knows the root only.
    pub(crate) fn new(root: OwnedFd, limits: Limits) -> Result<Inodes, Errno> {
        let look = source::look(&root)?;
        let mount = source::open_again(&root, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let opens_again = |handle: FileHandle| {
            let flags = OFlags::PATH.bits().cast_signed();
            handle.open(mount.as_fd(), flags).is_ok()
        };
        let usable = identity::has_lasting_handles(&root)
            && FileHandle::of(root.as_fd()).is_ok_and(opens_again);
        let identity = Identity::of(&root, &look.stat, usable)?;
        let inodes = Inodes {
            table: RwLock::default(),
            next_node: AtomicU64::new(ROOT),
            placed: Mutex::default(),
            limits,
            pinned: AtomicUsize::new(0),
            asked_at: Mutex::default(),
            own_mount: identity.key.mount,
            device: look.stat.st_dev,
            live: identity::is_live(&root),
            local: is_told_of_everything(&mount).unwrap_or(false),
            tells_writers: source::tells_writers(&root) && !identity::is_live(&root),
            own_device: OnceLock::new(),
            numbers: Numbers::new(look.stat.st_dev),
            mount: usable.then_some(mount),
        };
        // Without a name in the queue the root's descriptor is never closed.
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

    pub(crate) fn len(&self) -> usize {
        self.read().by_node.len()
    }

    /// The inode of a number.
    ///
    /// # Errors
    /// ESTALE when the kernel was not told of it.
    pub(crate) fn get(&self, node: u64) -> Result<Arc<Inode>, Errno> {
        let table = self.read();
        let ByNode(inode) = table.by_node.get(&node).ok_or(Errno::STALE)?;
        Ok(Arc::clone(inode))
    }

    /// The inodes of a handle in the source's own filesystem that the kernel
    /// knows: one for each mount that shows the file.
    pub(crate) fn find(&self, handle: FileHandle) -> Vec<Arc<Inode>> {
        let name = Lasting::Handle(handle);
        self.read().of_file(&name).map(Arc::clone).collect()
    }

    /// The other inodes of the same file.
    pub(crate) fn others_of_file(&self, inode: &Inode) -> Vec<Arc<Inode>> {
        let table = self.read();
        if table.mounts.len() == 1 {
            return Vec::new();
        }
        let all = table.of_file(&inode.identity.key.name);
        let others = all.filter(|other| other.node != inode.node);
        others.map(Arc::clone).collect()
    }

    /// Whether there are others of the same file.
    pub(crate) fn is_elsewhere(&self, inode: &Inode) -> bool {
        !self.others_of_file(inode).is_empty()
    }

    /// All inodes whose files were ever opened.
    pub(crate) fn opened(&self) -> Vec<Arc<Inode>> {
        let table = self.read();
        let inodes = table.by_node.iter().map(|ByNode(inode)| inode);
        let opened = inodes.filter(|inode| inode.coherence_if_any().is_some());
        opened.map(Arc::clone).collect()
    }

    /// Watches the source's filesystem, if that is possible and tells all.
    pub(crate) fn watch(&self) -> io::Result<fanotify::Watch> {
        let mount = self.mount.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        match self.local {
            true => fanotify::Watch::of_filesystem(mount.as_fd()),
            false => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether a file is made as it is read, so that neither its size nor its
    /// times say anything; `fd` is open on it.
    pub(crate) fn is_live(&self, inode: &Inode, fd: &OwnedFd) -> bool {
        match inode.identity.device == self.device {
            true => self.live,
            false => identity::is_live(fd),
        }
    }

    /// Whether an empty file may have contents all the same, as some servers have
    /// it.
    pub(crate) fn sizes_may_lie(&self, inode: &Inode) -> bool {
        inode.identity.device != self.device || !self.local
    }

    /// Whether the filesystem of an inode tells who can write a file. To open one
    /// that is made as it is read may do something, and nothing of it is kept.
    pub(crate) fn tells_writers(&self, inode: &Inode, fd: impl AsFd) -> bool {
        match inode.identity.device == self.device {
            true => self.tells_writers,
            false => source::tells_writers(&fd) && !identity::is_live(fd),
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
            Ok(true) if self.are_no_writers(inode) => Writers::Somebody,
            Ok(true) => Writers::Unknown,
            // Without leases nobody can be found out.
            Err(_) => Writers::Nobody,
        }
    }

    /// Whether nobody can write a file through us, on whichever path.
    fn are_no_writers(&self, inode: &Inode) -> bool {
        let none = |inode: &Inode| inode.writers.load(Relaxed) == 0;
        none(inode) && self.others_of_file(inode).iter().all(|other| none(other))
    }

    /// Counts one more time that the kernel is told of what `fd` stands for.
    pub(crate) fn enter(&self, fd: OwnedFd, look: &Look) -> Result<Arc<Inode>, Errno> {
        let by_handle = self.mount.is_some() && look.stat.st_dev == self.device;
        let identity = Identity::of(&fd, &look.stat, by_handle)?;
        let table = self.read();
        if let Some(known) = table.known(&identity.key) {
            known.lookups.fetch_add(1, Relaxed);
            return Ok(Arc::clone(known));
        }
        drop(table);
        let (inode, is_new) = self.insert(identity, &look.stat, fd);
        if is_new && self.is_pinned(&inode) {
            self.pinned.fetch_add(1, Relaxed);
        } else if is_new {
            self.queue(&inode);
        }
        Ok(inode)
    }

    /// The inode, and whether it was not known.
    fn insert(&self, identity: Identity, stat: &Stat, fd: OwnedFd) -> (Arc<Inode>, bool) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = table.known(&identity.key) {
            known.lookups.fetch_add(1, Relaxed);
            return (Arc::clone(known), false);
        }
        let coherence = OnceLock::new();
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if is_file
            && table
                .mounts
                .keys()
                .any(|mount| *mount != identity.key.mount)
        {
            // What one path changes is changed on the other.
            if let Some(other) = table.of_file(&identity.key.name).next() {
                let shared = other.coherence.get_or_init(Arc::default);
                let _ = coherence.set(Arc::clone(shared));
            }
        }
        let inode = Arc::new(Inode {
            node: self.next_node.fetch_add(1, Relaxed),
            identity,
            kind: FileType::from_raw_mode(stat.st_mode),
            opens: AtomicU32::new(0),
            writers: AtomicU32::new(0),
            mappers: AtomicU32::new(0),
            told_size: AtomicU64::new(0),
            told_rights: Mutex::default(),
            queued: AtomicBool::new(false),
            lookups: AtomicU64::new(1),
            place: Mutex::new(Some(Arc::new(fd))),
            coherence,
        });
        table.insert(&inode);
        (inode, true)
    }

    /// Takes back what [`Inodes::enter`] counted. Gives the inode when the
    /// kernel does not know it any more.
    pub(crate) fn forget(&self, node: u64, times: u64) -> Option<Arc<Inode>> {
        if node == ROOT {
            return None;
        }
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let ByNode(inode) = table.by_node.get(&node)?;
        let inode = Arc::clone(inode);
        let left = inode.lookups.load(Relaxed).saturating_sub(times);
        inode.lookups.store(left, Relaxed);
        if left > 0 {
            return None;
        }
        table.remove(&inode);
        drop(table);
        if self.is_pinned(&inode) {
            self.pinned.fetch_sub(1, Relaxed);
        }
        Some(inode)
    }

    /// Whether it cannot be opened again: handles are opened by the source's own
    /// mount.
    fn is_pinned(&self, inode: &Inode) -> bool {
        let own = inode.identity.key.mount == self.own_mount;
        !(own && inode.identity.has_handle())
    }

    /// A descriptor (`O_PATH`) of an inode.
    ///
    /// # Errors
    /// ESTALE when the file is gone.
    pub(crate) fn place(&self, inode: &Arc<Inode>) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(fd) = &*lock(&inode.place) {
            return Ok(Arc::clone(fd));
        }
        let (Lasting::Handle(handle), Some(mount)) = (&inode.identity.key.name, &self.mount) else {
            return Err(Errno::STALE);
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let fd = handle
            .open(mount.as_fd(), flags.bits().cast_signed())
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::STALE))?;
        let fd = Arc::new(fd);
        let mut place = lock(&inode.place);
        let fd = Arc::clone(place.get_or_insert(fd));
        drop(place);
        self.queue(inode);
        Ok(fd)
    }

    /// Notes that an inode's descriptor may be closed, as after its last open
    /// file, and closes the oldest when there are too many.
    pub(crate) fn queue(&self, inode: &Arc<Inode>) {
        if self.is_pinned(inode) || inode.queued.swap(true, Relaxed) {
            return;
        }
        let mut placed = lock(&self.placed);
        placed.push_back(inode.node);
        let excess = placed.len().saturating_sub(self.limits.descriptors_max);
        let oldest: Vec<u64> = placed.drain(..excess).collect();
        drop(placed);
        self.close_places(&oldest);
    }

    fn close_places(&self, nodes: &[u64]) {
        for node in nodes {
            let Ok(inode) = self.get(*node) else {
                continue;
            };
            inode.queued.store(false, Relaxed);
            // An unlinked file lives by this descriptor while it is open. It
            // comes here again when it is not.
            if inode.opens.load(Relaxed) == 0 {
                drop(lock(&inode.place).take());
            }
        }
    }

    /// Inodes that nobody has open and that have a descriptor, or had one.
    pub(crate) fn held(&self) -> Vec<Arc<Inode>> {
        let placed: Vec<u64> = lock(&self.placed).iter().copied().collect();
        let mut held: Vec<_> = placed
            .iter()
            .filter_map(|node| self.get(*node).ok())
            .collect();
        if self.pinned.load(Relaxed) > 0 {
            let table = self.read();
            let inodes = table.by_node.iter().map(|ByNode(inode)| inode);
            held.extend(inodes.filter(|inode| self.is_pinned(inode)).cloned());
        }
        held
    }

    /// Closes all descriptors that can be opened again.
    pub(crate) fn close_all_places(&self) {
        let placed: Vec<u64> = lock(&self.placed).drain(..).collect();
        self.close_places(&placed);
    }

    /// How many inodes are too many, and how many pinned ones, with some more so
    /// that they are not too many at once again.
    fn excess(&self) -> (usize, usize) {
        let inodes_max = (self.limits.bytes_max / INODE_BYTES as u64) as usize;
        let beyond = |count: usize, max: usize| match count > max {
            true => count - max + max / 8,
            false => 0,
        };
        let pinned = self.pinned.load(Relaxed);
        (
            beyond(self.len(), inodes_max),
            beyond(pinned, self.limits.pinned_max),
        )
    }

    /// Whether the kernel is to be asked to forget some inodes. Where that did
    /// not help, for they are used, it is asked again when there are more of them
    /// or after a while.
    pub(crate) fn are_too_many(&self) -> bool {
        if self.excess() == (0, 0) {
            return false;
        }
        let (now, len) = (Instant::now(), self.len());
        let mut asked_at = lock(&self.asked_at);
        let in_vain = asked_at.is_some_and(|(when, had)| {
            now.duration_since(when) < ASKED_AGAIN
                && (had - had / 16..had + had / 16).contains(&len)
        });
        if !in_vain {
            *asked_at = Some((now, len));
        }
        !in_vain
    }

    /// Inodes that the kernel is to forget so that the limits hold: the oldest
    /// that have no file open. The kernel knows whether somebody uses them.
    pub(crate) fn to_forget(&self) -> Vec<u64> {
        let (any, of_pinned) = self.excess();
        if (any, of_pinned) == (0, 0) {
            return Vec::new();
        }
        let table = self.read();
        let inodes = table.by_node.iter().map(|ByNode(inode)| inode);
        let unused = inodes.filter(|inode| inode.opens.load(Relaxed) == 0 && inode.node != ROOT);
        let mut nodes: Vec<u64> = match of_pinned > any {
            true => unused
                .filter(|inode| self.is_pinned(inode))
                .map(|inode| inode.node)
                .collect(),
            false => unused.map(|inode| inode.node).collect(),
        };
        drop(table);
        let wanted = any.max(of_pinned);
        if wanted < nodes.len() {
            nodes.select_nth_unstable(wanted);
            nodes.truncate(wanted);
        }
        // What lies deeper was met later, and holds what it lies in.
        nodes.sort_unstable_by(|one, other| other.cmp(one));
        nodes
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
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
