//! Bins: blocks sorted by how much room they have.
//!
//! Stage on the data path: choosing a block for a zpage (the tightest that has room), for evacuation (the emptiest), and
//! in a tier for reading back (the sparsest). A bitmap says which bins have members, so each search is a few words.
//!
//! Invariants:
//! - bit `b` of the bitmap is set exactly when list `b` has a member
//! - `blocks == sum(len of each list)`, `free_bytes == sum(free bytes of each member)`
//!
//! Does not: decide which bin a block belongs to; the packing does.

use core::ops::Range;

use super::block::{BIN_LINKS, BlockTable};
use super::list::List;
use super::{Checked, Damaged};
use crate::frames::Frames;
use crate::ids::BlockToken;

/// `N` bins; `N` is a multiple of 64 and at most 384.
#[derive(Debug)]
pub(crate) struct Bins<const N: usize> {
    lists: [List; N],
    bits: [u64; 6],
    /// Members of all bins.
    pub(crate) blocks: u32,
    /// Their free bytes.
    pub(crate) free_bytes: u64,
}

impl<const N: usize> Bins<N> {
    pub(crate) const fn new() -> Self {
        assert!(N.is_multiple_of(64) && N <= 384);
        Bins {
            lists: [List::new(); N],
            bits: [0; 6],
            blocks: 0,
            free_bytes: 0,
        }
    }

    /// Forgets every block; in place, for a stack that is small.
    pub(crate) fn clear(&mut self) {
        self.lists.fill(List::new());
        self.bits = [0; 6];
        self.blocks = 0;
        self.free_bytes = 0;
    }

    pub(crate) fn list(&self, bin: usize) -> &List {
        &self.lists[bin]
    }

    pub(crate) fn add<F: Frames>(
        &mut self,
        frames: &mut F,
        blocks: &mut BlockTable,
        bin: usize,
        token: BlockToken,
        free_bytes: u32,
    ) -> Checked<()> {
        self.lists[bin].push(frames, blocks, BIN_LINKS, token)?;
        self.bits[bin / 64] |= 1 << (bin % 64);
        self.blocks += 1;
        self.free_bytes += u64::from(free_bytes);
        Ok(())
    }

    pub(crate) fn remove<F: Frames>(
        &mut self,
        frames: &mut F,
        blocks: &mut BlockTable,
        bin: usize,
        token: BlockToken,
        free_bytes: u32,
    ) -> Checked<()> {
        self.lists[bin].remove(frames, blocks, BIN_LINKS, token)?;
        if self.lists[bin].len == 0 {
            self.bits[bin / 64] &= !(1 << (bin % 64));
        }
        self.blocks = self.blocks.checked_sub(1).ok_or(Damaged::New)?;
        let left = self.free_bytes.checked_sub(u64::from(free_bytes));
        self.free_bytes = left.ok_or(Damaged::New)?;
        Ok(())
    }

    /// The youngest member of the lowest bin of the range that has any.
    pub(crate) fn lowest(&self, range: Range<usize>) -> Option<BlockToken> {
        if range.is_empty() {
            return None;
        }
        for word in range.start / 64..range.end.div_ceil(64) {
            let mut bits = self.bits[word];
            if word == range.start / 64 {
                bits &= u64::MAX << (range.start % 64);
            }
            if bits != 0 {
                let bin = word * 64 + bits.trailing_zeros() as usize;
                return (bin < range.end)
                    .then(|| self.lists[bin].youngest())
                    .flatten();
            }
        }
        None
    }

    /// The oldest member of the highest bin of the range that has any.
    pub(crate) fn highest(&self, range: Range<usize>) -> Option<BlockToken> {
        let last = range.end.checked_sub(1)?;
        for word in (range.start / 64..=last / 64).rev() {
            let mut bits = self.bits[word];
            if word == last / 64 {
                bits &= u64::MAX >> (63 - last % 64);
            }
            if bits != 0 {
                let bin = word * 64 + 63 - bits.leading_zeros() as usize;
                return (bin >= range.start)
                    .then(|| self.lists[bin].oldest())
                    .flatten();
            }
        }
        None
    }

    /// Whether the bitmap says that a bin has members.
    pub(crate) fn bit(&self, bin: usize) -> bool {
        self.bits[bin / 64] >> (bin % 64) & 1 == 1
    }
}
