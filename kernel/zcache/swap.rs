// SPDX-License-Identifier: GPL-2.0-only

//! The door of swap: anonymous pages, which must be kept.
//!
//! The folio's lock and its place in the swap cache keep everybody else from the entry.

use core::sync::atomic::Ordering;

use kernel::prelude::*;

use crate::counters::EVENTS;
use crate::ffi::{self, Page};
use crate::frames::{self, PageFrames};
use crate::store::{self, Got, PART};
use crate::writeback;

#[no_mangle]
extern "C" fn zcache_swap_store(page: *const Page, device: u32, offset: u64) -> bool {
    let Some(key) = store::swap_key(device, offset) else {
        return false;
    };
    // SAFETY: the caller has mapped the page of a folio that it holds locked.
    let stored = store::put(&key, unsafe { &*page });
    let event = if stored {
        &EVENTS.swap_stored
    } else {
        &EVENTS.swap_refused
    };
    event.fetch_add(1, Ordering::Relaxed);
    if frames::in_use() > ffi::high_frames() {
        ffi::kick_writeback();
    }
    stored
}

/// 1 when the page was filled, 0 when there is none, -1 when it cannot be read.
#[no_mangle]
extern "C" fn zcache_swap_load(page: *mut Page, device: u32, offset: u64, keep: bool) -> i32 {
    let Some(key) = store::swap_key(device, offset) else {
        return 0;
    };
    // SAFETY: the caller has mapped the page of a folio that it holds locked and that is not up to date.
    match store::get(&key, unsafe { &mut *page }, !keep) {
        Got::Nothing => {
            EVENTS.swap_missed.fetch_add(1, Ordering::Relaxed);
            0
        }
        Got::Page => {
            EVENTS.swap_loaded.fetch_add(1, Ordering::Relaxed);
            1
        }
        // It stays: the device has an older page, or none.
        Got::Damaged => -1,
    }
}

#[no_mangle]
extern "C" fn zcache_swap_has(device: u32, offset: u64) -> bool {
    store::swap_key(device, offset).is_some_and(|key| {
        store::with(store::shard_of(&key), PageFrames::existing, |shard, frames| {
            // Also one that is damaged, or that may have been there.
            shard.get(&*frames, &key).is_some()
        })
    })
}

#[no_mangle]
extern "C" fn zcache_swap_invalidate(device: u32, offset: u64) {
    if let Some(key) = store::swap_key(device, offset) {
        if store::flush(&key) {
            EVENTS.swap_invalidated.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// No entry of the device is used any more, so there is nothing; if there is, it must not meet the next device.
#[no_mangle]
extern "C" fn zcache_swap_off(device: u32, is_last: bool) {
    let Some(key) = store::swap_key(device, 0) else {
        return;
    };
    let mut left = 0;
    for number in 0..store::shards() {
        left += store::flush_parts(number, |shard, frames| {
            shard.flush_object_part(frames, key.pool, key.object, PART)
        });
    }
    if left != 0 {
        pr_warn!("{left} pages of swap device {device} were left after swapoff\n");
    }
    if is_last {
        writeback::forgive();
    }
}
