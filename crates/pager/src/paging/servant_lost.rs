//! What is left of a space whose servant was killed or does not run.
//!
//! Stage on the data path: beside it. Nothing of such a space can be evicted, but
//! no page of it is lost: what had been moved is where the page map says, and
//! the shadow is read through the program itself. The user is told once. The
//! process gets another servant when it stops for the tracer next; until then it
//! takes the RAM that it has, and harms nobody else.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::pager::{Pager, say};
use crate::space::Space;
use crate::sync::{Instant, lock};

/// A busy machine keeps a servant from running for a while; a user wants to hear of
/// more than that.
const SILENT: Duration = Duration::from_secs(5);

impl Pager {
    /// The servant of a space has ended although nobody asked it to.
    pub(crate) fn servant_lost(&self, space: &Space) {
        if !space.is_closing() && !space.told.swap(true, Ordering::AcqRel) {
            say!(
                "process {}: its helper (zcache-servant) was killed; until it has another, its memory stays in RAM",
                space.leader()
            );
        }
    }

    /// The servant of a space does not run: it is frozen with its process, or
    /// gets no processor.
    pub(crate) fn servant_stuck(&self, space: &Space) {
        self.counters.stuck_batches.add(1);
        let now = Instant::now();
        let since = *lock(&space.stuck_since).get_or_insert(now);
        if now.duration_since(since) < SILENT {
            return;
        }
        if !space.is_closing() && !space.told.swap(true, Ordering::AcqRel) {
            say!(
                "process {}: its helper (zcache-servant) does not run (frozen?); until it does, its memory stays in RAM",
                space.leader()
            );
        }
    }
}
