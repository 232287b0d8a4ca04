//! Entries: the records of stored pages, 24 bytes for a page with a handle and 40 for one with a key.
//!
//! Stage on the data path: the index finds an entry, the entry says where the zpage is.
//!
//! Invariants: those of `record`; tokens of handles are odd, those of keys even.
//!
//! Does not: say whether a block is in RAM or in a tier; the block record does, for all its zpages at once.

mod record;

pub(crate) use record::{Content, Entry, Owner, REFERENCES_MAX, Span};

use record::{FIRST, Fields, HANDLE_SIZE, KEYED_SIZE, MEMBER_LINKS, OBJECT_LINKS};

use super::frame_map::FRAMES_MAX;
use super::hash::Seed;
use super::index::Chained;
use super::table::{Table, Token, is_free};
use super::tokens::{HandleNumber, KeyedNumber, ObjectToken};
use super::words::{read_word, write_word};
use super::{Checked, Damaged, ensure};
use crate::frames::Frames;
use crate::ids::{BlockToken, EntryToken, NONE};

/// Entries of one shard at most, counted for each kind by itself.
pub const ENTRIES_MAX: u32 = FRAMES_MAX * KEYED_PER_FRAME;

pub(crate) const HANDLES_PER_FRAME: u32 = Handles::PER_FRAME;
pub(crate) const KEYED_PER_FRAME: u32 = Keyed::PER_FRAME;

const _: () = assert!(
    FRAMES_MAX as u64 * HANDLES_PER_FRAME as u64 * 2 < 1 << 31,
    "a token is told from none"
);

type Handles = Table<HandleNumber, HANDLE_SIZE>;
type Keyed = Table<KeyedNumber, KEYED_SIZE>;

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
        let fields = Fields::read(record, is_handle(token))?;
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
        Fields::read(record, is_handle(token))?.span_in(block)
    }

    /// Writes all but the links.
    pub(crate) fn write<F: Frames>(
        &mut self,
        frames: &mut F,
        token: EntryToken,
        entry: &Entry,
    ) -> Checked<()> {
        let record = self.record_mut(frames, token)?;
        Fields::of(entry).write(record, is_handle(token));
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
        let fields = Fields::read(record, is_handle(token))?;
        let before = fields.span_in(block)?;
        let [_, next] = links(record, MEMBER_LINKS)?;
        fields.moved_to(offset).write(record, is_handle(token));
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
        let span = Fields::read(record, is_handle(token))?.span_in(block)?;
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

fn links(record: &[u8], at: usize) -> Checked<[Option<EntryToken>; 2]> {
    ensure(!is_free(record))?;
    Ok([at, at + 4].map(|at| match read_word(record, at) {
        NONE => None,
        token => Some(EntryToken(token)),
    }))
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
