//! The watch on the source's filesystem: what is changed beside the mount, by
//! whom ever, but not what this process changes itself.
//!
//! Stage: between Linux and `serve::beside`, which says what follows.
//!
//! - The kernel's queue is bounded (`fs.fanotify.max_queued_events`); what does
//!   not fit is told as one overflow, after which anything may have changed.
//! - Events are taken by one thread at a time, in their order: by the thread
//!   that watches, or by an open that must know of all that was told before it.
//! - A watch that cannot be read is lost for good.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use zcache_sys::fanotify::{self, Event, events};

/// Room for what is taken at once: some 700 events.
const TAKEN_BYTES: usize = 64 << 10;

/// Takes that empty a full queue of the usual 16384 events, with as many more.
const TAKES_MAX: usize = 64;

/// What came of taking events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// All that was told is applied; whether any of it mattered.
    All { mattered: bool },
    /// More keeps coming.
    NotAll,
    /// The watch is lost, since just now.
    Lost,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Watch {
    told: fanotify::Watch,
    buffer: Mutex<Vec<u8>>,
    lost: AtomicBool,
    /// Changes beside us of files and folders that the kernel knows by us.
    pub(crate) changes: AtomicU64,
    pub(crate) overflows: AtomicU64,
}

impl Watch {
    pub(crate) fn new(told: fanotify::Watch) -> Watch {
        Watch {
            told,
            buffer: Mutex::new(vec![0; TAKEN_BYTES]),
            lost: AtomicBool::new(false),
            changes: AtomicU64::new(0),
            overflows: AtomicU64::new(0),
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Relaxed)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.told.as_fd()
    }

    /// Applies all that was told until now. `apply` says whether it mattered.
    pub(crate) fn take(&self, mut apply: impl FnMut(Event<'_>) -> bool) -> Taken {
        let own = std::process::id().cast_signed();
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut mattered = false;
        for _ in 0..TAKES_MAX {
            match self.told.take(&mut buffer) {
                Ok(0) => return Taken::All { mattered },
                Ok(len) => {
                    for event in events(&buffer[..len], own) {
                        mattered |= apply(event);
                    }
                }
                Err(_) if self.lost.swap(true, Relaxed) => return Taken::NotAll,
                Err(_) => return Taken::Lost,
            }
        }
        Taken::NotAll
    }
}
