//! Eviction: resident → shadow → store → tier.
//!
//! Stage on the data path: program → store. Two steps, each in batches. First
//! the servant moves the oldest resident pages into the shadow (`UFFDIO_MOVE`),
//! under the space's `ops` lock, so that no mapping changes meanwhile. Later the
//! oldest shadow pages are read from outside, compressed without any lock, and
//! their shadow slots given back to the kernel. A page that is touched in
//! between comes back from the shadow: its second chance.
//!
//! Invariant: a page's RAM is uncharged only after the kernel has it back.

use std::sync::Arc;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::time::Duration;

use zcache::{Handle, PAGE_SIZE, Page, Rejected};
use zcache_sys::servant::{Command, Ring, SHADOW_BASE};
use zcache_sys::uffd::{MOVE_MODE_DONTWAKE, MoveArgs, Outcome, UFFDIO_MOVE};

use crate::budget::PAGE_BYTES;
use crate::pager::Pager;
use crate::queue::Standing;
use crate::shadow::Claim;
use crate::space::Space;
use crate::table::{Slot, State, Vpn};

const MADV_DONTNEED: u64 = 4;
const MADV_POPULATE_WRITE: u64 = 23;
const MOVE_ARGS_BYTES: usize = size_of::<MoveArgs>();
/// Rounds in vain after which an evictor that nobody waits for takes its time.
const FUTILE_ROUNDS_MAX: u32 = 100;
/// Pages that are tried when the store refuses most.
const PROBE_PAGES: u64 = 4;
const FUTILE_PAUSE: Duration = Duration::from_millis(10);

/// Pages on probation are this part of the resident ones, at least.
const PROBATION_PART: u64 = 10;
/// One round in this many takes protected pages whatever the parts are.
const PROTECTED_ROUND: u64 = 8;

/// Neighbouring pages on their way to neighbouring slots.
#[derive(Clone, Copy, Debug)]
struct Move {
    page: Vpn,
    slot: Slot,
    count: u64,
}

/// One evictor thread's state.
pub(crate) struct Evictor {
    pager: Arc<Pager>,
    pages: Box<[Page]>,
    rounds: u64,
    /// Pages of the last compression that the store refused.
    returned: u64,
    /// Whether these were most of them: then few are tried at a time, since a
    /// page that goes back is there twice for a moment.
    refusing: bool,
    futile_rounds: u32,
}

impl Evictor {
    pub(crate) fn new(pager: Arc<Pager>) -> Evictor {
        let batch = pager.sizes.batch_pages as usize;
        Evictor {
            pager,
            pages: vec![[0; PAGE_SIZE]; batch].into_boxed_slice(),
            rounds: 0,
            returned: 0,
            refusing: false,
            futile_rounds: 0,
        }
    }

    /// Evicts whenever the budget is low, until the run ends.
    pub(crate) fn run(mut self) {
        let pager = Arc::clone(&self.pager);
        loop {
            if !pager.budget.is_low() {
                pager.wake_stalled();
                pager.budget.wait_pressed(Duration::from_millis(50));
                self.futile_rounds = 0;
                continue;
            }
            while pager.budget.is_below_high() {
                pager.counters.eviction_rounds.add(1);
                if self.round() {
                    self.futile_rounds = 0;
                    pager.wake_stalled();
                } else {
                    self.out_of_ideas();
                }
            }
        }
    }

    /// Nothing could be freed in a whole round.
    fn out_of_ideas(&mut self) {
        let pager = &self.pager;
        if pager.store.compact(64) > 0 {
            return;
        }
        pager.budget.wait_freed(Duration::from_millis(2));
        self.futile_rounds += 1;
        if self.futile_rounds > FUTILE_ROUNDS_MAX && pager.stalled.load(Ordering::Relaxed) == 0 {
            // Nobody waits: what cannot be had is not asked for all the time.
            std::thread::sleep(FUTILE_PAUSE);
        }
    }

    /// One batch of each step. Returns whether RAM was freed.
    fn round(&mut self) -> bool {
        let pager = Arc::clone(&self.pager);
        let mut freed = self.make_room_in_store();
        let mut spaces = pager.all_spaces();
        spaces.retain(|space| space.has_servant() && !space.is_closing());
        let fullest = spaces
            .iter()
            .max_by_key(|space| space.core().shadow.waiting())
            .cloned();
        let mut futile = false;
        if let Some(space) = fullest {
            let urgent = pager.budget.is_urgent();
            let waiting = space.core().shadow.waiting();
            if waiting > pager.sizes.shadow_target || (urgent && waiting >= pager.sizes.batch_pages)
            {
                let gained = self.compress(&space, pager.sizes.batch_pages) > 0;
                futile = self.returned > 0 && !gained;
                freed |= gained;
            }
        }
        spaces.retain(|space| space.core().window.is_none());
        let moved = match self.oldest(&spaces) {
            Some((space, standing)) => self.shadow(&space, standing),
            None => 0,
        };
        if moved == 0 && !freed {
            // Nothing resident can go: what waits in shadows must.
            for space in pager.all_spaces() {
                freed |= self.compress(&space, pager.sizes.batch_pages) > 0;
            }
            // Nor can that: the store gives way although it is within its share.
            freed = freed || pager.config.swap.is_some() && self.write_back();
        }
        // Pages that the store refuses go back to the program; moving more of
        // them frees nothing.
        freed || moved > 0 && !futile
    }

