//! Zstandard dictionaries: what pages of one program have in common, learned
//! once instead of told in each zpage. A page shrinks by some 7% more with one,
//! and faster (RFC 8878, section 5).
//!
//! - A zpage made with a dictionary is read with that dictionary only. Its
//!   [`checksum`](Dictionary::checksum) begins from the dictionary's, so that
//!   another one is noticed before it decodes anything.
//! - A [`Dictionary`] reads, an [`Encoder`] writes: of one that is out of use,
//!   only the first is kept.

use std::sync::Arc;

use zcache_sys::zdict::{self, Training};
use zstd_safe::{CDict, DDict};

use super::checksum::checksum_from;
use super::list::{Codec, Kind};
use super::zstd;
use crate::page::{PAGE_SIZE, Page};

/// First bytes of a dictionary of the format.
const MAGIC: [u8; 4] = 0xEC30_A437_u32.to_le_bytes();

/// Where its number lies. Zero means none: zpages then say nothing of it, which
/// saves up to four bytes each.
const NUMBER: std::ops::Range<usize> = 4..8;

/// The longest dictionary: beyond this, pages gain less than 1%.
pub const DICTIONARY_BYTES_MAX: usize = 64 << 10;

/// Bytes before a dictionary in its saved form: name (8), length (4),
/// CRC-32C of what follows (4), little-endian.
const SAVED_HEADER: usize = 16;
const SAVED_NAME: [u8; 8] = *b"zcdict01";

/// Segments of half a kibibyte did best on pages of eight programs (256 to 2048
/// differ by 0.5%).
const SEGMENT_BYTES: u32 = 512;
/// Counters of substrings, as a power of two, for up to 1 MiB of samples and for
/// more.
const COUNTERS_LOG2: [u32; 2] = [16, 18];

/// What reads zpages that were made with a dictionary.
pub struct Dictionary {
    bytes: Box<[u8]>,
    decoder: DDict<'static>,
    crc: u32,
}

/// What makes zpages with a dictionary at a level.
pub struct Encoder {
    dictionary: Arc<Dictionary>,
    tables: CDict<'static>,
    level: i32,
}

/// The bytes are no dictionary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DictionaryError {
    /// They do not begin as a dictionary does, or are longer than
    /// [`DICTIONARY_BYTES_MAX`].
    NotOne,
    /// They were saved with another length: some are missing, or there are more.
    Length {
        /// As it was saved.
        expected: usize,
        /// What there is.
        found: usize,
    },
    /// They are not those that were saved.
    Checksum,
    /// The library does not accept their tables, or has no memory.
    Refused,
    /// The store does not compress, or was opened without dictionaries.
    NotUsed,
    /// The pool is not open.
    NoSuchPool,
    /// Pages of a store were made with as many other dictionaries as it can tell
    /// apart.
    NoSlot,
}

impl std::fmt::Display for DictionaryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DictionaryError::NotOne => f.write_str("this is no dictionary; train one anew"),
            DictionaryError::Length { expected, found } => write!(
                f,
                "the dictionary was saved with {expected} bytes and has {found}; train one anew"
            ),
            DictionaryError::Checksum => {
                f.write_str("the dictionary was changed since it was saved; train one anew")
            }
            DictionaryError::Refused => {
                f.write_str("zstd does not accept the dictionary, or has no memory for it")
            }
            DictionaryError::NotUsed => f.write_str(
                "the store uses no dictionaries; open it with `dictionaries` and a codec that compresses",
            ),
            DictionaryError::NoSuchPool => f.write_str("the pool is not open"),
            DictionaryError::NoSlot => f.write_str(
                "pages made with seven other dictionaries are stored; try again when some are gone",
            ),
        }
    }
}

impl std::error::Error for DictionaryError {}

impl std::fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dictionary({} bytes)", self.bytes.len())
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Encoder({:?}, level {})", self.dictionary, self.level)
    }
}

fn how(samples: usize, level: i32) -> Training {
    let many = samples * PAGE_SIZE > 1 << 20;
    Training {
        segment_bytes: SEGMENT_BYTES,
        counters_log2: COUNTERS_LOG2[usize::from(many)],
        level,
    }
}

/// RAM that training on so many pages needs beside them, in bytes.
pub(crate) fn training_bytes(samples: usize) -> u64 {
    how(samples, 1).working_bytes() + DICTIONARY_BYTES_MAX as u64
}

/// RAM of a dictionary of so many bytes, at most: with it comes a decompressor's
/// tables.
pub(crate) fn dictionary_bytes_max(len: usize) -> u64 {
    (28 << 10) + 2 * len as u64
}

/// RAM of the tables that write with a dictionary of so many bytes at level 1, and
/// at levels up to 6, at most. The library sizes them by powers of two.
pub(crate) fn tables_bytes_max(len: usize, level: i32) -> u64 {
    let len = len as u64;
    match level {
        ..=1 => ((40 << 10) + 14 * len).min(160 << 10),
        _ => ((32 << 10) + 24 * len).min(756 << 10),
    }
}

