//! Eviction: resident → shadow → store → tier.
//!
//! Stage on the data path: program → store. Two steps, each in batches. First
//! the servant moves the oldest resident pages into the shadow (`UFFDIO_MOVE`),
//! while it has the turn at the space's gate, so that no mapping changes. Later the
//! oldest shadow pages are read from outside, compressed without any lock, and
//! their shadow slots given back to the kernel. A page that is touched in
//! between comes back from the shadow: its second chance.
//!
//! Invariant: a page's RAM is uncharged only after the kernel has it back.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use zcache::{Handle, PAGE_SIZE, Page, Rejected};
use zcache_sys::servant::ServantError;
use zcache_sys::uffd::Outcome;
use zcache_sys::vma::Mapping;

use crate::pager::Pager;
use crate::space::hands::PEN_PAGES;
use crate::space::page_table::{Slot, State, Vpn};
use crate::space::queue::Standing;
use crate::space::shadow::Claim;
use crate::space::{Limbo, Move, Space};
use crate::sync::{lock, pause};

/// How long an evictor waits for its turn at a space.
const TURN: Duration = Duration::from_millis(2);
/// Rounds in vain after which an evictor that nobody waits for takes its time.
const FUTILE_ROUNDS_MAX: u32 = 100;
/// Pages that are tried when the store refuses most.
const PROBE_PAGES: u64 = 4;
const FUTILE_PAUSE: Duration = Duration::from_millis(10);

/// Pages on probation are this part of the resident ones, at least.
const PROBATION_PART: u64 = 10;
/// One round in this many takes protected pages whatever the parts are.
const PROTECTED_ROUND: u64 = 8;

/// How long an evictor waits before it puts a page back again.
const PUT_BACK_PAUSE: Duration = Duration::from_millis(1);

/// What came of putting a page back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PutBack {
    Done,
    /// The map is changing, or the kernel has no memory: it may be tried again.
    NotNow,
    /// The page is lost.
    Never,
}

/// What came of a claim's pages beside those that are stored now.
#[derive(Default)]
struct Settled {
    /// The program has them back, since the store refused them.
    returned: u64,
    /// They are in their slots still, and the slots may not be freed.
    left: u64,
}

