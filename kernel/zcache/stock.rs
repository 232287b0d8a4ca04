// SPDX-License-Identifier: GPL-2.0-only

//! A stock of frames for when the page allocator has none at once, which under reclaim is often: whoever stores may not
//! wait for memory, so a worker, which may, fills the stock again afterwards.
//!
//! Invariant: frames in stock count as in use and within the limit.
//!
//! Pages that may be dropped leave half of it to those that must be kept.

use core::sync::atomic::{AtomicU32, Ordering};

use zcache_core::Run;

use crate::counters::EVENTS;
use crate::{ffi, frames};

/// No frames are in a slot.
const EMPTY: u32 = u32::MAX;

const SLOTS: usize = 64;

/// One slot for so many frames of the limit: all of them together are one part in a hundred.
const LIMIT_FRAMES_PER_SLOT: u64 = 512;

/// Runs of one length, by the number of their first frame.
struct Stock {
    frames: u32,
    slots: [AtomicU32; SLOTS],
}

/// What blocks are made of, and what tables are.
static STOCKS: [Stock; 2] = [Stock::new(4), Stock::new(1)];

impl Stock {
    const fn new(frames: u32) -> Stock {
        Stock {
            frames,
            slots: [const { AtomicU32::new(EMPTY) }; SLOTS],
        }
    }

    /// Takes from any but the first slots.
    fn take(&self, left_alone: usize) -> Option<u32> {
        let slots = self.slots.iter().skip(left_alone);
        let mut taken = slots.map(|slot| slot.swap(EMPTY, Ordering::Acquire));
        taken.find(|pfn| *pfn != EMPTY)
    }

    fn fill(&self) {
        for slot in self.slots.iter().take(wanted()) {
            if slot.load(Ordering::Relaxed) != EMPTY {
                continue;
            }
            let Some(pfn) = frames::reserve(self.frames.into(), ffi::high_frames(), || {
                ffi::frames_alloc_waiting(self.frames)
            }) else {
                return;
            };
            // Only one worker fills.
            slot.store(pfn, Ordering::Release);
        }
    }

    fn in_stock(&self) -> u64 {
        let full = self.slots.iter().filter(|slot| slot.load(Ordering::Relaxed) != EMPTY);
        full.count() as u64 * u64::from(self.frames)
    }

    fn drain(&self) {
        while let Some(pfn) = self.take(0) {
            // SAFETY: nobody else has what was taken.
            unsafe { frames::give_back(pfn, self.frames) };
        }
    }
}

/// Slots that are to be full under the present limit.
fn wanted() -> usize {
    (ffi::limit_frames() / LIMIT_FRAMES_PER_SLOT).min(SLOTS as u64) as usize
}

/// Frames that count as in use already; never waits. The worker will fill what was taken.
pub(crate) fn take(run: Run, must_be_kept: bool) -> Option<u32> {
    let stock = STOCKS.iter().find(|stock| stock.frames == run.frames())?;
    let taken = stock.take(if must_be_kept { 0 } else { wanted() / 2 });
    if frames::in_use() < ffi::high_frames() {
        ffi::kick_stock();
    }
    if taken.is_some() {
        EVENTS.taken_from_stock.fetch_add(1, Ordering::Relaxed);
    }
    taken
}

/// Frames in stock.
pub(crate) fn in_stock() -> u64 {
    STOCKS.iter().map(Stock::in_stock).sum()
}

/// What the worker does.
#[no_mangle]
extern "C" fn zcache_fill_stock() {
    STOCKS.iter().for_each(Stock::fill);
}

/// Gives everything back to the page allocator. The worker does not run any more.
#[no_mangle]
extern "C" fn zcache_drain_stock() {
    STOCKS.iter().for_each(Stock::drain);
}
