//! Keeps the swap file dense: blocks of which little is still wanted are read
//! back, their live zpages are packed with others in RAM and leave again later,
//! and their slots are free.
//!
//! It runs at the end of a reclaim when the file is nearly full or mostly
//! holes, a few blocks at a time, so that it costs a reclaim little and takes
//! back only a little of what that freed.

use super::Swap;
use crate::codec;
use crate::store::{Part, Store, WholeRead, lock};
use crate::tier::{SECTOR_SIZE, TierError, TierRead};

/// Blocks read back by one reclaim at most.
const BLOCKS_MAX: usize = 8;

/// Bytes in use below which holes do not matter.
const USED_BYTES_MIN: u64 = 1 << 20;

/// A block is worth it while at most this part of it is live.
const LIVE_PART_NUM: u32 = 3;
const LIVE_PART_DEN: u32 = 4;

impl Store {
    /// Packs sparse tier blocks anew, if that is due.
    pub(in crate::store) fn compact_swap(&self, swap: &Swap) {
        if !self.swap_is_sparse(swap) {
            return;
        }
        let mut left = BLOCKS_MAX;
        for number in self.shards_in_turn() {
            while left > 0 && self.compact_swap_block(swap, number) {
                left -= 1;
            }
        }
    }

    fn swap_is_sparse(&self, swap: &Swap) -> bool {
        if swap.is_nearly_full() {
            return true;
        }
        let used = lock(&swap.slots).used_bytes();
        used >= USED_BYTES_MIN && {
            let live: u64 = (0..self.shards.len())
                .map(|number| self.part(number).core.usage().tier_zbytes)
                .sum();
            live * 2 < used
        }
    }

    /// Reads back the sparsest block of a shard. False when there is none that
    /// is worth it, or no room in RAM.
    fn compact_swap_block(&self, swap: &Swap, number: usize) -> bool {
        let block = {
            let mut part = self.part(number);
            let Some(block) = part.core.sparsest_tier_block(&part.frames) else {
                return false;
            };
            let worth = block.run.bytes() as u32 / LIVE_PART_DEN * LIVE_PART_NUM;
            if part.whole_read.is_some() || block.used_bytes > worth {
                return false;
            }
            part.whole_read = Some(WholeRead {
                slot: block.slot,
                stale: false,
            });
            block
        };
        let Ok(mut buffer) = swap.block_buffers.lend() else {
            self.part(number).whole_read = None;
            return false;
        };
        debug_assert!(block.run.bytes().is_multiple_of(SECTOR_SIZE));
        let mut read = [TierRead {
            offset_bytes: swap.offset_bytes(block.slot),
            bytes: &mut buffer.bytes_mut()[..block.run.bytes()],
            result: Err(TierError::IO),
        }];
        swap.read(&mut read);
        let [read] = read;
        let checksum = codec::block_checksum(read.bytes);
        let mut part = self.part(number);
        let stale = part.whole_read.take().is_none_or(|read| read.stale);
        let expected = lock(&swap.slots).block_checksum(block.slot.0);
        if read.result.is_err() || stale || checksum != expected {
            return false;
        }
        let Part { core, frames, .. } = &mut *part;
        let readmitted = core.readmit(frames, &block, read.bytes);
        self.free_slots(&mut part);
        readmitted.is_ok()
    }
}
