//! The equations of the shard, checked by walking everything.
//!
//! Stage on the data path: none; tests and a home's self-check call it between operations. Each fast counter, list and
//! bitmap is recomputed from the records, and each record from the bytes it names.
//!
//! Does not: change anything, or take less time than the store is large.

use super::Shard;
use crate::block::{AGE_LINKS, BIN_LINKS, Block, State};
use crate::counters::Usage;
use crate::entry::Content;
use crate::frames::{FrameId, Frames};
use crate::ids::{CodecId, Kind};
use crate::list::List;
use crate::packing::BINS;

/// An equation of the core that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken {
    /// The equation, `left == right`.
    pub equation: &'static str,
    /// What its left side is.
    pub left: u64,
    /// What its right side is.
    pub right: u64,
}

impl core::fmt::Display for Broken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {} != {}", self.equation, self.left, self.right)
    }
}

impl core::error::Error for Broken {}

fn check(
    equation: &'static str,
    left: impl Into<u64>,
    right: impl Into<u64>,
) -> Result<(), Broken> {
    let (left, right) = (left.into(), right.into());
    if left == right {
        Ok(())
    } else {
        Err(Broken {
            equation,
            left,
            right,
        })
    }
}

impl Shard {
    /// Reconciles every fast counter and list with a full walk.
    ///
    /// # Errors
    /// The first equation that does not hold.
    pub fn validate(&self, frames: &impl Frames) -> Result<(), Broken> {
        let mut walked = Usage::default();
        self.walk_entries(frames, &mut walked)?;
        self.walk_objects(frames)?;
        let states = self.walk_blocks(frames, &mut walked)?;
        self.check_lists(frames, &states)?;
        self.check_tables(frames)?;
        self.check_usage(&walked)?;
        self.check_events()
    }

    fn walk_entries<F: Frames>(&self, frames: &F, walked: &mut Usage) -> Result<(), Broken> {
        let mut entry_zpages = 0u64;
        let mut codec_zpages = [0u32; CodecId::COUNT as usize];
        for token in 0..self.entries.made() {
            let Some(entry) = self.entries.read(frames, token) else {
                continue;
            };
            walked.entries += 1;
            if entry.is_handle() {
                walked.handle_pages += 1;
                check("a handle has references", entry.link != 0, true)?;
            } else {
                walked.tmem_pages += 1;
                let found = self
                    .find_index(frames, entry.object, entry.index)
                    .map(|(token, _)| token);
                check(
                    "the index finds the entry",
                    found.unwrap_or(u32::MAX),
                    token,
                )?;
                let extent = self.objects.extent(frames, entry.object);
                let within = (extent.first..=extent.last).contains(&entry.index);
                check("first <= index <= last", within, true)?;
            }
            match entry.content {
                Content::Same { .. } => walked.same_filled_pages += 1,
                Content::Bytes { span, codec, .. } => {
                    entry_zpages += 1;
                    codec_zpages[usize::from(codec.get())] += 1;
                    let block = self.blocks.read(frames, span.block);
                    let holds =
                        block.is_some_and(|block| !matches!(block.state, State::SlotFreed(_)));
                    check("the block of a zpage holds bytes", holds, true)?;
                    let kind = if entry.is_handle() {
                        Kind::Persistent
                    } else {
                        self.objects.pool(frames, entry.object).kind()
                    };
                    check(
                        "kind of the block == kind of its zpages",
                        block.is_some_and(|b| b.kind == kind),
                        true,
                    )?;
                }
            }
        }
        let counted = codec_zpages == self.codec_zpages;
        check("zpages of each codec == those counted", counted, true)?;
        let zpages =
            self.usage.persistent.zpages + self.usage.ephemeral.zpages + self.usage.tier_zpages;
        check(
            "entries with bytes == zpages in RAM + zpages in tiers",
            entry_zpages,
            zpages,
        )
    }

    fn walk_objects<F: Frames>(&self, frames: &F) -> Result<(), Broken> {
        let (mut objects, mut pages) = (0u32, 0u32);
        for token in 0..self.objects.made() {
            let extent = self.objects.extent(frames, token);
            if extent.pages == 0 {
                continue;
            }
            objects += 1;
            pages += extent.pages;
            let (pool, id) = (
                self.objects.pool(frames, token),
                self.objects.id(frames, token),
            );
            check(
                "the index finds the object",
                self.find_object(frames, pool, id).unwrap_or(u32::MAX),
                token,
            )?;
        }
        check(
            "objects == objects with pages",
            self.objects.live(),
            objects,
        )?;
        check(
            "sum(pages of objects) == pages with a key",
            pages,
            self.usage.tmem_pages,
        )?;
        check(
            "pages in the index == pages with a key",
            self.page_index.records(),
            self.usage.tmem_pages,
        )?;
        check(
            "objects in the index == objects",
            self.object_index.records(),
            objects,
        )
    }

