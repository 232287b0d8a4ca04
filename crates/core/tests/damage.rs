//! One bit after the other is flipped in the frames that a shard lies in: blocks, tables, directories, buckets.
//!
//! Whatever was flipped, no operation panics, and no page comes back as another's: it is right, or its checksum says that
//! it is not, or the shard says that it is lost. A persistent page of a key is never said to be missing. All else goes on.

mod common;

use std::collections::{BTreeMap, HashMap};

use common::{Arena, Random, SeedOnPanic, seeds};
use zcache_core::Run;
use zcache_core::{
    Allocator, CodecId, EntryToken, Found, Frames, Key, Kind, ObjectId, PoolId, Shard, Slot,
    WriteFailed, WritebackEnd, WritebackPlan, Zpage,
};

struct World {
    random: Random,
    arena: Arena,
    shard: Shard,
    handles: BTreeMap<u32, Vec<u8>>,
    keys: HashMap<Key, Vec<u8>>,
    tier: HashMap<Slot, Vec<u8>>,
    writing: Vec<WritebackPlan>,
    next_slot: u32,
}

/// What a home verifies a load by.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

fn zpage(bytes: &[u8]) -> Zpage<'_> {
    match bytes.len() {
        8 => Zpage::Same {
            word: u64::from_le_bytes(bytes.try_into().unwrap()),
        },
        _ => Zpage::Bytes {
            bytes,
            codec: CodecId::new(3),
            checksum: checksum(bytes),
        },
    }
}

