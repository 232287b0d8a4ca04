//! One flipped bit, in RAM that nobody checks or in a tier: never a panic, never
//! wrong bytes. The page is an error or a miss, and the others stay right.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use zcache::tier::memory::MemoryTier;
use zcache::{Key, ObjectId, PAGE_SIZE, PoolId, PoolKind, Store};
use zcache_core::{
    Allocator, CodecId, EntryToken, FRAME_SIZE, Found, FrameId, Frames, Run, Shard, Slot, Zpage,
};

use crate::support::pages::noise_up_to;
use crate::support::quiet::caught;
use crate::support::random::Random;
use crate::{Tally, child, get, key, plain};

/// Frames of a test: one number names a run of any length.
pub(crate) struct Heap {
    memory: Vec<u8>,
    frames_max: u32,
    frames: u32,
    free: HashMap<Run, Vec<FrameId>>,
    /// Runs that the core has now.
    out: BTreeMap<u32, Run>,
}

impl Heap {
    pub(crate) fn new(frames_max: u32) -> Heap {
        Heap {
            memory: Vec::new(),
            frames_max,
            frames: 0,
            free: HashMap::new(),
            out: BTreeMap::new(),
        }
    }

    fn range(&self, frame: FrameId, run: Run) -> std::ops::Range<usize> {
        let start = frame.0 as usize * FRAME_SIZE;
        start..start + run.bytes()
    }
}

impl Frames for Heap {
    fn alloc(&mut self, run: Run) -> Option<FrameId> {
        let frame = match self.free.entry(run).or_default().pop() {
            Some(frame) => frame,
            None if self.frames + run.frames() > self.frames_max => return None,
            None => {
                let frame = FrameId(self.frames);
                self.frames += run.frames();
                self.memory.resize(self.frames as usize * FRAME_SIZE, 0xa5);
                frame
            }
        };
        self.out.insert(frame.0, run);
        Some(frame)
    }

    fn free(&mut self, frame: FrameId, run: Run) {
        let was = self.out.remove(&frame.0);
        assert_eq!(was, Some(run), "a run that the core does not have");
        self.free.entry(run).or_default().push(frame);
    }

    fn bytes(&self, frame: FrameId, run: Run) -> &[u8] {
        &self.memory[self.range(frame, run)]
    }

    fn bytes_mut(&mut self, frame: FrameId, run: Run) -> &mut [u8] {
        let range = self.range(frame, run);
        &mut self.memory[range]
    }
}

fn crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// The bytes of a zpage by its number; every sixteenth is one word.
fn zbytes(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let words = 40 + random.below(180);
    let words: Vec<_> = (0..words).map(|_| random.next().to_le_bytes()).collect();
    words.into_flattened()
}

const CODEC: CodecId = CodecId::new(1);

/// How a page is named in the shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    Entry(EntryToken),
    Key(Key),
}

impl Name {
    fn is_ephemeral(self) -> bool {
        match self {
            Name::Key(key) => key.pool.kind() == PoolKind::Ephemeral,
            Name::Entry(_) => false,
        }
    }
}

/// Pages that one bit may cost: those of two blocks, or of one chain.
const LOST_MAX: usize = 48;

/// A shard with a map of what must be there.
struct Trial {
    heap: Heap,
    shard: Shard,
    random: Random,
    there: Vec<(Name, u64)>,
    next: u64,
    tier: HashMap<u32, Vec<u8>>,
    slots: u32,
    /// Every page is one word, so that there are tables only.
    only_words: bool,
}

/// What one look over all pages found.
#[derive(Debug, Default)]
struct Look {
    right: usize,
    noticed: usize,
    missing: usize,
    wrong: Vec<u64>,
}

impl Trial {
    fn new(allocator: Allocator, seed: u64) -> Trial {
        let mut trial = Trial {
            heap: Heap::new(2048),
            shard: Shard::new(allocator),
            random: Random(seed),
            there: Vec::new(),
            next: seed << 20,
            tier: HashMap::new(),
            slots: 0,
            only_words: false,
        };
        for _ in 0..300 {
            trial.add();
        }
        trial
    }

    /// A trial whose pages are one word each.
    fn of_words(seed: u64) -> Trial {
        let mut trial = Trial::new(Allocator::Block, seed);
        trial.only_words = true;
        for _ in 0..300 {
            trial.remove();
            trial.add();
        }
        trial
    }

