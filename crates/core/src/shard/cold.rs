//! Recompression of cold blocks: pages that stay get a harder codec.
//!
//! Stage on the data path: beside reclaim. As with a writeback, `begin_recompress` hands out the oldest block that was not
//! handed out before, the home works on its bytes without the lock, and `finish_recompress` puts what the home made in the
//! place of what is still alive. Blocks that were handed out once are *cold*: a list of their own, older than all others.
//!
//! Invariants:
//! - a zpage is replaced only if its entry still names the very place that the home has read
//! - a zpage that finds no room stays as and where it was
//! - cold blocks are written and dropped before others; a block that gets a fresh page is cold no more
//!
//! Does not: judge what is worth it, or compare contents; the home answers for both.

use super::Shard;
use crate::block::{AGE_LINKS, Block, State};
use crate::entry::Content;
use crate::frames::{FrameId, Frames};
use crate::ids::{BlockToken, EntryToken, Kind, LiveZpage, NONE, WritebackPlan, Zpage};

/// A zpage that takes the place of another of the same page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replacement<'a> {
    /// What it replaces, as [`Shard::live_zpages`] found it.
    pub of: LiveZpage,
    /// The new bytes, or the old ones to have them moved.
    pub by: Zpage<'a>,
}

/// What a recompression came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recompressed {
    /// Zpages replaced.
    pub zpages: u32,
    /// Of these, zpages that are shorter now.
    pub shrunk_zpages: u32,
    /// Bytes by which these shrank.
    pub zbytes_saved: u64,
    /// Frames of the old block, if nothing is left in it.
    pub frames: u32,
}

impl Shard {
    /// Blocks in RAM of a kind that were handed out by `begin_recompress`, and all blocks of that kind in the LRU.
    #[must_use]
    pub fn cold_blocks(&self, kind: Kind) -> (u32, u32) {
        let cold = self.cold[kind as usize].len;
        (cold, cold + self.ages[kind as usize].len)
    }

    /// Hands out the oldest block of a kind that is not cold; `None` when there is none. Its bytes do not change until
    /// `finish_recompress`.
    pub fn begin_recompress(
        &mut self,
        frames: &mut impl Frames,
        kind: Kind,
    ) -> Option<WritebackPlan> {
        let token = self.ages[kind as usize].head;
        if token == NONE {
            return None;
        }
        self.counters.recompressions_begun += 1;
        Some(self.hand_out(frames, token))
    }

    /// Codec and checksum of a zpage, if its entry still names this place.
    #[must_use]
    pub fn tags_of(
        &self,
        frames: &impl Frames,
        block: BlockToken,
        zpage: LiveZpage,
    ) -> Option<(crate::ids::CodecId, u32)> {
        let offset = zpage.offset_bytes as usize;
        self.entries
            .len_at(frames, zpage.entry.0, block.0, offset)?;
        match self.entries.read(frames, zpage.entry.0)?.content {
            Content::Same { .. } => None,
            Content::Bytes {
                codec, checksum, ..
            } => Some((codec, checksum)),
        }
    }

    /// Ends a recompression: moves what is alive of `replacements` to other blocks, and makes the block cold if anything is
    /// left in it.
    ///
    /// # Panics
    /// When the block was not handed out, or a replacement is not made of 1 to 4096 bytes.
    pub fn finish_recompress<'a>(
        &mut self,
        frames: &mut impl Frames,
        block: BlockToken,
        replacements: impl Iterator<Item = Replacement<'a>>,
    ) -> Recompressed {
        let token = block.0;
        let Some(Block {
            state: State::Writing(frame),
            ..
        }) = self.blocks.read(frames, token)
        else {
            panic!("finish_recompress without begin_recompress")
        };
        let mut done = Recompressed::default();
        for replacement in replacements {
            if !self.replace(frames, block, &replacement, &mut done) {
                break;
            }
        }
        self.counters.recompressions_ended += 1;
        self.counters.recompressed_zpages += u64::from(done.zpages);
        done.frames = self.take_back(frames, token, frame);
        done
    }

    /// Puts a zpage in the place of another; false when there is no room.
    fn replace<F: Frames>(
        &mut self,
        frames: &mut F,
        from: BlockToken,
        replacement: &Replacement<'_>,
        done: &mut Recompressed,
    ) -> bool {
        let EntryToken(entry) = replacement.of.entry;
        let offset = replacement.of.offset_bytes as usize;
        let Zpage::Bytes {
            bytes,
            codec,
            checksum,
        } = replacement.by
        else {
            panic!("a same-filled page has no zpage")
        };
        let Some(old_len) = self.entries.len_at(frames, entry, from.0, offset) else {
            return true;
        };
        let before = self.entries.read(frames, entry);
        let Some(Content::Bytes {
            span,
            codec: old_codec,
            ..
        }) = before.map(|before| before.content)
        else {
            return true;
        };
        let kind = self.blocks.expect(frames, from.0).kind;
        let Ok(room) = self.place(frames, kind, entry, bytes.len()) else {
            return false;
        };
        room.bytes_mut(frames).copy_from_slice(bytes);
        self.make_cold_if_new(frames, room.span.block);
        let content = Content::Bytes {
            span: room.span,
            codec,
            checksum,
        };
        self.entries.set_content(frames, entry, content);
        self.codec_zpages[usize::from(old_codec.get())] -= 1;
        self.codec_zpages[usize::from(codec.get())] += 1;
        self.detach(frames, span);
        done.zpages += 1;
        done.shrunk_zpages += u32::from(bytes.len() < old_len);
        done.zbytes_saved += old_len.saturating_sub(bytes.len()) as u64;
        true
    }

    /// A block that was made for a cold zpage is as old as that.
    fn make_cold_if_new<F: Frames>(&mut self, frames: &mut F, token: u32) {
        let block = self.blocks.expect(frames, token);
        if block.live == 1 && !block.cold {
            self.unage(frames, token, &block);
            self.age_as_cold(frames, token, &block);
        }
    }

    /// Puts a block that was handed out into the lists again, or frees it; the frames freed.
    fn take_back<F: Frames>(&mut self, frames: &mut F, token: u32, frame: FrameId) -> u32 {
        let block = self.blocks.expect(frames, token);
        let run_frames = self.allocator.run(block.fill).frames();
        self.usage.writing_blocks -= 1;
        self.usage.writing_frames -= run_frames;
        if block.live == 0 {
            self.free_frames(frames, &block, frame);
            self.blocks.release(frames, token);
            return run_frames;
        }
        let block = Block {
            state: State::InRam(frame),
            ..block
        };
        self.age_as_cold(frames, token, &block);
        self.bin(frames, token, &block);
        0
    }

    /// Writes the record of a block and makes it the youngest of the cold ones.
    fn age_as_cold<F: Frames>(&mut self, frames: &mut F, token: u32, block: &Block) {
        let block = Block {
            cold: true,
            ..*block
        };
        self.blocks.write(frames, token, &block);
        self.cold[block.kind as usize].push(frames, &mut self.blocks, AGE_LINKS, token);
    }

    /// Takes a block out of its list of ages.
    pub(super) fn unage<F: Frames>(&mut self, frames: &mut F, token: u32, block: &Block) {
        let lists = match block.cold {
            true => &mut self.cold,
            false => &mut self.ages,
        };
        lists[block.kind as usize].remove(frames, &mut self.blocks, AGE_LINKS, token);
    }

    /// The oldest block of a kind, or `NONE`.
    pub(super) fn oldest(&self, kind: Kind) -> u32 {
        match self.cold[kind as usize].head {
            NONE => self.ages[kind as usize].head,
            cold => cold,
        }
    }
}
