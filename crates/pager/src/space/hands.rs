//! The hands by which the pager reaches into an address space: the one seam
//! between what it decides and what Linux does.
//!
//! Stage on the data path: under fault and eviction. Nothing here decides
//! anything; what a call did is read back, not assumed.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use zcache::Page;
use zcache_sys::fd::{PidFd, wait_readable};
use zcache_sys::pagemap::{self, Region};
use zcache_sys::process::read_memory;
use zcache_sys::servant::{CODE_BYTES, Command, RING_BYTES, Ring, ServantError};
use zcache_sys::uffd::{MOVE_MODE_DONTWAKE, MoveArgs, Outcome, UFFDIO_MOVE, Uffd};
use zcache_sys::vma::{self, Mapping};

use super::Move;
use super::page_table::{Slot, Vpn};
use crate::budget::PAGE_BYTES;
use crate::sync::{Mutex, RwLock, lock};

/// How long a batch of the servant's is awaited.
const PATIENCE: Duration = Duration::from_millis(500);
/// Pages that the pen holds.
pub(crate) const PEN_PAGES: u64 = 64;

/// As DONTNEED, but also where the program has locked all of its memory.
const MADV_DONTNEED_LOCKED: u64 = 24;
const MADV_POPULATE_WRITE: u64 = 23;
const MAP_RESERVED: u64 =
    (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE)
        as u64;
const MLOCK_ONFAULT: u64 = 1;
const MREMAP_INTO_PEN: u64 =
    (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP) as u64;
/// The servant's own batches have no more data than this.
const BATCH_DATA_BYTES: usize = 8192;
const MOVE_ARGS_BYTES: usize = size_of::<MoveArgs>();

/// See the module's description. Pages are named by their numbers.
pub(crate) trait Hands: Send + Sync {
    /// Installs pages where none are and wakes who waits there.
    fn copy(&self, first: Vpn, pages: &[Page]) -> Outcome;
    /// Has whoever waits for these pages ask again.
    fn wake(&self, first: Vpn, count: u64);
    /// Makes a missing page raise SIGBUS.
    fn poison(&self, page: Vpn) -> io::Result<()>;
    /// Has missing pages of a range be asked for.
    fn register(&self, range: Range<u64>) -> io::Result<()>;
    /// Leaves a range to the kernel.
    fn unregister(&self, range: Range<u64>) -> io::Result<()>;
    /// For each page whether the kernel has one there; `None` when that cannot be
    /// told.
    fn present(&self, first: Vpn, count: u64) -> Option<Vec<bool>>;
    /// The runs of pages that the kernel has in a range.
    fn residents(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>>;
    /// The page ranges that can be paged: mappings of private anonymous memory; and
    /// groups of them, with nothing else mapped in between.
    fn pageable(&self) -> io::Result<Vec<Vec<Range<u64>>>>;
    /// The mappings in which some of these pages lie, in order, without their flags.
    fn mappings_of(&self, pages: &[Vpn]) -> io::Result<Vec<Mapping>>;
    /// All mappings, with or without their flags.
    fn mappings(&self, flags: bool) -> io::Result<Vec<Mapping>>;
    /// Whether pages can leave at all.
    fn can_evict(&self) -> bool;
    /// Moves pages to their slots as far as they go; with `populate` each is
    /// made the space's own first.
    fn move_out(&self, moves: &[Move], populate: bool) -> Result<(), ServantError>;
    /// The same for pages in locked memory, which is unlocked for that moment: so a page
    /// into which a device writes is still refused, as by the pen it would not be.
    fn move_locked(&self, moves: &[Move]) -> Result<(), ServantError>;
    /// Where the slots of the shadow lie, as pages.
    fn slot_page(&self, slot: Slot) -> Vpn;
    /// Reads slots; returns how many bytes could be read, none of them from an
    /// empty slot.
    fn read_slots(&self, first: Slot, buffer: &mut [u8]) -> io::Result<usize>;
    /// Gives the RAM of slots back to the kernel.
    fn free_slots(&self, first: Slot, count: u64) -> Result<(), ServantError>;
    /// Moves at most [`PEN_PAGES`] neighbouring pages into the pen, whatever their
    /// protection and with whomever they are shared. A mapping loses its lock by
    /// that; the one at `locked` gets it back.
    fn pen(&self, first: Vpn, count: u64, locked: Option<&Range<u64>>) -> Result<(), ServantError>;
    /// For each page of the pen whether one is there.
    fn pen_present(&self, count: u64) -> Option<Vec<bool>>;
    /// Reads one page of the pen.
    fn read_pen(&self, index: u64, page: &mut Page) -> io::Result<usize>;
    /// Gives the pen's RAM back.
    fn empty_pen(&self) -> Result<(), ServantError>;
    /// Waits for a batch that the servant has not finished.
    fn finish(&self, patience: Duration) -> Result<(), ServantError>;
    /// The real hands, if they are.
    fn kernel(&self) -> Option<&Kernel> {
        None
    }
}

/// See [`Hands::pageable`].
#[derive(Default)]
struct Groups {
    groups: Vec<Vec<Range<u64>>>,
    open: bool,
}

impl Groups {
    fn add(&mut self, mapping: &Mapping) {
        if !mapping.is_private_anonymous() {
            self.part();
            return;
        }
        let pages = mapping.range.start / PAGE_BYTES..mapping.range.end / PAGE_BYTES;
        if !self.open {
            self.groups.push(Vec::new());
            self.open = true;
        }
        let Some(group) = self.groups.last_mut() else {
            return;
        };
        group.push(pages);
    }

