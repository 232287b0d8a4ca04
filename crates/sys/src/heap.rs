//! An allocator that counts what is allocated, for tests that compare what a
//! part says it takes of the heap with what it does.
//!
//! Does not see what libraries in C allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The system's allocator, counted. Make it the `#[global_allocator]`.
#[derive(Debug, Default)]
pub struct CountedHeap {
    bytes: AtomicU64,
}

impl CountedHeap {
    /// With nothing allocated.
    #[must_use]
    pub const fn new() -> CountedHeap {
        CountedHeap {
            bytes: AtomicU64::new(0),
        }
    }

    /// Bytes allocated now, as they were asked for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}

// SAFETY: every call goes to the system's allocator as it came, and what that
// gives is returned as it is; counting touches no memory of the caller's. The
// other methods keep their default bodies, which call these two.
unsafe impl GlobalAlloc for CountedHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this very method.
        let memory = unsafe { System.alloc(layout) };
        if !memory.is_null() {
            self.bytes.fetch_add(layout.size() as u64, Relaxed);
        }
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        self.bytes.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: the caller keeps the contract of this very method, and memory
        // from `alloc` came from the system's allocator with this layout.
        unsafe { System.dealloc(memory, layout) };
    }
}
