//! Births: a new task shows itself twice, by its parent's event and by its own first
//! stop, in either order. A thread or a process in the same memory runs on; a
//! forked child is taken into care before it does.
//!
//! Invariant: no child of a fork runs without its parent's table, or all of its
//! memory.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use zcache_sys::process;
use zcache_sys::procfs;
use zcache_sys::ptrace::{self, Stop};

use super::care_error::{CareError, really};
use super::inject::Held;
use super::script::Claim;
use super::tracer::{Birth, Outcome, Parentage, Thread, Tracer, resume};
use crate::pager::say;
use crate::space::Space;
use crate::space::hands::Kernel;
use crate::sync::lock;

/// A parent that was killed inside its fork never announces the child.
const ANNOUNCEMENT_PATIENCE: Duration = Duration::from_millis(300);

/// Processes of which the user is told that they cannot be paged.
pub(super) const UNPAGED_TOLD_MAX: u64 = 3;

impl Tracer {
    /// Has the stops of a task that was just born come to the script that runs
    /// now; returns when it has made its first one.
    pub(crate) async fn claim_newborn(&self, pid: i32) -> Result<Claim, CareError> {
        if self.ended_early.borrow_mut().remove(&pid).is_some() {
            return Err(CareError::Ended);
        }
        let early = self.births.borrow_mut().remove(&pid);
        let claim = self.scripts.claim(pid);
        if matches!(early, Some(Birth::Stopped { .. })) {
            return Ok(claim);
        }
        match self.scripts.stop_of(&claim).await {
            Stop::Exited(_) | Stop::Signaled(_) => Err(CareError::Ended),
            _ => Ok(claim),
        }
    }

    pub(super) fn first_stop(self: &Rc<Self>, pid: i32, stop: Stop) {
        // A number may come again.
        self.ended_early.borrow_mut().remove(&pid);
        let announced = self.births.borrow_mut().remove(&pid);
        match announced {
            Some(Birth::Announced(parentage)) => self.born(pid, parentage, stop),
            Some(Birth::Stopped { .. }) | None => {
                let birth = Birth::Stopped {
                    since: Instant::now(),
                    stop,
                    parent: parent_of(pid),
                };
                self.births.borrow_mut().insert(pid, birth);
            }
        }
    }

    /// The parent stands at its event: what it makes next cannot be mistaken for
    /// this child.
    pub(crate) fn announce(self: &Rc<Self>, child: i32, parentage: Parentage) {
        if self.ended_early.borrow_mut().remove(&child).is_some() {
            if let Some(space) = parentage.forked {
                self.leave(&space);
            }
            parentage.outcome.set(Some(true));
            return;
        }
        let early = self.births.borrow_mut().remove(&child);
        match early {
            Some(Birth::Stopped { stop, .. }) => self.born(child, parentage, stop),
            Some(Birth::Announced(_)) | None => {
                let birth = Birth::Announced(parentage);
                self.births.borrow_mut().insert(child, birth);
            }
        }
    }

    /// What the event of a fork says of the child, whose table is made already.
    pub(crate) fn forked(
        parent: i32,
        space: Arc<Space>,
        cleared: Option<u64>,
        outcome: &Outcome,
    ) -> Parentage {
        Parentage {
            parent,
            forked: Some(space),
            cleared,
            outcome: Rc::clone(outcome),
        }
    }

    /// A fork's thread was killed when its child may have been born already.
    pub(crate) fn note_orphan(&self, space: Arc<Space>) {
        self.orphans.borrow_mut().push((space, Instant::now()));
    }

