//! Processes: the three of zcache (front, pager, guard), the program's launch,
//! and reading another process's memory.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use crate::fd::{PidFd, adopt, check};
use crate::seccomp;
use crate::shared::SharedMap;

/// A set of signals as it was, to be given back to the program.
#[derive(Clone, Copy)]
pub struct SignalMask(libc::sigset_t);

/// Blocks every signal in this thread (and in what it makes); returns the mask
/// that was there.
#[must_use]
pub fn block_signals() -> SignalMask {
    // SAFETY: all-zero is a valid value to be overwritten.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut old: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: fills the set.
    let _ = unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: both sets live across the call.
    let _ = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut old) };
    SignalMask(old)
}

/// A signal that arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// Its number.
    pub signal: i32,
    /// True when a process sent it; false when the kernel did (a terminal key).
    pub from_process: bool,
    /// The sender, when a process sent it.
    pub sender: i32,
}

/// Blocked signals, readable one by one. See `signalfd(2)`.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// All signals that are blocked in this thread, but SIGCHLD and the poke.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> io::Result<Signals> {
        // SAFETY: all-zero is a valid value to be overwritten.
        let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: fills the set.
        let _ = unsafe { libc::sigfillset(&raw mut all) };
        for silent in [libc::SIGCHLD, POKE] {
            // SAFETY: takes one signal out of a live set.
            let _ = unsafe { libc::sigdelset(&raw mut all, silent) };
        }
        // SAFETY: the set lives across the call.
        let fd =
            unsafe { libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        check(fd.into())?;
        Ok(Signals { fd: adopt(fd) })
    }

    /// The next signal that is pending, if any.
    #[must_use]
    pub fn next(&self) -> Option<Arrived> {
        // SAFETY: all-zero is a valid value to be overwritten.
        let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
        // SAFETY: the buffer has the size that is told.
        let got = unsafe {
            libc::read(
                self.fd.as_raw_fd(),
                (&raw mut info).cast(),
                size_of::<libc::signalfd_siginfo>(),
            )
        };
        (got > 0).then_some(Arrived {
            signal: info.ssi_signo.cast_signed(),
            from_process: info.ssi_code <= 0,
            sender: info.ssi_pid.cast_signed(),
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes a thread that waits in a system call look up: its call fails with EINTR.
#[derive(Debug, Default)]
pub struct Poke {
    thread: AtomicI32,
    pending: AtomicBool,
}

extern "C" fn look_up(_: libc::c_int) {}

/// Used for nothing else, and blocked in all other threads.
const POKE: i32 = libc::SIGURG;

impl Poke {
    /// The calling thread is the one that is poked from now on.
    ///
    /// # Errors
    /// None that are known.
    pub fn receive_here(&self) -> io::Result<()> {
        // SAFETY: all-zero is a valid value, with no flags: calls are not restarted.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = look_up as extern "C" fn(libc::c_int) as usize;
        // SAFETY: the handler does nothing; the structure lives across the call.
        check(unsafe { libc::sigaction(POKE, &raw const action, std::ptr::null_mut()) }.into())?;
        // SAFETY: all-zero is a valid value to be overwritten.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: empties the set.
        let _ = unsafe { libc::sigemptyset(&raw mut set) };
        // SAFETY: adds one signal to a live set.
        let _ = unsafe { libc::sigaddset(&raw mut set, POKE) };
        // SAFETY: the set lives across the call.
        let _ = unsafe {
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut())
        };
        // SAFETY: takes nothing and cannot fail.
        self.thread
            .store(unsafe { libc::gettid() }, Ordering::Release);
        Ok(())
    }

    /// Pokes it. A poke that comes just before the thread begins to wait is not
    /// felt: whoever must not be missed pokes again while [`Poke::is_pending`].
    pub fn poke(&self) {
        self.pending.store(true, Ordering::Release);
        let thread = self.thread.load(Ordering::Acquire);
        if thread > 0 {
            // SAFETY: takes integers.
            let _ = unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, POKE) };
        }
    }

    /// Whether a poke was not taken note of yet.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Takes note of a poke.
    pub fn take(&self) -> bool {
        self.pending.swap(false, Ordering::AcqRel)
    }
}

/// Stops of traced processes raise no SIGCHLD in this one. Waiting for them works
/// all the same.
pub fn be_silent_about_stops() {
    // SAFETY: all-zero is a valid value: the default action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_flags = libc::SA_NOCLDSTOP;
    // SAFETY: the structure lives across the call.
    let _ = unsafe { libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut()) };
}