    /// Whose pages leave next, and from which queue: the oldest of those on
    /// probation while they are more than a tenth of all, else the oldest
    /// protected ones. Some of those leave anyway, so that what is wanted no
    /// longer does not stay for ever.
    fn oldest(&mut self, spaces: &[Arc<Space>]) -> Option<(Arc<Space>, Standing)> {
        self.rounds += 1;
        let (mut probation, mut protected) = (0, 0);
        for space in spaces {
            let core = space.core();
            probation += core.probation.pages();
            protected += core.protected.pages();
        }
        let share = (probation + protected) / PROBATION_PART;
        let first = if probation <= share || self.rounds.is_multiple_of(PROTECTED_ROUND) {
            Standing::Protected
        } else {
            Standing::Probation
        };
        [first, first.other()].into_iter().find_map(|standing| {
            let oldest = spaces
                .iter()
                .filter_map(|space| Some((space.core().queue(standing).oldest()?, space)))
                .min_by_key(|(stamp, _)| *stamp);
            oldest.map(|(_, space)| (Arc::clone(space), standing))
        })
    }

    /// Writes the store's oldest blocks to the tier when it nears its share.
    fn make_room_in_store(&self) -> bool {
        let pager = &self.pager;
        let share = pager.limit_store();
        if pager.config.swap.is_none() || pager.store.ram_bytes() + self.slack_bytes() < share {
            return false;
        }
        self.write_back()
    }

    /// How far below its share the store is kept.
    fn slack_bytes(&self) -> u64 {
        (self.pager.budget.ram_bytes() / 256).clamp(192 << 10, 1 << 20)
    }

    /// Writes some of the store's oldest blocks to the tier. Returns whether
    /// RAM was freed.
    fn write_back(&self) -> bool {
        self.pager.store.reclaim(self.slack_bytes() * 2).bytes > 0
    }

    /// Moves a batch of the oldest resident pages into the shadow. Returns how
    /// many went.
    fn shadow(&mut self, space: &Arc<Space>, standing: Standing) -> u64 {
        let ops = space.lock_ops();
        if space.is_closing() || space.core().window.is_some() {
            return 0;
        }
        let moves = self.choose(space, standing);
        if moves.is_empty() {
            return 0;
        }
        let results = move_pages(space, &moves, false);
        let mut left: Vec<Move> = Vec::new();
        let mut moved = 0;
        let mut core = space.core();
        for (one, done) in moves.iter().zip(&results) {
            for ahead in 0..one.count {
                let page = Vpn(one.page.0 + ahead);
                let slot = Slot(one.slot.0 + ahead as u32);
                if ahead < *done {
                    core.table.set(page, State::Shadow(slot));
                    core.shadow.set_owner(slot, Some(page));
                } else {
                    left.push(Move {
                        page,
                        slot,
                        count: 1,
                    });
                }
            }
            moved += done;
        }
        drop(core);
        if !left.is_empty() {
            moved += self.retry(space, &left);
        }
        drop(ops);
        let mut core = space.core();
        space.wake_deferred(&mut core);
        drop(core);
        if !space.has_servant() {
            self.pager.servant_died(space);
        }
        self.pager.counters.shadowed_pages.add(moved);
        moved
    }

    /// Takes pages from the queue's old end and marks them as moving.
    fn choose(&self, space: &Space, standing: Standing) -> Vec<Move> {
        let mut core = space.core();
        let mut moves: Vec<Move> = Vec::new();
        let mut left = self.pager.sizes.batch_pages;
        while left > 0 {
            let Some(run) = core.queue(standing).pop(left) else {
                break;
            };
            let mut ahead = 0;
            while ahead < run.count {
                let page = Vpn(run.first.0 + ahead);
                let resident = core
                    .table
                    .run(page, run.count - ahead, |state| state == State::Resident);
                if resident == 0 {
                    ahead += 1;
                    continue;
                }
                let resident = core.before_pinned(page, resident);
                if resident == 0 {
                    // It comes back to the queue when it is unpinned.
                    ahead += 1;
                    continue;
                }
                let Some((slot, count)) = core.shadow.allocate(resident) else {
                    let stamp = self.pager.next_stamp();
                    core.admit(page, run.count - ahead, stamp, standing);
                    return moves;
                };
                for index in 0..count {
                    core.table.set(Vpn(page.0 + index), State::Moving);
                }
                moves.push(Move { page, slot, count });
                ahead += count;
                left = left.saturating_sub(count);
            }
        }
        moves
    }

