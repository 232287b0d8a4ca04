//! Forks: the child's page table is its parent's at the moment of the fork.
//!
//! The pager hears of a fork before it happens (seccomp), when it has happened
//! (the userfaultfd's fork event, before either side runs on) and when the child
//! is born for the tracer. From the first to the second the parent's space has a
//! fork window: nothing is evicted from it, and every page that changes is
//! logged with what it was. A page is then, in the child, what it was at the
//! window's opening or what the kernel copied, whichever is the younger: when
//! the kernel has the page, no fault ever asks the table.
//!
//! Shared pages are charged twice, to parent and child, so a later copy on
//! write never overshoots the budget.

use std::sync::Arc;
use std::time::{Duration, Instant};

use zcache_sys::process::same_memory;
use zcache_sys::seccomp::Answer;
use zcache_sys::uffd::Uffd;

use crate::evict::Evictor;
use crate::pager::{Pager, lock, say};
use crate::space::{Core, ForkWindow, Space, handle_of};
use crate::table::{State, Vpn};

const PATIENCE: Duration = Duration::from_secs(20);
/// A window this old may belong to a fork that failed.
const WINDOW_STALE: Duration = Duration::from_millis(30);

/// The child of a fork, announced by the kernel but not yet born for the tracer.
pub(crate) struct Forked {
    thread: i32,
    child: Arc<Space>,
}

impl Pager {
    /// Opens a window for the fork that `thread` is about to make.
    pub(crate) fn prepare_fork(self: &Arc<Self>, space: &Arc<Space>, thread: i32) -> Answer {
        let start = Instant::now();
        // A fork that a signal interrupted asks again, and the child of one
        // that failed late was announced but never born.
        self.close_window(space, thread);
        while let Some(unborn) = self.take_forked_by(thread) {
            self.leave(&unborn);
        }
        loop {
            let core = space.core();
            let resident = core.table.resident() + core.shadow.held();
            let other_fork = core.window.is_some() && !space.is_closing();
            if other_fork {
                drop(space.wait_core(core, Duration::from_millis(5)));
            } else {
                drop(core);
                if self.open_window(space, thread, resident) {
                    return Answer::Continue;
                }
                self.make_room(resident, Duration::from_millis(50));
            }
            if start.elapsed() > PATIENCE {
                say!(
                    "process {}: fork refused: its {} MiB in memory would not fit twice in the budget",
                    space.leader(),
                    resident >> 8
                );
                return Answer::Return(-i64::from(libc::ENOMEM));
            }
        }
    }

    fn open_window(self: &Arc<Self>, space: &Arc<Space>, thread: i32, resident: u64) -> bool {
        let _ops = space.lock_ops();
        // A child does not inherit the shadow: everything there is stored first.
        if !self.flush_shadow(space) {
            return false;
        }
        let mut core = space.core();
        let charge = core.table.resident().max(1);
        if core.window.is_some() || !core.shadow.is_empty() || charge > resident + 1024 {
            return false;
        }
        if !self.budget.try_charge(charge) {
            return false;
        }
        core.window = Some(ForkWindow {
            thread,
            since: Instant::now(),
            charged_pages: charge,
            log: Vec::new(),
        });
        true
    }

    /// Compresses all that waits in the shadow. Returns whether it is empty.
    fn flush_shadow(self: &Arc<Self>, space: &Arc<Space>) -> bool {
        if space.core().shadow.is_empty() {
            return true;
        }
        let mut evictor = Evictor::new(Arc::clone(self));
        while space.core().shadow.waiting() > 0 {
            let before = space.core().shadow.waiting();
            evictor.compress(space, 64);
            if space.core().shadow.waiting() >= before {
                return false;
            }
        }
        let mut core = space.core();
        for _ in 0..100 {
            if core.claims == 0 {
                break;
            }
            core = space.wait_core(core, Duration::from_millis(5));
        }
        core.shadow.is_empty()
    }

