//! The loop that waits for all tracees, and what each stop leads to.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use zcache_sys::process;
use zcache_sys::ptrace::{self, Stop, Waited};

use super::front::Word;
use super::script::Claim;
use super::tracer::{End, Outcome, Parentage, Tracer, resume};
use crate::error::StartError;
use crate::report;
use crate::syscalls;
use crate::syscalls::timed::Wait;
use crate::syscalls::transfer::Cut;

impl Tracer {
    /// Runs until the last process of the tree has ended. Returns how the main
    /// program ended, or why it was never started.
    pub(crate) fn run(self: &Rc<Self>) -> Result<End, StartError> {
        while self.lives() {
            self.pager.tracer.take();
            self.look_around();
            self.scripts.run();
            let waits = self.scripts.is_waiting() || !self.births.borrow().is_empty();
            self.pager.tracer_waits.store(waits, Ordering::Relaxed);
            match ptrace::wait_any().map_err(StartError::Own)? {
                Waited::Stop(pid, stop) => self.stopped(pid, stop),
                Waited::Nothing => {}
                Waited::NobodyLeft => break,
            }
        }
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(self.main_end.get().unwrap_or(End::Exited(0))),
        }
    }

    /// Whether any process of the tree is left, a child that has not made its
    /// first stop included: its parent may have ended before that.
    pub(super) fn lives(&self) -> bool {
        !self.processes.borrow().is_empty()
            || !self.births.borrow().is_empty()
            || !self.servants.borrow().is_empty()
    }

    /// What comes from elsewhere: the user's wish for a summary, the front's end.
    pub(super) fn look_around(self: &Rc<Self>) {
        if self.watch.take_summary_wanted() {
            report::print_summary(&self.pager, true);
        }
        if self.watch.is_front_gone()
            && !self.front_left.replace(true)
            && self.main_end.get().is_none()
        {
            self.kill_all();
        }
        if self.watch.front_acknowledged() < self.front_continued.get() {
            // It may stop just now, by the word before: it is told until it has
            // gone on.
            self.pager.tracer_waits.store(true, Ordering::Relaxed);
            let _ = process::kill(self.front_pid, libc::SIGCONT);
        }
        self.hold_or_let_go();
        self.adopt_unannounced();
    }

    pub(crate) fn stopped(self: &Rc<Self>, pid: i32, stop: Stop) {
        if let Stop::Exec { former } = stop
            && former != pid
        {
            // The thread that had this number is gone, and nothing else tells of it.
            self.scripts.deliver(pid, Stop::Exited(0));
            self.held.borrow_mut().retain(|one| *one != pid);
        }
        let claimed = self.scripts.deliver(pid, stop);
        if matches!(stop, Stop::Exited(_) | Stop::Signaled(_)) {
            self.ended(pid, stop, claimed);
            return;
        }
        if claimed {
            return;
        }
        if self.servants.borrow().contains_key(&pid) {
            // Nobody stops a servant, and nothing is delivered to it but what it has
            // done itself: its memory was taken from it.
            resume(pid, by_itself(stop));
            return;
        }
        if !self.threads.borrow().contains_key(&pid) {
            self.first_stop(pid, stop);
            return;
        }
        match stop {
            Stop::Birth { child, .. } => {
                let parentage = Parentage {
                    parent: pid,
                    forked: None,
                    cleared: self.cleared_word(pid),
                    outcome: Outcome::default(),
                };
                self.announce(child, parentage);
                resume(pid, 0);
            }
            Stop::Exec { former } => self.new_image(pid, former),
            Stop::Watched => self.watched(pid),
            Stop::Reported => {
                syscalls::without_tracer(pid);
                resume(pid, 0);
            }
            Stop::Signal(signal) => {
                let filtered = self.is_filtered(pid);
                if let Some(cut) = Cut::of(pid, signal) {
                    self.start_with(pid, async move |tracer, claim| {
                        cut.finish(&tracer, claim, signal).await;
                    });
                    return;
                }
                if let Some(wait) = Wait::of(pid, signal, filtered) {
                    self.start_with(pid, async move |tracer, claim| {
                        wait.go_on(&tracer, claim, signal).await;
                    });
                    return;
                }
                syscalls::signals::restart_if_ignored(pid, signal, filtered);
                resume(pid, signal);
            }
            Stop::Group(signal) => {
                if pid == self.main {
                    self.tell_front(Word::Stopped(signal));
                }
                let _ = ptrace::listen(pid);
            }
            Stop::Trap => {
                if pid == self.main {
                    self.tell_front(Word::Continued);
                    self.front_continued.set(self.front_continued.get() + 1);
                }
                if !self.holds_back(pid) {
                    resume(pid, 0);
                }
            }
            Stop::Syscall | Stop::Other(_) => resume(pid, 0),
            Stop::Exited(_) | Stop::Signaled(_) => {}
        }
    }

    /// Starts a script that the stops of a thread come to.
    fn start_with(
        self: &Rc<Self>,
        pid: i32,
        script: impl AsyncFnOnce(Rc<Tracer>, Claim) + 'static,
    ) {
        let tracer = Rc::clone(self);
        self.scripts.start(async move {
            let claim = tracer.scripts.claim(pid);
            script(tracer, claim).await;
        });
        self.scripts.run();
    }

    pub(super) fn watched(self: &Rc<Self>, pid: i32) {
        let space = self.space_of(pid);
        self.start_with(pid, async move |tracer, claim| {
            syscalls::watched(&tracer, &claim, space).await;
        });
    }
}

/// The signal of a stop, if an instruction has raised it.
fn by_itself(stop: Stop) -> i32 {
    match stop {
        Stop::Signal(
            signal @ (libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGSYS),
        ) => signal,
        _ => 0,
    }
}
