//! Calls that change a program's memory map: what is known of its pages follows
//! what the kernel did.
//!
//! Stage on the data path: beside it. A call has the turn at its space's gate from
//! before it begins: no page moves meanwhile, and faults in the range that it may
//! change wait. When it has returned, its result says what became of the range;
//! where the result does not say it (a call that went wrong half way, a thread
//! that was killed over it), the kernel's own account of the map is read. Nothing
//! is ever dropped that the kernel left.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use zcache_sys::procfs;
use zcache_sys::vma::Mapping;

use crate::budget::PAGE_BYTES;
use crate::budget::balance::Epoch;
use crate::pager::Pager;
use crate::space::page_table::{State, Vpn, pages};
use crate::space::queue::Standing;
use crate::space::{Core, Space};
use crate::sync::Instant;

const MAP_TYPE: u64 = 0xf;
const MAP_PRIVATE: u64 = 0x2;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_LOCKED: u64 = 0x2000;
const MAP_POPULATE: u64 = 0x8000;
const MAP_HUGETLB: u64 = 0x4_0000;
const MREMAP_MAYMOVE: u64 = 1;
const MREMAP_FIXED: u64 = 2;
const MREMAP_DONTUNMAP: u64 = 4;

const MADV_DONTNEED: u64 = 4;
const MADV_FREE: u64 = 8;
const MADV_REMOVE: u64 = 9;
const MADV_WIPEONFORK: u64 = 18;
const MADV_KEEPONFORK: u64 = 19;
const MADV_DONTNEED_LOCKED: u64 = 24;
const MADV_GUARD_INSTALL: u64 = 102;
const MADV_GUARD_REMOVE: u64 = 103;

/// The most room that is made at once for private pages of a file.
const FILE_CHARGE_MAX: u64 = 1 << 20;
/// The last page that can be.
const PAGES_END: u64 = u64::MAX >> 12;

/// The pages of a call's range if its start is aligned and it does not wrap, as
/// Linux wants it; else none, since the call fails without doing anything.
pub(crate) fn whole_pages(address: u64, len: u64) -> Range<u64> {
    let rounded = len.checked_next_multiple_of(PAGE_BYTES);
    match rounded.and_then(|len| address.checked_add(len)) {
        Some(end) if address.is_multiple_of(PAGE_BYTES) => address >> 12..end >> 12,
        _ => 0..0,
    }
}

/// What a call is about to do, if it does what it says.
#[derive(Clone, Debug)]
enum Change {
    /// A mapping comes, over what is at its place.
    Map {
        arguments: [u64; 6],
        over: Range<u64>,
    },
    Unmap(Range<u64>),
    Remap {
        old: Range<u64>,
        new_len: u64,
        flags: u64,
        target: Range<u64>,
    },
    /// The heap's end was here.
    Break(u64),
    Advise {
        range: Range<u64>,
        advice: u64,
    },
    /// Shared memory comes, over what is there.
    Attach,
}

impl Change {
    fn of_remap(a: [u64; 6]) -> Change {
        Change::Remap {
            old: whole_pages(a[0], a[1]),
            new_len: a[2],
            flags: a[3],
            target: match a[3] & MREMAP_FIXED != 0 {
                true => whole_pages(a[4], a[2]),
                false => 0..0,
            },
        }
    }

    /// What it may touch.
    fn touches(&self, a: [u64; 6]) -> Vec<Range<u64>> {
        let ranges = match self {
            Change::Map { over: range, .. } | Change::Unmap(range) => [range.clone(), 0..0],
            Change::Advise { range, .. } => [range.clone(), 0..0],
            Change::Remap { old, target, .. } => [old.clone(), target.clone()],
            Change::Break(before) if a[0] != 0 && a[0] < *before => {
                let first = a[0].next_multiple_of(PAGE_BYTES);
                [pages(first, before - a[0]), 0..0]
            }
            Change::Break(_) => return Vec::new(),
            Change::Attach => [a[1] >> 12..PAGES_END, 0..0],
        };
        ranges
            .into_iter()
            .filter(|range| !range.is_empty())
            .collect()
    }
}

/// A call that is about to be made.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    change: Option<Change>,
    arguments: Option<[u64; 6]>,
    /// The other arguments make it another mapping, and not only a later one.
    needed: bool,
}

impl Plan {
    /// One mapping is moved, by `mremap` with these arguments.
    pub(crate) fn of_move(arguments: [u64; 6]) -> Plan {
        Plan {
            change: Some(Change::of_remap(arguments)),
            arguments: None,
            needed: false,
        }
    }

