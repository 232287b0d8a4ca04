//! What packings share: chunks of 64 bytes, for those of single frames, and the zpage that fills a frame.
//!
//! Stage on the data path: see `packing`. A zpage stands behind its header, rounded up to chunks. One of 4089 to 4096
//! bytes leaves no room for a header in a frame and is named by the fill instead.
//!
//! Does not: say where in the frame a zpage goes.

use super::{Fill, HEADER};
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

/// The fill of a frame that is one zpage of this entry.
pub(super) fn whole(entry: u32) -> Fill {
    Fill(WHOLE | u64::from(entry))
}

/// The entry of the zpage that fills the frame, where one does.
pub(super) fn whole_entry(fill: Fill) -> Option<u32> {
    (fill.0 & WHOLE != 0).then_some(fill.0 as u32)
}
