//! Chunks of 64 bytes, for the packings of single frames.
//!
//! Stage on the data path: see `packing`. A zpage is rounded up to chunks.
//!
//! Does not: say where in the frame a zpage goes.

use core::ops::Range;

use crate::frames::FRAME_SIZE;

/// Bytes in a chunk.
pub(super) const CHUNK: usize = 64;
/// Chunks in a frame.
pub(super) const CHUNKS: usize = FRAME_SIZE / CHUNK;

/// Chunks that a zpage takes.
pub(super) fn chunks(len: usize) -> usize {
    len.div_ceil(CHUNK)
}

/// The bins with room for a zpage, where a frame's bin is that of its free chunks.
pub(super) fn bins_for(len: usize) -> Range<usize> {
    chunks(len)..CHUNKS + 1
}
