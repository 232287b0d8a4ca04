//! What packings share: chunks of 64 bytes, for those of single frames, and the zpage that fills a frame.
//!
//! Stage on the data path: see `packing`. A zpage stands behind its header, rounded up to chunks. One of 4089 to 4096
//! bytes leaves no room for a header in a frame and is named by the fill instead.
//!
//! Does not: say where in the frame a zpage goes.

use core::ops::Range;

use super::{Candidate, Fill, HEADER, Placed};
use crate::frames::FRAME_SIZE;

/// Bytes in a chunk.
pub(super) const CHUNK: usize = 64;
/// Chunks in a frame.
pub(super) const CHUNKS: usize = FRAME_SIZE / CHUNK;
/// The longest zpage that leaves room for its header.
pub(super) const HEADED_MAX: usize = FRAME_SIZE - HEADER;

/// Marks a frame filled by one zpage without a header; its entry is in the low 32 bits.
const WHOLE: u64 = 1 << 63;

/// Chunks that a zpage takes with its header.
pub(super) fn chunks(len: usize) -> usize {
    (HEADER + len).div_ceil(CHUNK)
}

/// The bins with room for a zpage, where a frame's bin is that of its free chunks.
pub(super) fn bins_for(len: usize) -> Range<usize> {
    if len > HEADED_MAX {
        0..0
    } else {
        chunks(len)..CHUNKS + 1
    }
}

/// Fills an empty frame with one zpage that leaves no room for a header.
pub(super) fn place_whole(fill: &mut Fill, entry: u32) -> Placed {
    assert_eq!(*fill, Fill(0), "a whole frame was asked for");
    *fill = whole(entry);
    Placed {
        offset: 0,
        compacted: false,
    }
}

/// What a walk finds in a frame that one zpage of this entry fills.
pub(super) fn walk_whole(entry: u32, cursor: usize) -> Option<(Candidate, usize)> {
    (cursor == 0).then_some((Candidate { entry, offset: 0 }, FRAME_SIZE))
}

/// The fill of a frame that is one zpage of this entry.
pub(super) fn whole(entry: u32) -> Fill {
    Fill(WHOLE | u64::from(entry))
}

/// The entry of the zpage that fills the frame, where one does.
pub(super) fn whole_entry(fill: Fill) -> Option<u32> {
    (fill.0 & WHOLE != 0).then_some(fill.0 as u32)
}