impl World {
    fn new(seed: u64, allocator: Allocator) -> World {
        World {
            random: Random(seed),
            arena: Arena::new(30_000),
            shard: Shard::new(allocator),
            handles: BTreeMap::new(),
            keys: HashMap::new(),
            tier: HashMap::new(),
            writing: Vec::new(),
            next_slot: 0,
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.random.below(8) {
            0 => 8,
            1 => 20 + self.random.below(4076) as usize,
            _ => 20 + self.random.below(200) as usize,
        };
        self.random.bytes(len)
    }

    fn key(&mut self) -> Key {
        let kind = [Kind::Persistent, Kind::Ephemeral][self.random.below(2) as usize];
        Key {
            pool: PoolId::new(self.random.below(5) as u32, kind),
            object: ObjectId([self.random.below(40), 1, 2]),
            index: self.random.below(100) as u32,
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..6 => {
                let bytes = self.bytes();
                if let Ok(token) = self.shard.insert(&mut self.arena, zpage(&bytes)) {
                    assert!(self.handles.insert(token.0, bytes).is_none());
                }
            }
            6..12 => {
                let (key, bytes) = (self.key(), self.bytes());
                match self.shard.put(&mut self.arena, &key, zpage(&bytes)) {
                    Ok(()) => drop(self.keys.insert(key, bytes)),
                    Err(_) => drop(self.keys.remove(&key)),
                }
            }
            12 | 13 => self.release(),
            14 => {
                let key = self.key();
                self.shard.flush_page(&mut self.arena, &key);
                self.keys.remove(&key);
            }
            15 => self.begin_or_end_writeback(),
            16 => {
                self.shard.evacuate(&mut self.arena, 2);
            }
            17 => self.readmit(),
            18 if self.random.below(50) == 0 => self.flush_object(),
            _ => {
                let key = self.key();
                self.shard.touch_page(&mut self.arena, &key);
            }
        }
        while let Some((slot, _)) = self.shard.take_freed_slot(&mut self.arena) {
            self.tier.remove(&slot);
        }
    }

    fn release(&mut self) {
        let from = self.random.next() as u32 % (self.shard.entries_made() + 1);
        let Some((&token, _)) = self.handles.range(from..).next() else {
            return;
        };
        self.handles.remove(&token);
        assert!(
            self.shard
                .release(&mut self.arena, EntryToken(token))
                .is_some()
        );
    }

    fn flush_object(&mut self) {
        let key = self.key();
        self.shard
            .flush_object(&mut self.arena, key.pool, key.object);
        self.keys
            .retain(|other, _| other.pool != key.pool || other.object != key.object);
    }

    fn begin_or_end_writeback(&mut self) {
        if self.writing.len() < 4 {
            let kind = [Kind::Persistent, Kind::Ephemeral][self.random.below(2) as usize];
            self.writing
                .extend(self.shard.begin_writeback(&mut self.arena, kind));
            return;
        }
        let plan = self.writing.remove(0);
        let slot = Slot(self.next_slot);
        self.next_slot += 1;
        let failed = self.random.below(4) == 0;
        let bytes = self.arena.bytes(plan.frame, plan.run).to_vec();
        let result = if failed { Err(WriteFailed) } else { Ok(slot) };
        let end = self
            .shard
            .finish_writeback(&mut self.arena, plan.block, result);
        if !failed && end != WritebackEnd::Damaged {
            self.tier.insert(slot, bytes);
        }
    }

    fn readmit(&mut self) {
        let Some(from) = self.shard.sparsest_tier_block(&self.arena) else {
            return;
        };
        let Some(bytes) = self.tier.get(&from.slot).cloned() else {
            return;
        };
        let is_good = |live: &zcache_core::LiveZpage| {
            let from = live.offset_bytes as usize;
            let zpage = bytes.get(from..from + live.len_bytes as usize);
            zpage.map(checksum) == live.tags.map(|(_, checksum)| checksum)
        };
        if self
            .shard
            .readmit_good(&mut self.arena, &from, &bytes, is_good)
            .is_ok_and(|moved| moved < from.zpages)
        {
            self.shard.put_aside(&mut self.arena, &from);
        }
    }

    /// Whether a page is as it was; panics when it is another.
    fn is_right(&self, found: Option<Found<'_>>, expected: &[u8]) -> bool {
        let (bytes, sum) = match found {
            None | Some(Found::Damaged) => return false,
            Some(Found::Same { word }) => {
                assert_eq!(word.to_le_bytes(), expected, "another page's word");
                return true;
            }
            Some(Found::InRam {
                bytes, checksum, ..
            }) => (bytes.to_vec(), checksum),
            Some(Found::InTier { at, checksum, .. }) => {
                let from = at.offset_bytes as usize;
                let block = self.tier.get(&at.slot);
                let bytes = block.and_then(|block| block.get(from..from + at.len_bytes as usize));
                (bytes.unwrap_or_default().to_vec(), checksum)
            }
        };
        let verified = checksum(&bytes) == sum;
        assert!(!verified || bytes == expected, "another page's bytes");
        verified
    }

    /// Pages that are not right.
    fn compare(&self) -> usize {
        let mut wrong = 0;
        for (token, expected) in &self.handles {
            let found = self.shard.load(&self.arena, EntryToken(*token));
            wrong += usize::from(!self.is_right(found, expected));
        }
        for (key, expected) in &self.keys {
            let found = self.shard.get(&self.arena, key);
            let persistent = key.pool.kind() == Kind::Persistent;
            assert!(
                found.is_some() || !persistent,
                "{key:?} is said to be missing"
            );
            if persistent {
                wrong += usize::from(!self.is_right(found, expected));
            } else if found.is_some() {
                self.is_right(found, expected);
            }
        }
        wrong
    }
}

fn run(seed: u64, allocator: Allocator, flips: u32, longest: Run) -> (usize, u64) {
    let _seed = SeedOnPanic(seed);
    let mut world = World::new(seed, allocator);
    for _ in 0..40_000 {
        world.step();
    }
    world.shard.validate(&world.arena).unwrap();
    assert_eq!(world.compare(), 0);
    for flip in 0..flips {
        world.arena.flip_any_bit(&mut world.random, longest);
        for _ in 0..100 {
            world.step();
        }
        if flip % 8 == 0 {
            world.compare();
        }
    }
    let pages = world.handles.len() + world.keys.len();
    let wrong = world.compare();
    // A flip takes a page, or an object or a block with all that is in it.
    assert!(
        wrong * 4 < pages,
        "{wrong} of {pages} pages are lost by {flips} flips"
    );
    (wrong, world.shard.counters().repairs)
}

#[test]
fn a_flipped_bit_anywhere_costs_what_it_says_and_never_a_panic() {
    let mut all = (0, 0);
    for allocator in Allocator::ALL {
        for seed in seeds(4) {
            let (wrong, repairs) = run(seed, allocator, 60, Run::of_frames(8));
            all = (all.0 + wrong, all.1 + repairs);
        }
    }
    println!("{} pages lost, {} repairs", all.0, all.1);
    assert!(
        all.0 > 0 && all.1 > 20,
        "the test has damaged nothing: {all:?}"
    );
}

#[test]
fn a_flipped_bit_of_a_table_is_never_believed() {
    let mut repairs = 0;
    for seed in seeds(12) {
        // Blocks of this allocator are longer than a table's frame.
        repairs += run(seed, Allocator::Block, 100, Run::FRAME).1;
    }
    println!("{repairs} repairs");
    assert!(repairs > 100, "{repairs}");
}
