//! The shard: one lock's worth of the store.
//!
//! Stage on the data path: joins entries, index, blocks and lists into the operations a home calls. A home wraps each
//! shard in one lock and calls every method under it; codec work and I/O stay outside.
//!
//! - `handle`: pages addressed by a refcounted handle
//! - `tmem`: pages addressed by (pool, object, index); `flush`: many of them at once
//! - `place`: storing and freeing, whichever way they are addressed; `room`: blocks and the zpages in them
//! - `reclaim`: watermarks, writeback, dropping of ephemeral blocks
//! - `tier`: blocks that live in a tier
//! - `cold`: recompression of blocks that stay
//! - `evacuate`: emptying sparse blocks in RAM
//! - `repair`: records that contradict one another are made good, or given up
//! - `validate`: the equations, checked by a full walk
//!
//! Invariants: see [`Counters`] and `validate`.
//!
//! Does not: lock, and is not meant to be called without a lock.

mod cold;
mod evacuate;
mod flush;
mod handle;
mod place;
mod reclaim;
mod repair;
mod room;
#[cfg(test)]
mod tests;
mod tier;
mod tmem;
mod validate;

pub use cold::{Recompressed, Replacement};
pub use flush::Flushed;
pub use validate::Broken;

use crate::counters::{Counters, KindUsage, Usage};
use crate::exchange::Watermarks;
use crate::frames::Frames;
use crate::ids::{CodecId, Kind};
use crate::packing::{Allocator, BINS};
use crate::tables::Checked;
use crate::tables::bins::Bins;
use crate::tables::block::{BlockTable, State};
use crate::tables::entry::Entries;
use crate::tables::hash::Seed;
use crate::tables::index::Index;
use crate::tables::list::List;
use crate::tables::object::Objects;
use crate::tables::pool::Pools;

/// Bins of the blocks in a tier, by free bytes in equal steps.
const TIER_BINS: usize = 64;

/// One lock's worth of the store. Give its frames back with [`Shard::destroy`]; dropping it leaks them.
#[derive(Debug)]
pub struct Shard {
    allocator: Allocator,
    entries: Entries,
    objects: Objects,
    pools: Pools,
    blocks: BlockTable,
    page_index: Index,
    object_index: Index,
    pool_index: Index,
    lists: Lists,
    /// The generation of the next block.
    generation: u32,
    /// Damage was met where nothing had to be done again for it.
    repair_due: bool,
    /// Damage took pools with their names, so none that is not found is told to be missing.
    pools_lost: bool,
    /// What is being flushed, so that its end is no loss.
    flushing: Flushing,
    watermarks: Watermarks,
    /// Whether the high watermark was passed and the low one not yet reached.
    reclaiming: bool,
    usage: Usage,
    /// Zpages of each codec, wherever they are.
    codec_zpages: [u32; CodecId::COUNT as usize],
    counters: Counters,
}

/// What a flush is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flushing {
    Pages,
    Object,
    Pool,
}

/// The lists and bins that blocks are in; each follows from the block's record.
#[derive(Debug)]
struct Lists {
    /// Blocks InRam of each kind that are not cold, the oldest first; indexed by `Kind as usize`.
    ages: [List; 2],
    /// Cold blocks InRam of each kind, older than all others.
    cold: [List; 2],
    /// Blocks InRam of each kind by room; indexed by `Kind as usize`.
    bins: [Bins<BINS>; 2],
    /// Persistent blocks InTier by emptiness, but for those put aside.
    tier_bins: Bins<TIER_BINS>,
    /// Ephemeral blocks InTier, the oldest first.
    tier_ages: List,
    /// Persistent blocks InTier that could not be read whole.
    aside: List,
    /// Blocks SlotFreed.
    freed: List,
}

impl Lists {
    const fn new() -> Lists {
        Lists {
            ages: [List::new(); 2],
            cold: [List::new(); 2],
            bins: [Bins::new(), Bins::new()],
            tier_bins: Bins::new(),
            tier_ages: List::new(),
            aside: List::new(),
            freed: List::new(),
        }
    }

    /// Forgets every block; in place, for a stack that is small.
    fn clear(&mut self) {
        self.ages = [List::new(); 2];
        self.cold = [List::new(); 2];
        self.bins.iter_mut().for_each(Bins::clear);
        self.tier_bins.clear();
        self.tier_ages = List::new();
        self.aside = List::new();
        self.freed = List::new();
    }
}

