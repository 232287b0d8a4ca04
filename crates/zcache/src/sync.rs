//! Locks, atomics and threads of the store: the standard library's, or shuttle's where a test chooses the schedule.
//!
//! Stage on the data path: under every stage that is shared between threads. Working memory is lent without
//! waiting, so no schedule depends on it, and stays with the standard library.

#[cfg(not(feature = "schedules"))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, RwLock, atomic};

#[cfg(feature = "schedules")]
pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard, RwLock, atomic};

// No schedule depends on these.
pub(crate) use std::sync::{Arc, OnceLock, PoisonError, Weak};
