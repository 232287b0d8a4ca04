//! Cold pages of a run are compressed harder while the program is idle: what
//! `zcache` has to know of the pager for that.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use zcache::{Idler, Store, recompress_when_idle};

use crate::pager::Pager;

/// How long new tables wait for room.
const PATIENCE: Duration = Duration::from_millis(200);

impl Idler for Pager {
    fn store(&self) -> &Store {
        &self.store
    }

    fn has_ended(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn wanted_pages(&self) -> u64 {
        self.counters.faults.get()
    }

    fn is_pressed(&self) -> bool {
        self.budget.is_low() || self.stalled.load(Ordering::Relaxed) > 0
    }

    fn within_room(&self, bytes: u64, work: &mut dyn FnMut()) {
        // Without room it stays undone, and is asked for again.
        let _ = Pager::within_room(self, bytes, PATIENCE, work);
    }

    fn spent(&self, cpu_time: Duration) {
        self.counters.cold_cpu_ns.set(cpu_time.as_nanos() as u64);
    }
}

impl Pager {
    /// Recompresses until the run ends.
    pub(crate) fn recompress(self: &Arc<Self>) {
        // Who may not leave the idle class again cannot use it: cold pages keep
        // their codec then, as they do where the machine is never idle.
        let _ = recompress_when_idle(&**self, self.config.cold_cpu_percent);
    }
}