/// The mapping in which a page lies.
fn mapping_of(mappings: &[Mapping], page: Vpn) -> Option<&Mapping> {
    let at = mappings.partition_point(|one| one.range.end <= page.address());
    mappings
        .get(at)
        .filter(|one| one.range.contains(&page.address()))
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
                self.see_to_limbo();
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

    /// A batch in limbo holds the turn of its space, and so the program's calls.
    fn see_to_limbo(&mut self) {
        for space in self.pager.all_spaces() {
            if !space.limbo_is_empty() {
                self.is_ready(&space);
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
            pause(FUTILE_PAUSE);
        }
    }

    /// One batch of each step. Returns whether RAM was freed.
    pub(crate) fn round(&mut self) -> bool {
        let pager = Arc::clone(&self.pager);
        let mut freed = self.make_room_in_store();
        let mut spaces = pager.all_spaces();
        spaces.retain(|space| self.is_ready(space));
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
        let moved = self.shadow_oldest(&spaces);
        if moved == 0 && !freed {
            // Nothing resident can go: what waits in shadows must.
            for space in &spaces {
                freed |= self.compress(space, pager.sizes.batch_pages) > 0;
            }
            // Nor can that: the store gives way although it is within its share.
            freed = freed || pager.config.swap.is_some() && self.write_back();
        }
        // Pages that the store refuses go back to the program; moving more of
        // them frees nothing.
        freed || moved > 0 && !futile
    }

    /// Moves a batch of the oldest pages that can be had into their shadow. A space
    /// whose turn cannot be had now (its process is frozen in a call, say) keeps
    /// nobody else's pages from leaving. Returns how many went.
    fn shadow_oldest(&mut self, spaces: &[Arc<Space>]) -> u64 {
        self.rounds += 1;
        let mut spaces = spaces.to_vec();
        while let Some((space, standing)) = self.oldest(&spaces) {
            let moved = self.shadow(&space, standing);
            if moved > 0 {
                return moved;
            }
            spaces.retain(|other| other.id != space.id);
        }
        0
    }

    /// Whose pages leave next, and from which queue: the oldest of those on
    /// probation while they are more than a tenth of all, else the oldest
    /// protected ones. Some of those leave anyway, so that what is wanted no
    /// longer does not stay for ever.
    fn oldest(&self, spaces: &[Arc<Space>]) -> Option<(Arc<Space>, Standing)> {
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

    /// Whether pages of a space can leave now. What its servant had not finished
    /// is seen to first.
    fn is_ready(&mut self, space: &Arc<Space>) -> bool {
        if space.is_closing() || !space.has_hands() {
            return false;
        }
        match self.late_batches(space) {
            None => return false,
            Some(batches) if batches.is_empty() => {}
            Some(batches) => {
                for batch in batches {
                    self.take_up(space, batch);
                }
                space.leave_shadow();
            }
        }
        space.hands().can_evict()
    }

    /// Takes what is in limbo if the servant has done it; `None` where it has not. If
    /// there is anything, the evictor is at the shadow from then on.
    fn late_batches(&self, space: &Arc<Space>) -> Option<VecDeque<Limbo>> {
        let mut core = space.core();
        let mut limbo = space.limbo.try_lock().ok()?;
        if core.buried {
            return None;
        }
        if limbo.is_empty() {
            return Some(VecDeque::new());
        }
        if space.hands().finish(Duration::ZERO) == Err(ServantError::Stuck) {
            self.pager.servant_stuck(space);
            return None;
        }
        *lock(&space.stuck_since) = None;
        core.at_shadow += 1;
        Some(std::mem::take(&mut *limbo))
    }

    /// Goes on with what the servant has finished late.
    fn take_up(&mut self, space: &Arc<Space>, batch: Limbo) {
        let over = match batch {
            Limbo::Moves(moves, tried) => {
                let left = self.landed(space, &moves);
                match tried {
                    false => self.insist(space, left).is_some(),
                    true => {
                        left.into_iter().for_each(|one| self.stays(space, one));
                        true
                    }
                }
            }
            Limbo::Pen(run) => match self.penned(space, &run) {
                Ok(_) => true,
                Err(batch) => {
                    self.wait_in_limbo(space, batch);
                    false
                }
            },
            Limbo::EmptyPen => true,
            Limbo::Slots(claim) => {
                let slots = space.hands().slot_page(claim.first);
                let there = space.hands().present(slots, claim.count);
                if there.is_some_and(|there| !there.contains(&true)) {
                    self.slots_freed(space, claim);
                } else {
                    space.core().shadow.unclaim(claim);
                }
                // Slots are given back without a turn.
                false
            }
        };
        if over {
            self.pager.end_eviction(space);
        }
    }

    /// The servant does not finish: the batch waits for it, and with it the turn,
    /// since nothing may change there until it is done. The last thing that is done
    /// under the turn: another evictor may end it from here on.
    fn wait_in_limbo(&self, space: &Space, batch: Limbo) {
        lock(&space.limbo).push_back(batch);
        self.pager.servant_stuck(space);
    }

    /// Moves a batch of the oldest resident pages into the shadow. Returns how
    /// many went.
    fn shadow(&mut self, space: &Arc<Space>, standing: Standing) -> u64 {
        if !space.begin_eviction(TURN) {
            return 0;
        }
        let moves = self.choose(space, standing);
        let count = moves.iter().map(|one| one.count).sum::<u64>();
        if count > 0 && space.hands().move_out(&moves, false) == Err(ServantError::Stuck) {
            self.wait_in_limbo(space, Limbo::Moves(moves, false));
            return 0;
        }
        let left = self.landed(space, &moves);
        let moved = count - left.len() as u64;
        let more = self.insist(space, left);
        if more.is_some() {
            self.pager.end_eviction(space);
        }
        self.pager.counters.shadowed_pages.add(moved);
        moved + more.unwrap_or(0)
    }

    /// Sees where the pages of a batch are, and takes note of those that went.
    /// Returns the others, one by one, still moving.
    fn landed(&self, space: &Space, moves: &[Move]) -> Vec<Move> {
        let mut left: Vec<Move> = Vec::new();
        for one in moves {
            let slots = space.hands().slot_page(one.slot);
            let there = space.hands().present(slots, one.count);
            let mut core = space.core();
            for ahead in 0..one.count {
                let page = Vpn(one.page.0 + ahead);
                let slot = Slot(one.slot.0 + ahead as u32);
                // A slot was empty before, so what is there now is the page.
                if there.as_ref().is_some_and(|there| there[ahead as usize]) {
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
        }
        left
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

    /// Pages that did not move at once. What is not plain data, or shared with a
    /// child, leaves by the pen. What was shared once counts as shared until it is
    /// written, so it is populated for writing and tried again. What does not go
    /// then (locked, pinned by a device) stays. Returns how many left, or `None`
    /// when the servant has not finished.
    fn insist(&mut self, space: &Arc<Space>, left: Vec<Move>) -> Option<u64> {
        if left.is_empty() {
            return Some(0);
        }
        let pages: Vec<Vpn> = left.iter().map(|one| one.page).collect();
        let mappings = space.hands().mappings_of(&pages).unwrap_or_default();
        let (mut again, mut penned) = (Vec::new(), Vec::new());
        for one in left {
            match mapping_of(&mappings, one.page).map(Mapping::is_plain_data) {
                _ if space.is_present(one.page) == Some(false) => self.vanished(space, one),
                Some(true) => again.push(one),
                Some(false) => penned.push(one),
                None => self.stays(space, one),
            }
        }
        let mut gone = 0;
        let mut kept = Vec::new();
        let mut parts = again.chunks(64);
        while let Some(part) = parts.next() {
            if space.hands().move_out(part, true) == Err(ServantError::Stuck) {
                let rest = parts.flatten().chain(&penned).chain(&kept);
                rest.for_each(|one| self.stays(space, *one));
                self.wait_in_limbo(space, Limbo::Moves(part.to_vec(), true));
                return None;
            }
            let rest = self.landed(space, part);
            gone += (part.len() - rest.len()) as u64;
            kept.extend(rest);
        }
        // Locked memory stays while anything else can go.
        let mut locked = Vec::new();
        if !kept.is_empty() && self.pager.stalled.load(Ordering::Relaxed) > 0 {
            let flagged = space.hands().mappings(true).unwrap_or_default();
            let mut is_locked = |one: &mut Move| {
                let mapping = mapping_of(&flagged, one.page).filter(|mapping| mapping.locked);
                locked.extend(mapping.map(|mapping| mapping.range.clone()));
                mapping.is_some()
            };
            penned.extend(kept.extract_if(.., &mut is_locked));
            locked.dedup();
        }
        kept.into_iter().for_each(|one| self.stays(space, one));
        // Neighbours in one mapping go together.
        let runs = penned.chunk_by(|one, next| {
            let mapping = mapping_of(&mappings, one.page);
            let both = mapping.is_some_and(|one| one.range.contains(&next.page.address()));
            one.page.0 + 1 == next.page.0 && both
        });
        let mut runs = runs.flat_map(|run| run.chunks(PEN_PAGES as usize));
        while let Some(run) = runs.next() {
            match self.pen(space, run, &locked) {
                Ok(went) => gone += went,
                Err(batch) => {
                    runs.flatten().for_each(|one| self.stays(space, *one));
                    self.wait_in_limbo(space, batch);
                    return None;
                }
            }
        }
        Some(gone)
    }

    /// A page that is neither where it was nor where it should be.
    fn vanished(&self, space: &Space, one: Move) {
        let mut core = space.core();
        core.shadow.set_empty(one.slot);
        self.pager.budget.uncharge(1);
        if !space.is_closing() {
            let why = "it was dropped by a call that zcache cannot see";
            self.pager.lose(space, &mut core, one.page, why);
        }
    }

    /// A page that cannot leave goes to the young end of its queue.
    fn stays(&self, space: &Space, one: Move) {
        let mut core = space.core();
        core.table.set(one.page, State::Resident);
        core.shadow.set_empty(one.slot);
        core.admit(one.page, 1, self.pager.next_stamp(), Standing::Probation);
        self.pager.counters.unmovable_pages.add(1);
    }

    /// Takes neighbouring pages through the pen into the store. What the store
    /// refuses goes back. Returns how many left, or what the servant has not finished.
    fn pen(
        &mut self,
        space: &Arc<Space>,
        run: &[Move],
        locked: &[Range<u64>],
    ) -> Result<u64, Limbo> {
        let first = run[0].page;
        if !self.is_pen_empty(space) {
            // A servant ended before it had emptied it.
            run.iter().for_each(|one| self.stays(space, *one));
            return Ok(0);
        }
        let mut ranges = locked.iter();
        let locked = ranges.find(|range| range.contains(&first.address()));
        if space.hands().pen(first, run.len() as u64, locked) == Err(ServantError::Stuck) {
            return Err(Limbo::Pen(run.to_vec()));
        }
        self.penned(space, run)
    }

    /// What lies in the pen when a move to it fails would be taken for what came.
    fn is_pen_empty(&self, space: &Space) -> bool {
        let is_empty = || {
            let there = space.hands().pen_present(PEN_PAGES);
            there.is_some_and(|there| !there.contains(&true))
        };
        is_empty() || space.hands().empty_pen().is_ok() && is_empty()
    }

    /// Sees to the pages that have come to the pen.
    fn penned(&mut self, space: &Arc<Space>, run: &[Move]) -> Result<u64, Limbo> {
        let there = space
            .hands()
            .pen_present(run.len() as u64)
            .unwrap_or_default();
        if !there.contains(&true) {
            run.iter().for_each(|one| self.stays(space, *one));
            return Ok(0);
        }
        let mut pages = vec![[0u8; PAGE_SIZE]; run.len()];
        let mut read = vec![false; run.len()];
        for (index, page) in pages.iter_mut().enumerate() {
            // What is not there would read as zeros, or end the reading.
            read[index] =
                there[index] && matches!(space.hands().read_pen(index as u64, page), Ok(PAGE_SIZE));
        }
        let epoch = self.pager.balance.now();
        let mut gone = 0;
        for (index, one) in run.iter().enumerate() {
            if !there.get(index).copied().unwrap_or(false) {
                self.stays(space, *one);
                continue;
            }
            let stored = read[index].then(|| self.pager.store.insert(&pages[index]));
            let mut core = space.core();
            core.shadow.set_empty(one.slot);
            match stored {
                Some(Ok(handle)) => {
                    core.table.set(one.page, State::Stored(handle));
                    core.table.set_epoch(one.page, epoch);
                    gone += 1;
                }
                Some(Err(_)) => {
                    drop(core);
                    self.pager.counters.returned_pages.add(1);
                    self.put_back(space, one.page, &pages[index]);
                }
                None => self
                    .pager
                    .lose(space, &mut core, one.page, "the pen cannot be read"),
            }
        }
        let emptied = space.hands().empty_pen();
        self.pager.budget.uncharge(gone);
        self.pager.balance.evicted(gone);
        self.pager.counters.evicted_pages.add(gone);
        self.pager.counters.penned_pages.add(gone);
        if emptied == Err(ServantError::Stuck) {
            return Err(Limbo::EmptyPen);
        }
        Ok(gone)
    }

    /// Gives a page back whose state says that it is moving. Its only other copy goes
    /// with the pen, so this waits while the kernel has no room or no time for it;
    /// the turn is held, so no call of the program's keeps the map from settling.
    fn put_back(&self, space: &Space, page: Vpn, bytes: &Page) {
        loop {
            let mut core = space.core();
            match self.install_again(space, &mut core, page, bytes) {
                PutBack::Done => return,
                PutBack::NotNow if !space.is_closing() => {}
                // What it was charged is given back when its space is buried.
                PutBack::NotNow => return,
                PutBack::Never => return self.pager.budget.uncharge(1),
            }
            drop(core);
            pause(PUT_BACK_PAUSE);
        }
    }

    /// Copies a page back to where the program has it. One that cannot come back is
    /// lost.
    fn install_again(
        &self,
        space: &Space,
        core: &mut crate::space::Core,
        page: Vpn,
        bytes: &Page,
    ) -> PutBack {
        let errno = match space.hands().copy(page, std::slice::from_ref(bytes)) {
            // What the kernel has is the truth.
            Outcome::Done
            | Outcome::Stopped {
                errno: libc::EEXIST,
                ..
            } => {
                core.table.set(page, State::Resident);
                core.admit(page, 1, self.pager.next_stamp(), Standing::Probation);
                return PutBack::Done;
            }
            Outcome::Stopped { errno, .. } => errno,
        };
        if matches!(errno, libc::EAGAIN | libc::ENOMEM) || space.is_closing() {
            return PutBack::NotNow;
        }
        let why = std::io::Error::from_raw_os_error(errno);
        self.pager
            .lose(space, core, page, &format!("it cannot be put back: {why}"));
        PutBack::Never
    }

    /// Compresses at most `limit` of the oldest shadow pages. Returns how many
    /// pages of RAM became free: not those that the program got back.
    pub(crate) fn compress(&mut self, space: &Space, limit: u64) -> u64 {
        let mut core = space.core();
        if core.buried || !space.hands().can_evict() {
            return 0;
        }
        let most = match self.refusing {
            true => PROBE_PAGES,
            false => self.pages.len() as u64,
        };
        let Some(claim) = core.shadow.claim(limit.min(most)) else {
            return 0;
        };
        core.at_shadow += 1;
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
        let settled = self.settle(space, claim, &owned, stored);
        self.returned = settled.returned;
        self.refusing = self.returned * 2 >= claim.count;
        let freed = match settled.left {
            0 => self.free_slots(space, claim).saturating_sub(self.returned),
            _ => {
                space.core().shadow.unclaim(claim);
                0
            }
        };
        space.leave_shadow();
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
            let got = space.hands().read_slots(source, target).unwrap_or(0);
            readable[index..index + got / PAGE_SIZE].fill(true);
            index += run;
        }
        readable
    }

    /// Writes the outcome of a claim's compression into the table. Nobody is waited
    /// for: a page that can neither leave nor come back now is left in its slot.
    fn settle(
        &self,
        space: &Space,
        claim: Claim,
        owned: &[Option<Vpn>],
        stored: Vec<Option<Result<Handle, Rejected>>>,
    ) -> Settled {
        let epoch = self.pager.balance.now();
        let mut core = space.core();
        let (mut evicted, mut settled) = (0, Settled::default());
        for (index, result) in stored.into_iter().enumerate() {
            let slot = Slot(claim.first.0 + index as u32);
            // The owner may have been given the page back meanwhile, or have moved.
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
                // A call that drops the page may be under way: put back behind it, the
                // page would come to life again.
                (Some(page), _) if core.is_busy(page) => settled.left += 1,
                (Some(page), Some(Err(_))) => {
                    match self.return_page(space, &mut core, page, slot, &self.pages[index]) {
                        PutBack::Done => settled.returned += 1,
                        PutBack::NotNow => settled.left += 1,
                        PutBack::Never => {}
                    }
                }
                (Some(page), None) if owned[index].is_some() && !space.is_closing() => {
                    core.shadow.set_owner(slot, None);
                    self.pager
                        .lose(space, &mut core, page, "the shadow cannot be read");
                }
                (Some(_), None) => settled.left += 1,
                (None, _) => {}
            }
        }
        self.pager.balance.evicted(evicted);
        self.pager.counters.evicted_pages.add(evicted);
        settled
    }

    /// The store refused a page: the program keeps it in RAM. Its slot is uncharged
    /// when the claim is freed.
    fn return_page(
        &self,
        space: &Space,
        core: &mut crate::space::Core,
        page: Vpn,
        slot: Slot,
        bytes: &Page,
    ) -> PutBack {
        let outcome = self.install_again(space, core, page, bytes);
        match outcome {
            PutBack::Done => {
                self.pager.counters.returned_pages.add(1);
                self.pager.budget.charge_anyway(1);
                core.shadow.set_owner(slot, None);
            }
            PutBack::Never => core.shadow.set_owner(slot, None),
            PutBack::NotNow => {}
        }
        outcome
    }

    /// Gives the slots of a claim back to the kernel. Without a servant they are
    /// kept, and charged, until there is one again.
    fn free_slots(&self, space: &Space, claim: Claim) -> u64 {
        match space.hands().free_slots(claim.first, claim.count) {
            Ok(()) => self.slots_freed(space, claim),
            Err(ServantError::Died | ServantError::Busy) => {
                space.core().shadow.unclaim(claim);
                0
            }
            Err(ServantError::Stuck) => {
                self.wait_in_limbo(space, Limbo::Slots(claim));
                0
            }
        }
    }

    fn slots_freed(&self, space: &Space, claim: Claim) -> u64 {
        let mut core = space.core();
        let freed = core.shadow.charged(claim);
        core.shadow.finish(claim);
        drop(core);
        self.pager.budget.uncharge(freed);
        freed
    }
}
