//! Turns a page into a zpage and back. First stage of the data path on the way
//! out, last on the way in; runs outside every lock, on memory that is lent for the
//! call.
//!
//! - `decode(encode(page)) == page` for every page.
//! - `encode(page).len() == PAGE_SIZE` for [`Kind::Raw`], 8 for [`Kind::Same`], and
//!   at most [`SHRUNK_BYTES_MAX`] for every other kind.
//! - Decoding any bytes of any length under any kind ends in a page or in
//!   [`DecodeError`], never in a panic or a partial page taken for a whole one.
//!
//! The checksum is part of this stage because it covers what the codec made.
//! Does not place zpages, and does not read or write tiers.
//!
//! Each codec has a file, and `list` names them all: nothing outside this folder
//! names one.
//!
//! ```
//! use zcache::codec::{self, Codec, Kind};
//!
//! let mut page = [0; zcache::PAGE_SIZE];
//! page[..5].copy_from_slice(b"hello");
//! let (kind, zpage) = codec::encode(Codec::FAST, &page, |z| (z.kind, z.bytes.to_vec()));
//! assert!(kind == Codec::FAST.kind() && zpage.len() < 64);
//!
//! let mut out = [1; zcache::PAGE_SIZE];
//! codec::decode(kind, &zpage, &mut out)?;
//! assert_eq!(out, page);
//! assert!(codec::decode(kind, &zpage[..20], &mut out).is_err());
//! # Ok::<(), codec::DecodeError>(())
//! ```

mod checksum;
mod dictionary;
mod list;
mod lz4;
mod method;
mod number;
mod raw;
mod same;
mod zstd;

use std::str::FromStr;

pub use checksum::checksum;
pub use dictionary::{DICTIONARY_BYTES_MAX, Dictionary, DictionaryError, Encoder};
pub(crate) use dictionary::{dictionary_bytes_max, tables_bytes_max, training_bytes};
pub use list::{ByCodec, Codec, Kind};
pub use method::CodecCost;

use crate::error::UnknownName;
use crate::lend;
use crate::page::{PAGE_SIZE, Page};

/// The longest zpage of a codec. A page that would shrink by less than a granule
/// of a block is kept as it is: that takes no more RAM and no time to load.
pub const SHRUNK_BYTES_MAX: usize = PAGE_SIZE - 16;

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

/// RAM of the working memory of all operations of the process now, in bytes,
/// with what is kept for the next ones.
pub(crate) fn context_bytes() -> u64 {
    lend::counted_bytes()
}

/// Makes sure that every zpage can be decompressed from now on. False when the
/// system gives no memory.
pub(crate) fn prepare() -> bool {
    Codec::ALL.iter().all(|codec| codec.method().prepare())
}

/// A zpage as [`encode`] hands it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encoded<'a> {
    /// What the bytes are.
    pub kind: Kind,
    /// The zpage; 8 bytes for [`Kind::Same`], [`PAGE_SIZE`] for [`Kind::Raw`], at
    /// most [`SHRUNK_BYTES_MAX`] for others.
    pub bytes: &'a [u8],
}

/// Compresses a page and hands the zpage to `take`, which may use codecs and
/// stores itself. A page that hardly shrinks, or that there is no memory to
/// compress, is handed out as it is.
pub fn encode<R>(codec: Codec, page: &Page, take: impl FnOnce(Encoded<'_>) -> R) -> R {
    encode_by(codec.kind(), page, take, |out| {
        codec.method().compress(page, out)
    })
}

/// The same with a dictionary: a zpage of the kind [`Dictionary::KIND`] is read by
/// [`decode_with`] and that dictionary.
pub fn encode_with<R>(encoder: &Encoder, page: &Page, take: impl FnOnce(Encoded<'_>) -> R) -> R {
    encode_by(Dictionary::KIND, page, take, |out| {
        encoder.compress(page, out)
    })
}

fn encode_by<R>(
    kind: Kind,
    page: &Page,
    take: impl FnOnce(Encoded<'_>) -> R,
    compress: impl FnOnce(&mut [u8]) -> Option<usize>,
) -> R {
    if let Some(word) = same::repeated_word(page) {
        return take(Encoded {
            kind: Kind::Same,
            bytes: &word,
        });
    }
    let mut room = lend::room();
    match compress(room.bytes_mut()) {
        Some(len) if len <= SHRUNK_BYTES_MAX => take(Encoded {
            kind,
            bytes: &room.bytes()[..len],
        }),
        _ => take(Encoded {
            kind: Kind::Raw,
            bytes: page,
        }),
    }
}

/// Decompresses a zpage into `out`.
///
/// # Errors
/// [`DecodeError`] when the bytes are not a whole page under this kind; `out`
/// then holds bytes of no meaning.
pub fn decode(kind: Kind, bytes: &[u8], out: &mut Page) -> Result<(), DecodeError> {
    whole(match kind.codec() {
        None => same::fill(bytes, out),
        Some(codec) => codec.method().decompress(bytes, out),
    })
}

/// Decompresses a zpage that was made with a dictionary.
///
/// With another dictionary than that it was made with, this may give another
/// page: [`Dictionary::checksum`] tells.
///
/// # Errors
/// As [`decode`], and for every kind but [`Dictionary::KIND`], which alone has
/// dictionaries.
pub fn decode_with(
    dictionary: &Dictionary,
    kind: Kind,
    bytes: &[u8],
    out: &mut Page,
) -> Result<(), DecodeError> {
    if kind != Dictionary::KIND {
        return Err(DecodeError);
    }
    whole(dictionary.decompress(bytes, out))
}

fn whole(len: Option<usize>) -> Result<(), DecodeError> {
    match len {
        Some(PAGE_SIZE) => Ok(()),
        _ => Err(DecodeError),
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
