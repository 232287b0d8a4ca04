//! The shard beside a naive model: seeded random operations drive both and every answer is compared.
//!
//! The model is a map from handle or key to content. Persistent pages must be there exactly; an ephemeral page may be
//! missing, and from then on must be. The tier is a map from slot to bytes that keeps no slot the shard has given up.

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};

use common::{Arena, Random, SeedOnPanic, seeds};
use zcache_core::{
    Allocator, CodecId, Counters, EntryToken, Found, Frames, Key, Kind, ObjectId, PoolId, Refused,
    Shard, Slot, TierRange, Watermarks, WriteFailed, WritebackEnd, WritebackPlan, Zpage,
};

#[derive(Clone, PartialEq, Eq, Debug)]
enum Content {
    Same(u64),
    Bytes(Vec<u8>, CodecId, u32),
}

impl Content {
    fn zpage(&self) -> Zpage<'_> {
        match self {
            Content::Same(word) => Zpage::Same { word: *word },
            Content::Bytes(bytes, codec, checksum) => Zpage::Bytes {
                bytes,
                codec: *codec,
                checksum: *checksum,
            },
        }
    }
}

struct World {
    random: Random,
    arena: Arena,
    shard: Shard,
    handles: BTreeMap<u32, (u32, Content)>,
    keys: HashMap<Key, Content>,
    /// Slots in use and their bytes.
    tier: HashMap<Slot, Vec<u8>>,
    next_slot: u32,
    /// Plans under way and the bytes they had when they began.
    writing: Vec<(WritebackPlan, Vec<u8>)>,
    lens: fn(&mut Random) -> usize,
}

fn any_len(random: &mut Random) -> usize {
    1 + random.below(4096) as usize
}

fn edge_len(random: &mut Random) -> usize {
    [
        1, 7, 8, 9, 56, 57, 120, 2040, 2041, 2048, 2049, 3073, 4080, 4087, 4088, 4089, 4095, 4096,
    ][random.below(18) as usize]
}

fn real_len(random: &mut Random) -> usize {
    random.zpage_len()
}

impl World {
    fn new(seed: u64, allocator: Allocator, frames_max: u32) -> World {
        World {
            random: Random(seed),
            arena: Arena::new(frames_max),
            shard: Shard::new(allocator),
            handles: BTreeMap::new(),
            keys: HashMap::new(),
            tier: HashMap::new(),
            next_slot: 0,
            writing: Vec::new(),
            lens: [any_len, edge_len, real_len][seed as usize % 3],
        }
    }

    fn content(&mut self) -> Content {
        if self.random.below(10) == 0 {
            return Content::Same(self.random.next());
        }
        let len = (self.lens)(&mut self.random);
        let codec = CodecId::new(self.random.below(16) as u8);
        Content::Bytes(self.random.bytes(len), codec, self.random.next() as u32)
    }

    fn key(&mut self) -> Key {
        let kind = if self.random.below(2) == 0 {
            Kind::Ephemeral
        } else {
            Kind::Persistent
        };
        let pool = PoolId::new(self.random.below(3) as u32, kind);
        let object = ObjectId([self.random.below(4), 7, u64::MAX]);
        // Some objects are sparse, so that a flush takes the walk of all entries.
        let stride = if object.0[0] == 0 { 1 << 20 } else { 1 };
        Key {
            pool,
            object,
            index: self.random.below(60) as u32 * stride,
        }
    }