    /// Pages that did not move at once: after a fork a page counts as shared
    /// until it is written, so it is populated for writing first, which copies
    /// it where it is still shared (both copies are charged). What does not
    /// move then stays.
    fn retry(&self, space: &Space, left: &[Move]) -> u64 {
        let mut moved = 0;
        for part in left.chunks(64) {
            let results = move_pages(space, part, true);
            let mut core = space.core();
            for (one, result) in part.iter().zip(results) {
                if result == 1 {
                    core.table.set(one.page, State::Shadow(one.slot));
                    core.shadow.set_owner(one.slot, Some(one.page));
                    moved += 1;
                } else {
                    core.table.set(one.page, State::Resident);
                    core.shadow.set_empty(one.slot);
                    let stamp = self.pager.next_stamp();
                    core.admit(one.page, 1, stamp, Standing::Probation);
                    self.pager.counters.unmovable_pages.add(1);
                }
            }
        }
        moved
    }

    /// Compresses at most `limit` of the oldest shadow pages. Returns how many
    /// pages of RAM became free: not those that the program got back.
    pub(crate) fn compress(&mut self, space: &Space, limit: u64) -> u64 {
        let mut core = space.core();
        if core.hold_claims || !space.has_servant() {
            return 0;
        }
        let most = match self.refusing {
            true => PROBE_PAGES,
            false => self.pages.len() as u64,
        };
        let Some(claim) = core.shadow.claim(limit.min(most)) else {
            return 0;
        };
        core.claims += 1;
        let owned: Vec<Option<Vpn>> = (0..claim.count)
            .map(|ahead| core.shadow.owner(Slot(claim.first.0 + ahead as u32)))
            .collect();
        drop(core);
        let readable = self.read(space, claim, &owned);
        let stored: Vec<Option<Result<Handle, Rejected>>> = owned
            .iter()
            .zip(&readable)
            .zip(self.pages.iter())
            .map(|((owner, readable), page)| {
                (owner.is_some() && *readable).then(|| self.pager.store.insert(page))
            })
            .collect();
        self.returned = self.settle(space, claim, &owned, stored);
        self.refusing = self.returned * 2 >= claim.count;
        let freed = self.free_slots(space, claim).saturating_sub(self.returned);
        let mut core = space.core();
        core.claims -= 1;
        space.changed.notify_all();
        freed
    }

    /// Reads the owned slots of a claim; says for each whether it was read.
    fn read(&mut self, space: &Space, claim: Claim, owned: &[Option<Vpn>]) -> Vec<bool> {
        let mut readable = vec![false; owned.len()];
        let mut index = 0;
        while index < owned.len() {
            let run = owned[index..]
                .iter()
                .take_while(|owner| owner.is_some())
                .count();
            if run == 0 {
                index += 1;
                continue;
            }
            let source = Slot(claim.first.0 + index as u32);
            let target = self.pages[index..index + run].as_flattened_mut();
            let got = space.read_shadow(source, target).unwrap_or(0);
            readable[index..index + got / PAGE_SIZE].fill(true);
            index += run;
        }
        readable
    }

    /// Writes the outcome of a claim's compression into the table. Returns how
    /// many pages the program got back.
    fn settle(
        &self,
        space: &Space,
        claim: Claim,
        owned: &[Option<Vpn>],
        stored: Vec<Option<Result<Handle, Rejected>>>,
    ) -> u64 {
        let epoch = self.pager.balance.now();
        let mut core = space.core();
        let (mut evicted, mut returned) = (0, 0);
        for (index, result) in stored.into_iter().enumerate() {
            let slot = Slot(claim.first.0 + index as u32);
            // The owner may have been given the page back meanwhile.
            let owner = core
                .shadow
                .owner(slot)
                .filter(|page| core.table.get(*page) == State::Shadow(slot));
            match (owner, result) {
                (Some(page), Some(Ok(handle))) => {
                    core.table.set(page, State::Stored(handle));
                    core.table.set_epoch(page, epoch);
                    core.shadow.set_owner(slot, None);
                    evicted += 1;
                }
                (None, Some(Ok(handle))) => self.pager.store.release(handle),
                (Some(page), Some(Err(_))) => {
                    // A call that drops the page may be under way: put back
                    // behind it, the page would come to life again.
                    while core.is_busy(page) {
                        core = space.wait_core(core, Duration::from_millis(1));
                    }
                    if core.table.get(page) == State::Shadow(slot) {
                        self.return_page(space, &mut core, page, slot, &self.pages[index]);
                        returned += 1;
                    }
                }
                (Some(page), None) if owned[index].is_some() && !space.is_closing() => {
                    core.shadow.set_owner(slot, None);
                    self.pager
                        .lose(space, &mut core, page, "the shadow cannot be read");
                }
                _ => {}
            }
        }
        self.pager.balance.evicted(evicted);
        self.pager.counters.evicted_pages.add(evicted);
        returned
    }