    /// Other arguments with which the call is to be made. The program's own filters are
    /// asked about them too, so where it has some they are left if they can be.
    pub(crate) fn rewritten(&self, filtered: bool) -> Option<[u64; 6]> {
        self.arguments.filter(|_| self.needed || !filtered)
    }
}

/// What the calling thread still has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Behind {
    Nothing,
    /// Freed pages may read as zeros at once, so they are dropped there and then:
    /// later the kernel could drop them without our hearing of it.
    Drop {
        address: u64,
        len: u64,
    },
    /// The mapping was to be locked, and to have this protection.
    Lock {
        address: u64,
        len: u64,
        protection: u64,
    },
}

impl Pager {
    /// Before a call: faults in what it may change wait from now on.
    pub(crate) fn before_call(&self, space: &Space, thread: i32, number: i64, a: [u64; 6]) -> Plan {
        self.counters.mapping_calls.add(1);
        let (mut arguments, mut needed) = (None, false);
        let change = match number {
            libc::SYS_mmap => {
                let mut a = a;
                if is_zero_device(thread, a) {
                    [a[3], a[4], a[5]] = [a[3] | MAP_ANONYMOUS, u64::MAX, 0];
                    (arguments, needed) = (Some(a), true);
                }
                let flags = a[3];
                // Population would happen before the range is registered. It is a
                // hint, and each page comes at its first touch instead.
                let anonymous = flags & MAP_TYPE == MAP_PRIVATE && flags & MAP_ANONYMOUS != 0;
                if anonymous && flags & (MAP_POPULATE | MAP_LOCKED) != 0 {
                    let mut made = a;
                    made[3] = flags & !(MAP_POPULATE | MAP_LOCKED);
                    if flags & MAP_LOCKED != 0 && flags & MAP_FIXED == 0 && !needed {
                        // Linux says whether so much may be locked; where nothing may
                        // be touched it brings nothing.
                        (made[2], made[3]) = (0, flags & !MAP_POPULATE);
                    }
                    arguments = Some(made);
                }
                let over = match flags & MAP_FIXED != 0 {
                    true => whole_pages(a[0], a[1]),
                    false => 0..0,
                };
                Some(Change::Map { arguments: a, over })
            }
            libc::SYS_munmap => Some(Change::Unmap(whole_pages(a[0], a[1]))),
            libc::SYS_mremap => Some(Change::of_remap(a)),
            libc::SYS_brk => Some(Change::Break(space.core().brk)),
            libc::SYS_madvise => Some(Change::Advise {
                range: whole_pages(a[0], a[1]),
                advice: a[2] & 0xffff_ffff,
            }),
            libc::SYS_shmat => Some(Change::Attach),
            _ => None,
        };
        if let Some(change) = &change {
            space.core().busy = change.touches(a);
            if let Change::Advise {
                range,
                advice: MADV_GUARD_INSTALL,
            } = change
            {
                // From now on no copy may come to where a guard may be.
                space.core().guards.insert(range.clone());
            }
        }
        Plan {
            change,
            arguments,
            needed,
        }
    }

    /// Behind a call: its result, or `None` where the thread was killed over it.
    pub(crate) fn behind_call(&self, space: &Space, plan: &Plan, result: Option<i64>) -> Behind {
        let Some(change) = &plan.change else {
            return Behind::Nothing;
        };
        let Some(result) = result else {
            let busy = space.core().busy.clone();
            for range in busy {
                self.reread(space, range);
            }
            return Behind::Nothing;
        };
        if zcache_sys::ptrace::will_restart(result) {
            return Behind::Nothing;
        }
        match change {
            Change::Map { arguments, over } => self.mapped(space, *arguments, over, result),
            Change::Unmap(range) => {
                match result {
                    0 => self.unmapped(space, range.clone()),
                    _ => self.reread(space, range.clone()),
                }
                Behind::Nothing
            }
            Change::Remap {
                old,
                new_len,
                flags,
                target,
            } => {
                match u64::try_from(result) {
                    Ok(new) => self.remapped(space, old, new, *new_len, *flags),
                    Err(_) => {
                        self.reread(space, old.clone());
                        self.reread(space, target.clone());
                    }
                }
                Behind::Nothing
            }
            Change::Break(before) => {
                self.break_moved(space, *before, result.cast_unsigned());
                Behind::Nothing
            }
            Change::Advise { range, advice } => self.advised(space, range, *advice, result),
            Change::Attach => {
                if let Ok(address) = u64::try_from(result) {
                    self.attached(space, address);
                }
                Behind::Nothing
            }
        }
    }

