//! Whether a page that tiers have is read from them or from the source: whichever
//! costs less, as measured.
//!
//! - One page and a run of them are measured apart: a wait is shared by a run.
//! - The dearer one is tried now and then, so that a change is seen.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use zcache::tier::{Costs, Side};

/// While tiers are dear, one write in so many goes there all the same, so that they are
/// measured.
const WRITTEN_ONE_IN: u32 = 16;

/// See the module's description. The tiers are the first side.
#[derive(Debug, Default)]
pub(crate) struct Worth {
    single: Costs,
    run: Costs,
    tried: AtomicU32,
}

impl Worth {
    fn of(&self, pages: usize) -> &Costs {
        match pages {
            0 | 1 => &self.single,
            _ => &self.run,
        }
    }

    /// Whether a request for so many pages is to leave the tiers alone.
    pub(crate) fn is_source_cheaper(&self, pages: usize) -> bool {
        self.of(pages).choose() == Side::Second
    }

    /// Of a request for so many pages, some were asked of the tiers.
    pub(crate) fn learn_of_tiers(&self, pages: usize, asked: usize, took: Duration) {
        let each = took / asked.max(1) as u32;
        self.of(pages).learn(Side::First, each);
    }

    /// Of a request for so many pages, some were read from the source.
    pub(crate) fn learn_of_source(&self, pages: usize, read: usize, took: Duration) {
        let each = took / read.max(1) as u32;
        self.of(pages).learn(Side::Second, each);
    }

    /// Whether pages are worth being written to the tiers: unless they are dear for every
    /// kind of read that was measured, and then now and then all the same.
    pub(crate) fn are_tiers_worth_it(&self) -> bool {
        let kinds = [&self.single, &self.run].map(Costs::is_first_dear);
        let is_dear = kinds.contains(&Some(true)) && !kinds.contains(&Some(false));
        !is_dear
            || self
                .tried
                .fetch_add(1, Relaxed)
                .is_multiple_of(WRITTEN_ONE_IN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_that_are_dear_for_all_that_is_asked_are_hardly_written_to() {
        let micros = Duration::from_micros;
        let worth = Worth::default();
        let written = || (0..320).filter(|_| worth.are_tiers_worth_it()).count();
        assert_eq!(written(), 320, "nothing is known");
        worth.learn_of_tiers(1, 1, micros(300));
        worth.learn_of_source(1, 1, micros(50));
        assert_eq!(written(), 20);
        // A run of 32 pages shares its wait.
        worth.learn_of_tiers(32, 32, micros(960));
        worth.learn_of_source(32, 32, micros(1600));
        assert_eq!(written(), 320);
        assert!(!worth.is_source_cheaper(32));
    }
}
