//! How long one page takes: from a server through the tier, beside the bare GETRANGE on the same link and beside the
//! disk, in turns.

use std::time::{Duration, Instant};

use serde::Serialize;
use zcache::PAGE_SIZE;
use zcache::tier::Tier;
use zcache_remote::{Durability, RemoteTier};

use super::bare::Bare;
use super::blocks::{BATCH, BLOCK_BYTES, Blocks, Page};
use super::{config, failed};
use crate::host::HostError;
use crate::workload::{Histogram, Rng};

/// Reads of one kind before the next kind's turn.
const TURN: u64 = 250;

/// Blocks that are read from: enough that none is asked for again soon.
const BLOCKS: usize = 2048;

/// What one kind of read took.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Times {
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

impl Times {
    fn of(histogram: &Histogram) -> Times {
        let us = |per_mille| histogram.quantile_ns(per_mille) as f64 / 1000.0;
        Times {
            p50_us: us(500),
            p99_us: us(990),
        }
    }
}

/// One round over one link.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct PageRun {
    pub(super) delay_us: u64,
    pub(super) sealed: bool,
    pub(super) round: u32,
    pub(super) bare: Times,
    pub(super) page: Times,
    pub(super) disk: Times,
    pub(super) wrong_pages: u64,
}

/// Measures one round.
pub(super) fn measure(
    addresses: &[(String, u16)],
    sealed: bool,
    reads: u64,
    disk: &dyn Tier,
) -> Result<(Times, Times, Times, u64), HostError> {
    // Two servers have each block, so that a read that is late asks the other; a tier before a disk would give up.
    let config = config(addresses, Durability::TwoCopies, sealed);
    let tier = RemoteTier::open(config).map_err(|error| failed("the remote tier", error))?;
    let blocks = Blocks::generate(7);
    for first in (0..BLOCKS).step_by(BATCH) {
        blocks
            .write(&tier, first)
            .map_err(|error| failed("a write", error))?;
        blocks
            .write(disk, first)
            .map_err(|error| failed("a write", error))?;
    }
    let mut bare = Bare::connect(&addresses[0])?;
    let mut rng = Rng::new(1);
    let mut times = [Histogram::new(), Histogram::new(), Histogram::new()];
    let (mut page, mut wrong) = (Page::new(), 0);
    for _ in 0..reads.div_ceil(TURN) {
        for _ in 0..TURN {
            let from = rng.below((65_000 - PAGE_SIZE) as u64) as usize;
            let start = Instant::now();
            let got = bare.get_range(from, PAGE_SIZE);
            times[0].record(ns(start.elapsed()));
            got.map_err(|error| failed("GETRANGE", error))?;
        }
        let tiers: [&dyn Tier; 2] = [&tier, disk];
        for (tier, times) in tiers.into_iter().zip(&mut times[1..]) {
            for _ in 0..TURN {
                let block = rng.below(BLOCKS as u64) as usize;
                let part = rng.below((BLOCK_BYTES / PAGE_SIZE) as u64) as usize;
                let start = Instant::now();
                let read = page.read(tier, block, part);
                times.record(ns(start.elapsed()));
                read.map_err(|error| failed("a read", error))?;
                wrong += u64::from(!blocks.holds(block, part, &page));
            }
        }
    }
    let [bare, page, disk] = times.each_ref().map(Times::of);
    Ok((bare, page, disk, wrong))
}

fn ns(time: Duration) -> u64 {
    time.as_nanos() as u64
}
