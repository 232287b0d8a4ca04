//! What a caller hands in and gets back.
//!
//! Stage on the data path: the seam between the core and its home.
//!
//! Does not: hold any state.

use crate::frames::{FrameId, Run};
use crate::ids::{BlockToken, CodecId, EntryToken, Generation, Slot};

/// The longest zpage: a page stored as it is.
pub const ZPAGE_LEN_MAX: usize = 4096;

/// What is to be stored for one page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zpage<'a> {
    /// A page that is one 8-byte word over and over. A persistent one needs an entry and no frame space; an ephemeral one is
    /// a zpage of 8 bytes, so that it ages with its block.
    Same {
        /// The word, as read little-endian from the page.
        word: u64,
    },
    /// Compressed (or raw) bytes.
    Bytes {
        /// 1 to [`ZPAGE_LEN_MAX`] bytes.
        bytes: &'a [u8],
        /// What made them.
        codec: CodecId,
        /// Whatever the home verifies after a load; stored and returned untouched.
        checksum: u32,
    },
}

/// A stored page as a lookup finds it. It borrows the frames: copy the bytes out before the lock is let go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found<'f> {
    /// One 8-byte word over and over.
    Same {
        /// The word.
        word: u64,
    },
    /// The bytes are in RAM (also while their block is being written back).
    InRam {
        /// The bytes as they were stored.
        bytes: &'f [u8],
        /// What made them.
        codec: CodecId,
        /// As it was stored.
        checksum: u32,
    },
    /// The bytes are only in a tier.
    InTier {
        /// Where in the tier.
        at: TierRange,
        /// What made them.
        codec: CodecId,
        /// As it was stored. The slot may be freed and reused while the home reads it without the lock: on a
        /// mismatch, look the page up again before calling it corrupt.
        checksum: u32,
    },
    /// There is, or may have been, a page, and the records that say where are damaged. The page is lost.
    Damaged,
}

/// Where a zpage lies in a tier. Two that are equal are the same zpage, since nothing is placed in a block that has left
/// RAM; a generation comes back only after 2^32 blocks of the shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TierRange {
    /// The block it belongs to.
    pub block: BlockToken,
    /// Which block of that token.
    pub generation: Generation,
    /// The slot the block was written to.
    pub slot: Slot,
    /// First byte of the zpage, from the start of the block.
    pub offset_bytes: u32,
    /// Length of the zpage.
    pub len_bytes: u32,
}

/// Why a page was not stored. Nothing but the older copy under the same key is lost by a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The home had no run of frames for a new block and no block had room.
    NoFrames,
    /// The home had no frame for a table of entries, objects, blocks or hash buckets, or the table is at its bound.
    NoMetadata,
    /// The zpage is empty or longer than [`ZPAGE_LEN_MAX`].
    Length {
        /// The length refused.
        len_bytes: usize,
    },
    /// The records that it needs are damaged, and could not be made good.
    Damaged,
}

/// A block the home is to write to a tier. Until `finish_writeback` the frames are the home's to read without the lock:
/// the core changes no byte of them, and keeps answering lookups from them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WritebackPlan {
    /// Names the block in `finish_writeback`.
    pub block: BlockToken,
    /// Which block of that token.
    pub generation: Generation,
    /// Its bytes, `run.bytes()` of them, to be written verbatim.
    pub frame: FrameId,
    /// The run that it is.
    pub run: Run,
    /// Live zpages in it.
    pub zpages: u32,
}

/// The tier did not take the block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteFailed;

/// How a writeback ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WritebackEnd {
    /// The block lives in the tier now; its frames were freed.
    InTier {
        /// Frames freed.
        frames: u32,
    },
    /// Every zpage of it went away meanwhile: the frames were freed and the slot, if there is one, was queued for
    /// `take_freed_slot`.
    Empty {
        /// Frames freed.
        frames: u32,
    },
    /// The write failed; the block is back in RAM as the youngest, so that the next plan names another.
    BackInRam,
    /// The block's record is damaged: its pages are lost, its frames are not used again, and the slot, if there is one,
    /// is the home's to free.
    Damaged,
}

/// A block that lies in a tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TierBlock {
    /// Names the block in `live_zpages` and `readmit`.
    pub block: BlockToken,
    /// Which block of that token.
    pub generation: Generation,
    /// Where it is.
    pub slot: Slot,
    /// The run that it is.
    pub run: Run,
    /// Live zpages in it.
    pub zpages: u32,
    /// Bytes of the block that live zpages take, rounding included.
    pub used_bytes: u32,
}

/// One live zpage of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LiveZpage {
    /// Its entry.
    pub entry: EntryToken,
    /// First byte of the zpage, from the start of the block.
    pub offset_bytes: u32,
    /// Length of the zpage.
    pub len_bytes: u32,
    /// Codec and checksum as they were stored; `None` for the word of a same-filled page, which the core verifies.
    pub tags: Option<(CodecId, u32)>,
}

/// An ephemeral block that was dropped whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dropped {
    /// Pages that a get misses from now on.
    pub zpages: u32,
    /// Frames freed.
    pub frames: u32,
}

/// What an evacuation did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Evacuated {
    /// Blocks emptied and freed.
    pub blocks: u32,
    /// Frames freed.
    pub frames: u32,
    /// Zpages moved into other blocks.
    pub zpages: u32,
}

/// When to reclaim, in frames (blocks and metadata of this shard together).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watermarks {
    /// Reclaim begins when more frames than this are in use.
    pub high_frames: u32,
    /// And goes on until no more than this are.
    pub low_frames: u32,
}

impl Watermarks {
    /// No number of frames is too many.
    pub const NEVER: Watermarks = Watermarks {
        high_frames: u32::MAX,
        low_frames: u32::MAX,
    };
}
