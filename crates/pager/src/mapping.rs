//! System calls that change a program's memory map: the pager carries them out
//! through the servant, in an order of its own choice.
//!
//! Stage on the data path: beside it. Because each of these calls waits for the
//! pager's answer, nothing is ever mapped, unmapped, moved or dropped while the
//! pager believes otherwise: a new range is registered before the program hears
//! of it, and the pages of an old one are forgotten before it can be reused.
//! While a call is under way its range is `busy`, and faults there wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use zcache_sys::seccomp::{Answer, Notice};
use zcache_sys::servant::ServantDied;

use crate::balance::Epoch;
use crate::budget::PAGE_BYTES;
use crate::pager::Pager;
use crate::queue::Standing;
use crate::space::Space;
use crate::table::{State, Vpn, pages};

const MAP_TYPE: u64 = 0xf;
const MAP_PRIVATE: u64 = 0x2;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_POPULATE: u64 = 0x8000;
const MAP_HUGETLB: u64 = 0x4_0000;
const MREMAP_FIXED: u64 = 2;
const MREMAP_DONTUNMAP: u64 = 4;

const MADV_DONTNEED: u64 = 4;
const MADV_FREE: u64 = 8;
const MADV_REMOVE: u64 = 9;
const MADV_DONTFORK: u64 = 10;
const MADV_DOFORK: u64 = 11;
const MADV_WIPEONFORK: u64 = 18;
const MADV_KEEPONFORK: u64 = 19;
const MADV_DONTNEED_LOCKED: u64 = 24;
const MADV_GUARD_INSTALL: u64 = 102;

/// The largest file mapping whose private pages are charged in advance.
const FILE_CHARGE_MAX: u64 = 16 << 20;

