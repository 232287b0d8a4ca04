//! Forks: the child's page table is its parent's at the moment of the fork.
//!
//! From before the call until its exit the parent's space has a fork window:
//! nothing is evicted from it, and every page that changes is logged with what it
//! was. A page is then, in the child, what it was at the window's opening or
//! what the kernel copied, whichever is the younger: when the kernel has the page,
//! no fault ever asks the table. The child stops before its first instruction and
//! gets a userfaultfd of its own there; what the kernel itself writes into it
//! before that (its number, its restartable sequence) is resident at the fork.
//!
//! Shared pages are charged twice, to parent and child, so a later copy on write
//! never overshoots the budget.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use zcache::{PAGE_SIZE, Page};
use zcache_sys::process::{self, read_memory};
use zcache_sys::ptrace::{self, Registers, Stop};
use zcache_sys::vma;

use super::Watched;
use crate::budget::PAGE_BYTES;
use crate::pager::{Pager, say};
use crate::paging::evict::Evictor;
use crate::process::inject::Held;
use crate::process::tracer::{Outcome, Tracer};
use crate::space::page_table::{State, Vpn};
use crate::space::{ForkWindow, Space, handle_of};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long room is waited for before a window is tried again.
const ROUND: Duration = Duration::from_millis(50);

/// What a fork asks for.
struct Wish {
    flags: u64,
    /// Where the kernel writes the child's number in the child.
    set_word: Option<u64>,
    /// The word that it clears when the child ends.
    cleared: Option<u64>,
}

impl Wish {
    fn of(flags: u64, word: u64) -> Wish {
        let has = |flag: i32| (flags & flag as u64 != 0).then_some(word);
        Wish {
            flags,
            set_word: has(libc::CLONE_CHILD_SETTID),
            cleared: has(libc::CLONE_CHILD_CLEARTID),
        }
    }
}

