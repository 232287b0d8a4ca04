//! Zpages all of one length, at each length where some packing has its worst case, while one allocation after the other
//! fails: what is refused is counted, and nothing else is lost.

mod common;

use std::collections::HashMap;

use common::{Arena, Random};
use zcache_core::{
    Allocator, CodecId, EntryToken, Found, Frames, Kind, Refused, Shard, Slot, TierBlock, Zpage,
};

/// The smallest, a half, three quarters and all of a frame, and their neighbours.
const LENS: [usize; 14] = [
    1, 24, 25, 1357, 2040, 2041, 2048, 2049, 3072, 3073, 4088, 4089, 4095, 4096,
];

struct World {
    arena: Arena,
    shard: Shard,
    random: Random,
    held: HashMap<EntryToken, Vec<u8>>,
    tier: HashMap<Slot, Vec<u8>>,
    refused: u64,
}

impl World {
    fn new(allocator: Allocator) -> World {
        World {
            arena: Arena::new(10_000),
            shard: Shard::new(allocator),
            random: Random(1),
            held: HashMap::new(),
            tier: HashMap::new(),
            refused: 0,
        }
    }

    fn insert(&mut self, len: usize) {
        let bytes = self.random.bytes(len);
        let page = Zpage::Bytes {
            bytes: &bytes,
            codec: CodecId::new(2),
            checksum: 3,
        };
        match self.shard.insert(&mut self.arena, page) {
            Ok(token) => assert!(self.held.insert(token, bytes).is_none()),
            Err(refused) => self.refusal(refused),
        }
    }

    fn refusal(&mut self, refused: Refused) {
        assert_ne!(
            self.arena.refusals, 0,
            "{refused:?} although frames were to be had"
        );
        self.refused += 1;
        // One failure at a time: the next attempt has frames again.
        self.arena.fail_after = None;
    }

    fn release_every_third(&mut self) {
        let mut tokens: Vec<_> = self.held.keys().copied().collect();
        tokens.sort_unstable();
        for token in tokens.into_iter().step_by(3) {
            self.held.remove(&token);
            assert_eq!(self.shard.release(&mut self.arena, token), Some(0));
        }
        self.free_slots();
    }

    fn free_slots(&mut self) {
        while let Some((slot, run)) = self.shard.take_freed_slot(&mut self.arena) {
            assert_eq!(
                self.tier.remove(&slot).map(|bytes| bytes.len()),
                Some(run.bytes())
            );
        }
    }

    /// Writes all blocks; every second write fails once.
    fn write_back(&mut self) {
        for number in 0.. {
            let Some(plan) = self
                .shard
                .begin_writeback(&mut self.arena, Kind::Persistent)
            else {
                break;
            };
            let slot = Slot(number);
            let result = match number % 2 {
                0 => Err(zcache_core::WriteFailed),
                _ => {
                    let bytes = self.arena.bytes(plan.frame, plan.run).to_vec();
                    self.tier.insert(slot, bytes);
                    Ok(slot)
                }
            };
            self.shard
                .finish_writeback(&mut self.arena, plan.block, result);
        }
    }

    /// Brings everything back from the tier.
    fn readmit(&mut self) {
        while let Some(from) = self.shard.sparsest_tier_block(&self.arena) {
            let TierBlock {
                slot, zpages, run, ..
            } = from;
            let bytes = self.tier[&slot].clone();
            assert_eq!(bytes.len(), run.bytes());
            match self.shard.readmit(&mut self.arena, &from, &bytes) {
                Ok(moved) => assert_eq!(moved, zpages),
                Err(_) => {
                    assert_ne!(self.arena.refusals, 0);
                    self.arena.fail_after = None;
                }
            }
            self.check();
            self.free_slots();
        }
        assert!(self.tier.is_empty());
    }

    fn check(&self) {
        self.shard.validate(&self.arena).unwrap();
        let counters = self.shard.counters();
        assert_eq!(
            counters.rejected_no_frames + counters.rejected_no_metadata,
            self.refused
        );
        assert_eq!(self.shard.usage().entries as usize, self.held.len());
        assert_eq!(self.shard.frames_in_use(), self.arena.frames_used);
        for (token, expected) in &self.held {
            let bytes = match self.shard.load(&self.arena, *token) {
                Some(Found::InRam { bytes, .. }) => bytes,
                Some(Found::InTier { at, .. }) => {
                    &self.tier[&at.slot][at.offset_bytes as usize..][..at.len_bytes as usize]
                }
                other => panic!("{token:?} is {other:?}"),
            };
            assert!(bytes == expected, "{token:?} has other bytes");
        }
    }
}

/// The whole life of zpages of one length, with the `nth` allocation failing; whether it came to that.
fn live(allocator: Allocator, len: usize, nth: u64) -> bool {
    let mut world = World::new(allocator);
    world.arena.fail_after = Some(nth);
    for _ in 0..40 {
        world.insert(len);
    }
    world.check();
    world.release_every_third();
    world.shard.evacuate(&mut world.arena, u32::MAX);
    world.check();
    world.write_back();
    world.check();
    world.release_every_third();
    world.check();
    world.readmit();
    world.check();
    let failed = world.arena.refusals != 0;
    world.shard.destroy(&mut world.arena);
    assert_eq!(world.arena.frames_used, 0);
    failed
}

#[test]
fn each_allocation_may_fail_at_each_awkward_length() {
    for allocator in Allocator::ALL {
        for len in LENS {
            let failures = (0..).take_while(|nth| live(allocator, len, *nth)).count();
            // An entry table, a block, and a block table at least.
            assert!(failures >= 3, "{failures} for {len} bytes in {allocator:?}");
        }
    }
}

#[test]
fn as_many_awkward_zpages_share_a_block_as_fit() {
    let lens = [2049, 3073, 4095];
    // Zpages in frames.
    let expected = |allocator| match allocator {
        Allocator::Block => [(7, 4), (5, 4), (4, 4)],
        Allocator::Zbud | Allocator::Ztri => [(1, 1); 3],
        Allocator::Zsmalloc => [(15, 8), (9, 7), (1, 1)],
    };
    for allocator in Allocator::ALL {
        for (len, (zpages, frames)) in lens.into_iter().zip(expected(allocator)) {
            let mut world = World::new(allocator);
            for _ in 0..zpages * 6 {
                world.insert(len);
            }
            assert_eq!(
                world.shard.usage().block_frames,
                frames * 6,
                "{allocator:?}: {len}"
            );
            world.check();
            // What half as many leave behind is merged.
            world.release_every_third();
            world.shard.evacuate(&mut world.arena, u32::MAX);
            assert_eq!(
                world.shard.usage().block_frames,
                frames * 4,
                "{allocator:?}: {len}"
            );
            world.check();
            world.shard.destroy(&mut world.arena);
        }
    }
}
