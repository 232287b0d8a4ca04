// SPDX-License-Identifier: GPL-2.0-only

//! The door of file systems: clean pages, which may be dropped.
//!
//! A page is kept if it was ever on the active list (or refaulted from it), so what is read once passes by.

use core::sync::atomic::Ordering;

use zcache_core::{EntryToken, Key, Kind, ObjectId};

use crate::counters::EVENTS;
use crate::ffi::{self, Page};
use crate::frames::PageFrames;
use crate::store::{self, Got};

/// Longer ranges forget the whole file: that is allowed, and takes one look a shard.
const RANGE_MAX: u64 = 256;

/// Entries that are looked at under one holding of a lock.
const CHUNK: u32 = 1024;

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
            &EVENTS.damaged
        }
    };
    event.fetch_add(1, Ordering::Relaxed);
    got == Got::Page
}

#[no_mangle]
extern "C" fn zcache_clean_invalidate(pool: u32, inode: u64, first: u64, last: u64) {
    if last.wrapping_sub(first) < RANGE_MAX {
        for index in first..=last {
            if let Some(key) = store::clean_key(pool, inode, index) {
                if store::flush(&key) {
                    EVENTS.clean_invalidated.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        return;
    }
    let object = ObjectId([inode, 0, 0]);
    let pool = store::clean_pool(pool);
    for number in 0..store::shards() {
        let flushed = store::with(number, PageFrames::existing, |shard, frames| {
            if shard.object_pages(frames, pool, object) == 0 {
                Some(0)
            } else if shard.entries_made() <= CHUNK {
                Some(shard.flush_object(frames, pool, object))
            } else {
                None
            }
        });
        let flushed = flushed
            .unwrap_or_else(|| flush_where(number, |key| key.pool == pool && key.object == object));
        EVENTS.clean_invalidated.fetch_add(flushed, Ordering::Relaxed);
    }
}

/// Forgets the pages of a shard that `goes` chooses, a part under each holding of the lock, which interrupts wait for;
/// how many. Pages that are put meanwhile may stay.
fn flush_where(number: u32, goes: impl Fn(&Key) -> bool) -> u64 {
    let mut from = 0;
    let mut flushed = 0;
    loop {
        let more = store::with(number, PageFrames::existing, |shard, frames| {
            let end = shard.entries_made().min(from + CHUNK);
            for token in from..end {
                if let Some(key) = shard.key(&*frames, EntryToken(token)).filter(&goes) {
                    flushed += u64::from(shard.flush_page(frames, &key));
                }
            }
            from = end;
            end < shard.entries_made()
        });
        if !more {
            return flushed;
        }
    }
}

#[no_mangle]
extern "C" fn zcache_clean_invalidate_fs(pool: u32) {
    let pool = store::clean_pool(pool);
    for number in 0..store::shards() {
        let flushed = flush_where(number, |key| key.pool == pool);
        EVENTS.clean_invalidated.fetch_add(flushed, Ordering::Relaxed);
    }
}

/// The front end has gone: what it put is nobody's.
#[no_mangle]
extern "C" fn zcache_clean_drop_all() {
    for number in 0..store::shards() {
        flush_where(number, |key| key.pool.kind() == Kind::Ephemeral);
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
