//! When a scope's next round of training is due.
//!
//! Stage on the data path: beside the codec, at each page that is stored. The
//! first round is due with the scope's first page, the second at once after it,
//! later ones when four times as many pages have come, or when pages shrink less
//! than they did.
//!
//! Does not know whose turn it is.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::{Mutex, lock};

/// Pages after which the mean length is looked at.
const WINDOW_PAGES: u64 = 8192;
/// The mean length beyond its usual, in percent, from which a new dictionary is
/// tried.
const DRIFT_PERCENT: f64 = 110.0;
/// Without drift, the next round comes after so many times the pages.
const ROUNDS_FACTOR: u64 = 4;

/// Pages that came and their lengths.
#[derive(Clone, Copy, Default)]
struct Came {
    pages: u64,
    bytes: u64,
}

struct Rest {
    /// The next round is due when so many pages have come.
    until_pages: u64,
    /// What had come when the window began.
    window: Came,
    /// The usual mean length, once a window was measured.
    usual: Option<f64>,
}

/// See the module's description.
pub(in crate::store) struct Pace {
    pages: AtomicU64,
    bytes: AtomicU64,
    /// Nothing is due before so many pages have come.
    look_at_pages: AtomicU64,
    /// Rounds that ended with a dictionary that was tried.
    rounds: AtomicU64,
    rest: Mutex<Rest>,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace {
            pages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            look_at_pages: AtomicU64::new(1),
            rounds: AtomicU64::new(0),
            rest: Mutex::new(Rest {
                until_pages: 1,
                window: Came::default(),
                usual: None,
            }),
        }
    }

    /// Notes a page that is not same-filled and how long its zpage is; says
    /// whether a round may be due. Never waits.
    pub(in crate::store) fn note(&self, len: usize) -> bool {
        self.bytes.fetch_add(len as u64, Relaxed);
        let before = self.pages.fetch_add(1, Relaxed);
        before >= self.look_at_pages.load(Relaxed).saturating_sub(1)
    }

    /// Whether a round is due.
    pub(in crate::store) fn is_due(&self) -> bool {
        let mut rest = lock(&self.rest);
        let now = self.came();
        if rest.has_drifted(now) {
            // It stays due until it is done.
            rest.until_pages = 0;
        }
        self.look_when(&rest);
        now.pages >= rest.until_pages
    }

    pub(in crate::store) fn rounds(&self) -> u64 {
        self.rounds.load(Relaxed)
    }

    /// A round has ended.
    pub(in crate::store) fn ended(&self) {
        let now = self.came();
        let until_pages = match self.rounds.fetch_add(1, Relaxed) {
            0 => now.pages,
            _ => now.pages.saturating_mul(ROUNDS_FACTOR),
        };
        self.begin_rest(until_pages);
    }

    /// A round was given up; the next is due after so many pages.
    pub(in crate::store) fn put_off(&self, pages: u64) {
        self.begin_rest(self.came().pages.saturating_add(pages));
    }

    /// Begins anew to learn how long pages usually are, since another codec
    /// makes them from now on.
    pub(in crate::store) fn forget_usual(&self) {
        let mut rest = lock(&self.rest);
        rest.window = self.came();
        rest.usual = None;
        self.look_when(&rest);
    }

    fn begin_rest(&self, until_pages: u64) {
        let mut rest = lock(&self.rest);
        *rest = Rest {
            until_pages,
            window: self.came(),
            usual: None,
        };
        self.look_when(&rest);
    }

    fn look_when(&self, rest: &Rest) {
        let window_ends = rest.window.pages + WINDOW_PAGES;
        let look = rest.until_pages.min(window_ends);
        self.look_at_pages.store(look, Relaxed);
    }

    fn came(&self) -> Came {
        Came {
            pages: self.pages.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }
}

impl Rest {
    /// Whether pages of the window that ends now were longer than usual. Begins
    /// the next window.
    fn has_drifted(&mut self, now: Came) -> bool {
        let pages = now.pages.saturating_sub(self.window.pages);
        if pages < WINDOW_PAGES {
            return false;
        }
        let mean = now.bytes.saturating_sub(self.window.bytes) as f64 / pages as f64;
        self.window = now;
        let before = *self.usual.get_or_insert(mean);
        mean * 100.0 > before * DRIFT_PERCENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes so many pages of a length; says after which one a round was due.
    fn due_after(pace: &Pace, pages: u64, len: usize) -> Option<u64> {
        (1..=pages).find(|_| pace.note(len) && pace.is_due())
    }

    #[test]
    fn rounds_are_due_at_once_then_once_more_and_then_seldom() {
        let pace = Pace::new();
        assert!(!pace.is_due());
        assert_eq!(due_after(&pace, 1, 1000), Some(1));
        assert_eq!(due_after(&pace, 255, 1000), Some(1), "until it is done");
        pace.ended();
        assert_eq!(due_after(&pace, 8, 1000), Some(1));
        pace.ended();
        assert_eq!(due_after(&pace, 100, 1000), Some(3 * 3));
    }

    #[test]
    fn a_round_given_up_is_due_again_after_other_pages() {
        let pace = Pace::new();
        assert_eq!(due_after(&pace, 1, 1000), Some(1));
        pace.put_off(256);
        assert_eq!(due_after(&pace, 1000, 1000), Some(256));
        assert_eq!(pace.rounds(), 0);
    }

    #[test]
    fn pages_that_get_longer_are_noticed_without_a_look_at_each() {
        let pace = Pace::new();
        pace.note(1000);
        pace.ended();
        pace.ended();
        pace.put_off(u64::MAX);
        let mut looks = 0;
        for _ in 0..3 * WINDOW_PAGES {
            if pace.note(1000) {
                looks += 1;
                assert!(!pace.is_due());
            }
        }
        assert_eq!(looks, 3);
        assert_eq!(due_after(&pace, 2 * WINDOW_PAGES, 1200), Some(WINDOW_PAGES));
        pace.forget_usual();
        // What was due stays so.
        assert!(pace.is_due());
    }
}
