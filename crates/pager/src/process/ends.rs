//! Ends of threads, processes and servants, and what they leave: a space is given up
//! when the last process has left it and its servant, too, has ended, since only
//! then has the kernel its memory back.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use zcache_sys::process;
use zcache_sys::ptrace::Stop;

use super::front::Word;
use super::tracer::{Birth, End, Parentage, Thread, Tracer};
use crate::pager::say;
use crate::space::Space;
use crate::space::hands::{Kernel, Servant};
use crate::space::page_table::Vpn;
use crate::sync::lock;

/// How much longer each further servant of a space is waited with.
const RENEWAL_PAUSE: Duration = Duration::from_millis(100);

impl Tracer {
    pub(crate) fn know_servant(&self, servant: &Arc<Servant>, space: &Arc<Space>) {
        if let Some(slot) = self.pager.guard_process(&servant.pidfd) {
            let _ = servant.guard_slot.set(slot);
        }
        let both = (Arc::clone(servant), Arc::clone(space));
        self.servants.borrow_mut().insert(servant.pid, both);
    }

    pub(super) fn ended(self: &Rc<Self>, pid: i32, stop: Stop, claimed: bool) {
        if pid == self.guard.get() {
            self.renew_guard();
            return;
        }
        let birth = self.births.borrow_mut().remove(&pid);
        let servant = self.servants.borrow_mut().remove(&pid);
        let thread = self.threads.borrow_mut().remove(&pid);
        let unknown = servant.is_none() && thread.is_none() && !claimed;
        match birth {
            Some(Birth::Announced(Parentage {
                forked: Some(space),
                outcome,
                ..
            })) => {
                self.leave(&space);
                outcome.set(Some(true));
            }
            Some(Birth::Announced(_)) => {}
            // It may be announced yet.
            Some(Birth::Stopped { .. }) | None if unknown => {
                self.ended_early.borrow_mut().insert(pid, Instant::now());
            }
            Some(Birth::Stopped { .. }) | None => {}
        }
        if let Some((servant, space)) = servant {
            self.servant_ended(&servant, space);
            return;
        }
        self.held.borrow_mut().retain(|one| *one != pid);
        if let Some(Thread {
            space: Some(space),
            cleared,
            process,
            ..
        }) = &thread
        {
            if let Some(address) = cleared {
                let stamp = self.pager.next_stamp();
                space.core().unpin(Vpn::of(*address), stamp);
            }
            self.look_through_another(space, pid, *process);
        }
        let Some(process) = self.processes.borrow_mut().remove(&pid) else {
            return;
        };
        lock(&self.pager.unpaged).remove(&pid);
        if let Some(space) = thread.and_then(|thread| thread.space) {
            self.leave(&space);
        }
        if let Some(slot) = process.guard_slot {
            self.pager.unguard(slot);
        }
        drop(process);
        if pid == self.main {
            self.main_ended(match stop {
                Stop::Signaled(signal) => End::Signaled(signal),
                Stop::Exited(code) => End::Exited(code),
                _ => End::Exited(0),
            });
        }
    }

    /// A thread has ended by which a space was looked at: another one takes its
    /// place.
    pub(super) fn look_through_another(&self, space: &Space, ended: i32, process: i32) {
        let Some(kernel) = (match space.has_hands() {
            true => space.hands().kernel(),
            false => None,
        }) else {
            return;
        };
        if kernel.thread.load(Ordering::Relaxed) != ended {
            return;
        }
        let threads = self.threads.borrow();
        let other = threads.iter().find(|(_, one)| one.process == process);
        if let Some((other, _)) = other {
            kernel.thread.store(*other, Ordering::Relaxed);
        }
    }

    /// One process less lives in `space`; the last one closes it. Returns its
    /// servant, which then ends.
    pub(super) fn leave(&self, space: &Arc<Space>) -> Option<Arc<Servant>> {
        if space.users.fetch_sub(1, Ordering::AcqRel) != 1 {
            return None;
        }
        self.pager.close(space);
        self.renewals.borrow_mut().remove(&space.id);
        let kernel = match space.has_hands() {
            true => space.hands().kernel(),
            false => None,
        };
        let servant = kernel.and_then(Kernel::servant);
        let known = servant.filter(|one| self.servants.borrow().contains_key(&one.pid));
        match known {
            Some(servant) => {
                // It may be dead already; its end comes here.
                let _ = servant.pidfd.signal(libc::SIGKILL);
                Some(servant)
            }
            None => {
                self.bury(space);
                None
            }
        }
    }

    /// Whether a space may get another servant now: not again and again where it
    /// was refused, or where somebody keeps killing it.
    pub(crate) fn may_renew(&self, space: &Space) -> bool {
        let mut tries = self.renewals.borrow_mut();
        let (count, last) = tries.entry(space.id).or_insert((0, Instant::now()));
        let pause = RENEWAL_PAUSE * (*count).min(100);
        if last.elapsed() < pause {
            return false;
        }
        *count += 1;
        *last = Instant::now();
        true
    }

    /// Ends a servant whose process has to be alone with its memory for a moment.
    pub(crate) async fn dismiss(&self, servant: &Servant, space: &Space) {
        // Nobody has to be told of what we do.
        space.told.store(true, Ordering::Release);
        let _ = servant.pidfd.signal(libc::SIGKILL);
        self.scripts
            .until(|| (!self.servants.borrow().contains_key(&servant.pid)).then_some(()))
            .await;
    }

    pub(super) fn servant_ended(&self, servant: &Servant, space: Arc<Space>) {
        servant.gone.store(true, Ordering::Release);
        if let Some(slot) = servant.guard_slot.get() {
            self.pager.unguard(*slot);
        }
        if space.is_closing() {
            self.bury(&space);
        } else {
            // Its process may be ending too; its end is then reported soon.
            self.pager.servant_lost_soon(space);
        }
    }

    /// The main program has ended. With others left in the background the
    /// front goes at once and the pager stays for them.
    pub(super) fn main_ended(&self, end: End) {
        self.main_end.set(Some(end));
        if !self.processes.borrow().is_empty() && self.failure.borrow().is_none() {
            self.tell_front(Word::Background);
            self.tell_front(end.word());
        }
    }

    pub(super) fn renew_guard(&self) {
        match process::start_guard(&self.pager.guard, &self.own) {
            Ok(guard) => {
                self.guard.set(guard);
                self.pager.own_pids[1].store(guard, Ordering::Relaxed);
            }
            Err(error) => {
                say!("the guard died and cannot be replaced ({error}); the program is killed");
                self.kill_all();
            }
        }
    }

    pub(super) fn kill_all(&self) {
        for process in self.processes.borrow().values() {
            let _ = process.pidfd.signal(libc::SIGKILL);
        }
    }
}
