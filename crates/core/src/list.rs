//! Lists of blocks, doubly linked through the block records by token.
//!
//! Stage on the data path: ageing. One list a kind keeps its blocks by age, another the freed slots; the bins use the
//! same links code with their own pair of links.
//!
//! Invariants:
//! - `head == NONE` exactly when `tail == NONE` exactly when `len == 0`
//! - for every member, `next.prev == member`
//!
//! Does not: check that a member is in no other list of the same links; the block's state says where it belongs.

use crate::block::Blocks;
use crate::frames::Frames;
use crate::ids::NONE;

/// A list of blocks; the head is the oldest member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    pub(crate) head: u32,
    pub(crate) tail: u32,
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

    /// Adds a block as the youngest.
    pub(crate) fn push<F: Frames>(
        &mut self,
        frames: &mut F,
        blocks: &mut Blocks,
        links: usize,
        token: u32,
    ) {
        blocks.set_word(frames, token, links, self.tail);
        blocks.set_word(frames, token, links + 4, NONE);
        match self.tail {
            NONE => self.head = token,
            tail => blocks.set_word(frames, tail, links + 4, token),
        }
        self.tail = token;
        self.len += 1;
    }

    /// Takes a member out.
    pub(crate) fn remove<F: Frames>(
        &mut self,
        frames: &mut F,
        blocks: &mut Blocks,
        links: usize,
        token: u32,
    ) {
        let prev = blocks.word(frames, token, links);
        let next = blocks.word(frames, token, links + 4);
        match prev {
            NONE => self.head = next,
            prev => blocks.set_word(frames, prev, links + 4, next),
        }
        match next {
            NONE => self.tail = prev,
            next => blocks.set_word(frames, next, links, prev),
        }
        self.len -= 1;
    }

    /// The members from the oldest on; at most `len` of them, so a broken list ends too.
    pub(crate) fn walk<'a, F: Frames>(
        &self,
        frames: &'a F,
        blocks: &'a Blocks,
        links: usize,
    ) -> impl Iterator<Item = u32> + 'a {
        let (mut token, mut left) = (self.head, self.len);
        core::iter::from_fn(move || {
            if token == NONE || left == 0 {
                return None;
            }
            let this = token;
            token = blocks.word(frames, this, links + 4);
            left -= 1;
            Some(this)
        })
    }
}