    /// The store refused a page: the program keeps it in RAM.
    fn return_page(
        &self,
        space: &Space,
        core: &mut MutexGuard<'_, crate::space::Core>,
        page: Vpn,
        slot: Slot,
        bytes: &Page,
    ) {
        self.pager.counters.returned_pages.add(1);
        match space.uffd.copy(page.address(), std::slice::from_ref(bytes)) {
            Outcome::Done => {
                // Its slot is uncharged when the claim is freed.
                self.pager.budget.charge_anyway(1);
                core.table.set(page, State::Resident);
                core.shadow.set_owner(slot, None);
                core.admit(page, 1, self.pager.next_stamp(), Standing::Probation);
            }
            Outcome::Stopped { .. } if space.is_closing() => {}
            Outcome::Stopped { errno, .. } => {
                core.shadow.set_owner(slot, None);
                let why = std::io::Error::from_raw_os_error(errno);
                self.pager
                    .lose(space, core, page, &format!("it cannot be put back: {why}"));
            }
        }
    }

    /// Gives the slots of a claim back to the kernel.
    fn free_slots(&self, space: &Space, claim: Claim) -> u64 {
        let address = SHADOW_BASE + u64::from(claim.first.0) * PAGE_BYTES;
        let arguments = [address, claim.count * PAGE_BYTES, MADV_DONTNEED, 0, 0, 0];
        if space.call(libc::SYS_madvise, arguments).is_err() {
            self.pager.servant_died(space);
            return 0;
        }
        let mut core = space.core();
        let freed = core.shadow.charged(claim);
        core.shadow.finish(claim);
        drop(core);
        self.pager.budget.uncharge(freed);
        freed
    }
}

/// Pages of a move behind the `done` first ones that went although the kernel
/// did not say so. Linux 6.18 moves pages in batches, and when one batch had to
/// be tried again it reports nothing of the next: it moves that, comes back to
/// its empty places and ends with ENOENT. A page is where the page map says.
fn landed_unreported(space: &Space, one: &Move, done: u64) -> u64 {
    let slots = SHADOW_BASE / PAGE_BYTES + u64::from(one.slot.0);
    (done..one.count)
        .take_while(|ahead| {
            space.is_present(Vpn(one.page.0 + ahead)) == Some(false)
                && space.is_present(Vpn(slots + ahead)) == Some(true)
        })
        .count() as u64
}

/// Has the servant move pages to their slots; returns how many of each went.
/// With `populate` each page is made writable and the target's own first. Of a
/// servant that is killed over it, the ring tells how far it came.
fn move_pages(space: &Space, moves: &[Move], populate: bool) -> Vec<u64> {
    let none = || vec![0; moves.len()];
    let Some(servant) = space.servant.get() else {
        return none();
    };
    let shadow_fd = servant.shadow_fd;
    let prepare = |ring: &Ring| {
        let mut commands = Vec::new();
        for (index, one) in moves.iter().enumerate() {
            let len = one.count * PAGE_BYTES;
            let target = SHADOW_BASE + u64::from(one.slot.0) * PAGE_BYTES;
            let words = [target, one.page.address(), len, MOVE_MODE_DONTWAKE, 0];
            let block = ring.put(index * MOVE_ARGS_BYTES, &words);
            if populate {
                commands.push(Command {
                    number: libc::SYS_madvise,
                    arguments: [one.page.address(), len, MADV_POPULATE_WRITE, 0, 0, 0],
                });
            }
            commands.push(Command {
                number: libc::SYS_ioctl,
                arguments: [shadow_fd, UFFDIO_MOVE, block, 0, 0, 0],
            });
        }
        commands
    };
    // The kernel writes how much it moved even when a signal ends the call.
    let finish = |ring: &Ring| {
        let moved = |index: usize| ring.get(index * MOVE_ARGS_BYTES + 32).cast_signed();
        (0..moves.len())
            .map(|index| moved(index).max(0) as u64 / PAGE_BYTES)
            .collect()
    };
    let mut results: Vec<u64> = space.serve_or_part(prepare, finish).unwrap_or_else(none);
    for (one, done) in moves.iter().zip(&mut results) {
        *done += landed_unreported(space, one, *done);
    }
    results
}