    fn mapped(&self, space: &Space, a: [u64; 6], over: &Range<u64>, result: i64) -> Behind {
        let [_, len, protection, flags, ..] = a;
        let Ok(start) = u64::try_from(result) else {
            // What was there may have gone all the same.
            self.reread(space, over.clone());
            return Behind::Nothing;
        };
        let private = flags & MAP_TYPE == MAP_PRIVATE;
        let range = whole_pages(start, len);
        if private && flags & MAP_ANONYMOUS != 0 && flags & MAP_HUGETLB == 0 {
            self.fresh(space, range);
            return match flags & MAP_LOCKED != 0 {
                true => Behind::Lock {
                    address: start,
                    len,
                    protection,
                },
                false => Behind::Nothing,
            };
        }
        self.unmapped(space, range.clone());
        let writable = protection & libc::PROT_WRITE as u64 != 0;
        if private && flags & MAP_ANONYMOUS == 0 && writable {
            // Its private pages cannot be paged: room for some is made now, and the
            // ticker corrects the figure by what is really used.
            let most = self.budget.ram_bytes() / 8;
            let bytes = space.advance.grant(len.min(FILE_CHARGE_MAX), most);
            self.budget.add_fixed_bytes(bytes);
        }
        Behind::Nothing
    }

    /// A new mapping of anonymous memory: whatever was known there is gone.
    fn fresh(&self, space: &Space, range: Range<u64>) {
        self.unmapped(space, range.clone());
        let hands = space.hands();
        // What cannot be registered stays out of our hands and is counted as memory
        // that cannot be paged.
        if range.is_empty() || hands.register(range.clone()).is_err() {
            return;
        }
        // Who touched it before that has got a page.
        let residents = hands.residents(range).unwrap_or_default();
        let mut core = space.core();
        for run in residents {
            for page in run.clone() {
                core.table.set(Vpn(page), State::Resident);
            }
            let count = run.end - run.start;
            core.admit(
                Vpn(run.start),
                count,
                self.next_stamp(),
                Standing::Probation,
            );
            self.budget.charge_anyway(count);
        }
    }

    /// What was known of a range that is not the program's old one any more.
    fn unmapped(&self, space: &Space, range: Range<u64>) {
        let mut core = space.core();
        core.wiped.remove(&range);
        core.guards.remove(&range);
        self.forget(&mut core, range);
    }

    fn break_moved(&self, space: &Space, before: u64, after: u64) {
        space.core().brk = after;
        let page = |address: u64| address.next_multiple_of(PAGE_BYTES) >> 12;
        if page(after) > page(before) {
            self.fresh(space, page(before)..page(after));
        } else if page(after) < page(before) {
            self.unmapped(space, page(after)..page(before));
        }
    }

    /// Shared memory has come over what was there.
    fn attached(&self, space: &Space, address: u64) {
        let mappings = space.hands().mappings(false).unwrap_or_default();
        let here = mappings.iter().find(|one| one.range.contains(&address));
        if let Some(mapping) = here {
            self.unmapped(space, mapping.range.start >> 12..mapping.range.end >> 12);
        }
    }

    fn advised(&self, space: &Space, range: &Range<u64>, advice: u64, result: i64) -> Behind {
        // Behind a hole the kernel goes on, and says so at the end.
        let reached_all = result == 0;
        match advice {
            MADV_WIPEONFORK | MADV_KEEPONFORK if reached_all => {
                let mut core = space.core();
                match advice {
                    MADV_WIPEONFORK => core.wiped.insert(range.clone()),
                    _ => core.wiped.remove(range),
                }
            }
            // Half a call: what is marked now is in the kernel's flags alone.
            MADV_WIPEONFORK | MADV_KEEPONFORK => self.reread_wiped(space, range),
            MADV_GUARD_REMOVE if reached_all => space.core().guards.remove(range),
            MADV_GUARD_REMOVE => {}
            MADV_REMOVE if reached_all => {}
            MADV_FREE if !reached_all => return self.freed_in_part(space, range),
            MADV_DONTNEED | MADV_DONTNEED_LOCKED | MADV_FREE | MADV_GUARD_INSTALL
                if reached_all =>
            {
                self.forget(&mut space.core(), range.clone());
            }
            _ => self.reread_dropped(space, range, advice),
        }
        match advice == MADV_FREE && !range.is_empty() {
            true => Behind::Drop {
                address: range.start << 12,
                len: (range.end - range.start) << 12,
            },
            false => Behind::Nothing,
        }
    }

