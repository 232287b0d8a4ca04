//! A clock for tests that choose schedules: each look at it is a millisecond after the last, so that a schedule replays
//! whatever the machine does meanwhile.
//!
//! Does not: advance while nobody looks.

use std::cell::Cell;
use std::ops::Add;
use std::time::Duration;

const STEP: Duration = Duration::from_millis(1);

thread_local! {
    // Threads of a schedule all run in one of the system's.
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// A time of this clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Instant(Duration);

impl Instant {
    /// Now, a millisecond after the last look.
    #[must_use]
    pub fn now() -> Instant {
        let now = NOW.get() + STEP;
        NOW.set(now);
        Instant(now)
    }

    /// How long that was ago.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Instant::now().0 - self.0
    }

    /// How long that one was before this one.
    #[must_use]
    pub fn duration_since(&self, earlier: Instant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, later: Duration) -> Instant {
        Instant(self.0 + later)
    }
}

/// Begins anew, as every schedule does.
pub fn restart() {
    NOW.set(Duration::ZERO);
}
