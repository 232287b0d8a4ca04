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
use std::sync::Arc;
use std::time::Instant;

use zcache_sys::fd::PidFd;
use zcache_sys::procfs;
use zcache_sys::ptrace::{self, Stop};

use super::front::Word;
use super::script::Scripts;
use super::watch::Watch;
use super::workers::Workers;
use crate::error::StartError;
use crate::pager::Pager;
use crate::space::hands::Servant;
use crate::space::page_table::Vpn;
use crate::space::{Space, SpaceId};
use crate::sync::{Mutex, lock};

/// Jobs that may wait at once: each is a stopped thread's.
const WORKERS_MAX: usize = 64;

/// Shadows that are emptied at once. These jobs wait for no fault: those that do may
/// wait for the fork that one of these is for.
const FLUSHERS_MAX: usize = 8;

/// One process of the tree.
pub(super) struct Process {
    pub(super) pidfd: PidFd,
    pub(super) guard_slot: Option<usize>,
}

/// One thread of the tree.
pub(super) struct Thread {
    pub(super) process: i32,
    pub(super) space: Option<Arc<Space>>,
    /// The word that the kernel clears when the thread ends; its page is pinned.
    pub(super) cleared: Option<u64>,
    /// The same of the task that it makes, if that is asked for in its memory.
    pub(super) wished: Option<u64>,
    /// It has put filters upon itself, or its parent has.
    pub(super) filtered: bool,
}

/// What the parent's event says of a new task.
pub(crate) struct Parentage {
    /// The parent.
    pub(super) parent: i32,
    /// The child's own space, if it was forked.
    pub(super) forked: Option<Arc<Space>>,
    /// The word that the kernel clears when the new thread ends.
    pub(super) cleared: Option<u64>,
    /// What becomes of a forked child, for its parent to know.
    pub(super) outcome: Outcome,
}

/// Whether a forked child lives; nothing until that is known.
pub(crate) type Outcome = Rc<Cell<Option<bool>>>;

/// A new task of which one of two messages has come: its parent's event or its
/// own first stop.
pub(super) enum Birth {
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

impl End {
    pub(crate) fn word(self) -> Word {
        match self {
            End::Exited(code) => Word::Exited(code),
            End::Signaled(signal) => Word::Signaled(signal),
        }
    }
}

/// A servant and the space that it serves.
pub(super) type Served = (Arc<Servant>, Arc<Space>);

/// See the module's description.
pub(crate) struct Tracer {
    pub(crate) pager: Arc<Pager>,
    pub(crate) scripts: Rc<Scripts>,
    pub(super) watch: Arc<Watch>,
    workers: Workers,
    flushers: Workers,
    /// Buries what has ended: that makes room, and waits for none.
    undertaker: Workers,
    pub(super) main: i32,
    pub(super) main_end: Cell<Option<End>>,
    pub(super) processes: RefCell<HashMap<i32, Process>>,
    pub(super) threads: RefCell<HashMap<i32, Thread>>,
    pub(super) births: RefCell<HashMap<i32, Birth>>,
    /// Tasks that ended before they were announced.
    pub(super) ended_early: RefCell<HashMap<i32, Instant>>,
    pub(super) servants: RefCell<HashMap<i32, Served>>,
    /// Spaces of children whose parents were killed while they forked.
    pub(super) orphans: RefCell<Vec<(Arc<Space>, Instant)>>,
    /// How often a space was given another servant, and when last.
    pub(super) renewals: RefCell<HashMap<SpaceId, (u32, Instant)>>,
    /// Spaces that are held, and threads that have stopped for it.
    pub(super) holding: RefCell<HashSet<SpaceId>>,
    pub(super) held: RefCell<Vec<i32>>,
    /// Filters that are not the program's own.
    filters: Cell<Option<u32>>,
    pub(super) guard: Cell<i32>,
    pub(super) own: PidFd,
    pub(super) front: UnixStream,
    pub(super) front_pid: i32,
    /// How often the front was told to go on.
    pub(super) front_continued: Cell<u64>,
    pub(super) front_left: Cell<bool>,
    pub(super) failure: RefCell<Option<StartError>>,
}

impl Tracer {
    pub(crate) fn new(
        pager: Arc<Pager>,
        watch: Arc<Watch>,
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
            workers: Workers::new("work", WORKERS_MAX),
            flushers: Workers::new("flush", FLUSHERS_MAX),
            undertaker: Workers::new("bury", 1),
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
            filters: Cell::new(None),
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

    pub(super) fn add_process(
        &self,
        pid: i32,
        space: Option<Arc<Space>>,
        filtered: bool,
    ) -> std::io::Result<()> {
        let thread = Thread {
            process: pid,
            space,
            cleared: None,
            wished: None,
            filtered,
        };
        self.threads.borrow_mut().insert(pid, thread);
        let pidfd = PidFd::open(pid)?;
        let guard_slot = self.pager.guard_process(&pidfd);
        let process = Process { pidfd, guard_slot };
        self.processes.borrow_mut().insert(pid, process);
        Ok(())
    }

    pub(super) fn tell_front(&self, word: Word) {
        // A front that has left needs no news.
        let _ = (&self.front).write_all(&word.encode());
    }

    /// Has another thread do something, and waits for its result.
    pub(crate) async fn elsewhere<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Pager>) -> T + Send + 'static,
    ) -> T {
        self.done_by(&self.workers, work).await
    }

