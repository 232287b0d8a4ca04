//! The RAM that a shard's core packs zpages and tables into.
//!
//! Stage on the data path: under the core. Runs of frames come from address space
//! that is reserved as it is needed ([`zcache_sys::arena`]), are counted in one
//! budget that all shards of a store share, and go back to the kernel when they
//! are freed.
//!
//! - `budget.used == 4096 * (frames handed out + frames in free caches)`, and
//!   the kernel holds no frame of ours beyond these.
//! - `budget.used <= budget.max` after every [`Frames::alloc`] that succeeds, but
//!   for pages that shrink what is allowed beyond it.
//!
//! Does not say what a frame is used for.

mod budget;
mod charge;
mod chunks;
mod runs;

pub(crate) use budget::{Budget, Shortage};
pub(crate) use charge::Charge;

use crate::sync::Arc;

use zcache_core::{FrameId, Frames, Run};

use runs::RunPool;

/// Freed runs of all lengths that wait in a shard hold at most this many frames
/// (1 MiB), and in all shards this part of the limit.
const WARM_FRAMES_MAX: u64 = 256;
const WARM_PART: u64 = 16;

/// The frames of one shard. Runs are numbered for each length by itself.
#[derive(Debug)]
pub(crate) struct ShardFrames {
    /// By the length of a run less one; those that the shard never asks for are
    /// missing.
    pools: [Option<RunPool>; Run::FRAMES_MAX as usize],
    budget: Arc<Budget>,
    /// Set by whoever asks: a page is placed whose zpage is much smaller.
    pub(crate) shrinks: bool,
    /// Set by a failed allocation; whoever asks clears it first.
    pub(crate) shortage: Option<Shortage>,
}

impl ShardFrames {
    /// The frames of one of so many shards that share a budget. Takes neither
    /// memory nor address space yet.
    pub(crate) fn new(runs: &[Run], shards: usize, budget: Arc<Budget>) -> ShardFrames {
        let mut pools = [const { None }; Run::FRAMES_MAX as usize];
        let others = runs.iter().filter(|run| **run != Run::FRAME);
        let lengths = 1 + others.clone().count() as u64;
        let share = budget.max() / Run::FRAME.bytes() as u64 / WARM_PART / shards as u64;
        let warm_frames_max = (share.min(WARM_FRAMES_MAX) / lengths) as u32;
        for run in others.chain([&Run::FRAME]) {
            let pool = RunPool::new(run.frames(), warm_frames_max, &budget);
            pools[index(*run)] = Some(pool);
        }
        ShardFrames {
            pools,
            budget,
            shrinks: false,
            shortage: None,
        }
    }

    /// Gives every frame of the free caches back to the kernel.
    pub(crate) fn trim(&mut self) {
        for pool in self.pools.iter_mut().flatten() {
            pool.trim(0, &self.budget);
        }
    }

    /// What the kernel really holds of this shard, in bytes.
    #[cfg(test)]
    fn resident_bytes(&self) -> u64 {
        let pools = self.pools.iter().flatten();
        pools.map(RunPool::resident_bytes).sum()
    }

    /// Bytes of address space.
    #[cfg(test)]
    fn reserved_bytes(&self) -> u64 {
        let pools = self.pools.iter().flatten();
        pools.map(RunPool::reserved_bytes).sum()
    }

    fn pool(&self, run: Run) -> &RunPool {
        self.pools[index(run)].as_ref().expect(OF_THE_SHARD)
    }

    fn pool_mut(&mut self, run: Run) -> &mut RunPool {
        self.pools[index(run)].as_mut().expect(OF_THE_SHARD)
    }
}

/// A shard asks for the runs of its allocator only.
const OF_THE_SHARD: &str = "a run of a length that the allocator has";

fn index(run: Run) -> usize {
    run.frames() as usize - 1
}

impl Frames for ShardFrames {
    fn alloc(&mut self, run: Run) -> Option<FrameId> {
        let budget = Arc::clone(&self.budget);
        let shrinks = self.shrinks;
        let first = self
            .pool_mut(run)
            .alloc(&budget, shrinks)
            .or_else(|shortage| {
                // What waits in the caches of other lengths is ours to use instead.
                if shortage == Shortage::Budget {
                    self.trim();
                    self.pool_mut(run).alloc(&budget, shrinks)
                } else {
                    Err(shortage)
                }
            });
        match first {
            Ok(number) => Some(FrameId(number)),
            Err(shortage) => {
                self.shortage = Some(shortage);
                None
            }
        }
    }

    fn free(&mut self, frame: FrameId, run: Run) {
        let budget = Arc::clone(&self.budget);
        self.pool_mut(run).free(frame.0, &budget);
    }

    #[inline]
    fn bytes(&self, frame: FrameId, run: Run) -> &[u8] {
        self.pool(run).bytes(frame.0)
    }

    #[inline]
    fn bytes_mut(&mut self, frame: FrameId, run: Run) -> &mut [u8] {
        self.pool_mut(run).bytes_mut(frame.0)
    }
}

#[cfg(test)]
mod tests;
