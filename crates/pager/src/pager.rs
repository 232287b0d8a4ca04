//! What all threads of the pager share, and the registry of address spaces.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use zcache::Store;
use zcache_sys::fd::PidFd;
use zcache_sys::process::Poke;
use zcache_sys::process::{GUARD_SLOTS, GuardTable};

use crate::budget::balance::Balance;
use crate::budget::need;
use crate::budget::{Budget, PAGE_BYTES};
use crate::config::RunConfig;
use crate::counters::Counters;
use crate::space::listeners::Posts;
use crate::space::page_table::{State, Vpn};
use crate::space::{Core, Space, SpaceId, handle_of};
use crate::sync::{Mutex, RwLock, lock};

/// Sizes that follow from the budget.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Pages that one fault may bring.
    pub(crate) window_pages: u64,
    /// Pages that one eviction handles.
    pub(crate) batch_pages: u64,
    /// Slots of a shadow.
    pub(crate) shadow_slots: u64,
    /// Slots that wait before compression begins.
    pub(crate) shadow_target: u64,
}

impl Sizes {
    fn of(ram_bytes: u64) -> Sizes {
        let pages = ram_bytes / PAGE_BYTES;
        let shadow_slots = (pages / 8).clamp(128, 16_384).next_multiple_of(64);
        Sizes {
            window_pages: (pages / 256).clamp(4, 64),
            batch_pages: (pages / 128).clamp(16, 64),
            shadow_slots,
            shadow_target: shadow_slots / 2,
        }
    }
}

/// By how much pages that shrink may make the store grow at a time where the rest
/// of the budget has taken all.
const BEYOND_BYTES: u64 = 256 << 10;

/// See the module's description.
pub(crate) struct Pager {
    pub(crate) config: RunConfig,
    pub(crate) sizes: Sizes,
    pub(crate) store: Arc<Store>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) balance: Balance,
    pub(crate) counters: Counters,
    pub(crate) spaces: RwLock<BTreeMap<SpaceId, Arc<Space>>>,
    /// Wakes the tracer, for whose stopped threads something may have changed.
    pub(crate) tracer: Poke,
    /// Something is waited for that nobody wakes the tracer for.
    pub(crate) tracer_waits: AtomicBool,
    /// Spaces whose unpageable memory grows faster than room is made: their threads
    /// are held until there is some.
    pub(crate) holds: Mutex<HashSet<SpaceId>>,
    /// Processes that cannot be paged; their memory counts as it is.
    pub(crate) unpaged: Mutex<BTreeSet<i32>>,
    /// Which handler listens to which space.
    pub(crate) posts: Posts,
    /// What the servants' calls carry, so that the program's filter lets them pass.
    pub(crate) secret: u64,
    /// `/dev/userfaultfd`, if we may open it.
    pub(crate) device: Option<std::fs::File>,
    pub(crate) guard: GuardTable,
    guard_used: Mutex<Vec<bool>>,
    next_space: AtomicU64,
    stamp: AtomicU64,
    pub(crate) stalled: AtomicU64,
    pub(crate) stopping: AtomicBool,
    /// Processes of zcache whose memory counts: front and guard.
    pub(crate) own_pids: [AtomicI32; 2],
}

/// Says something to the user on standard error.
macro_rules! say {
    ($($part:tt)*) => {
        $crate::pager::say_line(&format!($($part)*))
    };
}
pub(crate) use say;

pub(crate) fn say_line(text: &str) {
    use std::io::Write;
    // Nobody is left to be told when standard error is closed.
    let _ = writeln!(std::io::stderr(), "zcache: {text}");
}

impl Pager {
    pub(crate) fn new(
        config: RunConfig,
        store: Arc<Store>,
        secret: u64,
        guard: GuardTable,
        cpus: &[usize],
    ) -> std::io::Result<Pager> {
        Ok(Pager {
            sizes: Sizes::of(config.ram_bytes),
            budget: Arc::new(Budget::new(config.ram_bytes, Arc::clone(&store))),
            balance: Balance::new(config.ram_bytes / PAGE_BYTES),
            config,
            store,
            counters: Counters::default(),
            spaces: RwLock::default(),
            tracer: Poke::default(),
            tracer_waits: AtomicBool::new(false),
            holds: Mutex::default(),
            unpaged: Mutex::default(),
            posts: Posts::new(cpus)?,
            secret,
            device: std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/userfaultfd")
                .ok(),
            guard,
            guard_used: Mutex::new(vec![false; GUARD_SLOTS]),
            next_space: AtomicU64::new(1),
            stamp: AtomicU64::new(1),
            stalled: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            own_pids: [AtomicI32::new(0), AtomicI32::new(0)],
        })
    }

