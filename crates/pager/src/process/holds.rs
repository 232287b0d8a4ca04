//! Holding processes: their threads are stopped while memory that cannot be paged
//! grows faster than room is made (`background/tick.rs` says whose).

use zcache_sys::procfs;
use zcache_sys::ptrace;

use super::tracer::{Thread, Tracer, resume};
use crate::space::SpaceId;
use crate::sync::lock;
use crate::syscalls;

impl Tracer {
    /// Stops what runs of processes that are to be held, and lets others go on.
    pub(super) fn hold_or_let_go(&self) {
        let wanted = lock(&self.pager.holds).clone();
        if wanted == *self.holding.borrow() {
            return;
        }
        let threads = self.threads.borrow();
        let of = |thread: &Thread| thread.space.as_ref().map(|space| space.id);
        let fresh = |id: &SpaceId| wanted.contains(id) && !self.holding.borrow().contains(id);
        for (pid, _) in threads
            .iter()
            .filter(|(_, one)| of(one).as_ref().is_some_and(fresh))
        {
            if runs(*pid) {
                // It may have ended meanwhile.
                let _ = ptrace::interrupt(*pid);
            }
        }
        let is_free = |pid: &mut i32| {
            let id = threads.get(pid).and_then(of);
            !id.is_some_and(|id| wanted.contains(&id))
        };
        for pid in self.held.borrow_mut().extract_if(.., is_free) {
            resume(pid, 0);
        }
        *self.holding.borrow_mut() = wanted;
    }

    /// Whether a thread that has stopped is to wait. It is let go on later then.
    pub(super) fn holds_back(&self, pid: i32) -> bool {
        let Some(space) = self.space_of(pid) else {
            return false;
        };
        let holds = self.holding.borrow().contains(&space.id);
        if holds {
            syscalls::signals::restart_interrupted(pid, self.is_filtered(pid));
            self.held.borrow_mut().push(pid);
        }
        holds
    }
}

/// Whether a thread is running, or would.
fn runs(thread: i32) -> bool {
    procfs::stat(thread).is_some_and(|stat| stat.state == b'R')
}
