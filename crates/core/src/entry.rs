//! Entries: the 24-byte records of stored pages.
//!
//! Stage on the data path: the index finds an entry, the entry says where the zpage is.
//!
//! ```text
//! byte 0  link      hash chain (tmem), references (handle), free list (free)
//!      4  object    object token; NONE for a page with a handle
//!      8  index     page index within the object; 0 for a handle
//!     12  block     block token                          | low word of a same-filled page
//!     16  packed    offset/8:12  len-1:12  codec:6  content:2  (from the low bit)
//!     20  checksum  as the home gave it                  | high word of a same-filled page
//! ```
//!
//! Invariants:
//! - `content == Free` exactly for the records on the table's free list
//! - for `content == Bytes`, the bytes before the zpage in its block name this entry (see the packings)
//!
//! Does not: say whether a block is in RAM or in a tier; the block record does, for all its zpages at once.

use crate::frames::{FRAME_SIZE, Frames, Run};
use crate::ids::{CodecId, NONE};
use crate::index::Chained;
use crate::object::page_hash;
use crate::table::{ROOT, Table, read_word, write_word};

const SIZE: usize = 24;
const LINK: usize = 0;
const OBJECT: usize = 4;
const INDEX: usize = 8;
const BLOCK: usize = 12;
const PACKED: usize = 16;
const CHECKSUM: usize = 20;

/// Entries one shard can hold at most.
pub const ENTRIES_MAX: u32 = (ROOT * 1024) as u32 * (4096 / SIZE) as u32;

const _: () = assert!(Table::<SIZE, LINK>::RECORDS_MAX == ENTRIES_MAX);
const _: () = assert!(
    Run::FRAMES_MAX as usize * FRAME_SIZE / 8 <= 1 << 12,
    "an offset in any block fits its 12 bits"
);
const _: () = assert!(
    ENTRIES_MAX < 1 << 31,
    "a packing may keep a flag beside a token"
);

/// The table of entries.
pub(crate) type Entries = Table<SIZE, LINK>;

/// Where the bytes of a stored page are within their block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    /// Block token.
    pub(crate) block: u32,
    /// First byte of the zpage in the block, a multiple of 8.
    pub(crate) offset: usize,
    /// 1 to 4096.
    pub(crate) len: usize,
}

/// What a stored page consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    Same {
        word: u64,
    },
    Bytes {
        span: Span,
        codec: CodecId,
        checksum: u32,
    },
}

/// An entry in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// Hash chain, or references of a handle.
    pub(crate) link: u32,
    /// Object token, or `NONE` for a handle.
    pub(crate) object: u32,
    pub(crate) index: u32,
    pub(crate) content: Content,
}

const CONTENT_FREE: u32 = 0;
const CONTENT_SAME: u32 = 1;
const CONTENT_BYTES: u32 = 2;

impl Entry {
    /// Whether the page is addressed by handle.
    pub(crate) fn is_handle(&self) -> bool {
        self.object == NONE
    }

    /// The zpage's place, where it has one.
    pub(crate) fn span(&self) -> Option<Span> {
        match self.content {
            Content::Same { .. } => None,
            Content::Bytes { span, .. } => Some(span),
        }
    }
}

fn pack(span: Span, codec: CodecId) -> u32 {
    debug_assert!(
        span.offset.is_multiple_of(8)
            && span.offset / 8 < 1 << 12
            && (1..=4096).contains(&span.len)
    );
    (span.offset / 8) as u32
        | (span.len as u32 - 1) << 12
        | u32::from(codec.get()) << 24
        | CONTENT_BYTES << 30
}

fn unpack(record: &[u8; SIZE], packed: u32) -> Content {
    let span = Span {
        block: read_word(record, BLOCK),
        offset: (packed & 0xfff) as usize * 8,
        len: (packed >> 12 & 0xfff) as usize + 1,
    };
    Content::Bytes {
        span,
        codec: CodecId::new((packed >> 24 & 0x3f) as u8),
        checksum: read_word(record, CHECKSUM),
    }
}

