//! Frames: the RAM the home lends to the core.
//!
//! Stage on the data path: below everything. Every byte the core keeps, packed zpages as well as its own metadata,
//! lies in a run of frames obtained here.
//!
//! Invariants:
//! - `runs handed out == runs freed + runs the shard still names` (checked by `Shard::validate` and `Shard::destroy`)
//! - the core touches a run only between its `alloc` and its `free`
//!
//! Does not: decide how much RAM there is. A home that is out of budget answers `None`, which is never fatal.

/// Bytes in one frame and in one page.
pub const FRAME_SIZE: usize = 4096;

/// A run of `1 << order` contiguous frames, named by its home with a number that only the home interprets.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameId(pub u32);

impl core::fmt::Debug for FrameId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "F{}", self.0)
    }
}

/// The size of a run of frames as a power of two: 0 is one frame, 2 is four frames (16 KiB).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Order(u8);

impl Order {
    /// One frame, 4 KiB: all metadata, and the blocks of zbud.
    pub const FRAME: Order = Order(0);
    /// Four contiguous frames, 16 KiB: the blocks of the default allocator.
    pub const BLOCK: Order = Order(2);

    /// Frames in the run.
    #[must_use]
    pub const fn frames(self) -> u32 {
        1 << self.0
    }

    /// Bytes in the run.
    #[must_use]
    pub const fn bytes(self) -> usize {
        FRAME_SIZE << self.0
    }

    /// The power of two itself.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// What a home provides: runs of frames, and access to their bytes.
///
/// `order` is always the order the run was allocated with. A slice given out has exactly `order.bytes()` bytes. The core
/// calls `bytes` often (several times per operation), so it should be an address computation. Fresh runs may hold any
/// bytes: the core initialises what it reads.
pub trait Frames {
    /// A run of `order.frames()` contiguous frames, or `None` when there is no room.
    fn alloc(&mut self, order: Order) -> Option<FrameId>;

    /// Takes a run back.
    fn free(&mut self, frame: FrameId, order: Order);

    /// The bytes of a run.
    fn bytes(&self, frame: FrameId, order: Order) -> &[u8];

    /// The bytes of a run, to be written.
    fn bytes_mut(&mut self, frame: FrameId, order: Order) -> &mut [u8];
}
