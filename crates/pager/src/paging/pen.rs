//! Pages that cannot be moved to the shadow, since their mapping is not as the shadow's
//! is, leave through the pen: `mremap` takes them there whatever their protection, and
//! from there they go into the store.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use zcache::{PAGE_SIZE, Page};
use zcache_sys::servant::ServantError;
use zcache_sys::vma::Mapping;

use super::compress::PutBack;
use super::evict::Evictor;
use super::move_out::mapping_of;
use crate::space::hands::PEN_PAGES;
use crate::space::page_table::{State, Vpn};
use crate::space::{Limbo, Move, Space};
use crate::sync::pause;

/// How long an evictor waits before it puts a page back again.
const PUT_BACK_PAUSE: Duration = Duration::from_millis(1);

impl Evictor {
    /// Takes pages through the pen, neighbours in one mapping together. Returns how many
    /// left, or `None` when the servant has not finished.
    pub(super) fn pen_all(
        &mut self,
        space: &Arc<Space>,
        penned: &[Move],
        mappings: &[Mapping],
        locked: &[Range<u64>],
    ) -> Option<u64> {
        let runs = penned.chunk_by(|one, next| {
            let mapping = mapping_of(mappings, one.page);
            let both = mapping.is_some_and(|one| one.range.contains(&next.page.address()));
            one.page.0 + 1 == next.page.0 && both
        });
        let mut runs = runs.flat_map(|run| run.chunks(PEN_PAGES as usize));
        let mut gone = 0;
        while let Some(run) = runs.next() {
            match self.pen(space, run, locked) {
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
    pub(super) fn penned(&mut self, space: &Arc<Space>, run: &[Move]) -> Result<u64, Limbo> {
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
}