    /// After a call to free pages that failed: those up to the first mapping that
    /// refuses may read as zeros at any time, so they are dropped now.
    fn freed_in_part(&self, space: &Space, range: &Range<u64>) -> Behind {
        if range.is_empty() || space.core().table.is_absent(range.clone()) {
            return Behind::Nothing;
        }
        let Ok(mappings) = space.hands().mappings(true) else {
            return Behind::Nothing;
        };
        let mut end = range.start;
        for mapping in &mappings {
            let from = (mapping.range.start >> 12).max(range.start);
            let to = (mapping.range.end >> 12).min(range.end);
            if from >= to {
                continue;
            }
            if refuses(mapping, MADV_FREE) {
                break;
            }
            self.forget(&mut space.core(), from..to);
            end = to;
        }
        match end > range.start {
            true => Behind::Drop {
                address: range.start << 12,
                len: (end - range.start) << 12,
            },
            false => Behind::Nothing,
        }
    }

    /// Forgets the pages of a range that is not mapped, or not as memory of ours.
    fn reread(&self, space: &Space, range: Range<u64>) {
        if range.is_empty() || space.core().table.is_absent(range.clone()) {
            return;
        }
        // Of a process that is gone nothing is asked any more.
        let Ok(mappings) = space.hands().mappings(false) else {
            return;
        };
        let mut at = range.start;
        for mapping in mappings.iter().filter(|one| one.is_private_anonymous()) {
            let (start, end) = (mapping.range.start >> 12, mapping.range.end >> 12);
            if end <= range.start || start >= range.end {
                continue;
            }
            if at < start {
                self.unmapped(space, at..start);
            }
            at = end.max(at);
        }
        if at < range.end {
            self.unmapped(space, at..range.end);
        }
    }

    fn reread_wiped(&self, space: &Space, range: &Range<u64>) {
        // Without the flags the mark is believed where it was.
        let Ok(mappings) = space.hands().mappings(true) else {
            return;
        };
        let mut core = space.core();
        core.wiped.remove(range);
        for mapping in mappings.iter().filter(|one| one.wiped) {
            let start = (mapping.range.start >> 12).max(range.start);
            let end = (mapping.range.end >> 12).min(range.end);
            core.wiped.insert(start..end.max(start));
        }
    }

    /// After a call to drop contents that failed: Linux goes from mapping to
    /// mapping and stops at the first that refuses. Forgets what lies before that,
    /// unless a page that was there is still there: then nothing was dropped.
    fn reread_dropped(&self, space: &Space, range: &Range<u64>, advice: u64) {
        if range.is_empty() || space.core().table.is_absent(range.clone()) {
            return;
        }
        let Ok(mappings) = space.hands().mappings(true) else {
            return;
        };
        for mapping in &mappings {
            let start = (mapping.range.start >> 12).max(range.start);
            let end = (mapping.range.end >> 12).min(range.end);
            if start >= end {
                continue;
            }
            if refuses(mapping, advice) || self.has_kept(space, &(start..end)) {
                return;
            }
            if mapping.is_private_anonymous() {
                self.forget(&mut space.core(), start..end);
            }
        }
    }

    /// Whether the kernel still has a page that is known to be resident.
    fn has_kept(&self, space: &Space, range: &Range<u64>) -> bool {
        let residents = space.hands().residents(range.clone()).unwrap_or_default();
        let core = space.core();
        residents
            .into_iter()
            .flatten()
            .any(|page| core.table.get(Vpn(page)) == State::Resident)
    }

    fn remapped(&self, space: &Space, old: &Range<u64>, new: u64, new_len: u64, flags: u64) {
        let target = whole_pages(new, new_len);
        let kept = (old.end - old.start).min(target.end - target.start);
        let keeps_old = flags & MREMAP_DONTUNMAP != 0;
        if target.start == old.start {
            if target.end < old.end {
                self.unmapped(space, target.end..old.end);
            }
            return;
        }
        if flags & (MREMAP_FIXED | MREMAP_MAYMOVE) == 0 {
            return;
        }
        // The kernel carries the registration along, to what has grown as well, and
        // leaves it with what stays; what was not ours does not become ours. All
        // under one lock: whoever compresses a page meanwhile finds it at its old
        // place or at its new one, never at none.
        let mut core = space.core();
        let moved = take_states(&mut core, old.start..old.start + kept);
        self.forget(&mut core, target.clone());
        if !keeps_old {
            self.forget(&mut core, old.clone());
        }
        core.wiped.relocate(old, &target, keeps_old);
        core.guards.relocate(old, &target, false);
        self.put_states(&mut core, moved, old.start, target.start);
    }

