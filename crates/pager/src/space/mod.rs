//! One address space of the tree: its page table, its queue, its shadow, and the
//! hands by which the pager reaches into it.
//!
//! Locks: `core`, then `limbo`, the store's or the servant's ring. The gate ([`gate`])
//! is no lock but a turn, taken and given back under `core`: who has it may change
//! the memory map (a call of the program's) or move pages (an evictor), so
//! that under it the pager knows each mapping exactly.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use zcache::Handle;
use zcache_sys::fd::PidFd;
use zcache_sys::uffd::Uffd;

pub(crate) mod gate;
pub(crate) mod hands;
pub(crate) mod listeners;
pub(crate) mod page_table;
pub(crate) mod queue;
pub(crate) mod ranges;
pub(crate) mod readahead;
pub(crate) mod shadow;

use crate::budget::advance::Advance;
use crate::sync::{Condvar, Instant, Mutex, MutexGuard, lock, wait};
use gate::Gate;
use hands::{Hands, Places};
use listeners::Home;
use page_table::{State, Table, Vpn};
use queue::{Queue, Standing};
use ranges::Ranges;
use readahead::Streams;
use shadow::{Claim, Shadow};

/// Names an address space for the life of the run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct SpaceId(pub(crate) u64);

/// A fork under way. While it is open each change of a page's state is logged, so
/// that the child's table can be made as the parent's was.
pub(crate) struct ForkWindow {
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
    /// Who changes the map or moves pages now.
    pub(crate) gate: Gate,
    /// Pages that a call under way may change; faults there wait.
    pub(crate) busy: Vec<Range<u64>>,
    /// Faults to be woken when what they wait for is over.
    pub(crate) deferred: Vec<Vpn>,
    /// Faults that wait for room.
    pub(crate) stalled: VecDeque<Vpn>,
    /// Forks that wait for room: faults wait until they have it.
    pub(crate) forks_waiting: u32,
    /// These faults.
    pub(crate) held: Vec<Vpn>,
    pub(crate) window: Option<ForkWindow>,
    /// Ranges that a child sees as zeros.
    pub(crate) wiped: Ranges,
    /// Ranges with guard pages, which a copy to them would undo.
    pub(crate) guards: Ranges,
    pub(crate) brk: u64,
    /// Pages that must stay resident, with how many reasons each has.
    pub(crate) pinned: BTreeMap<u64, u32>,
    /// Pages that pipes have got, the oldest first; they are pinned.
    pub(crate) spliced: VecDeque<Vpn>,
    /// No evictor may go to the shadow any more.
    pub(crate) buried: bool,
    /// Evictors that are at the shadow: compress, or free slots.
    pub(crate) at_shadow: u64,
}

impl Core {
    pub(crate) fn is_busy(&self, page: Vpn) -> bool {
        self.busy.iter().any(|range| range.contains(&page.0))
    }