/// Sets a limit of another process, as far as that may be done. See `prlimit(2)`.
pub fn raise_limit(pid: i32, resource: u32, least: u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure lives across the call.
    let got = unsafe { libc::prlimit(pid, resource, std::ptr::null(), &raw mut limit) };
    if got != 0 || limit.rlim_cur >= least {
        return;
    }
    let most = libc::rlimit {
        rlim_cur: least,
        rlim_max: limit.rlim_max.max(least),
    };
    // SAFETY: as above.
    if unsafe { libc::prlimit(pid, resource, &raw const most, std::ptr::null_mut()) } != 0 {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: as above.
        let _ = unsafe { libc::prlimit(pid, resource, &raw const limit, std::ptr::null_mut()) };
    }
}

/// Lets this process have as many descriptors as it may.
pub fn raise_own_descriptors() {
    raise_limit(0, libc::RLIMIT_NOFILE, 1 << 20);
}

/// Writes `bytes` into another process's memory, where it may write itself.
///
/// # Errors
/// ESRCH, EPERM, EFAULT.
pub fn write_memory(pid: i32, address: u64, bytes: &[u8]) -> io::Result<()> {
    let local = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: bytes.len(),
    };
    // SAFETY: the local vector is a live slice that is read; the kernel checks
    // the remote one.
    let got = unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    match check(got as libc::c_long)? as usize {
        all if all == bytes.len() => Ok(()),
        _ => Err(io::Error::from_raw_os_error(libc::EFAULT)),
    }
}

/// A number that nobody can guess.
#[must_use]
pub fn secret() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: the buffer lives across the call. Eight bytes come whole or, at the
    // very start of a machine, later.
    while unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), 8, 0) } != 8 {}
    u64::from_ne_bytes(bytes)
}

/// Sends `signal` to the process `pid`.
///
/// # Errors
/// ESRCH, EPERM.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes integers.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// Has the kernel ask the process that this makes to end (SIGTERM) when the
/// thread that makes it ends, in whatever way. It begins with no signal blocked,
/// or it would never hear of that.
pub fn end_with_parent(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let parent = std::process::id().cast_signed();
    let ask = move || {
        // SAFETY: all-zero is a valid value to be overwritten.
        let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: empties the set.
        let _ = unsafe { libc::sigemptyset(&raw mut none) };
        // SAFETY: the set lives across the call.
        let _ =
            unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
        // SAFETY: takes integers.
        let asked = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM, 0, 0, 0) };
        check(asked.into())?;
        // SAFETY: takes nothing and cannot fail.
        let found = unsafe { libc::getppid() };
        // It may have ended before that was asked.
        match found == parent {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    };
    // SAFETY: the closure makes system calls alone and allocates nothing.
    let _ = unsafe { command.pre_exec(ask) };
}

/// Whether two tasks live in one address space; `None` where the kernel cannot
/// tell (kcmp(2) is an option of its configuration) or one of them is gone.
#[must_use]
pub fn same_memory(one: i32, other: i32) -> Option<bool> {
    const KCMP_VM: libc::c_int = 1;
    // SAFETY: takes integers.
    let result = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0, 0) };
    u32::try_from(result).ok().map(|order| order == 0)
}

/// Ends this process as `signal` would (without a core), or returns when the
/// signal does not end processes.
pub fn die_by(signal: i32) {
    let no_core = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure lives across the call.
    let _ = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core) };
    stop_by(signal);
}

/// Takes the default action of `signal` on this process: used to stop it when
/// the program stopped.
pub fn stop_by(signal: i32) {
    // SAFETY: sets the default action.
    let _ = unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: all-zero is a valid value to be overwritten.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: empties the set.
    let _ = unsafe { libc::sigemptyset(&raw mut set) };
    // SAFETY: adds one signal to a live set.
    let _ = unsafe { libc::sigaddset(&raw mut set, signal) };
    let _ = kill(std::process::id().cast_signed(), signal);
    // SAFETY: unblocks it, so that it acts here, and blocks it again after.
    let _ = unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) };
    // SAFETY: as above.
    let _ = unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The parent; the child's number.
    Parent(i32),
    /// The child.
    Child,
}