    /// Children that nobody announced: their parent was killed in its fork. One
    /// that can only be that parent's lives on; of several nobody knows which is
    /// whose.
    pub(super) fn adopt_unannounced(self: &Rc<Self>) {
        let fresh = |since: &Instant| since.elapsed() < ANNOUNCEMENT_PATIENCE * 10;
        self.ended_early
            .borrow_mut()
            .retain(|_, since| fresh(since));
        if self.births.borrow().is_empty() && self.orphans.borrow().is_empty() {
            return;
        }
        let is_lost = |pid: i32, birth: &Birth| match birth {
            Birth::Stopped { since, parent, .. } => {
                let age = since.elapsed();
                let orphaned = age > ANNOUNCEMENT_PATIENCE && parent_of(pid) != *parent;
                orphaned || age > ANNOUNCEMENT_PATIENCE * 10
            }
            Birth::Announced(_) => false,
        };
        let births = self.births.borrow();
        let waiting = births.iter().filter(|(pid, birth)| is_lost(**pid, birth));
        let waiting: Vec<i32> = waiting.map(|(pid, _)| *pid).collect();
        drop(births);
        let only = waiting.len() == 1 && self.orphans.borrow().len() == 1;
        for child in waiting {
            let Some(Birth::Stopped { stop, .. }) = self.births.borrow_mut().remove(&child) else {
                continue;
            };
            if only && let Some((space, _)) = self.orphans.borrow_mut().pop() {
                self.take_into_care(child, space, stop, false, None, Outcome::default());
            } else {
                let _ = process::kill(child, libc::SIGKILL);
            }
        }
        let old = |since: &Instant| since.elapsed() > ANNOUNCEMENT_PATIENCE * 4;
        let gone: Vec<Arc<Space>> = {
            let mut orphans = self.orphans.borrow_mut();
            let gone = orphans.extract_if(.., |(_, since)| old(since));
            gone.map(|(space, _)| space).collect()
        };
        for space in gone {
            self.leave(&space);
        }
    }

    pub(super) fn born(self: &Rc<Self>, child: i32, parentage: Parentage, stop: Stop) {
        let Parentage {
            parent,
            forked,
            cleared,
            outcome,
        } = parentage;
        let filtered = self.is_filtered(parent);
        if let Some(space) = forked {
            self.take_into_care(child, space, stop, filtered, cleared, outcome);
            return;
        }
        let space = self.space_of(parent);
        let group = thread_group(child).unwrap_or(child);
        if group != child {
            let thread = Thread {
                process: group,
                space,
                cleared: None,
                wished: None,
                filtered,
            };
            self.threads.borrow_mut().insert(child, thread);
            if let Some(address) = cleared {
                self.note_cleared_word(child, address);
            }
            self.go_on(child, stop);
            return;
        }
        let shares = process::same_memory(parent, child) != Some(false);
        let space = space.filter(|_| shares);
        if let Some(space) = &space {
            space.users.fetch_add(1, Ordering::AcqRel);
        } else if self.space_of(parent).is_some() {
            // A fork that was announced as something else: without a table it
            // must not run.
            let _ = process::kill(child, libc::SIGKILL);
        }
        if !shares {
            lock(&self.pager.unpaged).insert(child);
        }
        if self.add_process(child, space.clone(), filtered).is_err() {
            self.does_not_begin(child, space.as_ref());
            return;
        }
        self.go_on(child, stop);
    }

    /// Lets a task go on from its first stop, which may be one of its whole
    /// process.
    pub(super) fn go_on(&self, task: i32, stop: Stop) {
        match stop {
            Stop::Group(_) => drop(ptrace::listen(task)),
            Stop::Signal(signal) => resume(task, signal),
            _ => resume(task, 0),
        }
    }

    pub(super) fn take_into_care(
        self: &Rc<Self>,
        child: i32,
        space: Arc<Space>,
        stop: Stop,
        filtered: bool,
        cleared: Option<u64>,
        outcome: Outcome,
    ) {
        if self
            .add_process(child, Some(Arc::clone(&space)), filtered)
            .is_err()
        {
            self.does_not_begin(child, Some(&space));
            outcome.set(Some(false));
            return;
        }
        let tracer = Rc::clone(self);
        self.scripts.start(async move {
            let claim = tracer.scripts.claim(child);
            let mut held = Held::default();
            let cared = tracer.care_for_child(&claim, &space, &mut held).await;
            match cared.map_err(|error| really(child, error)) {
                Ok(()) => {}
                Err(CareError::Ended) => {
                    outcome.set(Some(true));
                    let _ = process::kill(child, libc::SIGKILL);
                    return;
                }
                Err(error) => {
                    if !tracer.run_unpaged(&claim, &space, &error).await {
                        outcome.set(Some(false));
                        return;
                    }
                }
            }
            outcome.set(Some(true));
            if tracer.is_left_behind(child, &space) {
                return;
            }
            if space.has_hands()
                && let Err(error) = tracer.pager.publish(&space)
            {
                say!("process {child} cannot be watched and is killed: {error}");
                let _ = process::kill(child, libc::SIGKILL);
            }
            if let Some(address) = cleared {
                tracer.note_cleared_word(child, address);
            }
            drop(claim);
            match stop {
                // It learns of it again below, if it is so still.
                Stop::Group(_) => Held::STOPPED.or(held).resume(child, 0),
                Stop::Signal(signal) => held.resume(child, signal),
                _ => held.resume(child, 0),
            }
        });
        self.scripts.run();
    }

