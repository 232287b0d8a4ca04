//! Transfers that a signal cuts short which the program ignores. Linux throws such a
//! signal away when it is sent, unless the receiver is traced: then it is woken, and
//! a call that has moved some bytes returns how many. The rest is moved by the same
//! call here, and the program sees one.
//!
//! Only where nothing else cuts short: descriptors that wait, and calls that go on
//! until all is done. A signal that is not ignored ends it, as it would without us.

use std::rc::Rc;

use zcache_sys::procfs;
use zcache_sys::ptrace::{self, Registers, Stop};

use super::signals::is_ignored;
use crate::process::script::Claim;
use crate::process::tracer::{Tracer, resume};

/// Linux moves no more at once.
const BYTES_MAX: u64 = 0x7fff_f000;
/// The memory devices: zeros, random numbers.
const MEMORY_DEVICES: u32 = 1;

/// Where a call has what the rest of it begins with: its buffer, if it has one, and
/// its length.
struct Shape {
    buffer: Option<usize>,
    length: usize,
}

/// A transfer that was cut short.
pub(crate) struct Cut {
    registers: Registers,
    shape: Shape,
    done: u64,
}

impl Cut {
    /// Whether the call from which a thread comes was cut short by `signal`, which is
    /// about to be delivered.
    pub(crate) fn of(thread: i32, signal: i32) -> Option<Cut> {
        let registers = ptrace::registers(thread).ok()?;
        let (number, arguments) = ptrace::call_of(&registers);
        let done = u64::try_from(registers.rax.cast_signed()).ok()?;
        let shape = shape_of(number, arguments[3])?;
        let whole = arguments[shape.length];
        let cut = (1..whole.min(BYTES_MAX)).contains(&done);
        let goes_on = cut && is_ignored(thread, signal) && waits(thread, number, arguments);
        goes_on.then_some(Cut {
            registers,
            shape,
            done,
        })
    }

    /// Has the thread, which stands before the delivery of `signal`, move the rest.
    pub(crate) async fn finish(mut self, tracer: &Rc<Tracer>, claim: Claim, signal: i32) {
        let task = claim.task;
        let (mut signal, mut entered) = (signal, false);
        self.begin_rest(task);
        loop {
            if claim.has_ended() || ptrace::resume_to_syscall(task, signal).is_err() {
                return;
            }
            signal = 0;
            match tracer.scripts.stop_of(&claim).await {
                Stop::Syscall if entered => break,
                Stop::Syscall => entered = true,
                Stop::Exited(_) | Stop::Signaled(_) => return,
                // The next one that is ignored.
                Stop::Signal(next) if !entered && is_ignored(task, next) => signal = next,
                stop if !entered => {
                    self.answer(task);
                    drop(claim);
                    return tracer.stopped(task, stop);
                }
                _ => {}
            }
        }
        if let Ok(now) = ptrace::registers(task) {
            // Whatever ends it, what was moved is what the call says.
            self.done += u64::try_from(now.rax.cast_signed()).unwrap_or(0);
        }
        self.answer(task);
        drop(claim);
        resume(task, 0);
    }

    /// Sets the registers for a call that moves what is left.
    fn begin_rest(&self, task: i32) {
        let (number, mut arguments) = ptrace::call_of(&self.registers);
        arguments[self.shape.length] -= self.done;
        if let Some(buffer) = self.shape.buffer {
            arguments[buffer] += self.done;
        }
        // It may have been killed meanwhile.
        let instruction = self.registers.rip - 2;
        let _ = ptrace::set_call(task, &self.registers, instruction, number, arguments);
    }

    /// Has the whole call return what was moved in all.
    fn answer(&self, task: i32) {
        let registers = Registers {
            rax: self.done,
            ..self.registers
        };
        let _ = ptrace::set_registers(task, &registers);
    }
}

/// Calls that return early by signals alone, and by their end.
fn shape_of(number: i64, fourth: u64) -> Option<Shape> {
    let (buffer, length) = match number {
        libc::SYS_read | libc::SYS_write | libc::SYS_sendto => (Some(1), 2),
        libc::SYS_recvfrom if fourth & libc::MSG_WAITALL as u64 != 0 => (Some(1), 2),
        libc::SYS_getrandom => (Some(0), 1),
        // Its offsets lie in memory, where the kernel has moved them on.
        libc::SYS_copy_file_range => (None, 4),
        _ => return None,
    };
    Some(Shape { buffer, length })
}

/// Whether nothing but a signal, or the end, can have ended the call early.
fn waits(thread: i32, number: i64, a: [u64; 6]) -> bool {
    let descriptor = |argument: u64| procfs::open_file(thread, argument as i32);
    match number {
        libc::SYS_getrandom | libc::SYS_copy_file_range => true,
        // Of others a short read is what there was.
        libc::SYS_read => descriptor(a[0])
            .is_some_and(|file| file.kind == libc::S_IFCHR && file.device.0 == MEMORY_DEVICES),
        // A signal ends no write to a file, but a limit or a full disk does.
        libc::SYS_write => {
            let is_file = |file: procfs::OpenFile| file.kind == libc::S_IFREG;
            !descriptor(a[0]).is_none_or(is_file) && procfs::is_blocking(thread, a[0] as i32)
        }
        libc::SYS_sendto | libc::SYS_recvfrom => {
            a[3] & libc::MSG_DONTWAIT as u64 == 0 && procfs::is_blocking(thread, a[0] as i32)
        }
        _ => false,
    }
}