impl Watched<'_> {
    async fn wish(&self, number: i64) -> Option<Wish> {
        let a = self.arguments();
        match number {
            libc::SYS_fork => Some(Wish::of(0, 0)),
            libc::SYS_clone => Some(Wish::of(a[0], a[3])),
            _ => {
                let thread = self.thread();
                let mut words = [0u8; 24];
                let read = self
                    .tracer
                    .elsewhere(move |_| read_memory(thread, a[0], &mut words).map(|_| words));
                let words = read.await.ok()?;
                let word =
                    |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| words[at * 8 + i]));
                Some(Wish::of(word(0), word(2)))
            }
        }
    }

    /// Sees a call through that may make a process.
    pub(super) async fn fork(self, number: i64) {
        let Some(wish) = self.wish(number).await else {
            // The kernel cannot read its arguments either.
            self.resume();
            return;
        };
        if wish.flags & libc::CLONE_UNTRACED as u64 != 0 {
            self.refuse(libc::EPERM);
            return;
        }
        if wish.flags & libc::CLONE_VM as u64 != 0 {
            self.tracer.note_wished_word(self.thread(), wish.cleared);
            self.resume();
            return;
        }
        if !self.space.hands().can_evict() && self.begin_again_with_servant().await {
            return;
        }
        let sequence = ptrace::sequence_area(self.thread())
            .ok()
            .filter(|at| *at != 0);
        let mut held: Vec<Vpn> = [wish.set_word, sequence]
            .into_iter()
            .flatten()
            .flat_map(|at| [Vpn::of(at), Vpn::of(at + 31)])
            .collect();
        held.dedup();
        self.hold_pages(&held).await;
        if !self.open_window().await {
            self.release(&held);
            self.refuse(libc::ENOMEM);
            return;
        }
        self.hold_pages(&held).await;
        self.release(&held);
        let outcome = Outcome::default();
        let killed = self.make_child(&wish, &outcome).await;
        // There is no child, or none that we have heard of.
        if killed && let Some(orphan) = self.pager().child_of(&self.space) {
            self.tracer.note_orphan(orphan);
        }
        self.pager().abandon_window(&self.space);
        self.space.core().end_call(&self.space);
        self.release(&held);
        if killed {
            return;
        }
        let mut held = Held::default();
        if outcome.get() == Some(false) {
            held = self.take_back_child().await;
        }
        self.resume_by(held);
    }

    /// A space that has lost its servant cannot be forked while pages wait in its
    /// shadow. The call is skipped, the space gets another servant, and the thread
    /// makes its call again. Returns whether it is so.
    async fn begin_again_with_servant(&self) -> bool {
        if self.space.is_closing() || !self.tracer.may_renew(&self.space) {
            return false;
        }
        self.set_registers(&Registers {
            orig_rax: u64::MAX,
            ..self.registers
        });
        if self.make().await.is_none() {
            return true;
        }
        let mut held = Held::default();
        let renewed = self
            .tracer
            .renew_servant(self.claim, &self.space, &mut held);
        // If it was refused, the fork is tried without.
        let _ = renewed.await;
        self.set_registers(&Registers {
            rip: self.registers.rip - 2,
            rax: self.registers.orig_rax,
            orig_rax: u64::MAX,
            ..self.registers
        });
        self.resume_by(held);
        true
    }

    /// The child could not run and was killed before its first instruction: nobody
    /// is to hear of it but by the call's failure.
    async fn take_back_child(&self) -> Held {
        let Ok(registers) = ptrace::registers(self.thread()) else {
            return Held::default();
        };
        let wait = [registers.rax, 0, libc::__WALL as u64, 0, 0, 0];
        let (_, held) = self.inject("wait", libc::SYS_wait4, wait).await;
        let failed = Registers {
            rax: (-i64::from(libc::EAGAIN)).cast_unsigned(),
            ..registers
        };
        self.set_registers(&failed);
        held
    }

    fn release(&self, held: &[Vpn]) {
        let mut core = self.space.core();
        for page in held {
            core.unpin(*page, self.pager().next_stamp());
        }
    }

    /// Lets the thread fork; a child is announced with a table of its own. Returns
    /// whether the thread was killed over it.
    async fn make_child(&self, wish: &Wish, outcome: &Outcome) -> bool {
        loop {
            if self.claim.has_ended() || ptrace::resume_to_syscall(self.thread(), 0).is_err() {
                // Its end is on its way.
                while !matches!(
                    self.tracer.scripts.stop_of(self.claim).await,
                    Stop::Exited(_) | Stop::Signaled(_)
                ) {}
                return true;
            }
            match self.tracer.scripts.stop_of(self.claim).await {
                Stop::Syscall => return false,
                Stop::Exited(_) | Stop::Signaled(_) => return true,
                Stop::Birth { child, .. } if self.child_born(child, wish, outcome) => {
                    self.tracer.scripts.until(|| outcome.get()).await;
                }
                _ => {}
            }
        }
    }

    /// Returns whether its outcome is to be waited for.
    fn child_born(&self, child: i32, wish: &Wish, outcome: &Outcome) -> bool {
        let shares = process::same_memory(self.thread(), child) == Some(true);
        if !shares && let Some(space) = self.pager().child_of(&self.space) {
            let parentage = Tracer::forked(self.thread(), space, wish.cleared, outcome);
            self.tracer.announce(child, parentage);
            return true;
        }
        // The arguments were changed after we had read them.
        self.pager().abandon_window(&self.space);
        let _ = process::kill(child, libc::SIGKILL);
        false
    }

    /// Has the turn of this call begin with everything stored that a child does
    /// not inherit, and the child's pages charged. Meanwhile no page comes to the
    /// space: other threads would take the room as it is made.
    async fn open_window(&self) -> bool {
        self.space.core().forks_waiting += 1;
        let opened = self.try_windows().await;
        let mut core = self.space.core();
        core.forks_waiting -= 1;
        if core.forks_waiting == 0 {
            self.space.wake_held(&mut core);
        }
        opened
    }

    async fn try_windows(&self) -> bool {
        let start = Instant::now();
        loop {
            self.begin().await;
            let space = Arc::clone(&self.space);
            let flushed = space.core().shadow.is_empty();
            let opened = match flushed {
                true => self.pager().try_open_window(&space),
                false => {
                    self.tracer
                        .flushing(move |pager| {
                            pager.flush_shadow(&space) && pager.try_open_window(&space)
                        })
                        .await
                }
            };
            if opened {
                return true;
            }
            self.space.core().end_call(&self.space);
            self.room_for_child().await;
            if start.elapsed() > PATIENCE {
                self.say_refused();
                return false;
            }
        }
    }
}

impl Watched<'_> {
    /// Waits a while until all of the space that is in RAM fits twice.
    async fn room_for_child(&self) {
        let start = Instant::now();
        let budget = &self.pager().budget;
        let _wanted = budget.want(self.space.core().in_ram());
        // What leaves makes room and is no longer needed twice.
        let fits = || budget.available_bytes() >= self.space.core().in_ram() * PAGE_BYTES;
        let look = || (fits() || start.elapsed() > ROUND).then_some(());
        self.tracer.scripts.until(look).await;
    }

    fn say_refused(&self) {
        say!(
            "process {}: fork refused: its {} MiB in memory would not fit twice in the budget",
            self.space.leader(),
            self.space.core().in_ram() >> 8
        );
    }
}

impl Pager {
    pub(crate) fn try_open_window(&self, space: &Space) -> bool {
        let mut core = space.core();
        let charge = core.table.resident().max(1);
        if !core.shadow.is_empty() || !self.budget.try_charge(charge) {
            return false;
        }
        core.window = Some(ForkWindow {
            charged_pages: charge,
            log: Vec::new(),
        });
        true
    }