impl Dictionary {
    /// The codec whose zpages dictionaries are for.
    pub const CODEC: Codec = Codec::Zstd;

    /// The kind of these zpages.
    pub const KIND: Kind = Kind::Zstd;

    /// Trains a dictionary of at most `bytes_max` bytes on pages that lie one
    /// after the other. Takes about 20 ms for 512 pages. `None` when they have
    /// too little in common or are too few.
    #[must_use]
    pub fn train(pages: &[Page], bytes_max: usize) -> Option<Dictionary> {
        let bytes_max = bytes_max.min(DICTIONARY_BYTES_MAX);
        let how = how(pages.len(), Encoder::LEVEL_FRESH);
        let bytes = zdict::train(pages.as_flattened(), PAGE_SIZE, bytes_max, how)?;
        Dictionary::of_format(bytes.into()).ok()
    }

    /// The dictionary that [`Dictionary::save`] gave.
    ///
    /// # Errors
    /// [`DictionaryError`] when these are not exactly those bytes.
    pub fn from_saved(saved: &[u8]) -> Result<Dictionary, DictionaryError> {
        let (header, bytes) = saved
            .split_at_checked(SAVED_HEADER)
            .filter(|(header, _)| header.starts_with(&SAVED_NAME))
            .ok_or(DictionaryError::NotOne)?;
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let (expected, found) = (word(8) as usize, bytes.len());
        if expected != found {
            return Err(DictionaryError::Length { expected, found });
        }
        if word(12) != crc32c::crc32c(bytes) {
            return Err(DictionaryError::Checksum);
        }
        Dictionary::of_format(bytes.into())
    }

    /// What [`Dictionary::from_saved`] takes: 16 bytes (name, length, CRC-32C),
    /// then the dictionary in the format of RFC 8878.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let mut saved = SAVED_NAME.to_vec();
        saved.extend((self.bytes.len() as u32).to_le_bytes());
        saved.extend(self.crc.to_le_bytes());
        saved.extend(&self.bytes);
        saved
    }

    fn of_format(mut bytes: Box<[u8]>) -> Result<Dictionary, DictionaryError> {
        if bytes.len() < NUMBER.end
            || bytes.len() > DICTIONARY_BYTES_MAX
            || !bytes.starts_with(&MAGIC)
        {
            return Err(DictionaryError::NotOne);
        }
        bytes[NUMBER].fill(0);
        Ok(Dictionary {
            decoder: DDict::try_create(&bytes).ok_or(DictionaryError::Refused)?,
            crc: crc32c::crc32c(&bytes),
            bytes,
        })
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: a dictionary has a header at least.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// RAM that it takes, in bytes.
    #[must_use]
    pub fn ram_bytes(&self) -> u64 {
        (self.bytes.len() + self.decoder.sizeof()) as u64
    }

    /// The checksum of a zpage that was made with this dictionary.
    #[must_use]
    pub fn checksum(&self, bytes: &[u8]) -> u32 {
        checksum_from(self.crc, Dictionary::KIND, bytes)
    }

    /// As [`Method::decompress`](super::method::Method::decompress).
    pub(super) fn decompress(&self, bytes: &[u8], out: &mut Page) -> Option<usize> {
        zstd::decompress_with(&self.decoder, bytes, out)
    }
}

impl Encoder {
    /// The level of fresh pages.
    pub const LEVEL_FRESH: i32 = zstd::LEVEL_FRESH;

    /// Makes the tables of a level, 1 to 19. They take 85 to 160 KB at level 1 for
    /// dictionaries of 4 to 64 KiB, and 120 to 740 KB at level 6.
    ///
    /// # Errors
    /// [`DictionaryError::Refused`].
    pub fn new(dictionary: Arc<Dictionary>, level: i32) -> Result<Encoder, DictionaryError> {
        let tables = CDict::try_create(&dictionary.bytes, level);
        Ok(Encoder {
            tables: tables.ok_or(DictionaryError::Refused)?,
            dictionary,
            level,
        })
    }

    /// What reads its zpages.
    #[must_use]
    pub fn dictionary(&self) -> &Arc<Dictionary> {
        &self.dictionary
    }

    /// As [`Method::compress`](super::method::Method::compress).
    pub(super) fn compress(&self, page: &Page, out: &mut [u8]) -> Option<usize> {
        zstd::compress_with(&self.tables, page, out)
    }

    /// The level it compresses at.
    #[must_use]
    pub fn level(&self) -> i32 {
        self.level
    }

    /// RAM of its tables in bytes, without the dictionary's own.
    #[must_use]
    pub fn ram_bytes(&self) -> u64 {
        self.tables.sizeof() as u64
    }
}
