//! ptrace: attach by SEIZE, stops, registers, and system calls injected into a
//! stopped thread. x86-64 only. Source: `ptrace(2)`.
//!
//! Nothing here waits for one thread: whoever injects is told of the stops by
//! the one loop that waits for all.
//!
//! Every call must come from the thread that seized the tracee.

use std::io;

use crate::fd::check;
use crate::seccomp::WATCHED;

/// What the pager traces: births, new images, watched calls (by the filter of
/// [`crate::seccomp`]); death of the tracer kills all.
pub const OPTIONS: u64 = (libc::PTRACE_O_EXITKILL
    | libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACESECCOMP) as u64;

/// `PTRACE_O_SUSPEND_SECCOMP`: the tracee's filters are not asked.
const SUSPEND_SECCOMP: u64 = 1 << 21;

/// Marks a stop at a system call in place of SIGTRAP (`PTRACE_O_TRACESYSGOOD`).
const SYSCALL_TRAP: i32 = libc::SIGTRAP | 0x80;

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
    /// The filter reports a system call that has not begun.
    Watched,
    /// Another filter reports one, which nobody was there to hear of.
    Reported,
    /// At the entry or the exit of a system call, after [`resume_to_syscall`].
    Syscall,
    /// Nothing that anybody asked for, or an event of a task that was killed since.
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

/// Lets a stopped thread run until it enters or leaves a system call, delivering
/// `signal` (0 for none).
///
/// # Errors
/// ESRCH when it is gone (killed) or not stopped.
pub fn resume_to_syscall(pid: i32, signal: i32) -> io::Result<()> {
    request(libc::PTRACE_SYSCALL, pid, 0, signal as u64).map(drop)
}

/// Has the thread's seccomp filters not be asked, or be asked again.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN or where the caller has filters of its own;
/// EINVAL where the kernel was built without checkpoints.
pub fn suspend_filters(pid: i32, suspended: bool) -> io::Result<()> {
    let more = if suspended { SUSPEND_SECCOMP } else { 0 };
    request(libc::PTRACE_SETOPTIONS, pid, 0, OPTIONS | more).map(drop)
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

/// What an event says; `None` of a task that was killed meanwhile.
fn message(pid: i32) -> Option<i32> {
    let mut message = 0u64;
    request(libc::PTRACE_GETEVENTMSG, pid, 0, (&raw mut message) as u64).ok()?;
    Some(message as i32)
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
        0 if signal == SYSCALL_TRAP => Stop::Syscall,
        0 => Stop::Signal(signal),
        libc::PTRACE_EVENT_STOP => match signal {
            libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => Stop::Group(signal),
            _ => Stop::Trap,
        },
        event => match message(pid) {
            Some(message) => decode_event(event, message),
            None => Stop::Other(event),
        },
    }
}

fn decode_event(event: i32, message: i32) -> Stop {
    match event {
        libc::PTRACE_EVENT_SECCOMP if message == WATCHED as i32 => Stop::Watched,
        libc::PTRACE_EVENT_SECCOMP => Stop::Reported,
        libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
            Stop::Birth {
                child: message,
                vfork: event == libc::PTRACE_EVENT_VFORK,
                clone: event == libc::PTRACE_EVENT_CLONE,
            }
        }
        libc::PTRACE_EVENT_EXEC => Stop::Exec { former: message },
        other => Stop::Other(other),
    }
}

/// What [`wait_any`] came back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// A child or tracee did something.
    Stop(i32, Stop),
    /// A signal arrived, or, for [`try_wait_any`], none did anything.
    Nothing,
    /// There is no child and no tracee.
    NobodyLeft,
}

/// Waits until some child or tracee does something or a signal arrives.
///
/// # Errors
/// Whatever `wait4(2)` reports but ECHILD and EINTR.
pub fn wait_any() -> io::Result<Waited> {
    wait_with(-1, 0)
}

/// As [`wait_any`], but does not wait.
///
/// # Errors
/// Whatever `wait4(2)` reports but ECHILD and EINTR.
pub fn try_wait_any() -> io::Result<Waited> {
    wait_with(-1, libc::WNOHANG)
}

/// Waits for the end of the child `pid`.
pub fn wait_for(pid: i32) {
    while !matches!(
        wait_with(pid, 0),
        Ok(Waited::NobodyLeft | Waited::Stop(_, Stop::Exited(_) | Stop::Signaled(_))) | Err(_)
    ) {}
}

fn wait_with(pid: i32, flags: i32) -> io::Result<Waited> {
    let mut status = 0;
    // SAFETY: the status word lives across the call.
    let got = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL | flags) };
    if got > 0 {
        return Ok(Waited::Stop(got, decode(got, status)));
    }
    if got == 0 {
        return Ok(Waited::Nothing);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EINTR) => Ok(Waited::Nothing),
        Some(libc::ECHILD) => Ok(Waited::NobodyLeft),
        _ => Err(error),
    }
}

/// Sets the registers for one system call by the instruction at `instruction`.
///
/// # Errors
/// ESRCH when it is gone.
pub fn set_call(
    pid: i32,
    base: &Registers,
    instruction: u64,
    number: i64,
    arguments: [u64; 6],
) -> io::Result<()> {
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
    set_registers(pid, &registers)
}

/// Lets a stopped thread execute one instruction.
///
/// # Errors
/// ESRCH when it is gone.
pub fn step(pid: i32) -> io::Result<()> {
    request(libc::PTRACE_SINGLESTEP, pid, 0, 0).map(drop)
}

/// The number and the arguments of a system call at whose entry the registers
/// were read.
#[must_use]
pub fn call_of(registers: &Registers) -> (i64, [u64; 6]) {
    let arguments = [
        registers.rdi,
        registers.rsi,
        registers.rdx,
        registers.r10,
        registers.r8,
        registers.r9,
    ];
    (registers.orig_rax.cast_signed(), arguments)
}

/// Where the thread has its restartable sequence's words, which the kernel writes
/// whenever it lets the thread go on; 0 if it has none. See
/// `PTRACE_GET_RSEQ_CONFIGURATION` in `ptrace(2)`.
///
/// # Errors
/// EIO before Linux 5.13.
pub fn sequence_area(pid: i32) -> io::Result<u64> {
    const GET_RSEQ_CONFIGURATION: libc::c_uint = 0x420f;
    let mut configuration = [0u64; 3];
    let size = size_of_val(&configuration) as u64;
    let address = configuration.as_mut_ptr() as u64;
    request(GET_RSEQ_CONFIGURATION, pid, size, address)?;
    Ok(configuration[0])
}

/// Whether the kernel means to make the call again that left this result: a
/// signal, a stop or a freeze met it, and it has done nothing.
#[must_use]
pub fn will_restart(result: i64) -> bool {
    // ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK.
    matches!(-result, 512 | 513 | 514 | 516)
}
