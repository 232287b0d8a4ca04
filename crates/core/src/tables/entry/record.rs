//! The record of an entry: its fields and their seal.
//!
//! Stage on the data path: what an entry says, in the bytes that the table of entries keeps.
//!
//! ```text
//! byte 0  handle: references (25 bits), seal (7)          | key: hash chain
//!      4  block token (25 bits), seal (7)                 | same-filled page: low 25 bits of its word, seal
//!      8  packed    offset/8:12  len-1:12  codec:6  content:2  (from the low bit)
//!                                                        | same-filled: lost:1  next 7 bits of the word  ones:4  content:2 at the top
//!     12  checksum  as the home gave it                   | high word of a same-filled page
//!     16  previous and next zpage of the block, by offset
//!     24  key: object token (25 bits), seal (7)
//!     28  key: page index within the object
//!     32  key: previous and next page of the object
//! ```
//!
//! Invariants:
//! - a record that is not in use is zeros, but for the word that threads it; content 0 is none
//! - one in use has three bits set at least: a zpage's are its content, and its offset or links that are none or tokens
//! - the seal is that of references or object and index, block, packed and checksum; links are not in it
//!
//! Does not: look into links, or know which record it is but for whether it is a handle's.

use crate::frames::{FRAME_SIZE, Run};
use crate::ids::{BlockToken, CodecId};
use crate::tables::hash::seal;
use crate::tables::table::Token;
use crate::tables::tokens::ObjectToken;
use crate::tables::words::{read_word, write_word};
use crate::tables::{Checked, ensure};

pub(super) const HANDLE_SIZE: usize = 24;
pub(super) const KEYED_SIZE: usize = 40;
pub(super) const FIRST: usize = 0;
const BLOCK: usize = 4;
const PACKED: usize = 8;
const CHECKSUM: usize = 12;
pub(super) const MEMBER_LINKS: usize = 16;
const OBJECT: usize = 24;
const INDEX: usize = 28;
pub(super) const OBJECT_LINKS: usize = 32;

/// Bits of a token or a count beside seven of the seal.
const LOW_BITS: u32 = 25;
const LOW: u32 = (1 << LOW_BITS) - 1;

/// References that a handle can have; one that has them all keeps its page for ever.
pub(crate) const REFERENCES_MAX: u32 = LOW;

const _: () = assert!(
    Run::FRAMES_MAX as usize * FRAME_SIZE / 8 <= 1 << 12,
    "an offset in any block fits its 12 bits"
);

/// Where the bytes of a stored page are within their block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) block: BlockToken,
    /// First byte of the zpage in the block, a multiple of 8.
    pub(crate) offset: usize,
    /// 1 to 4096.
    pub(crate) len: usize,
}

impl Span {
    pub(crate) fn end(&self) -> usize {
        self.offset + self.len
    }
}

/// How a page is addressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    Handle { references: u32 },
    Key { object: ObjectToken, index: u32 },
}

/// What a stored page consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// One word over and over, kept here.
    Same { word: u64 },
    /// The same, kept in a block so that it ages, with a checksum of the core's.
    Word { span: Span, checksum: u32 },
    /// A zpage.
    Bytes {
        span: Span,
        codec: CodecId,
        checksum: u32,
    },
    /// Damage took it; the entry stays so that its owner hears of that.
    Lost,
}

/// An entry in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) owner: Owner,
    pub(crate) content: Content,
}

const CONTENT_HERE: u32 = 1;
const CONTENT_BYTES: u32 = 2;
const CONTENT_WORD: u32 = 3;

/// In the packed word of a page that is kept here: it is lost.
const LOST: u32 = 1;

/// In the packed word of every page that is kept here: bits that tell the record of a page of zeros, which may have no
/// others, from a free one.
const HERE: u32 = CONTENT_HERE << 30 | 0xf00;

impl Entry {
    /// The zpage's place, where it has one.
    pub(crate) fn span(&self) -> Option<Span> {
        match self.content {
            Content::Same { .. } | Content::Lost => None,
            Content::Word { span, .. } | Content::Bytes { span, .. } => Some(span),
        }
    }
}

fn pack(span: Span, codec: CodecId, content: u32) -> u32 {
    debug_assert!(span.offset.is_multiple_of(8) && (1..=4096).contains(&span.len));
    (span.offset / 8) as u32
        | (span.len as u32 - 1) << 12
        | u32::from(codec.get()) << 24
        | content << 30
}