    fn walk_blocks<F: Frames>(&self, frames: &F, walked: &mut Usage) -> Result<States, Broken> {
        let mut states = States::default();
        for token in 0..self.blocks.made() {
            let Some(block) = self.blocks.read(frames, token) else {
                continue;
            };
            match block.state {
                State::InRam(frame) => {
                    states.in_ram[block.kind as usize] += 1;
                    check("a block in RAM holds zpages", block.live != 0, true)?;
                    self.walk_ram_block(frames, token, &block, frame, walked)?;
                }
                State::Writing(frame) => {
                    walked.writing_blocks += 1;
                    walked.writing_frames += self.allocator.run(block.fill).frames();
                    self.walk_ram_block(frames, token, &block, frame, walked)?;
                }
                State::InTier(_) => {
                    states.in_tier += 1;
                    check("a block in a tier holds zpages", block.live != 0, true)?;
                    walked.tier_zpages += u32::from(block.live);
                }
                State::SlotFreed(_) => {
                    states.freed += 1;
                    check("a freed slot holds nothing", block.live, 0u16)?;
                }
            }
        }
        Ok(states)
    }

    fn walk_ram_block<F: Frames>(
        &self,
        frames: &F,
        token: u32,
        block: &Block,
        frame: FrameId,
        walked: &mut Usage,
    ) -> Result<(), Broken> {
        let run = self.allocator.run(block.fill);
        let bytes = frames.bytes(frame, run);
        let mut fill = block.fill;
        let mut live = 0u16;
        let mut end = 0;
        for zpage in self.walk_live(frames, token, block.fill, bytes) {
            live += 1;
            check("zpages do not overlap", zpage.offset_bytes >= end, true)?;
            end = zpage.offset_bytes + zpage.len_bytes;
            self.allocator.remove(
                &mut fill,
                zpage.offset_bytes as usize,
                zpage.len_bytes as usize,
            );
        }
        check(
            "zpages end within the block",
            end as usize <= bytes.len(),
            true,
        )?;
        check("live == zpages found in the block", block.live, live)?;
        check(
            "used bytes less all zpages == 0",
            self.allocator.used_bytes(fill),
            0u32,
        )?;
        let usage = match block.kind {
            Kind::Persistent => &mut walked.persistent,
            Kind::Ephemeral => &mut walked.ephemeral,
        };
        usage.blocks += 1;
        usage.zpages += u32::from(live);
        usage.zbytes += self.live_bytes(frames, token, block, frame);
        walked.block_frames += run.frames();
        check(
            "the run of a block stays",
            self.allocator.run(fill).frames(),
            run.frames(),
        )?;
        Ok(())
    }

    fn check_lists<F: Frames>(&self, frames: &F, states: &States) -> Result<(), Broken> {
        for kind in [Kind::Ephemeral, Kind::Persistent] {
            let (age, cold) = (&self.ages[kind as usize], &self.cold[kind as usize]);
            check(
                "blocks in the LRU == blocks InRam",
                age.len + cold.len,
                states.in_ram[kind as usize],
            )?;
            for (list, is_cold) in [(age, false), (cold, true)] {
                self.check_list(frames, list, AGE_LINKS, |block| {
                    block.kind == kind
                        && block.cold == is_cold
                        && matches!(block.state, State::InRam(_))
                })?;
            }
            self.check_bins(frames, kind)?;
        }
        check(
            "blocks in the queue == blocks SlotFreed",
            self.freed.len,
            states.freed,
        )?;
        self.check_list(frames, &self.freed, AGE_LINKS, |block| {
            matches!(block.state, State::SlotFreed(_))
        })?;
        check(
            "blocks in tier bins == blocks InTier",
            self.tier_bins.blocks,
            states.in_tier,
        )?;
        for bin in 0..super::TIER_BINS {
            let list = self.tier_bins.list(bin);
            check(
                "bit of a tier bin == it has members",
                self.tier_bins.bit(bin),
                list.len != 0,
            )?;
            self.check_list(frames, list, BIN_LINKS, |block| {
                matches!(block.state, State::InTier(_)) && self.tier_bin(block.fill) == bin
            })?;
        }
        Ok(())
    }

