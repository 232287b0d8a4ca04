//! Storing and freeing a page: what both addressing modes share.
//!
//! Stage on the data path: after the codec, before reclaim. A store takes, in this order, an entry, an object and a
//! place in a block; each can fail, and then what was taken before is given back. When it fails for want of frames the
//! oldest ephemeral blocks are dropped, at most [`DROPS_PER_PUT_MAX`] of them, and it is tried again. Tables give their
//! frames back with their last record, so what ephemeral pages take is there for persistent ones, wherever it lies.
//!
//! Invariants:
//! - a store that fails leaves no trace but its counters, and the blocks it dropped
//! - a persistent block is never dropped here
//! - an ephemeral page lies in a block, whatever it consists of, so every one of them ages
//!
//! Does not: free anything in a block that is being written or in a tier other than by its records.

use super::Shard;
use super::room::tier_range;
use crate::exchange::{Found, Refused, ZPAGE_LEN_MAX, Zpage};
use crate::frames::Frames;
use crate::ids::{EntryToken, Key, Kind};
use crate::tables::block::State;
use crate::tables::entry::{Content, Entry, Owner, Span};
use crate::tables::{Checked, Damaged, ensure};

/// Ephemeral blocks that one put may drop to find room.
const DROPS_PER_PUT_MAX: u32 = 8;

/// How a page is to be addressed.
#[derive(Clone, Copy)]
pub(super) enum Address<'k> {
    Handle,
    Key(&'k Key),
}

impl Address<'_> {
    fn kind(self) -> Kind {
        match self {
            Address::Handle => Kind::Persistent,
            Address::Key(key) => key.pool.kind(),
        }
    }
}

/// The word of a same-filled page in its block.
const WORD_BYTES: usize = 8;

impl Shard {
    /// Stores a page and counts the attempt. The key has no page yet.
    pub(super) fn store<F: Frames>(
        &mut self,
        frames: &mut F,
        address: Address<'_>,
        page: Zpage<'_>,
    ) -> Result<EntryToken, Refused> {
        self.counters.puts += 1;
        let result = check_len(page).and_then(|()| {
            let mut tried = false;
            self.sound(frames, |shard, frames| {
                if let (Address::Key(key), true) = (address, tried) {
                    shard.forget_half_stored(frames, key)?;
                }
                tried = true;
                shard.store_dropping(frames, address, page)
            })
            .unwrap_or(Err(Refused::Damaged))
        });
        match result {
            Ok(_) => {}
            Err(Refused::NoFrames) => self.counters.rejected_no_frames += 1,
            Err(Refused::NoMetadata) => self.counters.rejected_no_metadata += 1,
            Err(Refused::Length { .. }) => self.counters.rejected_length += 1,
            Err(Refused::Damaged) => self.counters.rejected_damaged += 1,
        }
        result
    }

    /// Frees what a store that met damage has left under its key.
    fn forget_half_stored<F: Frames>(&mut self, frames: &mut F, key: &Key) -> Checked<()> {
        match self.find_page(frames, key) {
            Ok(Some((token, entry))) => self.remove_entry(frames, token, &entry),
            Ok(None) | Err(Damaged::Known) => Ok(()),
            Err(damaged) => Err(damaged),
        }
    }

    fn store_dropping<F: Frames>(
        &mut self,
        frames: &mut F,
        address: Address<'_>,
        page: Zpage<'_>,
    ) -> Checked<Result<EntryToken, Refused>> {
        for _ in 0..DROPS_PER_PUT_MAX {
            let result = self.try_store(frames, address, page)?;
            if result.is_ok() || self.drop_oldest(frames)?.is_none() {
                return Ok(result);
            }
            if address.kind() == Kind::Persistent {
                self.counters.pers_ate_eph += 1;
            }
        }
        let result = self.try_store(frames, address, page)?;
        if result.is_err() {
            self.counters.drop_bound_reached += 1;
        }
        Ok(result)
    }

    fn try_store<F: Frames>(
        &mut self,
        frames: &mut F,
        address: Address<'_>,
        page: Zpage<'_>,
    ) -> Checked<Result<EntryToken, Refused>> {
        let for_handle = matches!(address, Address::Handle);
        let Some(token) = self.entries.alloc(frames, for_handle)? else {
            return Ok(Err(Refused::NoMetadata));
        };
        let owner = match address {
            Address::Handle => Some(Owner::Handle { references: 1 }),
            Address::Key(key) => self.object_for(frames, key)?.map(|object| Owner::Key {
                object,
                index: key.index,
            }),
        };
        let Some(owner) = owner else {
            let done = self.entries.give_back(frames, token);
            self.given_back(done);
            return Ok(Err(Refused::NoMetadata));
        };
        match self.place_content(frames, address.kind(), token, page)? {
            Ok(content) => {
                self.commit(frames, token, &Entry { owner, content })?;
                Ok(Ok(token))
            }
            Err(refused) => {
                if let Owner::Key { object, .. } = owner {
                    self.free_object_if_empty(frames, object)?;
                }
                let done = self.entries.give_back(frames, token);
                self.given_back(done);
                Ok(Err(refused))
            }
        }
    }

