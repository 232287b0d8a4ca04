//! Locks, atomics, thread-locals and the clock of the store: the standard library's, or others where a test chooses the
//! schedule.
//!
//! Stage on the data path: under every stage that is shared between threads. Working memory is lent without waiting, so no
//! schedule depends on it, and stays with the standard library.
//!
//! - Nothing in the store that decides what a thread does next comes from elsewhere, so a schedule replays.

#[cfg(feature = "schedules")]
pub(crate) mod clock;
#[cfg(feature = "schedules")]
pub(crate) mod local;

#[cfg(not(feature = "schedules"))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, RwLock, atomic};
#[cfg(not(feature = "schedules"))]
pub(crate) use std::{thread::yield_now, thread_local, time::Instant};

#[cfg(feature = "schedules")]
pub(crate) use clock::Instant;
#[cfg(feature = "schedules")]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, atomic},
    thread::yield_now,
    thread_local,
};

// No schedule depends on these.
pub(crate) use std::sync::{Arc, OnceLock, PoisonError, Weak};

/// Locks, whether or not somebody panicked under the lock: that is a bug of ours which
/// the core's assertions found, and other shards and readers go on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
