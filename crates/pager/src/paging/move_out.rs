//! The first step of eviction: resident → shadow, under the turn at the space's gate.
//! What does not move at once is looked at page by page.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use zcache_sys::servant::ServantError;
use zcache_sys::vma::Mapping;

use super::evict::Evictor;
use crate::space::page_table::{Slot, State, Vpn};
use crate::space::queue::Standing;
use crate::space::{Limbo, Move, Space};

/// How long an evictor waits for its turn at a space.
const TURN: Duration = Duration::from_millis(2);

/// The mapping in which a page lies.
pub(super) fn mapping_of(mappings: &[Mapping], page: Vpn) -> Option<&Mapping> {
    let at = mappings.partition_point(|one| one.range.end <= page.address());
    mappings
        .get(at)
        .filter(|one| one.range.contains(&page.address()))
}

/// The addresses of locked mappings.
fn locked_ranges(space: &Space) -> Vec<Range<u64>> {
    let mut mappings = space.hands().mappings(true).unwrap_or_default();
    mappings.retain(|mapping| mapping.locked);
    mappings.into_iter().map(|mapping| mapping.range).collect()
}

impl Evictor {
    /// Moves a batch of the oldest resident pages into the shadow. Returns how
    /// many went.
    pub(super) fn shadow(&mut self, space: &Arc<Space>, standing: Standing) -> u64 {
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
    pub(super) fn landed(&self, space: &Space, moves: &[Move]) -> Vec<Move> {
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
    /// written, so it is populated for writing and tried again; what is locked, where
    /// nothing else can go, is unlocked for a moment. What does not go then (a device
    /// writes into it) stays. Returns how many left, or `None` when the servant has not
    /// finished.
    pub(super) fn insist(&mut self, space: &Arc<Space>, left: Vec<Move>) -> Option<u64> {
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
        let (mut gone, mut kept) = self.move_again(space, &again, false, &penned)?;
        let locked = match kept.is_empty() || self.pager.stalled.load(Ordering::Relaxed) == 0 {
            true => Vec::new(),
            false => locked_ranges(space),
        };
        let is_locked = |one: &mut Move| locked.iter().any(|at| at.contains(&one.page.address()));
        let held: Vec<Move> = kept.extract_if(.., is_locked).collect();
        let others: Vec<Move> = penned.iter().chain(&kept).copied().collect();
        let (went, rest) = self.move_again(space, &held, true, &others)?;
        gone += went;
        kept.extend(rest);
        kept.into_iter().for_each(|one| self.stays(space, one));
        Some(gone + self.pen_all(space, &penned, &mappings, &locked)?)
    }

    /// Tries pages once more. Returns how many went, and those that did not; or `None`
    /// when the servant has not finished, and then what is in no batch stays, as
    /// `others` do.
    fn move_again(
        &self,
        space: &Arc<Space>,
        moves: &[Move],
        locked: bool,
        others: &[Move],
    ) -> Option<(u64, Vec<Move>)> {
        let (mut gone, mut kept) = (0, Vec::new());
        let mut parts = moves.chunks(64);
        while let Some(part) = parts.next() {
            let moved = match locked {
                true => space.hands().move_locked(part),
                false => space.hands().move_out(part, true),
            };
            if moved == Err(ServantError::Stuck) {
                let rest = parts.flatten().chain(others).chain(&kept);
                rest.for_each(|one| self.stays(space, *one));
                self.wait_in_limbo(space, Limbo::Moves(part.to_vec(), true));
                return None;
            }
            let rest = self.landed(space, part);
            gone += (part.len() - rest.len()) as u64;
            kept.extend(rest);
        }
        Some((gone, kept))
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
    pub(super) fn stays(&self, space: &Space, one: Move) {
        let mut core = space.core();
        core.table.set(one.page, State::Resident);
        core.shadow.set_empty(one.slot);
        core.admit(one.page, 1, self.pager.next_stamp(), Standing::Probation);
        self.pager.counters.unmovable_pages.add(1);
    }
}
