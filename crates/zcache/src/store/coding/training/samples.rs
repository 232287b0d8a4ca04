//! Pages that are collected to train a dictionary on.
//!
//! Stage on the data path: beside the codec, at each page that is stored while
//! pages are collected.
//!
//! - Each page offered so far was kept with the same chance.
//! - The RAM of the whole round is counted from the first page on.

use crate::frames::Charge;
use crate::page::Page;

/// Of the pages collected, one in so many does not train but judges.
const JUDGES_ONE_IN: usize = 4;

/// See the module's description.
pub(super) struct Samples {
    pages: Vec<Page>,
    wanted: usize,
    /// Pages that were offered.
    offered: u64,
    /// Collecting ends after so many.
    offered_last: u64,
    random: u64,
    // Held for its drop.
    _charge: Charge,
}

impl Samples {
    /// For `wanted` pages, drawn from the next `offered_last`.
    pub(super) fn new(wanted: usize, offered_last: u64, charge: Charge) -> Samples {
        let mut pages = Vec::new();
        // Without memory the round ends without a dictionary.
        let wanted = match pages.try_reserve_exact(wanted) {
            Ok(()) => wanted,
            Err(_) => 0,
        };
        Samples {
            pages,
            wanted,
            offered: 0,
            offered_last,
            random: 0x9e37_79b9_7f4a_7c15,
            _charge: charge,
        }
    }

    pub(super) fn offered_last(&self) -> u64 {
        self.offered_last
    }

    pub(super) fn is_complete(&self) -> bool {
        self.offered >= self.offered_last
    }

    /// Keeps each page offered so far with the same chance (algorithm R; Vitter,
    /// "Random Sampling with a Reservoir", 1985).
    pub(super) fn offer(&mut self, page: &Page) {
        self.offered += 1;
        if self.pages.len() < self.wanted {
            self.pages.push(*page);
            return;
        }
        // Xorshift (Marsaglia, 2003).
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let at = (self.random % self.offered) as usize;
        if let Some(place) = self.pages.get_mut(at) {
            *place = *page;
        }
    }

    /// The pages that train, and those that judge.
    pub(super) fn divide(&mut self) -> (&[Page], &[Page]) {
        let train = self.pages.len() - self.pages.len() / JUDGES_ONE_IN;
        // Neighbours are alike, so those that judge come from everywhere.
        for (judge, from) in (train..self.pages.len()).zip((0..train).step_by(3)) {
            self.pages.swap(judge, from);
        }
        self.pages.split_at(train)
    }
}
