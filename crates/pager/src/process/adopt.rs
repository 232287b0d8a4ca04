//! What a space has when it is taken into care: the kernel's maps are registered, and
//! its page map is the truth about what is resident.

use std::io;
use std::ops::Range;

use zcache_sys::procfs;

use super::care_error::CareError;
use crate::budget::PAGE_BYTES;
use crate::pager::Pager;
use crate::space::hands::Hands;
use crate::space::page_table::{State, Vpn};
use crate::space::{Core, Space};

/// Registers what can be. A group goes as one, holes in it and all; if a mapping in
/// it cannot, mapping by mapping.
fn register(hands: &dyn Hands) -> io::Result<Vec<Range<u64>>> {
    let mut registered = Vec::new();
    for group in hands.pageable()? {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            continue;
        };
        if hands.register(first.start..last.end).is_ok() {
            registered.extend(group);
            continue;
        }
        let parts = group.into_iter();
        registered.extend(parts.filter(|part| hands.register(part.clone()).is_ok()));
    }
    Ok(registered)
}

impl Pager {
    /// Registers what an exec left in memory: stack, heap, zeroed data.
    pub(super) fn adopt_image(&self, space: &Space) -> Result<(), CareError> {
        let hands = space.hands();
        let own = CareError::own;
        let mut charged = 0;
        for range in register(hands).map_err(own("reading the memory map"))? {
            let residents = hands
                .residents(range)
                .map_err(own("reading the page map"))?;
            let mut core = space.core();
            for run in residents {
                charged += run.end - run.start;
                self.adopt_run(&mut core, run);
            }
        }
        self.budget.charge_anyway(charged);
        Ok(())
    }

    /// Pages that the kernel has are resident, whatever was known of them.
    fn adopt_run(&self, core: &mut Core, run: Range<u64>) {
        for page in run.clone() {
            let old = core.table.set(Vpn(page), State::Resident);
            self.drop_state(old);
        }
        core.probation
            .push(Vpn(run.start), run.end - run.start, self.next_stamp());
    }

    /// Brings the table of a forked child, made as its parent's was, in line with
    /// what the kernel gave the child, and registers its memory. What is mapped in
    /// it is known from its map, what it has from its page map: marks that keep
    /// memory from a child need no account of ours.
    pub(crate) fn adopt_child(&self, space: &Space) -> Result<(), CareError> {
        let hands = space.hands();
        let own = CareError::own;
        let registered = register(hands).map_err(own("reading the memory map"))?;
        let mut core = space.core();
        self.check_watched(hands, &core, &registered)?;
        let before = core.table.resident();
        let adopted = self.adopt_inherited(hands, &mut core, registered);
        // Also of a child that was killed meanwhile what it has is charged.
        let there = core.table.resident();
        drop(core);
        if there > before {
            self.budget.charge_anyway(there - before);
        } else {
            self.budget.uncharge(before - there);
        }
        adopted.map_err(own("reading the page map"))
    }

    /// Of memory that the child has and that cannot be watched no page may be out:
    /// nobody would bring it.
    fn check_watched(
        &self,
        hands: &dyn Hands,
        core: &Core,
        registered: &[Range<u64>],
    ) -> Result<(), CareError> {
        let mappings = hands.mappings(false);
        let mappings = mappings.map_err(CareError::own("reading the memory map"))?;
        let watched = |page: u64| {
            let at = registered.partition_point(|range| range.end <= page);
            registered
                .get(at)
                .is_some_and(|range| range.contains(&page))
        };
        for mapping in mappings {
            let pages = mapping.range.start / PAGE_BYTES..mapping.range.end / PAGE_BYTES;
            let mut lost = None;
            core.table.for_each(pages, |page, state| {
                let out = !matches!(state, State::Absent | State::Resident);
                let wiped = core.wiped.contains(page.0);
                if out && !wiped && !watched(page.0) {
                    lost = Some(page);
                }
            });
            if lost.is_some() {
                return Err(CareError::Unwatched(mapping.range.start));
            }
        }
        Ok(())
    }

    fn adopt_inherited(
        &self,
        hands: &dyn Hands,
        core: &mut Core,
        registered: Vec<Range<u64>>,
    ) -> io::Result<()> {
        let mut at = 0;
        let wiped = core.wiped.clone();
        let wiped = wiped.within(&(0..u64::MAX >> 12));
        let gaps = registered.iter().map(|range| {
            let gap = at..range.start;
            at = range.end;
            gap
        });
        let gaps: Vec<Range<u64>> = gaps.collect();
        let rest = std::iter::once(at..u64::MAX >> 12);
        for gap in gaps.into_iter().chain(rest).chain(wiped) {
            core.table.clear(gap, |_, state| self.drop_state(state));
        }
        core.probation.clear();
        core.protected.clear();
        for range in registered {
            let residents = hands.residents(range.clone())?;
            // What the table calls resident and the kernel does not have is not
            // there: the kernel would have copied it.
            let mut gone = Vec::new();
            let mut at = range.start;
            let end = std::iter::once(range.end..range.end);
            for run in residents.iter().cloned().chain(end) {
                core.table.for_each(at..run.start, |page, state| {
                    if state == State::Resident {
                        gone.push(page);
                    }
                });
                at = run.end;
            }
            for page in gone {
                core.table.set(page, State::Absent);
            }
            for run in residents {
                self.adopt_run(core, run);
            }
        }
        Ok(())
    }

    /// Pages that others read and write without asking for them stay: arguments
    /// and environment (`ps`, `/proc/PID/cmdline`).
    pub(super) fn pin_words_of_start(&self, space: &Space, pid: i32) {
        let Some(stat) = procfs::stat(pid) else {
            return;
        };
        let most = (self.budget.ram_bytes() / 64).min(256 << 10) / PAGE_BYTES;
        let first = stat.arguments_start / PAGE_BYTES;
        let last = stat.environment_end.div_ceil(PAGE_BYTES).min(first + most);
        let mut core = space.core();
        for page in first..last {
            core.pin(Vpn(page));
        }
    }
}
