//! One address space of the tree: its page table, its queue, its shadow, its
//! descriptors and its servant.
//!
//! Lock order: `ops` before `core` before the servant's ring; never the store's
//! locks under the ring. `ops` serializes whatever changes the memory map with
//! whatever moves pages: under it the pager knows each mapping exactly.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use zcache::Handle;
use zcache_sys::fd::PidFd;
use zcache_sys::servant::{Command, Ring, ServantDied};
use zcache_sys::uffd::Uffd;

use crate::advance::Advance;
use crate::budget::PAGE_BYTES;
use crate::home::Home;
use crate::queue::{Queue, Standing};
use crate::ranges::Ranges;
use crate::shadow::Shadow;
use crate::stream::Streams;
use crate::table::{State, Table, Vpn};

/// Names an address space for the life of the run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct SpaceId(pub(crate) u64);

/// A fork that was let go and whose child has not been announced yet. While it
/// is open no page is evicted, and each change of a page's state is logged, so
/// that the child's table can be made as the parent's was.
pub(crate) struct ForkWindow {
    pub(crate) thread: i32,
    pub(crate) since: Instant,
    pub(crate) charged_pages: u64,
    /// What pages were before they changed; owns its handles.
    pub(crate) log: Vec<(Vpn, State)>,
}

/// Stale entries of a queue that are always allowed.
const STALE_PAGES_MAX: u64 = 8192;

/// What the `core` lock protects.
pub(crate) struct Core {
    pub(crate) table: Table,
    /// Pages that came once.
    pub(crate) probation: Queue,
    /// Pages that were wanted again soon after they had left.
    pub(crate) protected: Queue,
    pub(crate) streams: Streams,
    pub(crate) shadow: Shadow,
    /// Pages under a system call of ours; faults there wait.
    pub(crate) busy: Option<Range<u64>>,
    /// Faults to be woken when what they wait for is over.
    pub(crate) deferred: Vec<Vpn>,
    /// Faults that wait for room.
    pub(crate) stalled: VecDeque<Vpn>,
    pub(crate) window: Option<ForkWindow>,
    /// Ranges that a child sees as zeros or not at all.
    pub(crate) not_inherited: Ranges,
    pub(crate) brk: u64,
    /// Pages that must stay resident, with how many reasons each has.
    pub(crate) pinned: BTreeMap<u64, u32>,
    /// Claims of shadow slots are held back while pages change addresses.
    pub(crate) hold_claims: bool,
    pub(crate) claims: u64,
}

impl Core {
    pub(crate) fn is_busy(&self, page: Vpn) -> bool {
        self.busy
            .as_ref()
            .is_some_and(|range| range.contains(&page.0))
    }

    /// Puts pages that became resident at the young end of a queue. Stale
    /// entries are dropped when they outnumber the resident pages, which keeps
    /// the queues' memory bounded.
    pub(crate) fn admit(&mut self, first: Vpn, count: u64, stamp: u64, standing: Standing) {
        self.queue(standing).push(first, count, stamp);
        let entries = self.probation.pages() + self.protected.pages();
        if entries <= self.table.resident() * 2 + STALE_PAGES_MAX {
            return;
        }
        self.protected.clear();
        self.probation.clear();
        let queue = &mut self.probation;
        self.table.for_each(0..u64::MAX >> 12, |page, state| {
            if matches!(state, State::Resident | State::Moving) {
                queue.push(page, 1, stamp);
            }
        });
    }

    pub(crate) fn queue(&mut self, standing: Standing) -> &mut Queue {
        match standing {
            Standing::Probation => &mut self.probation,
            Standing::Protected => &mut self.protected,
        }
    }

    /// Keeps a page resident from its next touch on, until as many `unpin`s.
    pub(crate) fn pin(&mut self, page: Vpn) {
        *self.pinned.entry(page.0).or_default() += 1;
    }

