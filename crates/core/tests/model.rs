//! The shard beside a naive model: seeded random operations drive both and every answer is compared.
//!
//! The model is a map from handle or key to content. Persistent pages must be there exactly; an ephemeral page may be
//! missing, and from then on must be. The tier is a map from slot to bytes that keeps no slot the shard has given up.

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};

use common::{Arena, Random, SeedOnPanic, seeds};
use zcache_core::{
    Allocator, CodecId, Counters, EntryToken, Found, Frames, Key, Kind, LiveZpage, ObjectId,
    PoolId, Refused, Replacement, Shard, Slot, TierRange, WriteFailed, WritebackEnd, WritebackPlan,
    Zpage,
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
    /// The same for blocks that are recompressed.
    recompressing: Vec<(WritebackPlan, Vec<u8>)>,
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
            recompressing: Vec::new(),
            lens: [any_len, edge_len, real_len][seed as usize % 3],
        }
    }

    fn content(&mut self) -> Content {
        if self.random.below(10) == 0 {
            return Content::Same(self.random.next());
        }
        let len = (self.lens)(&mut self.random);
        let codec = CodecId::new(self.random.below(CodecId::COUNT.into()) as u8);
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
            96 => self.touch(),
            97 => self.recompress(),
            98 => self.drop_ephemeral(),
            _ => self.stale_tokens(),
        }
        while let Some((slot, run)) = self.shard.take_freed_slot(&mut self.arena) {
            let bytes = self.tier.remove(&slot).expect("a slot is freed once");
            assert_eq!(
                bytes.len(),
                run.bytes(),
                "{slot:?} is freed as it was taken"
            );
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
        let kind = [Kind::Persistent, Kind::Ephemeral][self.random.below(2) as usize];
        let next = self.shard.next_writeback(&self.arena, kind);
        if self.writing.len() < 3
            && let Some(plan) = self.shard.begin_writeback(&mut self.arena, kind)
        {
            assert_eq!(next, Some(plan.run));
            let bytes = self.arena.bytes(plan.frame, plan.run).to_vec();
            let live = self.shard.live_zpages(&self.arena, plan.block).count();
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
            self.arena.bytes(plan.frame, plan.run),
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

    /// Begins a recompression or ends one, with other bytes for the most of what was in the block.
    fn recompress(&mut self) {
        if self.recompressing.len() < 2 && self.random.below(2) == 0 {
            let kind = [Kind::Persistent, Kind::Ephemeral][self.random.below(2) as usize];
            if let Some(plan) = self.shard.begin_recompress(&mut self.arena, kind) {
                let bytes = self.arena.bytes(plan.frame, plan.run).to_vec();
                self.recompressing.push((plan, bytes));
            }
            return;
        }
        let Some((plan, bytes)) = self.recompressing.pop() else {
            return;
        };
        assert_eq!(
            self.arena.bytes(plan.frame, plan.run),
            bytes,
            "bytes changed under a recompression"
        );
        let lives: Vec<LiveZpage> = self.shard.live_zpages(&self.arena, plan.block).collect();
        let mut changes = Vec::new();
        for live in lives {
            let (from, len) = (live.offset_bytes as usize, live.len_bytes as usize);
            let tags = self.shard.tags_of(&self.arena, plan.block, live);
            assert_eq!(tags, live.tags);
            // The word of a same-filled page is not recompressed.
            let Some((codec, checksum)) = tags else {
                continue;
            };
            let old = Content::Bytes(bytes[from..from + len].to_vec(), codec, checksum);
            let new_len = match self.random.below(8) {
                0 => len,
                1 => (self.lens)(&mut self.random),
                _ => 1 + self.random.below(len as u64) as usize,
            };
            let codec = CodecId::new(self.random.below(CodecId::COUNT.into()) as u8);
            let new = self.random.bytes(new_len);
            let new = Content::Bytes(new, codec, self.random.next() as u32);
            changes.push((live, old, new));
        }
        // One that is gone before the end must not come back.
        if self.random.below(2) == 0 {
            self.release();
        }
        let replacements = changes.iter().map(|(of, _, new)| Replacement {
            of: *of,
            by: new.zpage(),
        });
        let block = plan.block;
        self.shard
            .finish_recompress(&mut self.arena, block, replacements);
        for (live, old, new) in changes {
            if self.shard.tags_of(&self.arena, block, live).is_some() {
                continue;
            }
            let mut contents = self.handles.values_mut().map(|(_, content)| content);
            let keys = self.keys.values_mut();
            if let Some(content) = contents
                .by_ref()
                .chain(keys)
                .find(|content| **content == old)
            {
                *content = new;
            }
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
            self.shard.live_zpages(&self.arena, from.block).count(),
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
        let before = self.shard.usage();
        let dropped = self.shard.drop_oldest_in_tier(&mut self.arena);
        let after = self.shard.usage();
        assert_eq!(
            before.tier_zpages - after.tier_zpages,
            dropped.map_or(0, |dropped| dropped.zpages)
        );
        let slots = after.freed_slots - before.freed_slots;
        assert_eq!(slots, u32::from(dropped.is_some()));
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
            Found::Damaged => panic!("nothing has damaged the shard"),
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

const ALWAYS_REACHED: [Reached; 10] = [
    ("overwritten", |c| c.overwritten),
    ("released", |c| c.released),
    ("flushed", |c| c.flushed),
    ("evicted_eph_zpages", |c| c.evicted_eph_zpages),
    ("evacuated_blocks", |c| c.evacuated_blocks),
    ("writebacks_stored", |c| c.writebacks_stored),
    ("writebacks_failed", |c| c.writebacks_failed),
    ("readmitted_zpages", |c| c.readmitted_zpages),
    ("recompressed_zpages", |c| c.recompressed_zpages),
    ("slots_freed", |c| c.slots_freed),
];

const SHORT_REACHED: [Reached; 4] = [
    ("rejected_no_frames", |c| c.rejected_no_frames),
    ("put_to_flush", |c| c.put_to_flush),
    ("pers_ate_eph", |c| c.pers_ate_eph),
    ("writebacks_empty", |c| c.writebacks_empty),
];

const COMPACTIONS: Reached = ("compactions", |c| c.compactions);

fn plenty_of_frames(allocator: Allocator, moves_within_blocks: bool) {
    let more = if moves_within_blocks {
        &[COMPACTIONS][..]
    } else {
        &[]
    };
    let reached = [&ALWAYS_REACHED[..], more].concat();
    run_seeds(allocator, 6, |_| 100_000, &reached);
}

fn short_of_frames(allocator: Allocator) {
    run_seeds(allocator, 12, |seed| 60 + seed as u32 * 8, &SHORT_REACHED);
}

#[test]
fn block_with_plenty_of_frames() {
    plenty_of_frames(Allocator::Block, true);
}

#[test]
fn block_short_of_frames() {
    short_of_frames(Allocator::Block);
}

#[test]
fn zbud_with_plenty_of_frames() {
    plenty_of_frames(Allocator::Zbud, false);
}

#[test]
fn zbud_short_of_frames() {
    short_of_frames(Allocator::Zbud);
}

#[test]
fn ztri_with_plenty_of_frames() {
    plenty_of_frames(Allocator::Ztri, true);
}

#[test]
fn ztri_short_of_frames() {
    short_of_frames(Allocator::Ztri);
}

#[test]
fn zsmalloc_with_plenty_of_frames() {
    plenty_of_frames(Allocator::Zsmalloc, false);
}

#[test]
fn zsmalloc_short_of_frames() {
    short_of_frames(Allocator::Zsmalloc);
}

#[test]
fn each_allocation_may_fail() {
    for allocator in Allocator::ALL {
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
                failures > 3,
                "the test has failed allocations at {failures} places only"
            );
            assert!(
                no_frames > 0 && no_metadata > 2,
                "{no_frames} and {no_metadata}"
            );
        }
    }
}
