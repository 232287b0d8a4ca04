//! Room for the pages of one request, aligned as direct I/O wants it.
//!
//! Stage: a worker has one and uses it for every read. It is in memory from the
//! start, where the budget counts it: taken page by page in the first burst of
//! requests, it would come on top of a store that has grown up to the budget.
//! Workers that come later take theirs as they need it: few of their requests are
//! long.

use std::ops::{Deref, DerefMut};

use zcache::{PAGE_SIZE, Page};

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: Vec<u8>,
    start: usize,
}

impl Room {
    /// Room for so many pages, in memory from the start or not.
    pub(crate) fn new(pages: usize, resident: bool) -> Room {
        // One more than asked for, so that so many begin at an aligned address.
        let bytes = bytes((pages + 1) * PAGE_SIZE, resident);
        let start = bytes.as_ptr().align_offset(PAGE_SIZE);
        assert!(start < PAGE_SIZE, "bytes can be aligned to a page");
        Room { bytes, start }
    }
}

impl Deref for Room {
    type Target = [Page];

    fn deref(&self) -> &[Page] {
        let len = self.bytes.len() - PAGE_SIZE;
        self.bytes[self.start..self.start + len].as_chunks().0
    }
}

impl DerefMut for Room {
    fn deref_mut(&mut self) -> &mut [Page] {
        let len = self.bytes.len() - PAGE_SIZE;
        self.bytes[self.start..self.start + len].as_chunks_mut().0
    }
}

/// So many bytes, in memory from the start or not. Zeros are there only once
/// written.
pub(crate) fn bytes(len: usize, resident: bool) -> Vec<u8> {
    match resident {
        true => vec![u8::MAX; len],
        false => vec![0; len],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_aligned_and_as_many_as_asked_for() {
        for (pages, resident) in [(1, true), (2, false), (64, true)] {
            let mut room = Room::new(pages, resident);
            assert_eq!(room.len(), pages);
            assert!(room.as_ptr().cast::<u8>().align_offset(PAGE_SIZE) == 0);
            room[pages - 1].fill(7);
            assert_eq!(room[pages - 1], [7; PAGE_SIZE]);
        }
    }
}