    /// A child was killed before it could begin, or we have no descriptor for it: it
    /// does not begin then.
    fn does_not_begin(&self, child: i32, space: Option<&Arc<Space>>) {
        self.threads.borrow_mut().remove(&child);
        lock(&self.pager.unpaged).remove(&child);
        if let Some(space) = space {
            self.leave(space);
        }
        let _ = process::kill(child, libc::SIGKILL);
    }

    /// The word that the kernel clears at the end of the task that `parent` has just
    /// made: there joiners wait, or a list of threads is locked.
    pub(super) fn cleared_word(&self, parent: i32) -> Option<u64> {
        let (number, arguments) = ptrace::call_of(&ptrace::registers(parent).ok()?);
        let clears = arguments[0] & libc::CLONE_CHILD_CLEARTID as u64 != 0;
        match number {
            libc::SYS_clone if clears => Some(arguments[3]),
            libc::SYS_clone3 => self.threads.borrow().get(&parent)?.wished,
            _ => None,
        }
    }

    /// Before a thread makes another by arguments that lie in its memory, which the
    /// tracer does not touch.
    pub(crate) fn note_wished_word(&self, parent: i32, word: Option<u64>) {
        if let Some(thread) = self.threads.borrow_mut().get_mut(&parent) {
            thread.wished = word;
        }
    }

    /// Whether a process was killed while it was taken into care, and has left
    /// already. Its servant ends too then.
    pub(super) fn is_left_behind(&self, pid: i32, space: &Space) -> bool {
        if self.threads.borrow().contains_key(&pid) {
            return false;
        }
        if space.has_hands()
            && let Some(servant) = space.hands().kernel().and_then(Kernel::servant)
        {
            let _ = servant.pidfd.signal(libc::SIGKILL);
        }
        true
    }

    /// A forked child that cannot be paged gets all of its memory at once, and
    /// runs as it would without us; its memory counts.
    /// One for which there is no room does not run, and its fork fails: false then.
    pub(super) async fn run_unpaged(
        self: &Rc<Self>,
        claim: &Claim,
        space: &Arc<Space>,
        error: &CareError,
    ) -> bool {
        let child = claim.task;
        self.pager.counters.unpaged.add(1);
        let whole = Arc::clone(space);
        let filled = self
            .elsewhere(move |pager| pager.fill_unpaged(&whole, child))
            .await;
        if let Some(thread) = self.threads.borrow_mut().get_mut(&child) {
            thread.space = None;
        }
        lock(&self.pager.unpaged).insert(child);
        let told = self.pager.counters.unpaged.get() > UNPAGED_TOLD_MAX;
        if let Err(why) = &filled {
            if !told {
                say!("process {child} cannot be paged ({error}), and its fork fails: {why}");
            }
            let _ = process::kill(child, libc::SIGKILL);
        } else if !told {
            say!("process {child} runs unpaged: {error}");
        }
        self.leave(space);
        filled.is_ok()
    }
}

/// The process that a thread belongs to.
fn thread_group(thread: i32) -> Option<i32> {
    procfs::status_field(thread, "Tgid")?.parse().ok()
}

/// The process that made it, or that it was given to when that one ended.
fn parent_of(thread: i32) -> Option<i32> {
    procfs::status_field(thread, "PPid")?.parse().ok()
}
