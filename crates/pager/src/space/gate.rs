//! Whose turn it is to change a space's memory map or to move its pages.
//!
//! A call of the program's holds the gate from before it begins until its
//! outcome has been taken into account; an evictor, while it moves a batch. So
//! no page moves while a mapping changes, and of two calls the second begins
//! when the first is known. Nobody sleeps for the gate who serves others: the
//! tracer leaves a thread stopped whose turn has not come.
//!
//! Invariant: at most one holder. Calls do not keep evictors out for ever: while
//! one waits, the next turn is its.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Core, Space};
use crate::sync::Instant;

/// Who has the turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Holder {
    /// A call of a thread of the program.
    Call,
    /// An evictor.
    Evictor,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    holder: Option<Holder>,
    evictors_waiting: u32,
    /// A call has asked and was told to wait.
    call_waits: bool,
}

impl Gate {
    /// Whether an evictor moves pages.
    pub(crate) fn is_eviction(&self) -> bool {
        self.holder == Some(Holder::Evictor)
    }

    /// Whether a call is under way.
    pub(crate) fn is_call(&self) -> bool {
        self.holder == Some(Holder::Call)
    }
}

impl Core {
    /// Gives the turn to a call, or notes that one waits.
    pub(crate) fn try_begin_call(&mut self) -> bool {
        let free = self.gate.holder.is_none() && self.gate.evictors_waiting == 0;
        if free {
            self.gate.holder = Some(Holder::Call);
        }
        self.gate.call_waits = !free;
        free
    }

    /// The call's outcome is known: the turn is over, and faults that waited for
    /// it are asked again.
    pub(crate) fn end_call(&mut self, space: &Space) {
        assert!(self.gate.is_call(), "only a call that began can end");
        self.gate.holder = None;
        self.busy.clear();
        space.wake_deferred(self);
        space.changed.notify_all();
    }

    /// An evictor's turn is over. Returns whether a call waits for its own.
    pub(crate) fn end_eviction(&mut self, space: &Space) -> bool {
        assert_eq!(self.gate.holder, Some(Holder::Evictor));
        self.gate.holder = None;
        space.wake_deferred(self);
        space.changed.notify_all();
        std::mem::take(&mut self.gate.call_waits)
    }
}

impl Space {
    /// Waits for an evictor's turn, for at most `patience`.
    pub(crate) fn begin_eviction(&self, patience: Duration) -> bool {
        let start = Instant::now();
        let mut core = self.core();
        core.gate.evictors_waiting += 1;
        while core.gate.holder.is_some() && start.elapsed() < patience {
            if self.closing.load(Ordering::Acquire) {
                break;
            }
            core = self.wait_core(core, Duration::from_millis(1));
        }
        core.gate.evictors_waiting -= 1;
        let free = core.gate.holder.is_none() && !self.closing.load(Ordering::Acquire);
        if free {
            core.gate.holder = Some(Holder::Evictor);
        }
        free
    }
}