    fn place_content<F: Frames>(
        &mut self,
        frames: &mut F,
        kind: Kind,
        token: EntryToken,
        page: Zpage<'_>,
    ) -> Checked<Result<Content, Refused>> {
        let word = match page {
            Zpage::Same { word } if kind == Kind::Persistent => {
                return Ok(Ok(Content::Same { word }));
            }
            Zpage::Same { word } => word.to_le_bytes(),
            Zpage::Bytes { .. } => [0; WORD_BYTES],
        };
        let bytes = match page {
            Zpage::Same { .. } => &word[..],
            Zpage::Bytes { bytes, .. } => bytes,
        };
        let room = match self.reserve(frames, kind, bytes.len())? {
            Ok(room) => room,
            Err(refused) => return Ok(Err(refused)),
        };
        room.bytes_mut(frames).copy_from_slice(bytes);
        self.refresh(frames, room.span.block)?;
        // Last, so that the record stays free until it is written whole.
        self.attach(frames, token, &room)?;
        let span = room.span;
        Ok(Ok(match page {
            Zpage::Same { word } => Content::Word {
                span,
                checksum: word_checksum(word),
            },
            Zpage::Bytes {
                codec, checksum, ..
            } => Content::Bytes {
                span,
                codec,
                checksum,
            },
        }))
    }

    /// Nothing is refused from here on.
    fn commit<F: Frames>(
        &mut self,
        frames: &mut F,
        token: EntryToken,
        entry: &Entry,
    ) -> Checked<()> {
        self.entries.write(frames, token, entry)?;
        match entry.owner {
            Owner::Handle { .. } => self.usage.handle_pages += 1,
            Owner::Key { object, index } => {
                self.add_to_object(frames, token, object, index)?;
                let grew = self.page_index.insert(frames, &mut self.entries, token)?;
                self.counters.index_growth_failed += u64::from(!grew);
                self.usage.tmem_pages += 1;
            }
        }
        self.usage.entries += 1;
        self.counters.stored += 1;
        match entry.content {
            Content::Same { .. } | Content::Word { .. } => self.usage.same_filled_pages += 1,
            Content::Bytes { codec, .. } => self.codec_zpages[usize::from(codec.get())] += 1,
            Content::Lost => self.usage.lost_pages += 1,
        }
        Ok(())
    }

    /// Frees a page that is in use, with all that goes with it. The caller counts the event.
    pub(super) fn remove_entry<F: Frames>(
        &mut self,
        frames: &mut F,
        token: EntryToken,
        entry: &Entry,
    ) -> Checked<()> {
        if let Some(span) = entry.span() {
            self.detach(frames, token, span)?;
        }
        match entry.owner {
            Owner::Handle { .. } => self.usage.handle_pages -= 1,
            Owner::Key { object, .. } => {
                self.page_index.remove(frames, &mut self.entries, token)?;
                self.remove_from_object(frames, token, object)?;
                self.free_object_if_empty(frames, object)?;
                self.usage.tmem_pages -= 1;
            }
        }
        self.entries.clear(frames, token)?;
        match entry.content {
            Content::Same { .. } | Content::Word { .. } => self.usage.same_filled_pages -= 1,
            Content::Bytes { codec, .. } => self.codec_zpages[usize::from(codec.get())] -= 1,
            Content::Lost => self.usage.lost_pages -= 1,
        }
        self.usage.entries -= 1;
        let done = self.entries.give_back(frames, token);
        self.given_back(done);
        Ok(())
    }

    /// Where an entry's page is.
    pub(super) fn found<'f, F: Frames>(&self, frames: &'f F, entry: &Entry) -> Found<'f> {
        self.look(frames, entry).unwrap_or(Found::Damaged)
    }

    fn look<'f, F: Frames>(&self, frames: &'f F, entry: &Entry) -> Checked<Found<'f>> {
        let span = match entry.content {
            Content::Same { word } => return Ok(Found::Same { word }),
            Content::Lost => return Ok(Found::Damaged),
            Content::Word { span, .. } | Content::Bytes { span, .. } => span,
        };
        let block = self.blocks.expect(frames, span.block)?;
        match (block.state, entry.content) {
            (State::InRam(frame) | State::Writing(frame), content) => {
                let bytes = self.bytes_at(frames, frame, block.fill, span)?;
                match content {
                    Content::Bytes {
                        codec, checksum, ..
                    } => Ok(Found::InRam {
                        bytes,
                        codec,
                        checksum,
                    }),
                    Content::Word { checksum, .. } => {
                        let word = bytes.try_into().map_err(|_| Damaged::New)?;
                        let word = u64::from_le_bytes(word);
                        ensure(word_checksum(word) == checksum)?;
                        Ok(Found::Same { word })
                    }
                    Content::Same { .. } | Content::Lost => Err(Damaged::New),
                }
            }
            (
                State::InTier(slot),
                Content::Bytes {
                    codec, checksum, ..
                },
            ) => Ok(Found::InTier {
                at: tier_range(span, block.generation, slot),
                codec,
                checksum,
            }),
            // Words do not go to a tier.
            _ => Err(Damaged::New),
        }
    }

    /// The bytes of a zpage in RAM.
    pub(super) fn bytes_at<'f, F: Frames>(
        &self,
        frames: &'f F,
        frame: crate::frames::FrameId,
        fill: crate::tables::block::Fill,
        span: Span,
    ) -> Checked<&'f [u8]> {
        let bytes = frames.bytes(frame, self.allocator.run(fill));
        bytes.get(span.offset..span.end()).ok_or(Damaged::New)
    }
}

fn word_checksum(word: u64) -> u32 {
    crate::tables::hash::seal([word as u32, (word >> 32) as u32, 0, 0, 0, 0])
}

fn check_len(page: Zpage<'_>) -> Result<(), Refused> {
    match page {
        Zpage::Bytes { bytes, .. } if bytes.is_empty() || bytes.len() > ZPAGE_LEN_MAX => {
            Err(Refused::Length {
                len_bytes: bytes.len(),
            })
        }
        _ => Ok(()),
    }
}
