//! One allocator on the zpages of one codec: stored, loaded, churned, freed by half,
//! evacuated and evicted.

use std::time::Instant;

use zcache::{Allocator, Codec};
use zcache_core::{CodecId, EntryToken, Found, Kind, Shard, Slot, Zpage};

use super::Zpages;
use super::arena::Arena;
use crate::corpus::PAGE_BYTES;
use crate::density::contender::Way;
use crate::density::{Corpus, zcache_store};
use crate::host::HostError;
use crate::workload::Rng;

/// Rounds of churn, and the part of the zpages that each replaces.
const ROUNDS: usize = 6;
const ROUND_PERCENT: usize = 30;

/// Zpages of one awkward length.
const WORST_ZPAGES: usize = 20_000;

/// What was measured; sums over all programs.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub(super) allocator: Allocator,
    pub(super) codec: Codec,
    /// Bytes of pages by bytes of frames: stored once, all programs in one shard, after churn, after half
    /// were freed, after evacuation.
    pub(super) fresh: f64,
    pub(super) fresh_in_one: f64,
    pub(super) churned: f64,
    pub(super) half_freed: f64,
    pub(super) evacuated: f64,
    /// Bytes of pages by bytes of zpages: what no allocator can exceed.
    pub(super) ideal: f64,
    pub(super) metadata_per_page: f64,
    /// Times in the allocator alone, in nanoseconds a zpage.
    pub(super) store_ns: f64,
    pub(super) load_ns: f64,
    pub(super) replace_ns: f64,
    /// Times with the codec, in nanoseconds a page.
    pub(super) store_with_codec_ns: f64,
    pub(super) load_with_codec_ns: f64,
    /// Eviction of all that is left after evacuation, for each frame that it frees.
    pub(super) evicted_zpages: f64,
    pub(super) evict_ns: f64,
    /// Frames of a block that was evicted.
    pub(super) block_frames: f64,
    /// Evacuation after half were freed, for each frame that it frees.
    pub(super) moved_zpages: f64,
    pub(super) evacuate_ns: f64,
}

impl Trial {
    /// Runs all of it.
    ///
    /// # Errors
    /// [`HostError::Command`] when a zpage is refused or comes back wrong.
    pub(super) fn run(
        allocator: Allocator,
        codec: Codec,
        repeat: u32,
        sources: &[Zpages],
        corpus: &Corpus,
    ) -> Result<Trial, HostError> {
        let count: usize = sources.iter().map(Vec::len).sum();
        let mut arena = Arena::new(count * 5 / 4 + 4096);
        let mut sum = Sums::default();
        for (number, zpages) in sources.iter().enumerate() {
            arena.reset();
            let rng = Rng::new(u64::from(repeat) << 32 | number as u64);
            let mut world = World::new(allocator, zpages, &mut arena, rng);
            world
                .stages(&mut sum)
                .map_err(|detail| failed(allocator, detail))?;
        }
        arena.reset();
        let mut all = Shard::new(allocator.into());
        for zpage in sources.iter().flatten() {
            insert(&mut all, &mut arena, zpage).map_err(|detail| failed(allocator, detail))?;
        }
        let fresh_in_one = count as f64 / f64::from(all.usage().block_frames);
        let store = zcache_store::run(codec.into(), Way::Plain, allocator, corpus)?;
        if store.wrong_pages != 0 {
            return Err(failed(
                allocator,
                format!("{} pages came back wrong", store.wrong_pages),
            ));
        }
        let zbytes: usize = sources.iter().flatten().map(Vec::len).sum();
        let pages = count as f64;
        Ok(Trial {
            allocator,
            codec,
            fresh: pages / sum.fresh_frames,
            fresh_in_one,
            churned: pages / sum.churned_frames,
            half_freed: sum.left / sum.half_freed_frames,
            evacuated: sum.left / sum.evacuated_frames,
            ideal: (count * PAGE_BYTES) as f64 / zbytes as f64,
            metadata_per_page: sum.metadata_bytes / pages,
            store_ns: sum.store_ns / pages,
            load_ns: sum.load_ns / pages,
            replace_ns: sum.replace_ns / sum.replaced,
            store_with_codec_ns: store.store_seconds * 1e9 / store.pages as f64,
            load_with_codec_ns: store.load_seconds * 1e9 / store.pages as f64,
            evicted_zpages: sum.evicted_zpages / sum.evicted_frames,
            evict_ns: sum.evict_ns / sum.evicted_frames,
            block_frames: sum.evicted_frames / sum.evicted_blocks,
            moved_zpages: sum.moved_zpages / sum.evacuated_by,
            evacuate_ns: sum.evacuate_ns / sum.evacuated_by,
        })
    }
}