    fn add(&mut self) {
        self.next += if self.only_words { 16 } else { 1 };
        if self.only_words {
            self.next &= !15;
        }
        let number = self.next;
        let bytes = zbytes(number);
        let zpage = match number % 16 {
            0 => Zpage::Same { word: number },
            _ => Zpage::Bytes {
                bytes: &bytes,
                codec: CODEC,
                checksum: crc(&bytes),
            },
        };
        if self.random.one_in(2) {
            if let Ok(entry) = self.shard.insert(&mut self.heap, zpage) {
                self.there.retain(|(name, _)| *name != Name::Entry(entry));
                self.there.push((Name::Entry(entry), number));
            }
            return;
        }
        let kinds = [PoolKind::Ephemeral, PoolKind::Persistent];
        let key = Key {
            pool: PoolId::new(1, self.random.pick(&kinds)),
            object: ObjectId([0, 0, self.random.below(9)]),
            index: self.random.below(400) as u32,
        };
        self.there.retain(|(name, _)| *name != Name::Key(key));
        if self.shard.put(&mut self.heap, &key, zpage).is_ok() {
            self.there.push((Name::Key(key), number));
        }
    }

    fn remove(&mut self) {
        if self.there.is_empty() {
            return;
        }
        let at = self.random.below(self.there.len() as u64) as usize;
        let (name, _) = self.there.swap_remove(at);
        match name {
            Name::Entry(entry) => {
                self.shard.release(&mut self.heap, entry);
            }
            Name::Key(key) => {
                self.shard.flush_page(&mut self.heap, &key);
            }
        }
    }

    /// Writes the oldest block to a tier, and some back.
    fn write_back(&mut self) {
        let kind = [PoolKind::Persistent, PoolKind::Ephemeral][self.random.below(2) as usize];
        let Some(plan) = self.shard.begin_writeback(&mut self.heap, kind) else {
            return;
        };
        let bytes = self.heap.bytes(plan.frame, plan.run).to_vec();
        self.slots += 1;
        self.tier.insert(self.slots, bytes);
        let slot = Ok(Slot(self.slots));
        self.shard
            .finish_writeback(&mut self.heap, plan.block, slot);
        self.free_slots();
    }

    fn read_back(&mut self) {
        let Some(block) = self.shard.sparsest_tier_block(&self.heap) else {
            return;
        };
        if let Some(bytes) = self.tier.get(&block.slot.0).cloned() {
            self.shard.readmit(&mut self.heap, &block, &bytes).ok();
        }
        self.free_slots();
    }

    fn free_slots(&mut self) {
        while let Some((slot, _)) = self.shard.take_freed_slot(&mut self.heap) {
            self.tier.remove(&slot.0);
        }
    }

    fn step(&mut self) {
        match self.random.below(16) {
            0..6 => self.add(),
            6..11 => self.remove(),
            11 => {
                self.shard.evacuate(&mut self.heap, 2);
            }
            12 => {
                self.shard.drop_oldest_ephemeral(&mut self.heap);
                self.shard.drop_oldest_in_tier(&mut self.heap);
                self.free_slots();
            }
            13 => self.write_back(),
            14 => self.read_back(),
            _ => {
                let pool = PoolId::new(1, PoolKind::Ephemeral);
                let object = ObjectId([0, 0, self.random.below(9)]);
                self.shard.flush_object(&mut self.heap, pool, object);
                self.there.retain(|(name, _)| match name {
                    Name::Key(key) => key.pool != pool || key.object != object,
                    Name::Entry(_) => true,
                });
            }
        }
    }

    /// Whether what the shard says of a page is right; `None` when it is noticed
    /// that it is not, or a miss.
    fn look(&self, found: &mut Look, name: Name, number: u64) {
        let bytes = zbytes(number);
        let seen = match name {
            Name::Entry(entry) => self.shard.load(&self.heap, entry),
            Name::Key(key) => self.shard.get(&self.heap, &key),
        };
        let (got, tags) = match seen {
            None => {
                found.missing += 1;
                return;
            }
            Some(Found::Same { word }) => {
                if word == number && number.is_multiple_of(16) {
                    found.right += 1;
                } else {
                    found.wrong.push(number);
                }
                return;
            }
            Some(Found::Damaged) => {
                found.noticed += 1;
                return;
            }
            Some(Found::InRam {
                bytes,
                codec,
                checksum,
            }) => (bytes.to_vec(), (codec, checksum)),
            Some(Found::InTier {
                at,
                codec,
                checksum,
            }) => {
                let range = at.offset_bytes as usize..(at.offset_bytes + at.len_bytes) as usize;
                let block = self.tier.get(&at.slot.0).and_then(|block| block.get(range));
                (block.unwrap_or_default().to_vec(), (codec, checksum))
            }
        };
        let (codec, checksum) = tags;
        if crc(&got) != checksum || codec != CODEC {
            found.noticed += 1;
        } else if got == bytes && !number.is_multiple_of(16) {
            found.right += 1;
        } else {
            found.wrong.push(number);
        }
    }

