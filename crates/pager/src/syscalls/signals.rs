//! Signals that the program ignores. Linux throws them away when they are sent,
//! unless the receiver is traced: then they interrupt a call on their way to the
//! tracer. Most calls begin again by themselves; some end with EINTR, and those
//! are made again here.

use zcache_sys::procfs;
use zcache_sys::ptrace;

pub(super) const ERESTARTNOHAND: i64 = 514;
pub(super) const ERESTART_RESTARTBLOCK: i64 = 516;

/// Calls that end with EINTR whatever becomes of the signal: `signal(7)`.
const FAIL: [i64; 23] = [
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_msgrcv,
    libc::SYS_msgsnd,
    libc::SYS_io_getevents,
    libc::SYS_io_uring_enter,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendmmsg,
    libc::SYS_writev,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
];

/// A thread stops because `signal` is about to be delivered. If it is ignored
/// and has made a call fail, that is made again.
pub(crate) fn restart_if_ignored(thread: i32, signal: i32, filtered: bool) {
    restart_if(thread, filtered, || is_ignored(thread, signal));
}

/// A thread stops because the tracer wanted it to: a call that failed by that is
/// made again.
pub(crate) fn restart_interrupted(thread: i32, filtered: bool) {
    restart_if(thread, filtered, || true);
}

fn restart_if(thread: i32, filtered: bool, unasked: impl FnOnce() -> bool) {
    let Ok(mut registers) = ptrace::registers(thread) else {
        return;
    };
    let (number, _) = ptrace::call_of(&registers);
    let result = registers.rax.cast_signed();
    let failed = result == -i64::from(libc::EINTR) && FAIL.contains(&number);
    // Linux would go on by `restart_syscall`, of which the program's filter has never
    // heard; a sleep is longer by that, but goes on.
    let filtered = filtered && result == -ERESTART_RESTARTBLOCK;
    if (failed || filtered) && unasked() {
        // What Linux says of a call that begins again unless a handler runs first:
        // another signal may come before it does.
        registers.rax = (-ERESTARTNOHAND).cast_unsigned();
        // It may have been killed meanwhile.
        let _ = ptrace::set_registers(thread, &registers);
    }
}

/// A set of signals that `/proc/PID/status` tells of.
fn signals(thread: i32, name: &str) -> u64 {
    let set = procfs::status_field(thread, name);
    let set = set.and_then(|set| u64::from_str_radix(&set, 16).ok());
    set.unwrap_or(0)
}

pub(super) fn is_ignored(thread: i32, signal: i32) -> bool {
    let bit = 1u64 << (signal - 1);
    let has = |name| signals(thread, name) & bit != 0;
    let by_default = matches!(
        signal,
        libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH | libc::SIGCONT
    );
    has("SigIgn") || (by_default && !has("SigCgt"))
}
