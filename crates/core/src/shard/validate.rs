//! The equations of the shard, checked by walking everything.
//!
//! Stage on the data path: none; tests and a home's self-check call it between operations. Each fast counter, list and
//! bitmap is recomputed from the records, and each block's record from the entries that name it.
//!
//! Does not: change anything, or take less time than the store is large.

use super::Shard;
use crate::counters::Usage;
use crate::frames::{FrameId, Frames};
use crate::ids::{BlockToken, CodecId, EntryToken, Kind};
use crate::packing::BINS;
use crate::tables::block::{AGE_LINKS, BIN_LINKS, Block, State};
use crate::tables::entry::{Content, Entry, Owner};
use crate::tables::list::List;
use crate::tables::table::is_free;
use crate::tables::tokens::ObjectToken;
use crate::tables::{Checked, members};

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

/// What undamaged records give.
fn sound<T>(equation: &'static str, checked: Checked<T>) -> Result<T, Broken> {
    checked.map_err(|_| Broken {
        equation,
        left: 0,
        right: 1,
    })
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
        let mut zpages = 0u64;
        let mut codec_zpages = [0u32; CodecId::COUNT as usize];
        for token in self.entries.tokens() {
            let Some(entry) = sound("an entry is sound", self.entries.read(frames, token))? else {
                continue;
            };
            walked.entries += 1;
            let kind = self.check_owner(frames, token, &entry, walked)?;
            match entry.content {
                Content::Same { .. } | Content::Word { .. } => walked.same_filled_pages += 1,
                Content::Bytes { codec, .. } => codec_zpages[usize::from(codec.get())] += 1,
                Content::Lost => walked.lost_pages += 1,
            }
            let Some(span) = entry.span() else { continue };
            zpages += 1;
            let block = sound("a block is sound", self.blocks.read(frames, span.block))?;
            let holds = block.is_some_and(|block| {
                !matches!(block.state, State::SlotFreed(_) | State::Dead) && !block.evacuated
            });
            check("the block of a zpage holds bytes", holds, true)?;
            let same_kind = block.is_some_and(|block| block.kind == kind);
            check("kind of the block == kind of its zpages", same_kind, true)?;
            let in_tier = block.is_some_and(|block| matches!(block.state, State::InTier(_)));
            let is_word = matches!(entry.content, Content::Word { .. });
            check("a word is in RAM", in_tier && is_word, false)?;
        }
        let counted = codec_zpages == self.codec_zpages;
        check("zpages of each codec == those counted", counted, true)?;
        let counted =
            self.usage.persistent.zpages + self.usage.ephemeral.zpages + self.usage.tier_zpages;
        check(
            "entries with bytes == zpages in RAM + zpages in tiers",
            zpages,
            counted,
        )
    }

    /// Whether an entry is found under its key; the kind of its page.
    fn check_owner<F: Frames>(
        &self,
        frames: &F,
        token: EntryToken,
        entry: &Entry,
        walked: &mut Usage,
    ) -> Result<Kind, Broken> {
        let (object, index) = match entry.owner {
            Owner::Handle { references } => {
                walked.handle_pages += 1;
                check("a handle has references", references != 0, true)?;
                return Ok(Kind::Persistent);
            }
            Owner::Key { object, index } => (object, index),
        };
        walked.tmem_pages += 1;
        let found = sound("a chain is sound", self.find_index(frames, object, index))?;
        let found = found.map(|(token, _)| token);
        check("the index finds the entry", found == Some(token), true)?;
        let extent = sound("an object is there", self.objects.extent(frames, object))?;
        let within = (extent.first..=extent.last).contains(&index);
        check("first <= index <= last", within, true)?;
        let (pool, _) = sound("an object is sound", self.objects.name(frames, object))?;
        Ok(sound("a pool is sound", self.pools.id(frames, pool))?.kind())
    }

    fn walk_objects<F: Frames>(&self, frames: &F) -> Result<(), Broken> {
        let (mut objects, mut pages) = (0u32, 0u32);
        for token in self.objects.tokens() {
            let record = sound("objects are there", self.objects.find(frames, token))?;
            if record.is_none_or(|record| is_free(record)) {
                continue;
            }
            let extent = sound("an object is sound", self.objects.extent(frames, token))?;
            objects += 1;
            pages += extent.pages;
            self.check_object(frames, token, extent.pages)?;
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
        )?;
        self.walk_pools(frames, objects)
    }

    fn check_object<F: Frames>(
        &self,
        frames: &F,
        token: ObjectToken,
        pages: u32,
    ) -> Result<(), Broken> {
        let (pool, id) = sound("an object is sound", self.objects.name(frames, token))?;
        let pool = sound("a pool is sound", self.pools.id(frames, pool))?;
        let found = sound("a chain is sound", self.find_object(frames, pool, id))?;
        check("the index finds the object", found == Some(token), true)?;
        let mut listed = 0u32;
        let mut next = sound("an object is there", self.objects.head(frames, token))?;
        while let Some(entry) = next {
            listed += 1;
            check("the pages of an object end", listed <= pages, true)?;
            next = sound("a page is there", self.entries.object_links(frames, entry))?[1];
        }
        check("pages of an object == those listed", pages, listed)
    }

    fn walk_pools<F: Frames>(&self, frames: &F, objects: u32) -> Result<(), Broken> {
        let (mut pools, mut sum) = (0u32, 0u32);
        for token in self.pools.tokens() {
            let record = sound("pools are there", self.pools.find(frames, token))?;
            if record.is_none_or(|record| is_free(record)) {
                continue;
            }
            let count = sound("a pool is there", self.pools.objects(frames, token))?;
            pools += 1;
            sum += count;
            let pool = sound("a pool is sound", self.pools.id(frames, token))?;
            let found = sound("a chain is sound", self.find_pool(frames, pool))?;
            check("the index finds the pool", found == Some(token), true)?;
            let mut listed = 0u32;
            let mut next = sound("a pool is there", self.pools.head(frames, token))?;
            while let Some(object) = next {
                listed += 1;
                check("the objects of a pool end", listed <= count, true)?;
                next = sound(
                    "an object is there",
                    self.objects.pool_links(frames, object),
                )?[1];
            }
            check("objects of a pool == those listed", count, listed)?;
        }
        check("pools == pools with objects", self.pools.live(), pools)?;
        check("sum(objects of pools) == objects", sum, objects)?;
        check(
            "pools in the index == pools",
            self.pool_index.records(),
            pools,
        )
    }

    fn walk_blocks<F: Frames>(&self, frames: &F, walked: &mut Usage) -> Result<States, Broken> {
        let mut states = States::default();
        for token in self.blocks.tokens() {
            let Some(block) = sound("a block is sound", self.blocks.read(frames, token))? else {
                continue;
            };
            let (live, zbytes) = self.walk_members(frames, token, &block)?;
            match block.state {
                State::InRam(frame) => {
                    states.in_ram[block.kind as usize] += 1;
                    check("a block in RAM holds zpages", block.live != 0, true)?;
                    self.count_ram_block(frames, &block, frame, live, zbytes, walked);
                }
                State::Writing(frame) => {
                    walked.writing_blocks += 1;
                    walked.writing_frames += self.allocator.run(block.fill).frames();
                    self.count_ram_block(frames, &block, frame, live, zbytes, walked);
                }
                State::InTier(_) => {
                    match (block.kind, block.aside) {
                        (Kind::Ephemeral, is_aside) => {
                            check("no ephemeral block is aside", is_aside, false)?;
                            states.ephemeral_in_tier += 1;
                        }
                        (Kind::Persistent, true) => states.aside += 1,
                        (Kind::Persistent, false) => states.in_tier += 1,
                    }
                    check("a block in a tier holds zpages", block.live != 0, true)?;
                    walked.tier_zpages += live;
                    walked.tier_zbytes += zbytes;
                }
                State::Dead => {}
                State::SlotFreed(_) => {
                    states.freed += 1;
                    check("a freed slot holds nothing", block.live, 0u16)?;
                }
            }
        }
        Ok(states)
    }

    /// Zpages of a block and their bytes.
    fn walk_members<F: Frames>(
        &self,
        frames: &F,
        token: BlockToken,
        block: &Block,
    ) -> Result<(u32, u64), Broken> {
        let mut fill = self.allocator.emptied(block.fill);
        let (mut live, mut zbytes, mut end) = (0u32, 0, 0);
        for member in members::walk(frames, &self.blocks, &self.entries, token) {
            let (_, span) = sound("members are sound", member)?;
            live += 1;
            zbytes += span.len as u64;
            check("zpages do not overlap", span.offset >= end, true)?;
            end = span.end();
            let claimed = self.allocator.claim(fill, span.offset, span.len);
            check("a zpage lies where it can", claimed.is_some(), true)?;
            fill = claimed.unwrap_or(fill);
        }
        let run = self.allocator.run(block.fill);
        check("zpages end within the block", end <= run.bytes(), true)?;
        check("live == zpages of the block", block.live, live as u16)?;
        check(
            "used bytes == those of the zpages",
            self.allocator.used_bytes(block.fill),
            self.allocator.used_bytes(fill),
        )?;
        check(
            "the run of a block stays",
            self.allocator.run(fill).frames(),
            run.frames(),
        )?;
        Ok((live, zbytes))
    }

    fn count_ram_block<F: Frames>(
        &self,
        frames: &F,
        block: &Block,
        frame: FrameId,
        live: u32,
        zbytes: u64,
        walked: &mut Usage,
    ) {
        let run = self.allocator.run(block.fill);
        debug_assert_eq!(frames.bytes(frame, run).len(), run.bytes());
        let usage = match block.kind {
            Kind::Persistent => &mut walked.persistent,
            Kind::Ephemeral => &mut walked.ephemeral,
        };
        usage.blocks += 1;
        usage.zpages += live;
        usage.zbytes += zbytes;
        walked.block_frames += run.frames();
    }

    fn check_lists<F: Frames>(&self, frames: &F, states: &States) -> Result<(), Broken> {
        for kind in [Kind::Ephemeral, Kind::Persistent] {
            let (age, cold) = (
                &self.lists.ages[kind as usize],
                &self.lists.cold[kind as usize],
            );
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
            self.lists.freed.len,
            states.freed,
        )?;
        self.check_list(frames, &self.lists.freed, AGE_LINKS, |block| {
            matches!(block.state, State::SlotFreed(_))
        })?;
        check(
            "ephemeral blocks in the tier's LRU == those InTier",
            self.lists.tier_ages.len,
            states.ephemeral_in_tier,
        )?;
        self.check_list(frames, &self.lists.tier_ages, AGE_LINKS, |block| {
            block.kind == Kind::Ephemeral && matches!(block.state, State::InTier(_))
        })?;
        check(
            "blocks aside == those in their list",
            self.lists.aside.len,
            states.aside,
        )?;
        self.check_list(frames, &self.lists.aside, BIN_LINKS, |block| {
            matches!(block.state, State::InTier(_)) && block.aside
        })?;
        check(
            "blocks in tier bins == persistent blocks InTier",
            self.lists.tier_bins.blocks,
            states.in_tier,
        )?;
        for bin in 0..super::TIER_BINS {
            let list = self.lists.tier_bins.list(bin);
            check(
                "bit of a tier bin == it has members",
                self.lists.tier_bins.bit(bin),
                list.len != 0,
            )?;
            self.check_list(frames, list, BIN_LINKS, |block| {
                matches!(block.state, State::InTier(_))
                    && !block.aside
                    && self.tier_bin(block.fill) == bin
            })?;
        }
        Ok(())
    }

    fn check_bins<F: Frames>(&self, frames: &F, kind: Kind) -> Result<(), Broken> {
        let bins = &self.lists.bins[kind as usize];
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
                let block = sound("a block is sound", self.blocks.expect(frames, token))?;
                free += u64::from(self.allocator.free_bytes(block.fill));
            }
        }
        check("blocks of the bins == sum of the bins", bins.blocks, blocks)?;
        check(
            "free bytes of the bins == sum of their blocks",
            bins.free_bytes,
            free,
        )?;
        let lists = [
            &self.lists.ages[kind as usize],
            &self.lists.cold[kind as usize],
        ];
        let binned = lists
            .into_iter()
            .flat_map(|list| list.walk(frames, &self.blocks, AGE_LINKS));
        let binned = binned.filter(|token| {
            let block = self.blocks.expect(frames, *token);
            block.is_ok_and(|block| self.allocator.bin_of(block.fill).is_some())
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
        let mut previous = None;
        for token in list.walk(frames, &self.blocks, links) {
            count += 1;
            let back = sound("a member is there", self.blocks.word(frames, token, links))?;
            check(
                "next.previous == this",
                back,
                previous.map_or(crate::ids::NONE, |BlockToken(token)| token),
            )?;
            previous = Some(token);
            let block = sound("a member is sound", self.blocks.read(frames, token))?;
            check(
                "a member belongs to its list",
                block.is_some_and(|block| belongs(&block)),
                true,
            )?;
        }
        check("length of a list == its members", list.len, count)?;
        check(
            "tail of a list == its last member",
            list.youngest() == previous,
            true,
        )
    }

    fn check_tables<F: Frames>(&self, frames: &F) -> Result<(), Broken> {
        for (live, walked) in [
            (self.entries.live(), self.entries.walk(frames)),
            (self.objects.live(), self.objects.walk(frames)),
            (self.pools.live(), self.pools.walk(frames)),
            (self.blocks.live(), self.blocks.walk(frames)),
        ] {
            let (in_use, _) = sound("free records are threaded", walked)?;
            check("records live == records in use", live, in_use)?;
        }
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
        check("lost_pages", usage.lost_pages, walked.lost_pages)?;
        check("tier_zpages", usage.tier_zpages, walked.tier_zpages)?;
        check("tier_zbytes", usage.tier_zbytes, walked.tier_zbytes)?;
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
        let rejected =
            c.rejected_no_frames + c.rejected_no_metadata + c.rejected_length + c.rejected_damaged;
        check("puts == stored + rejected", c.puts, c.stored + rejected)?;
        let gone = c.released
            + c.overwritten
            + c.put_to_flush
            + c.flushed
            + c.evicted_eph_zpages
            + c.lost_pages;
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
    ephemeral_in_tier: u32,
    aside: u32,
    freed: u32,
}