    fn look_at_all(&self) -> Look {
        let mut found = Look::default();
        for (name, number) in &self.there {
            self.look(&mut found, *name, *number);
        }
        found
    }

    /// What a look found that must not be, in words.
    fn complaint(&self, when: &str) -> Option<String> {
        let mut kept = Look::default();
        for (name, number) in &self.there {
            if !name.is_ephemeral() {
                self.look(&mut kept, *name, *number);
            }
        }
        let all = self.look_at_all();
        if !all.wrong.is_empty() {
            return Some(format!("wrong bytes {when}: {all:?}"));
        }
        let lost = kept.noticed + kept.missing;
        (lost > LOST_MAX).then(|| format!("{lost} pages of others are lost {when}: {kept:?}"))
    }

    /// Names the runs that hold zpages or tables, as the allocator has them.
    fn runs(&self) -> Vec<(u32, Run)> {
        self.heap.out.iter().map(|(at, run)| (*at, *run)).collect()
    }
}

/// Flips a bit somewhere and goes on; what was wrong, in words.
fn flip_and_go_on(mut trial: Trial, byte: usize, bit: u32) -> Option<String> {
    trial.heap.memory[byte] ^= 1 << bit;
    let gone_on = caught(|| {
        if let Some(complaint) = trial.complaint("at once") {
            return Some(complaint);
        }
        for _ in 0..500 {
            trial.step();
        }
        // An answer, whatever it is.
        trial.shard.validate(&trial.heap).ok();
        if let Some(complaint) = trial.complaint("later") {
            return Some(complaint);
        }
        for _ in 0..300 {
            trial.add();
        }
        trial.complaint("in the end")
    });
    gone_on.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        Some(format!("panic: {}", said.unwrap_or_default()))
    })
}

/// Fails with what the flips did that they must not, by kind.
fn judge(tried: usize, failed: &[String]) {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for failure in failed {
        let kind: String = failure
            .chars()
            .take(100)
            .filter(|c| !c.is_ascii_digit())
            .collect();
        *kinds.entry(kind).or_default() += 1;
    }
    let kinds: Vec<_> = kinds.iter().take(12).collect();
    assert!(
        failed.is_empty(),
        "{} of {tried} flips: {kinds:#?}",
        failed.len()
    );
}

#[test]
fn a_flipped_bit_in_a_header_of_a_zpage_is_noticed() {
    if !child::is_child() {
        return child::passes("flip::a_flipped_bit_in_a_header_of_a_zpage_is_noticed", "");
    }
    let mut failed = Vec::new();
    for bit in 0..64 {
        for seed in 0..5 {
            let trial = Trial::new(Allocator::Block, seed);
            let starts = trial.there.iter().filter_map(|(name, _)| match name {
                Name::Entry(entry) => match trial.shard.load(&trial.heap, *entry)? {
                    Found::InRam { bytes, .. } => {
                        Some(bytes.as_ptr().addr() - trial.heap.memory.as_ptr().addr())
                    }
                    _ => None,
                },
                Name::Key(_) => None,
            });
            let starts: Vec<usize> = starts.collect();
            let start = starts[starts.len() / 2];
            failed.extend(flip_and_go_on(trial, start - 8 + bit / 8, bit as u32 % 8));
        }
    }
    judge(320, &failed);
}

fn anywhere(tries: u64, trial: impl Fn(u64) -> Trial, wanted: impl Fn(Run) -> bool) {
    let mut failed = Vec::new();
    for seed in 0..tries {
        let trial = trial(seed);
        let mut random = Random(seed ^ 0xf11b);
        let mut runs = trial.runs();
        runs.retain(|(_, run)| wanted(*run));
        let (frame, run) = random.pick(&runs);
        let byte = frame as usize * FRAME_SIZE + random.below(run.bytes() as u64) as usize;
        failed.extend(flip_and_go_on(trial, byte, random.below(8) as u32));
    }
    judge(tries as usize, &failed);
}

#[test]
fn a_flipped_bit_anywhere_in_a_block_is_noticed() {
    if !child::is_child() {
        return child::passes("flip::a_flipped_bit_anywhere_in_a_block_is_noticed", "");
    }
    let trial = |seed| Trial::new(Allocator::Block, seed);
    anywhere(150, trial, |run| run == Run::BLOCK);
}

/// Links of lists among others: a walk along one must end all the same.
#[test]
fn a_flipped_bit_anywhere_in_a_table_is_noticed() {
    if !child::is_child() {
        return child::passes("flip::a_flipped_bit_anywhere_in_a_table_is_noticed", "");
    }
    let trial = |seed| Trial::new(Allocator::Block, seed);
    anywhere(150, trial, |run| run == Run::FRAME);
}

