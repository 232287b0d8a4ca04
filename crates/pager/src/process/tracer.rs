//! The tracer: births, new images, watched calls, stops and ends of the tree's
//! processes.
//!
//! One thread does all ptrace work, since ptrace belongs to the thread that
//! attached. It waits for nobody: what takes several stops of a task is a script
//! ([`super::script`]), what takes time is done by workers. A new image or a
//! forked child is taken into care before it runs. Signals and job-control stops
//! are passed on as they are.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use zcache_sys::fd::PidFd;
use zcache_sys::process;
use zcache_sys::procfs;
use zcache_sys::ptrace::{self, Stop, Waited};

use super::attach::CareError;
use super::front::Word;
use super::script::{Claim, Scripts};
use super::watch::Watch;
use crate::error::StartError;
use crate::pager::{Pager, lock, say};
use crate::report;
use crate::space::hands::{Kernel, Servant};
use crate::space::page_table::Vpn;
use crate::space::{Space, SpaceId};
use crate::syscalls;

/// Work for another thread.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// A parent that was killed inside its fork never announces the child.
const ANNOUNCEMENT_PATIENCE: Duration = Duration::from_millis(300);

/// Processes of which the user is told that they cannot be paged.
const UNPAGED_TOLD_MAX: u64 = 3;

/// How much longer each further servant of a space is waited with.
const RENEWAL_PAUSE: Duration = Duration::from_millis(100);

/// One process of the tree.
struct Process {
    pidfd: PidFd,
    guard_slot: Option<usize>,
}

/// One thread of the tree.
struct Thread {
    process: i32,
    space: Option<Arc<Space>>,
    /// The word that the kernel clears when the thread ends; its page is pinned.
    cleared: Option<u64>,
    /// It has put filters upon itself, or its parent has.
    filtered: bool,
}

/// A servant and the space that it serves.
type Served = (Arc<Servant>, Arc<Space>);

/// What the parent's event says of a new task.
pub(crate) struct Parentage {
    /// The parent.
    parent: i32,
    /// The child's own space, if it was forked.
    forked: Option<Arc<Space>>,
    /// The word that the kernel clears when the new thread ends.
    cleared: Option<u64>,
    /// What becomes of a forked child, for its parent to know.
    outcome: Outcome,
}

/// Whether a forked child lives; nothing until that is known.
pub(crate) type Outcome = Rc<Cell<Option<bool>>>;

/// A new task of which one of two messages has come: its parent's event or its
/// own first stop.
enum Birth {
    Announced(Parentage),
    Stopped {
        since: Instant,
        stop: Stop,
        /// Its parent then. Another one means that the first has ended.
        parent: Option<i32>,
    },
}

/// The end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exited(i32),
    Signaled(i32),
}

/// See the module's description.
pub(crate) struct Tracer {
    pub(crate) pager: Arc<Pager>,
    pub(crate) scripts: Rc<Scripts>,
    watch: Arc<Watch>,
    workers: Sender<Job>,
    main: i32,
    main_end: Cell<Option<End>>,
    processes: RefCell<HashMap<i32, Process>>,
    threads: RefCell<HashMap<i32, Thread>>,
    births: RefCell<HashMap<i32, Birth>>,
    /// Tasks that ended before they were announced.
    ended_early: RefCell<HashSet<i32>>,
    servants: RefCell<HashMap<i32, Served>>,
    /// Spaces of children whose parents were killed while they forked.
    orphans: RefCell<Vec<(Arc<Space>, Instant)>>,
    /// How often a space was given another servant, and when last.
    renewals: RefCell<HashMap<SpaceId, (u32, Instant)>>,
    /// Spaces that are held, and threads that have stopped for it.
    holding: RefCell<HashSet<SpaceId>>,
    held: RefCell<Vec<i32>>,
    guard: Cell<i32>,
    own: PidFd,
    front: UnixStream,
    front_pid: i32,
    /// How often the front was told to go on.
    front_continued: Cell<u64>,
    front_left: Cell<bool>,
    failure: RefCell<Option<StartError>>,
}