/// The sealed fields of a record, each without the seal's bits.
#[derive(Clone, Copy)]
pub(super) struct Fields {
    /// References, or the object's token.
    pub(super) owner: u32,
    pub(super) index: u32,
    block: u32,
    packed: u32,
    checksum: u32,
}

impl Fields {
    pub(super) fn of(entry: &Entry) -> Fields {
        let (owner, index) = match entry.owner {
            Owner::Handle { references } => (references, 0),
            Owner::Key { object, index } => (object.number(), index),
        };
        let (block, packed, checksum) = match entry.content {
            // The low word is spread over the block's bits and the index of packed: 25 bits there, 7 here.
            Content::Same { word } => (
                word as u32 & LOW,
                HERE | (word as u32 >> LOW_BITS) << 1,
                (word >> 32) as u32,
            ),
            Content::Lost => (0, HERE | LOST, 0),
            Content::Word { span, checksum } => (
                span.block.0,
                pack(span, CodecId::new(0), CONTENT_WORD),
                checksum,
            ),
            Content::Bytes {
                span,
                codec,
                checksum,
            } => (span.block.0, pack(span, codec, CONTENT_BYTES), checksum),
        };
        Fields {
            owner,
            index,
            block,
            packed,
            checksum,
        }
    }

    /// Those of a record in use, if its seal fits them.
    #[inline]
    pub(super) fn read(record: &[u8], is_handle: bool) -> Checked<Fields> {
        let owner_at = owner_at(is_handle);
        let (owner, block) = (read_word(record, owner_at), read_word(record, BLOCK));
        let fields = Fields {
            owner: owner & LOW,
            index: if is_handle {
                0
            } else {
                read_word(record, INDEX)
            },
            block: block & LOW,
            packed: read_word(record, PACKED),
            checksum: read_word(record, CHECKSUM),
        };
        let sealed = block >> LOW_BITS | owner >> LOW_BITS << 7;
        ensure(fields.packed >> 30 != 0 && fields.seal(is_handle) == sealed)?;
        Ok(fields)
    }

    /// Writes them and their seal into a record.
    pub(super) fn write(&self, record: &mut [u8], is_handle: bool) {
        let sealed = self.seal(is_handle);
        let (low, high) = ((sealed & 0x7f) << LOW_BITS, (sealed >> 7) << LOW_BITS);
        write_word(record, BLOCK, self.block | low);
        write_word(record, PACKED, self.packed);
        write_word(record, CHECKSUM, self.checksum);
        write_word(record, owner_at(is_handle), self.owner | high);
        if !is_handle {
            write_word(record, INDEX, self.index);
        }
    }

    /// The same with a zpage at another offset of its block.
    pub(super) fn moved_to(&self, offset: usize) -> Fields {
        Fields {
            packed: self.packed & !0xfff | (offset / 8) as u32,
            ..*self
        }
    }

    fn span(&self) -> Span {
        Span {
            block: BlockToken(self.block),
            offset: (self.packed & 0xfff) as usize * 8,
            len: (self.packed >> 12 & 0xfff) as usize + 1,
        }
    }

    /// The place of a zpage in this block.
    pub(super) fn span_in(&self, block: BlockToken) -> Checked<Span> {
        ensure(self.packed >> 30 >= CONTENT_BYTES && self.block == block.0)?;
        Ok(self.span())
    }

    pub(super) fn content(&self) -> Content {
        let span = self.span();
        match self.packed >> 30 {
            CONTENT_BYTES => Content::Bytes {
                span,
                codec: CodecId::new((self.packed >> 24 & 0x3f) as u8),
                checksum: self.checksum,
            },
            CONTENT_WORD => Content::Word {
                span,
                checksum: self.checksum,
            },
            _ if self.packed & LOST != 0 => Content::Lost,
            _ => Content::Same {
                word: u64::from(self.block | (self.packed >> 1 & 0x7f) << LOW_BITS)
                    | u64::from(self.checksum) << 32,
            },
        }
    }

    /// Fourteen bits.
    fn seal(&self, is_handle: bool) -> u32 {
        seal([
            self.owner,
            self.index,
            self.block,
            self.packed,
            self.checksum,
            u32::from(is_handle),
        ]) & 0x3fff
    }
}

/// Where the references or the object are.
fn owner_at(is_handle: bool) -> usize {
    if is_handle { FIRST } else { OBJECT }
}
