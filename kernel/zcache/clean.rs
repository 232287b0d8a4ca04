// SPDX-License-Identifier: GPL-2.0-only

//! The door of file systems: clean pages, which may be dropped.
//!
//! A page is kept if it was ever on the active list (or refaulted from it), so what is read once passes by.

use core::sync::atomic::Ordering;

use zcache_core::{Key, ObjectId, PoolId};

use crate::counters::EVENTS;
use crate::ffi::{self, Page};
use crate::frames::PageFrames;
use crate::store::{self, Got, GROUP_BITS, PART};

/// Parts of a range that are looked through one by one, in a file with more pages than one part; a longer range forgets
/// all of the file, which is allowed.
const RANGE_PARTS_MAX: u32 = 64;

#[no_mangle]
extern "C" fn zcache_clean_put(pool: u32, inode: u64, index: u64, page: *const Page, was_active: bool) {
    let Some(key) = store::clean_key(pool, inode, index) else {
        return;
    };
    if !was_active && !ffi::admits_all() {
        EVENTS.nonactive_puts_ignored.fetch_add(1, Ordering::Relaxed);
        store::flush(&key);
        return;
    }
    // SAFETY: the caller has mapped the page of a folio that nobody else refers to.
    let kept = store::put(&key, unsafe { &*page });
    let event = if kept {
        &EVENTS.clean_kept
    } else {
        &EVENTS.clean_refused
    };
    event.fetch_add(1, Ordering::Relaxed);
}

#[no_mangle]
extern "C" fn zcache_clean_get(pool: u32, inode: u64, index: u64, page: *mut Page) -> bool {
    let Some(key) = store::clean_key(pool, inode, index) else {
        return false;
    };
    // SAFETY: the caller has mapped the page of a folio that it holds locked and that is not up to date.
    let got = store::get(&key, unsafe { &mut *page }, true);
    let event = match got {
        Got::Page => &EVENTS.clean_gets,
        Got::Nothing => &EVENTS.clean_missed,
        Got::Damaged => {
            // The file system has it.
            store::flush(&key);
            &EVENTS.clean_missed
        }
    };
    event.fetch_add(1, Ordering::Relaxed);
    got == Got::Page
}

/// Pages of a file, both ends included.
#[derive(Clone, Copy)]
struct Range {
    pool: PoolId,
    object: ObjectId,
    first: u32,
    last: u32,
}

#[no_mangle]
extern "C" fn zcache_clean_invalidate(pool: u32, inode: u64, first: u64, last: u64) {
    // Pages beyond 2^32 have no key.
    let Ok(first) = u32::try_from(first) else {
        return;
    };
    let last = u32::try_from(last).unwrap_or(u32::MAX);
    if last < first {
        return;
    }
    let range = Range {
        pool: store::clean_pool(pool),
        object: store::clean_object(inode),
        first,
        last,
    };
    let groups = (first >> GROUP_BITS)..=(last >> GROUP_BITS);
    let flushed: u64 = if groups.end() - groups.start() < store::shards() {
        groups.map(|group| flush_group(range, group)).sum()
    } else {
        (0..store::shards()).map(|number| flush_in(range, number)).sum()
    };
    EVENTS.clean_invalidated.fetch_add(flushed, Ordering::Relaxed);
}

/// Forgets the pages of a range that lie side by side in one shard.
fn flush_group(range: Range, group: u32) -> u64 {
    let first = range.first.max(group << GROUP_BITS);
    let last = range.last.min(group << GROUP_BITS | ((1 << GROUP_BITS) - 1));
    let key = Key {
        pool: range.pool,
        object: range.object,
        index: first,
    };
    store::with(store::shard_of(&key), PageFrames::existing, |shard, frames| {
        shard.flush_range(frames, range.pool, range.object, first, last)
    })
}

/// Forgets the pages of a range that lie in a shard, a part under each holding of its lock.
fn flush_in(range: Range, number: u32) -> u64 {
    let Range {
        pool,
        object,
        first,
        last,
    } = range;
    let is_whole_file = first == 0 && last == u32::MAX;
    let at_once = store::with(number, PageFrames::existing, |shard, frames| {
        // It looks at no more pages than there are. Records that are damaged count none, and are repaired by it.
        let is_short = !is_whole_file && shard.object_pages(&*frames, pool, object) <= PART;
        is_short.then(|| shard.flush_range(frames, pool, object, first, last))
    });
    if let Some(flushed) = at_once {
        return flushed;
    }
    if last - first >= PART * RANGE_PARTS_MAX {
        return store::flush_parts(number, |shard, frames| {
            shard.flush_object_part(frames, pool, object, PART)
        });
    }
    (first..=last)
        .step_by(PART as usize)
        .map(|from| {
            let to = last.min(from.saturating_add(PART - 1));
            store::with(number, PageFrames::existing, |shard, frames| {
                shard.flush_range(frames, pool, object, from, to)
            })
        })
        .sum()
}

#[no_mangle]
extern "C" fn zcache_clean_invalidate_fs(pool: u32) {
    let pool = store::clean_pool(pool);
    for number in 0..store::shards() {
        let flushed = store::flush_parts(number, |shard, frames| {
            shard.flush_pool_part(frames, pool, PART)
        });
        EVENTS.clean_invalidated.fetch_add(flushed, Ordering::Relaxed);
    }
}

/// The front end has gone: what it put is nobody's.
#[no_mangle]
extern "C" fn zcache_clean_drop_all() {
    for number in 0..store::shards() {
        // All of them lie in blocks.
        while drop_oldest(number).is_some() {}
    }
}

/// Drops the oldest block of pages that may be dropped; how many there were, `None` when there is no such block.
pub(crate) fn drop_oldest(number: u32) -> Option<u32> {
    store::with(number, PageFrames::existing, |shard, frames| {
        shard.drop_oldest_ephemeral(frames).map(|dropped| dropped.zpages)
    })
}

#[no_mangle]
extern "C" fn zcache_shrink_count() -> core::ffi::c_ulong {
    (0..store::shards())
        .map(|number| {
            store::with(number, PageFrames::existing, |shard, _| {
                u64::from(shard.usage().ephemeral.zpages)
            })
        })
        .sum::<u64>()
}

/// Drops that many pages or a few more, the oldest of all shards in turn; how many.
#[no_mangle]
extern "C" fn zcache_shrink(pages: core::ffi::c_ulong) -> core::ffi::c_ulong {
    let mut dropped = 0;
    let mut progress = true;
    while dropped < pages && progress {
        progress = false;
        for number in 0..store::shards() {
            if let Some(zpages) = drop_oldest(number) {
                dropped += u64::from(zpages);
                progress = true;
            }
            if dropped >= pages {
                break;
            }
        }
    }
    EVENTS.shrunk_pages.fetch_add(dropped, Ordering::Relaxed);
    dropped
}
