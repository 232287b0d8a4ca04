//! The zpages of a block in rising order of their places: a list through their entries, with its ends in the block's
//! record.
//!
//! Stage on the data path: packing, reclaim and reading back find a block's zpages here. A block's bytes are nothing but
//! zpages, each with a checksum of its own, so nothing that is read from RAM or a tier is believed to find anything.
//!
//! Invariants:
//! - each entry of the list names this block, and ends before the next begins
//! - `live == length of the list`
//!
//! Does not: count what is in the block, or move bytes.

use super::block::{BlockTable, FIRST_MEMBER, LAST_MEMBER};
use super::entry::{Entries, Side, Span};
use super::{Checked, ensure};
use crate::frames::Frames;
use crate::ids::{BlockToken, EntryToken, NONE};

/// What lies between the neighbours of a place: the end of the zpage before it, and the start of the one behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gap {
    pub(crate) start: usize,
    /// `None` behind the last zpage.
    pub(crate) end: Option<usize>,
}

/// The first zpage of a block.
pub(crate) fn first<F: Frames>(
    frames: &F,
    blocks: &BlockTable,
    block: BlockToken,
) -> Checked<Option<EntryToken>> {
    end(frames, blocks, block, FIRST_MEMBER)
}

fn end<F: Frames>(
    frames: &F,
    blocks: &BlockTable,
    block: BlockToken,
    at: usize,
) -> Checked<Option<EntryToken>> {
    Ok(match blocks.word(frames, block, at)? {
        NONE => None,
        token => Some(EntryToken(token)),
    })
}

fn set_end<F: Frames>(
    frames: &mut F,
    blocks: &mut BlockTable,
    block: BlockToken,
    at: usize,
    token: Option<EntryToken>,
) -> Checked<()> {
    blocks.set_word(frames, block, at, token.map_or(NONE, |token| token.0))
}

/// Puts the zpage of an entry into the list of its block. The entry is written already, or is of length `span.len`.
pub(crate) fn link<F: Frames>(
    frames: &mut F,
    blocks: &mut BlockTable,
    entries: &mut Entries,
    token: EntryToken,
    span: Span,
) -> Checked<()> {
    // Most zpages are placed behind all others.
    let mut before = end(frames, blocks, span.block, LAST_MEMBER)?;
    let mut behind = None;
    while let Some(other) = before {
        let place = entries.span_in(frames, other, span.block)?;
        if place.offset < span.offset {
            ensure(place.end() <= span.offset)?;
            break;
        }
        ensure(span.end() <= place.offset)?;
        let [previous, next] = entries.member_links(frames, other)?;
        ensure(next == behind)?;
        (before, behind) = (previous, Some(other));
    }
    match before {
        None => set_end(frames, blocks, span.block, FIRST_MEMBER, Some(token))?,
        Some(other) => {
            let link = [behind, Some(token)];
            entries.relink_member(frames, other, span.block, Side::Behind, link)?;
        }
    }
    match behind {
        None => set_end(frames, blocks, span.block, LAST_MEMBER, Some(token))?,
        Some(other) => {
            let link = [before, Some(token)];
            entries.relink_member(frames, other, span.block, Side::Before, link)?;
        }
    }
    // Last, so that the record of a page that is being stored stays free where the list is damaged.
    entries.set_member_links(frames, token, [before, behind])
}

/// Takes the zpage of an entry out of the list of its block; what lies around it.
pub(crate) fn unlink<F: Frames>(
    frames: &mut F,
    blocks: &mut BlockTable,
    entries: &mut Entries,
    token: EntryToken,
    block: BlockToken,
) -> Checked<Gap> {
    let [before, behind] = entries.member_links(frames, token)?;
    let start = match before {
        None => {
            ensure(end(frames, blocks, block, FIRST_MEMBER)? == Some(token))?;
            set_end(frames, blocks, block, FIRST_MEMBER, behind)?;
            0
        }
        Some(other) => {
            let link = [Some(token), behind];
            let span = entries.relink_member(frames, other, block, Side::Behind, link)?;
            span.end()
        }
    };
    let end = match behind {
        None => {
            ensure(end(frames, blocks, block, LAST_MEMBER)? == Some(token))?;
            set_end(frames, blocks, block, LAST_MEMBER, before)?;
            None
        }
        Some(other) => {
            let link = [Some(token), before];
            let span = entries.relink_member(frames, other, block, Side::Before, link)?;
            Some(span.offset)
        }
    };
    Ok(Gap { start, end })
}

/// The zpages of a block from the first on. Ends with `Damaged` where the list contradicts itself.
pub(crate) fn walk<'a, F: Frames>(
    frames: &'a F,
    blocks: &'a BlockTable,
    entries: &'a Entries,
    block: BlockToken,
) -> impl Iterator<Item = Checked<(EntryToken, Span)>> + 'a {
    walk_from(frames, entries, block, first(frames, blocks, block))
}

/// The same from a zpage that is known.
pub(crate) fn walk_from<'a, F: Frames>(
    frames: &'a F,
    entries: &'a Entries,
    block: BlockToken,
    first: Checked<Option<EntryToken>>,
) -> impl Iterator<Item = Checked<(EntryToken, Span)>> + 'a {
    let mut next = first;
    let mut end = 0;
    core::iter::from_fn(move || {
        let token = match next {
            Ok(token) => token?,
            Err(damaged) => {
                next = Ok(None);
                return Some(Err(damaged));
            }
        };
        let step = entries.span_in(frames, token, block).and_then(|span| {
            // Places rise, so a list that goes in a circle ends here.
            ensure(span.offset >= end)?;
            end = span.end();
            next = Ok(entries.member_links(frames, token)?[1]);
            Ok((token, span))
        });
        if step.is_err() {
            next = Ok(None);
        }
        Some(step)
    })
}
