//! One shard: the core, and the frames it lives in.
//!
//! Stage on the data path: between the store and the core.
//!
//! Does not lock itself: the store has a lock for each.

use zcache_core::{EntryToken, Refused, Shard};

use super::seed::Seed;
use crate::config::StoreConfig;
use crate::error::Rejected;
use crate::frames::{Budget, ShardFrames, Shortage};
use crate::sync::Arc;

/// Operations between two walks at least.
pub(super) const WALK_EVERY_MIN: u32 = 64;

/// One shard, to be locked as one.
pub(crate) struct Part {
    pub(super) core: Shard,
    pub(super) frames: ShardFrames,
    pub(super) walks: Walks,
}

/// When a shard is walked next.
#[derive(Debug, Default)]
pub(crate) struct Walks {
    operations: u32,
    /// A test has changed what is here, so equations need not hold.
    pub(in crate::store) damaged: bool,
}

impl Part {
    /// One of so many shards.
    pub(super) fn new(
        config: &StoreConfig,
        shards: usize,
        seed: Seed,
        budget: &Arc<Budget>,
    ) -> Part {
        let allocator = zcache_core::Allocator::from(config.allocator);
        Part {
            core: Shard::with_seed(allocator, seed.words()),
            frames: ShardFrames::new(allocator.runs(), shards, Arc::clone(budget)),
            walks: Walks::default(),
        }
    }

    /// Runs an operation that stores, and says why it did not.
    pub(super) fn place<T>(
        &mut self,
        store: impl FnOnce(&mut Shard, &mut ShardFrames) -> Result<T, Refused>,
    ) -> Result<T, Rejected> {
        self.frames.shortage = None;
        store(&mut self.core, &mut self.frames).map_err(|refused| {
            match (refused, self.frames.shortage) {
                (_, Some(Shortage::Budget)) => Rejected::PoolFull,
                (_, Some(Shortage::Space)) | (Refused::NoFrames, None) => Rejected::NoMemory,
                (Refused::NoMetadata, None) => Rejected::HandlesExhausted,
                (Refused::Damaged, None) => Rejected::Damaged,
                (Refused::Length { len_bytes }, _) => {
                    unreachable!("the codec made a zpage of {len_bytes} bytes")
                }
            }
        })
    }

    pub(super) fn release(&mut self, token: EntryToken) -> bool {
        self.core.release(&mut self.frames, token).is_some()
    }

    /// Walks it, if as many operations have passed as it has entries.
    pub(super) fn walk_in_turn(&mut self) {
        self.walks.operations += 1;
        let every = self.core.usage().entries.max(WALK_EVERY_MIN);
        if self.walks.operations >= every {
            self.walks.operations = 0;
            self.assert_valid();
        }
    }

    /// Panics where an equation does not hold.
    pub(super) fn assert_valid(&self) {
        if !self.walks.damaged
            && let Err(broken) = self.core.validate(&self.frames)
        {
            panic!("an equation of the shard does not hold: {broken}");
        }
    }
}