/// Forks this process, which must have one thread only.
///
/// # Errors
/// EAGAIN, ENOMEM.
pub fn fork() -> io::Result<Side> {
    // SAFETY: the caller has one thread, so the child's state is whole.
    let pid = unsafe { libc::fork() };
    check(pid.into())?;
    Ok(if pid == 0 {
        Side::Child
    } else {
        Side::Parent(pid)
    })
}

/// Orphans of the tree become this process's children.
///
/// # Errors
/// None that are known.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: takes integers.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(drop)
}

/// Points descriptors 0 and 1 at `/dev/null`, so that pipes of the program see
/// their end when the program closes them.
///
/// # Errors
/// Whatever opening `/dev/null` reports.
pub fn release_standard_streams() -> io::Result<()> {
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    for target in 0..2 {
        // SAFETY: both numbers are open descriptors of this process.
        check(unsafe { libc::dup2(null.as_raw_fd(), target) }.into())?;
    }
    Ok(())
}

/// Has the calling thread run on these processors only.
///
/// # Errors
/// EINVAL when this process may run on none of them.
pub fn run_on(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: all-zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus {
        // SAFETY: the number is checked by the macro's bounds.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    // SAFETY: the set lives across the call.
    let result =
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    check(result.into()).map(drop)
}

/// Makes the calling thread nicer to others by `niceness`, up to 19 in all. See
/// `setpriority(2)`: on Linux it is a thread's own.
///
/// # Errors
/// Whatever the system call reports.
pub fn lower_priority(niceness: i32) -> io::Result<()> {
    // SAFETY: takes three integers; zero is the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) };
    check(result.into()).map(drop)
}

/// Has the calling thread run only while a processor has nothing else to do
/// (`SCHED_IDLE`), or as others do again. See `sched(7)`.
///
/// # Errors
/// EPERM when an unprivileged thread wants to be as others again.
pub fn set_idle_class(idle: bool) -> io::Result<()> {
    let policy = match idle {
        true => libc::SCHED_IDLE,
        false => libc::SCHED_OTHER,
    };
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter lives across the call; zero is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) };
    check(result.into()).map(drop)
}

/// CPU time of the calling thread.
#[must_use]
pub fn thread_cpu_time() -> std::time::Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the result lives across the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if result < 0 {
        return std::time::Duration::ZERO;
    }
    std::time::Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

/// The processors that this thread may run on.
#[must_use]
pub fn cpus() -> Vec<usize> {
    // SAFETY: all-zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set lives across the call.
    let got = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if got < 0 {
        return vec![0];
    }
    (0..libc::CPU_SETSIZE as usize)
        .filter(|cpu| {
            // SAFETY: the number is below the set's size.
            unsafe { libc::CPU_ISSET(*cpu, &set) }
        })
        .collect()
}

/// The user whose rights this process has.
#[must_use]
pub fn effective_user() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// Reads `buffer.len()` bytes at `address` of process `pid`; returns how many
/// could be read.
///
/// # Errors
/// ESRCH, EPERM, EFAULT when nothing could be read.
pub fn read_memory(pid: i32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: buffer.len(),
    };
    // SAFETY: the local vector is a live slice; the kernel checks the remote one.
    let got = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    check(got as libc::c_long).map(|got| got as usize)
}

/// What this process was started with and is changed: bits 0 to 2 for standard
/// streams that were closed, and two for signals that were ignored.
static START: AtomicI32 = AtomicI32::new(0);
const PIPE_IGNORED: i32 = 8;
const CHILD_IGNORED: i32 = 16;

/// Runs before the runtime begins.
extern "C" fn note_start() {
    let mut start = 0;
    for fd in 0..3 {
        // SAFETY: takes integers.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            start |= 1 << fd;
        }
    }
    for (signal, bit) in [
        (libc::SIGPIPE, PIPE_IGNORED),
        (libc::SIGCHLD, CHILD_IGNORED),
    ] {
        // SAFETY: all-zero is a valid value to be overwritten.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: the structure lives across the call.
        let _ = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
        if action.sa_sigaction == libc::SIG_IGN {
            start |= bit;
        }
    }
    START.store(start, Ordering::Relaxed);
}

#[used]
// SAFETY: the C runtime calls each function of this section once, before main.
#[unsafe(link_section = ".init_array")]
static NOTE_START: extern "C" fn() = note_start;

