//! Turns a page into a zpage and back. First stage of the data path on the way
//! out, last on the way in; runs outside every lock on thread-local buffers.
//!
//! - `decode(encode(page)) == page` for every page.
//! - `encode(page).len() <= PAGE_SIZE`; equality holds only for [`Kind::Raw`].
//! - Decoding any bytes of any length under any kind ends in a page or in
//!   [`DecodeError`], never in a panic or a partial page taken for a whole one.
//!
//! The checksum is part of this stage because it covers what the codec made.
//! Does not place zpages, and does not read or write tiers.
//!
//! ```
//! use zcache::codec::{self, Codec, Kind};
//!
//! let mut page = [0; zcache::PAGE_SIZE];
//! page[..5].copy_from_slice(b"hello");
//! let (kind, zpage) = codec::encode(Codec::Lz4, &page, |z| (z.kind, z.bytes.to_vec()));
//! assert!(kind == Kind::Lz4 && zpage.len() < 64);
//!
//! let mut out = [1; zcache::PAGE_SIZE];
//! codec::decode(kind, &zpage, &mut out)?;
//! assert_eq!(out, page);
//! assert!(codec::decode(kind, &zpage[..20], &mut out).is_err());
//! # Ok::<(), codec::DecodeError>(())
//! ```

mod checksum;
mod dictionary;
mod scratch;

use std::str::FromStr;

pub(crate) use checksum::block_checksum;
pub use checksum::checksum;
pub use dictionary::{DICTIONARY_BYTES_MAX, Dictionary, DictionaryError, Encoder};
pub(crate) use dictionary::{dictionary_bytes_max, tables_bytes_max, training_bytes};
pub use scratch::{Encoded, decode, decode_with, encode, encode_with};
pub(crate) use scratch::{ZSTD_LEVEL, context_bytes, prepare};

use crate::config::UnknownName;

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

impl Codec {
    /// Every codec, in the order in which help texts list them.
    pub const ALL: [Codec; 3] = [Codec::Lz4, Codec::Zstd, Codec::Raw];

    /// The name by which users choose it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
            Codec::Raw => "raw",
        }
    }
}

impl FromStr for Codec {
    type Err = UnknownName;

    /// # Errors
    /// [`UnknownName`] lists the names that exist.
    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or_else(|| UnknownName {
                kind: "codec",
                name: name.to_owned(),
                known: Self::ALL.map(Codec::name).to_vec(),
            })
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
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

impl Kind {
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
}

/// The bytes are not what their kind makes of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeError;

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the bytes do not decode to a page")
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests;
