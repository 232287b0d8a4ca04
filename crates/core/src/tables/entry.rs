//! Entries: the records of stored pages, 24 bytes for a page with a handle and 40 for one with a key.
//!
//! Stage on the data path: the index finds an entry, the entry says where the zpage is.
//!
//! ```text
//! byte 0  handle: references (25 bits), seal (7)          | key: hash chain
//!      4  block token (25 bits), seal (7)                 | low word of a same-filled page, not sealed in itself
//!      8  packed    offset/8:12  len-1:12  codec:6  content:2  (from the low bit)
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
//! Does not: say whether a block is in RAM or in a tier; the block record does, for all its zpages at once.

use super::frame_map::FRAMES_MAX;
use super::hash::{Seed, seal};
use super::index::Chained;
use super::table::{Table, Token, is_free};
use super::tokens::{HandleNumber, KeyedNumber, ObjectToken};
use super::words::{read_word, write_word};
use super::{Checked, Damaged, ensure};
use crate::frames::{FRAME_SIZE, Frames, Run};
use crate::ids::{BlockToken, CodecId, EntryToken, NONE};

const HANDLE_SIZE: usize = 24;
const KEYED_SIZE: usize = 40;
const FIRST: usize = 0;
const BLOCK: usize = 4;
const PACKED: usize = 8;
const CHECKSUM: usize = 12;
const MEMBER_LINKS: usize = 16;
const OBJECT: usize = 24;
const INDEX: usize = 28;
const OBJECT_LINKS: usize = 32;

/// Bits of a token or a count beside seven of the seal.
const LOW_BITS: u32 = 25;
const LOW: u32 = (1 << LOW_BITS) - 1;

/// References that a handle can have; one that has them all keeps its page for ever.
pub(crate) const REFERENCES_MAX: u32 = LOW;

/// Entries of one shard at most, counted for each kind by itself.
pub const ENTRIES_MAX: u32 = FRAMES_MAX * KEYED_PER_FRAME;

pub(crate) const HANDLES_PER_FRAME: u32 = Handles::PER_FRAME;
pub(crate) const KEYED_PER_FRAME: u32 = Keyed::PER_FRAME;

const _: () = assert!(
    Run::FRAMES_MAX as usize * FRAME_SIZE / 8 <= 1 << 12,
    "an offset in any block fits its 12 bits"
);
const _: () = assert!(
    FRAMES_MAX as u64 * HANDLES_PER_FRAME as u64 * 2 < 1 << 31,
    "a token is told from none, and from the flag of a bucket"
);

type Handles = Table<HandleNumber, HANDLE_SIZE>;
type Keyed = Table<KeyedNumber, KEYED_SIZE>;

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
struct Fields {
    /// References, or the object's token.
    owner: u32,
    index: u32,
    block: u32,
    packed: u32,
    checksum: u32,
}

