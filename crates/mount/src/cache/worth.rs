//! Whether a page that tiers have is read from them or from the source: whichever
//! costs less, as measured.
//!
//! - One page and a run of them are measured apart: a wait is shared by a run.
//! - The dearer one is tried now and then, so that a change is seen.

use std::time::Duration;

use zcache::tier::{Costs, Side};

/// See the module's description. The tiers are the first side.
#[derive(Debug, Default)]
pub(crate) struct Worth {
    single: Costs,
    run: Costs,
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

    pub(crate) fn learn_of_tiers(&self, pages: usize, took: Duration) {
        self.learn(Side::First, pages, took);
    }

    pub(crate) fn learn_of_source(&self, pages: usize, took: Duration) {
        self.learn(Side::Second, pages, took);
    }

    fn learn(&self, side: Side, pages: usize, took: Duration) {
        self.of(pages).learn(side, took / pages.max(1) as u32);
    }

    /// Whether pages are worth being written to the tiers, for the sake of either kind
    /// of read; now and then they are in any case.
    pub(crate) fn are_tiers_worth_it(&self) -> bool {
        self.single.is_worth_a_copy() || self.run.is_worth_a_copy()
    }
}
