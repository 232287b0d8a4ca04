//! Taking an address space into care: it gets a servant ([`super::servant`]), and what
//! has to be watched in it is registered ([`super::adopt`]).
//!
//! Happens before the first instruction of the program there: after an exec and
//! at the birth of a forked child; and again, at some later stop, when the
//! servant was lost.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use zcache_sys::fd::PidFd;
use zcache_sys::process::read_memory;
use zcache_sys::ptrace;

use super::care_error::CareError;
use super::inject::{Held, Injection};
use super::script::Claim;
use super::servant::{Before, Care, find_vdso};
use super::tracer::Tracer;
use crate::space::Space;

const USER_CODE_64: u64 = 0x33;

/// Finds a `syscall` instruction in the vDSO.
fn find_syscall(pid: i32, base: u64) -> Option<u64> {
    let mut code = vec![0u8; 16_384];
    let mut got = 0;
    for chunk in code.chunks_mut(4096) {
        got += read_memory(pid, base + got as u64, chunk).unwrap_or(0);
    }
    let at = code[..got]
        .windows(2)
        .position(|pair| pair == [0x0f, 0x05])?;
    Some(base + at as u64)
}

impl Tracer {
    /// After an exec: takes the new image into care. The process is stopped at
    /// the exit of its exec. Returns its space.
    pub(crate) async fn care_for_image(
        self: &Rc<Self>,
        claim: &Claim,
        held: &mut Held,
    ) -> Result<Arc<Space>, CareError> {
        let pid = claim.task;
        let registers = ptrace::registers(pid).map_err(CareError::own("reading registers"))?;
        if registers.cs != USER_CODE_64 {
            return Err(CareError::NotX86_64);
        }
        let vdso = find_vdso(pid)?;
        let entry = find_syscall(pid, vdso).ok_or(CareError::NoEntry)?;
        let injection = Injection::begin(self, claim, entry)?;
        let brk = injection.call("brk", libc::SYS_brk, [0; 6]).await;
        let cared = self.give_servant(&injection, claim, Before::Nothing).await;
        *held = held.or(injection.end()?);
        let (brk, care) = (brk?, cared?);
        let space = Space::new(
            self.pager.new_space_id(),
            pid,
            self.pager.sizes.shadow_slots,
        );
        space.core().brk = brk;
        let space = Arc::new(space);
        self.equip(&space, care, pid)?;
        self.pager.adopt_image(&space)?;
        self.pager.pin_words_of_start(&space, pid);
        Ok(space)
    }

    /// After a fork: gives the child's space, whose table is there already, hands
    /// of its own. The process is stopped before its first instruction.
    pub(crate) async fn care_for_child(
        self: &Rc<Self>,
        claim: &Claim,
        space: &Arc<Space>,
        held: &mut Held,
    ) -> Result<(), CareError> {
        let pid = claim.task;
        let registers = ptrace::registers(pid).map_err(CareError::own("reading registers"))?;
        let injection = Injection::begin(self, claim, registers.rip - 2)?;
        let before = space
            .places
            .get()
            .copied()
            .map_or(Before::Nothing, Before::Parent);
        let cared = self.give_servant(&injection, claim, before).await;
        *held = held.or(injection.end()?);
        space.leader.store(pid, Ordering::Relaxed);
        self.equip(space, cared?, pid)?;
        self.pager.adopt_child(space)
    }

    /// A space that has lost its servant gets another; `claim` is one of its
    /// threads, stopped at the exit of a system call.
    pub(crate) async fn renew_servant(
        self: &Rc<Self>,
        claim: &Claim,
        space: &Arc<Space>,
        held: &mut Held,
    ) -> Result<(), CareError> {
        let Some(kernel) = space.hands().kernel() else {
            return Ok(());
        };
        let registers =
            ptrace::registers(claim.task).map_err(CareError::own("reading registers"))?;
        let injection = Injection::begin(self, claim, registers.rip - 2)?;
        let cared = self
            .give_servant(&injection, claim, Before::Lost(kernel))
            .await;
        *held = held.or(injection.end()?);
        let mut care = cared?;
        care.leash.0 = None;
        kernel.take_over(care.hands);
        self.know_servant(&care.servant, space);
        space.told.store(false, Ordering::Release);
        Ok(())
    }

    fn equip(
        self: &Rc<Self>,
        space: &Arc<Space>,
        mut care: Care,
        pid: i32,
    ) -> Result<(), CareError> {
        let process = PidFd::open(pid).map_err(CareError::own("pidfd_open"))?;
        let _ = space.process.set(process);
        care.leash.0 = None;
        let inside = care.servant.pid != care.servant.inner_pid;
        space.knows_threads.store(!inside, Ordering::Relaxed);
        self.know_servant(&care.servant, space);
        space.equip(Box::new(care.hands), Some(care.uffd));
        Ok(())
    }
}
