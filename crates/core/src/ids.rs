//! Names of things: tokens, keys, and what a caller hands in and gets back.
//!
//! Stage on the data path: the vocabulary of every stage. Tokens are small integers into the shard's own tables, so a
//! record refers to another with 4 bytes and nothing is ever a pointer.
//!
//! Does not: hold any state.

use crate::frames::{FrameId, Run};

/// The longest zpage: a page stored as it is.
pub const ZPAGE_LEN_MAX: usize = 4096;

/// The token that names nothing.
pub(crate) const NONE: u32 = u32::MAX;

macro_rules! token {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }
    };
}

token!(
    /// An entry: one stored page of this shard. Tokens are dense, start at 0 and are reused after a release, the most
    /// recently freed first; there are never more than [`crate::ENTRIES_MAX`].
    EntryToken, "E"
);
token!(
    /// A block: the run of frames that is packed, aged, written back and sent as one.
    BlockToken, "B"
);
token!(
    /// A place in a tier that holds one whole block. The tier chooses the number and interprets it.
    Slot, "S"
);

/// What may be done with the pages of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Any page may be dropped at any time.
    Ephemeral,
    /// A page stays until its owner flushes it.
    Persistent,
}

/// A tmem pool. The kind is part of the id, so a shard keeps no record of pools.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PoolId(u32);

impl PoolId {
    const EPHEMERAL: u32 = 1 << 31;

    /// The pool with this number (below 2^31) and kind.
    ///
    /// # Panics
    /// When the number does not fit 31 bits.
    #[must_use]
    pub const fn new(number: u32, kind: Kind) -> PoolId {
        assert!(number < Self::EPHEMERAL);
        match kind {
            Kind::Ephemeral => PoolId(number | Self::EPHEMERAL),
            Kind::Persistent => PoolId(number),
        }
    }

    /// Whether its pages may be dropped.
    #[must_use]
    pub const fn kind(self) -> Kind {
        if self.0 & Self::EPHEMERAL == 0 {
            Kind::Persistent
        } else {
            Kind::Ephemeral
        }
    }

    /// The number given to [`PoolId::new`].
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0 & !Self::EPHEMERAL
    }

    pub(crate) const fn to_bits(self) -> u32 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u32) -> PoolId {
        PoolId(bits)
    }
}

/// A 192-bit object id, as tmem has it: an inode's file handle, or a swap device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ObjectId(pub [u64; 3]);

/// The tmem key of one page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    /// The pool.
    pub pool: PoolId,
    /// The object within the pool.
    pub object: ObjectId,
    /// The page within the object.
    pub index: u32,
}

/// Which codec made the bytes, and what it needs to read them again: six bits that the core stores, counts and gives back
/// without interpreting them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CodecId(u8);

impl CodecId {
    /// How many codecs can be told apart.
    pub const COUNT: u8 = 64;

    /// The codec with this number.
    ///
    /// # Panics
    /// When the number is not below [`CodecId::COUNT`].
    #[must_use]
    pub const fn new(number: u8) -> CodecId {
        assert!(number < Self::COUNT);
        CodecId(number)
    }

    /// The number given to [`CodecId::new`].
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// What is to be stored for one page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zpage<'a> {
    /// A page that is one 8-byte word over and over; it needs an entry and no frame space.
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
}

/// Where a zpage lies in a tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TierRange {
    /// The block it belongs to.
    pub block: BlockToken,
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
}

/// A block the home is to write to a tier. Until `finish_writeback` the frames are the home's to read without the lock:
/// the core changes no byte of them, and keeps answering lookups from them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WritebackPlan {
    /// Names the block in `finish_writeback`.
    pub block: BlockToken,
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
}

/// A block that lies in a tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TierBlock {
    /// Names the block in `live_zpages` and `readmit`.
    pub block: BlockToken,
    /// Where it is.
    pub slot: Slot,
    /// The run that it is.
    pub run: Run,
    /// Live zpages in it.
    pub zpages: u32,
    /// Bytes of the block that live zpages take, headers and rounding included.
    pub used_bytes: u32,
}

/// One live zpage of a block, as a walk of the block finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LiveZpage {
    /// Its entry.
    pub entry: EntryToken,
    /// First byte of the zpage, from the start of the block.
    pub offset_bytes: u32,
    /// Length of the zpage.
    pub len_bytes: u32,
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