    /// The kernel announces the child of the fork that the window was opened
    /// for. Runs before parent or child leave the system call.
    pub(crate) fn fork_announced(&self, parent: &Arc<Space>, uffd: Uffd) {
        let id = self.new_space_id();
        let child = Arc::new(Space::new(id, uffd, 0, self.sizes.shadow_slots));
        let mut core = parent.core();
        let Some(window) = core.window.take() else {
            // Not filtered, so not ours to follow; without a table it must not run.
            say!(
                "process {}: an unexpected fork; its child is refused",
                parent.leader()
            );
            return;
        };
        self.counters.forks.add(1);
        {
            let mut young = child.core();
            core.table.for_each(0..u64::MAX >> 12, |page, state| {
                if !core.not_inherited.contains(page.0) {
                    young.table.set(page, inherited(state));
                    young.table.set_epoch(page, core.table.epoch(page));
                }
            });
            for (page, before) in &window.log {
                if !core.not_inherited.contains(page.0) {
                    young.table.set(*page, inherited(*before));
                    young.table.set_epoch(*page, core.table.epoch(*page));
                }
            }
            let mut resident = Vec::new();
            young
                .table
                .for_each(0..u64::MAX >> 12, |page, state| match state {
                    State::Resident => resident.push(page),
                    other => {
                        if let Some(handle) = handle_of(other) {
                            self.store.retain(handle);
                        }
                    }
                });
            queue_runs(&mut young, &resident, self.next_stamp());
            young.brk = core.brk;
            young.not_inherited = core.not_inherited.clone();
            let charge = young.table.resident();
            if charge > window.charged_pages {
                self.budget.charge_anyway(charge - window.charged_pages);
            } else {
                self.budget.uncharge(window.charged_pages - charge);
            }
        }
        for (_, state) in window.log {
            self.drop_state(state);
        }
        // Its first fault comes from the kernel, before the tracer sees it.
        if let Err(error) = self.publish(&child) {
            say!(
                "process {}: its child cannot be watched: {error}",
                parent.leader()
            );
        }
        lock(&self.forked).push(Forked {
            thread: window.thread,
            child,
        });
        parent.changed.notify_all();
    }

    /// The space of `child`, which `thread` has just made, if that was a fork.
    /// The kernel's announcement has been read by now, but a handler may still
    /// be working on it.
    pub(crate) fn take_forked(
        &self,
        parent: &Space,
        thread: i32,
        child: i32,
    ) -> Option<Arc<Space>> {
        let mut core = parent.core();
        let open = |core: &Core| core.window.as_ref().is_some_and(|w| w.thread == thread);
        while open(&core) && parent.is_being_served() {
            core = parent.wait_core(core, Duration::from_millis(5));
        }
        drop(core);
        let space = self.take_forked_by(thread)?;
        if same_memory(thread, child) == Some(true) {
            // A thread; what was announced earlier is a fork that failed late.
            self.leave(&space);
            return None;
        }
        Some(space)
    }

    fn take_forked_by(&self, thread: i32) -> Option<Arc<Space>> {
        let mut forked = lock(&self.forked);
        let index = forked.iter().position(|forked| forked.thread == thread)?;
        Some(forked.swap_remove(index).child)
    }

    /// A child whose forking thread does not live any more.
    pub(crate) fn take_orphaned_fork(&self, lives: impl Fn(i32) -> bool) -> Option<Arc<Space>> {
        let mut forked = lock(&self.forked);
        let index = forked.iter().position(|forked| !lives(forked.thread))?;
        Some(forked.swap_remove(index).child)
    }

    /// Closes the window of a fork by `thread` that did not happen.
    pub(crate) fn close_window(&self, space: &Space, thread: i32) {
        let mut core = space.core();
        if core
            .window
            .as_ref()
            .is_some_and(|window| window.thread == thread)
        {
            if let Some(window) = core.window.take() {
                self.abandon(window);
            }
            space.changed.notify_all();
        }
    }

    /// Asks the tracer to look at threads whose fork takes suspiciously long.
    pub(crate) fn find_stale_windows(&self) {
        for space in self.all_spaces() {
            let core = space.core();
            let Some(window) = &core.window else { continue };
            let mut interrupts = lock(&self.interrupts);
            if window.since.elapsed() > WINDOW_STALE && !interrupts.contains(&window.thread) {
                interrupts.push(window.thread);
            }
        }
    }
}

/// What a page of the parent is in the child.
fn inherited(state: State) -> State {
    match state {
        State::Loading(handle) => State::Stored(handle),
        // No eviction is under way in a window; the page is in memory.
        State::Moving => State::Resident,
        other => other,
    }
}

/// Puts resident pages into a space's queue, neighbours as one run.
pub(crate) fn queue_runs(core: &mut Core, resident: &[Vpn], stamp: u64) {
    for run in resident.chunk_by(|one, next| one.0 + 1 == next.0) {
        core.probation.push(run[0], run.len() as u64, stamp);
    }
}