/// Between fork and exec: gives the program what this process was started with.
fn give_back_start() {
    let start = START.load(Ordering::Relaxed);
    for (signal, bit) in [
        (libc::SIGPIPE, PIPE_IGNORED),
        (libc::SIGCHLD, CHILD_IGNORED),
    ] {
        let disposition = match start & bit {
            0 => libc::SIG_DFL,
            _ => libc::SIG_IGN,
        };
        // SAFETY: sets a disposition, no handler.
        let _ = unsafe { libc::signal(signal, disposition) };
    }
    for fd in (0..3).filter(|fd| start & 1 << fd != 0) {
        // SAFETY: nothing of the child's uses it before the exec.
        let _ = unsafe { libc::close(fd) };
    }
}

/// What is to be run.
pub struct Launch {
    /// Name or path, looked up as `execvp(3)` does.
    pub program: CString,
    /// Arguments, the first being the program's own name.
    pub arguments: Vec<CString>,
    /// Variables of the environment that it does not get.
    pub hidden: Vec<CString>,
    /// The signal mask to give it.
    pub mask: SignalMask,
    /// The filter that reports its memory map's changes.
    pub filter: seccomp::Filter,
}

/// A program that waits at its door: forked, filtered, not yet exec'ed.
#[derive(Debug)]
pub struct Launched {
    /// Its process number.
    pub pid: i32,
    go: OwnedFd,
    report: OwnedFd,
}

/// Why no program was started.
#[derive(Debug)]
pub enum LaunchError {
    /// Pipes or fork failed.
    Fork(io::Error),
    /// The filter could not be installed.
    Filter(io::Error),
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for both numbers.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }.into())?;
    Ok((adopt(ends[0]), adopt(ends[1])))
}

fn write_word(fd: &OwnedFd, word: i32) -> bool {
    // SAFETY: writes four bytes of a live integer.
    let wrote = unsafe { libc::write(fd.as_raw_fd(), (&raw const word).cast(), 4) };
    wrote == 4
}

fn read_word(fd: &OwnedFd) -> Option<i32> {
    let mut word = 0i32;
    // SAFETY: reads four bytes into a live integer.
    let got = unsafe { libc::read(fd.as_raw_fd(), (&raw mut word).cast(), 4) };
    (got == 4).then_some(word)
}

impl Launch {
    /// Forks the program's process and installs the filter in it. It then
    /// waits for [`Launched::go`].
    ///
    /// # Errors
    /// See [`LaunchError`]; no process is left behind.
    pub fn start(&self) -> Result<Launched, LaunchError> {
        let (go_read, go_write) = pipe().map_err(LaunchError::Fork)?;
        let (report_read, report_write) = pipe().map_err(LaunchError::Fork)?;
        let mut argv: Vec<*const libc::c_char> = self
            .arguments
            .iter()
            .map(|argument| argument.as_ptr())
            .collect();
        argv.push(std::ptr::null());
        match fork().map_err(LaunchError::Fork)? {
            Side::Child => {
                drop(go_write);
                self.child(&go_read, &report_write, &argv)
            }
            Side::Parent(pid) => {
                drop(report_write);
                let installed = read_word(&report_read).unwrap_or(-libc::EIO);
                if installed < 0 {
                    crate::ptrace::wait_for(pid);
                    return Err(LaunchError::Filter(io::Error::from_raw_os_error(
                        -installed,
                    )));
                }
                Ok(Launched {
                    pid,
                    go: go_write,
                    report: report_read,
                })
            }
        }
    }

    /// The child's side: only system calls, no allocation, never returns.
    fn child(&self, go: &OwnedFd, report: &OwnedFd, argv: &[*const libc::c_char]) -> ! {
        let no_core = libc::rlimit {
            rlim_cur: 0,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: the structure lives across the call. Evicted pages would be
        // zeros in a core file, so none is written.
        if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core) } != 0 {
            let hard_too = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            // SAFETY: as above, where the hard limit may not be raised.
            let _ = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const hard_too) };
        }
        let installed = match seccomp::install(&self.filter.0) {
            Ok(()) => 0,
            Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
        };
        let told = write_word(report, installed);
        if told && installed >= 0 && read_word(go).is_some() {
            // SAFETY: the mask lives across the call.
            let _ = unsafe {
                libc::sigprocmask(
                    libc::SIG_SETMASK,
                    &raw const self.mask.0,
                    std::ptr::null_mut(),
                )
            };
            give_back_start();
            for name in &self.hidden {
                // SAFETY: a NUL-terminated name, in a process of one thread.
                let _ = unsafe { libc::unsetenv(name.as_ptr()) };
            }
            // SAFETY: a NUL-terminated path and a null-terminated vector.
            let _ = unsafe { libc::execvp(self.program.as_ptr(), argv.as_ptr()) };
            let errno = io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(libc::EIO);
            let _ = write_word(report, errno);
        }
        // SAFETY: ends the process without running the parent's exit handlers.
        unsafe { libc::_exit(127) }
    }
}

