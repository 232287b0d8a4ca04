//! System calls injected into a stopped thread: few, and never in the program's
//! stead. A program's thread makes one to give birth to its servant; the servant
//! makes those that set it up.
//!
//! Invariant: the thread goes on as if nothing had been: registers, signal mask
//! and the stops that came meanwhile are as they were.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use zcache_sys::ptrace::{self, Registers, Stop};

use super::care_error::CareError;
use super::script::{Claim, Scripts};
use super::tracer::{Tracer, resume};

/// Times that a call is made again which a stop or a freeze met.
const RESTARTS_MAX: u32 = 1000;

/// A stopped thread into which calls are injected.
pub(crate) struct Injection<'a> {
    tracer: &'a Rc<Tracer>,
    claim: &'a Claim,
    saved: Registers,
    mask: u64,
    /// Address of a `syscall` instruction.
    instruction: u64,
    /// Steps by instructions, which is one stop less. It costs a thread its own
    /// handler of SIGTRAP, so it is for servants only.
    steps: bool,
    /// The task that the last call gave birth to.
    born: RefCell<Option<i32>>,
    held: Cell<Held>,
    filters: Filters,
}

/// The program's own filters while calls are injected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Filters {
    None,
    Suspended,
    /// We may not suspend them: they would be asked, and might kill.
    Asked,
}

/// Whether a stop of the whole process came while calls were injected into one of
/// its threads, which has not learnt of it.
#[must_use = "the thread would run on in a process that is stopped"]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Held(bool);

impl Held {
    /// It was stopped when it was looked at last.
    pub(crate) const STOPPED: Held = Held(true);

    /// This one or another.
    pub(crate) fn or(self, other: Held) -> Held {
        Held(self.0 || other.0)
    }

    /// Lets the thread go on, with `signal` unless that is 0.
    pub(crate) fn resume(self, task: i32, signal: i32) {
        if self.0 {
            // It learns again that its process is stopped, if it still is.
            let _ = ptrace::interrupt(task);
        }
        resume(task, signal);
    }
}

impl<'a> Injection<'a> {
    /// Begins with the stopped thread of `claim`, a thread of the program. The filters
    /// that it has put upon itself are suspended meanwhile.
    pub(crate) fn begin(
        tracer: &'a Rc<Tracer>,
        claim: &'a Claim,
        instruction: u64,
    ) -> Result<Injection<'a>, CareError> {
        let own = CareError::own;
        if claim.has_ended() {
            return Err(CareError::Ended);
        }
        let saved = ptrace::registers(claim.task).map_err(own("reading registers"))?;
        let mask = ptrace::signal_mask(claim.task).map_err(own("reading the signal mask"))?;
        ptrace::set_signal_mask(claim.task, u64::MAX).map_err(own("blocking signals"))?;
        let filters = match tracer.is_filtered(claim.task) {
            false => Filters::None,
            true if ptrace::suspend_filters(claim.task, true).is_ok() => Filters::Suspended,
            true => Filters::Asked,
        };
        Ok(Injection {
            filters,
            tracer,
            claim,
            saved,
            mask,
            instruction,
            steps: false,
            born: RefCell::new(None),
            held: Cell::default(),
        })
    }

    /// The same for a servant, which was born with signals blocked.
    pub(crate) fn servant(
        tracer: &'a Rc<Tracer>,
        claim: &'a Claim,
        instruction: u64,
    ) -> Result<Injection<'a>, CareError> {
        let saved = ptrace::registers(claim.task).map_err(CareError::own("reading registers"))?;
        Ok(Injection {
            filters: Filters::None,
            tracer,
            claim,
            saved,
            mask: u64::MAX,
            instruction,
            steps: true,
            born: RefCell::new(None),
            held: Cell::default(),
        })
    }

    fn scripts(&self) -> &Rc<Scripts> {
        &self.tracer.scripts
    }

    pub(crate) fn task(&self) -> i32 {
        self.claim.task
    }

    pub(crate) fn saved(&self) -> &Registers {
        &self.saved
    }

    /// Uses the instruction at this address from now on.
    pub(crate) fn set_instruction(&mut self, address: u64) {
        self.instruction = address;
    }

    /// The task that the last call gave birth to.
    pub(crate) fn born(&self) -> Option<i32> {
        self.born.borrow_mut().take()
    }

    /// Makes one call; its result, or why it failed.
    pub(crate) async fn call(
        &self,
        what: &'static str,
        number: i64,
        arguments: [u64; 6],
    ) -> Result<u64, CareError> {
        // Advice about its memory is what the program asks for itself.
        if self.filters == Filters::Asked && number != libc::SYS_madvise {
            return Err(CareError::Filtered);
        }
        for _ in 0..RESTARTS_MAX {
            let result = self.once(number, arguments).await?;
            if !ptrace::will_restart(result) {
                return u64::try_from(result).map_err(|_| CareError::Call {
                    what,
                    errno: -result as i32,
                });
            }
        }
        Err(CareError::Call {
            what,
            errno: libc::EINTR,
        })
    }

    async fn once(&self, number: i64, arguments: [u64; 6]) -> Result<i64, CareError> {
        let task = self.claim.task;
        if self.claim.has_ended() {
            return Err(CareError::Ended);
        }
        ptrace::set_call(task, &self.saved, self.instruction, number, arguments)
            .map_err(CareError::own("setting registers"))?;
        // Stops that show the call's end: its entry and exit, or the one step.
        let mut left = if self.steps { 1 } else { 2 };
        let mut signal = 0;
        while left > 0 {
            match self.steps {
                true => ptrace::step(task),
                false => ptrace::resume_to_syscall(task, signal),
            }
            .map_err(CareError::own("ptrace"))?;
            signal = 0;
            match self.scripts().stop_of(self.claim).await {
                Stop::Syscall => left -= 1,
                Stop::Signal(libc::SIGTRAP) if self.steps => left -= 1,
                Stop::Birth { child, .. } => *self.born.borrow_mut() = Some(child),
                Stop::Exited(_) | Stop::Signaled(_) => return Err(CareError::Ended),
                // The others of its process stop at once, this one when it is done.
                Stop::Signal(libc::SIGSTOP) if !self.steps => signal = libc::SIGSTOP,
                Stop::Group(_) if !self.steps => self.held.set(Held::STOPPED),
                // What the filter reports is our own.
                _ => {}
            }
        }
        let registers = ptrace::registers(task).map_err(CareError::own("reading registers"))?;
        Ok(registers.rax.cast_signed())
    }

    /// Puts everything back. The thread stays stopped; it is to go on by what is
    /// returned.
    pub(crate) fn end(self) -> Result<Held, CareError> {
        let own = CareError::own;
        let task = self.claim.task;
        if self.claim.has_ended() {
            return Err(CareError::Ended);
        }
        if self.filters == Filters::Suspended {
            ptrace::suspend_filters(task, false).map_err(own("restoring filters"))?;
        }
        ptrace::set_registers(task, &self.saved).map_err(own("restoring registers"))?;
        ptrace::set_signal_mask(task, self.mask).map_err(own("restoring the signal mask"))?;
        Ok(self.held.get())
    }
}