impl Fields {
    fn of(entry: &Entry) -> Fields {
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

    fn span(&self) -> Span {
        Span {
            block: BlockToken(self.block),
            offset: (self.packed & 0xfff) as usize * 8,
            len: (self.packed >> 12 & 0xfff) as usize + 1,
        }
    }

    /// The place of a zpage in this block.
    fn span_in(&self, block: BlockToken) -> Checked<Span> {
        ensure(self.packed >> 30 >= CONTENT_BYTES && self.block == block.0)?;
        Ok(self.span())
    }

    fn content(&self) -> Content {
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

/// The entries of a shard, those of handles and those of keys.
#[derive(Debug)]
pub(crate) struct Entries {
    handles: Handles,
    keyed: Keyed,
}

fn is_handle(token: EntryToken) -> bool {
    token.0 & 1 == 1
}

fn number_of(token: EntryToken) -> u32 {
    token.0 >> 1
}

fn handle_token(number: HandleNumber) -> EntryToken {
    EntryToken(number.0 << 1 | 1)
}

fn keyed_token(number: KeyedNumber) -> EntryToken {
    EntryToken(number.0 << 1)
}

impl Entries {
    pub(crate) const fn new() -> Entries {
        Entries {
            handles: Table::new(),
            keyed: Table::new(),
        }
    }

    pub(crate) fn frames(&self) -> u32 {
        self.handles.frames() + self.keyed.frames()
    }

    pub(crate) fn live(&self) -> u32 {
        self.handles.live() + self.keyed.live()
    }

    /// Every token is below this.
    pub(crate) fn made(&self) -> u32 {
        self.handles.made().max(self.keyed.made()) * 2
    }

    pub(crate) fn alloc<F: Frames>(
        &mut self,
        frames: &mut F,
        for_handle: bool,
    ) -> Checked<Option<EntryToken>> {
        Ok(match for_handle {
            true => self.handles.alloc(frames)?.map(handle_token),
            false => self.keyed.alloc(frames)?.map(keyed_token),
        })
    }

    /// The entry, or `None` when the token is free or was never made. Tokens come from clients.
    pub(crate) fn read<F: Frames>(&self, frames: &F, token: EntryToken) -> Checked<Option<Entry>> {
        let Some(record) = self.find(frames, token)? else {
            return Ok(None);
        };
        if is_free(record) {
            return Ok(None);
        }
        let fields = sound_fields(record, is_handle(token))?;
        let owner = match is_handle(token) {
            true => Owner::Handle {
                references: fields.owner,
            },
            false => Owner::Key {
                object: ObjectToken(fields.owner),
                index: fields.index,
            },
        };
        Ok(Some(Entry {
            owner,
            content: fields.content(),
        }))
    }

    /// An entry that there must be.
    pub(crate) fn expect<F: Frames>(&self, frames: &F, token: EntryToken) -> Checked<Entry> {
        self.read(frames, token)?.ok_or(Damaged::New)
    }

    /// The place of a zpage that there must be, in this block.
    pub(crate) fn span_in<F: Frames>(
        &self,
        frames: &F,
        token: EntryToken,
        block: BlockToken,
    ) -> Checked<Span> {
        let record = self.find(frames, token)?.ok_or(Damaged::New)?;
        sound_fields(record, is_handle(token))?.span_in(block)
    }

    /// Writes all but the links.
    pub(crate) fn write<F: Frames>(
        &mut self,
        frames: &mut F,
        token: EntryToken,
        entry: &Entry,
    ) -> Checked<()> {
        let fields = Fields::of(entry);
        let sealed = fields.seal(is_handle(token));
        let (low, high) = ((sealed & 0x7f) << LOW_BITS, (sealed >> 7) << LOW_BITS);
        let record = self.record_mut(frames, token)?;
        write_word(record, BLOCK, fields.block | low);
        write_word(record, PACKED, fields.packed);
        write_word(record, CHECKSUM, fields.checksum);
        if is_handle(token) {
            write_word(record, FIRST, fields.owner | high);
        } else {
            write_word(record, OBJECT, fields.owner | high);
            write_word(record, INDEX, fields.index);
        }
        Ok(())
    }

    /// Gives an entry in use another content.
    pub(crate) fn set_content<F: Frames>(
        &mut self,
        frames: &mut F,
        token: EntryToken,
        content: Content,
    ) -> Checked<()> {
        let entry = self.expect(frames, token)?;
        self.write(frames, token, &Entry { content, ..entry })
    }

    /// Moves the zpage of an entry within its block or to another.
    pub(crate) fn set_place<F: Frames>(
        &mut self,
        frames: &mut F,
        token: EntryToken,
        block: BlockToken,
        offset: usize,
    ) -> Checked<()> {
        let entry = self.expect(frames, token)?;
        let moved = |span: Span| Span {
            block,
            offset,
            ..span
        };
        let content = match entry.content {
            Content::Word { span, checksum } => Content::Word {
                span: moved(span),
                checksum,
            },
            Content::Bytes {
                span,
                codec,
                checksum,
            } => Content::Bytes {
                span: moved(span),
                codec,
                checksum,
            },
            Content::Same { .. } | Content::Lost => return Err(Damaged::New),
        };
        self.write(frames, token, &Entry { content, ..entry })
    }

    /// Makes the record of an entry free, for `give_back`.
    pub(crate) fn clear<F: Frames>(&mut self, frames: &mut F, token: EntryToken) -> Checked<()> {
        self.record_mut(frames, token)?[4..].fill(0);
        Ok(())
    }

    /// Takes a record back that is free.
    pub(crate) fn give_back<F: Frames>(
        &mut self,
        frames: &mut F,
        token: EntryToken,
    ) -> Checked<()> {
        match is_handle(token) {
            true => self.handles.free(frames, HandleNumber(number_of(token))),
            false => self.keyed.free(frames, KeyedNumber(number_of(token))),
        }
    }

    /// Moves a zpage to another offset in its block; where it was, and the zpage behind it.
    pub(crate) fn slide<F: Frames>(
        &mut self,
        frames: &mut F,
        token: EntryToken,
        block: BlockToken,
        offset: usize,
    ) -> Checked<(Span, Option<EntryToken>)> {
        let record = self.record_mut(frames, token)?;
        let mut fields = sound_fields(record, is_handle(token))?;
        let before = fields.span_in(block)?;
        let [_, next] = links(record, MEMBER_LINKS)?;
        fields.packed = fields.packed & !0xfff | (offset / 8) as u32;
        let sealed = fields.seal(is_handle(token));
        let owner_at = owner_at(token);
        write_word(record, PACKED, fields.packed);
        write_word(record, BLOCK, fields.block | (sealed & 0x7f) << LOW_BITS);
        write_word(record, owner_at, fields.owner | (sealed >> 7) << LOW_BITS);
        Ok((before, next))
    }

    /// Changes one of the links of a zpage in this block from what it must be; where the zpage lies.
    pub(crate) fn relink_member<F: Frames>(
        &mut self,
        frames: &mut F,
        token: EntryToken,
        block: BlockToken,
        side: Side,
        [from, to]: [Option<EntryToken>; 2],
    ) -> Checked<Span> {
        let record = self.record_mut(frames, token)?;
        let span = sound_fields(record, is_handle(token))?.span_in(block)?;
        let at = MEMBER_LINKS + side as usize * 4;
        ensure(read_word(record, at) == from.map_or(NONE, |token| token.0))?;
        write_word(record, at, to.map_or(NONE, |token| token.0));
        Ok(span)
    }

    /// The zpage before this one in its block, and the one behind it.
    pub(crate) fn member_links<F: Frames>(
        &self,
        frames: &F,
        token: EntryToken,
    ) -> Checked<[Option<EntryToken>; 2]> {
        links(self.find(frames, token)?.ok_or(Damaged::New)?, MEMBER_LINKS)
    }

    pub(crate) fn set_member_links<F: Frames>(
        &mut self,
        frames: &mut F,
        token: EntryToken,
        [previous, next]: [Option<EntryToken>; 2],
    ) -> Checked<()> {
        let record = self.record_mut(frames, token)?;
        write_word(record, MEMBER_LINKS, previous.map_or(NONE, |token| token.0));
        write_word(record, MEMBER_LINKS + 4, next.map_or(NONE, |token| token.0));
        Ok(())
    }

    /// The page before this one in its object's list, and the one behind it.
    pub(crate) fn object_links<F: Frames>(
        &self,
        frames: &F,
        token: EntryToken,
    ) -> Checked<[Option<EntryToken>; 2]> {
        ensure(!is_handle(token))?;
        links(self.find(frames, token)?.ok_or(Damaged::New)?, OBJECT_LINKS)
    }

    pub(crate) fn set_object_links<F: Frames>(
        &mut self,
        frames: &mut F,
        token: EntryToken,
        [previous, next]: [Option<EntryToken>; 2],
    ) -> Checked<()> {
        ensure(!is_handle(token))?;
        let record = self.record_mut(frames, token)?;
        write_word(record, OBJECT_LINKS, previous.map_or(NONE, |token| token.0));
        write_word(record, OBJECT_LINKS + 4, next.map_or(NONE, |token| token.0));
        Ok(())
    }

    /// Every token that may be in use, and is if `read` says so.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = EntryToken> + use<> {
        let handles = self.handles.tokens().map(handle_token);
        handles.chain(self.keyed.tokens().map(keyed_token))
    }

    /// Records in use and free records, by walking every frame.
    pub(crate) fn walk<F: Frames>(&self, frames: &F) -> Checked<(u32, u32)> {
        let (handles, keyed) = (self.handles.walk(frames)?, self.keyed.walk(frames)?);
        Ok((handles.0 + keyed.0, handles.1 + keyed.1))
    }

    /// See `Table::forget_flipped_free`.
    pub(crate) fn forget_flipped_free<F: Frames>(&mut self, frames: &mut F) {
        self.handles.forget_flipped_free(frames);
        self.keyed.forget_flipped_free(frames);
    }

    /// See `Table::rebuild`.
    pub(crate) fn rebuild<F: Frames>(&mut self, frames: &mut F) -> u32 {
        self.handles.rebuild(frames) + self.keyed.rebuild(frames)
    }

    /// Takes note that a record in use is not sound: a key's is free, a handle's lost and kept for ever.
    pub(crate) fn give_up<F: Frames>(&mut self, frames: &mut F, token: EntryToken) -> Checked<()> {
        if is_handle(token) {
            let owner = Owner::Handle {
                references: REFERENCES_MAX,
            };
            let content = Content::Lost;
            return self.write(frames, token, &Entry { owner, content });
        }
        self.clear(frames, token)
    }

    pub(crate) fn destroy<F: Frames>(&mut self, frames: &mut F) {
        self.handles.destroy(frames);
        self.keyed.destroy(frames);
    }

    fn find<'f, F: Frames>(&self, frames: &'f F, token: EntryToken) -> Checked<Option<&'f [u8]>> {
        Ok(match is_handle(token) {
            true => {
                let record = self.handles.find(frames, HandleNumber(number_of(token)))?;
                record.map(|record| &record[..])
            }
            false => {
                let record = self.keyed.find(frames, KeyedNumber(number_of(token)))?;
                record.map(|record| &record[..])
            }
        })
    }

