// SPDX-License-Identifier: GPL-2.0-only

//! Frames from the page allocator: the core's memory.
//!
//! Invariant: `in_use == frames in use of all shards`, blocks and tables, `+ stock`.

use core::sync::atomic::{AtomicU64, Ordering};

use zcache_core::{FrameId, Frames, Run};

use crate::{ffi, stock};

static IN_USE: AtomicU64 = AtomicU64::new(0);

/// Frames that the store has now.
pub(crate) fn in_use() -> u64 {
    IN_USE.load(Ordering::Relaxed)
}

/// Counts frames as in use where the limit allows, while `alloc` gets them.
pub(crate) fn reserve(frames: u64, limit: u64, alloc: impl FnOnce() -> Option<u32>) -> Option<u32> {
    let before = IN_USE.fetch_add(frames, Ordering::Relaxed);
    let got = if before + frames <= limit { alloc() } else { None };
    if got.is_none() {
        IN_USE.fetch_sub(frames, Ordering::Relaxed);
    }
    got
}

/// # Safety
/// They were reserved, as many, and nothing refers to them.
pub(crate) unsafe fn give_back(pfn: u32, frames: u32) {
    // SAFETY: as above.
    unsafe { ffi::frames_free(pfn, frames) };
    IN_USE.fetch_sub(frames.into(), Ordering::Relaxed);
}

/// The page allocator, for one operation.
pub(crate) struct PageFrames {
    base: *mut u8,
    limit_frames: u64,
    /// Reclaim must not fail for want of a frame; a page that may be dropped can be refused one.
    must_be_kept: bool,
}

impl PageFrames {
    /// For what takes no new frame.
    pub(crate) fn existing(base: *mut u8) -> PageFrames {
        PageFrames {
            base,
            limit_frames: 0,
            must_be_kept: false,
        }
    }

    /// For a page that must be kept.
    pub(crate) fn persistent(base: *mut u8) -> PageFrames {
        PageFrames {
            base,
            limit_frames: ffi::limit_frames(),
            must_be_kept: true,
        }
    }

    /// For one that may be dropped: these alone never bring writeback about.
    pub(crate) fn ephemeral(base: *mut u8) -> PageFrames {
        PageFrames {
            base,
            limit_frames: ffi::low_frames(),
            must_be_kept: false,
        }
    }

    fn address(&self, frame: FrameId) -> *mut u8 {
        self.base.wrapping_add((frame.0 as usize) << 12)
    }
}

impl Frames for PageFrames {
    fn alloc(&mut self, run: Run) -> Option<FrameId> {
        let got = reserve(run.frames().into(), self.limit_frames, || {
            ffi::frames_alloc(run.frames())
        });
        // What is in stock is in use already.
        let got = got.or_else(|| {
            let within = in_use() <= self.limit_frames;
            within.then(|| stock::take(run, self.must_be_kept)).flatten()
        });
        got.map(FrameId)
    }

    fn free(&mut self, frame: FrameId, run: Run) {
        // SAFETY: the core gives back what `alloc` gave it, once, as it was.
        unsafe { give_back(frame.0, run.frames()) };
    }

    #[inline]
    fn bytes(&self, frame: FrameId, run: Run) -> &[u8] {
        // SAFETY: the frames are the core's, contiguous in the direct map, and whoever calls holds the lock of the
        // shard that they belong to.
        unsafe { core::slice::from_raw_parts(self.address(frame), run.bytes()) }
    }

    #[inline]
    fn bytes_mut(&mut self, frame: FrameId, run: Run) -> &mut [u8] {
        // SAFETY: as in `bytes`.
        unsafe { core::slice::from_raw_parts_mut(self.address(frame), run.bytes()) }
    }
}
