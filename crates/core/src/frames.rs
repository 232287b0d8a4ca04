//! Frames: the RAM the home lends to the core.
//!
//! Stage on the data path: below everything. Every byte the core keeps, packed zpages as well as its own metadata,
//! lies in a run of frames obtained here.
//!
//! Invariants:
//! - `runs handed out == runs freed + runs the shard still names`, but for runs whose name damage took; those are not used
//!   again (`validate` compares the runs that are named with those counted; only the home sees the other side)
//! - the core touches a run only between its `alloc` and its `free`
//!
//! Does not: decide how much RAM there is. A home that is out of budget answers `None`, which is never fatal.

/// Bytes in one frame and in one page.
pub const FRAME_SIZE: usize = 4096;

/// A run of contiguous frames, named by its home with a number that only the home interprets.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameId(pub u32);

impl core::fmt::Debug for FrameId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "F{}", self.0)
    }
}

/// The length of a run of frames, 1 to 8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Run(u8);

impl Run {
    /// One frame, 4 KiB: all metadata, and the blocks of zbud and ztri.
    pub const FRAME: Run = Run(1);
    /// Four frames, 16 KiB: the blocks of the default allocator.
    pub const BLOCK: Run = Run(4);
    /// Frames of the longest run. An entry's offset reaches no further.
    pub const FRAMES_MAX: u32 = 8;

    /// The run of so many frames.
    ///
    /// # Panics
    /// When there are none, or more than [`Run::FRAMES_MAX`].
    #[must_use]
    pub const fn of_frames(frames: u32) -> Run {
        assert!(1 <= frames && frames <= Self::FRAMES_MAX);
        Run(frames as u8)
    }

    /// Frames in the run.
    #[must_use]
    pub const fn frames(self) -> u32 {
        self.0 as u32
    }

    /// Bytes in the run.
    #[must_use]
    pub const fn bytes(self) -> usize {
        FRAME_SIZE * self.0 as usize
    }
}

/// What a home provides: runs of frames, and access to their bytes.
///
/// `run` is always the length that the run was allocated with. A slice given out has exactly `run.bytes()` bytes. The core
/// calls `bytes` often (several times per operation), so it should be an address computation. Fresh runs may hold any
/// bytes: the core initialises what it reads.
pub trait Frames {
    /// A run of `run.frames()` contiguous frames, or `None` when there is no room.
    fn alloc(&mut self, run: Run) -> Option<FrameId>;

    /// Takes a run back.
    fn free(&mut self, frame: FrameId, run: Run);

    /// The bytes of a run.
    fn bytes(&self, frame: FrameId, run: Run) -> &[u8];

    /// The bytes of a run, to be written.
    fn bytes_mut(&mut self, frame: FrameId, run: Run) -> &mut [u8];
}