    fn record_mut<'f, F: Frames>(
        &self,
        frames: &'f mut F,
        token: EntryToken,
    ) -> Checked<&'f mut [u8]> {
        Ok(match is_handle(token) {
            true => self
                .handles
                .record_mut(frames, HandleNumber(number_of(token)))?,
            false => self
                .keyed
                .record_mut(frames, KeyedNumber(number_of(token)))?,
        })
    }
}

/// Which neighbour a link leads to.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Before = 0,
    Behind = 1,
}

fn owner_at(token: EntryToken) -> usize {
    if is_handle(token) { FIRST } else { OBJECT }
}

fn links(record: &[u8], at: usize) -> Checked<[Option<EntryToken>; 2]> {
    ensure(!is_free(record))?;
    Ok([at, at + 4].map(|at| match read_word(record, at) {
        NONE => None,
        token => Some(EntryToken(token)),
    }))
}

/// The fields of a record in use, if its seal fits them.
#[inline]
fn sound_fields(record: &[u8], is_handle: bool) -> Checked<Fields> {
    let owner_at = if is_handle { FIRST } else { OBJECT };
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

impl Chained for Entries {
    type Token = EntryToken;

    fn link<F: Frames>(&self, frames: &F, token: EntryToken) -> Checked<u32> {
        self.keyed
            .word(frames, KeyedNumber(number_of(token)), FIRST)
    }

    fn set_link<F: Frames>(&mut self, frames: &mut F, token: EntryToken, link: u32) -> Checked<()> {
        let number = KeyedNumber(number_of(token));
        self.keyed.set_word(frames, number, FIRST, link)
    }

    fn hash<F: Frames>(&self, frames: &F, token: EntryToken, seed: Seed) -> Checked<u32> {
        ensure(!is_handle(token))?;
        match self.expect(frames, token)?.owner {
            Owner::Key { object, index } => Ok(seed.page(object.number(), index)),
            Owner::Handle { .. } => Err(Damaged::New),
        }
    }
}
