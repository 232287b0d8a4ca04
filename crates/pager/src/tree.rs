//! The tracer: births, new images, stops and ends of the tree's processes.
//!
//! One thread does all ptrace work, since ptrace belongs to the thread that
//! attached. A new image or a forked child is taken into care before it runs.
//! Signals and job-control stops are passed on as they are.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use zcache_sys::fd::{Epoll, PidFd};
use zcache_sys::process::{self, Signals};
use zcache_sys::ptrace::{self, Stop};

use crate::error::StartError;
use crate::front::Word;
use crate::inject::CareError;
use crate::pager::{Pager, lock, say};
use crate::report;
use crate::space::Space;
use crate::table::Vpn;

const TOKEN_SIGNALS: u64 = 1;
const TOKEN_FRONT: u64 = 2;
const TURN: Duration = Duration::from_millis(50);

struct Process {
    pidfd: PidFd,
    guard_slot: Option<usize>,
    space: Option<Arc<Space>>,
}

/// A new task of which one of two messages has come: its parent's event or its
/// own first stop. The parent may have loaded a new image before the second.
enum Birth {
    Announced(Parentage),
    Stopped { since: Instant },
}

/// What the parent's event says of a new task.
struct Parentage {
    /// The parent's address space.
    space: Option<Arc<Space>>,
    /// The child's own one, if it was forked.
    forked: Option<Arc<Space>>,
    /// The word that the kernel clears when the new thread ends.
    cleared: Option<u64>,
}

/// The word that the kernel clears at the end of the thread that `parent` has
/// just cloned: there joiners wait, or a list of threads is locked.
fn cleared_word(parent: i32) -> Option<u64> {
    let registers = ptrace::registers(parent).ok()?;
    let wanted = (libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID) as u64;
    let is_clone = registers.orig_rax == libc::SYS_clone as u64;
    (is_clone && registers.rdi & wanted == wanted).then_some(registers.r10)
}

/// A parent that was killed inside its fork never announces the child.
const ANNOUNCEMENT_PATIENCE: Duration = Duration::from_millis(300);

/// The end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exited(i32),
    Signaled(i32),
}

/// See the module's description.
pub(crate) struct Tracer {
    pager: Arc<Pager>,
    main: i32,
    main_end: Option<End>,
    processes: HashMap<i32, Process>,
    /// Thread to process.
    process_of: HashMap<i32, i32>,
    births: HashMap<i32, Birth>,
    /// Words that the kernel clears when threads end; their pages are pinned.
    cleared: HashMap<i32, u64>,
    guard: i32,
    own: PidFd,
    front: UnixStream,
    front_left: bool,
    failure: Option<StartError>,
}

impl Tracer {
    pub(crate) fn new(
        pager: Arc<Pager>,
        front: UnixStream,
        own: PidFd,
        guard: i32,
        main: i32,
    ) -> std::io::Result<Tracer> {
        let mut tracer = Tracer {
            pager,
            main,
            main_end: None,
            processes: HashMap::new(),
            process_of: HashMap::new(),
            births: HashMap::new(),
            cleared: HashMap::new(),
            guard,
            own,
            front,
            front_left: false,
            failure: None,
        };
        tracer.add_process(main, None)?;
        Ok(tracer)
    }

    fn add_process(&mut self, pid: i32, space: Option<Arc<Space>>) -> std::io::Result<()> {
        let pidfd = PidFd::open(pid)?;
        let guard_slot = self.pager.guard_process(&pidfd);
        self.processes.insert(
            pid,
            Process {
                pidfd,
                guard_slot,
                space,
            },
        );
        self.process_of.insert(pid, pid);
        Ok(())
    }

