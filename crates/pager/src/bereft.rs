//! What is left of a space when its servant was killed by somebody else.
//!
//! Stage on the data path: beside it. Nothing of such a space can be evicted or
//! mapped any more, but no page of it is lost by that: what had been moved when
//! the servant died stands in its ring, and the shadow is read through the
//! program itself. Its process is told by SIGBUS, since it cannot be held
//! within the budget.
//!
//! Invariant: a slot of the shadow that holds nothing is never read as zeros.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use zcache_sys::fd::wait_readable;
use zcache_sys::process::{self, read_memory};
use zcache_sys::servant::SHADOW_BASE;

use crate::budget::PAGE_BYTES;
use crate::pager::{Pager, say};
use crate::space::Space;
use crate::table::{Slot, Vpn};

/// How long the end of the servant's process is awaited, which ends its servant.
const PATIENCE: Duration = Duration::from_millis(500);

impl Space {
    /// Whether pages can be moved and given back: there is a servant that lives.
    pub(crate) fn has_servant(&self) -> bool {
        self.servant.get().is_some() && !self.servant_gone.load(Ordering::Acquire)
    }

    /// Looks whether the servant has ended, and remembers it.
    pub(crate) fn servant_ended(&self) -> bool {
        let Some(servant) = self.servant.get() else {
            return false;
        };
        if matches!(
            wait_readable(servant.pidfd.as_fd(), Duration::ZERO),
            Ok(true)
        ) {
            self.servant_gone.store(true, Ordering::Release);
        }
        self.servant_gone.load(Ordering::Acquire)
    }

    /// Reads slots of the shadow from `first` on; returns how many bytes could
    /// be read, none of them from an empty slot.
    ///
    /// # Errors
    /// What `process_vm_readv` says.
    pub(crate) fn read_shadow(&self, first: Slot, buffer: &mut [u8]) -> io::Result<usize> {
        let source = SHADOW_BASE + u64::from(first.0) * PAGE_BYTES;
        let read = read_memory(self.reader(), source, buffer);
        if read.is_ok() {
            return read;
        }
        // A servant on its way out has no memory before its end is told. With it
        // goes the descriptor that kept empty slots from reading as zeros, so
        // only what the kernel has is read.
        let pages = buffer.len() as u64 / PAGE_BYTES;
        let there = (0..pages)
            .take_while(|ahead| self.is_present(Vpn(source / PAGE_BYTES + ahead)) == Some(true))
            .count();
        read_memory(
            self.leader(),
            source,
            &mut buffer[..there * PAGE_BYTES as usize],
        )
    }
}

impl Pager {
    /// The servant of a space does not answer. When its process is ending
    /// anyway that is as it should be; else the process is told by SIGBUS.
    pub(crate) fn servant_died(&self, space: &Space) {
        if space.failed.load(Ordering::Acquire) {
            return;
        }
        let step = Duration::from_millis(5);
        for _ in 0..PATIENCE.as_millis() / step.as_millis() {
            if space.is_closing() {
                return;
            }
            std::thread::sleep(step);
        }
        let Some(servant) = space.servant.get() else {
            return;
        };
        if space.failed.swap(true, Ordering::AcqRel) {
            return;
        }
        say!(
            "process {}: its servant (zcache-servant, process {}) was killed; it cannot be paged any more and gets SIGBUS",
            space.leader(),
            servant.pid
        );
        // It may have ended meanwhile.
        let _ = process::kill(space.leader(), libc::SIGBUS);
    }
}
