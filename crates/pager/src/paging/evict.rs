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
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use zcache::{PAGE_SIZE, Page};
use zcache_sys::servant::ServantError;

use crate::pager::Pager;
use crate::space::queue::Standing;
use crate::space::{Limbo, Space};
use crate::sync::{lock, pause};

/// Rounds in vain after which an evictor that nobody waits for takes its time.
const FUTILE_ROUNDS_MAX: u32 = 100;
const FUTILE_PAUSE: Duration = Duration::from_millis(10);

/// Pages on probation are this part of the resident ones, at least.
const PROBATION_PART: u64 = 10;
/// One round in this many takes protected pages whatever the parts are.
const PROTECTED_ROUND: u64 = 8;

/// One evictor thread's state.
pub(crate) struct Evictor {
    pub(super) pager: Arc<Pager>,
    pub(super) pages: Box<[Page]>,
    rounds: u64,
    /// Pages of the last compression that the store refused.
    pub(super) returned: u64,
    /// Whether these were most of them: then few are tried at a time, since a
    /// page that goes back is there twice for a moment.
    pub(super) refusing: bool,
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
                pager.tell_of_room();
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
            freed = freed || !pager.config.tiers.is_empty() && self.write_back();
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
        if pager.config.tiers.is_empty() || pager.store.ram_bytes() + self.slack_bytes() < share {
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
    pub(super) fn wait_in_limbo(&self, space: &Space, batch: Limbo) {
        lock(&space.limbo).push_back(batch);
        self.pager.servant_stuck(space);
    }
}
