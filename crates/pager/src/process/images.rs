//! New images: from the stop at an exec, the old memory is left and the new one
//! taken into care before its first instruction.

use std::rc::Rc;
use std::sync::Arc;

use zcache_sys::process;
use zcache_sys::ptrace::{self, Stop};

use super::births::UNPAGED_TOLD_MAX;
use super::care_error::{CareError, really};
use super::inject::{Held, Injection};
use super::script::Claim;
use super::tracer::{Thread, Tracer};
use crate::error::StartError;
use crate::pager::say;
use crate::space::hands::Servant;
use crate::space::page_table::Vpn;
use crate::sync::lock;

impl Tracer {
    pub(super) fn new_image(self: &Rc<Self>, pid: i32, former: i32) {
        let mut threads = self.threads.borrow_mut();
        let caller = threads.remove(&former);
        let leader = match former == pid {
            true => None,
            false => threads.remove(&pid),
        };
        let filtered = caller.as_ref().is_some_and(|thread| thread.filtered);
        let thread = Thread {
            process: pid,
            space: None,
            cleared: None,
            wished: None,
            filtered,
        };
        threads.insert(pid, thread);
        drop(threads);
        let caller = caller.or(leader);
        let (old, cleared) = caller.map_or((None, None), |one| (one.space, one.cleared));
        if let (Some(space), Some(address)) = (&old, cleared) {
            space
                .core()
                .unpin(Vpn::of(address), self.pager.next_stamp());
        }
        let first = pid == self.main && old.is_none() && !self.watch.has_begun();
        let servant = old.as_ref().and_then(|space| self.leave(space));
        let tracer = Rc::clone(self);
        self.scripts.start(async move {
            let claim = tracer.scripts.claim(pid);
            if let Some(servant) = &servant {
                // Until it is gone so are not its pages.
                tracer
                    .scripts
                    .until(|| (!tracer.servants.borrow().contains_key(&servant.pid)).then_some(()))
                    .await;
            }
            tracer.begin_image(&claim, servant, first).await;
        });
        self.scripts.run();
    }

    /// From the stop at an exec: takes the new image into care and lets it run.
    pub(super) async fn begin_image(
        self: &Rc<Self>,
        claim: &Claim,
        old: Option<Arc<Servant>>,
        first: bool,
    ) {
        let pid = claim.task;
        loop {
            if ptrace::resume_to_syscall(pid, 0).is_err() {
                return;
            }
            match self.scripts.stop_of(claim).await {
                Stop::Syscall => break,
                Stop::Exited(_) | Stop::Signaled(_) => return,
                _ => {}
            }
        }
        if first {
            self.count_filters();
        }
        let mut held = Held::default();
        let cared = self.care_for_image(claim, &mut held).await;
        match cared.map_err(|error| really(pid, error)) {
            Ok(space) if self.is_left_behind(pid, &space) => {
                self.leave(&space);
                return;
            }
            Ok(space) => {
                if let Some(thread) = self.threads.borrow_mut().get_mut(&pid) {
                    thread.space = Some(Arc::clone(&space));
                }
                lock(&self.pager.unpaged).remove(&pid);
                if let Err(error) = self.pager.publish(&space) {
                    say!("process {pid} cannot be watched and is killed: {error}");
                    let _ = process::kill(pid, libc::SIGKILL);
                }
                self.watch.begin();
                if let (Some(old), Some(kernel)) = (&old, space.hands().kernel()) {
                    let reaped = self.reap_servant(claim, old, kernel.places.code);
                    held = held.or(reaped.await);
                }
            }
            Err(CareError::Ended) => {
                let _ = process::kill(pid, libc::SIGKILL);
                return;
            }
            Err(error) if first && !matches!(error, CareError::NoEntry) => {
                *self.failure.borrow_mut() = Some(StartError::Care(error.to_string()));
                let _ = process::kill(pid, libc::SIGKILL);
            }
            Err(error) => {
                self.watch.begin();
                lock(&self.pager.unpaged).insert(pid);
                self.pager.counters.unpaged.add(1);
                if self.pager.counters.unpaged.get() <= UNPAGED_TOLD_MAX || first {
                    say!("process {pid} runs unpaged: {error}");
                }
            }
        }
        if !claim.has_ended() {
            held.resume(pid, 0);
        }
    }

    /// A servant that has ended was a child of this process: it is waited for
    /// here, lest somebody else is asked to.
    pub(crate) async fn reap_servant(
        self: &Rc<Self>,
        claim: &Claim,
        servant: &Servant,
        instruction: u64,
    ) -> Held {
        let Ok(injection) = Injection::begin(self, claim, instruction) else {
            return Held::default();
        };
        let flags = (libc::__WALL | libc::WNOHANG) as u64;
        let wait = [servant.inner_pid as u64, 0, flags, 0, 0, 0];
        let _ = injection.call("wait", libc::SYS_wait4, wait).await;
        injection.end().unwrap_or_default()
    }
}
