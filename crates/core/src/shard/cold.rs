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
use crate::exchange::{LiveZpage, WritebackPlan, Zpage};
use crate::frames::{FrameId, Frames};
use crate::ids::{BlockToken, CodecId, Kind};
use crate::tables::Checked;
use crate::tables::block::{AGE_LINKS, Block, State};
use crate::tables::entry::{Content, Span};

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
        let cold = self.lists.cold[kind as usize].len;
        (cold, cold + self.lists.ages[kind as usize].len)
    }

    /// Hands out the oldest block of a kind that is not cold; `None` when there is none. Its bytes do not change until
    /// `finish_recompress`.
    pub fn begin_recompress(
        &mut self,
        frames: &mut impl Frames,
        kind: Kind,
    ) -> Option<WritebackPlan> {
        let plan = self.sound(frames, |shard, frames| {
            match shard.lists.ages[kind as usize].oldest() {
                Some(token) => shard.hand_out(frames, token).map(Some),
                None => Ok(None),
            }
        });
        let plan = plan.ok().flatten();
        self.counters.recompressions_begun += u64::from(plan.is_some());
        plan
    }

    /// Codec and checksum of a zpage, if its entry still names this place.
    #[must_use]
    pub fn tags_of(
        &self,
        frames: &impl Frames,
        block: BlockToken,
        zpage: LiveZpage,
    ) -> Option<(CodecId, u32)> {
        let content = self.entries.read(frames, zpage.entry).ok()??.content;
        match content {
            Content::Bytes {
                span,
                codec,
                checksum,
            } if is_at(span, block, &zpage) => Some((codec, checksum)),
            _ => None,
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
        mut replacements: impl Iterator<Item = Replacement<'a>>,
    ) -> Recompressed {
        let mut done = Recompressed::default();
        let ended = self.end_writing(frames, block, |shard, frames, _, frame| {
            for replacement in &mut replacements {
                if !shard.replace(frames, block, &replacement, &mut done)? {
                    break;
                }
            }
            shard.take_back(frames, block, frame)
        });
        self.counters.recompressions_ended += 1;
        self.counters.recompressed_zpages += u64::from(done.zpages);
        done.frames = ended.unwrap_or(0);
        done
    }

    /// Puts a zpage in the place of another; false when there is no room.
    fn replace<F: Frames>(
        &mut self,
        frames: &mut F,
        from: BlockToken,
        replacement: &Replacement<'_>,
        done: &mut Recompressed,
    ) -> Checked<bool> {
        let token = replacement.of.entry;
        let Zpage::Bytes {
            bytes,
            codec,
            checksum,
        } = replacement.by
        else {
            panic!("a same-filled page has no zpage")
        };
        // Nothing is placed in a block that is handed out, so the place names one zpage as long as it is.
        let Some(Content::Bytes {
            span,
            codec: old_codec,
            ..
        }) = self.entries.read(frames, token)?.map(|entry| entry.content)
        else {
            return Ok(true);
        };
        if !is_at(span, from, &replacement.of) {
            return Ok(true);
        }
        let kind = self.blocks.expect(frames, from)?.kind;
        let Ok(room) = self.reserve(frames, kind, bytes.len())? else {
            return Ok(false);
        };
        room.bytes_mut(frames).copy_from_slice(bytes);
        self.make_cold_if_new(frames, room.span.block)?;
        self.detach(frames, token, span)?;
        let content = Content::Bytes {
            span: room.span,
            codec,
            checksum,
        };
        self.entries.set_content(frames, token, content)?;
        self.attach(frames, token, &room)?;
        self.codec_zpages[usize::from(old_codec.get())] -= 1;
        self.codec_zpages[usize::from(codec.get())] += 1;
        done.zpages += 1;
        done.shrunk_zpages += u32::from(bytes.len() < span.len);
        done.zbytes_saved += span.len.saturating_sub(bytes.len()) as u64;
        Ok(true)
    }

    /// A block that was made for a cold zpage is as old as that.
    fn make_cold_if_new<F: Frames>(&mut self, frames: &mut F, token: BlockToken) -> Checked<()> {
        let block = self.blocks.expect(frames, token)?;
        if block.live == 1 && !block.cold {
            self.unage(frames, token, &block)?;
            self.age_as_cold(frames, token, &block)?;
        }
        Ok(())
    }

    /// Puts a block that was handed out into the lists again, or frees it; the frames freed.
    fn take_back<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        frame: FrameId,
    ) -> Checked<u32> {
        let block = self.blocks.expect(frames, token)?;
        if block.live == 0 {
            self.free_frames(frames, token, &block, frame)?;
            return Ok(self.allocator.run(block.fill).frames());
        }
        let block = Block {
            state: State::InRam(frame),
            ..block
        };
        self.bin(frames, token, &block)?;
        self.age_as_cold(frames, token, &block)?;
        Ok(0)
    }

    /// Writes the record of a block and makes it the youngest of the cold ones.
    fn age_as_cold<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        block: &Block,
    ) -> Checked<()> {
        let block = Block {
            cold: true,
            ..*block
        };
        self.lists.cold[block.kind as usize].push(frames, &mut self.blocks, AGE_LINKS, token)?;
        self.blocks.write(frames, token, &block)
    }
}

fn is_at(span: Span, block: BlockToken, zpage: &LiveZpage) -> bool {
    span.block == block
        && span.offset == zpage.offset_bytes as usize
        && span.len == zpage.len_bytes as usize
}
