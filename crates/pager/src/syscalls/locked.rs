//! Locked memory comes at its first touch, like all other, so that it is counted and
//! made room for; the call says what it would have said.

use super::Watched;
use super::mapping::whole_pages;
use crate::budget::PAGE_BYTES;

const MLOCK_ONFAULT: u64 = 1;

impl Watched<'_> {
    /// Has `mlock`, or `mlock2` without flags, lock pages at their first touch.
    pub(super) async fn lock(self, [start, length, _, rest @ ..]: [u64; 6]) {
        let [a, b, c] = rest;
        self.rewrite(libc::SYS_mlock2, [start, length, MLOCK_ONFAULT, a, b, c]);
        let Some(result) = self.make().await else {
            return;
        };
        self.restore();
        if result == 0 && self.has_pages_that_never_come(start, length) {
            self.answer(-i64::from(libc::ENOMEM));
        }
        self.resume();
    }

    /// Whether nothing may be done with some of the range: Linux, which brings all pages
    /// at once, fails then, although the range is locked.
    fn has_pages_that_never_come(&self, start: u64, length: u64) -> bool {
        let first = start / PAGE_BYTES * PAGE_BYTES;
        let pages = whole_pages(first, length.saturating_add(start - first));
        let mappings = self.space.hands().mappings(false).unwrap_or_default();
        mappings.iter().any(|one| {
            let meets = one.range.start >> 12 < pages.end && one.range.end >> 12 > pages.start;
            meets && one.access == [false; 3]
        })
    }
}
