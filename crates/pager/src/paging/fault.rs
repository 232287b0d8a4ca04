//! Faults: one handler thread for each processor reads messages and brings pages.
//!
//! Stage on the data path: store → program. For each message the table decides:
//! absent pages become zeros, stored ones are decoded, shadowed ones copied
//! back. A page is charged before it is given. The table is locked while a page
//! is installed, but not while it is decoded or read from disk: the state
//! `Loading` keeps the place, and what changed meanwhile wins.
//!
//! A handler never waits long: a fault without room is parked and woken later.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use zcache::{Handle, LoadError, PAGE_SIZE, Page};
use zcache_sys::process::run_on;
use zcache_sys::uffd::{Message, Outcome};

use crate::budget::PAGE_BYTES;
use crate::pager::{Pager, say};
use crate::space::page_table::{Slot, State, Vpn};
use crate::space::queue::Standing;
use crate::space::{Core, Space, SpaceId};
use crate::sync::{Instant, MutexGuard};

const MESSAGES_IN_A_ROW: usize = 64;
/// Times that a page may fail to be installed in a row.
const AGAIN_MAX: u32 = 100_000;
const PATIENCE: Duration = Duration::from_micros(400);

/// Buffers of one handler.
pub(crate) struct Handler {
    pager: Arc<Pager>,
    index: usize,
    zeros: Box<[Page]>,
    pages: Box<[Page]>,
    /// The page that could not be installed last, and how often in a row.
    again: (Vpn, u32),
}

/// What became of a fault.
enum Resolution {
    /// Settled, or somebody else will.
    Done,
    /// There is no room for it now.
    NoRoom,
}

/// What an installation by copy came to.
enum Installed {
    Pages(u64),
    /// A page is there already.
    Exists,
    /// The map is changing or the range is not ours (any more): fault again.
    Again,
    /// The process is gone.
    Gone,
}

impl Handler {
    pub(crate) fn new(pager: Arc<Pager>, index: usize) -> Handler {
        let window = pager.sizes.window_pages as usize;
        Handler {
            pager,
            index,
            zeros: vec![[0; PAGE_SIZE]; window].into_boxed_slice(),
            pages: vec![[0; PAGE_SIZE]; window].into_boxed_slice(),
            again: (Vpn(0), 0),
        }
    }

    /// Serves until the run ends.
    pub(crate) fn run(mut self, cpu: usize) {
        if let Err(error) = run_on(&[cpu]) {
            say!(
                "the fault handler cannot be bound to processor {cpu} ({error}); it runs anywhere"
            );
        }
        let pager = Arc::clone(&self.pager);
        let mut tokens = Vec::new();
        loop {
            tokens.clear();
            if let Err(error) = pager.posts.epoll(self.index).wait(&mut tokens, None) {
                say!("waiting for faults failed ({error}); the program cannot go on");
                std::process::exit(125);
            }
            for token in &tokens {
                if let Some(space) = pager.space(SpaceId(*token)) {
                    self.serve(&space);
                }
            }
        }
    }

    fn serve(&mut self, space: &Arc<Space>) {
        let Some(uffd) = space.uffd() else { return };
        for _ in 0..MESSAGES_IN_A_ROW {
            match uffd.read() {
                Ok(Some(Message::Fault { address, thread })) => {
                    self.fault(space, Vpn::of(address));
                    if space.knows_threads.load(Ordering::Relaxed) {
                        self.pager.posts.follow(space, thread);
                    }
                }
                // Whoever moved it has the gate, and takes note when it is done.
                Ok(Some(Message::Remapped)) => {}
                Ok(Some(Message::Other(kind))) => say!("unexpected message {kind:#x}"),
                Ok(None) | Err(_) => return,
            }
        }
    }

