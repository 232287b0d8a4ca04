//! What operators should hear of while the store runs. Each trouble is said once
//! when it begins and once when it has clearly ended, however often it recurs
//! meanwhile.
//!
//! - The hook runs with no lock held, and with no block on its way in its thread.
//! - What a hook brings about is not said to it from within: there is no hook
//!   inside a hook. A trouble that begins or ends then is said later.

use crate::store::inside::Inside;
use crate::sync::{Mutex, OnceLock, lock};

use crate::error::LoadError;

/// Something worth a line in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The tier refused a block; pages stay in RAM and the write is tried
    /// again, at growing intervals. Where there was no room, places that were
    /// written before are used meanwhile.
    WritebackFailed {
        /// The system's error number.
        errno: i32,
    },
    /// The tier takes blocks again: it works, or has room.
    WritebackResumed,
    /// The tier holds as many blocks as it may.
    TierFull {
        /// The bytes it holds.
        bytes: u64,
    },
    /// This process was forked from the one that opened the store. It can read
    /// what was in the tier at that time, for as long as the other one has not
    /// written there again, and writes nothing.
    Forked,
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
            Event::Forked => f.write_str(
                "this process was forked from the one that swaps, and pages of it stay in RAM; \
                 a store that is opened after the fork can swap",
            ),
            Event::PageLost(error) => write!(f, "lost {error}"),
        }
    }
}

/// What keeps blocks in RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) enum Trouble {
    /// The process was forked. It has no end.
    Forked,
    /// The medium failed.
    Failing { errno: i32 },
    /// The tier cannot grow.
    NoRoom { errno: i32 },
    /// The tier holds all it may.
    Full { bytes: u64 },
}

impl Trouble {
    pub(in crate::store) fn event(self) -> Event {
        match self {
            Trouble::Forked => Event::Forked,
            Trouble::Failing { errno } | Trouble::NoRoom { errno } => {
                Event::WritebackFailed { errno }
            }
            Trouble::Full { bytes } => Event::TierFull { bytes },
        }
    }

    /// Whether it is over only when there is clearly room, so that one place that
    /// is freed and taken in turn is no news.
    fn is_of_room(self) -> bool {
        matches!(self, Trouble::NoRoom { .. } | Trouble::Full { .. })
    }
}

pub(crate) type Hook = Box<dyn Fn(&Event) + Send + Sync>;

/// Who listens, and which trouble has been said to have begun.
#[derive(Default)]
pub(crate) struct Events {
    hook: OnceLock<Hook>,
    told: Mutex<Option<Trouble>>,
}

impl Events {
    pub(crate) fn set_hook(&self, hook: Hook) -> bool {
        self.hook.set(hook).is_ok()
    }

    pub(crate) fn page_lost(&self, error: LoadError) {
        if let Some(_inside) = Inside::enter_once(self) {
            self.say(&Event::PageLost(error));
        }
    }

    /// Says what has begun or ended. `has_room` when the tier is clearly not
    /// full.
    pub(in crate::store) fn settle(&self, trouble: Option<Trouble>, has_room: bool) {
        let Some(_inside) = Inside::enter_once(self) else {
            return;
        };
        let mut told = lock(&self.told);
        let event = match (*told, trouble) {
            (None, None) => return,
            // The same, whatever its number is by now.
            (Some(before), Some(now))
                if std::mem::discriminant(&before.event())
                    == std::mem::discriminant(&now.event()) =>
            {
                *told = trouble;
                return;
            }
            (_, Some(now)) => now.event(),
            (Some(before), None) if before.is_of_room() && !has_room => return,
            (Some(_), None) => Event::WritebackResumed,
        };
        *told = trouble;
        drop(told);
        self.say(&event);
    }

    fn say(&self, event: &Event) {
        if let Some(hook) = self.hook.get() {
            hook(event);
        }
    }
}
