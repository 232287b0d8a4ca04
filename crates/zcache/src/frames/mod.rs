//! The RAM that a shard's core packs zpages and tables into.
//!
//! Stage on the data path: under the core. Runs of frames come from reserved
//! address space ([`zcache_sys::arena`]), are counted in one budget that all
//! shards of a store share, and go back to the kernel when they are freed.
//!
//! - `budget.used == 4096 * (frames handed out + frames in free caches)`, and
//!   the kernel holds no frame of ours beyond these.
//! - `budget.used <= budget.max` after every [`Frames::alloc`] that succeeds, but
//!   for pages that shrink what is allowed beyond it.
//!
//! Does not say what a frame is used for.

mod budget;
mod runs;

pub(crate) use budget::Budget;

use std::io;
use std::sync::Arc;

use zcache_core::{FrameId, Frames, Order};

use runs::RunPool;

/// Why the last [`Frames::alloc`] that failed did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shortage {
    /// The budget is spent.
    Budget,
    /// The shard's address space is used up.
    Space,
}

/// The frames of one shard. Frame numbers are counted for each order by itself.
#[derive(Debug)]
pub(crate) struct ShardFrames {
    single: RunPool,
    blocks: RunPool,
    budget: Arc<Budget>,
    /// Set by whoever asks: a page is placed whose zpage is much smaller.
    pub(crate) shrinks: bool,
    /// Set by a failed allocation; whoever asks clears it first.
    pub(crate) shortage: Option<Shortage>,
}

impl ShardFrames {
    /// Reserves address space for up to `bytes_max` of each order.
    ///
    /// # Errors
    /// What `mmap` says.
    pub(crate) fn new(bytes_max: u64, budget: Arc<Budget>) -> io::Result<ShardFrames> {
        Ok(ShardFrames {
            single: RunPool::new(Order::FRAME.frames(), bytes_max)?,
            blocks: RunPool::new(Order::BLOCK.frames(), bytes_max)?,
            budget,
            shrinks: false,
            shortage: None,
        })
    }

    /// Gives every frame of the free caches back to the kernel.
    pub(crate) fn trim(&mut self) {
        self.single.trim(0, &self.budget);
        self.blocks.trim(0, &self.budget);
    }

    /// What the kernel really holds of this shard, in bytes.
    #[cfg(test)]
    fn resident_bytes(&self) -> u64 {
        self.single.resident_bytes() + self.blocks.resident_bytes()
    }

    fn runs(&self, order: Order) -> &RunPool {
        if order == Order::FRAME {
            &self.single
        } else {
            &self.blocks
        }
    }

    fn runs_mut(&mut self, order: Order) -> &mut RunPool {
        if order == Order::FRAME {
            &mut self.single
        } else {
            &mut self.blocks
        }
    }
}

impl Frames for ShardFrames {
    fn alloc(&mut self, order: Order) -> Option<FrameId> {
        let budget = Arc::clone(&self.budget);
        let shrinks = self.shrinks;
        let first = self
            .runs_mut(order)
            .alloc(&budget, shrinks)
            .or_else(|shortage| {
                // What waits in the other order's cache is ours to use instead.
                if shortage == Shortage::Budget {
                    self.trim();
                    self.runs_mut(order).alloc(&budget, shrinks)
                } else {
                    Err(shortage)
                }
            });
        match first {
            Ok(run) => Some(FrameId(run)),
            Err(shortage) => {
                self.shortage = Some(shortage);
                None
            }
        }
    }

    fn free(&mut self, frame: FrameId, order: Order) {
        let budget = Arc::clone(&self.budget);
        self.runs_mut(order).free(frame.0, &budget);
    }

    fn bytes(&self, frame: FrameId, order: Order) -> &[u8] {
        self.runs(order).bytes(frame.0)
    }

    fn bytes_mut(&mut self, frame: FrameId, order: Order) -> &mut [u8] {
        self.runs_mut(order).bytes_mut(frame.0)
    }
}

#[cfg(test)]
mod tests;
