//! Waits with a timeout that a signal interrupts which the program ignores. Linux
//! throws such a signal away when it is sent, unless the receiver is traced: then
//! the call fails, and is made again. Linux lets some calls keep their deadline
//! then; of others it knows the timeout only, and a stream of signals would have
//! them wait for ever. Their deadline is kept here: when it has come, the thread is
//! interrupted, and its call returns what it does when time is up.
//!
//! Invariant: no wait ends before its timeout has passed. When a call began is not
//! known, so the deadline counts from its first interruption: it is late by less
//! than the timeout, whatever the number of signals.

use std::rc::Rc;
use std::time::{Duration, Instant};

use zcache_sys::fd::PidFd;
use zcache_sys::process::read_memory;
use zcache_sys::ptrace::{self, Registers};
use zcache_sys::socket;

use super::again::{Again, Ended, is_interrupted};
use super::signals::{ERESTART_RESTARTBLOCK, ERESTARTNOHAND, is_ignored};
use crate::process::script::Claim;
use crate::process::tracer::Tracer;

/// `libc` has no name for it.
const IO_PGETEVENTS: i64 = 333;
const ENTER_EXT_ARG: u64 = 1 << 3;
const ENTER_ABS_TIMER: u64 = 1 << 6;
/// Where `struct io_uring_getevents_arg` has the address of its time.
const RING_TIME: u64 = 16;
/// Clocks that go on while a thread waits.
const CLOCKS: [i32; 4] = [
    libc::CLOCK_REALTIME,
    libc::CLOCK_MONOTONIC,
    libc::CLOCK_BOOTTIME,
    libc::CLOCK_TAI,
];

/// Where a call has its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timeout {
    Milliseconds(u64),
    /// At the address of a `struct timespec`; 0 is none.
    At(u64),
    /// At an address that lies here.
    Behind(u64),
    /// The socket has it, for what it receives or for what it sends.
    Socket {
        descriptor: i32,
        receives: bool,
    },
}

/// A wait that was interrupted.
pub(crate) struct Wait {
    registers: Registers,
    timeout: Timeout,
    /// What the call returns when time is up.
    result: i64,
}

impl Wait {
    /// Whether the call from which a thread comes waits with a timeout, and failed by
    /// `signal`, which is about to be delivered.
    pub(crate) fn of(thread: i32, signal: i32, filtered: bool) -> Option<Wait> {
        let registers = ptrace::registers(thread).ok()?;
        let (timeout, result) = timed(&registers, filtered)?;
        is_ignored(thread, signal).then_some(Wait {
            registers,
            timeout,
            result,
        })
    }

    /// Has the thread, which stands before the delivery of a signal, wait on until its
    /// deadline.
    pub(crate) async fn go_on(self, tracer: &Rc<Tracer>, claim: Claim, signal: i32) {
        let start = Instant::now();
        let timeout = self.read_timeout(tracer, claim.task).await;
        let mut again = Again::new(tracer, claim, signal);
        again.set_deadline(timeout.and_then(|timeout| start.checked_add(timeout)));
        loop {
            // It begins again unless a handler runs first.
            again.set_registers(&self.returning(-ERESTARTNOHAND));
            if let Err(stop) = again.enter().await {
                again.set_registers(&self.registers);
                return again.hand_over(stop);
            }
            let by_us = match again.end().await {
                Ended::Itself => false,
                Ended::AtDeadline => true,
                Ended::Otherwise(stop) => return again.hand_over(stop),
            };
            let result = again.registers().map_or(0, |now| now.rax.cast_signed());
            if by_us {
                if is_interrupted(result) {
                    again.set_registers(&self.returning(self.result));
                }
                return again.after_deadline().await;
            }
            if !is_interrupted(result) {
                return again.go_on();
            }
            again = match again.past_ignored().await {
                Some(again) => again,
                None => return,
            };
        }
    }

    fn returning(&self, result: i64) -> Registers {
        Registers {
            rax: result.cast_unsigned(),
            ..self.registers
        }
    }

