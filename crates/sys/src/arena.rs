//! A span of private anonymous memory that is reserved at once, touched frame
//! by frame and given back frame by frame.
//!
//! Stage on the data path: under the packing of zpages; every zpage in RAM lies
//! in an arena.
//!
//! - The whole span is readable and writable from [`Arena::reserve`] to drop;
//!   frames that were never written, or were discarded since, read as zeros.
//! - The kernel holds at most one 4 KiB page for each frame touched since its
//!   last discard, never a huge page, so counting touched frames counts RAM.
//!
//! Does not know which frames are in use and does not count them.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

/// The size of a frame in bytes, which is the smallest page size of the
/// systems that zcache runs on.
pub const FRAME_SIZE: usize = 4096;

/// A reserved span of frames, numbered from zero.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    frames: u32,
}

// SAFETY: the mapping belongs to this value alone, is not tied to a thread, and
// is reached only through `&self` for reading and `&mut self` for writing.
unsafe impl Send for Arena {}
// SAFETY: as above; `&Arena` gives nothing but shared slices of plain bytes.
unsafe impl Sync for Arena {}

/// Set by [`keep_from_children`].
static KEPT_FROM_CHILDREN: AtomicBool = AtomicBool::new(false);

/// Arenas that are reserved from now on do not exist in forked children, which
/// then hold no copies of what changes here.
pub fn keep_from_children() {
    KEPT_FROM_CHILDREN.store(true, Ordering::Relaxed);
}

impl Arena {
    /// Reserves address space for `frames` frames. No memory is taken yet.
    ///
    /// # Errors
    /// What `mmap` says, for instance `ENOMEM` under an address space limit.
    ///
    /// # Panics
    /// When `frames` is zero.
    pub fn reserve(frames: u32) -> io::Result<Arena> {
        assert!(frames > 0, "an arena has at least one frame");
        let bytes = frames as usize * FRAME_SIZE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice
        // touches no memory that anything else refers to.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).expect("mmap does not map address zero");
        let arena = Arena { base, frames };
        // A huge page would make the kernel hold 511 frames that nobody counted.
        // Kernels without huge pages refuse the advice, which is as good; the
        // other piece of advice only keeps frames out of core dumps.
        arena.advise(0..frames, libc::MADV_NOHUGEPAGE).ok();
        arena.advise(0..frames, libc::MADV_DONTDUMP).ok();
        if KEPT_FROM_CHILDREN.load(Ordering::Relaxed) {
            arena.advise(0..frames, libc::MADV_DONTFORK)?;
        }
        Ok(arena)
    }

    /// How many frames the arena has.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// The bytes of the whole arena.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping spans exactly this many initialized (zero or
        // written) bytes, lives as long as `self`, and is written only through
        // `&mut self`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len()) }
    }

    /// The bytes of the whole arena, to be written. Writing takes memory.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len()) }
    }

    /// The bytes of one frame.
    ///
    /// # Panics
    /// When the arena has no such frame.
    #[must_use]
    pub fn frame(&self, frame: u32) -> &[u8; FRAME_SIZE] {
        let (frames, _) = self.bytes().as_chunks();
        &frames[frame as usize]
    }

    /// The bytes of one frame, to be written.
    ///
    /// # Panics
    /// When the arena has no such frame.
    #[must_use]
    pub fn frame_mut(&mut self, frame: u32) -> &mut [u8; FRAME_SIZE] {
        let (frames, _) = self.bytes_mut().as_chunks_mut();
        &mut frames[frame as usize]
    }

    /// Gives the memory of these frames back to the kernel; they read as zeros
    /// until they are written again.
    ///
    /// # Errors
    /// What `madvise` says, for instance `EINVAL` for locked memory.
    ///
    /// # Panics
    /// When the range reaches beyond the arena.
    pub fn discard(&mut self, frames: Range<u32>) -> io::Result<()> {
        self.advise(frames, libc::MADV_DONTNEED)
    }

    /// How many frames the kernel holds in RAM now. Takes time in proportion to
    /// the arena; for checking counts, not for keeping them.
    ///
    /// # Errors
    /// What `mincore` says.
    pub fn resident_frames(&self) -> io::Result<u32> {
        let mut present = vec![0u8; self.frames as usize];
        // SAFETY: the range is our whole mapping and the vector has one byte for
        // each page of it; mincore writes only there.
        let result =
            unsafe { libc::mincore(self.base.as_ptr().cast(), self.len(), present.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let resident = present.iter().filter(|byte| **byte & 1 == 1).count();
        Ok(u32::try_from(resident).expect("no more than there are frames"))
    }

    fn len(&self) -> usize {
        self.frames as usize * FRAME_SIZE
    }

    fn advise(&self, frames: Range<u32>, advice: libc::c_int) -> io::Result<()> {
        assert!(
            frames.start <= frames.end && frames.end <= self.frames,
            "frames {frames:?} of an arena of {}",
            self.frames
        );
        let bytes = frames.len() * FRAME_SIZE;
        // SAFETY: the start is within the mapping or at its end by the assertion
        // above.
        let start = unsafe { self.base.as_ptr().add(frames.start as usize * FRAME_SIZE) };
        // SAFETY: the range is within our own private mapping. The one advice
        // that changes contents, DONTNEED, comes from `discard`, whose `&mut
        // self` proves that no slice of the bytes is alive.
        let result = unsafe { libc::madvise(start.cast(), bytes, advice) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made by `reserve`, whole, and no slice of
        // it outlives `self`. Failure would leak it, which is harmless.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_start_zero_keep_bytes_and_are_zero_again_after_discard() {
        let mut arena = Arena::reserve(64).unwrap();
        assert_eq!(arena.frame(63), &[0; FRAME_SIZE]);
        for frame in 0..64 {
            arena.frame_mut(frame).fill(frame as u8 + 1);
        }
        assert_eq!(arena.resident_frames().unwrap(), 64);
        arena.discard(10..20).unwrap();
        assert_eq!(arena.resident_frames().unwrap(), 54);
        for frame in 0..64 {
            let expected = if (10..20).contains(&frame) {
                0
            } else {
                frame as u8 + 1
            };
            assert_eq!(arena.frame(frame), &[expected; FRAME_SIZE]);
        }
    }

    #[test]
    #[should_panic(expected = "of an arena of 4")]
    fn a_range_beyond_the_arena_is_refused() {
        Arena::reserve(4).unwrap().discard(3..5).ok();
    }
}