fn failed(allocator: Allocator, detail: String) -> HostError {
    HostError::Command {
        line: format!("packing by {}", allocator.name()),
        detail,
    }
}

/// Sums over the programs.
#[derive(Default)]
struct Sums {
    fresh_frames: f64,
    churned_frames: f64,
    half_freed_frames: f64,
    evacuated_frames: f64,
    /// Zpages left of half.
    left: f64,
    metadata_bytes: f64,
    store_ns: f64,
    load_ns: f64,
    replace_ns: f64,
    replaced: f64,
    evicted_zpages: f64,
    evicted_frames: f64,
    evicted_blocks: f64,
    evict_ns: f64,
    moved_zpages: f64,
    /// Frames that evacuation freed.
    evacuated_by: f64,
    evacuate_ns: f64,
}

/// A shard and which zpages it holds.
struct World<'a> {
    allocator: Allocator,
    shard: Shard,
    arena: &'a mut Arena,
    zpages: &'a Zpages,
    /// What is stored, and the number of its zpage.
    held: Vec<(EntryToken, usize)>,
    rng: Rng,
}

impl<'a> World<'a> {
    fn new(allocator: Allocator, zpages: &'a Zpages, arena: &'a mut Arena, rng: Rng) -> World<'a> {
        World {
            allocator,
            shard: Shard::new(allocator.into()),
            arena,
            zpages,
            held: Vec::with_capacity(zpages.len()),
            rng,
        }
    }

    fn stages(&mut self, sum: &mut Sums) -> Result<(), String> {
        sum.store_ns += self.timed(World::store)?;
        sum.fresh_frames += self.block_frames();
        sum.metadata_bytes += self.shard.metadata_bytes() as f64;
        self.shuffle();
        sum.load_ns += self.timed(World::load)?;
        self.compare()?;
        sum.replace_ns += self.timed(World::churn)?;
        sum.replaced += self.churned() as f64;
        sum.churned_frames += self.block_frames();
        self.compare()?;
        self.free_half();
        sum.left += self.held.len() as f64;
        sum.half_freed_frames += self.block_frames();
        let before = self.block_frames();
        let clock = Instant::now();
        let done = self.shard.evacuate(self.arena, u32::MAX);
        sum.evacuate_ns += clock.elapsed().as_nanos() as f64;
        sum.moved_zpages += f64::from(done.zpages);
        sum.evacuated_by += before - self.block_frames();
        sum.evacuated_frames += self.block_frames();
        self.compare()?;
        self.evict(sum);
        Ok(())
    }

    fn timed(
        &mut self,
        stage: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<f64, String> {
        let clock = Instant::now();
        stage(self)?;
        Ok(clock.elapsed().as_nanos() as f64)
    }

    fn block_frames(&self) -> f64 {
        f64::from(self.shard.usage().block_frames)
    }

    fn store(&mut self) -> Result<(), String> {
        for (number, zpage) in self.zpages.iter().enumerate() {
            let token = insert(&mut self.shard, self.arena, zpage)?;
            self.held.push((token, number));
        }
        Ok(())
    }

    /// Copies every zpage out, in the order of `held`.
    fn load(&mut self) -> Result<(), String> {
        let mut page = [0; PAGE_BYTES];
        for (token, _) in &self.held {
            let bytes = found(&self.shard, self.arena, *token)?;
            page[..bytes.len()].copy_from_slice(bytes);
            std::hint::black_box(&page);
        }
        Ok(())
    }

    /// Compares every zpage with what was stored.
    fn compare(&self) -> Result<(), String> {
        for (token, number) in &self.held {
            if found(&self.shard, self.arena, *token)? != self.zpages[*number] {
                return Err(format!("{token:?} is not the zpage that was stored"));
            }
        }
        Ok(())
    }

    fn churned(&self) -> usize {
        ROUNDS * (self.held.len() * ROUND_PERCENT / 100)
    }

    /// Replaces zpages at random by others of the program.
    fn churn(&mut self) -> Result<(), String> {
        let count = self.held.len() as u64;
        for _ in 0..self.churned() {
            let victim = self.rng.below(count) as usize;
            let number = self.rng.below(self.zpages.len() as u64) as usize;
            self.shard.release(self.arena, self.held[victim].0);
            let token = insert(&mut self.shard, self.arena, &self.zpages[number])?;
            self.held[victim] = (token, number);
        }
        Ok(())
    }

    /// Frees every second zpage at random.
    fn free_half(&mut self) {
        self.shuffle();
        for (token, _) in self.held.drain(self.zpages.len() / 2..) {
            self.shard.release(self.arena, token);
        }
    }

    fn shuffle(&mut self) {
        for i in (1..self.held.len()).rev() {
            let other = self.rng.below(i as u64 + 1) as usize;
            self.held.swap(i, other);
        }
    }

    /// Evicts everything, the oldest block first, with no I/O between the plan and its end.
    fn evict(&mut self, sum: &mut Sums) {
        let zpages = self.shard.usage().persistent.zpages;
        let frames = self.block_frames();
        let clock = Instant::now();
        let mut blocks = 0;
        while let Some(plan) = self.shard.begin_writeback(self.arena, Kind::Persistent) {
            self.shard
                .finish_writeback(self.arena, plan.block, Ok(Slot(blocks)));
            blocks += 1;
        }
        sum.evict_ns += clock.elapsed().as_nanos() as f64;
        sum.evicted_blocks += f64::from(blocks);
        sum.evicted_zpages += f64::from(zpages);
        sum.evicted_frames += frames;
    }
}

