//! Locks and the clock of the pager: the standard library's, or others where a test
//! chooses the schedule. Atomics are counters, limits and flags, and stay with the
//! standard library.
//!
//! A lock outlives a panic: whoever panicked has ended the run already.

use std::sync::PoisonError;
use std::time::Duration;

#[cfg(not(feature = "schedules"))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(not(feature = "schedules"))]
pub(crate) use std::time::Instant;

#[cfg(feature = "schedules")]
pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(feature = "schedules")]
pub(crate) use zcache::schedules::Instant;

/// Locks `mutex`.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `changed` is notified, or for `most`. The guard is one of `mutex`.
#[cfg(not(feature = "schedules"))]
pub(crate) fn wait<'a, T>(
    changed: &Condvar,
    _mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    most: Duration,
) -> MutexGuard<'a, T> {
    match changed.wait_timeout(guard, most) {
        Ok((guard, _)) => guard,
        Err(poisoned) => poisoned.into_inner().0,
    }
}

/// The same where nothing takes time: whatever others do meanwhile, the time may be
/// over.
#[cfg(feature = "schedules")]
pub(crate) fn wait<'a, T>(
    _changed: &Condvar,
    mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    _most: Duration,
) -> MutexGuard<'a, T> {
    drop(guard);
    shuttle::thread::yield_now();
    lock(mutex)
}

/// Lets time pass.
#[cfg(not(feature = "schedules"))]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Lets others go on.
#[cfg(feature = "schedules")]
pub(crate) fn pause(_time: Duration) {
    shuttle::thread::yield_now();
}
