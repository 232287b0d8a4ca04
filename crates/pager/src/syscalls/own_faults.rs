//! The program watches some of its memory itself, by a userfaultfd of its own: that is
//! left to it, whole and resident. What it moves there out of other memory is resident
//! while it moves.

use std::ops::Range;
use std::time::Instant;

use zcache_sys::process::read_memory;
use zcache_sys::seccomp::UFFDIO_MOVE;

use super::mapping::whole_pages;
use super::{PATIENCE, Watched};
use crate::budget::PAGE_BYTES;
use crate::pager::Pager;
use crate::space::Space;
use crate::space::page_table::{State, Vpn};

impl Watched<'_> {
    /// A request to a userfaultfd: memory is to be watched, or moved.
    pub(super) async fn own_userfaultfd(self, a: [u64; 6]) {
        let thread = self.thread();
        let mut bytes = [0u8; 24];
        let read = self
            .tracer
            .elsewhere(move |_| {
                // The shorter of the two may lie at the end of a mapping.
                let most = read_memory(thread, a[2], &mut bytes)?;
                Ok::<_, std::io::Error>((most, bytes))
            })
            .await;
        let Ok((length, bytes)) = read else {
            // The kernel cannot read it either.
            return self.resume();
        };
        let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
        if a[1] as u32 != UFFDIO_MOVE {
            return self.left_to_program(whole_pages(word(0), word(8))).await;
        }
        match length {
            24 => self.moved_by_program(whole_pages(word(8), word(16))).await,
            _ => self.resume(),
        }
    }

    async fn left_to_program(self, range: Range<u64>) {
        let known = self.space.core().table.present(range.clone());
        if !self.pager().fits_resident(known.len() as u64) {
            return self.refuse(libc::ENOMEM);
        }
        self.bring_all(&known).await;
        self.begin().await;
        self.pager().leave_to_program(&self.space, range);
        self.space.core().end_call(&self.space);
        self.resume();
    }

    async fn moved_by_program(self, range: Range<u64>) {
        let known = self.space.core().table.present(range.clone());
        self.bring_all(&known).await;
        self.begin().await;
        self.space.core().busy = vec![range.clone()];
        let result = self.make().await;
        self.pager().moved_away(&self.space, &range);
        {
            let mut core = self.space.core();
            for page in known {
                core.unpin(page, self.pager().next_stamp());
            }
            core.end_call(&self.space);
        }
        if result.is_some() {
            self.resume();
        }
    }

    /// Has pages stay, and brings those that are out.
    async fn bring_all(&self, pages: &[Vpn]) {
        let start = Instant::now();
        for page in self.pin(pages) {
            if start.elapsed() < PATIENCE {
                self.bring(self.thread(), page).await;
            }
        }
    }
}

impl Pager {
    /// Whether so many pages can be resident for good.
    fn fits_resident(&self, pages: u64) -> bool {
        let apart = self.budget.fixed_bytes() + self.budget.apart_bytes();
        pages * PAGE_BYTES + apart <= self.budget.ram_bytes()
    }

    /// The program has moved pages of a range to memory that it watches: those that the
    /// kernel has no longer here are known no longer.
    fn moved_away(&self, space: &Space, range: &Range<u64>) {
        let Ok(residents) = space.hands().residents(range.clone()) else {
            return;
        };
        let mut core = space.core();
        let left = |page: &Vpn| !residents.iter().any(|run| run.contains(&page.0));
        let mut gone = core.table.present(range.clone());
        gone.retain(|page| core.table.get(*page) == State::Resident && left(page));
        for page in gone {
            self.forget(&mut core, page.0..page.0 + 1);
        }
    }

    /// The program watches this memory itself from now on. All of it is resident.
    pub(crate) fn leave_to_program(&self, space: &Space, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let out = |state: State| !matches!(state, State::Resident);
        let some_out = {
            let core = space.core();
            let mut some = false;
            core.table
                .for_each(range.clone(), |_, state| some |= out(state));
            some
        };
        if !some_out && space.hands().unregister(range.clone()).is_ok() {
            let mut core = space.core();
            let known = core.table.present(range.clone());
            for page in known {
                core.unpin(page, self.next_stamp());
            }
            self.forget(&mut core, range);
        }
    }
}
