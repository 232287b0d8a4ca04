//! The trainer: a thread of low priority that has the store learn dictionaries
//! from the pages that go into it.
//!
//! Stage on the data path: beside the store. What the next step needs is made
//! room for first, as for a fault; a step that gets no room is put off.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use zcache_sys::process::lower_priority;

use crate::budget::PAGE_BYTES;
use crate::pager::{Pager, say};

/// Between two looks at whether a step is due.
const PERIOD: Duration = Duration::from_millis(20);
/// How long a step waits for room.
const PATIENCE: Duration = Duration::from_secs(1);
/// A third of the weight that other threads have where all processors are busy:
/// the first dictionary comes within a second, and nobody is held up by it.
const NICENESS: i32 = 5;

impl Pager {
    /// Does what takes so many bytes of the store's RAM once there is room for
    /// them. `None` when there was none within `patience`.
    pub(crate) fn within_room<T>(
        &self,
        bytes: u64,
        patience: Duration,
        work: impl FnOnce() -> T,
    ) -> Option<T> {
        let pages = bytes.div_ceil(PAGE_BYTES);
        // The evictors go on until the work has counted what it takes.
        let _wanted = self.budget.want(pages);
        if !self.make_room(pages, patience) {
            return None;
        }
        let result = work();
        // The store's frames have to give way to what it counted now.
        self.limit_store();
        Some(result)
    }

    /// Trains until the run ends.
    pub(crate) fn train(self: &Arc<Self>) {
        if let Err(error) = lower_priority(NICENESS) {
            say!("the trainer of dictionaries keeps its priority ({error})");
        }
        while !self.stopping.load(Ordering::Relaxed) {
            std::thread::sleep(PERIOD);
            if let Some(bytes) = self.store.training_due_bytes() {
                self.within_room(bytes, PATIENCE, || self.store.train());
            }
        }
    }
}