/// The word that the kernel clears at the end of the thread that `parent` has
/// just cloned: there joiners wait, or a list of threads is locked.
fn cleared_word(parent: i32) -> Option<u64> {
    let registers = ptrace::registers(parent).ok()?;
    let (number, arguments) = ptrace::call_of(&registers);
    let flags = arguments[0];
    let clears = flags & libc::CLONE_CHILD_CLEARTID as u64 != 0;
    match number {
        libc::SYS_clone if clears => Some(arguments[3]),
        libc::SYS_clone3 => {
            let mut words = [0u8; 24];
            process::read_memory(parent, arguments[0], &mut words).ok()?;
            let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| words[at * 8 + i]));
            (word(0) & libc::CLONE_CHILD_CLEARTID as u64 != 0).then(|| word(2))
        }
        _ => None,
    }
}

impl Tracer {
    pub(crate) fn new(
        pager: Arc<Pager>,
        watch: Arc<Watch>,
        workers: Sender<Job>,
        front: (UnixStream, i32),
        own: PidFd,
        guard: i32,
        main: i32,
    ) -> std::io::Result<Rc<Tracer>> {
        front.0.set_nonblocking(true)?;
        let tracer = Tracer {
            pager,
            scripts: Rc::new(Scripts::default()),
            watch,
            workers,
            main,
            main_end: Cell::new(None),
            processes: RefCell::default(),
            threads: RefCell::default(),
            births: RefCell::default(),
            ended_early: RefCell::default(),
            servants: RefCell::default(),
            orphans: RefCell::default(),
            renewals: RefCell::default(),
            holding: RefCell::default(),
            held: RefCell::default(),
            guard: Cell::new(guard),
            own,
            front: front.0,
            front_pid: front.1,
            front_continued: Cell::new(0),
            front_left: Cell::new(false),
            failure: RefCell::new(None),
        };
        tracer.add_process(main, None, false)?;
        Ok(Rc::new(tracer))
    }

    fn add_process(
        &self,
        pid: i32,
        space: Option<Arc<Space>>,
        filtered: bool,
    ) -> std::io::Result<()> {
        let thread = Thread {
            process: pid,
            space,
            cleared: None,
            filtered,
        };
        self.threads.borrow_mut().insert(pid, thread);
        let pidfd = PidFd::open(pid)?;
        let guard_slot = self.pager.guard_process(&pidfd);
        let process = Process { pidfd, guard_slot };
        self.processes.borrow_mut().insert(pid, process);
        Ok(())
    }

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
    fn lives(&self) -> bool {
        !self.processes.borrow().is_empty()
            || !self.births.borrow().is_empty()
            || !self.servants.borrow().is_empty()
    }

    /// What comes from elsewhere: the user's wish for a summary, the front's end.
    fn look_around(self: &Rc<Self>) {
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

    /// Stops what runs of processes that are to be held, and lets others go on.
    fn hold_or_let_go(&self) {
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
    fn holds_back(&self, pid: i32) -> bool {
        let Some(space) = self.space_of(pid) else {
            return false;
        };
        let holds = self.holding.borrow().contains(&space.id);
        if holds {
            syscalls::signals::restart_interrupted(pid);
            self.held.borrow_mut().push(pid);
        }
        holds
    }

    fn kill_all(&self) {
        for process in self.processes.borrow().values() {
            let _ = process.pidfd.signal(libc::SIGKILL);
        }
    }

    fn tell_front(&self, word: Word) {
        // A front that has left needs no news.
        let _ = (&self.front).write_all(&word.encode());
    }

    /// Has another thread do something, and waits for its result.
    pub(crate) async fn elsewhere<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Pager>) -> T + Send + 'static,
    ) -> T {
        let result = Arc::new(Mutex::new(None));
        let (into, pager) = (Arc::clone(&result), Arc::clone(&self.pager));
        let job = move || {
            let done = work(&pager);
            *lock(&into) = Some(done);
            pager.tracer.poke();
        };
        // The workers live as long as the tracer.
        let _ = self.workers.send(Box::new(job));
        self.scripts.until(|| lock(&result).take()).await
    }

