//! A call that an ignored signal has met is made again by its thread: how such a call
//! is watched to its end. [`super::timed`] and [`super::transfer`] say which calls.

use std::rc::Rc;
use std::time::Instant;

use zcache_sys::ptrace::{self, Registers, Stop};

use super::signals::is_ignored;
use crate::process::script::Claim;
use crate::process::tracer::{Tracer, resume};

/// How a call ended that was made again.
pub(super) enum Ended {
    /// The thread stands at its exit.
    Itself,
    /// As above; it was interrupted by us, since the deadline had come. What it says is
    /// to be taken note of before the thread goes on.
    AtDeadline,
    /// The thread has stopped in it, or has ended.
    Otherwise(Option<Stop>),
}

/// A thread that makes a call again.
pub(super) struct Again {
    tracer: Rc<Tracer>,
    claim: Claim,
    deadline: Option<Instant>,
    /// What is about to be delivered to it, or 0.
    signal: i32,
}

impl Again {
    /// Begins with the thread of `claim`, which stands before the delivery of `signal`.
    pub(super) fn new(tracer: &Rc<Tracer>, claim: Claim, signal: i32) -> Again {
        Again {
            tracer: Rc::clone(tracer),
            claim,
            deadline: None,
            signal,
        }
    }

    pub(super) fn task(&self) -> i32 {
        self.claim.task
    }

    pub(super) fn tracer(&self) -> &Rc<Tracer> {
        &self.tracer
    }

    /// Has calls end when this has come.
    pub(super) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// The thread's registers; `None` when it was killed meanwhile.
    pub(super) fn registers(&self) -> Option<Registers> {
        ptrace::registers(self.task()).ok()
    }

    pub(super) fn set_registers(&self, registers: &Registers) {
        if !self.claim.has_ended() {
            // It may have been killed meanwhile.
            let _ = ptrace::set_registers(self.task(), registers);
        }
    }

    /// Lets the thread run to its next stop; `None` when it has ended.
    async fn stop(&mut self) -> Option<Stop> {
        let signal = std::mem::take(&mut self.signal);
        if self.claim.has_ended() || ptrace::resume_to_syscall(self.task(), signal).is_err() {
            return None;
        }
        lives(self.tracer.scripts.stop_of(&self.claim).await)
    }

    /// To the entry of the call that the registers say; or what happens before that,
    /// `None` when it has ended.
    pub(super) async fn enter(&mut self) -> Result<(), Option<Stop>> {
        loop {
            match self.stop().await {
                Some(Stop::Syscall) => return Ok(()),
                Some(Stop::Signal(next)) if is_ignored(self.task(), next) => self.signal = next,
                stop => return Err(stop),
            }
        }
    }

    /// From the call's entry to its exit, or to the deadline.
    pub(super) async fn end(&mut self) -> Ended {
        let Some(deadline) = self.deadline else {
            return match self.stop().await {
                Some(Stop::Syscall) => Ended::Itself,
                stop => Ended::Otherwise(stop),
            };
        };
        if ptrace::resume_to_syscall(self.task(), 0).is_err() {
            return Ended::Otherwise(None);
        }
        let look = || match self.tracer.scripts.take_stop(&self.claim) {
            Some(stop) => Some(Some(stop)),
            None => (Instant::now() >= deadline).then_some(None),
        };
        match self.tracer.scripts.until(look).await {
            Some(Stop::Syscall) => return Ended::Itself,
            Some(stop) => return Ended::Otherwise(lives(stop)),
            None => {}
        }
        if self.claim.has_ended() || ptrace::interrupt(self.task()).is_err() {
            return Ended::Otherwise(None);
        }
        match self.tracer.scripts.stop_of(&self.claim).await {
            Stop::Syscall => Ended::AtDeadline,
            stop => Ended::Otherwise(lives(stop)),
        }
    }

    /// Behind a call that may have been interrupted. Goes on where it was by an ignored
    /// signal; otherwise the thread runs on with the registers that it has.
    pub(super) async fn past_ignored(mut self) -> Option<Again> {
        match self.stop().await {
            Some(Stop::Signal(next)) if is_ignored(self.task(), next) => {
                self.signal = next;
                return Some(self);
            }
            // Nothing has come, and it makes its next call.
            Some(Stop::Syscall) => self.go_on(),
            stop => self.hand_over(stop),
        }
        None
    }

    /// Behind a call that we have interrupted: the thread goes on.
    pub(super) async fn after_deadline(mut self) {
        match self.stop().await {
            Some(Stop::Trap) => self.go_on(),
            stop => self.hand_over(stop),
        }
    }

    pub(super) fn go_on(self) {
        let (task, signal) = (self.task(), self.signal);
        drop(self.claim);
        resume(task, signal);
    }

    /// Leaves a stop to whom stops come that are nobody's.
    pub(super) fn hand_over(self, stop: Option<Stop>) {
        let task = self.task();
        drop(self.claim);
        if let Some(stop) = stop {
            self.tracer.stopped(task, stop);
        }
    }
}

/// A stop that is no end.
fn lives(stop: Stop) -> Option<Stop> {
    (!matches!(stop, Stop::Exited(_) | Stop::Signaled(_))).then_some(stop)
}

/// Whether this result means that a signal or a stop has met the call.
pub(super) fn is_interrupted(result: i64) -> bool {
    result == -i64::from(libc::EINTR) || ptrace::will_restart(result)
}
