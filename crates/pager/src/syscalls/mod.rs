//! What is done about the calls that the filter reports. The calling thread makes
//! the call itself, with its own rights, descriptors, limits and errors; the
//! pager acts before it and behind it, and takes what the kernel did for the
//! truth.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use zcache_sys::process::read_memory;
use zcache_sys::ptrace::{self, Registers, Stop};

mod again;
mod droppable;
pub(crate) mod fork;
mod locked;
pub(crate) mod mapping;
mod own_faults;
mod pipes;
mod remap;
pub(crate) mod signals;
pub(crate) mod timed;
pub(crate) mod transfer;
mod uring;

use crate::pager::Pager;
use crate::process::care_error::CareError;
use crate::process::inject::{Held, Injection};
use crate::process::script::Claim;
use crate::process::tracer::{Tracer, resume};
use crate::space::Space;
use crate::space::page_table::{State, Vpn};
use mapping::Behind;

const MCL_ONFAULT: u64 = 4;
const MLOCK_ONFAULT: u64 = 1;
const PR_SET_SECCOMP: u64 = 22;
/// How long a page that a call needs is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A thread stands before a watched call; sees it through.
pub(crate) async fn watched(tracer: &Rc<Tracer>, claim: &Claim, space: Option<Arc<Space>>) {
    let Ok(registers) = ptrace::registers(claim.task) else {
        return;
    };
    let Some(space) = space else {
        if matches!(
            ptrace::call_of(&registers).0,
            libc::SYS_seccomp | libc::SYS_prctl
        ) {
            tracer.note_filter(claim.task);
        }
        resume(claim.task, 0);
        return;
    };
    let call = Watched {
        tracer,
        claim,
        space,
        registers,
    };
    call.see_through().await;
}

/// A filter of the program's own reports a call to a tracer that it has not got:
/// Linux does not make the call then.
pub(crate) fn without_tracer(thread: i32) {
    if let Ok(mut registers) = ptrace::registers(thread) {
        registers.orig_rax = u64::MAX;
        registers.rax = (-i64::from(libc::ENOSYS)).cast_unsigned();
        // It may have been killed meanwhile.
        let _ = ptrace::set_registers(thread, &registers);
    }
}

/// One call of one thread.
pub(crate) struct Watched<'a> {
    pub(crate) tracer: &'a Rc<Tracer>,
    pub(crate) claim: &'a Claim,
    pub(crate) space: Arc<Space>,
    registers: Registers,
}