    pub(crate) fn fault(&mut self, space: &Space, page: Vpn) {
        let start = Instant::now();
        self.pager.counters.faults.add(1);
        let mut resolution = self.resolve(space, page);
        if matches!(resolution, Resolution::NoRoom) {
            self.pager.budget.press();
            self.pager.budget.wait_freed(PATIENCE);
            resolution = self.resolve(space, page);
        }
        if matches!(resolution, Resolution::NoRoom) {
            self.pager.counters.stalled_faults.add(1);
            self.pager.stalled.fetch_add(1, Ordering::Relaxed);
            space.core().stalled.push_back(page);
            self.pager.budget.press();
        } else {
            self.pager.counters.fault_ns.add(start.elapsed());
        }
    }

    fn resolve(&mut self, space: &Space, page: Vpn) -> Resolution {
        if space.is_closing() {
            return Resolution::Done;
        }
        let mut core = space.core();
        if core.is_busy(page) {
            core.deferred.push(page);
            return Resolution::Done;
        }
        let state = core.table.get(page);
        let comes = matches!(state, State::Absent | State::Stored(_) | State::Shadow(_));
        if comes && core.holds_faults() {
            core.held.push(page);
            return Resolution::Done;
        }
        match state {
            State::Absent => self.give_zeros(space, &mut core, page),
            State::Shadow(slot) => self.give_back(space, &mut core, page, slot),
            State::Stored(_) => self.load(space, core, page),
            State::Loading(_) => Resolution::Done,
            State::Moving => {
                core.deferred.push(page);
                Resolution::Done
            }
            State::Resident => {
                self.check_resident(space, &mut core, page);
                Resolution::Done
            }
            State::Poisoned => {
                // Poisoned already or again, then the fault ends in SIGBUS.
                let _ = space.hands().poison(page);
                space.wake(page);
                Resolution::Done
            }
        }
    }

    /// A fault where the table says that there is a page: another thread was
    /// served first, or the page vanished behind our back.
    fn check_resident(&self, space: &Space, core: &mut Core, page: Vpn) {
        if space.is_present(page) == Some(false) {
            self.pager.budget.uncharge(1);
            self.pager.lose(
                space,
                core,
                page,
                "it was dropped by a call that zcache cannot see",
            );
        } else {
            space.wake(page);
        }
    }

    fn give_zeros(&mut self, space: &Space, core: &mut Core, page: Vpn) -> Resolution {
        let limit = if self.pager.budget.is_low() {
            1
        } else {
            self.pager.sizes.window_pages
        };
        let wanted = core.streams.window(page.0, limit);
        let run = core.table.run(page, wanted, |state| state == State::Absent);
        let run = core.reach(page, run);
        for count in [run, 1] {
            if !self.pager.budget.try_charge(count) {
                continue;
            }
            let installed = install(space, page, &self.zeros[..count as usize]);
            let given = match installed {
                Installed::Pages(given) => given,
                Installed::Exists => 1,
                Installed::Again if count > 1 => 0,
                Installed::Again | Installed::Gone => {
                    self.pager.budget.uncharge(count);
                    self.ask_again(space, core, page);
                    return Resolution::Done;
                }
            };
            self.pager.budget.uncharge(count - given);
            if given == 0 {
                continue;
            }
            if given < wanted {
                core.streams.shortened(page.0, wanted, given);
            }
            for ahead in 0..given {
                core.log(Vpn(page.0 + ahead), State::Absent);
                core.table.set(Vpn(page.0 + ahead), State::Resident);
            }
            core.admit(page, given, self.pager.next_stamp(), Standing::Probation);
            self.pager.counters.zero_filled_pages.add(given);
            if matches!(installed, Installed::Exists) {
                space.wake(page);
            }
            return Resolution::Done;
        }
        core.streams.shortened(page.0, wanted, 0);
        Resolution::NoRoom
    }