impl Entries {
    /// The entry, or `None` when the token is free or was never made. Tokens come from clients: this never panics.
    pub(crate) fn read<F: Frames>(&self, frames: &F, token: u32) -> Option<Entry> {
        if token >= self.made() {
            return None;
        }
        let record = self.record(frames, token);
        let packed = read_word(record, PACKED);
        let content = match packed >> 30 {
            CONTENT_FREE => return None,
            CONTENT_SAME => Content::Same {
                word: u64::from(read_word(record, BLOCK))
                    | u64::from(read_word(record, CHECKSUM)) << 32,
            },
            _ => unpack(record, packed),
        };
        let (link, object, index) = (
            read_word(record, LINK),
            read_word(record, OBJECT),
            read_word(record, INDEX),
        );
        Some(Entry {
            link,
            object,
            index,
            content,
        })
    }

    /// Object, index and link of an entry that is in a hash chain.
    pub(crate) fn chain_key<F: Frames>(&self, frames: &F, token: u32) -> (u32, u32, u32) {
        let record = self.record(frames, token);
        (
            read_word(record, OBJECT),
            read_word(record, INDEX),
            read_word(record, LINK),
        )
    }

    /// Writes a whole entry.
    pub(crate) fn write<F: Frames>(&mut self, frames: &mut F, token: u32, entry: &Entry) {
        let record = self.record_mut(frames, token);
        write_word(record, LINK, entry.link);
        write_word(record, OBJECT, entry.object);
        write_word(record, INDEX, entry.index);
        let (block, packed, checksum) = match entry.content {
            Content::Same { word } => (word as u32, CONTENT_SAME << 30, (word >> 32) as u32),
            Content::Bytes {
                span,
                codec,
                checksum,
            } => (span.block, pack(span, codec), checksum),
        };
        write_word(record, BLOCK, block);
        write_word(record, PACKED, packed);
        write_word(record, CHECKSUM, checksum);
    }

    /// Marks an entry free and takes its record back.
    pub(crate) fn release<F: Frames>(&mut self, frames: &mut F, token: u32) {
        self.set_word(frames, token, PACKED, CONTENT_FREE << 30);
        self.free(frames, token);
    }

    /// Moves the zpage of an entry that has one.
    pub(crate) fn set_place<F: Frames>(
        &mut self,
        frames: &mut F,
        token: u32,
        block: u32,
        offset: usize,
    ) {
        let record = self.record_mut(frames, token);
        let packed = read_word(record, PACKED);
        debug_assert!(packed >> 30 == CONTENT_BYTES && offset.is_multiple_of(8));
        write_word(record, BLOCK, block);
        write_word(record, PACKED, packed & !0xfff | (offset / 8) as u32);
    }

    /// Gives an entry in use another content.
    pub(crate) fn set_content<F: Frames>(&mut self, frames: &mut F, token: u32, content: Content) {
        let entry = self.read(frames, token).expect("an entry in use");
        self.write(frames, token, &Entry { content, ..entry });
    }

    /// The length of the zpage that this token names at exactly this place, or `None` when the place is dead.
    pub(crate) fn len_at<F: Frames>(
        &self,
        frames: &F,
        token: u32,
        block: u32,
        offset: usize,
    ) -> Option<usize> {
        if token >= self.made() {
            return None;
        }
        let record = self.record(frames, token);
        let packed = read_word(record, PACKED);
        let here = packed >> 30 == CONTENT_BYTES
            && read_word(record, BLOCK) == block
            && (packed & 0xfff) as usize * 8 == offset;
        here.then_some((packed >> 12 & 0xfff) as usize + 1)
    }
}

impl Chained for Entries {
    fn link<F: Frames>(&self, frames: &F, token: u32) -> u32 {
        self.word(frames, token, LINK)
    }

    fn set_link<F: Frames>(&mut self, frames: &mut F, token: u32, link: u32) {
        self.set_word(frames, token, LINK, link);
    }

    fn hash<F: Frames>(&self, frames: &F, token: u32) -> u32 {
        page_hash(
            self.word(frames, token, OBJECT),
            self.word(frames, token, INDEX),
        )
    }
}
