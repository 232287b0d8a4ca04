//! A tier that may lose what it has, before one that keeps it: the second one's blocks, read faster.
//!
//! - The second tier has every block that was acknowledged; what the first one does can lose none.
//! - A read that the first tier fails, or answers wrongly, is answered by the second.
//! - Where the first tier's reads cost far more than the second's, as measured, it gets few copies.
//! - Of a place that was freed the first tier has nothing, before it can be another block's.

use crate::sync::Instant;
use crate::tier::cost::{Costs, Side};
use crate::tier::{Tier, TierError, TierRead, TierReport, TierWrite};

/// Two tiers of which the first may lose blocks.
pub(super) struct Cached {
    first: Box<dyn Tier>,
    second: Box<dyn Tier>,
    costs: Costs,
}

impl Cached {
    pub(super) fn new(first: Box<dyn Tier>, second: Box<dyn Tier>) -> Cached {
        Cached {
            first,
            second,
            costs: Costs::default(),
        }
    }

    /// Reads from one side.
    fn read_from(&self, side: Side, reads: &mut [TierRead<'_>]) {
        let tier = match side {
            Side::First => &self.first,
            Side::Second => &self.second,
        };
        let start = Instant::now();
        tier.read(reads);
        if let [read] = reads
            && read.result.is_ok()
        {
            self.costs.learn(side, start.elapsed());
        }
    }
}

impl Tier for Cached {
    fn write(&self, writes: &mut [TierWrite<'_>]) {
        if !self.costs.is_worth_a_copy() {
            self.second.write(writes);
            return;
        }
        let offered = writes.iter().map(|write| TierWrite {
            offset_bytes: write.offset_bytes,
            bytes: write.bytes,
            result: Err(TierError::IO),
        });
        let mut offered: Vec<_> = offered.collect();
        self.first.write(&mut offered);
        self.second.write(writes);
    }

    fn read(&self, reads: &mut [TierRead<'_>]) {
        let side = match reads {
            [_] => self.costs.choose(),
            _ => self.costs.cheaper(),
        };
        self.read_from(side, reads);
        let other = match side {
            Side::First => Side::Second,
            Side::Second => Side::First,
        };
        let mut failed: Vec<_> = reads
            .iter_mut()
            .filter(|read| read.result.is_err())
            .collect();
        if failed.is_empty() {
            return;
        }
        let again = failed.iter_mut().map(|read| TierRead {
            offset_bytes: read.offset_bytes,
            bytes: &mut *read.bytes,
            result: read.result,
        });
        let mut again: Vec<_> = again.collect();
        self.read_from(other, &mut again);
        let results: Vec<_> = again.iter().map(|read| read.result).collect();
        for (read, result) in failed.into_iter().zip(results) {
            // What the one that keeps it says is what is true of a block.
            if result.is_ok() || other == Side::Second {
                read.result = result;
            }
        }
    }

    fn read_again(&self, reads: &mut [TierRead<'_>]) {
        self.second.read_again(reads);
    }

    fn free(&self, offset_bytes: u64, len_bytes: u64) {
        self.first.free(offset_bytes, len_bytes);
        self.second.free(offset_bytes, len_bytes);
    }

    fn reports(&self) -> Vec<TierReport> {
        let mut reports = self.first.reports();
        reports.extend(self.second.reports());
        reports
    }

    fn end(&self) {
        self.first.end();
        self.second.end();
    }

    fn ram_bytes(&self) -> u64 {
        self.first.ram_bytes() + self.second.ram_bytes()
    }
}
