// SPDX-License-Identifier: GPL-2.0-only

//! Frames from the page allocator: the core's memory.
//!
//! Invariant: `in_use == frames in use of all shards`, blocks and tables.

use core::sync::atomic::{AtomicU64, Ordering};

use zcache_core::{FrameId, Frames, Run};

use crate::ffi;

static IN_USE: AtomicU64 = AtomicU64::new(0);

/// Frames that the store has now.
pub(crate) fn in_use() -> u64 {
    IN_USE.load(Ordering::Relaxed)
}

/// The page allocator, for one operation.
pub(crate) struct PageFrames {
    base: *mut u8,
    limit_frames: u64,
    /// Reclaim must not fail for want of a frame; a page that may be dropped can be refused one.
    may_use_reserves: bool,
}

impl PageFrames {
    /// For what takes no new frame.
    pub(crate) fn existing(base: *mut u8) -> PageFrames {
        PageFrames {
            base,
            limit_frames: 0,
            may_use_reserves: false,
        }
    }

    /// For a page that must be kept.
    pub(crate) fn persistent(base: *mut u8) -> PageFrames {
        PageFrames {
            base,
            limit_frames: ffi::limit_frames(),
            may_use_reserves: true,
        }
    }

    /// For one that may be dropped: these alone never bring writeback about.
    pub(crate) fn ephemeral(base: *mut u8) -> PageFrames {
        PageFrames {
            base,
            limit_frames: ffi::low_frames(),
            may_use_reserves: false,
        }
    }

    fn address(&self, frame: FrameId) -> *mut u8 {
        self.base.wrapping_add((frame.0 as usize) << 12)
    }
}

impl Frames for PageFrames {
    fn alloc(&mut self, run: Run) -> Option<FrameId> {
        let frames = u64::from(run.frames());
        let before = IN_USE.fetch_add(frames, Ordering::Relaxed);
        if before + frames <= self.limit_frames {
            if let Some(pfn) = ffi::frames_alloc(run.frames(), self.may_use_reserves) {
                return Some(FrameId(pfn));
            }
        }
        IN_USE.fetch_sub(frames, Ordering::Relaxed);
        None
    }

    fn free(&mut self, frame: FrameId, run: Run) {
        // SAFETY: the core gives back what `alloc` gave it, once, as it was.
        unsafe { ffi::frames_free(frame.0, run.frames()) };
        IN_USE.fetch_sub(u64::from(run.frames()), Ordering::Relaxed);
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