    fn handle(&mut self) -> Option<u32> {
        let count = self.handles.len() as u64;
        (count != 0).then(|| {
            *self
                .handles
                .keys()
                .nth(self.random.below(count) as usize)
                .unwrap()
        })
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..25 => self.insert(),
            25..35 => self.release(),
            35..38 => self.retain(),
            38..62 => self.put(),
            62..70 => self.flush(),
            70..73 => self.exclusive_get(),
            73..83 => self.begin_writeback(),
            83..92 => self.finish_writeback(),
            92..94 => self.evacuate(),
            94..96 => self.readmit(),
            96..98 => self.touch(),
            98 => self.drop_ephemeral(),
            _ => self.stale_tokens(),
        }
        while let Some(slot) = self.shard.take_freed_slot(&mut self.arena) {
            assert!(self.tier.remove(&slot).is_some(), "{slot:?} freed twice");
        }
    }

    fn insert(&mut self) {
        let content = self.content();
        if let Ok(token) = self.shard.insert(&mut self.arena, content.zpage()) {
            assert!(
                self.handles.insert(token.0, (1, content)).is_none(),
                "{token:?} was in use"
            );
        }
    }

    fn release(&mut self) {
        let Some(token) = self.handle() else { return };
        let references = &mut self.handles.get_mut(&token).unwrap().0;
        *references -= 1;
        let left = *references;
        assert_eq!(
            self.shard.release(&mut self.arena, EntryToken(token)),
            Some(left)
        );
        if left == 0 {
            self.handles.remove(&token);
            assert_eq!(self.shard.release(&mut self.arena, EntryToken(token)), None);
        }
    }

    fn retain(&mut self) {
        let Some(token) = self.handle() else { return };
        assert!(self.shard.retain(&mut self.arena, EntryToken(token)));
        self.handles.get_mut(&token).unwrap().0 += 1;
    }

    fn put(&mut self) {
        let (key, content) = (self.key(), self.content());
        match self.shard.put(&mut self.arena, &key, content.zpage()) {
            Ok(()) => {
                assert!(
                    self.shard.get(&self.arena, &key).is_some(),
                    "a page just put is there"
                );
                self.keys.insert(key, content);
            }
            Err(refused) => {
                assert!(!matches!(refused, Refused::Length { .. }));
                assert_eq!(
                    self.shard.get(&self.arena, &key),
                    None,
                    "a refused put leaves nothing"
                );
                self.keys.remove(&key);
            }
        }
    }

    fn flush(&mut self) {
        let key = self.key();
        let found = self.shard.get(&self.arena, &key).is_some();
        match self.random.below(20) {
            0 => self.flush_many(|k| k.pool == key.pool, |s, a| s.flush_pool(a, key.pool)),
            1 | 2 => self.flush_many(
                |k| k.pool == key.pool && k.object == key.object,
                |s, a| s.flush_object(a, key.pool, key.object),
            ),
            _ => {
                self.keys.remove(&key);
                assert_eq!(self.shard.flush_page(&mut self.arena, &key), found);
            }
        }
        assert_eq!(self.shard.get(&self.arena, &key), None);
    }

    fn flush_many(
        &mut self,
        goes: impl Fn(&Key) -> bool,
        flush: impl Fn(&mut Shard, &mut Arena) -> u64,
    ) {
        self.drop_missing_ephemeral();
        let before = self.keys.len();
        self.keys.retain(|key, _| !goes(key));
        let flushed = flush(&mut self.shard, &mut self.arena);
        assert_eq!(flushed, (before - self.keys.len()) as u64);
    }

    fn exclusive_get(&mut self) {
        let key = self.key();
        let at = match self.shard.get(&self.arena, &key) {
            None => return,
            Some(Found::InTier { at, .. }) => Some(at),
            Some(_) => None,
        };
        self.compare_key(&key);
        self.keys.remove(&key);
        match at {
            Some(at) => {
                let elsewhere = TierRange {
                    offset_bytes: at.offset_bytes + 16,
                    ..at
                };
                assert!(!self.shard.flush_page_if(&mut self.arena, &key, elsewhere));
                assert!(self.shard.flush_page_if(&mut self.arena, &key, at));
            }
            None => assert!(self.shard.flush_page(&mut self.arena, &key)),
        }
        assert_eq!(self.shard.get(&self.arena, &key), None);
    }

    fn begin_writeback(&mut self) {
        if self.writing.len() < 3
            && let Some(plan) = self.shard.begin_writeback(&mut self.arena)
        {
            let bytes = self.arena.bytes(plan.frame, plan.order).to_vec();
            let live = self
                .shard
                .live_zpages(&self.arena, plan.block, &bytes)
                .count();
            assert_eq!(live, plan.zpages as usize);
            self.writing.push((plan, bytes));
        }
    }

    fn finish_writeback(&mut self) {
        if self.writing.is_empty() {
            return;
        }
        let number = self.random.below(self.writing.len() as u64) as usize;
        let (plan, bytes) = self.writing.swap_remove(number);
        assert_eq!(
            self.arena.bytes(plan.frame, plan.order),
            bytes,
            "bytes changed under a writeback"
        );
        if self.random.below(4) == 0 {
            let end = self
                .shard
                .finish_writeback(&mut self.arena, plan.block, Err(WriteFailed));
            assert!(!matches!(end, WritebackEnd::InTier { .. }));
        } else {
            let slot = Slot(self.next_slot);
            self.next_slot += 1;
            self.tier.insert(slot, bytes);
            self.shard
                .finish_writeback(&mut self.arena, plan.block, Ok(slot));
        }
    }

    fn evacuate(&mut self) {
        let before = self.shard.frames_in_use();
        let done = self
            .shard
            .evacuate(&mut self.arena, 1 + self.random.below(4) as u32);
        assert_eq!(before - self.shard.frames_in_use(), done.frames);
    }

    fn readmit(&mut self) {
        let Some(from) = self.shard.sparsest_tier_block(&self.arena) else {
            return;
        };
        let bytes = self.tier[&from.slot].clone();
        assert_eq!(
            self.shard
                .live_zpages(&self.arena, from.block, &bytes)
                .count(),
            from.zpages as usize
        );
        if let Ok(moved) = self.shard.readmit(&mut self.arena, &from, &bytes) {
            assert_eq!(moved, from.zpages);
            assert_eq!(
                self.shard.readmit(&mut self.arena, &from, &bytes),
                Ok(0),
                "it has left the slot"
            );
        }
    }

    fn touch(&mut self) {
        let key = self.key();
        self.shard.touch_page(&mut self.arena, &key);
        if let Some(token) = self.handle() {
            self.shard.touch(&mut self.arena, EntryToken(token));
        }
    }

    fn drop_ephemeral(&mut self) {
        let before = self.shard.usage().ephemeral;
        let dropped = self.shard.drop_oldest_ephemeral(&mut self.arena);
        let after = self.shard.usage().ephemeral;
        assert_eq!(
            before.zpages - after.zpages,
            dropped.map_or(0, |dropped| dropped.zpages)
        );
        assert_eq!(before.blocks - after.blocks, u32::from(dropped.is_some()));
    }

    fn stale_tokens(&mut self) {
        for token in [
            self.random.next() as u32,
            u32::MAX,
            self.random.below(500) as u32,
        ] {
            let known = self.handles.contains_key(&token);
            assert_eq!(
                self.shard.load(&self.arena, EntryToken(token)).is_some(),
                known
            );
            if !known {
                assert!(!self.shard.retain(&mut self.arena, EntryToken(token)));
                assert_eq!(self.shard.release(&mut self.arena, EntryToken(token)), None);
            }
        }
    }

    fn resolve(&self, found: Found<'_>) -> Content {
        match found {
            Found::Same { word } => Content::Same(word),
            Found::InRam {
                bytes,
                codec,
                checksum,
            } => Content::Bytes(bytes.to_vec(), codec, checksum),
            Found::InTier {
                at,
                codec,
                checksum,
            } => {
                let start = at.offset_bytes as usize;
                let bytes = self.tier[&at.slot][start..start + at.len_bytes as usize].to_vec();
                Content::Bytes(bytes, codec, checksum)
            }
        }
    }

    fn compare_key(&self, key: &Key) {
        let found = self
            .shard
            .get(&self.arena, key)
            .map(|found| self.resolve(found));
        match (key.pool.kind(), found) {
            (Kind::Ephemeral, None) => (),
            (_, found) => assert_eq!(found.as_ref(), self.keys.get(key), "{key:?}"),
        }
    }

    fn drop_missing_ephemeral(&mut self) {
        let (shard, arena) = (&self.shard, &self.arena);
        self.keys.retain(|key, _| {
            key.pool.kind() == Kind::Persistent || shard.get(arena, key).is_some()
        });
    }

    fn compare_all(&mut self) {
        self.shard.validate(&self.arena).unwrap();
        for (token, (_, content)) in &self.handles {
            let found = self
                .shard
                .load(&self.arena, EntryToken(*token))
                .expect("a handle's page is there");
            assert_eq!(&self.resolve(found), content, "E{token}");
        }
        for key in self.keys.keys() {
            self.compare_key(key);
        }
        self.drop_missing_ephemeral();
        let usage = self.shard.usage();
        assert_eq!(usage.handle_pages as usize, self.handles.len());
        assert_eq!(usage.tmem_pages as usize, self.keys.len());
        assert_eq!(self.shard.frames_in_use(), self.arena.frames_used);
        assert_eq!(usage.tier_blocks as usize, self.tier.len());
        let objects: HashSet<_> = self.keys.keys().map(|key| (key.pool, key.object)).collect();
        assert_eq!(usage.objects as usize, objects.len());
    }
}

