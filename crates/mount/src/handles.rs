//! Files and folders that are open through the mount.
//!
//! Stage: READ, WRITE and the like name what they work on by a number from
//! here. A number is not used again.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::inodes::Inode;
use crate::rights::Asker;
use crate::source;
use crate::wire::Header;

/// A file of the source that was just opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) fd: OwnedFd,
    pub(crate) flags: OFlags,
    /// Its size and times say nothing of what it has.
    pub(crate) live: bool,
    /// In the source, too, it can do nothing but append.
    pub(crate) appends: bool,
    opener: Asker,
}

impl Opened {
    /// By who made the request.
    pub(crate) fn by(header: &Header, fd: OwnedFd, flags: OFlags) -> Opened {
        Opened {
            fd,
            flags,
            live: false,
            appends: false,
            opener: Asker {
                // The thread may be another one by the time that it counts.
                pid: 0,
                ..Asker::of(header)
            },
        }
    }
}

/// An open file of the source.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) inode: Arc<Inode>,
    pub(crate) fd: OwnedFd,
    /// Opened with O_DIRECT: no page of it is looked for or kept.
    pub(crate) direct: bool,
    pub(crate) writable: bool,
    /// What it has is made as it is read.
    pub(crate) live: bool,
    /// See [`Opened::appends`].
    pub(crate) appends: bool,
    /// Who opened it.
    pub(crate) opener: Asker,
    /// The same file for long reads past the page cache; `None` where the
    /// filesystem has no such thing.
    past_cache: OnceLock<Option<OwnedFd>>,
    /// Keeps the inode's descriptor: an unlinked file is not found by its handle.
    _place: Arc<OwnedFd>,
    /// Dropped after `fd`.
    _counted: Counted,
}

/// An open file in the counts of its inode.
#[derive(Debug)]
struct Counted {
    inode: Arc<Inode>,
    writes: bool,
    maps: bool,
}

impl Counted {
    fn new(inode: &Arc<Inode>, flags: OFlags) -> Counted {
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        let maps = flags.contains(OFlags::RDWR);
        inode.opens.fetch_add(1, Relaxed);
        inode.writers.fetch_add(writes.into(), Relaxed);
        inode.mappers.fetch_add(maps.into(), Relaxed);
        Counted {
            inode: Arc::clone(inode),
            writes,
            maps,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.inode.opens.fetch_sub(1, Relaxed);
        self.inode.writers.fetch_sub(self.writes.into(), Relaxed);
        self.inode.mappers.fetch_sub(self.maps.into(), Relaxed);
    }
}

impl OpenFile {
    pub(crate) fn new(inode: Arc<Inode>, place: Arc<OwnedFd>, opened: Opened) -> OpenFile {
        OpenFile {
            _counted: Counted::new(&inode, opened.flags),
            inode,
            fd: opened.fd,
            direct: opened.flags.contains(OFlags::DIRECT) || opened.live,
            live: opened.live,
            writable: opened.flags.intersects(OFlags::WRONLY | OFlags::RDWR),
            appends: opened.appends,
            opener: opened.opener,
            past_cache: OnceLock::new(),
            _place: place,
        }
    }

    /// A descriptor that reads past the source's page cache, if there is one.
    pub(crate) fn past_cache(&self) -> Option<&OwnedFd> {
        let open = || source::open_again(&self.fd, OFlags::RDONLY | OFlags::DIRECT).ok();
        self.past_cache.get_or_init(open).as_ref()
    }
}

/// An open folder. Its position belongs to one reader at a time.
#[derive(Debug)]
pub(crate) struct OpenFolder {
    pub(crate) fd: Mutex<OwnedFd>,
    /// Its filesystem's, of which the numbers in it are.
    pub(crate) device: u64,
}

/// What is open, by number.
#[derive(Debug)]
pub(crate) struct Handles<T> {
    open: RwLock<HashMap<u64, Arc<T>>>,
    next: AtomicU64,
}

impl<T> Default for Handles<T> {
    fn default() -> Handles<T> {
        Handles {
            open: RwLock::default(),
            next: AtomicU64::new(1),
        }
    }
}

impl<T> Handles<T> {
    pub(crate) fn add(&self, opened: T) -> u64 {
        let number = self.next.fetch_add(1, Relaxed);
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.insert(number, Arc::new(opened));
        number
    }

    /// # Errors
    /// EBADF when nothing is open under this number.
    pub(crate) fn get(&self, number: u64) -> Result<Arc<T>, Errno> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&number).cloned().ok_or(Errno::BADF)
    }

    /// Those of the next higher numbers, in their order.
    pub(crate) fn after(&self, number: u64, count_max: usize) -> Vec<(u64, Arc<T>)> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let later = open.iter().filter(|(other, _)| **other > number);
        let mut later: Vec<_> = later
            .map(|(other, one)| (*other, Arc::clone(one)))
            .collect();
        drop(open);
        later.sort_unstable_by_key(|(other, _)| *other);
        later.truncate(count_max);
        later
    }

    pub(crate) fn remove(&self, number: u64) -> Option<Arc<T>> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.remove(&number)
    }

    pub(crate) fn len(&self) -> usize {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.len()
    }
}