    fn check_bins<F: Frames>(&self, frames: &F, kind: Kind) -> Result<(), Broken> {
        let bins = &self.bins[kind as usize];
        let (mut blocks, mut free) = (0, 0u64);
        for bin in 0..BINS {
            let list = bins.list(bin);
            check(
                "bit of a bin == it has members",
                bins.bit(bin),
                list.len != 0,
            )?;
            self.check_list(frames, list, BIN_LINKS, |block| {
                block.kind == kind
                    && matches!(block.state, State::InRam(_))
                    && self.allocator.bin_of(block.fill) == Some(bin)
            })?;
            blocks += list.len;
            for token in list.walk(frames, &self.blocks, BIN_LINKS) {
                free += u64::from(
                    self.allocator
                        .free_bytes(self.blocks.expect(frames, token).fill),
                );
            }
        }
        check("blocks of the bins == sum of the bins", bins.blocks, blocks)?;
        check(
            "free bytes of the bins == sum of their blocks",
            bins.free_bytes,
            free,
        )?;
        let lists = [&self.ages[kind as usize], &self.cold[kind as usize]];
        let binned = lists
            .into_iter()
            .flat_map(|list| list.walk(frames, &self.blocks, AGE_LINKS));
        let binned = binned.filter(|token| {
            self.allocator
                .bin_of(self.blocks.expect(frames, *token).fill)
                .is_some()
        });
        check(
            "blocks of the bins == blocks with room",
            bins.blocks,
            binned.count() as u64,
        )
    }

    fn check_list<F: Frames>(
        &self,
        frames: &F,
        list: &List,
        links: usize,
        belongs: impl Fn(&Block) -> bool,
    ) -> Result<(), Broken> {
        let mut count = 0u32;
        let mut prev = crate::ids::NONE;
        for token in list.walk(frames, &self.blocks, links) {
            count += 1;
            check(
                "next.prev == this",
                self.blocks.word(frames, token, links),
                prev,
            )?;
            prev = token;
            check(
                "a member belongs to its list",
                self.blocks.read(frames, token).is_some_and(|b| belongs(&b)),
                true,
            )?;
        }
        check("length of a list == its members", list.len, count)?;
        check("tail of a list == its last member", list.tail, prev)
    }

    fn check_tables<F: Frames>(&self, frames: &F) -> Result<(), Broken> {
        check(
            "entries made == live + free",
            self.entries.made(),
            self.entries.live() + self.entries.walk_free(frames),
        )?;
        check(
            "objects made == live + free",
            self.objects.made(),
            self.objects.live() + self.objects.walk_free(frames),
        )?;
        check(
            "blocks made == live + free",
            self.blocks.made(),
            self.blocks.live() + self.blocks.walk_free(frames),
        )?;
        check(
            "entries live == entries stored",
            self.entries.live(),
            self.usage.entries,
        )
    }

    fn check_usage(&self, walked: &Usage) -> Result<(), Broken> {
        let usage = &self.usage;
        check("entries", usage.entries, walked.entries)?;
        check("handle_pages", usage.handle_pages, walked.handle_pages)?;
        check("tmem_pages", usage.tmem_pages, walked.tmem_pages)?;
        check(
            "same_filled_pages",
            usage.same_filled_pages,
            walked.same_filled_pages,
        )?;
        check(
            "writing_blocks",
            usage.writing_blocks,
            walked.writing_blocks,
        )?;
        check(
            "writing_frames",
            usage.writing_frames,
            walked.writing_frames,
        )?;
        check("tier_zpages", usage.tier_zpages, walked.tier_zpages)?;
        check("block_frames", usage.block_frames, walked.block_frames)?;
        for (fast, walked) in [
            (usage.persistent, walked.persistent),
            (usage.ephemeral, walked.ephemeral),
        ] {
            check("blocks of a kind", fast.blocks, walked.blocks)?;
            check("zpages of a kind", fast.zpages, walked.zpages)?;
            check("zbytes of a kind", fast.zbytes, walked.zbytes)?;
        }
        check(
            "entries == handle_pages + tmem_pages",
            usage.entries,
            usage.handle_pages + usage.tmem_pages,
        )
    }

    fn check_events(&self) -> Result<(), Broken> {
        let c = &self.counters;
        let rejected = c.rejected_no_frames + c.rejected_no_metadata + c.rejected_length;
        check("puts == stored + rejected", c.puts, c.stored + rejected)?;
        let gone = c.released + c.overwritten + c.put_to_flush + c.flushed + c.evicted_eph_zpages;
        check(
            "stored == entries + gone",
            c.stored,
            u64::from(self.usage.entries) + gone,
        )?;
        let ended = c.writebacks_stored + c.writebacks_empty + c.writebacks_failed;
        check(
            "writebacks and recompressions begun == ended + in flight",
            c.writebacks_begun + c.recompressions_begun,
            ended + c.recompressions_ended + u64::from(self.usage.writing_blocks),
        )
    }
}

/// Blocks by state, as a walk found them.
#[derive(Default)]
struct States {
    in_ram: [u32; 2],
    in_tier: u32,
    freed: u32,
}
