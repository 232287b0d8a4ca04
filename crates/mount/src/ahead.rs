//! Pages that leave RAM for other tiers before their room is needed.
//!
//! Stage on the data path: behind the store. A thread of its own waits for the tiers;
//! who keeps a page only wakes it.
//!
//! - Where it is too late, or the tiers take nothing, pages are dropped from RAM as
//!   they are without tiers. So they are while the source is far cheaper to read than
//!   the tiers are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::cache::Worth;
use crate::serve::Filesystem;

/// After the tiers took nothing, they are asked again no sooner; each time in vain doubles
/// it, up to the longest.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What is written at once, so that the end and the costs are looked at in between.
const STEP_BYTES: u64 = 1 << 20;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Whether the thread was woken and has not looked yet.
    woken: AtomicBool,
    ended: Mutex<bool>,
    wake: Condvar,
}

impl Ahead {
    /// Has the thread look, if it does not anyhow.
    pub(crate) fn wake(&self) {
        if !self.woken.swap(true, Relaxed) {
            let _ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            self.wake.notify_one();
        }
    }

    /// Ends the thread once it has done what it does.
    pub(crate) fn end(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_one();
    }

    /// Waits until it is woken, or for `longest`. False at the end.
    fn wait(&self, longest: Option<Duration>) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = match longest {
            Some(longest) => {
                let still = |ended: &mut bool| !*ended;
                let waited = self.wake.wait_timeout_while(ended, longest, still);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let still = |ended: &mut bool| !*ended && !self.woken.load(Relaxed);
                let waited = self.wake.wait_while(ended, still);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
        !*ended
    }
}

impl Filesystem {
    /// Writes pages ahead of need until the mount is gone.
    pub(crate) fn keep_writing_ahead(self: &Arc<Self>) {
        let (ahead, store) = (&self.cache.ahead, &self.cache.store);
        let mut pause = PAUSE;
        while ahead.wait(None) {
            ahead.woken.store(false, Relaxed);
            while let Some(bytes) = store.ahead_due_bytes() {
                let is_worth_it = self.cache.worth.as_ref();
                let is_worth_it = is_worth_it.is_none_or(Worth::are_tiers_worth_it);
                let done = match is_worth_it {
                    true => store.write_back_ephemeral(bytes.min(STEP_BYTES)),
                    false => store.reclaim(bytes),
                };
                // What was dropped in the tiers has made no room in RAM yet.
                let in_vain = done.bytes == 0 || is_worth_it && done.pages == 0;
                if !ahead.wait(Some(if in_vain { pause } else { Duration::ZERO })) {
                    return;
                }
                pause = match in_vain {
                    true => (pause * 2).min(PAUSE_MAX),
                    false => PAUSE,
                };
            }
        }
    }
}