    /// Runs until the last process of the tree has ended. Returns how the main
    /// program ended, or why it was never started.
    pub(crate) fn run(&mut self, signals: &Signals) -> Result<End, StartError> {
        let epoll = Epoll::new().map_err(StartError::Own)?;
        epoll
            .add(signals.as_fd(), TOKEN_SIGNALS)
            .map_err(StartError::Own)?;
        epoll
            .add(self.front.as_fd(), TOKEN_FRONT)
            .map_err(StartError::Own)?;
        let mut tokens = Vec::new();
        while self.lives() {
            tokens.clear();
            epoll
                .wait(&mut tokens, Some(TURN))
                .map_err(StartError::Own)?;
            while let Some(arrived) = signals.next() {
                if arrived.signal == libc::SIGUSR1 {
                    report::print_summary(&self.pager, true);
                }
            }
            if tokens.contains(&TOKEN_FRONT) && !self.front_left {
                self.front_gone(&epoll);
            }
            while let Some((pid, stop)) = ptrace::try_wait_any().map_err(StartError::Own)? {
                self.stopped(pid, stop);
            }
            self.adopt_unannounced();
            for thread in lock(&self.pager.interrupts).drain(..) {
                // It may have ended meanwhile.
                let _ = ptrace::interrupt(thread);
            }
        }
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(self.main_end.unwrap_or(End::Exited(0))),
        }
    }

    /// Whether any process of the tree is left, a child that has not made its
    /// first stop included: its parent may have ended before that.
    fn lives(&self) -> bool {
        !self.processes.is_empty() || !self.births.is_empty()
    }

    /// The front process ended: by itself after the main program, or killed.
    fn front_gone(&mut self, epoll: &Epoll) {
        let mut byte = [0u8];
        if matches!(self.front.read(&mut byte), Ok(0) | Err(_)) {
            self.front_left = true;
            let _ = epoll.remove(self.front.as_fd());
            if self.main_end.is_none() {
                self.kill_all();
            }
        }
    }

    fn kill_all(&self) {
        for process in self.processes.values() {
            let _ = process.pidfd.signal(libc::SIGKILL);
        }
    }

    fn tell_front(&mut self, word: Word) {
        // A front that has left needs no news.
        let _ = self.front.write_all(&word.encode());
    }

    fn stopped(&mut self, pid: i32, stop: Stop) {
        match stop {
            Stop::Exited(_) | Stop::Signaled(_) => self.ended(pid, stop),
            _ if !self.process_of.contains_key(&pid) => self.first_stop(pid),
            Stop::Birth { child, .. } => {
                self.announced(pid, child);
                resume(pid, 0);
            }
            Stop::Exec { former } => self.new_image(pid, former),
            Stop::Signal(signal) => {
                // The kernel would fail a call that waits for us with EINTR.
                let _ = ptrace::insist_on_watched_call(pid);
                resume(pid, signal);
            }
            Stop::Group(signal) => {
                if pid == self.main {
                    self.tell_front(Word::Stopped(signal));
                }
                let _ = ptrace::listen(pid);
            }
            Stop::Trap | Stop::Other(_) => {
                if let Some(space) = self.pager.space_of_thread(pid) {
                    self.pager.close_window(&space, pid);
                }
                resume(pid, 0);
            }
        }
    }

    fn first_stop(&mut self, pid: i32) {
        match self.births.remove(&pid) {
            Some(Birth::Announced(parentage)) => self.born(pid, parentage),
            Some(Birth::Stopped { .. }) | None => {
                self.births.insert(
                    pid,
                    Birth::Stopped {
                        since: Instant::now(),
                    },
                );
            }
        }
    }

    /// The parent stands at its event: what it forks next cannot be mistaken
    /// for this child.
    fn announced(&mut self, parent: i32, child: i32) {
        let space = self.pager.space_of_thread(parent);
        let forked = space
            .as_ref()
            .and_then(|space| self.pager.take_forked(space, parent, child));
        let parentage = Parentage {
            space,
            forked,
            cleared: cleared_word(parent),
        };
        match self.births.remove(&child) {
            Some(Birth::Stopped { .. }) => self.born(child, parentage),
            Some(Birth::Announced(_)) | None => {
                self.births.insert(child, Birth::Announced(parentage));
            }
        }
    }

    /// Children that nobody announced: their parent was killed in its fork.
    fn adopt_unannounced(&mut self) {
        let late = |birth: &Birth| matches!(birth, Birth::Stopped { since } if since.elapsed() > ANNOUNCEMENT_PATIENCE);
        let waiting: Vec<i32> = self
            .births
            .iter()
            .filter(|(_, birth)| late(birth))
            .map(|(pid, _)| *pid)
            .collect();
        for child in waiting {
            self.births.remove(&child);
            match self
                .pager
                .take_orphaned_fork(|thread| self.process_of.contains_key(&thread))
            {
                Some(space) => self.take_into_care(child, space),
                None => drop(process::kill(child, libc::SIGKILL)),
            }
        }
    }

    fn born(&mut self, child: i32, parentage: Parentage) {
        let Some(parent_space) = parentage.space else {
            self.adopt(child, None);
            return;
        };
        if let Some(space) = parentage.forked {
            self.take_into_care(child, space);
            return;
        }
        let group = thread_group(child).unwrap_or(child);
        if group != child {
            self.process_of.insert(child, group);
            if let Some(address) = parentage.cleared {
                // For that last write alone the kernel asks no pager.
                parent_space.core().pin(Vpn::of(address));
                self.cleared.insert(child, address);
            }
            lock(&self.pager.threads).insert(child, parent_space);
            resume(child, 0);
            return;
        }
        parent_space.users.fetch_add(1, Ordering::AcqRel);
        self.adopt(child, Some(parent_space));
    }

    fn take_into_care(&mut self, child: i32, space: Arc<Space>) {
        match self.pager.care_for_child(child, &space) {
            Ok(()) => self.adopt(child, Some(space)),
            Err(CareError::Ended(stop)) => {
                self.adopt_ended(child, space);
                if let Some(stop) = stop {
                    self.ended(child, stop);
                }
            }
            Err(error) => {
                say!("process {child} cannot be paged and is killed: {error}");
                self.adopt_ended(child, space);
                let _ = process::kill(child, libc::SIGKILL);
            }
        }
    }

    fn adopt(&mut self, child: i32, space: Option<Arc<Space>>) {
        if let Some(space) = &space {
            lock(&self.pager.threads).insert(child, Arc::clone(space));
        }
        if self.add_process(child, space).is_ok() {
            resume(child, 0);
        }
    }

    fn adopt_ended(&mut self, child: i32, space: Arc<Space>) {
        if self.add_process(child, Some(Arc::clone(&space))).is_err() {
            self.pager.leave(&space);
        }
    }

    fn new_image(&mut self, pid: i32, former: i32) {
        if former != pid {
            self.process_of.remove(&former);
            lock(&self.pager.threads).remove(&former);
        }
        lock(&self.pager.threads).remove(&pid);
        self.cleared.remove(&former);
        let old = self
            .processes
            .get_mut(&pid)
            .and_then(|process| process.space.take());
        if let Some(old) = &old {
            self.pager.close_window(old, former);
            self.pager.leave(old);
        }
        let cared = match ptrace::finish_syscall(pid) {
            Ok(()) => self.pager.care_for_image(pid),
            Err(error) => Err(error.into()),
        };
        match cared.map(Arc::new) {
            Ok(space) => {
                if let Err(error) = self.pager.publish(&space) {
                    say!("process {pid} cannot be watched: {error}");
                    let _ = process::kill(pid, libc::SIGKILL);
                }
                lock(&self.pager.threads).insert(pid, Arc::clone(&space));
                if let Some(process) = self.processes.get_mut(&pid) {
                    process.space = Some(space);
                }
                resume(pid, 0);
            }
            Err(CareError::Ended(Some(stop))) => self.ended(pid, stop),
            Err(CareError::Ended(None)) => {}
            Err(error) => {
                let first = pid == self.main && old.is_none();
                if first {
                    self.failure = Some(StartError::Care(error.to_string()));
                } else {
                    say!("process {pid}: its new program cannot be paged and is killed: {error}");
                }
                let _ = process::kill(pid, libc::SIGKILL);
            }
        }
    }

    fn ended(&mut self, pid: i32, stop: Stop) {
        if pid == self.guard {
            self.renew_guard();
            return;
        }
        self.servant_ended(pid);
        self.births.remove(&pid);
        self.process_of.remove(&pid);
        let space = lock(&self.pager.threads).remove(&pid);
        if let Some(space) = &space {
            self.pager.close_window(space, pid);
            if let Some(address) = self.cleared.remove(&pid) {
                let stamp = self.pager.next_stamp();
                space.core().unpin(Vpn::of(address), stamp);
            }
        }
        let Some(process) = self.processes.remove(&pid) else {
            return;
        };
        if let Some(space) = &process.space {
            self.pager.leave(space);
        }
        if let Some(slot) = process.guard_slot {
            self.pager.unguard(slot);
        }
        if pid == self.main {
            self.main_ended(match stop {
                Stop::Signaled(signal) => End::Signaled(signal),
                Stop::Exited(code) => End::Exited(code),
                _ => End::Exited(0),
            });
        }
    }

    /// If this was a servant that nobody asked to end, its process is told.
    fn servant_ended(&self, pid: i32) {
        let of = |space: &Arc<Space>| space.servant.get().is_some_and(|one| one.pid == pid);
        if let Some(space) = self.pager.all_spaces().into_iter().find(of) {
            space.servant_gone.store(true, Ordering::Release);
            let pager = Arc::clone(&self.pager);
            // It waits a little for the process's own end, which comes here.
            std::thread::spawn(move || pager.servant_died(&space));
        }
    }

    /// The main program has ended. With others left in the background the
    /// front goes at once and the pager stays for them.
    fn main_ended(&mut self, end: End) {
        self.main_end = Some(end);
        if self.lives() && self.failure.is_none() {
            self.tell_front(Word::Background);
            self.tell_front(end.word());
        }
    }

    fn renew_guard(&mut self) {
        match process::start_guard(&self.pager.guard, &self.own) {
            Ok(guard) => {
                self.guard = guard;
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

fn resume(pid: i32, signal: i32) {
    // It may have been killed while it was stopped; its end is reported then.
    let _ = ptrace::resume(pid, signal);
}

/// The process that a thread belongs to.
fn thread_group(thread: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}