/// A page that is one word lies in a table only, where no block's checksum is.
#[test]
fn a_flipped_bit_of_a_page_that_is_one_word_is_noticed() {
    if !child::is_child() {
        return child::passes(
            "flip::a_flipped_bit_of_a_page_that_is_one_word_is_noticed",
            "",
        );
    }
    anywhere(150, Trial::of_words, |run| run == Run::FRAME);
}

#[test]
fn a_flipped_bit_is_noticed_with_every_allocator() {
    if !child::is_child() {
        return child::passes("flip::a_flipped_bit_is_noticed_with_every_allocator", "");
    }
    for allocator in [Allocator::Zbud, Allocator::Ztri, Allocator::Zsmalloc] {
        anywhere(50, |seed| Trial::new(allocator, seed), |_| true);
    }
}

/// The pages of a trial without a flip stay right: the trial itself is.
#[test]
fn without_a_flip_every_page_is_right() {
    for allocator in [
        Allocator::Block,
        Allocator::Zbud,
        Allocator::Ztri,
        Allocator::Zsmalloc,
    ] {
        let mut trial = Trial::new(allocator, 1);
        for _ in 0..1000 {
            trial.step();
        }
        let found = trial.look_at_all();
        assert_eq!((found.noticed, found.wrong.len()), (0, 0));
        let kept = trial.there.iter().filter(|(name, _)| !name.is_ephemeral());
        assert!(found.right >= kept.count() && found.right > 100);
        assert_eq!(trial.shard.validate(&trial.heap), Ok(()));
    }
}

fn full_tier(tier: &Arc<MemoryTier>) -> (Store, PoolId, u64) {
    let store = Store::with_tier(&plain(1 << 20), Box::new(Arc::clone(tier)), Some(8 << 20));
    let store = store.unwrap();
    let pool = store.create_pool(PoolKind::Persistent);
    for index in 0..4000 {
        let page = noise_up_to(index, 1000);
        store.put(&key(pool, 0, index), &page).unwrap();
    }
    store.reclaim(u64::MAX);
    assert_eq!(store.stats().swapped_pages, 4000);
    (store, pool, 4000)
}

#[test]
fn flipped_bits_in_the_tier_are_errors_of_single_pages() {
    let tier = Arc::new(MemoryTier::new(1));
    let (store, pool, count) = full_tier(&tier);
    let mut random = Random(5);
    let flips = 200;
    let end = store.stats().swap_bytes;
    for _ in 0..flips {
        tier.flip_bit(random.below(end), random.below(8) as u32);
    }
    let mut tally = Tally::default();
    for index in 0..count {
        tally.add(get(&store, &key(pool, 0, index)), &noise_up_to(index, 1000));
    }
    assert_eq!((tally.wrong, tally.missing), (0, 0));
    assert!((1..=flips).contains(&tally.errors), "{tally:?}");
    // Holes are packed, pages are taken: none of it panics, and nothing else is lost.
    let errors = tally.errors;
    for index in (0..count).filter(|index| index % 4 != 0) {
        store.flush_page(&key(pool, 0, index));
    }
    let more = store.create_pool(PoolKind::Persistent);
    for index in 0..3000 {
        let page = noise_up_to(index, 1000);
        assert_eq!(store.put(&key(more, 0, index), &page), Ok(()));
        store.reclaim(16 << 10);
    }
    let mut tally = Tally::default();
    for index in (0..count).filter(|index| index % 4 == 0) {
        tally.add(get(&store, &key(pool, 0, index)), &noise_up_to(index, 1000));
    }
    assert_eq!((tally.wrong, tally.missing), (0, 0));
    assert!(tally.errors <= errors, "{tally:?}, {errors} before");
    assert_eq!(store.validate(), Ok(()));
}

#[test]
fn an_exclusive_get_of_altered_bytes_is_an_error_each_time() {
    let tier = Arc::new(MemoryTier::new(1));
    let (store, pool, count) = full_tier(&tier);
    let end = store.stats().swap_bytes;
    for offset in (0..end).step_by(64) {
        tier.flip_bit(offset, 3);
    }
    let mut out = [0; PAGE_SIZE];
    for index in 0..count {
        let key: Key = key(pool, 0, index);
        assert!(store.get_exclusive(&key, &mut out).is_err());
        assert!(store.get_exclusive(&key, &mut out).is_err(), "it is kept");
        // Until it is put anew.
        if index < 200 {
            store.put(&key, &noise_up_to(index, 100)).unwrap();
            assert_eq!(store.get_exclusive(&key, &mut out), Ok(true));
            assert_eq!(out, noise_up_to(index, 100));
        }
    }
    assert_eq!(store.flush_object(pool, ObjectId([0; 3])), count - 200);
    assert_eq!(store.stats().stored_pages, 0);
}
