//! Blocks as a store packs them, and moving them in and out of a tier, checked.

use zcache::PAGE_SIZE;
use zcache::tier::{Tier, TierError, TierRead, TierWrite};

use crate::workload::Rng;

/// What the store packs together.
pub(super) const BLOCK_BYTES: usize = 4 * PAGE_SIZE;

/// Blocks of one batch: 1 MiB, as the store's.
pub(super) const BATCH: usize = 64;

/// What packing leaves free at a block's end, which is zeros.
const FREE_BYTES: usize = 400;

/// Aligned as transfers are.
#[repr(C, align(4096))]
#[derive(Clone)]
struct Block([u8; BLOCK_BYTES]);

/// A page to read to.
#[repr(C, align(4096))]
pub(super) struct Page([u8; PAGE_SIZE]);

impl Page {
    pub(super) fn new() -> Page {
        Page([0; PAGE_SIZE])
    }

    /// Reads one page of a block.
    pub(super) fn read(
        &mut self,
        tier: &dyn Tier,
        block: usize,
        part: usize,
    ) -> Result<(), TierError> {
        let mut reads = [TierRead {
            offset_bytes: (block * BLOCK_BYTES + part * PAGE_SIZE) as u64,
            bytes: &mut self.0,
            result: Err(TierError::IO),
        }];
        tier.read(&mut reads);
        reads[0].result
    }
}

/// The blocks of a batch, the same in each batch.
pub(super) struct Blocks(Vec<Block>);

impl Blocks {
    pub(super) fn generate(seed: u64) -> Blocks {
        let mut rng = Rng::new(seed);
        let mut blocks = vec![Block([0; BLOCK_BYTES]); BATCH];
        for block in &mut blocks {
            for word in block.0[..BLOCK_BYTES - FREE_BYTES].chunks_exact_mut(8) {
                word.copy_from_slice(&(rng.next() | 1).to_le_bytes());
            }
        }
        Blocks(blocks)
    }

    /// Writes the batch from this block on.
    pub(super) fn write(&self, tier: &dyn Tier, first: usize) -> Result<(), TierError> {
        let mut writes: Vec<TierWrite<'_>> = self
            .0
            .iter()
            .enumerate()
            .map(|(n, block)| TierWrite {
                offset_bytes: ((first + n) * BLOCK_BYTES) as u64,
                bytes: &block.0,
                result: Err(TierError::IO),
            })
            .collect();
        tier.write(&mut writes);
        writes.iter().try_for_each(|write| write.result)
    }

    /// Whether this is the page of that block.
    pub(super) fn holds(&self, block: usize, part: usize, page: &Page) -> bool {
        let from = part * PAGE_SIZE;
        page.0 == self.0[block % BATCH].0[from..from + PAGE_SIZE]
    }
}