    /// Something else is mapped here.
    fn part(&mut self) {
        self.open = false;
    }

    fn done(self) -> Vec<Vec<Range<u64>>> {
        self.groups
    }
}

/// Where the pager's own mappings lie in an address space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    pub(crate) code: u64,
    pub(crate) ring: u64,
    pub(crate) shadow: u64,
    pub(crate) shadow_bytes: u64,
    pub(crate) pen: u64,
}

impl Places {
    /// Each of them: start and bytes.
    pub(crate) fn ranges(&self) -> [(u64, u64); 4] {
        [
            (self.code, CODE_BYTES),
            (self.ring, RING_BYTES),
            (self.shadow, self.shadow_bytes),
            (self.pen, PEN_PAGES * PAGE_BYTES),
        ]
    }

    /// Whether one of them has a part in `[start, end)`.
    pub(crate) fn overlap(&self, range: &Range<u64>) -> bool {
        let overlaps = |(start, len)| start < range.end && range.start < start + len;
        self.ranges().into_iter().any(overlaps)
    }
}

/// The servant as the pager sees it.
#[derive(Debug)]
pub(crate) struct Servant {
    /// Its number for the tracer.
    pub(crate) pid: i32,
    /// Its number for the program, whose child it is.
    pub(crate) inner_pid: i32,
    pub(crate) pidfd: PidFd,
    /// Number of the shadow's userfaultfd in the servant.
    pub(crate) shadow_fd: u64,
    pub(crate) gone: AtomicBool,
    pub(crate) guard_slot: OnceLock<usize>,
}

impl Servant {
    /// Whether it runs still, or is about to.
    pub(crate) fn lives(&self) -> bool {
        if !self.gone.load(Ordering::Acquire)
            && matches!(wait_readable(self.pidfd.as_fd(), Duration::ZERO), Ok(true))
        {
            self.gone.store(true, Ordering::Release);
        }
        !self.gone.load(Ordering::Acquire)
    }
}

/// Hands of a real process.
pub(crate) struct Kernel {
    pub(crate) uffd: Arc<Uffd>,
    pub(crate) shadow_uffd: Mutex<Uffd>,
    pub(crate) ring: Mutex<Ring>,
    pub(crate) servant: RwLock<Option<Arc<Servant>>>,
    pub(crate) pagemap: File,
    /// `/proc/PID/mem`, which reads whatever the protection. Like the others it was
    /// opened when the process could be looked at by whoever runs zcache, and stays
    /// open when that has changed.
    pub(crate) memory: File,
    pub(crate) maps: File,
    pub(crate) smaps: File,
    pub(crate) places: Places,
    /// A live thread of the program, by which its memory is looked at.
    pub(crate) thread: AtomicI32,
}

