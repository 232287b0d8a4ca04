//! What time it is: the machine's, or a simulation's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A clock that never goes back.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's.
    Real(Instant),
    /// Nanoseconds that a simulation counts.
    Simulated(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's, from zero.
    #[must_use]
    pub fn real() -> Clock {
        Clock::Real(Instant::now())
    }

    /// The time since the clock was made.
    #[must_use]
    pub fn now(&self) -> Duration {
        match self {
            Clock::Real(start) => start.elapsed(),
            Clock::Simulated(ns) => Duration::from_nanos(ns.load(Relaxed)),
        }
    }

    /// Waits, or lets the simulation's time pass.
    pub fn sleep(&self, time: Duration) {
        match self {
            Clock::Real(_) => std::thread::sleep(time),
            Clock::Simulated(ns) => {
                ns.fetch_add(time.as_nanos() as u64, Relaxed);
            }
        }
    }

    /// Whether time passes only when the simulation says so.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        matches!(self, Clock::Simulated(_))
    }
}