    /// `None` where there is none, or the program has taken it away.
    async fn read_timeout(&self, tracer: &Rc<Tracer>, task: i32) -> Option<Duration> {
        let word = |address: u64| {
            tracer.elsewhere(move |_| {
                let mut bytes = [0u8; 16];
                read_memory(task, address, &mut bytes).ok()?;
                let word = |at: usize| i64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
                Some([word(0), word(8)])
            })
        };
        let at = match self.timeout {
            Timeout::Milliseconds(time) => return Some(Duration::from_millis(time)),
            Timeout::Socket {
                descriptor,
                receives,
            } => {
                let process = tracer.process_of(task)?;
                let fd = PidFd::open(process).ok()?.take_fd(descriptor).ok()?;
                return socket::timeout(&fd, receives);
            }
            Timeout::At(address) => address,
            Timeout::Behind(address) => word(address).await?[0].cast_unsigned(),
        };
        if at == 0 {
            return None;
        }
        let [seconds, nanoseconds] = word(at).await?;
        let seconds = Duration::from_secs(u64::try_from(seconds).ok()?);
        seconds.checked_add(Duration::from_nanos(u64::try_from(nanoseconds).ok()?))
    }
}

/// The timeout of a call that failed as calls do that a signal interrupts, and what it
/// returns when time is up. Where the program has filters, which have never heard of
/// `restart_syscall`, also of those that Linux would go on with by that.
fn timed(registers: &Registers, filtered: bool) -> Option<(Timeout, i64)> {
    let (number, a) = ptrace::call_of(registers);
    let failed = registers.rax.cast_signed();
    let late = |errno: i32| -i64::from(errno);
    let milliseconds = |argument: u64| {
        let time = u64::try_from(argument as i32).ok()?;
        Some(Timeout::Milliseconds(time))
    };
    if failed == -ERESTART_RESTARTBLOCK && filtered {
        return Some(match number {
            libc::SYS_poll => (milliseconds(a[2])?, 0),
            libc::SYS_nanosleep => (Timeout::At(a[0]), 0),
            libc::SYS_clock_nanosleep if CLOCKS.contains(&(a[0] as i32)) => (Timeout::At(a[2]), 0),
            libc::SYS_futex => (Timeout::At(a[3]), late(libc::ETIMEDOUT)),
            _ => return None,
        });
    }
    if failed == -ERESTARTNOHAND {
        let waits = number == IO_PGETEVENTS;
        return waits.then_some((Timeout::At(a[4]), 0));
    }
    if failed != late(libc::EINTR) {
        return None;
    }
    let socket = |receives| Timeout::Socket {
        descriptor: a[0] as i32,
        receives,
    };
    Some(match number {
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => (milliseconds(a[3])?, 0),
        libc::SYS_epoll_pwait2 => (Timeout::At(a[3]), 0),
        libc::SYS_semtimedop => (Timeout::At(a[3]), late(libc::EAGAIN)),
        libc::SYS_rt_sigtimedwait => (Timeout::At(a[2]), late(libc::EAGAIN)),
        libc::SYS_io_getevents => (Timeout::At(a[4]), 0),
        libc::SYS_io_uring_enter if a[3] & (ENTER_EXT_ARG | ENTER_ABS_TIMER) == ENTER_EXT_ARG => {
            (Timeout::Behind(a[4] + RING_TIME), late(libc::ETIME))
        }
        libc::SYS_connect => (socket(false), late(libc::EINPROGRESS)),
        libc::SYS_read
        | libc::SYS_readv
        | libc::SYS_recvfrom
        | libc::SYS_recvmsg
        | libc::SYS_recvmmsg
        | libc::SYS_accept
        | libc::SYS_accept4 => (socket(true), late(libc::EAGAIN)),
        libc::SYS_write
        | libc::SYS_writev
        | libc::SYS_sendto
        | libc::SYS_sendmsg
        | libc::SYS_sendmmsg => (socket(false), late(libc::EAGAIN)),
        _ => return None,
    })
}