impl Kernel {
    pub(crate) fn servant(&self) -> Option<Arc<Servant>> {
        let servant = self.servant.read();
        servant.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over the servant of other hands of the same space, and what it needs.
    pub(crate) fn take_over(&self, other: Kernel) {
        let whole = PoisonError::into_inner;
        *lock(&self.ring) = other.ring.into_inner().unwrap_or_else(whole);
        let shadow_uffd = other.shadow_uffd.into_inner();
        *lock(&self.shadow_uffd) = shadow_uffd.unwrap_or_else(PoisonError::into_inner);
        let servant = other.servant.into_inner();
        let mut own = self.servant.write().unwrap_or_else(PoisonError::into_inner);
        *own = servant.unwrap_or_else(PoisonError::into_inner);
    }

    /// Writes words that the program's calls are to read beside those of the servant's
    /// batches; returns where they lie in the ring.
    pub(crate) fn put_beside(&self, bytes: &[u8]) -> u64 {
        let words: Vec<u64> = bytes
            .chunks(8)
            .map(|word| u64::from_ne_bytes(std::array::from_fn(|at| word[at])))
            .collect();
        let ring = lock(&self.ring);
        ring.put(BATCH_DATA_BYTES, &words) - ring.address()
    }

    /// A task by which its memory can be looked at.
    pub(crate) fn reader(&self) -> i32 {
        match self.servant() {
            Some(servant) if servant.lives() => servant.pid,
            _ => self.thread.load(Ordering::Relaxed),
        }
    }

    fn command(
        &self,
        prepare: impl FnOnce(&Ring, &Servant) -> Vec<Command>,
    ) -> Result<(), ServantError> {
        let servant = self.servant().ok_or(ServantError::Died)?;
        let ring = lock(&self.ring);
        if !servant.lives() {
            return Err(ServantError::Died);
        }
        let commands = prepare(&ring, &servant);
        ring.run(&commands, PATIENCE, || servant.lives())
    }

    fn address_of(&self, slot: Slot) -> u64 {
        self.places.shadow + u64::from(slot.0) * PAGE_BYTES
    }
}

impl Hands for Kernel {
    fn copy(&self, first: Vpn, pages: &[Page]) -> Outcome {
        self.uffd.copy(first.address(), pages)
    }

    fn wake(&self, first: Vpn, count: u64) {
        // A process that has ended needs no waking.
        let _ = self.uffd.wake(first.address(), count * PAGE_BYTES);
    }

    fn poison(&self, page: Vpn) -> io::Result<()> {
        self.uffd.poison(page.address())
    }

    fn register(&self, range: Range<u64>) -> io::Result<()> {
        let len = (range.end - range.start) * PAGE_BYTES;
        self.uffd.register(range.start * PAGE_BYTES, len)
    }

    fn unregister(&self, range: Range<u64>) -> io::Result<()> {
        let len = (range.end - range.start) * PAGE_BYTES;
        self.uffd.unregister(range.start * PAGE_BYTES, len)
    }

    fn present(&self, first: Vpn, count: u64) -> Option<Vec<bool>> {
        let mut entries = vec![0u8; count as usize * 8];
        self.pagemap.read_exact_at(&mut entries, first.0 * 8).ok()?;
        let entries = entries.chunks_exact(8);
        // Present in RAM, or swapped by the host; a guard shows itself as swapped.
        let there = |entry: &[u8]| entry[7] >> 6 != 0 && entry[7] & 4 == 0;
        Some(entries.map(there).collect())
    }

