//! The list of codecs. Beside its own file, a codec is named here alone.
//!
//! To add one, write its file and name it here: a [`Codec`], the [`Kind`] of its
//! zpages with a number that is free, and its [`Method`].

use std::ops::{Index, IndexMut};

use super::method::{CodecCost, Method};
use super::{lz4, raw, zstd};

/// The compressor a client chooses. What a single page was stored as is its
/// [`Kind`], which may differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Codec {
    /// LZ4 block format (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>):
    /// fast, about 2.6:1 on anonymous memory.
    Lz4,
    /// Zstandard level 1 (RFC 8878): about 3.8:1 on anonymous memory at some
    /// three times the time.
    #[default]
    Zstd,
    /// No compression; only same-filled pages get smaller. For measurements.
    Raw,
}

/// What the bytes of one zpage are. The numbers are kept with the zpage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// One 8-byte word that the page repeats.
    Same = 0,
    /// The page as it was.
    Raw = 1,
    /// An LZ4 block.
    Lz4 = 2,
    /// A Zstandard frame.
    Zstd = 3,
}

impl Codec {
    /// Every codec, in the order in which help texts list them.
    pub const ALL: [Codec; 3] = [Codec::Lz4, Codec::Zstd, Codec::Raw];

    /// How many there are.
    pub const COUNT: usize = Codec::ALL.len();

    /// The codec that takes the least time.
    pub const FAST: Codec = Codec::Lz4;

    /// The codec that leaves the fewest bytes.
    pub const DENSE: Codec = Codec::Zstd;

    /// What keeps pages as they are.
    pub const PLAIN: Codec = Codec::Raw;

    pub(super) fn method(self) -> &'static dyn Method {
        match self {
            Codec::Lz4 => &lz4::Lz4,
            Codec::Zstd => &zstd::Zstd,
            Codec::Raw => &raw::Raw,
        }
    }

    /// The name by which users choose it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.method().name()
    }

    /// Why one would choose it, in a few words for help texts.
    #[must_use]
    pub fn about(self) -> &'static str {
        self.method().about()
    }

    /// Whether it makes pages smaller at all.
    #[must_use]
    pub fn shrinks(self) -> bool {
        self.method().shrinks()
    }

    /// Whether its zpages can be made with a [`Dictionary`](super::Dictionary).
    #[must_use]
    pub fn has_dictionaries(self) -> bool {
        self.method().has_dictionaries()
    }

    /// The codecs that make pages smaller, in the order of [`Codec::ALL`].
    pub fn shrinking() -> impl Iterator<Item = Codec> {
        Codec::ALL.into_iter().filter(|codec| codec.shrinks())
    }

    pub(crate) fn first_cost(self) -> CodecCost {
        self.method().first_cost()
    }

    /// What its zpages are.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Codec::Lz4 => Kind::Lz4,
            Codec::Zstd => Kind::Zstd,
            Codec::Raw => Kind::Raw,
        }
    }

    fn index(self) -> usize {
        match self {
            Codec::Lz4 => 0,
            Codec::Zstd => 1,
            Codec::Raw => 2,
        }
    }
}

impl Kind {
    /// Every kind, by its number.
    pub const ALL: [Kind; 4] = [Kind::Same, Kind::Raw, Kind::Lz4, Kind::Zstd];

    /// The kind with this number, if there is one.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Kind> {
        match bits {
            0 => Some(Kind::Same),
            1 => Some(Kind::Raw),
            2 => Some(Kind::Lz4),
            3 => Some(Kind::Zstd),
            _ => None,
        }
    }

    /// The codec that makes zpages of this kind; same-filled pages need none.
    #[must_use]
    pub fn codec(self) -> Option<Codec> {
        match self {
            Kind::Same => None,
            Kind::Raw => Some(Codec::Raw),
            Kind::Lz4 => Some(Codec::Lz4),
            Kind::Zstd => Some(Codec::Zstd),
        }
    }

    /// Whether zpages of this kind can be made with a
    /// [`Dictionary`](super::Dictionary).
    #[must_use]
    pub fn has_dictionaries(self) -> bool {
        self.codec().is_some_and(Codec::has_dictionaries)
    }
}

/// Something of each codec: `by_codec[Codec::DENSE]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ByCodec<T>([T; Codec::COUNT]);

impl<T> ByCodec<T> {
    /// Made for each codec by itself.
    pub fn from_fn(make: impl FnMut(Codec) -> T) -> ByCodec<T> {
        ByCodec(Codec::ALL.map(make))
    }

    /// Each codec with what is its own, in the order of [`Codec::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Codec, &T)> {
        Codec::ALL.into_iter().zip(&self.0)
    }
}

impl<T> Index<Codec> for ByCodec<T> {
    type Output = T;

    fn index(&self, codec: Codec) -> &T {
        &self.0[codec.index()]
    }
}

impl<T> IndexMut<Codec> for ByCodec<T> {
    fn index_mut(&mut self, codec: Codec) -> &mut T {
        &mut self.0[codec.index()]
    }
}