fn insert(shard: &mut Shard, arena: &mut Arena, bytes: &[u8]) -> Result<EntryToken, String> {
    let zpage = Zpage::Bytes {
        bytes,
        codec: CodecId::new(1),
        checksum: 0,
    };
    shard
        .insert(arena, zpage)
        .map_err(|refused| format!("a zpage of {} bytes: {refused:?}", bytes.len()))
}

fn found<'f>(shard: &Shard, arena: &'f Arena, token: EntryToken) -> Result<&'f [u8], String> {
    match shard.load(arena, token) {
        Some(Found::InRam { bytes, .. }) => Ok(bytes),
        other => Err(format!("{token:?} is {other:?}")),
    }
}

/// Zpages that all have one awkward length.
#[derive(Clone, Debug)]
pub(super) struct Worst {
    pub(super) allocator: Allocator,
    pub(super) len: usize,
    /// Zpages in a frame: stored once, and after half were freed and the rest evacuated.
    pub(super) fresh: f64,
    pub(super) evacuated: f64,
}

impl Worst {
    /// Stores them, frees half at random and evacuates.
    ///
    /// # Errors
    /// [`HostError::Command`] when a zpage is refused or comes back wrong.
    pub(super) fn of(allocator: Allocator, len: usize) -> Result<Worst, HostError> {
        let zpages: Zpages = (0..WORST_ZPAGES)
            .map(|number| number.to_le_bytes().into_iter().cycle().take(len).collect())
            .collect();
        let mut arena = Arena::new(WORST_ZPAGES * 5 / 4 + 4096);
        let mut world = World::new(allocator, &zpages, &mut arena, Rng::new(len as u64));
        world.worst(len).map_err(|detail| failed(allocator, detail))
    }
}

impl World<'_> {
    fn worst(&mut self, len: usize) -> Result<Worst, String> {
        self.store()?;
        self.compare()?;
        let fresh = self.held.len() as f64 / self.block_frames();
        self.free_half();
        self.shard.evacuate(self.arena, u32::MAX);
        self.compare()?;
        Ok(Worst {
            allocator: self.allocator,
            len,
            fresh,
            evacuated: self.held.len() as f64 / self.block_frames(),
        })
    }
}
