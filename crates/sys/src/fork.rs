//! Forks: whether this is still the process that something was made in, and a
//! child process for tests.
//!
//! Not on the data path itself: a store asks before each write to its tier,
//! because after a fork two processes have the same idea of which places are
//! free. Sources: `fork(2)`, `madvise(2)`.
//!
//! - A process number is given to this process at its first question, and to a
//!   forked one at its own first: along a line of descent no number comes twice.
//! - A child that shares our memory (`vfork`, threads) is this process.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::fd::check;

/// The size of the page that a fork wipes.
const PAGE_BYTES: usize = 4096;

/// What a child that panicked exits with.
const PANICKED: i32 = 101;

/// The process that it was made in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process(u32);

impl Process {
    /// This process. One load, and no system call but the first time; on
    /// kernels before 4.14 one system call.
    #[must_use]
    pub fn this() -> Process {
        static MARK: OnceLock<Option<Mark>> = OnceLock::new();
        match MARK.get_or_init(|| Mark::new().ok()) {
            Some(mark) => Process(mark.number()),
            None => Process(std::process::id()),
        }
    }

    /// Whether this process is another one, forked from it.
    #[must_use]
    pub fn was_forked(self) -> bool {
        Process::this() != self
    }
}

/// A word that reads as zero in a process that was just forked.
struct Mark(&'static AtomicU32);

impl Mark {
    fn new() -> io::Result<Mark> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice
        // touches no memory that anything else refers to.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the range is the mapping just made; the advice says what a
        // child sees there, and changes nothing here.
        let advised = unsafe { libc::madvise(page, PAGE_BYTES, libc::MADV_WIPEONFORK) };
        if let Err(error) = check(advised.into()) {
            // SAFETY: this is the mapping made above, whole, and nothing refers
            // to it yet.
            unsafe { libc::munmap(page, PAGE_BYTES) };
            return Err(error);
        }
        // SAFETY: the mapping is aligned to pages, zeroed, and never unmapped
        // from here on; all access to it is atomic.
        let word = unsafe { AtomicU32::from_ptr(page.cast()) };
        Ok(Mark(word))
    }

    fn number(&self) -> u32 {
        match self.0.load(Relaxed) {
            0 => self.adopt(),
            number => number,
        }
    }

    /// Gives this process the number after that of the one it was forked from.
    #[cold]
    fn adopt(&self) -> u32 {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Relaxed) + 1;
        match self.0.compare_exchange(0, number, Relaxed, Relaxed) {
            Ok(_) => number,
            Err(adopted) => adopted,
        }
    }
}

/// A child process that [`in_child`] made.
#[derive(Debug)]
#[must_use = "a child that nobody waits for stays as a zombie"]
pub struct Child {
    pid: i32,
}

impl Child {
    /// Waits for its end: its exit code, or 128 and the signal that ended it.
    ///
    /// # Errors
    /// What `waitpid` says.
    pub fn wait(self) -> io::Result<i32> {
        let mut status = 0;
        loop {
            // SAFETY: the status is written to an integer of ours.
            let waited = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
            match check(waited.into()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => break,
            }
        }
        Ok(if libc::WIFEXITED(status) {
            libc::WEXITSTATUS(status)
        } else {
            128 + libc::WTERMSIG(status)
        })
    }
}

/// Runs `work` in a forked child, which exits with what it returns, without
/// destructors of this process's statics and threads. A panic is exit code 101.
///
/// # Errors
/// `EBUSY` when this process has more than one thread, because a lock that
/// another one holds would be held in the child for ever; what `fork` says.
pub fn in_child(work: impl FnOnce() -> i32) -> io::Result<Child> {
    if threads()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: there is no other thread, and only this one could make one, so
    // the child's memory is whole.
    let pid = unsafe { libc::fork() };
    check(pid.into())?;
    if pid != 0 {
        return Ok(Child { pid });
    }
    let code = catch_unwind(AssertUnwindSafe(work)).unwrap_or(PANICKED);
    // SAFETY: ends the process; runs nothing of it.
    unsafe { libc::_exit(code) }
}

/// Threads of this process that run its program: the kernel's own for io_uring,
/// which hold none of its locks, are listed beside them.
fn threads() -> io::Result<usize> {
    /// `PF_IO_WORKER`, from the kernel's `sched.h`.
    const IO_WORKER: u64 = 0x10;

    let mut count = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let stat = match std::fs::read_to_string(task?.path().join("stat")) {
            // A thread that ended meanwhile.
            Err(_) => continue,
            Ok(stat) => stat,
        };
        // proc_pid_stat(5): the name, which may hold anything, is in brackets, and
        // the flags are the seventh field after it.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let flags = fields.split_ascii_whitespace().nth(6);
        let flags = flags.and_then(|flags| flags.parse::<u64>().ok());
        count += usize::from(flags.is_none_or(|flags| flags & IO_WORKER == 0));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_stays_the_same_in_all_its_threads() {
        let here = Process::this();
        assert!(!here.was_forked());
        assert!(
            !std::thread::spawn(move || here.was_forked())
                .join()
                .unwrap()
        );
        // A child that executes another program shares nothing with us.
        assert!(
            std::process::Command::new("true")
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(Process::this(), here);
    }

    #[test]
    fn a_process_with_threads_makes_no_child() {
        // The harness runs tests in threads; with one test thread it may not.
        std::thread::scope(|scope| {
            let (end, ended) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || ended.recv());
            let refused = in_child(|| 0).map(|_| ()).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EBUSY));
            drop(end);
        });
    }
}
