//! Keeps the swap file dense: blocks of which little is still wanted are read
//! back, their live zpages are packed with others in RAM and leave again later,
//! and their slots are free.
//!
//! A block that cannot be read, or of which not every zpage matches its checksum, is
//! put aside, so that the next is another; after a while it is tried again. What of
//! it is good is packed anew all the same.
//!
//! It runs at the end of a reclaim when the file is nearly full or mostly
//! holes, a few blocks at a time, so that it costs a reclaim little and takes
//! back only a little of what that freed.

use std::time::Duration;

use zcache_core::{LiveZpage, TierBlock};

use super::swap::Swap;
use crate::store::Store;
use crate::store::coding::tags::Tags;
use crate::store::part::Part;
use crate::sync::atomic::Ordering::{AcqRel, Release};
use crate::sync::{Instant, lock};
use crate::tier::{SECTOR_SIZE, TierError, TierRead};

/// Blocks read back by one reclaim at most.
const BLOCKS_MAX: usize = 8;

/// Bytes in use below which holes do not matter.
const USED_BYTES_MIN: u64 = 1 << 20;

/// After this long, blocks that were put aside are tried again.
const ASIDE_FOR: Duration = Duration::from_secs(30);

/// A block is worth it while at most this part of it is live.
const LIVE_PART_NUM: u32 = 3;
const LIVE_PART_DEN: u32 = 4;

/// How the packing of one block ended.
#[derive(PartialEq, Eq)]
enum Packed {
    /// All that is alive of it is in RAM again.
    Whole,
    /// Not all could be read.
    Aside,
    /// No block is worth it, or RAM has no room.
    Stopped,
}

/// The right to pack blocks anew: one thread of a store has it at a time.
struct Turn<'a>(&'a Swap);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.compacting.store(false, Release);
    }
}

impl Store {
    /// Packs sparse tier blocks anew, if that is due.
    pub(in crate::store) fn compact_swap(&self, swap: &Swap) {
        if !self.swap_is_sparse(swap) || swap.compacting.swap(true, AcqRel) {
            return;
        }
        let _turn = Turn(swap);
        self.retry_aside(swap);
        let mut left = BLOCKS_MAX;
        for number in self.shards_in_turn() {
            while left > 0 && self.compact_swap_block(swap, number) != Packed::Stopped {
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

    /// Has blocks that were put aside be tried again, if that is due.
    fn retry_aside(&self, swap: &Swap) {
        let due = lock(&swap.aside_until).take_if(|until| Instant::now() >= *until);
        if due.is_none() {
            return;
        }
        for number in 0..self.shards.len() {
            let mut part = self.part(number);
            let Part { core, frames, .. } = &mut *part;
            core.retry_aside(frames);
        }
    }

    /// Reads back the sparsest block of a shard.
    fn compact_swap_block(&self, swap: &Swap, number: usize) -> Packed {
        let Ok(mut buffer) = swap.block_buffers.lend() else {
            return Packed::Stopped;
        };
        let Some((block, zpages)) = self.sparsest_block(number) else {
            return Packed::Stopped;
        };
        debug_assert!(block.run.bytes().is_multiple_of(SECTOR_SIZE));
        let mut read = [TierRead {
            offset_bytes: swap.offset_bytes(block.slot),
            bytes: &mut buffer.bytes_mut()[..block.run.bytes()],
            result: Err(TierError::IO),
        }];
        swap.read(&mut read);
        let [read] = read;
        let good: Vec<u32> = zpages
            .iter()
            .filter(|(live, tags)| read.result.is_ok() && is_good(live, tags, read.bytes))
            .map(|(live, _)| live.offset_bytes)
            .collect();
        let mut part = self.part(number);
        let Part { core, frames, .. } = &mut *part;
        // Nothing is placed in a block that has left RAM, so a place names one zpage.
        let moved = core.readmit_good(frames, &block, read.bytes, |live| {
            good.binary_search(&live.offset_bytes).is_ok()
        });
        let whole = good.len() == zpages.len();
        if !whole {
            core.put_aside(frames, &block);
        }
        self.free_slots(&mut part);
        drop(part);
        if !whole {
            lock(&swap.aside_until).get_or_insert_with(|| Instant::now() + ASIDE_FOR);
        }
        match (moved, whole) {
            (Err(_), _) => Packed::Stopped,
            (Ok(_), true) => Packed::Whole,
            (Ok(_), false) => Packed::Aside,
        }
    }

    /// The sparsest block of a shard that is worth it, and what is alive in it.
    fn sparsest_block(&self, number: usize) -> Option<(TierBlock, Vec<(LiveZpage, Tags)>)> {
        let part = self.part(number);
        let block = part.core.sparsest_tier_block(&part.frames)?;
        if block.used_bytes > block.run.bytes() as u32 / LIVE_PART_DEN * LIVE_PART_NUM {
            return None;
        }
        let zpages = part.core.live_zpages(&part.frames, block.block);
        let zpages = zpages.filter_map(|live| {
            let (codec, checksum) = live.tags?;
            Some((live, Tags::new(codec, checksum, &self.dictionaries)))
        });
        Some((block, zpages.collect()))
    }
}

/// Whether the bytes of a zpage within its block match their checksum.
fn is_good(live: &LiveZpage, tags: &Tags, block: &[u8]) -> bool {
    let from = live.offset_bytes as usize;
    let bytes = block.get(from..from + live.len_bytes as usize);
    bytes.is_some_and(|bytes| tags.verify(bytes).is_ok())
}
