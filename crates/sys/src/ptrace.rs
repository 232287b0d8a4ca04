//! ptrace: attach by SEIZE, stops, registers, and system calls injected into a
//! stopped thread. x86-64 only. Source: `ptrace(2)`.
//!
//! Every call must come from the thread that seized the tracee.

use std::io;

use crate::fd::check;
use crate::seccomp;

/// What the pager traces: births, new images, and death of the tracer kills all.
pub const OPTIONS: u64 = (libc::PTRACE_O_EXITKILL
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC) as u64;

/// The registers of a stopped thread.
pub type Registers = libc::user_regs_struct;

/// Something that `wait` learnt of a child or tracee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It ended with this exit code.
    Exited(i32),
    /// A signal ended it; whether a core was dumped.
    Signaled(i32),
    /// A signal is about to be delivered.
    Signal(i32),
    /// The whole group stopped by this signal.
    Group(i32),
    /// A new thread or process exists; its number.
    Birth {
        /// Number of the new task.
        child: i32,
        /// By `vfork` (shares the address space until it execs or ends).
        vfork: bool,
        /// By `clone` with neither fork's nor vfork's shape: usually a thread.
        clone: bool,
    },
    /// A new image was loaded; the thread that called exec had this number.
    Exec {
        /// The number that the calling thread had before.
        former: i32,
    },
    /// A trap of ours: first stop of a new task, or an interrupt.
    Trap,
    /// Nothing that anybody asked for.
    Other(i32),
}

fn request(op: libc::c_uint, pid: i32, addr: u64, data: u64) -> io::Result<i64> {
    // SAFETY: callers pass integers, or addresses of live structures of the
    // shape which the request fills.
    check(unsafe { libc::ptrace(op, pid, addr, data) })
}

/// Attaches to `pid` without stopping it.
///
/// # Errors
/// EPERM: no permission (Yama, another tracer, other credentials); ESRCH.
pub fn seize(pid: i32) -> io::Result<()> {
    request(libc::PTRACE_SEIZE, pid, 0, OPTIONS).map(drop)
}

/// Lets a stopped thread run, delivering `signal` (0 for none).
///
/// # Errors
/// ESRCH when it is gone (killed) or not stopped.
pub fn resume(pid: i32, signal: i32) -> io::Result<()> {
    request(libc::PTRACE_CONT, pid, 0, signal as u64).map(drop)
}

/// From the stop at an exec: runs to the exit of that system call, where
/// registers may be set.
///
/// # Errors
/// [`InjectError::Died`] when it is gone.
pub fn finish_syscall(pid: i32) -> Result<(), InjectError> {
    loop {
        request(libc::PTRACE_SYSCALL, pid, 0, 0)?;
        match wait(pid)? {
            Some((_, Stop::Signal(libc::SIGTRAP))) => return Ok(()),
            Some((_, stop @ (Stop::Exited(_) | Stop::Signaled(_)))) => {
                return Err(InjectError::Died(stop));
            }
            None => return Err(InjectError::Died(Stop::Other(0))),
            Some(_) => {}
        }
    }
}

/// Asks a running thread to stop; it reports [`Stop::Trap`].
///
/// # Errors
/// ESRCH when it is gone.
pub fn interrupt(pid: i32) -> io::Result<()> {
    request(libc::PTRACE_INTERRUPT, pid, 0, 0).map(drop)
}

/// Leaves a thread in its group stop, but listening for SIGCONT.
///
/// # Errors
/// ESRCH when it is gone.
pub fn listen(pid: i32) -> io::Result<()> {
    request(libc::PTRACE_LISTEN, pid, 0, 0).map(drop)
}

/// Reads the registers.
///
/// # Errors
/// ESRCH when it is gone.
pub fn registers(pid: i32) -> io::Result<Registers> {
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut registers: Registers = unsafe { std::mem::zeroed() };
    request(libc::PTRACE_GETREGS, pid, 0, (&raw mut registers) as u64)?;
    Ok(registers)
}

/// Has a call that waited for the seccomp listener when a signal came made again
/// whatever the signal's handler asks for, as calls do that wait for nobody. The
/// tracee is stopped with the signal.
///
/// # Errors
/// ESRCH when it was killed meanwhile.
pub fn insist_on_watched_call(pid: i32) -> io::Result<()> {
    const ERESTARTSYS: i64 = 512;
    const ERESTARTNOINTR: i64 = 513;
    let mut registers = registers(pid)?;
    let number = registers.orig_rax.cast_signed();
    if registers.rax.cast_signed() == -ERESTARTSYS && seccomp::is_watched(number) {
        registers.rax = (-ERESTARTNOINTR).cast_unsigned();
        set_registers(pid, &registers)?;
    }
    Ok(())
}