    fn residents(&self, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        let mut found: Vec<Range<u64>> = Vec::new();
        let mut at = range.start * PAGE_BYTES;
        let end = range.end * PAGE_BYTES;
        let mut regions = [Region::default(); 64];
        while at < end {
            let (count, until) = pagemap::scan(self.pagemap.as_fd(), at..end, &mut regions)?;
            for region in &regions[..count] {
                let pages = region.start / PAGE_BYTES..region.end / PAGE_BYTES;
                match found.last_mut() {
                    Some(last) if last.end == pages.start => last.end = pages.end,
                    _ => found.push(pages),
                }
            }
            if until <= at {
                break;
            }
            at = until;
        }
        Ok(found)
    }

    fn pageable(&self) -> io::Result<Vec<Vec<Range<u64>>>> {
        let mut groups = Groups::default();
        vma::each(&self.maps, |mapping| {
            if !self.places.overlap(&mapping.range) {
                groups.add(mapping);
            } else {
                groups.part();
            }
        })?;
        Ok(groups.done())
    }

    fn mappings_of(&self, pages: &[Vpn]) -> io::Result<Vec<Mapping>> {
        let mut pages = pages.to_vec();
        pages.sort_unstable();
        let mut found = Vec::new();
        vma::each(&self.maps, |mapping| {
            let at = pages.partition_point(|page| page.address() < mapping.range.start);
            let next = pages.get(at);
            if next.is_some_and(|page| page.address() < mapping.range.end) {
                found.push(mapping.clone());
            }
        })?;
        Ok(found)
    }

    fn mappings(&self, flags: bool) -> io::Result<Vec<Mapping>> {
        let mut mappings = vma::list(if flags { &self.smaps } else { &self.maps })?;
        mappings.retain(|one| !self.places.overlap(&one.range));
        Ok(mappings)
    }

    fn can_evict(&self) -> bool {
        self.servant().is_some_and(|servant| servant.lives())
    }

    fn move_out(&self, moves: &[Move], populate: bool) -> Result<(), ServantError> {
        self.command(|ring, servant| {
            let mut commands = Vec::with_capacity(moves.len() * 2 + 1);
            if populate {
                // Whoever locks all that it finds in its map locks this too, and then
                // nothing moves there that is not.
                commands.push(Command {
                    must: false,
                    number: libc::SYS_munlock,
                    arguments: [self.places.shadow, self.places.shadow_bytes, 0, 0, 0],
                });
            }
            for (index, one) in moves.iter().enumerate() {
                let len = one.count * PAGE_BYTES;
                let target = self.address_of(one.slot);
                let words = [target, one.page.address(), len, MOVE_MODE_DONTWAKE, 0];
                let block = ring.put(index * MOVE_ARGS_BYTES, &words);
                if populate {
                    commands.push(Command {
                        must: false,
                        number: libc::SYS_madvise,
                        arguments: [one.page.address(), len, MADV_POPULATE_WRITE, 0, 0],
                    });
                }
                // It ends with EFAULT, since the kernel cannot write there how far
                // it came; the page map says that.
                commands.push(Command {
                    must: false,
                    number: libc::SYS_ioctl,
                    arguments: [servant.shadow_fd, UFFDIO_MOVE, block, 0, 0],
                });
            }
            commands
        })
    }

    fn move_locked(&self, moves: &[Move]) -> Result<(), ServantError> {
        self.command(|ring, servant| {
            let each = moves.iter().enumerate().flat_map(|(index, one)| {
                let (page, len) = (one.page.address(), one.count * PAGE_BYTES);
                let words = [self.address_of(one.slot), page, len, MOVE_MODE_DONTWAKE, 0];
                let block = ring.put(index * MOVE_ARGS_BYTES, &words);
                let shadow_fd = servant.shadow_fd;
                [
                    (libc::SYS_munlock, [page, len, 0, 0, 0]),
                    (libc::SYS_ioctl, [shadow_fd, UFFDIO_MOVE, block, 0, 0]),
                    (libc::SYS_mlock2, [page, len, MLOCK_ONFAULT, 0, 0]),
                ]
            });
            let command = |(number, arguments)| Command {
                must: false,
                number,
                arguments,
            };
            each.map(command).collect()
        })
    }

    fn slot_page(&self, slot: Slot) -> Vpn {
        Vpn::of(self.address_of(slot))
    }

