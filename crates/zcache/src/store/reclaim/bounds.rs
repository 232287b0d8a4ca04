//! How large batches and transfers are.

use crate::tier::{IDLE_MAX, SECTOR_SIZE};

/// Sectors of one batch, written or read: at most 1 MiB, at least four blocks.
const BATCH_SECTORS_MAX: u32 = 256;
const BATCH_SECTORS_MIN: u32 = 16;

/// Of the limit, the part that the buffers of all batches take.
const BATCHES_PART: u64 = 64;

/// Sectors that one zpage can touch.
pub(super) const PAGE_SECTORS: u32 = 2;

/// Sectors of one batch, in proportion to what the store may hold.
pub(super) fn batch_sectors(pool_bytes_max: u64) -> u32 {
    let bytes = pool_bytes_max / BATCHES_PART / IDLE_MAX as u64;
    let sectors = u32::try_from(bytes / SECTOR_SIZE as u64).unwrap_or(u32::MAX);
    // Whole blocks of any size that the store has.
    (sectors & !3).clamp(BATCH_SECTORS_MIN, BATCH_SECTORS_MAX)
}

/// Bytes of so many frames.
pub(super) fn frame_bytes(frames: u32) -> u64 {
    u64::from(frames) * zcache_core::FRAME_SIZE as u64
}
