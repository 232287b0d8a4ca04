//! Cold pages of a mount are compressed harder while it is idle: what `zcache`
//! has to know of the mount for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use zcache::{Idler, Store};

use crate::budget::Budget;
use crate::serve::Filesystem;
use crate::worker::Requests;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) filesystem: Arc<Filesystem>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) gone: Arc<AtomicBool>,
}

impl Idler for Idle {
    fn store(&self) -> &Store {
        &self.filesystem.cache.store
    }

    fn has_ended(&self) -> bool {
        self.gone.load(Relaxed)
    }

    fn wanted_pages(&self) -> u64 {
        self.requests.served.load(Relaxed)
    }

    /// What there is no room for just goes, so memory is never short.
    fn is_pressed(&self) -> bool {
        false
    }

    fn within_room(&self, bytes: u64, work: &mut dyn FnMut()) {
        self.budget.within_room(&self.filesystem.cache, bytes, work);
    }

    fn spent(&self, cpu_time: Duration) {
        let counts = &self.filesystem.cache.counts;
        counts
            .cold_cpu_ns
            .store(cpu_time.as_nanos() as u64, Relaxed);
    }
}