    /// The same for what empties a shadow and waits for no fault.
    pub(crate) async fn flushing<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Pager>) -> T + Send + 'static,
    ) -> T {
        self.done_by(&self.flushers, work).await
    }

    async fn done_by<T: Send + 'static>(
        &self,
        workers: &Workers,
        work: impl FnOnce(&Arc<Pager>) -> T + Send + 'static,
    ) -> T {
        let result = Arc::new(Mutex::new(None));
        let (into, pager) = (Arc::clone(&result), Arc::clone(&self.pager));
        let job = move || {
            let done = work(&pager);
            *lock(&into) = Some(done);
            pager.tracer.poke();
        };
        workers.send(Box::new(job));
        self.scripts.until(|| lock(&result).take()).await
    }

    /// Has what is known of a closed space given up.
    pub(super) fn bury(&self, space: &Arc<Space>) {
        let (pager, space) = (Arc::clone(&self.pager), Arc::clone(space));
        self.undertaker.send(Box::new(move || pager.bury(&space)));
    }

    /// The address space of a thread.
    pub(crate) fn space_of(&self, thread: i32) -> Option<Arc<Space>> {
        self.threads.borrow().get(&thread)?.space.clone()
    }

    /// The process of a thread.
    pub(crate) fn process_of(&self, thread: i32) -> Option<i32> {
        Some(self.threads.borrow().get(&thread)?.process)
    }

    /// Whether a thread has put filters upon itself.
    pub(crate) fn is_filtered(&self, thread: i32) -> bool {
        let threads = self.threads.borrow();
        if !threads.get(&thread).is_some_and(|thread| thread.filtered) {
            return false;
        }
        // It has tried to; Linux counts them since 5.9.
        let ours = self.filters.get();
        ours.is_none() || filters_of(thread) != ours
    }

    /// All filters that the program has now are of whoever started it, and ours.
    pub(super) fn count_filters(&self) {
        self.filters.set(filters_of(self.main));
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
}

fn filters_of(thread: i32) -> Option<u32> {
    procfs::status_field(thread, "Seccomp_filters")?
        .parse()
        .ok()
}

/// Lets a stopped task run, with `signal` unless that is 0.
pub(crate) fn resume(pid: i32, signal: i32) {
    // It may have been killed while it was stopped; its end is reported then.
    let _ = ptrace::resume(pid, signal);
}