    /// The map was changing, or was not what it seemed: who waits faults again. Where
    /// that goes on and on, the kernel will never take the page.
    fn ask_again(&mut self, space: &Space, core: &mut Core, page: Vpn) {
        self.again = match self.again {
            (last, times) if last == page => (page, times + 1),
            _ => (page, 1),
        };
        if self.again.1 > AGAIN_MAX && !space.is_closing() {
            self.again = (Vpn(0), 0);
            let why = "the kernel does not take it back";
            self.pager.lose(space, core, page, why);
        } else {
            space.wake(page);
        }
    }

    /// The second chance: the page comes back from the shadow.
    fn give_back(&mut self, space: &Space, core: &mut Core, page: Vpn, slot: Slot) -> Resolution {
        if !self.pager.budget.try_charge_for_shadow() {
            return Resolution::NoRoom;
        }
        match space.hands().read_slots(slot, &mut self.pages[0]) {
            Ok(PAGE_SIZE) => {}
            _ => {
                self.pager.budget.uncharge(1);
                if !space.is_closing() {
                    core.shadow.set_owner(slot, None);
                    self.pager
                        .lose(space, core, page, "the shadow cannot be read");
                }
                return Resolution::Done;
            }
        }
        match install(space, page, &self.pages[..1]) {
            Installed::Pages(_) => {
                core.shadow.set_owner(slot, None);
                core.table.set(page, State::Resident);
                core.admit(page, 1, self.pager.next_stamp(), Standing::Protected);
                self.pager.counters.second_chances.add(1);
            }
            Installed::Exists | Installed::Again | Installed::Gone => {
                self.pager.budget.uncharge(1);
                space.wake(page);
            }
        }
        Resolution::Done
    }

    /// Brings a stored page and, in a sweep, those behind it.
    fn load(&mut self, space: &Space, mut core: MutexGuard<'_, Core>, page: Vpn) -> Resolution {
        // A page of a sweep costs its eviction now or microseconds later, so a
        // full budget does not narrow the window; only what fits is brought.
        let wanted = core.streams.window(page.0, self.pager.sizes.window_pages);
        let stored = |state| matches!(state, State::Stored(_));
        let run = core.table.run(page, wanted, stored);
        let run = core.reach(page, run);
        let halves = std::iter::successors(Some(run), |count| Some(count / 2));
        let fits = |count: &u64| self.pager.budget.try_charge(*count);
        let Some(count) = halves.take_while(|count| *count > 0).find(fits) else {
            core.streams.shortened(page.0, wanted, 0);
            return Resolution::NoRoom;
        };
        if count < wanted {
            core.streams.shortened(page.0, wanted, count);
        }
        let epoch = core.table.epoch(page);
        self.pager.balance.wanted(epoch);
        let standing = if self.pager.balance.is_regretted(epoch) {
            Standing::Protected
        } else {
            Standing::Probation
        };
        let mut handles: Vec<Handle> = Vec::with_capacity(count as usize);
        for ahead in 0..count {
            let at = Vpn(page.0 + ahead);
            if let State::Stored(handle) = core.table.get(at) {
                // One more reference keeps the zpage ours whatever happens to
                // the table while it is decoded.
                self.pager.store.retain(handle);
                core.table.set(at, State::Loading(handle));
                handles.push(handle);
            }
        }
        drop(core);
        let mut results: Vec<Result<(), LoadError>> = handles.iter().map(|_| Ok(())).collect();
        let store = &self.pager.store;
        let (start, read_before) = (Instant::now(), store.swapin_pages());
        store.load_many(&handles, &mut self.pages[..handles.len()], &mut results);
        let from_tier = store.swapin_pages() != read_before;
        self.pager.balance.took(start.elapsed(), from_tier);
        self.install_loaded(space, page, &handles, results, standing);
        Resolution::Done
    }

