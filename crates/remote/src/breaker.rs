//! Whether a node is asked at all.
//!
//! Closed: it is. Open: it is not, until a probe is due; the probe is the node's
//! own worker's, so no fault ever waits for it. A probe that fails doubles the
//! wait.
//!
//! - `failures < FAILURES_MAX && late < LATE_MAX` while closed.

use std::time::Duration;

/// Failures in a row that open it.
const FAILURES_MAX: u32 = 3;

/// Reads in a row without an answer in time that open it.
const LATE_MAX: u32 = 8;

const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(4);

/// The breaker of one node.
#[derive(Debug)]
pub(crate) struct Breaker {
    failures: u32,
    late: u32,
    wait: Duration,
    /// When open, when it may be probed.
    probe_at: Option<Duration>,
    opened_at: Duration,
    /// How often it opened.
    pub(crate) opened: u64,
}

impl Breaker {
    pub(crate) fn new() -> Breaker {
        Breaker {
            failures: 0,
            late: 0,
            wait: WAIT_MIN,
            probe_at: None,
            opened_at: Duration::ZERO,
            opened: 0,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.probe_at.is_some()
    }

    /// When it opened, if it is open.
    pub(crate) fn open_since(&self) -> Option<Duration> {
        self.is_open().then_some(self.opened_at)
    }

    /// Whether the worker may talk to the node: it is closed, or a probe is due.
    pub(crate) fn allows(&self, now: Duration) -> bool {
        self.probe_at.is_none_or(|at| now >= at)
    }

    /// The node answered. Answers of old while open do not close it.
    pub(crate) fn answered(&mut self) {
        if !self.is_open() {
            self.failures = 0;
            self.late = 0;
        }
    }

    /// A probe is due now, if it is open.
    pub(crate) fn probe_soon(&mut self, now: Duration) {
        self.probe_at = self.probe_at.map(|at| at.min(now));
    }

    /// A probe succeeded.
    pub(crate) fn close(&mut self) {
        *self = Breaker {
            opened: self.opened,
            ..Breaker::new()
        };
    }

    /// A call failed; whether that opened it.
    pub(crate) fn failed(&mut self, now: Duration) -> bool {
        if let Some(at) = self.probe_at {
            if now >= at {
                self.wait = (self.wait * 2).min(WAIT_MAX);
                self.probe_at = Some(now + self.wait);
            }
            return false;
        }
        self.failures += 1;
        self.failures >= FAILURES_MAX && self.open(now)
    }

    /// A read had no answer in time; whether that opened it.
    pub(crate) fn was_late(&mut self, now: Duration) -> bool {
        if self.is_open() {
            return false;
        }
        self.late += 1;
        self.late >= LATE_MAX && self.open(now)
    }

    fn open(&mut self, now: Duration) -> bool {
        self.opened += 1;
        self.opened_at = now;
        self.probe_at = Some(now + self.wait);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_waits_longer_each_time() {
        let mut breaker = Breaker::new();
        let mut now = Duration::ZERO;
        for _ in 0..10 {
            breaker.failed(now);
            breaker.answered();
        }
        assert!(!breaker.is_open());
        assert!(!breaker.failed(now) && !breaker.failed(now) && breaker.failed(now));
        let mut waits = Vec::new();
        for _ in 0..8 {
            let start = now;
            while !breaker.allows(now) {
                now += Duration::from_millis(1);
            }
            waits.push((now - start).as_millis());
            breaker.answered();
            assert!(breaker.is_open(), "an old answer closes nothing");
            breaker.failed(now);
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 4000, 4000]);
        breaker.close();
        assert!(!breaker.is_open() && breaker.opened == 1);
    }

    #[test]
    fn late_reads_in_a_row_open_it() {
        let mut breaker = Breaker::new();
        for _ in 0..LATE_MAX - 1 {
            assert!(!breaker.was_late(Duration::ZERO));
        }
        assert!(breaker.was_late(Duration::ZERO) && breaker.is_open());
    }
}
