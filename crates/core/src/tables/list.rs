//! Lists of blocks, doubly linked through the block records by token.
//!
//! Stage on the data path: ageing. One list a kind keeps its blocks by age, another the freed slots; the bins use the
//! same links code with their own pair of links.
//!
//! Invariants:
//! - `head` is none exactly when `tail` is exactly when `len == 0`
//! - for every member, `next.previous == member`
//!
//! Does not: check that a member is in no other list of the same links; the block's state says where it belongs.

use super::block::BlockTable;
use super::table::is_free;
use super::words::read_word;
use super::{Checked, ensure};
use crate::frames::Frames;
use crate::ids::{BlockToken, NONE};

/// A list of blocks; the head is the oldest member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    head: u32,
    tail: u32,
    pub(crate) len: u32,
}

impl List {
    pub(crate) const fn new() -> List {
        List {
            head: NONE,
            tail: NONE,
            len: 0,
        }
    }

    /// The oldest member.
    pub(crate) fn oldest(&self) -> Option<BlockToken> {
        named(self.head)
    }

    /// The youngest member.
    pub(crate) fn youngest(&self) -> Option<BlockToken> {
        named(self.tail)
    }

    /// Adds a block as the youngest.
    pub(crate) fn push<F: Frames>(
        &mut self,
        frames: &mut F,
        blocks: &mut BlockTable,
        links: usize,
        token: BlockToken,
    ) -> Checked<()> {
        blocks.set_word(frames, token, links, self.tail)?;
        blocks.set_word(frames, token, links + 4, NONE)?;
        match named(self.tail) {
            None => self.head = token.0,
            Some(tail) => relink(frames, blocks, tail, links + 4, NONE, token.0)?,
        }
        self.tail = token.0;
        self.len += 1;
        Ok(())
    }

    /// Takes a member out.
    pub(crate) fn remove<F: Frames>(
        &mut self,
        frames: &mut F,
        blocks: &mut BlockTable,
        links: usize,
        token: BlockToken,
    ) -> Checked<()> {
        let previous = blocks.word(frames, token, links)?;
        let next = blocks.word(frames, token, links + 4)?;
        ensure(self.len > 0)?;
        match named(previous) {
            None => {
                ensure(self.head == token.0)?;
                self.head = next;
            }
            Some(other) => relink(frames, blocks, other, links + 4, token.0, next)?,
        }
        match named(next) {
            None => {
                ensure(self.tail == token.0)?;
                self.tail = previous;
            }
            Some(other) => relink(frames, blocks, other, links, token.0, previous)?,
        }
        self.len -= 1;
        Ok(())
    }

    /// The members from the oldest on; at most `len` of them, so a broken list ends too.
    pub(crate) fn walk<'a, F: Frames>(
        &self,
        frames: &'a F,
        blocks: &'a BlockTable,
        links: usize,
    ) -> impl Iterator<Item = BlockToken> + 'a {
        let (mut next, mut left) = (self.oldest(), self.len);
        core::iter::from_fn(move || {
            let this = next?;
            left = left.checked_sub(1)?;
            next = blocks.word(frames, this, links + 4).ok().and_then(named);
            Some(this)
        })
    }
}

fn named(token: u32) -> Option<BlockToken> {
    (token != NONE).then_some(BlockToken(token))
}

/// Changes a link from what it must be.
fn relink<F: Frames>(
    frames: &mut F,
    blocks: &mut BlockTable,
    token: BlockToken,
    at: usize,
    from: u32,
    to: u32,
) -> Checked<()> {
    let record = blocks.record(frames, token)?;
    // The zeros of a free record are no link to the first block.
    ensure(!is_free(record) && read_word(record, at) == from)?;
    blocks.set_word(frames, token, at, to)
}