    /// The same, without waiting.
    pub(crate) fn send_elsewhere(&self, work: impl FnOnce(&Arc<Pager>) + Send + 'static) {
        let pager = Arc::clone(&self.pager);
        let _ = self.workers.send(Box::new(move || work(&pager)));
    }

    fn stopped(self: &Rc<Self>, pid: i32, stop: Stop) {
        let claimed = self.scripts.deliver(pid, stop);
        if matches!(stop, Stop::Exited(_) | Stop::Signaled(_)) {
            self.ended(pid, stop);
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
                    cleared: cleared_word(pid),
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
                syscalls::signals::restart_if_ignored(pid, signal);
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

    fn watched(self: &Rc<Self>, pid: i32) {
        let space = self.space_of(pid);
        let tracer = Rc::clone(self);
        self.scripts.start(async move {
            let claim = tracer.scripts.claim(pid);
            syscalls::watched(&tracer, &claim, space).await;
        });
        self.scripts.run();
    }

    /// The address space of a thread.
    pub(crate) fn space_of(&self, thread: i32) -> Option<Arc<Space>> {
        self.threads.borrow().get(&thread)?.space.clone()
    }

    /// Whether a thread has put filters upon itself.
    pub(crate) fn is_filtered(&self, thread: i32) -> bool {
        let threads = self.threads.borrow();
        threads.get(&thread).is_some_and(|thread| thread.filtered)
    }

    /// A thread puts a filter upon itself, and maybe upon all of its process.
    pub(crate) fn note_filter(&self, thread: i32) {
        let mut threads = self.threads.borrow_mut();
        let Some(process) = threads.get(&thread).map(|thread| thread.process) else {
            return;
        };
        for one in threads.values_mut().filter(|one| one.process == process) {
            one.filtered = true;
        }
    }

    /// The kernel will clear a word when `thread` ends: its page stays.
    pub(crate) fn note_cleared_word(&self, thread: i32, address: u64) {
        let mut threads = self.threads.borrow_mut();
        let Some(one) = threads.get_mut(&thread) else {
            return;
        };
        let before = std::mem::replace(&mut one.cleared, (address != 0).then_some(address));
        let Some(space) = one.space.clone() else {
            return;
        };
        drop(threads);
        let mut core = space.core();
        if address != 0 {
            core.pin(Vpn::of(address));
        }
        if let Some(before) = before {
            core.unpin(Vpn::of(before), self.pager.next_stamp());
        }
    }

    /// Has the stops of a task that was just born come to the script that runs
    /// now; returns when it has made its first one.
    pub(crate) async fn claim_newborn(&self, pid: i32) -> Result<Claim, CareError> {
        if self.ended_early.borrow_mut().remove(&pid) {
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

    pub(crate) fn know_servant(&self, servant: &Arc<Servant>, space: &Arc<Space>) {
        if let Some(slot) = self.pager.guard_process(&servant.pidfd) {
            let _ = servant.guard_slot.set(slot);
        }
        let both = (Arc::clone(servant), Arc::clone(space));
        self.servants.borrow_mut().insert(servant.pid, both);
    }

    fn first_stop(self: &Rc<Self>, pid: i32, stop: Stop) {
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
        if self.ended_early.borrow_mut().remove(&child) {
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
    fn adopt_unannounced(self: &Rc<Self>) {
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

    fn born(self: &Rc<Self>, child: i32, parentage: Parentage, stop: Stop) {
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
        if space.is_none() {
            lock(&self.pager.unpaged).push(child);
        }
        let _ = self.add_process(child, space, filtered);
        self.go_on(child, stop);
    }

    /// Lets a task go on from its first stop, which may be one of its whole
    /// process.
    fn go_on(&self, task: i32, stop: Stop) {
        match stop {
            Stop::Group(_) => drop(ptrace::listen(task)),
            Stop::Signal(signal) => resume(task, signal),
            _ => resume(task, 0),
        }
    }

    fn take_into_care(
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
            // It was killed before it could begin, or we have no descriptor for it: it
            // does not begin then.
            self.threads.borrow_mut().remove(&child);
            self.leave(&space);
            let _ = process::kill(child, libc::SIGKILL);
            outcome.set(Some(false));
            return;
        }
        let tracer = Rc::clone(self);
        self.scripts.start(async move {
            let claim = tracer.scripts.claim(child);
            let signal = match tracer.care_for_child(&claim, &space).await {
                Ok(signal) => signal,
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
                    0
                }
            };
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
            tracer.go_on_with(child, stop, signal);
        });
        self.scripts.run();
    }

    /// Whether a process was killed while it was taken into care, and has left
    /// already. Its servant ends too then.
    fn is_left_behind(&self, pid: i32, space: &Space) -> bool {
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

    /// Lets a task go on from its first stop with a signal that came meanwhile.
    fn go_on_with(&self, task: i32, stop: Stop, signal: i32) {
        if matches!(stop, Stop::Group(_)) {
            // It learns again that its process is stopped, if it still is.
            let _ = ptrace::interrupt(task);
        }
        let signal = match stop {
            Stop::Signal(first) if signal == 0 => first,
            _ => signal,
        };
        resume(task, signal);
    }

    /// A forked child that cannot be paged gets all of its memory at once, and
    /// runs as it would without us; its memory counts.
    /// One for which there is no room does not run, and its fork fails: false then.
    async fn run_unpaged(
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
        lock(&self.pager.unpaged).push(child);
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

    fn new_image(self: &Rc<Self>, pid: i32, former: i32) {
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
    async fn begin_image(self: &Rc<Self>, claim: &Claim, old: Option<Arc<Servant>>, first: bool) {
        let pid = claim.task;
        loop {
            if ptrace::resume_to_syscall(pid).is_err() {
                return;
            }
            match self.scripts.stop_of(claim).await {
                Stop::Syscall => break,
                Stop::Exited(_) | Stop::Signaled(_) => return,
                _ => {}
            }
        }
        let cared = self.care_for_image(claim).await;
        let signal = match cared {
            Ok((space, _)) if self.is_left_behind(pid, &space) => {
                self.leave(&space);
                return;
            }
            Ok((space, signal)) => {
                if let Some(thread) = self.threads.borrow_mut().get_mut(&pid) {
                    thread.space = Some(Arc::clone(&space));
                }
                if let Err(error) = self.pager.publish(&space) {
                    say!("process {pid} cannot be watched and is killed: {error}");
                    let _ = process::kill(pid, libc::SIGKILL);
                }
                self.watch.begin();
                if let (Some(old), Some(kernel)) = (&old, space.hands().kernel()) {
                    self.reap_servant(claim, old, kernel.places.code).await;
                }
                signal
            }
            Err(CareError::Ended) => {
                let _ = process::kill(pid, libc::SIGKILL);
                return;
            }
            Err(error) if first && !matches!(error, CareError::NoEntry) => {
                *self.failure.borrow_mut() = Some(StartError::Care(error.to_string()));
                let _ = process::kill(pid, libc::SIGKILL);
                0
            }
            Err(error) => {
                self.watch.begin();
                lock(&self.pager.unpaged).push(pid);
                self.pager.counters.unpaged.add(1);
                if self.pager.counters.unpaged.get() <= UNPAGED_TOLD_MAX || first {
                    say!("process {pid} runs unpaged: {error}");
                }
                0
            }
        };
        resume(pid, signal);
    }

    /// A servant that has ended was a child of this process: it is waited for
    /// here, lest somebody else is asked to.
    pub(crate) async fn reap_servant(
        self: &Rc<Self>,
        claim: &Claim,
        servant: &Servant,
        instruction: u64,
    ) {
        let Ok(injection) = super::inject::Injection::begin(self, claim, instruction) else {
            return;
        };
        let flags = (libc::__WALL | libc::WNOHANG) as u64;
        let wait = [servant.inner_pid as u64, 0, flags, 0, 0, 0];
        let _ = injection.call("wait", libc::SYS_wait4, wait).await;
        let _ = injection.end();
    }

    fn ended(self: &Rc<Self>, pid: i32, stop: Stop) {
        if pid == self.guard.get() {
            self.renew_guard();
            return;
        }
        let birth = self.births.borrow_mut().remove(&pid);
        match birth {
            Some(Birth::Announced(Parentage {
                forked: Some(space),
                outcome,
                ..
            })) => {
                self.leave(&space);
                outcome.set(Some(true));
            }
            Some(Birth::Stopped { .. }) => drop(self.ended_early.borrow_mut().insert(pid)),
            Some(Birth::Announced(_)) | None => {}
        }
        let servant = self.servants.borrow_mut().remove(&pid);
        if let Some((servant, space)) = servant {
            self.servant_ended(&servant, space);
            return;
        }
        self.held.borrow_mut().retain(|one| *one != pid);
        let thread = self.threads.borrow_mut().remove(&pid);
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
        lock(&self.pager.unpaged).retain(|one| *one != pid);
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
    fn look_through_another(&self, space: &Space, ended: i32, process: i32) {
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
    fn leave(&self, space: &Arc<Space>) -> Option<Arc<Servant>> {
        if space.users.fetch_sub(1, Ordering::AcqRel) != 1 {
            return None;
        }
        self.pager.close(space);
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
                let space = Arc::clone(space);
                self.send_elsewhere(move |pager| pager.bury(&space));
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
    pub(crate) async fn dismiss(&self, servant: &Servant) {
        let _ = servant.pidfd.signal(libc::SIGKILL);
        self.scripts
            .until(|| (!self.servants.borrow().contains_key(&servant.pid)).then_some(()))
            .await;
    }

    fn servant_ended(&self, servant: &Servant, space: Arc<Space>) {
        servant.gone.store(true, Ordering::Release);
        if let Some(slot) = servant.guard_slot.get() {
            self.pager.unguard(*slot);
        }
        if space.is_closing() {
            self.send_elsewhere(move |pager| pager.bury(&space));
        } else {
            // Its process may be ending too; its end is then reported soon.
            self.pager.servant_lost_soon(space);
        }
    }

    /// The main program has ended. With others left in the background the
    /// front goes at once and the pager stays for them.
    fn main_ended(&self, end: End) {
        self.main_end.set(Some(end));
        if !self.processes.borrow().is_empty() && self.failure.borrow().is_none() {
            self.tell_front(Word::Background);
            self.tell_front(end.word());
        }
    }

    fn renew_guard(&self) {
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
}

impl End {
    pub(crate) fn word(self) -> Word {
        match self {
            End::Exited(code) => Word::Exited(code),
            End::Signaled(signal) => Word::Signaled(signal),
        }
    }
}

/// Lets a stopped task run, with `signal` unless that is 0.
pub(crate) fn resume(pid: i32, signal: i32) {
    // It may have been killed while it was stopped; its end is reported then.
    let _ = ptrace::resume(pid, signal);
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

/// Whether a thread is running, or would.
fn runs(thread: i32) -> bool {
    procfs::stat(thread).is_some_and(|stat| stat.state == b'R')
}

/// The process that a thread belongs to.
fn thread_group(thread: i32) -> Option<i32> {
    procfs::status_field(thread, "Tgid")?.parse().ok()
}

/// The process that made it, or that it was given to when that one ended.
fn parent_of(thread: i32) -> Option<i32> {
    procfs::status_field(thread, "PPid")?.parse().ok()
}