impl Pager {
    /// Receives and answers notices until the run ends; several threads do.
    pub(crate) fn answer_notices(self: &Arc<Self>) {
        while !self.stopping.load(std::sync::atomic::Ordering::Relaxed) {
            let notice = match self.listener.receive() {
                Ok(notice) => notice,
                // ENOENT: the caller was killed meanwhile; EINTR: a signal.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {
                    continue;
                }
                Err(_) => {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                }
            };
            let answer = self.decide(&notice);
            // The caller may have been killed meanwhile.
            let _ = self.listener.answer(notice.id, answer);
        }
    }

    fn decide(self: &Arc<Self>, notice: &Notice) -> Answer {
        let Some(space) = self.space_of_thread(notice.thread) else {
            return Answer::Continue;
        };
        if matches!(notice.number, libc::SYS_fork | libc::SYS_clone) {
            return self.prepare_fork(&space, notice.thread);
        }
        self.counters.mapping_calls.add(1);
        let a = notice.arguments;
        let result = match notice.number {
            libc::SYS_mmap => return self.mmap(&space, a).unwrap_or_else(|_| self.died(&space)),
            libc::SYS_munmap => self.munmap(&space, a),
            libc::SYS_mremap => self.mremap(&space, a),
            libc::SYS_brk => self.brk(&space, a),
            libc::SYS_madvise => self.madvise(&space, a),
            _ => return Answer::Continue,
        };
        match result {
            Ok(value) => Answer::Return(value),
            Err(ServantDied) => self.died(&space),
        }
    }

    fn died(&self, space: &Arc<Space>) -> Answer {
        self.servant_died(space);
        Answer::Return(-i64::from(libc::ENOMEM))
    }

    fn mmap(&self, space: &Arc<Space>, a: [u64; 6]) -> Result<Answer, ServantDied> {
        let [address, len, protection, flags, ..] = a;
        let private = flags & MAP_TYPE == MAP_PRIVATE;
        if private && flags & MAP_ANONYMOUS != 0 && flags & MAP_HUGETLB == 0 {
            return self.mmap_anonymous(space, a).map(Answer::Return);
        }
        if private && flags & MAP_ANONYMOUS == 0 && protection & libc::PROT_WRITE as u64 != 0 {
            // Its private pages cannot be paged: room for them is made now,
            // and the ticker corrects the figure by what is really used.
            let bytes = len.min(FILE_CHARGE_MAX).min(self.budget.ram_bytes() / 8);
            space.advance.grant(bytes);
            self.budget.add_fixed_bytes(bytes);
            self.make_room(0, Duration::from_secs(2));
        }
        if flags & MAP_FIXED != 0 && !space.core().table.is_absent(pages(address, len)) {
            return self.mmap_over(space, a).map(Answer::Return);
        }
        Ok(Answer::Continue)
    }

    fn mmap_anonymous(&self, space: &Space, a: [u64; 6]) -> Result<i64, ServantDied> {
        let [address, len, protection, flags, fd, offset] = a;
        let _ops = space.lock_map();
        let fixed = flags & MAP_FIXED != 0;
        let busy = if fixed { pages(address, len) } else { 0..0 };
        // Population would happen before the range is registered; it is a
        // hint, and each page comes at its first touch instead.
        let flags = flags & !MAP_POPULATE;
        self.while_busy(space, busy, || {
            let result = space.call(
                libc::SYS_mmap,
                [address, len, protection, flags, fd, offset],
            )?;
            if let Ok(start) = u64::try_from(result) {
                self.fresh(space, start, len);
            }
            Ok(result)
        })
    }

    /// A new mapping lies at `start`: whatever was known there is gone.
    fn fresh(&self, space: &Space, start: u64, len: u64) {
        let range = pages(start, len);
        let mut core = space.core();
        self.forget(&mut core, range.clone());
        core.not_inherited.remove(&range);
        drop(core);
        let len = (range.end - range.start) * PAGE_BYTES;
        // What cannot be registered stays out of our hands and is counted as
        // memory that cannot be paged.
        let _ = space.uffd.register(start, len);
    }

    /// A mapping of a file (or shared memory) over pages that we hold: the
    /// servant borrows the descriptor and does it, so that the pages are
    /// forgotten exactly if it worked.
    fn mmap_over(&self, space: &Space, a: [u64; 6]) -> Result<i64, ServantDied> {
        let [address, len, protection, flags, fd, offset] = a;
        let _ops = space.lock_map();
        self.while_busy(space, pages(address, len), || {
            let mut lent = fd;
            let mut pidfd = -1;
            if flags & MAP_ANONYMOUS == 0 {
                let leader = space.leader() as u64;
                pidfd = space.call(libc::SYS_pidfd_open, [leader, 0, 0, 0, 0, 0])?;
                let got = space.call(libc::SYS_pidfd_getfd, [pidfd as u64, fd, 0, 0, 0, 0])?;
                if got < 0 {
                    space.call(libc::SYS_close, [pidfd as u64, 0, 0, 0, 0, 0])?;
                    return Ok(-i64::from(libc::EBADF));
                }
                lent = got as u64;
            }
            let result = space.call(
                libc::SYS_mmap,
                [address, len, protection, flags, lent, offset],
            )?;
            if pidfd >= 0 {
                space.call(libc::SYS_close, [lent, 0, 0, 0, 0, 0])?;
                space.call(libc::SYS_close, [pidfd as u64, 0, 0, 0, 0, 0])?;
            }
            if result >= 0 {
                self.unmapped(space, pages(address, len));
            }
            Ok(result)
        })
    }

    /// What was known of a range that is not the program's old one any more.
    fn unmapped(&self, space: &Space, range: std::ops::Range<u64>) {
        let mut core = space.core();
        core.not_inherited.remove(&range);
        self.forget(&mut core, range);
    }

    fn munmap(&self, space: &Space, a: [u64; 6]) -> Result<i64, ServantDied> {
        let _ops = space.lock_map();
        let range = pages(a[0], a[1]);
        self.while_busy(space, range.clone(), || {
            let result = space.call(libc::SYS_munmap, a)?;
            if result >= 0 {
                self.unmapped(space, range);
            }
            Ok(result)
        })
    }

    fn brk(&self, space: &Space, a: [u64; 6]) -> Result<i64, ServantDied> {
        let _ops = space.lock_map();
        let before = space.core().brk;
        let wanted = a[0];
        let busy = if wanted != 0 && wanted < before {
            pages(wanted.next_multiple_of(PAGE_BYTES), before - wanted)
        } else {
            0..0
        };
        self.while_busy(space, busy, || {
            let result = space.call(libc::SYS_brk, a)?;
            let after = result.cast_unsigned();
            space.core().brk = after;
            let (old_end, new_end) = (
                before.next_multiple_of(PAGE_BYTES),
                after.next_multiple_of(PAGE_BYTES),
            );
            if new_end > old_end {
                self.fresh(space, old_end, new_end - old_end);
            } else if new_end < old_end {
                self.unmapped(space, pages(new_end, old_end - new_end));
            }
            Ok(result)
        })
    }

    fn madvise(&self, space: &Space, a: [u64; 6]) -> Result<i64, ServantDied> {
        let [address, len, advice, ..] = a;
        let range = pages(address, len);
        let _ops = space.lock_map();
        match advice {
            MADV_DONTNEED | MADV_DONTNEED_LOCKED | MADV_FREE | MADV_GUARD_INSTALL => {
                self.drop_pages(space, address, len, advice)
            }
            MADV_DONTFORK | MADV_WIPEONFORK => {
                let result = space.call(libc::SYS_madvise, a)?;
                if reached_all(result) {
                    space.core().not_inherited.insert(range);
                }
                Ok(result)
            }
            MADV_DOFORK | MADV_KEEPONFORK => {
                let result = space.call(libc::SYS_madvise, a)?;
                if reached_all(result) {
                    space.core().not_inherited.remove(&range);
                }
                Ok(result)
            }
            MADV_REMOVE => self.drop_pages(space, address, len, advice),
            _ => space.call(libc::SYS_madvise, a),
        }
    }

    /// Drops the contents of a range. Where the kernel refuses a part of it,
    /// each page is asked for by itself, so that we forget exactly what it dropped.
    fn drop_pages(
        &self,
        space: &Space,
        address: u64,
        len: u64,
        advice: u64,
    ) -> Result<i64, ServantDied> {
        let range = pages(address, len);
        self.while_busy(space, range.clone(), || {
            let call = |start, len| advise_drop(space, start, len, advice);
            let result = call(address, len)?;
            if reached_all(result) {
                self.forget(&mut space.core(), range);
            } else {
                let known = space.core().table.present(range);
                for page in known {
                    if call(page.address(), PAGE_BYTES)? == 0 {
                        self.forget(&mut space.core(), page.0..page.0 + 1);
                    }
                }
            }
            Ok(result)
        })
    }

    fn mremap(&self, space: &Space, a: [u64; 6]) -> Result<i64, ServantDied> {
        let [old, old_len, new_len, flags, target, _] = a;
        let _ops = space.lock_map();
        // Claimed shadow slots name their page by address: none may be out.
        drop(space.hold_claims());
        let result = self.while_busy(space, pages(old, old_len), || {
            let result = space.call(libc::SYS_mremap, a)?;
            let Ok(new) = u64::try_from(result) else {
                return Ok(result);
            };
            if flags & MREMAP_FIXED != 0 {
                self.forget(&mut space.core(), pages(target, new_len));
            }
            space.core().not_inherited.relocate(
                &pages(old, old_len),
                &pages(new, new_len),
                flags & MREMAP_DONTUNMAP != 0,
            );
            let kept = old_len.min(new_len);
            if new != old {
                self.relocate(space, old, new, kept);
                if flags & MREMAP_DONTUNMAP == 0 {
                    self.forget(&mut space.core(), pages(old, old_len));
                } else {
                    let _ = space
                        .uffd
                        .register(old, old_len.next_multiple_of(PAGE_BYTES));
                }
            } else if new_len < old_len {
                let end = new_len.next_multiple_of(PAGE_BYTES);
                self.forget(
                    &mut space.core(),
                    pages(old + end, old_len.saturating_sub(end)),
                );
            }
            // What grew is registered too.
            let _ = space
                .uffd
                .register(new, new_len.next_multiple_of(PAGE_BYTES));
            Ok(result)
        });
        space.core().hold_claims = false;
        result
    }

    /// Pages now live at `new`: their states follow them.
    fn relocate(&self, space: &Space, old: u64, new: u64, len: u64) {
        let mut core = space.core();
        self.forget(&mut core, pages(new, len));
        let mut moved = Vec::new();
        let epochs: Vec<Epoch> = core
            .table
            .present(pages(old, len))
            .into_iter()
            .map(|page| core.table.epoch(page))
            .collect();
        core.table
            .clear(pages(old, len), |page, state| moved.push((page, state)));
        for ((page, state), epoch) in moved.into_iter().zip(epochs) {
            let target = Vpn(page.0 - (old >> 12) + (new >> 12));
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

    /// Runs `operation` while faults in `range` wait, then wakes them.
    fn while_busy<T>(
        &self,
        space: &Space,
        range: std::ops::Range<u64>,
        operation: impl FnOnce() -> Result<T, ServantDied>,
    ) -> Result<T, ServantDied> {
        if range.is_empty() {
            return operation();
        }
        space.core().busy = Some(range);
        let result = operation();
        let mut core = space.core();
        core.busy = None;
        space.wake_deferred(&mut core);
        space.changed.notify_all();
        result
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
}

/// Gives a range the advice to drop its contents. Freed pages may read as zeros
/// at once, so where the kernel accepts FREE the pages are dropped there and
/// then: later it could drop them without our hearing of it. Only it knows
/// which mappings take the advice, and DONTNEED would undo a file's private pages.
fn advise_drop(space: &Space, start: u64, len: u64, advice: u64) -> Result<i64, ServantDied> {
    let call = |advice| space.call(libc::SYS_madvise, [start, len, advice, 0, 0, 0]);
    let result = call(advice)?;
    if advice != MADV_FREE || !reached_all(result) {
        return Ok(result);
    }
    call(MADV_DONTNEED).map(|_| result)
}

/// Whether an advice reached all that is mapped in its range: the kernel goes on
/// behind a hole and says so at the end.
fn reached_all(result: i64) -> bool {
    result == 0 || result == -i64::from(libc::ENOMEM)
}
