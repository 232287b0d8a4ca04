//! What operators should hear of while the store runs. Each condition is said
//! once when it begins and once when it ends, however often it recurs meanwhile.

use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};

use crate::error::LoadError;

/// Something worth a line in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The tier refused a block; pages stay in RAM and the write is tried
    /// again, at growing intervals.
    WritebackFailed {
        /// The system's error number.
        errno: i32,
    },
    /// The tier takes blocks again.
    WritebackResumed,
    /// The tier holds as many blocks as it may.
    TierFull {
        /// The bytes it holds.
        bytes: u64,
    },
    /// A page cannot be given back. Said for every page.
    PageLost(LoadError),
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Event::WritebackFailed { errno } => write!(
                f,
                "cannot write to swap, pages stay in RAM: {}",
                std::io::Error::from_raw_os_error(*errno)
            ),
            Event::WritebackResumed => f.write_str("writing to swap again"),
            Event::TierFull { bytes } => write!(f, "swap is full at {bytes} bytes"),
            Event::PageLost(error) => write!(f, "lost {error}"),
        }
    }
}

pub(crate) type Hook = Box<dyn Fn(&Event) + Send + Sync>;

/// Who listens, and which conditions have been said.
#[derive(Default)]
pub(crate) struct Events {
    hook: OnceLock<Hook>,
    failing: AtomicBool,
    /// The error number of the last write that failed.
    errno: AtomicI32,
    full: AtomicBool,
}

impl Events {
    pub(crate) fn set_hook(&self, hook: Hook) -> bool {
        self.hook.set(hook).is_ok()
    }

    pub(crate) fn page_lost(&self, error: LoadError) {
        self.say(&Event::PageLost(error));
    }

    pub(crate) fn writeback_failed(&self, errno: i32) {
        self.errno.store(errno, Relaxed);
        if !self.failing.swap(true, Relaxed) {
            self.say(&Event::WritebackFailed { errno });
        }
    }

    /// A batch was written; `has_room` when the tier is clearly not full.
    pub(crate) fn writeback_worked(&self, has_room: bool) {
        if has_room {
            self.full.store(false, Relaxed);
        }
        if self.failing.load(Relaxed) && self.failing.swap(false, Relaxed) {
            self.say(&Event::WritebackResumed);
        }
    }

    /// What keeps the tier from taking blocks now, as far as is known.
    pub(crate) fn trouble(&self, full_bytes: u64) -> Option<Event> {
        if self.failing.load(Relaxed) {
            let errno = self.errno.load(Relaxed);
            return Some(Event::WritebackFailed { errno });
        }
        let full = self.full.load(Relaxed);
        full.then_some(Event::TierFull { bytes: full_bytes })
    }

    pub(crate) fn tier_full(&self, bytes: u64) {
        if !self.full.swap(true, Relaxed) {
            self.say(&Event::TierFull { bytes });
        }
    }

    fn say(&self, event: &Event) {
        if let Some(hook) = self.hook.get() {
            hook(event);
        }
    }
}