/// Writes the registers.
///
/// # Errors
/// ESRCH when it is gone.
pub fn set_registers(pid: i32, registers: &Registers) -> io::Result<()> {
    request(
        libc::PTRACE_SETREGS,
        pid,
        0,
        std::ptr::from_ref(registers) as u64,
    )
    .map(drop)
}

/// Reads the signal mask.
///
/// # Errors
/// ESRCH when it is gone.
pub fn signal_mask(pid: i32) -> io::Result<u64> {
    let mut mask = 0u64;
    request(libc::PTRACE_GETSIGMASK, pid, 8, (&raw mut mask) as u64)?;
    Ok(mask)
}

/// Writes the signal mask.
///
/// # Errors
/// ESRCH when it is gone.
pub fn set_signal_mask(pid: i32, mask: u64) -> io::Result<()> {
    request(libc::PTRACE_SETSIGMASK, pid, 8, (&raw const mask) as u64).map(drop)
}

fn message(pid: i32) -> i32 {
    let mut message = 0u64;
    match request(libc::PTRACE_GETEVENTMSG, pid, 0, (&raw mut message) as u64) {
        Ok(_) => message as i32,
        Err(_) => 0,
    }
}

fn decode(pid: i32, status: i32) -> Stop {
    if libc::WIFEXITED(status) {
        return Stop::Exited(libc::WEXITSTATUS(status));
    }
    if libc::WIFSIGNALED(status) {
        return Stop::Signaled(libc::WTERMSIG(status));
    }
    let signal = libc::WSTOPSIG(status);
    match status >> 16 {
        0 => Stop::Signal(signal),
        libc::PTRACE_EVENT_STOP => match signal {
            libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => Stop::Group(signal),
            _ => Stop::Trap,
        },
        event @ (libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE) => {
            Stop::Birth {
                child: message(pid),
                vfork: event == libc::PTRACE_EVENT_VFORK,
                clone: event == libc::PTRACE_EVENT_CLONE,
            }
        }
        libc::PTRACE_EVENT_EXEC => Stop::Exec {
            former: message(pid),
        },
        other => Stop::Other(other),
    }
}

/// What some child or tracee did; `Ok(None)` when none did anything or none is
/// left.
///
/// # Errors
/// Whatever `wait4(2)` reports but ECHILD and EINTR.
pub fn try_wait_any() -> io::Result<Option<(i32, Stop)>> {
    wait_with(-1, libc::WNOHANG)
}

/// Waits for one child or tracee; `Ok(None)` when it does not exist.
///
/// # Errors
/// Whatever `wait4(2)` reports but ECHILD and EINTR.
pub fn wait(pid: i32) -> io::Result<Option<(i32, Stop)>> {
    wait_with(pid, 0)
}

fn wait_with(pid: i32, flags: i32) -> io::Result<Option<(i32, Stop)>> {
    loop {
        let mut status = 0;
        // SAFETY: the status word lives across the call.
        let got = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL | flags) };
        if got > 0 {
            return Ok(Some((got, decode(got, status))));
        }
        if got == 0 {
            return Ok(None);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ECHILD) => return Ok(None),
            _ => return Err(error),
        }
    }
}

/// Why an injected system call could not be run.
#[derive(Debug)]
pub enum InjectError {
    /// The thread died meanwhile.
    Died(Stop),
    /// ptrace itself failed.
    Ptrace(io::Error),
}

impl From<io::Error> for InjectError {
    fn from(error: io::Error) -> Self {
        InjectError::Ptrace(error)
    }
}

/// Runs one system call in the stopped thread `pid`, whose signals must be
/// blocked, by the instruction at `instruction`. Returns the raw result
/// (negated errno on failure). The registers are left changed: save and
/// restore them around a series.
///
/// # Errors
/// See [`InjectError`].
pub fn inject(
    pid: i32,
    base: &Registers,
    instruction: u64,
    number: i64,
    arguments: [u64; 6],
) -> Result<i64, InjectError> {
    let mut registers = *base;
    registers.rip = instruction;
    registers.rax = number as u64;
    registers.orig_rax = u64::MAX;
    [
        registers.rdi,
        registers.rsi,
        registers.rdx,
        registers.r10,
        registers.r8,
        registers.r9,
    ] = arguments;
    set_registers(pid, &registers)?;
    request(libc::PTRACE_SINGLESTEP, pid, 0, 0)?;
    loop {
        match wait(pid)? {
            Some((_, Stop::Signal(libc::SIGTRAP))) => break,
            Some((_, stop @ (Stop::Exited(_) | Stop::Signaled(_)))) => {
                return Err(InjectError::Died(stop));
            }
            None => return Err(InjectError::Died(Stop::Other(0))),
            // A group stop or an interrupt comes in between: step on.
            Some(_) => {
                request(libc::PTRACE_SINGLESTEP, pid, 0, 0)?;
            }
        }
    }
    Ok(self::registers(pid)?.rax.cast_signed())
}