    fn read_slots(&self, first: Slot, buffer: &mut [u8]) -> io::Result<usize> {
        // Empty slots are errors here, since the pager holds a descriptor of the
        // shadow's userfaultfd as well.
        let source = self.address_of(first);
        if let Some(servant) = self.servant()
            && let Ok(read) = read_memory(servant.pid, source, buffer)
            // Its number may have been another's by then.
            && servant.lives()
        {
            return Ok(read);
        }
        self.memory.read_at(buffer, source)
    }

    fn free_slots(&self, first: Slot, count: u64) -> Result<(), ServantError> {
        let address = self.address_of(first);
        let len = count * PAGE_BYTES;
        self.command(|_, _| {
            vec![Command {
                must: false,
                number: libc::SYS_madvise,
                arguments: [address, len, MADV_DONTNEED_LOCKED, 0, 0],
            }]
        })?;
        // A slot that is not empty would be taken for the page that comes next.
        match self.present(Vpn::of(address), count) {
            Some(there) if !there.contains(&true) => Ok(()),
            _ => Err(ServantError::Died),
        }
    }

    fn pen(&self, first: Vpn, count: u64, locked: Option<&Range<u64>>) -> Result<(), ServantError> {
        let len = count.min(PEN_PAGES) * PAGE_BYTES;
        let moved = [first.address(), len, len, MREMAP_INTO_PEN, self.places.pen];
        // A move that fails may leave the place empty, where somebody else could come
        // to lie; what comes there is inherited by children until that is forbidden.
        let reserved = [self.places.pen, len, 0, MAP_RESERVED, u64::MAX];
        let advice = libc::MADV_DONTFORK as u64;
        let forbidden = [self.places.pen, PEN_PAGES * PAGE_BYTES, advice, 0, 0];
        self.command(|_, _| {
            let calls = [
                (libc::SYS_mremap, moved, false),
                (libc::SYS_mmap, reserved, false),
                (libc::SYS_madvise, forbidden, true),
            ];
            let command = |(number, arguments, must)| Command {
                number,
                must,
                arguments,
            };
            let lock = locked.map(|range| {
                let len = range.end - range.start;
                let arguments = [range.start, len, MLOCK_ONFAULT, 0, 0];
                (libc::SYS_mlock2, arguments, false)
            });
            calls.into_iter().chain(lock).map(command).collect()
        })
    }

    fn pen_present(&self, count: u64) -> Option<Vec<bool>> {
        self.present(Vpn::of(self.places.pen), count)
    }

    fn read_pen(&self, index: u64, page: &mut Page) -> io::Result<usize> {
        self.memory
            .read_at(page, self.places.pen + index * PAGE_BYTES)
    }

    fn empty_pen(&self) -> Result<(), ServantError> {
        let len = PEN_PAGES * PAGE_BYTES;
        self.command(|_, _| {
            vec![Command {
                must: true,
                number: libc::SYS_madvise,
                arguments: [self.places.pen, len, MADV_DONTNEED_LOCKED, 0, 0],
            }]
        })
    }

    fn finish(&self, patience: Duration) -> Result<(), ServantError> {
        let servant = self.servant().ok_or(ServantError::Died)?;
        lock(&self.ring).finish(patience, || servant.lives())
    }

    fn kernel(&self) -> Option<&Kernel> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_parts_is_one_group() {
        let mapping = |range: Range<u64>, inode| Mapping {
            range,
            access: [true, true, false],
            private: true,
            inode,
            name: String::new(),
            locked: false,
            special: false,
            wiped: false,
            sealed: false,
        };
        let mut groups = Groups::default();
        for (range, inode) in [
            (0x1000..0x3000, 0),
            (0x3000..0x4000, 0),
            (0x5000..0x6000, 0),
            (0x6000..0x7000, 9),
            (0x8000..0x9000, 0),
            (0xa000..0xb000, 0),
        ] {
            groups.add(&mapping(range, inode));
        }
        assert_eq!(groups.done(), [vec![1..3, 3..4, 5..6], vec![8..9, 10..11]]);
    }
}