impl Watched<'_> {
    pub(crate) fn pager(&self) -> &Arc<Pager> {
        &self.tracer.pager
    }

    pub(crate) fn thread(&self) -> i32 {
        self.claim.task
    }

    pub(crate) fn arguments(&self) -> [u64; 6] {
        ptrace::call_of(&self.registers).1
    }

    async fn see_through(self) {
        let (number, a) = ptrace::call_of(&self.registers);
        match number {
            libc::SYS_clone | libc::SYS_fork | libc::SYS_clone3 => self.fork(number).await,
            libc::SYS_set_tid_address => {
                self.tracer.note_cleared_word(self.thread(), a[0]);
                self.resume();
            }
            libc::SYS_seccomp => {
                self.tracer.note_filter(self.thread());
                self.resume();
            }
            libc::SYS_prctl if a[0] as u32 == PR_SET_SECCOMP as u32 => {
                self.tracer.note_filter(self.thread());
                self.resume();
            }
            libc::SYS_mlock if !self.tracer.is_filtered(self.thread()) => self.lock(a).await,
            libc::SYS_mlock2 if a[2] as u32 == 0 && !self.tracer.is_filtered(self.thread()) => {
                self.lock(a).await;
            }
            libc::SYS_mlockall
                if a[0] as u32 & 3 != 0 && !self.tracer.is_filtered(self.thread()) =>
            {
                self.rewritten(number, [a[0] | MCL_ONFAULT, a[1], a[2], a[3], a[4], a[5]])
                    .await;
            }
            libc::SYS_mlock | libc::SYS_mlock2 | libc::SYS_mlockall => self.resume(),
            libc::SYS_vmsplice => self.splice_pages(a).await,
            libc::SYS_io_uring_setup => self.make_ring(a[1]).await,
            libc::SYS_process_madvise => self.refuse(libc::EPERM),
            libc::SYS_futex => self.futex(a).await,
            libc::SYS_ioctl => self.own_userfaultfd(a).await,
            libc::SYS_unshare => self.unshare().await,
            libc::SYS_prctl => self.moved_break().await,
            _ => self.map_change(number).await,
        }
    }

    /// Lets the thread go on, if it is still there.
    pub(crate) fn resume(&self) {
        self.resume_by(Held::default());
    }

    /// The same, after calls were injected into it.
    pub(crate) fn resume_by(&self, held: Held) {
        if !self.claim.has_ended() {
            held.resume(self.thread(), 0);
        }
    }

    /// The call is made as another, or with other arguments.
    async fn rewritten(self, number: i64, arguments: [u64; 6]) {
        self.rewrite(number, arguments);
        if self.make().await.is_some() {
            self.restore();
            self.resume();
        }
    }

    fn rewrite(&self, number: i64, arguments: [u64; 6]) {
        let mut r = self.registers;
        r.orig_rax = number.cast_unsigned();
        [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9] = arguments;
        self.set_registers(&r);
    }

    /// Behind a call that was made with other arguments: no call changes the
    /// registers that hold them, and one that was interrupted begins again by its
    /// own.
    fn restore(&self) {
        if let Ok(now) = ptrace::registers(self.thread()) {
            let registers = Registers {
                rdi: self.registers.rdi,
                rsi: self.registers.rsi,
                rdx: self.registers.rdx,
                r10: self.registers.r10,
                r8: self.registers.r8,
                r9: self.registers.r9,
                orig_rax: self.registers.orig_rax,
                ..now
            };
            self.set_registers(&registers);
        }
    }

    pub(super) fn set_registers(&self, registers: &Registers) {
        if !self.claim.has_ended() {
            // It may have been killed meanwhile.
            let _ = ptrace::set_registers(self.thread(), registers);
        }
    }

    /// The call is not made, and fails.
    pub(crate) fn refuse(&self, errno: i32) {
        let mut registers = self.registers;
        registers.orig_rax = u64::MAX;
        registers.rax = (-i64::from(errno)).cast_unsigned();
        self.set_registers(&registers);
        self.resume();
    }

    /// Waits for the turn of this call at its space.
    pub(crate) async fn begin(&self) {
        let space = &self.space;
        self.tracer
            .scripts
            .until(|| space.core().try_begin_call().then_some(()))
            .await;
    }

    /// Lets the thread make the call; its result, or `None` when it was killed
    /// over it. The thread stands at the call's exit then.
    pub(crate) async fn make(&self) -> Option<i64> {
        loop {
            if self.claim.has_ended() || ptrace::resume_to_syscall(self.thread(), 0).is_err() {
                return None;
            }
            match self.tracer.scripts.stop_of(self.claim).await {
                Stop::Syscall => break,
                Stop::Exited(_) | Stop::Signaled(_) => return None,
                stop => self.on_the_way(stop),
            }
        }
        let registers = ptrace::registers(self.thread()).ok()?;
        Some(registers.rax.cast_signed())
    }

    fn on_the_way(&self, stop: Stop) {
        if let Stop::Birth { child, .. } = stop {
            // Only a fork gives birth here, and only one that lied about it.
            let _ = zcache_sys::process::kill(child, libc::SIGKILL);
        }
    }

    async fn map_change(self, number: i64) {
        self.begin().await;
        if self.is_at_our_places(number) {
            self.space.core().end_call(&self.space);
            self.refuse(libc::ENOMEM);
            return;
        }
        if let Some(parts) = self.mappings_to_move(number) {
            return self.move_mappings(number, parts).await;
        }
        let filtered = self.tracer.is_filtered(self.thread());
        let private = self.as_private(number, filtered);
        let arguments = private.unwrap_or_else(|| self.arguments());
        let plan = self
            .pager()
            .before_call(&self.space, self.thread(), number, arguments);
        let rewritten = plan.rewritten(filtered).or(private);
        if let Some(arguments) = rewritten {
            self.rewrite(number, arguments);
        }
        let result = self.make().await;
        if result.is_some() && rewritten.is_some() {
            self.restore();
        }
        let behind = self.pager().behind_call(&self.space, &plan, result);
        let mut held = Held::default();
        if result.is_some() {
            held = self.then(behind).await;
        }
        if private.is_some()
            && let Some(start) = result.and_then(|start| u64::try_from(start).ok())
        {
            held = held.or(self.wipe_in_children(start, arguments[1]).await);
        }
        self.space.core().end_call(&self.space);
        if result.is_some() {
            self.give_back_servant(&mut held).await;
            self.resume_by(held);
        }
    }

    /// Whether a call means the pager's own mappings: what is in the shadow would be
    /// lost, and what came to lie there instead would be taken for it.
    fn is_at_our_places(&self, number: i64) -> bool {
        let Some(kernel) = self.space.hands().kernel() else {
            return false;
        };
        let a = self.arguments();
        let ranges = match number {
            libc::SYS_mmap if a[3] & libc::MAP_FIXED as u64 == 0 => return false,
            libc::SYS_brk | libc::SYS_shmat => return false,
            libc::SYS_mremap if a[3] & libc::MREMAP_FIXED as u64 != 0 => {
                [(a[0], a[1]), (a[4], a[2])]
            }
            _ => [(a[0], a[1]), (0, 0)],
        };
        let whole = |(start, len)| mapping::whole_pages(start, len);
        ranges
            .into_iter()
            .map(whole)
            .any(|pages| kernel.places.overlap(&(pages.start << 12..pages.end << 12)))
    }

    /// What the same thread still has to do for its call to have its meaning.
    async fn then(&self, behind: Behind) -> Held {
        let (number, arguments) = match behind {
            Behind::Nothing => return Held::default(),
            Behind::Drop { address, len } => {
                let advice = libc::MADV_DONTNEED as u64;
                (
                    libc::SYS_madvise,
                    [address, len, advice, 0, 0, self.pager().secret],
                )
            }
            Behind::Lock {
                address,
                len,
                protection,
            } => {
                let lock = [address, len, MLOCK_ONFAULT, 0, 0, self.pager().secret];
                let (_, held) = self.inject("mlock2", libc::SYS_mlock2, lock).await;
                let open = [address, len, protection, 0, 0, 0];
                let (_, again) = self.inject("mprotect", libc::SYS_mprotect, open).await;
                return held.or(again);
            }
        };
        self.inject("madvise", number, arguments).await.1
    }

    /// Has the thread, which stands at the exit of its call, make another one.
    /// Returns the result, and how the thread is to go on.
    pub(crate) async fn inject(
        &self,
        what: &'static str,
        number: i64,
        arguments: [u64; 6],
    ) -> (Option<u64>, Held) {
        let (result, held) = self.try_inject(what, number, arguments).await;
        (result.ok(), held)
    }

    /// As [`Watched::inject`], with the error.
    async fn try_inject(
        &self,
        what: &'static str,
        number: i64,
        arguments: [u64; 6],
    ) -> (Result<u64, CareError>, Held) {
        let registers = ptrace::registers(self.thread());
        let begun = registers
            .map_err(CareError::own("reading registers"))
            .and_then(|now| Injection::begin(self.tracer, self.claim, now.rip - 2));
        let injection = match begun {
            Ok(injection) => injection,
            Err(error) => return (Err(error), Held::default()),
        };
        let result = injection.call(what, number, arguments).await;
        (result, injection.end().unwrap_or_default())
    }

    /// The call has another result.
    fn answer(&self, result: i64) {
        if let Ok(registers) = ptrace::registers(self.thread()) {
            self.set_registers(&Registers {
                rax: result.cast_unsigned(),
                ..registers
            });
        }
    }

    /// A space that has lost its servant gets another one, now that one of its
    /// threads stands still.
    async fn give_back_servant(&self, held: &mut Held) {
        if self.space.is_closing() || self.space.hands().can_evict() {
            return;
        }
        if !self.tracer.may_renew(&self.space) {
            return;
        }
        // If it is refused, it is tried again some time.
        let renewed = self.tracer.renew_servant(self.claim, &self.space, held);
        let _ = renewed.await;
    }

    /// The kernel reads and writes these words without asking for their pages:
    /// they are brought, and stay while the call lasts.
    async fn futex(self, a: [u64; 6]) {
        let mut pages = vec![Vpn::of(a[0])];
        if a[4] != 0 {
            pages.push(Vpn::of(a[4]));
        }
        self.hold_pages(&pages).await;
        let result = self.make().await;
        let mut core = self.space.core();
        for page in &pages {
            core.unpin(*page, self.pager().next_stamp());
        }
        drop(core);
        if result.is_some() {
            self.resume();
        }
    }

    /// Brings pages that the kernel will touch without asking, and has them stay.
    pub(crate) async fn hold_pages(&self, pages: &[Vpn]) {
        let missing = self.pin(pages);
        let thread = self.thread();
        for page in missing {
            self.bring(thread, page).await;
        }
    }

    /// Has pages stay; returns those that are not there.
    fn pin(&self, pages: &[Vpn]) -> Vec<Vpn> {
        let mut core = self.space.core();
        for page in pages {
            core.pin(*page);
        }
        let is_out = |page: &Vpn| !matches!(core.table.get(*page), State::Resident | State::Absent);
        pages.iter().copied().filter(is_out).collect()
    }

    /// Touches a page from outside, which brings it as the program's own touch
    /// would.
    async fn bring(&self, thread: i32, page: Vpn) {
        self.tracer
            .elsewhere(move |_| {
                let mut byte = [0u8];
                // Where nothing is mapped the call itself says so.
                let _ = read_memory(thread, page.address(), &mut byte);
            })
            .await;
    }

    /// Some namespaces are only left by a process that shares its memory with
    /// nobody: its servant goes, and another one comes.
    async fn unshare(self) {
        self.begin().await;
        let kernel = self.space.hands().kernel();
        let servant = kernel.and_then(crate::space::hands::Kernel::servant);
        if let Some(servant) = &servant {
            self.tracer.dismiss(servant, &self.space).await;
        }
        let result = self.make().await;
        self.space.core().end_call(&self.space);
        if result.is_some() {
            let mut held = Held::default();
            if let (Some(servant), Ok(registers)) = (&servant, ptrace::registers(self.thread())) {
                let reaped = self
                    .tracer
                    .reap_servant(self.claim, servant, registers.rip - 2);
                held = reaped.await;
            }
            self.give_back_servant(&mut held).await;
            self.resume_by(held);
        }
    }

    /// The heap's end may be somewhere else now.
    async fn moved_break(self) {
        self.begin().await;
        let result = self.make().await;
        let mut held = Held::default();
        if result == Some(0) {
            let arguments = [0, 0, 0, 0, 0, self.pager().secret];
            let (brk, stopped) = self.inject("brk", libc::SYS_brk, arguments).await;
            held = stopped;
            if let Some(brk) = brk {
                self.space.core().brk = brk;
            }
        }
        self.space.core().end_call(&self.space);
        if result.is_some() {
            self.resume_by(held);
        }
    }
}
