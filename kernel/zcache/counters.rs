// SPDX-License-Identifier: GPL-2.0-only

//! Counters for debugfs: the core's, summed over the shards, and the doors' own.
//!
//! Equations, at rest:
//! - `stored == entries + overwritten + put_to_flush + flushed + evicted_eph_zpages + lost_pages`
//! - `entries == same_filled_pages + pers_zpages + eph_zpages + lost_entries`
//! - `puts == stored + rejected_no_frames + rejected_no_metadata + rejected_damaged`
//! - `swap_stored + clean_kept == stored`
//! - `frames_in_use == block_frames + metadata_frames + stock_frames`

use core::ffi::c_char;
use core::sync::atomic::{AtomicU64, Ordering};

use zcache_core::{Counters, Usage};

use crate::frames::{self, PageFrames};
use crate::{ffi, stock, store};

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the doors count.
        pub(crate) struct Events {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)*
        }

        pub(crate) static EVENTS: Events = Events {
            $($name: AtomicU64::new(0),)*
        };

        const EVENT_TABLE: &[(&str, fn() -> u64)] = &[
            $((concat!(stringify!($name), "\0"), || EVENTS.$name.load(Ordering::Relaxed)),)*
        ];
    };
}

events! {
    /// Anonymous pages taken.
    swap_stored,
    /// Anonymous pages that went to their device at once.
    swap_refused,
    /// Pages given back, to faults and to writeback.
    swap_loaded,
    /// Reads of swap that the device had to answer.
    swap_missed,
    /// Pages that were freed without being read.
    swap_invalidated,
    /// Pages that compress by less than an eighth.
    incompressible,
    /// Looks at pages that are damaged, or may have been there and be lost.
    damaged,
    /// File pages kept.
    clean_kept,
    /// File pages not kept for want of room, or because they do not compress.
    clean_refused,
    /// File pages not kept because they never were active.
    nonactive_puts_ignored,
    /// File pages given back.
    clean_gets,
    /// Reads of files that the file system had to answer.
    clean_missed,
    /// File pages forgotten because they changed or left the page cache otherwise.
    clean_invalidated,
    /// File pages dropped because the kernel wanted memory.
    shrunk_pages,
    /// Runs of frames that the page allocator did not have at once and the stock had.
    taken_from_stock,
    /// Pages written to a swap device from here.
    written_pages,
    /// Blocks that writeback emptied.
    written_blocks,
    /// Pages not written because somebody was reading them.
    write_found_in_swap_cache,
    /// Pages that were freed before their turn.
    write_found_freed,
    /// Pages not written for want of memory or because they are damaged.
    write_failed,
}

/// All shards together.
#[derive(Default)]
struct Sum {
    counters: Counters,
    usage: Usage,
}

macro_rules! add {
    ($to:expr, $from:expr, $($field:ident)*) => { $($to.$field += $from.$field;)* };
}

impl Sum {
    fn take() -> Sum {
        let mut sum = Sum::default();
        for number in 0..store::shards() {
            let (counters, usage) = store::with(number, PageFrames::existing, |shard, _| {
                (*shard.counters(), shard.usage())
            });
            add!(sum.counters, counters,
                puts stored rejected_no_frames rejected_no_metadata overwritten put_to_flush flushed evicted_eph_blocks
                evicted_eph_zpages pers_ate_eph compactions rejected_damaged repairs lost_pages lost_blocks
                lost_frames);
            add!(sum.usage, usage, entries lost_pages objects block_frames metadata_frames writing_blocks);
            add!(sum.usage.persistent, usage.persistent, blocks zpages zbytes);
            add!(sum.usage.ephemeral, usage.ephemeral, blocks zpages zbytes);
        }
        sum
    }

    /// Pages that are one word and take an entry only, as anonymous ones do. Those of files, which the core counts among
    /// them, are zpages of a word.
    fn same_filled_pages(&self) -> u64 {
        let usage = &self.usage;
        let others = usage.persistent.zpages + usage.ephemeral.zpages + usage.lost_pages;
        usage.entries.saturating_sub(others).into()
    }
}

type Reader = fn(&Sum) -> u64;