    fn install_loaded(
        &mut self,
        space: &Space,
        first: Vpn,
        handles: &[Handle],
        results: Vec<Result<(), LoadError>>,
        standing: Standing,
    ) {
        let mut core = space.core();
        let usable: Vec<bool> = handles
            .iter()
            .enumerate()
            .map(|(index, handle)| {
                let at = Vpn(first.0 + index as u64);
                results[index].is_ok()
                    && core.table.get(at) == State::Loading(*handle)
                    && !core.is_busy(at)
            })
            .collect();
        let mut given = 0u64;
        let mut index = 0;
        while index < handles.len() {
            let length = usable[index..].iter().take_while(|usable| **usable).count();
            if length == 0 {
                index += 1;
                continue;
            }
            given += self.install_run(
                space,
                &mut core,
                first,
                index,
                &handles[index..index + length],
                if index == 0 {
                    standing
                } else {
                    Standing::Probation
                },
            );
            index += length;
        }
        for (index, handle) in handles.iter().enumerate() {
            let at = Vpn(first.0 + index as u64);
            if core.table.get(at) == State::Loading(*handle) {
                core.table.set(at, State::Stored(*handle));
                if core.is_busy(at) {
                    core.deferred.push(at);
                }
                // The others' are told when they are asked for. A page that
                // moved too often is not lost: who asked for it faults again.
                if let (0, Err(error)) = (index, &results[index])
                    && !matches!(error, LoadError::Busy { .. })
                {
                    self.pager
                        .lose(space, &mut core, at, &self.pager.cause(error));
                }
            }
        }
        // Whoever waits for a page that was not installed faults again: who
        // asked for the first, and who found another of them being loaded.
        if given < handles.len() as u64 {
            space.hands().wake(first, handles.len() as u64);
        }
        drop(core);
        self.pager.budget.uncharge(handles.len() as u64 - given);
        self.pager.counters.loaded_pages.add(given);
        self.pager
            .counters
            .around_pages
            .add(given.saturating_sub(1));
        for handle in handles {
            self.pager.store.release(*handle);
        }
    }

    /// Installs one run of decoded pages; returns how many became resident.
    fn install_run(
        &self,
        space: &Space,
        core: &mut Core,
        first: Vpn,
        index: usize,
        handles: &[Handle],
        standing: Standing,
    ) -> u64 {
        let start = Vpn(first.0 + index as u64);
        let mut done = 0;
        while done < handles.len() {
            let at = Vpn(start.0 + done as u64);
            let rest = &self.pages[index + done..index + handles.len()];
            let installed = match install(space, at, rest) {
                Installed::Again if rest.len() > 1 => install(space, at, &rest[..1]),
                other => other,
            };
            let settled = match installed {
                Installed::Pages(pages) => pages as usize,
                // The page is there although the table did not know: a fork
                // brought it along. What is there is the truth.
                Installed::Exists => 1,
                Installed::Again | Installed::Gone => {
                    space.wake(at);
                    break;
                }
            };
            for ahead in 0..settled {
                let page = Vpn(at.0 + ahead as u64);
                let before = core.table.set(page, State::Resident);
                let State::Loading(handle) = before else {
                    unreachable!("checked under the lock")
                };
                if !core.log(page, State::Stored(handle)) {
                    self.pager.store.release(handle);
                }
            }
            if matches!(installed, Installed::Exists) {
                space.wake(at);
            }
            done += settled;
        }
        if done > 0 {
            core.admit(start, done as u64, self.pager.next_stamp(), standing);
        }
        done as u64
    }
}

fn install(space: &Space, page: Vpn, pages: &[Page]) -> Installed {
    match space.hands().copy(page, pages) {
        Outcome::Done => Installed::Pages(pages.len() as u64),
        Outcome::Stopped { bytes, .. } if bytes > 0 => Installed::Pages(bytes / PAGE_BYTES),
        Outcome::Stopped {
            errno: libc::EEXIST,
            ..
        } => Installed::Exists,
        Outcome::Stopped {
            errno: libc::ESRCH, ..
        } => Installed::Gone,
        Outcome::Stopped { .. } => Installed::Again,
    }
}
