// SPDX-License-Identifier: GPL-2.0-only

//! Writeback: the oldest blocks leave for the swap devices, whole, page by page to where each belongs.
//!
//! It begins above the high watermark and ends at the low one. Pages that may be dropped go first. One worker runs, and
//! a bounded number of its writes are under way; they go through the swap cache, which keeps faults and swapoff right.
//!
//! Keys are copied out under the lock and written afterwards. By then a key may name no page or another one: what is
//! written to its place is what it names once its folio is in the swap cache, locked (see `store::get`), so that is
//! right for either. The block that the keys were of is handed out, so its token names no other until it is given back.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kernel::prelude::*;
use zcache_core::{BlockToken, EntryToken, Found, Key, Kind, Shard, WriteFailed, WritebackEnd};

use crate::counters::EVENTS;
use crate::frames::{self, PageFrames};
use crate::{clean, ffi, store};

/// Passes of a drain that get nowhere before it gives up: some 2 s.
const DRAIN_PASSES: u32 = 200;

/// The shard whose turn it is.
static TURN: AtomicU32 = AtomicU32::new(0);

#[no_mangle]
extern "C" fn zcache_write_back() {
    if frames::in_use() <= ffi::high_frames() {
        return;
    }
    let mut idle_turns = 0;
    while frames::in_use() > ffi::low_frames() && idle_turns < 2 * store::shards() {
        let number = TURN.fetch_add(1, Ordering::Relaxed) & (store::shards() - 1);
        let progress = clean::drop_oldest(number).is_some() || write_block(number);
        idle_turns = if progress { 0 } else { idle_turns + 1 };
        ffi::relax();
    }
}

/// Writes the oldest block of a shard; false when nothing of it was written.
fn write_block(number: u32) -> bool {
    let keys = store::keys();
    let Some((block, count)) = begin(number, keys) else {
        return false;
    };
    let mut written = 0;
    for &[device, offset] in keys.iter().take(count) {
        match write_page(device, offset) {
            Ok(()) => written += 1,
            Err(error) if error == ENOMEM => break,
            Err(_) => {}
        }
    }
    let end = store::with(number, PageFrames::existing, |shard, frames| {
        // No tier has the block: it is empty now, or what is left of it is young again, or it is damaged and its pages
        // are lost.
        shard.finish_writeback(frames, block, Err(WriteFailed))
    });
    if matches!(end, WritebackEnd::Empty { .. }) {
        EVENTS.written_blocks.fetch_add(1, Ordering::Relaxed);
    }
    written > 0
}

/// Takes the oldest block out of the lists, with the keys of its pages.
fn begin(number: u32, keys: &mut [[u32; 2]]) -> Option<(BlockToken, usize)> {
    store::with(number, PageFrames::existing, |shard, frames| {
        let plan = shard.begin_writeback(frames, Kind::Persistent)?;
        let frames = &*frames;
        let live = shard.live_zpages(frames, plan.block);
        let found = live.filter_map(|zpage| shard.key(frames, zpage.entry));
        Some((plan.block, fill(keys, found)))
    })
}

/// Writes down where pages belong; how many.
fn fill(keys: &mut [[u32; 2]], found: impl Iterator<Item = Key>) -> usize {
    let mut count = 0;
    for (slot, key) in keys.iter_mut().zip(found) {
        *slot = [key.object.0[0] as u32, key.index];
        count += 1;
    }
    count
}

fn write_page(device: u32, offset: u32) -> Result {
    let result = ffi::write_page(device, offset);
    let event = match result {
        Ok(()) => &EVENTS.written_pages,
        Err(error) if error == EEXIST => &EVENTS.write_found_in_swap_cache,
        Err(error) if error == ENOENT => &EVENTS.write_found_freed,
        Err(_) => &EVENTS.write_failed,
    };
    event.fetch_add(1, Ordering::Relaxed);
    result
}

/// Writes every page that must be kept; how many could not be, after waiting for those that others are just reading.
#[no_mangle]
extern "C" fn zcache_drain() -> u64 {
    let mut least = u64::MAX;
    let mut idle_passes = 0;
    while idle_passes < DRAIN_PASSES {
        let left: u64 = (0..store::shards()).map(drain_shard).sum();
        ffi::write_wait();
        if left == 0 {
            return nameless();
        }
        if left < least {
            least = left;
            idle_passes = 0;
        } else {
            idle_passes += 1;
            ffi::pause();
        }
    }
    least
}

/// Pages that damage had taken with their names when the last swap device went: nobody asks for them any more.
static VOID: AtomicU64 = AtomicU64::new(0);

fn lost() -> u64 {
    (0..store::shards())
        .map(|number| store::with(number, PageFrames::existing, |shard, _| shard.counters().lost_pages))
        .sum()
}

/// There is no swap device.
pub(crate) fn forgive() {
    VOID.store(lost(), Ordering::Relaxed);
}

/// Pages that damage took with their names and that somebody may still ask for. Whoever does gets an error here, and
/// would get what the device has in their place if nobody were here.
fn nameless() -> u64 {
    let nameless = lost().saturating_sub(VOID.load(Ordering::Relaxed));
    if nameless != 0 {
        pr_err!("damage took {nameless} pages with their names: before this can end, swapoff must\n");
    }
    nameless
}

/// Writes the pages of a shard; how many there still are, those included that were written just now.
fn drain_shard(number: u32) -> u64 {
    let keys = store::keys();
    let mut from = 0;
    let mut seen = 0;
    loop {
        let (count, next) = store::with(number, PageFrames::existing, |shard, frames| {
            let end = shard.entries_made().min(from + store::KEYS_MAX as u32);
            forget_lost(shard, frames, from..end);
            let found = (from..end)
                .filter_map(|token| shard.key(&*frames, EntryToken(token)))
                .filter(|key| key.pool.kind() == Kind::Persistent);
            (fill(keys, found), (end < shard.entries_made()).then_some(end))
        });
        seen += count as u64;
        for &[device, offset] in keys.iter().take(count) {
            // Those that fail are seen again in the next pass.
            let _ = write_page(device, offset);
        }
        ffi::relax();
        match next {
            Some(next) => from = next,
            None => return seen.max(kept(number)),
        }
    }
}

/// Pages of a shard that must be kept, by what it counts: records that are damaged show no key.
fn kept(number: u32) -> u64 {
    store::with(number, PageFrames::existing, |shard, _| {
        let usage = shard.usage();
        u64::from(usage.entries.saturating_sub(usage.ephemeral.zpages))
    })
}

/// Forgets file pages that damage has taken: they lie in no block, so nothing else would drop them.
fn forget_lost(shard: &mut Shard, frames: &mut PageFrames, tokens: core::ops::Range<u32>) {
    if shard.usage().lost_pages == 0 {
        return;
    }
    for token in tokens {
        let key = shard.key(&*frames, EntryToken(token));
        if let Some(key) = key.filter(|key| key.pool.kind() == Kind::Ephemeral) {
            if matches!(shard.get(&*frames, &key), Some(Found::Damaged)) {
                shard.flush_page(frames, &key);
            }
        }
    }
}
