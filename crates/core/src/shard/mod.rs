//! The shard.
use crate::*;

/// Entries one shard can hold at most.
pub const ENTRIES_MAX: u32 = 256 * 1024 * 170;

/// How zpages are packed into blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Allocator {
    /// 16 KiB blocks, best fit.
    #[default]
    Block,
    /// Two zpages in a 4 KiB frame.
    Zbud,
}

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

/// One lock's worth of the store.
#[derive(Debug)]
pub struct Shard {}

#[allow(unused_variables, clippy::unused_self, clippy::must_use_candidate)]
impl Shard {
    /// An empty shard; it takes no frame.
    pub const fn new(allocator: Allocator) -> Shard { todo!() }
    /// Gives every frame back.
    pub fn destroy(self, frames: &mut impl Frames) { todo!() }
    /// Stores a page under a new handle with one reference; the page is persistent.
    ///
    /// # Errors
    /// The reason it was not stored.
    pub fn insert(&mut self, frames: &mut impl Frames, page: Zpage<'_>) -> Result<EntryToken, Refused> { todo!() }
    /// Where the page of a handle is; `None` when there is no such handle.
    pub fn load<'f, F: Frames>(&self, frames: &'f F, entry: EntryToken) -> Option<Found<'f>> { todo!() }
    /// One more reference; false when there is no such handle.
    pub fn retain(&mut self, frames: &mut impl Frames, entry: EntryToken) -> bool { todo!() }
    /// One reference less; at zero the page is freed. The references left, or `None` when there is no such handle.
    pub fn release(&mut self, frames: &mut impl Frames, entry: EntryToken) -> Option<u32> { todo!() }
    /// Makes the block of a handle's page the youngest.
    pub fn touch(&mut self, frames: &mut impl Frames, entry: EntryToken) { todo!() }
    /// Stores a page under a key; an older copy is gone in any case.
    ///
    /// # Errors
    /// The reason it was not stored.
    pub fn put(&mut self, frames: &mut impl Frames, key: &Key, page: Zpage<'_>) -> Result<(), Refused> { todo!() }
    /// Where the page of a key is.
    pub fn get<'f, F: Frames>(&self, frames: &'f F, key: &Key) -> Option<Found<'f>> { todo!() }
    /// Makes the block of a key's page the youngest.
    pub fn touch_page(&mut self, frames: &mut impl Frames, key: &Key) { todo!() }
    /// Frees the page of a key; false when there is none.
    pub fn flush_page(&mut self, frames: &mut impl Frames, key: &Key) -> bool { todo!() }
    /// Frees the page of a key if it is still at this place in a tier.
    pub fn flush_page_if(&mut self, frames: &mut impl Frames, key: &Key, at: TierRange) -> bool { todo!() }
    /// Frees every page of an object; how many there were.
    pub fn flush_object(&mut self, frames: &mut impl Frames, pool: PoolId, object: ObjectId) -> u64 { todo!() }
    /// Frees every page of a pool; how many there were.
    pub fn flush_pool(&mut self, frames: &mut impl Frames, pool: PoolId) -> u64 { todo!() }
    /// Sets when to reclaim.
    pub fn set_watermarks(&mut self, watermarks: Watermarks) { todo!() }
    /// Frames to free now; 0 when there is nothing to do.
    pub fn reclaim_goal(&mut self) -> u32 { todo!() }
    /// Drops the oldest ephemeral block; `None` when there is none.
    pub fn drop_oldest_ephemeral(&mut self, frames: &mut impl Frames) -> Option<Dropped> { todo!() }
    /// Hands out the oldest persistent block to be written.
    pub fn begin_writeback(&mut self, frames: &mut impl Frames) -> Option<WritebackPlan> { todo!() }
    /// Ends a writeback.
    ///
    /// # Panics
    /// When the block is not being written.
    pub fn finish_writeback(&mut self, frames: &mut impl Frames, block: BlockToken, result: Result<Slot, WriteFailed>) -> WritebackEnd { todo!() }
    /// Whether `take_freed_slot` has something.
    pub fn has_freed_slots(&self) -> bool { todo!() }
    /// A slot of a tier that holds nothing any more.
    pub fn take_freed_slot(&mut self, frames: &mut impl Frames) -> Option<Slot> { todo!() }
    /// A block in a tier with the least live bytes.
    pub fn sparsest_tier_block(&self, frames: &impl Frames) -> Option<TierBlock> { todo!() }
    /// The live zpages of a block whose bytes the home has read from a tier.
    pub fn live_zpages<'a, F: Frames>(&'a self, frames: &'a F, block: BlockToken, bytes: &'a [u8]) -> impl Iterator<Item = LiveZpage> + 'a { core::iter::empty() }
    /// Moves the live zpages of a tier's block into RAM again and queues its slot.
    ///
    /// # Errors
    /// The reason it could not; the zpages moved so far stay moved, the others stay in the tier.
    pub fn readmit(&mut self, frames: &mut impl Frames, from: &TierBlock, bytes: &[u8]) -> Result<u32, Refused> { todo!() }
    /// Empties at most `blocks_max` of the emptiest RAM blocks into others.
    pub fn evacuate(&mut self, frames: &mut impl Frames, blocks_max: u32) -> Evacuated { todo!() }
    /// Events since the shard was made.
    pub fn counters(&self) -> &Counters { todo!() }
    /// What there is now.
    pub fn usage(&self) -> Usage { todo!() }
    /// Bytes of metadata: the frames of all tables and the shard itself.
    pub fn metadata_bytes(&self) -> u64 { todo!() }
    /// Frames of blocks and metadata.
    pub fn frames_in_use(&self) -> u32 { todo!() }
    /// Reconciles every fast counter and list with a full walk.
    ///
    /// # Errors
    /// The first equation that does not hold.
    pub fn validate(&self, frames: &impl Frames) -> Result<(), Broken> { todo!() }
}