    pub(crate) fn unpin(&mut self, page: Vpn, stamp: u64) {
        let Some(reasons) = self.pinned.get_mut(&page.0) else {
            return;
        };
        *reasons -= 1;
        if *reasons == 0 {
            self.pinned.remove(&page.0);
            if self.table.get(page) == State::Resident {
                self.admit(page, 1, stamp, Standing::Probation);
            }
        }
    }

    /// How many of `count` pages from `first` on come before a pinned one.
    pub(crate) fn before_pinned(&self, first: Vpn, count: u64) -> u64 {
        let mut pinned = self.pinned.range(first.0..first.0 + count);
        pinned.next().map_or(count, |(page, _)| page - first.0)
    }

    /// Records what a page was, when a fork is under way. Returns true when
    /// the log took over the state's handle.
    pub(crate) fn log(&mut self, page: Vpn, before: State) -> bool {
        match &mut self.window {
            Some(window) => {
                window.log.push((page, before));
                true
            }
            None => false,
        }
    }
}

/// The servant as the pager sees it.
pub(crate) struct Servant {
    pub(crate) ring: Mutex<Ring>,
    pub(crate) pidfd: PidFd,
    pub(crate) pid: i32,
    /// Number of the shadow's userfaultfd in the servant.
    pub(crate) shadow_fd: u64,
    pub(crate) guard_slot: Option<usize>,
}

