//! Aligned buffers for transfers, kept for reuse and counted while they exist.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use zcache_sys::arena::Arena;

use super::SECTOR_SIZE;
use crate::frames::Budget;

/// How many idle buffers of one size are kept.
const IDLE_MAX: usize = 4;

/// Buffers of one size.
#[derive(Debug)]
pub(crate) struct Buffers {
    sectors: u32,
    idle: Mutex<Vec<Arena>>,
    budget: Arc<Budget>,
}

/// A buffer on loan; it goes back when dropped.
#[derive(Debug)]
pub(crate) struct Buffer<'a> {
    memory: Option<Arena>,
    home: &'a Buffers,
}

impl Buffers {
    pub(crate) fn new(sectors: u32, budget: Arc<Budget>) -> Buffers {
        Buffers {
            sectors,
            idle: Mutex::default(),
            budget,
        }
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
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let memory = match idle {
            Some(memory) => memory,
            None => {
                let memory = Arena::reserve(self.sectors)?;
                self.budget.charge_overhead(self.bytes());
                memory
            }
        };
        Ok(Buffer {
            memory: Some(memory),
            home: self,
        })
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
        let mut idle = self
            .home
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(memory);
        } else {
            self.home.budget.discharge_overhead(self.home.bytes());
        }
    }
}