impl Launched {
    /// Lets it exec.
    ///
    /// # Errors
    /// EPIPE when it died.
    pub fn go(&self) -> io::Result<()> {
        if write_word(&self.go, 1) {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// After its end: the errno of a failed exec, if that was why.
    #[must_use]
    pub fn exec_error(&self) -> Option<io::Error> {
        read_word(&self.report).map(io::Error::from_raw_os_error)
    }
}

/// Slots that the guard's table has.
pub const GUARD_SLOTS: usize = 16_384;

/// The processes to be killed when the pager dies: pidfds in shared memory.
#[derive(Debug)]
pub struct GuardTable {
    map: SharedMap,
}

impl GuardTable {
    /// An empty table.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new() -> io::Result<GuardTable> {
        Ok(GuardTable {
            map: SharedMap::new(None, GUARD_SLOTS * 4)?,
        })
    }

    /// Puts a process in slot `index`. Its pidfd must stay open until cleared.
    pub fn set(&self, index: usize, process: &PidFd) {
        let number = process.as_fd().as_raw_fd() + 1;
        self.map
            .signed(index * 4)
            .store(number, std::sync::atomic::Ordering::Release);
    }

    /// Empties slot `index`.
    pub fn clear(&self, index: usize) {
        self.map
            .signed(index * 4)
            .store(0, std::sync::atomic::Ordering::Release);
    }

    fn get(&self, index: usize) -> i32 {
        self.map
            .signed(index * 4)
            .load(std::sync::atomic::Ordering::Acquire)
            - 1
    }
}

/// Starts the guard: a process that shares this one's descriptors, so that the
/// userfaultfds stay open when this process is killed, until every process of
/// the tree is dead. Faults that wait are never answered with zeros.
///
/// # Errors
/// EAGAIN, ENOMEM.
pub fn start_guard(table: &GuardTable, pager: &PidFd) -> io::Result<i32> {
    let flags = libc::CLONE_FILES | libc::SIGCHLD;
    // SAFETY: like fork, but with shared descriptors; the child only makes
    // system calls, so locks held by other threads do not matter to it.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    if pid == 0 {
        guard(table, pager.as_fd().as_raw_fd());
    }
    Ok(pid as i32)
}

fn poll_readable(fd: i32, millis: i32) -> bool {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd that lives across the call.
    unsafe { libc::poll(&raw mut poll, 1, millis) > 0 }
}

fn guard(table: &GuardTable, pager: i32) -> ! {
    // SAFETY: takes no arguments; a signal to the pager's group spares the guard.
    let _ = unsafe { libc::setsid() };
    // SAFETY: a NUL-terminated name.
    let _ = unsafe { libc::prctl(libc::PR_SET_NAME, c"zcache-guard".as_ptr()) };
    while !poll_readable(pager, -1) {}
    let live = || {
        (0..GUARD_SLOTS)
            .map(|index| table.get(index))
            .filter(|fd| *fd >= 0)
    };
    for fd in live() {
        // SAFETY: a null siginfo is allowed.
        let _ = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                fd,
                libc::SIGKILL,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
    }
    for fd in live() {
        while !poll_readable(fd, 1000) {}
    }
    // SAFETY: ends this process; no exit handlers of the pager run.
    unsafe { libc::_exit(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_spaces_are_told_apart() {
        let own = std::process::id().cast_signed();
        let thread = std::thread::spawn(move || {
            // SAFETY: takes nothing and cannot fail.
            let thread = unsafe { libc::gettid() };
            same_memory(own, thread)
        });
        let thread = thread.join().expect("the thread ends well");
        if thread.is_some() {
            assert_eq!(thread, Some(true));
            let mut child = std::process::Command::new("sleep")
                .arg("60")
                .spawn()
                .expect("sleep starts");
            assert_eq!(same_memory(own, child.id().cast_signed()), Some(false));
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
        }
        assert_eq!(same_memory(own, i32::MAX), None);
    }
}