/// See the module's description.
pub(crate) struct Space {
    pub(crate) id: SpaceId,
    pub(crate) uffd: Uffd,
    pub(crate) servant: OnceLock<Servant>,
    pub(crate) pagemap: OnceLock<File>,
    /// The program's process that lives in this space.
    pub(crate) leader: AtomicI32,
    /// Processes that live in it.
    pub(crate) users: AtomicU32,
    pub(crate) closing: AtomicBool,
    /// Its servant has ended.
    pub(crate) servant_gone: AtomicBool,
    /// Its process was told that the servant was killed.
    pub(crate) failed: AtomicBool,
    /// Handlers that read this space's messages now.
    serving: AtomicU32,
    pub(crate) home: Home,
    /// Room made for pages that cannot be paged and were not touched yet.
    pub(crate) advance: Advance,
    pub(crate) ops: Mutex<()>,
    core: Mutex<Core>,
    pub(crate) changed: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Space {
    pub(crate) fn new(id: SpaceId, uffd: Uffd, leader: i32, shadow_slots: u64) -> Space {
        Space {
            id,
            uffd,
            servant: OnceLock::new(),
            pagemap: OnceLock::new(),
            leader: AtomicI32::new(leader),
            users: AtomicU32::new(1),
            closing: AtomicBool::new(false),
            servant_gone: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            serving: AtomicU32::new(0),
            home: Home::new(),
            advance: Advance::default(),
            ops: Mutex::new(()),
            core: Mutex::new(Core {
                table: Table::default(),
                probation: Queue::default(),
                protected: Queue::default(),
                streams: Streams::default(),
                shadow: Shadow::new(shadow_slots),
                busy: None,
                deferred: Vec::new(),
                stalled: VecDeque::new(),
                window: None,
                not_inherited: Ranges::default(),
                brk: 0,
                pinned: BTreeMap::new(),
                hold_claims: false,
                claims: 0,
            }),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    pub(crate) fn lock_ops(&self) -> MutexGuard<'_, ()> {
        lock(&self.ops)
    }

    /// Locks the map for a change of it, which no fork may fall into.
    pub(crate) fn lock_map(&self) -> MutexGuard<'_, ()> {
        loop {
            let ops = self.lock_ops();
            let core = self.core();
            if core.window.is_none() || self.is_closing() {
                return ops;
            }
            drop(ops);
            drop(self.wait_core(core, Duration::from_millis(2)));
        }
    }

    pub(crate) fn leader(&self) -> i32 {
        self.leader.load(Ordering::Relaxed)
    }

    /// The process through which this space's memory is read: the servant,
    /// since a program's first thread may end before the others.
    pub(crate) fn reader(&self) -> i32 {
        match self.servant.get() {
            Some(servant) if self.has_servant() => servant.pid,
            _ => self.leader(),
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Says that messages of this space are read until the result is dropped.
    pub(crate) fn serving(&self) -> Serving<'_> {
        self.serving.fetch_add(1, Ordering::AcqRel);
        Serving(self)
    }

    /// Whether a message that was read may not have been settled yet.
    pub(crate) fn is_being_served(&self) -> bool {
        self.serving.load(Ordering::Acquire) > 0
    }

    /// Waits on the core for at most `timeout`.
    pub(crate) fn wait_core<'a>(
        &'a self,
        core: MutexGuard<'a, Core>,
        timeout: Duration,
    ) -> MutexGuard<'a, Core> {
        match self.changed.wait_timeout(core, timeout) {
            Ok((core, _)) => core,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }

    /// Has the servant run the commands that `prepare` returns, which may fill
    /// the ring's data area first; `finish` reads that area afterwards, also
    /// when the servant was killed meanwhile and cannot touch it any more.
    /// `None` when there is no servant.
    pub(crate) fn serve_or_part<T>(
        &self,
        prepare: impl FnOnce(&Ring) -> Vec<Command>,
        finish: impl FnOnce(&Ring) -> T,
    ) -> Option<T> {
        let ring = lock(&self.servant.get()?.ring);
        if self.servant_ended() {
            return None;
        }
        let commands = prepare(&ring);
        let mut results = Vec::with_capacity(commands.len());
        // Whether all of them ran, `finish` finds in the data area.
        let _ = ring.run(&commands, &mut results, || !self.servant_ended());
        Some(finish(&ring))
    }

    /// Has the servant run one system call.
    pub(crate) fn call(&self, number: i64, arguments: [u64; 6]) -> Result<i64, ServantDied> {
        let servant = self.servant.get().ok_or(ServantDied)?;
        let ring = lock(&servant.ring);
        let mut results = Vec::with_capacity(1);
        let command = Command { number, arguments };
        ring.run(&[command], &mut results, || !self.servant_ended())?;
        results.first().copied().ok_or(ServantDied)
    }

    /// Whether the kernel has a page at `page` (in RAM or swapped by the host).
    /// `None` when it cannot be told.
    pub(crate) fn is_present(&self, page: Vpn) -> Option<bool> {
        let mut entry = [0u8; 8];
        self.pagemap
            .get()?
            .read_exact_at(&mut entry, page.0 * 8)
            .ok()?;
        Some(u64::from_ne_bytes(entry) >> 62 != 0)
    }

    /// Locks the core when no evictor has claimed shadow slots, and keeps
    /// evictors from claiming more until `hold_claims` is set to false.
    pub(crate) fn hold_claims(&self) -> MutexGuard<'_, Core> {
        let mut core = self.core();
        core.hold_claims = true;
        while core.claims > 0 {
            core = self.wait_core(core, Duration::from_millis(10));
        }
        core
    }

    /// Has whoever waits for this page ask again.
    pub(crate) fn wake(&self, page: Vpn) {
        // A process that has ended needs no waking.
        let _ = self.uffd.wake(page.address(), PAGE_BYTES);
    }

    /// Wakes every fault that was deferred.
    pub(crate) fn wake_deferred(&self, core: &mut Core) {
        for page in core.deferred.drain(..) {
            self.wake(page);
        }
    }
}

/// See [`Space::serving`].
pub(crate) struct Serving<'a>(&'a Space);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.serving.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The handle that a state owns.
pub(crate) fn handle_of(state: State) -> Option<Handle> {
    match state {
        State::Stored(handle) | State::Loading(handle) => Some(handle),
        _ => None,
    }
}