    /// Compresses all that waits in the shadow. Returns whether it is empty.
    pub(crate) fn flush_shadow(self: &Arc<Self>, space: &Arc<Space>) -> bool {
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
            if core.at_shadow == 0 {
                break;
            }
            core = space.wait_core(core, Duration::from_millis(5));
        }
        core.shadow.is_empty()
    }

    /// The space of a child that has just been made, as its parent's was; `None`
    /// without a fork window, which ends by this. It is brought in line with the
    /// kernel's own account when it is taken into care.
    pub(crate) fn child_of(&self, parent: &Space) -> Option<Arc<Space>> {
        // What changes is logged up to the moment at which the table is read.
        let mut core = parent.core();
        let window = core.window.take()?;
        self.counters.forks.add(1);
        let child = Space::new(self.new_space_id(), 0, self.sizes.shadow_slots);
        if let Some(kernel) = parent.hands().kernel() {
            let _ = child.places.set(kernel.places);
        }
        {
            let mut young = child.core();
            core.table.for_each(0..u64::MAX >> 12, |page, state| {
                young.table.set(page, inherited(state));
                young.table.set_epoch(page, core.table.epoch(page));
            });
            for (page, before) in &window.log {
                young.table.set(*page, inherited(*before));
                young.table.set_epoch(*page, core.table.epoch(*page));
            }
            young.table.for_each(0..u64::MAX >> 12, |_, state| {
                if let Some(handle) = handle_of(state) {
                    self.store.retain(handle);
                }
            });
            young.brk = core.brk;
            young.wiped = core.wiped.clone();
            young.guards = core.guards.clone();
            let charge = young.table.resident();
            if charge > window.charged_pages {
                self.budget.charge_anyway(charge - window.charged_pages);
            } else {
                self.budget.uncharge(window.charged_pages - charge);
            }
        }
        drop(core);
        for (_, state) in window.log {
            self.drop_state(state);
        }
        Some(Arc::new(child))
    }

    /// Writes all pages of a child that cannot be paged into its memory, where the
    /// kernel has none. The child is stopped and has run no instruction.
    pub(crate) fn fill_unpaged(&self, space: &Space, pid: i32) -> Result<(), String> {
        let missing = missing_pages(space, pid)
            .map_err(|error| format!("its page map cannot be read: {error}"))?;
        if !self.make_room(missing.len() as u64, PATIENCE) {
            return Err(format!(
                "its {} MiB do not fit in the budget",
                missing.len() >> 8
            ));
        }
        let memory = std::fs::OpenOptions::new()
            .write(true)
            .open(format!("/proc/{pid}/mem"))
            .map_err(|error| format!("its memory cannot be written: {error}"))?;
        let mut bytes: Box<[Page]> = vec![[0; PAGE_SIZE]; 1].into_boxed_slice();
        for page in missing {
            let State::Stored(handle) = space.core().table.get(page) else {
                continue;
            };
            let mut results = [Ok(())];
            self.store.load_many(&[handle], &mut bytes, &mut results);
            if let Err(error) = &results[0] {
                return Err(self.cause(error));
            }
            match memory.write_all_at(&bytes[0], page.address()) {
                Ok(()) => {}
                Err(_) if !is_mapped(pid, page) => {}
                Err(error) => return Err(format!("its memory cannot be written: {error}")),
            }
        }
        space.leader.store(pid, Ordering::Relaxed);
        Ok(())
    }
}

/// Whether a process has something mapped there; yes where it cannot be told.
fn is_mapped(pid: i32, page: Vpn) -> bool {
    let maps = std::fs::File::open(format!("/proc/{pid}/maps"));
    let mut found = false;
    let read = maps.and_then(|maps| {
        vma::each(&maps, |mapping| {
            found |= mapping.range.contains(&page.address());
        })
    });
    found || read.is_err()
}

/// Pages of an unpaged child that are out: what the kernel has is younger than
/// what the table says, and what is wiped is nobody's.
fn missing_pages(space: &Space, pid: i32) -> std::io::Result<Vec<Vpn>> {
    let pagemap = std::fs::File::open(format!("/proc/{pid}/pagemap"))?;
    let core = space.core();
    let mut missing = Vec::new();
    core.table.for_each(0..u64::MAX >> 12, |page, state| {
        let wiped = core.wiped.contains(page.0);
        if !wiped && matches!(state, State::Stored(_)) {
            missing.push(page);
        }
    });
    drop(core);
    let mut entry = [0u8; 8];
    missing.retain(|page| {
        let read = pagemap.read_exact_at(&mut entry, page.0 * 8);
        read.is_ok() && entry[7] >> 6 == 0
    });
    Ok(missing)
}

/// What a page of the parent is in the child.
fn inherited(state: State) -> State {
    match state {
        State::Loading(handle) => State::Stored(handle),
        other => other,
    }
}