impl Shard {
    /// An empty shard. It takes no frame until something is stored, and never reclaims until watermarks are set.
    ///
    /// A shard has 32 KiB of roots and lists; where stacks are small, make it a constant and copy that.
    #[must_use]
    pub const fn new(allocator: Allocator) -> Shard {
        Shard::with(allocator, Seed::FIXED)
    }

    /// The same, with hashes that depend on a seed: whoever chooses keys and does not know it cannot make them collide.
    #[must_use]
    pub const fn with_seed(allocator: Allocator, seed: [u64; 2]) -> Shard {
        Shard::with(allocator, Seed::new(seed))
    }

    const fn with(allocator: Allocator, seed: Seed) -> Shard {
        Shard {
            allocator,
            entries: Entries::new(),
            objects: Objects::new(),
            pools: Pools::new(),
            blocks: BlockTable::new(),
            page_index: Index::new(seed),
            object_index: Index::new(seed),
            pool_index: Index::new(seed),
            lists: Lists::new(),
            generation: 0,
            repair_due: false,
            pools_lost: false,
            flushing: Flushing::Pages,
            watermarks: Watermarks::NEVER,
            reclaiming: false,
            usage: Usage::ZERO,
            codec_zpages: [0; CodecId::COUNT as usize],
            counters: Counters::ZERO,
        }
    }

    /// Gives every frame back. Whatever was stored is gone; slots in tiers are not reported.
    pub fn destroy(mut self, frames: &mut impl Frames) {
        self.clear(frames);
    }

    /// As [`Shard::destroy`], in place; the shard is as a new one, and without watermarks.
    pub fn clear(&mut self, frames: &mut impl Frames) {
        for token in self.blocks.tokens() {
            if let Ok(Some(block)) = self.blocks.read(frames, token)
                && let State::InRam(frame) | State::Writing(frame) = block.state
            {
                frames.free(frame, self.allocator.run(block.fill));
            }
        }
        self.entries.destroy(frames);
        self.objects.destroy(frames);
        self.pools.destroy(frames);
        self.blocks.destroy(frames);
        self.page_index.destroy(frames);
        self.object_index.destroy(frames);
        self.pool_index.destroy(frames);
        self.lists.clear();
        self.repair_due = false;
        self.pools_lost = false;
        self.watermarks = Watermarks::NEVER;
        self.reclaiming = false;
        self.usage = Usage::ZERO;
        self.codec_zpages = [0; CodecId::COUNT as usize];
        self.counters = Counters::ZERO;
    }

    /// How zpages are packed.
    #[must_use]
    pub fn allocator(&self) -> Allocator {
        self.allocator
    }

    /// Events since the shard was made.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What there is now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            objects: self.objects.live(),
            tier_blocks: self.lists.tier_bins.blocks
                + self.lists.aside.len
                + self.lists.tier_ages.len,
            aside_blocks: self.lists.aside.len,
            freed_slots: self.lists.freed.len,
            metadata_frames: self.metadata_frames(),
            ..self.usage
        }
    }

    /// Zpages of this codec, in RAM and in tiers: while there are any, the home keeps what decodes them.
    #[must_use]
    pub fn zpages_of(&self, codec: CodecId) -> u32 {
        self.codec_zpages[usize::from(codec.get())]
    }

    /// Bytes of metadata: the frames of all tables, and the shard itself.
    #[must_use]
    pub fn metadata_bytes(&self) -> u64 {
        u64::from(self.metadata_frames()) * crate::FRAME_SIZE as u64 + size_of::<Shard>() as u64
    }

    /// Frames in use, of blocks and metadata together.
    #[must_use]
    pub fn frames_in_use(&self) -> u32 {
        self.usage.block_frames + self.metadata_frames()
    }

    fn metadata_frames(&self) -> u32 {
        self.entries.frames()
            + self.objects.frames()
            + self.pools.frames()
            + self.blocks.frames()
            + self.page_index.frames()
            + self.object_index.frames()
            + self.pool_index.frames()
    }

    /// Takes note of how a record was given back that is free already: damage in its table's lists is no reason to do the
    /// operation again.
    fn given_back(&mut self, done: Checked<()>) {
        self.repair_due |= done.is_err();
    }

    fn kind_usage(&mut self, kind: Kind) -> &mut KindUsage {
        match kind {
            Kind::Persistent => &mut self.usage.persistent,
            Kind::Ephemeral => &mut self.usage.ephemeral,
        }
    }
}