fn run(allocator: Allocator, seed: u64, steps: u32, frames_max: u32) -> Counters {
    let _seed = SeedOnPanic(seed);
    let mut world = World::new(seed, allocator, frames_max);
    for step in 0..steps {
        // Now and then a stretch in which no frame is to be had at all.
        world.arena.fail_after = (step / 256 % 8 == 7).then_some(seed % 5);
        world.step();
        if step % 50 == 0 {
            world.compare_all();
        }
    }
    world.compare_all();
    let counters = *world.shard.counters();
    world.shard.destroy(&mut world.arena);
    assert_eq!(world.arena.frames_used, 0, "destroy gives every frame back");
    counters
}

/// A counter that a test says its operations have moved.
type Reached = (&'static str, fn(&Counters) -> u64);

/// Runs the seeds and checks that the operations have been where the test says it goes.
fn run_seeds(
    allocator: Allocator,
    count: u64,
    frames_max: impl Fn(u64) -> u32,
    reached: &[Reached],
) {
    let seeds = seeds(count);
    let all: Vec<_> = seeds
        .iter()
        .map(|seed| run(allocator, *seed, 2500, frames_max(*seed)))
        .collect();
    for (what, count) in reached {
        // A replay of one seed need not reach everything.
        assert!(
            seeds.len() == 1 || all.iter().map(count).sum::<u64>() > 0,
            "no operation reached {what}"
        );
    }
}

const ALWAYS_REACHED: [Reached; 9] = [
    ("overwritten", |c| c.overwritten),
    ("released", |c| c.released),
    ("flushed", |c| c.flushed),
    ("evicted_eph_zpages", |c| c.evicted_eph_zpages),
    ("evacuated_blocks", |c| c.evacuated_blocks),
    ("writebacks_stored", |c| c.writebacks_stored),
    ("writebacks_failed", |c| c.writebacks_failed),
    ("readmitted_zpages", |c| c.readmitted_zpages),
    ("slots_freed", |c| c.slots_freed),
];

const SHORT_REACHED: [Reached; 4] = [
    ("rejected_no_frames", |c| c.rejected_no_frames),
    ("put_to_flush", |c| c.put_to_flush),
    ("pers_ate_eph", |c| c.pers_ate_eph),
    ("writebacks_empty", |c| c.writebacks_empty),
];

#[test]
fn block_with_plenty_of_frames() {
    let compactions: Reached = ("compactions", |c| c.compactions);
    run_seeds(
        Allocator::Block,
        6,
        |_| 100_000,
        &[&ALWAYS_REACHED[..], &[compactions]].concat(),
    );
}

#[test]
fn block_short_of_frames() {
    run_seeds(
        Allocator::Block,
        12,
        |seed| 60 + seed as u32 * 8,
        &SHORT_REACHED,
    );
}

#[test]
fn zbud_with_plenty_of_frames() {
    run_seeds(Allocator::Zbud, 6, |_| 100_000, &ALWAYS_REACHED);
}

#[test]
fn zbud_short_of_frames() {
    run_seeds(
        Allocator::Zbud,
        12,
        |seed| 60 + seed as u32 * 8,
        &SHORT_REACHED,
    );
}

#[test]
fn each_allocation_may_fail() {
    for allocator in [Allocator::Block, Allocator::Zbud] {
        for kind in [Kind::Persistent, Kind::Ephemeral] {
            let (mut failures, mut no_frames, mut no_metadata) = (0, 0, 0);
            for nth in 0.. {
                let mut world = World::new(nth, allocator, 100_000);
                world.arena.fail_after = Some(nth);
                let mut refused = false;
                for index in 0..40u32 {
                    let key = Key {
                        pool: PoolId::new(1, kind),
                        object: ObjectId([u64::from(index) / 3, 0, 0]),
                        index,
                    };
                    let content = world.content();
                    let before = world.arena.refusals;
                    let stored = world
                        .shard
                        .put(&mut world.arena, &key, content.zpage())
                        .is_ok();
                    world.shard.validate(&world.arena).unwrap();
                    assert_eq!(world.shard.get(&world.arena, &key).is_some(), stored);
                    if stored {
                        world.keys.insert(key, content);
                    }
                    refused |= world.arena.refusals > before;
                    let content = world.content();
                    if let Ok(token) = world.shard.insert(&mut world.arena, content.zpage()) {
                        world.handles.insert(token.0, (1, content));
                    }
                    if world.arena.refusals > before {
                        // One failure at a time: the next attempt has frames again.
                        world.arena.fail_after = None;
                    }
                    world.compare_all();
                }
                failures += u32::from(refused);
                no_frames += world.shard.counters().rejected_no_frames;
                no_metadata += world.shard.counters().rejected_no_metadata;
                world.shard.destroy(&mut world.arena);
                assert_eq!(world.arena.frames_used, 0);
                if world.arena.refusals == 0 {
                    break;
                }
            }
            assert!(
                failures > 5,
                "the test has failed allocations at {failures} places only"
            );
            assert!(
                no_frames > 0 && no_metadata > 3,
                "{no_frames} and {no_metadata}"
            );
        }
    }
}

#[test]
fn every_length_is_stored_and_read_back() {
    for allocator in [Allocator::Block, Allocator::Zbud] {
        let mut random = Random(9);
        let mut arena = Arena::new(100_000);
        let mut shard = Shard::new(allocator);
        let pages: Vec<_> = (1..=4096)
            .map(|len| {
                let bytes = random.bytes(len);
                let page = Zpage::Bytes {
                    bytes: &bytes,
                    codec: CodecId::new(15),
                    checksum: len as u32,
                };
                (shard.insert(&mut arena, page).unwrap(), bytes)
            })
            .collect();
        for (token, expected) in &pages {
            let found = shard.load(&arena, *token);
            let Some(Found::InRam {
                bytes,
                codec,
                checksum,
            }) = found
            else {
                panic!("{found:?}")
            };
            assert_eq!(
                (bytes, codec.get(), checksum),
                (&expected[..], 15, expected.len() as u32)
            );
        }
        shard.validate(&arena).unwrap();
        for bytes in [vec![], vec![0; 4097]] {
            let page = Zpage::Bytes {
                bytes: &bytes,
                codec: CodecId::new(0),
                checksum: 0,
            };
            assert_eq!(
                shard.insert(&mut arena, page),
                Err(Refused::Length {
                    len_bytes: bytes.len()
                })
            );
        }
        assert_eq!(shard.counters().rejected_length, 2);
        shard.destroy(&mut arena);
    }
}

#[test]
fn reclaim_has_hysteresis() {
    let mut random = Random(3);
    let mut arena = Arena::new(100_000);
    let mut shard = Shard::new(Allocator::Block);
    shard.set_watermarks(Watermarks {
        high_frames: 100,
        low_frames: 60,
    });
    let mut goals = 0;
    for slot in 0..50_000u32 {
        let bytes = random.bytes(1000);
        shard
            .insert(
                &mut arena,
                Zpage::Bytes {
                    bytes: &bytes,
                    codec: CodecId::new(1),
                    checksum: 0,
                },
            )
            .unwrap();
        if shard.reclaim_goal() == 0 {
            continue;
        }
        goals += 1;
        assert!(
            shard.frames_in_use() > 100,
            "it begins above the high watermark only"
        );
        while shard.reclaim_goal() > 0 {
            // Between the watermarks it goes on.
            let plan = shard.begin_writeback(&mut arena).unwrap();
            shard.finish_writeback(&mut arena, plan.block, Ok(Slot(slot)));
        }
        assert!(
            (57..=60).contains(&shard.frames_in_use()),
            "{} frames",
            shard.frames_in_use()
        );
        if goals == 3 {
            break;
        }
    }
    assert_eq!(goals, 3);
    shard.validate(&arena).unwrap();
    shard.destroy(&mut arena);
}

#[test]
fn persistent_displaces_ephemeral_and_never_the_reverse() {
    for allocator in [Allocator::Block, Allocator::Zbud] {
        let mut random = Random(4);
        let mut arena = Arena::new(200);
        let mut shard = Shard::new(allocator);
        let mut put = |shard: &mut Shard, arena: &mut Arena, kind, index| {
            let bytes = random.bytes(1500);
            let key = Key {
                pool: PoolId::new(0, kind),
                object: ObjectId([1; 3]),
                index,
            };
            shard.put(
                arena,
                &key,
                Zpage::Bytes {
                    bytes: &bytes,
                    codec: CodecId::new(1),
                    checksum: 0,
                },
            )
        };
        for index in 0..1000 {
            put(&mut shard, &mut arena, Kind::Ephemeral, index).unwrap();
        }
        let ephemeral = shard.usage().ephemeral.zpages;
        assert!(
            ephemeral < 1000 && shard.counters().pers_ate_eph == 0,
            "the young displace the old of their kind"
        );
        let stored = (0..1000)
            .take_while(|i| put(&mut shard, &mut arena, Kind::Persistent, *i).is_ok())
            .count() as u32;
        assert_eq!(
            shard.usage().ephemeral.zpages,
            0,
            "all room went to persistent pages"
        );
        assert!(shard.counters().pers_ate_eph > 0 && shard.usage().persistent.zpages == stored);
        for index in 0..100 {
            let _ = put(&mut shard, &mut arena, Kind::Ephemeral, index);
        }
        assert_eq!(
            shard.usage().persistent.zpages,
            stored,
            "no ephemeral page displaced them"
        );
        shard.validate(&arena).unwrap();
        shard.destroy(&mut arena);
    }
}

#[test]
fn the_oldest_block_is_written_first() {
    let mut random = Random(5);
    let mut arena = Arena::new(1000);
    let mut shard = Shard::new(Allocator::Block);
    let tokens: Vec<_> = (0..60)
        .map(|_| {
            let bytes = random.bytes(4000);
            shard
                .insert(
                    &mut arena,
                    Zpage::Bytes {
                        bytes: &bytes,
                        codec: CodecId::new(1),
                        checksum: 0,
                    },
                )
                .unwrap()
        })
        .collect();
    shard.touch(&mut arena, tokens[0]);
    // Four zpages of 4008 bytes fill a block, so the second block is now the oldest.
    let plan = shard.begin_writeback(&mut arena).unwrap();
    shard.finish_writeback(&mut arena, plan.block, Ok(Slot(77)));
    let in_tier = |token| matches!(shard.load(&arena, token), Some(Found::InTier { .. }));
    let gone: Vec<_> = (0..60).filter(|i| in_tier(tokens[*i])).collect();
    assert_eq!(gone, [4, 5, 6, 7]);
    shard.destroy(&mut arena);
}

#[test]
fn bytes_of_a_slot_the_block_has_left_are_not_readmitted() {
    let mut random = Random(8);
    let mut arena = Arena::new(1000);
    let mut shard = Shard::new(Allocator::Block);
    let old = random.bytes(3000);
    let zpage = |bytes| Zpage::Bytes {
        bytes,
        codec: CodecId::new(1),
        checksum: 0,
    };
    let token = shard.insert(&mut arena, zpage(&old)).unwrap();
    let plan = shard.begin_writeback(&mut arena).unwrap();
    let bytes = arena.bytes(plan.frame, plan.order).to_vec();
    shard.finish_writeback(&mut arena, plan.block, Ok(Slot(3)));
    let from = shard.sparsest_tier_block(&arena).unwrap();
    // While the home reads the slot without the lock, the page is released and its entry and block are used again.
    shard.release(&mut arena, token);
    assert_eq!(shard.take_freed_slot(&mut arena), Some(Slot(3)));
    let new = random.bytes(3000);
    let token = shard.insert(&mut arena, zpage(&new)).unwrap();
    assert_eq!(
        shard.live_zpages(&arena, from.block, &bytes).count(),
        1,
        "the old bytes look alive"
    );
    assert_eq!(shard.readmit(&mut arena, &from, &bytes), Ok(0));
    let plan = shard.begin_writeback(&mut arena).unwrap();
    shard.finish_writeback(&mut arena, plan.block, Ok(Slot(4)));
    assert_eq!(
        shard.readmit(&mut arena, &from, &bytes),
        Ok(0),
        "nor when the block is in another slot"
    );
    assert!(
        matches!(shard.load(&arena, token), Some(Found::InTier { at, .. }) if at.slot == Slot(4))
    );
    shard.validate(&arena).unwrap();
    shard.destroy(&mut arena);
}

#[test]
fn damaged_tier_bytes_move_nothing_and_do_not_panic() {
    for allocator in [Allocator::Block, Allocator::Zbud] {
        let mut random = Random(6);
        let mut arena = Arena::new(1000);
        let mut shard = Shard::new(allocator);
        for _ in 0..40 {
            let bytes = random.bytes(1900);
            shard
                .insert(
                    &mut arena,
                    Zpage::Bytes {
                        bytes: &bytes,
                        codec: CodecId::new(1),
                        checksum: 0,
                    },
                )
                .unwrap();
        }
        let plan = shard.begin_writeback(&mut arena).unwrap();
        shard.finish_writeback(&mut arena, plan.block, Ok(Slot(0)));
        let from = shard.sparsest_tier_block(&arena).unwrap();
        for len in [0, 5, 4096, 16384] {
            for _ in 0..50 {
                let bytes = random.bytes(len);
                shard.readmit(&mut arena, &from, &bytes).unwrap();
                shard.validate(&arena).unwrap();
            }
        }
        assert_eq!(shard.counters().readmitted_zpages, 0);
        shard.destroy(&mut arena);
    }
}
