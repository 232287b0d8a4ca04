//! Counters: what happened, and how much there is now.
//!
//! Stage on the data path: beside every stage. [`Counters`] only grow; [`Usage`] is the present.
//!
//! Invariants (checked by `Shard::validate`):
//! - `puts == stored + rejected_no_frames + rejected_no_metadata + rejected_length + rejected_damaged`
//! - `stored == entries + released + overwritten + put_to_flush + flushed + evicted_eph_zpages + lost_pages`
//! - `entries == handle_pages + tmem_pages`
//! - `entries == zpages in RAM and in tiers + persistent same-filled pages + lost entries`
//! - `writebacks_begun + recompressions_begun ==
//!   writebacks_stored + writebacks_empty + writebacks_failed + recompressions_ended + writing_blocks`, plus blocks that
//!   damage took in flight and whose end has not been told yet: those are lost and no longer count as being written
//!
//! Does not: time anything; there is no clock here.

/// Events since the shard was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Pages handed to `insert` or `put`.
    pub puts: u64,
    /// Of these, pages stored.
    pub stored: u64,
    /// Of these, refused because no run of frames was to be had for a block.
    pub rejected_no_frames: u64,
    /// Of these, refused because a table could not grow.
    pub rejected_no_metadata: u64,
    /// Of these, refused because the zpage was empty or longer than a page.
    pub rejected_length: u64,
    /// Of these, refused because records were damaged and could not be made good.
    pub rejected_damaged: u64,
    /// Pages of handles freed because their last reference was released.
    pub released: u64,
    /// Older copies freed by a put under the same key that was stored.
    pub overwritten: u64,
    /// Older copies freed by a put under the same key that was refused.
    pub put_to_flush: u64,
    /// Pages freed by a flush of a page, an object or a pool.
    pub flushed: u64,
    /// Ephemeral blocks dropped whole.
    pub evicted_eph_blocks: u64,
    /// Pages that went with them.
    pub evicted_eph_zpages: u64,
    /// Of the blocks dropped, those dropped to make room for a persistent page.
    pub pers_ate_eph: u64,
    /// Puts that dropped as many ephemeral blocks as one put may and still found no room.
    pub drop_bound_reached: u64,
    /// Blocks whose free space was made contiguous in place.
    pub compactions: u64,
    /// Blocks emptied by evacuation.
    pub evacuated_blocks: u64,
    /// Zpages moved by evacuation.
    pub evacuated_zpages: u64,
    /// Evacuations that ended because the other blocks had no room for a zpage.
    pub evacuations_stuck: u64,
    /// Blocks handed out to be written.
    pub writebacks_begun: u64,
    /// Blocks a tier took.
    pub writebacks_stored: u64,
    /// Blocks that were empty before their write ended.
    pub writebacks_empty: u64,
    /// Blocks put back because their write failed.
    pub writebacks_failed: u64,
    /// Blocks handed out to be recompressed.
    pub recompressions_begun: u64,
    /// Of these, blocks that came back.
    pub recompressions_ended: u64,
    /// Zpages replaced by that.
    pub recompressed_zpages: u64,
    /// Slots queued because their block was empty or read back.
    pub slots_freed: u64,
    /// Blocks read back whole from a tier.
    pub readmitted_blocks: u64,
    /// Zpages put into RAM again by that.
    pub readmitted_zpages: u64,
    /// Hash tables that could not grow by a bucket; chains are longer until they can.
    pub index_growth_failed: u64,
    /// Repairs of records that contradicted one another.
    pub repairs: u64,
    /// Pages that damage took together with their names.
    pub lost_pages: u64,
    /// Blocks whose record was damaged; their frames or slots are not used again.
    pub lost_blocks: u64,
    /// Frames of tables that nothing names any more.
    pub lost_frames: u64,
}

impl Counters {
    pub(crate) const ZERO: Counters = Counters {
        puts: 0,
        stored: 0,
        rejected_no_frames: 0,
        rejected_no_metadata: 0,
        rejected_length: 0,
        rejected_damaged: 0,
        released: 0,
        overwritten: 0,
        put_to_flush: 0,
        flushed: 0,
        evicted_eph_blocks: 0,
        evicted_eph_zpages: 0,
        pers_ate_eph: 0,
        drop_bound_reached: 0,
        compactions: 0,
        evacuated_blocks: 0,
        evacuated_zpages: 0,
        evacuations_stuck: 0,
        writebacks_begun: 0,
        writebacks_stored: 0,
        writebacks_empty: 0,
        writebacks_failed: 0,
        recompressions_begun: 0,
        recompressions_ended: 0,
        recompressed_zpages: 0,
        slots_freed: 0,
        readmitted_blocks: 0,
        readmitted_zpages: 0,
        index_growth_failed: 0,
        repairs: 0,
        lost_pages: 0,
        lost_blocks: 0,
        lost_frames: 0,
    };
}

impl Default for Counters {
    fn default() -> Counters {
        Counters::ZERO
    }
}

/// What there is of one kind in RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KindUsage {
    /// Blocks in RAM, the ones being written included.
    pub blocks: u32,
    /// Zpages in them.
    pub zpages: u32,
    /// Bytes of these zpages, without rounding.
    pub zbytes: u64,
}

impl KindUsage {
    pub(crate) const ZERO: KindUsage = KindUsage {
        blocks: 0,
        zpages: 0,
        zbytes: 0,
    };
}

impl Default for KindUsage {
    fn default() -> KindUsage {
        KindUsage::ZERO
    }
}

/// What there is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Stored pages, wherever they are.
    pub entries: u32,
    /// Of these, pages addressed by handle.
    pub handle_pages: u32,
    /// Of these, pages addressed by key.
    pub tmem_pages: u32,
    /// Pages that are one word over and over: ephemeral ones, which are zpages of 8 bytes, and persistent ones.
    pub same_filled_pages: u32,
    /// Entries whose page damage has taken: whoever asks for it hears of that.
    pub lost_pages: u32,
    /// Objects with at least one page.
    pub objects: u32,
    /// Persistent zpages in RAM.
    pub persistent: KindUsage,
    /// Ephemeral zpages in RAM.
    pub ephemeral: KindUsage,
    /// Blocks being written or recompressed.
    pub writing_blocks: u32,
    /// Frames that they take.
    pub writing_frames: u32,
    /// Blocks that live in a tier.
    pub tier_blocks: u32,
    /// Zpages in them.
    pub tier_zpages: u32,
    /// Bytes of these zpages.
    pub tier_zbytes: u64,
    /// Of the blocks in a tier, those put aside because they could not be read.
    pub aside_blocks: u32,
    /// Slots waiting for `take_freed_slot`.
    pub freed_slots: u32,
    /// Frames that hold blocks.
    pub block_frames: u32,
    /// Frames that hold metadata.
    pub metadata_frames: u32,
}

impl Usage {
    pub(crate) const ZERO: Usage = Usage {
        entries: 0,
        handle_pages: 0,
        tmem_pages: 0,
        same_filled_pages: 0,
        lost_pages: 0,
        objects: 0,
        persistent: KindUsage::ZERO,
        ephemeral: KindUsage::ZERO,
        writing_blocks: 0,
        writing_frames: 0,
        tier_blocks: 0,
        tier_zpages: 0,
        tier_zbytes: 0,
        aside_blocks: 0,
        freed_slots: 0,
        block_frames: 0,
        metadata_frames: 0,
    };
}

impl Default for Usage {
    fn default() -> Usage {
        Usage::ZERO
    }
}