    /// Of `count` pages from `page` on, those that may be given unasked: none
    /// while the map changes, since what is mapped there is not known then, and
    /// none from the first guard page on.
    pub(crate) fn reach(&self, page: Vpn, count: u64) -> u64 {
        if self.gate.is_call() {
            return 1;
        }
        match self.guards.next(page.0) {
            Some(guard) => count.min((guard - page.0).max(1)),
            None => count,
        }
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

    /// Pages that are in RAM, those in the shadow among them.
    pub(crate) fn in_ram(&self) -> u64 {
        self.table.resident() + self.shadow.held()
    }

    /// Whether pages that come wait until a fork has its room. Not while a call is under
    /// way: the fork waits for its turn, and the call may need a page to end.
    pub(crate) fn holds_faults(&self) -> bool {
        self.forks_waiting > 0 && !self.gate.is_call()
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

/// A batch of the servant's that it has not finished because it does not run.
#[derive(Debug)]
pub(crate) enum Limbo {
    /// Pages on their way to the shadow. Whether they have been tried before.
    Moves(Vec<Move>, bool),
    /// Pages on their way to the pen.
    Pen(Vec<Move>),
    /// The pen's pages on their way back to the kernel.
    EmptyPen,
    /// Slots on their way back to the kernel.
    Slots(Claim),
}

/// Neighbouring pages on their way to neighbouring slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    pub(crate) page: Vpn,
    pub(crate) slot: page_table::Slot,
    pub(crate) count: u64,
}

/// See the module's description.
pub(crate) struct Space {
    pub(crate) id: SpaceId,
    hands: OnceLock<Box<dyn Hands>>,
    uffd: OnceLock<Arc<Uffd>>,
    /// Where the parent has the pager's mappings: the child has nothing there.
    pub(crate) places: OnceLock<Places>,
    /// The program's process that lives in this space.
    pub(crate) leader: AtomicI32,
    /// The same, beyond reuse of its number.
    pub(crate) process: OnceLock<PidFd>,
    /// Processes that live in it.
    pub(crate) users: AtomicU32,
    pub(crate) closing: AtomicBool,
    /// Its user was told that it has lost its servant.
    pub(crate) told: AtomicBool,
    /// Messages name threads by our numbers, not by those of another PID namespace.
    pub(crate) knows_threads: AtomicBool,
    pub(crate) home: Home,
    /// Room made for pages that cannot be paged and were not touched yet.
    pub(crate) advance: Advance,
    /// Unpageable memory at the last tick.
    pub(crate) unpageable_bytes: AtomicU64,
    /// Unpageable memory that other processes have and count as well.
    pub(crate) shared_bytes: AtomicU64,
    /// What the servant had not finished, in order.
    pub(crate) limbo: Mutex<VecDeque<Limbo>>,
    /// Since when the servant has not run.
    pub(crate) stuck_since: Mutex<Option<Instant>>,
    core: Mutex<Core>,
    pub(crate) changed: Condvar,
}

impl Space {
    pub(crate) fn new(id: SpaceId, leader: i32, shadow_slots: u64) -> Space {
        Space {
            id,
            hands: OnceLock::new(),
            uffd: OnceLock::new(),
            places: OnceLock::new(),
            leader: AtomicI32::new(leader),
            process: OnceLock::new(),
            users: AtomicU32::new(1),
            closing: AtomicBool::new(false),
            told: AtomicBool::new(false),
            knows_threads: AtomicBool::new(true),
            home: Home::new(),
            advance: Advance::default(),
            unpageable_bytes: AtomicU64::new(u64::MAX),
            shared_bytes: AtomicU64::new(0),
            limbo: Mutex::default(),
            stuck_since: Mutex::default(),
            core: Mutex::new(Core {
                table: Table::default(),
                probation: Queue::default(),
                protected: Queue::default(),
                streams: Streams::default(),
                shadow: Shadow::new(shadow_slots),
                gate: Gate::default(),
                busy: Vec::new(),
                deferred: Vec::new(),
                stalled: VecDeque::new(),
                forks_waiting: 0,
                held: Vec::new(),
                window: None,
                wiped: Ranges::default(),
                guards: Ranges::default(),
                brk: 0,
                pinned: BTreeMap::new(),
                spliced: VecDeque::new(),
                buried: false,
                at_shadow: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// Gives the space its hands, before anybody else knows it.
    pub(crate) fn equip(&self, hands: Box<dyn Hands>, uffd: Option<Arc<Uffd>>) {
        let _ = self.hands.set(hands);
        if let Some(uffd) = uffd {
            let _ = self.uffd.set(uffd);
        }
    }

    /// What reaches into the address space.
    ///
    /// # Panics
    /// Before [`Space::equip`].
    pub(crate) fn hands(&self) -> &dyn Hands {
        self.hands.get().expect("a known space has hands").as_ref()
    }

    /// A task by which its memory can be looked at.
    pub(crate) fn reader(&self) -> Option<i32> {
        self.hands.get()?.kernel().map(hands::Kernel::reader)
    }

    pub(crate) fn has_hands(&self) -> bool {
        self.hands.get().is_some()
    }

    /// Where its faults are read, if they are real.
    pub(crate) fn uffd(&self) -> Option<&Uffd> {
        self.uffd.get().map(Arc::as_ref)
    }

    /// Sends a signal to its process.
    pub(crate) fn signal(&self, signal: i32) {
        if let Some(process) = self.process.get() {
            // It may have ended meanwhile.
            let _ = process.signal(signal);
        }
    }

    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    pub(crate) fn leader(&self) -> i32 {
        self.leader.load(Ordering::Relaxed)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Waits on the core for at most `timeout`.
    pub(crate) fn wait_core<'a>(
        &'a self,
        core: MutexGuard<'a, Core>,
        timeout: Duration,
    ) -> MutexGuard<'a, Core> {
        wait(&self.changed, &self.core, core, timeout)
    }

    /// Whether the kernel has a page at `page` (in RAM or swapped by the host).
    /// `None` when it cannot be told.
    pub(crate) fn is_present(&self, page: Vpn) -> Option<bool> {
        self.hands().present(page, 1)?.first().copied()
    }

    /// Locks the core of a closed space when no evictor is at it any more. What is in
    /// limbo stays there.
    pub(crate) fn without_evictors(&self) -> MutexGuard<'_, Core> {
        let mut core = self.core();
        core.buried = true;
        while core.at_shadow > 0 || (core.gate.is_eviction() && lock(&self.limbo).is_empty()) {
            core = self.wait_core(core, Duration::from_millis(10));
        }
        core
    }

    /// An evictor is not at the shadow any more.
    pub(crate) fn leave_shadow(&self) {
        self.core().at_shadow -= 1;
        self.changed.notify_all();
    }

    /// Whether the servant has done all that it was given.
    pub(crate) fn limbo_is_empty(&self) -> bool {
        lock(&self.limbo).is_empty()
    }

    /// Has whoever waits for this page ask again.
    pub(crate) fn wake(&self, page: Vpn) {
        self.hands().wake(page, 1);
    }

    /// Wakes every fault that waited for a fork's room.
    pub(crate) fn wake_held(&self, core: &mut Core) {
        for page in core.held.drain(..) {
            self.wake(page);
        }
    }

    /// Wakes every fault that was deferred.
    pub(crate) fn wake_deferred(&self, core: &mut Core) {
        for page in core.deferred.drain(..) {
            self.wake(page);
        }
    }
}

/// The handle that a state owns.
pub(crate) fn handle_of(state: State) -> Option<Handle> {
    match state {
        State::Stored(handle) | State::Loading(handle) => Some(handle),
        _ => None,
    }
}