    /// Pages now live at another place: their states follow them.
    fn put_states(&self, core: &mut Core, moved: Vec<(Vpn, State, Epoch)>, old: u64, new: u64) {
        for (page, state, epoch) in moved {
            let target = Vpn(page.0 - old + new);
            match state {
                // Whoever decodes it finds the table changed and leaves it.
                State::Loading(handle) => {
                    core.table.set(target, State::Stored(handle));
                }
                State::Shadow(slot) => {
                    core.shadow.set_owner(slot, Some(target));
                    core.table.set(target, state);
                }
                State::Resident => {
                    core.table.set(target, state);
                    core.admit(target, 1, self.next_stamp(), Standing::Probation);
                }
                other => {
                    core.table.set(target, other);
                }
            }
            core.table.set_epoch(target, epoch);
        }
    }

    /// Waits until `pages` pages could be charged, or `patience` has passed.
    /// Returns whether they could.
    pub(crate) fn make_room(&self, pages: u64, patience: Duration) -> bool {
        let _wanted = self.budget.want(pages);
        let start = Instant::now();
        while self.budget.available_bytes() < pages.max(1) * PAGE_BYTES {
            if start.elapsed() > patience {
                return false;
            }
            self.budget.wait_freed(Duration::from_millis(2));
        }
        true
    }

    /// A servant has ended. If its process goes on, the user hears of it.
    pub(crate) fn servant_lost_soon(self: &Arc<Self>, space: Arc<Space>) {
        let pager = Arc::clone(self);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(2));
            if !space.is_closing() && !space.hands().can_evict() {
                pager.servant_lost(&space);
            }
        });
    }
}

/// Takes the states of a range's pages out of the table.
fn take_states(core: &mut Core, range: Range<u64>) -> Vec<(Vpn, State, Epoch)> {
    let present = core.table.present(range.clone());
    let epochs: Vec<Epoch> = present.iter().map(|page| core.table.epoch(*page)).collect();
    let mut taken = Vec::new();
    core.table
        .clear(range, |page, state| taken.push((page, state)));
    let both = taken.into_iter().zip(epochs);
    both.map(|((page, state), epoch)| (page, state, epoch))
        .collect()
}

/// Whether a call maps `/dev/zero` privately, which is anonymous memory by an
/// older name. Linux pages that only by the newer one.
fn is_zero_device(thread: i32, [_, _, protection, flags, fd, _]: [u64; 6]) -> bool {
    let writable = protection & libc::PROT_WRITE as u64 != 0;
    if flags & MAP_ANONYMOUS != 0 || flags & MAP_TYPE != MAP_PRIVATE || !writable {
        return false;
    }
    let path = format!("/proc/{thread}/fd/{}", fd as i32);
    let readable = fs::symlink_metadata(&path).is_ok_and(|link| link.mode() & 0o400 != 0);
    readable
        && procfs::open_file(thread, fd as i32)
            .is_some_and(|file| file.kind == libc::S_IFCHR && file.device == (1, 5))
}

/// Whether Linux refuses to drop contents of a mapping by this advice.
fn refuses(mapping: &Mapping, advice: u64) -> bool {
    let anonymous = mapping.is_private_anonymous();
    match advice {
        MADV_DONTNEED_LOCKED => mapping.special,
        MADV_FREE => mapping.locked || mapping.special || !anonymous,
        MADV_REMOVE => mapping.locked || mapping.special || anonymous,
        _ => mapping.locked || mapping.special || (mapping.sealed && !mapping.access[1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_linux_refuses_has_no_pages() {
        assert_eq!(whole_pages(4096, 1), 1..2);
        assert_eq!(whole_pages(4097, 4096), 0..0);
        assert_eq!(whole_pages(4096, u64::MAX - 4095), 0..0);
        assert_eq!(whole_pages(4096, u64::MAX), 0..0);
        assert!(whole_pages(4096, 0).is_empty());
    }
}
