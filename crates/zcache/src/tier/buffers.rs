//! Aligned buffers for transfers, kept for reuse.
//!
//! - Those that may be kept are counted from the start, as if they were there, so
//!   that the first transfer of a full store is no step above its limit. More
//!   than these are counted while they exist.

use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::io;

use zcache_sys::arena::Arena;

use super::seam::SECTOR_SIZE;
use crate::frames::Budget;

/// How many idle buffers of one size are kept.
pub(crate) const IDLE_MAX: usize = 4;

/// Buffers of one size.
#[derive(Debug)]
pub(crate) struct Buffers {
    sectors: u32,
    state: Mutex<State>,
    budget: Arc<Budget>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Arena>,
    /// Buffers that exist, idle or on loan.
    made: usize,
}

/// A buffer on loan; it goes back when dropped.
#[derive(Debug)]
pub(crate) struct Buffer<'a> {
    memory: Option<Arena>,
    home: &'a Buffers,
}

impl Buffers {
    pub(crate) fn new(sectors: u32, budget: Arc<Budget>) -> Buffers {
        let buffers = Buffers {
            sectors,
            state: Mutex::default(),
            budget,
        };
        buffers
            .budget
            .charge_overhead(buffers.bytes() * IDLE_MAX as u64);
        buffers
    }

    /// The size of each buffer in sectors.
    pub(crate) fn sectors(&self) -> u32 {
        self.sectors
    }

    /// Lends a buffer of any contents.
    ///
    /// # Errors
    /// What `mmap` says.
    pub(crate) fn lend(&self) -> io::Result<Buffer<'_>> {
        let mut state = self.state();
        let memory = match state.idle.pop() {
            Some(memory) => memory,
            None => {
                let memory = Arena::reserve(self.sectors)?;
                state.made += 1;
                if state.made > IDLE_MAX {
                    self.budget.charge_overhead(self.bytes());
                }
                memory
            }
        };
        drop(state);
        Ok(Buffer {
            memory: Some(memory),
            home: self,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self) -> u64 {
        u64::from(self.sectors) * SECTOR_SIZE as u64
    }
}

impl Buffer<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], Arena::bytes)
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.as_mut().map_or(&mut [], Arena::bytes_mut)
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let Some(memory) = self.memory.take() else {
            return;
        };
        let mut state = self.home.state();
        if state.made <= IDLE_MAX {
            state.idle.push(memory);
        } else {
            state.made -= 1;
            drop(memory);
            self.home.budget.discharge_overhead(self.home.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_kept_is_counted_from_the_start_and_more_while_it_exists() {
        let budget = Arc::new(Budget::new(1 << 20));
        let buffers = Buffers::new(2, Arc::clone(&budget));
        let kept = IDLE_MAX as u64 * buffers.bytes();
        assert_eq!(budget.overhead(), kept);
        for _ in 0..3 {
            let lent: Vec<_> = (0..IDLE_MAX + 2).map(|_| buffers.lend().unwrap()).collect();
            assert_eq!(budget.overhead(), kept + 2 * buffers.bytes());
            drop(lent);
            assert_eq!(budget.overhead(), kept);
            assert_eq!(buffers.state().idle.len(), IDLE_MAX);
        }
    }
}