const SUM_TABLE: &[(&str, Reader)] = &[
    ("puts\0", |sum| sum.counters.puts),
    ("stored\0", |sum| sum.counters.stored),
    ("rejected_no_frames\0", |sum| sum.counters.rejected_no_frames),
    ("rejected_no_metadata\0", |sum| sum.counters.rejected_no_metadata),
    ("rejected_damaged\0", |sum| sum.counters.rejected_damaged),
    ("overwritten\0", |sum| sum.counters.overwritten),
    ("put_to_flush\0", |sum| sum.counters.put_to_flush),
    ("flushed\0", |sum| sum.counters.flushed),
    ("evicted_eph_blocks\0", |sum| sum.counters.evicted_eph_blocks),
    ("evicted_eph_zpages\0", |sum| sum.counters.evicted_eph_zpages),
    ("pers_ate_eph\0", |sum| sum.counters.pers_ate_eph),
    ("compactions\0", |sum| sum.counters.compactions),
    ("repairs\0", |sum| sum.counters.repairs),
    ("lost_pages\0", |sum| sum.counters.lost_pages),
    ("lost_blocks\0", |sum| sum.counters.lost_blocks),
    ("lost_frames\0", |sum| sum.counters.lost_frames),
    ("entries\0", |sum| sum.usage.entries.into()),
    ("same_filled_pages\0", Sum::same_filled_pages),
    ("lost_entries\0", |sum| sum.usage.lost_pages.into()),
    ("objects\0", |sum| sum.usage.objects.into()),
    ("pers_blocks\0", |sum| sum.usage.persistent.blocks.into()),
    ("pers_zpages\0", |sum| sum.usage.persistent.zpages.into()),
    ("pers_zbytes\0", |sum| sum.usage.persistent.zbytes),
    ("eph_blocks\0", |sum| sum.usage.ephemeral.blocks.into()),
    ("eph_zpages\0", |sum| sum.usage.ephemeral.zpages.into()),
    ("eph_zbytes\0", |sum| sum.usage.ephemeral.zbytes),
    ("writing_blocks\0", |sum| sum.usage.writing_blocks.into()),
    ("block_frames\0", |sum| sum.usage.block_frames.into()),
    ("metadata_frames\0", |sum| sum.usage.metadata_frames.into()),
    ("stock_frames\0", |_| stock::in_stock()),
    ("frames_in_use\0", |_| frames::in_use()),
    ("limit_frames\0", |_| ffi::limit_frames()),
];

fn read(sum: &Sum, number: usize) -> u64 {
    match (SUM_TABLE.get(number), number.checked_sub(SUM_TABLE.len())) {
        (Some((_, read)), _) => read(sum),
        (None, event) => event
            .and_then(|event| EVENT_TABLE.get(event))
            .map_or(0, |(_, read)| read()),
    }
}

#[no_mangle]
extern "C" fn zcache_counters() -> u32 {
    (SUM_TABLE.len() + EVENT_TABLE.len()) as u32
}

#[no_mangle]
extern "C" fn zcache_counter_name(number: u32) -> *const c_char {
    let number = number as usize;
    let sums = SUM_TABLE.iter().map(|(name, _)| *name);
    let events = EVENT_TABLE.iter().map(|(name, _)| *name);
    let name = sums.chain(events).nth(number).unwrap_or("\0");
    name.as_ptr().cast()
}

#[no_mangle]
extern "C" fn zcache_counter(number: u32) -> u64 {
    read(&Sum::take(), number as usize)
}

/// # Safety
/// There is room for as many values as there are counters.
#[no_mangle]
unsafe extern "C" fn zcache_counters_read(values: *mut u64) {
    let sum = Sum::take();
    for number in 0..zcache_counters() as usize {
        // SAFETY: as above.
        unsafe { values.add(number).write(read(&sum, number)) };
    }
}

/// Whether every shard is as it must be.
#[no_mangle]
extern "C" fn zcache_validate() -> bool {
    (0..store::shards()).all(|number| {
        store::with(number, PageFrames::existing, |shard, frames| {
            shard.validate(&*frames).is_ok()
        })
    })
}
