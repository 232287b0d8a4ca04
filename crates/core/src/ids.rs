//! Names of things: tokens and keys.
//!
//! Stage on the data path: the vocabulary of every stage. Tokens are small integers into the shard's own tables, so a
//! record refers to another with 4 bytes and nothing is ever a pointer.
//!
//! Does not: hold any state.

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
    /// An entry: one stored page of this shard. Odd tokens are handles', even ones keys'. Tokens are dense among their
    /// kind, are reused after a release, and are all below [`crate::Shard::entries_made`].
    EntryToken, "E"
);
token!(
    /// A block: the run of frames that is packed, aged, written back and sent as one. Tokens are reused; the
    /// [`Generation`] tells which block of a token is meant.
    BlockToken, "B"
);
token!(
    /// Tells a block from every other that had its token. Whoever looks again after an unlock compares it: blocks of one
    /// shard count up, so the same number comes back after 2^32 blocks.
    Generation, "G"
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

/// A tmem pool. The kind is part of the id. A shard keeps a record of a pool only while it has pages of it.
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