    pub(crate) fn new_space_id(&self) -> SpaceId {
        SpaceId(self.next_space.fetch_add(1, Ordering::Relaxed))
    }

    /// A number that grows with each group of pages that arrive.
    pub(crate) fn next_stamp(&self) -> u64 {
        self.stamp.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn space(&self, id: SpaceId) -> Option<Arc<Space>> {
        self.spaces
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    pub(crate) fn all_spaces(&self) -> Vec<Arc<Space>> {
        self.spaces
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Puts a process under the guard; `None` when its table is full, in which
    /// case only the tracer's own kill protects it.
    pub(crate) fn guard_process(&self, process: &PidFd) -> Option<usize> {
        let mut used = lock(&self.guard_used);
        let slot = used.iter().position(|used| !used)?;
        used[slot] = true;
        self.guard.set(slot, process);
        Some(slot)
    }

    pub(crate) fn unguard(&self, slot: usize) {
        self.guard.clear(slot);
        lock(&self.guard_used)[slot] = false;
    }

    /// Makes a space known to the fault handlers and the evictors.
    pub(crate) fn publish(&self, space: &Arc<Space>) -> std::io::Result<()> {
        self.counters.spaces.add(1);
        self.spaces
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(space.id, Arc::clone(space));
        self.posts.add(space)
    }

    /// Some room was made: who waits for it looks again.
    pub(crate) fn tell_of_room(&self) {
        if self.budget.is_wished_for() && self.tracer_waits.load(Ordering::Relaxed) {
            self.tracer.poke();
        }
    }

    /// An evictor's turn at a space is over.
    pub(crate) fn end_eviction(&self, space: &Space) {
        let mut core = space.core();
        let call_waits = core.end_eviction(space);
        drop(core);
        if call_waits {
            self.tracer.poke();
        }
    }

    /// Nobody lives in `space` any more: it is served no longer. Its pages are
    /// given up by [`Pager::bury`] when the kernel has them back.
    pub(crate) fn close(&self, space: &Space) {
        space.closing.store(true, Ordering::Release);
        self.posts.remove(space);
        lock(&self.holds).remove(&space.id);
        self.spaces
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&space.id);
        space.changed.notify_all();
    }

    /// Gives up what is known of a closed space.
    pub(crate) fn bury(&self, space: &Space) {
        let mut core = space.without_evictors();
        let held = core.table.resident() + core.shadow.held();
        let window = core.window.take();
        core.table
            .clear(0..u64::MAX >> 12, |_, state| self.drop_state(state));
        core.probation.clear();
        core.protected.clear();
        let stalled = core.stalled.len() as u64;
        core.stalled.clear();
        drop(core);
        self.stalled.fetch_sub(stalled, Ordering::Relaxed);
        if let Some(window) = window {
            self.abandon(window);
        }
        self.budget.uncharge(held);
    }

    /// A fork window, if there is one, ends without a child.
    pub(crate) fn abandon_window(&self, space: &Space) {
        let window = space.core().window.take();
        if let Some(window) = window {
            self.abandon(window);
        }
    }

    fn abandon(&self, window: crate::space::ForkWindow) {
        self.budget.uncharge(window.charged_pages);
        for (_, state) in window.log {
            self.drop_state(state);
        }
    }

    /// The share of the budget that compressed pages may take.
    pub(crate) fn pool_share_bytes(&self) -> u64 {
        match self.config.tiers.is_empty() {
            false => self.balance.share_of(self.pageable_bytes()),
            true => self.pool_bytes_most(),
        }
    }

    /// What the store may hold at most, if the program is to make progress.
    fn pool_bytes_most(&self) -> u64 {
        let pageable = self.pageable_bytes();
        pageable.saturating_sub(need::resident_bytes_least(pageable))
    }

    fn pageable_bytes(&self) -> u64 {
        let ram_bytes = self.budget.ram_bytes();
        ram_bytes.saturating_sub(self.budget.fixed_bytes())
    }

    /// What the store may hold now: its share, and not more than the rest of the
    /// budget leaves, since pages that do not shrink make it grow by more than
    /// their eviction frees. A part of the reserve stays out of it, for pages that
    /// are there twice while they come back.
    pub(crate) fn pool_limit_bytes(&self) -> u64 {
        let kept = self.budget.reserve_bytes() / 4;
        let others = self.budget.fixed_bytes() + self.budget.charged_bytes() + kept;
        let left = self.budget.ram_bytes().saturating_sub(others);
        self.pool_share_bytes().min(left)
    }

    /// Sets the store's limit to what it may hold now, and returns that. Where
    /// the rest of the budget has taken all, pages that shrink go in still,
    /// within the store's share: each makes room when it is out. So do those
    /// that pass through to the swap file, where the store's tables alone take
    /// more than its share.
    pub(crate) fn limit_store(&self) -> u64 {
        let limit = self.pool_limit_bytes();
        let overhead = self.store.overhead_bytes();
        let more = self.store.ram_bytes() + BEYOND_BYTES;
        let share = self.pool_share_bytes();
        let most = match self.config.tiers.is_empty() {
            false if more > share => (self.store.unwritable_bytes() + BEYOND_BYTES)
                .min(
                    self.pool_bytes_most()
                        .saturating_sub(self.budget.apart_bytes()),
                )
                .max(share),
            _ => share,
        };
        let frames = |bytes: u64| bytes.saturating_sub(overhead);
        self.store.set_pool_bytes_max(frames(limit));
        let beyond = frames(more.min(most)).saturating_sub(frames(limit));
        self.store.set_pool_bytes_beyond(beyond);
        limit
    }

    /// Gives up what a state owned in the store.
    pub(crate) fn drop_state(&self, state: State) {
        if let Some(handle) = handle_of(state) {
            self.store.release(handle);
        }
    }

    /// Forgets all pages of `range`, which the program gave up or replaced.
    pub(crate) fn forget(&self, core: &mut Core, range: std::ops::Range<u64>) {
        let Core { table, shadow, .. } = core;
        let mut freed = 0;
        table.clear(range, |_, state| {
            match state {
                State::Resident | State::Moving => freed += 1,
                State::Shadow(slot) => shadow.set_owner(slot, None),
                _ => {}
            }
            self.drop_state(state);
        });
        self.budget.uncharge(freed);
    }

    /// A page is lost for good: whoever touches it gets SIGBUS, never zeros.
    pub(crate) fn lose(&self, space: &Space, core: &mut Core, page: Vpn, why: &str) {
        self.counters.lost_pages.add(1);
        let old = core.table.set(page, State::Poisoned);
        self.drop_state(old);
        say!(
            "process {}: page {:#x} is lost ({why}); touching it raises SIGBUS",
            space.leader(),
            page.address()
        );
        if let Err(error) = space.hands().poison(page)
            && error.raw_os_error() != Some(libc::EEXIST)
        {
            // Without poison the process itself has to go.
            space.signal(libc::SIGKILL);
        }
        space.wake(page);
    }

    /// Why the store cannot give a page back, and which file it lies in.
    pub(crate) fn cause(&self, error: &zcache::LoadError) -> String {
        match self.store.swap_name() {
            Some(name) => format!("{}; the swap file is {name}", error.cause()),
            None => error.cause(),
        }
    }

    /// If there is room now, the faults that wait for it try again.
    pub(crate) fn wake_stalled(&self) {
        if self.stalled.load(Ordering::Relaxed) == 0 || self.budget.available_bytes() < PAGE_BYTES {
            return;
        }
        for space in self.all_spaces() {
            let mut core = space.core();
            let woken = core.stalled.len() as u64;
            for page in core.stalled.drain(..) {
                space.wake(page);
            }
            self.stalled.fetch_sub(woken, Ordering::Relaxed);
        }
    }
}
