//! Lists of tiers beside a naive model: a map of what was acknowledged.

use std::collections::BTreeMap;

use super::*;
use crate::error::OpenError;
use crate::sync::Mutex;
use crate::testing::Rng;
use crate::tier::memory::{Faults, MemoryTier};
use crate::tier::{SECTOR_SIZE, TierError, TierRead, TierWrite};
use zcache_sys::arena::Arena;

const BLOCK: u64 = 16 << 10;

/// Blocks of the places that a test uses.
const PLACES: u64 = 40;

/// A tier that knows blocks by place, as one does whose blocks are written once and for all: what was freed is gone,
/// and so is what it forgets.
#[derive(Default)]
struct Forgetful {
    blocks: Mutex<BTreeMap<u64, Vec<u8>>>,
    /// The most blocks that it takes; the rest finds no room.
    blocks_max: Option<usize>,
    fails: std::sync::atomic::AtomicBool,
}

impl Forgetful {
    fn forget(&self, keep: impl Fn(u64) -> bool) {
        self.lock().retain(|place, _| keep(*place));
    }

    fn fail(&self, fails: bool) {
        self.fails
            .store(fails, std::sync::atomic::Ordering::Relaxed);
    }

    fn fails(&self) -> bool {
        self.fails.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> crate::sync::MutexGuard<'_, BTreeMap<u64, Vec<u8>>> {
        crate::sync::lock(&self.blocks)
    }
}

impl Tier for Forgetful {
    fn write(&self, writes: &mut [TierWrite<'_>]) {
        for write in writes {
            let mut blocks = self.lock();
            write.result = if self.fails() {
                Err(TierError::IO)
            } else if self.blocks_max.is_some_and(|max| blocks.len() >= max) {
                Err(TierError::NO_SPACE)
            } else {
                let before = blocks.insert(write.offset_bytes, write.bytes.to_vec());
                assert!(
                    before.is_none(),
                    "a place is free before it is written again"
                );
                Ok(())
            };
        }
    }

    fn read(&self, reads: &mut [TierRead<'_>]) {
        for read in reads {
            let blocks = self.lock();
            read.result = if self.fails() {
                Err(TierError::IO)
            } else {
                Ok(())
            };
            let sectors = read.bytes.chunks_mut(SECTOR_SIZE);
            for (n, sector) in sectors.enumerate() {
                let at = read.offset_bytes + (n * SECTOR_SIZE) as u64;
                let block = blocks.range(..=at).next_back();
                let found = block.and_then(|(place, bytes)| {
                    let from = usize::try_from(at - place).unwrap();
                    bytes.get(from..from + SECTOR_SIZE)
                });
                match found {
                    Some(bytes) => sector.copy_from_slice(bytes),
                    None => read.result = Err(TierError::Lost),
                }
            }
        }
    }

    fn free(&self, offset_bytes: u64, _: u64) {
        self.lock().remove(&offset_bytes);
    }
}

fn listed<T: Tier + 'static>(
    name: &str,
    tier: &Arc<T>,
    blocks_max: Option<u64>,
    keeps: Keeps,
) -> ListedTier {
    ListedTier {
        name: name.to_owned(),
        tier: Box::new(Arc::clone(tier)),
        bytes_max: blocks_max.map(|blocks| blocks * BLOCK),
        keeps,
    }
}

/// A list beside what it acknowledged.
struct Driven {
    tier: Box<dyn Tier>,
    /// The number that fills the block of each place.
    there: BTreeMap<u64, u64>,
    memory: Arena,
}

impl Driven {
    fn new(list: Vec<ListedTier>) -> Driven {
        Driven {
            tier: fold(list).unwrap().unwrap().tier,
            there: BTreeMap::new(),
            memory: Arena::reserve((8 * BLOCK) as u32 / SECTOR_SIZE as u32).unwrap(),
        }
    }

    /// Writes blocks to places that have none, and says how many were acknowledged.
    fn write(&mut self, rng: &mut Rng) -> usize {
        let free = (0..PLACES).filter(|place| !self.there.contains_key(place));
        let free: Vec<u64> = free.collect();
        let count = (1 + rng.below(8) as usize).min(free.len());
        if count == 0 {
            return 0;
        }
        let from = rng.below((free.len() - count + 1) as u64) as usize;
        let places = &free[from..from + count];
        let numbers: Vec<u64> = places.iter().map(|_| 1 + rng.below(1 << 40)).collect();
        let bytes = self.memory.bytes_mut();
        for (block, number) in bytes.chunks_mut(BLOCK as usize).zip(&numbers) {
            fill(block, *number);
        }
        let blocks = self.memory.bytes().chunks(BLOCK as usize);
        let mut writes: Vec<_> = places
            .iter()
            .zip(blocks)
            .map(|(place, bytes)| TierWrite {
                offset_bytes: place * BLOCK,
                bytes,
                result: Err(TierError::IO),
            })
            .collect();
        self.tier.write(&mut writes);
        let results: Vec<_> = writes.iter().map(|write| write.result).collect();
        for ((place, number), result) in places.iter().zip(numbers).zip(&results) {
            match result {
                Ok(()) => _ = self.there.insert(*place, number),
                // As the store does.
                Err(_) => self.tier.free(place * BLOCK, BLOCK),
            }
        }
        results.iter().filter(|result| result.is_ok()).count()
    }

    fn free(&mut self, rng: &mut Rng) {
        if let Some(place) = self.some_place(rng) {
            self.there.remove(&place);
            self.tier.free(place * BLOCK, BLOCK);
        }
    }

    /// Reads sectors of one block, or over neighbouring ones.
    fn read(&mut self, rng: &mut Rng) {
        let Some(place) = self.some_place(rng) else {
            return;
        };
        let sectors_of_block = BLOCK / SECTOR_SIZE as u64;
        let first = place * sectors_of_block + rng.below(sectors_of_block);
        let sectors = 1 + rng.below(6);
        let memory = &mut self.memory.bytes_mut()[..sectors as usize * SECTOR_SIZE];
        memory.fill(0xa5);
        let mut reads = [TierRead {
            offset_bytes: first * SECTOR_SIZE as u64,
            bytes: memory,
            result: Err(TierError::IO),
        }];
        self.tier.read(&mut reads);
        let [read] = reads;
        let mut expected = vec![0; BLOCK as usize];
        let mut all_there = true;
        for (n, got) in read.bytes.chunks(SECTOR_SIZE).enumerate() {
            let sector = first + n as u64;
            let Some(number) = self.there.get(&(sector / sectors_of_block)) else {
                all_there = false;
                continue;
            };
            fill(&mut expected, *number);
            let from = (sector % sectors_of_block) as usize * SECTOR_SIZE;
            if read.result.is_ok() {
                assert!(
                    got == &expected[from..from + SECTOR_SIZE],
                    "sector {sector}"
                );
            }
        }
        assert!(read.result.is_ok() || !all_there, "{:?}", read.result);
    }

    /// Every block is whole.
    fn check(&mut self) {
        for (place, number) in self.there.clone() {
            let memory = &mut self.memory.bytes_mut()[..BLOCK as usize];
            let mut reads = [TierRead {
                offset_bytes: place * BLOCK,
                bytes: memory,
                result: Err(TierError::IO),
            }];
            self.tier.read(&mut reads);
            assert_eq!(reads[0].result, Ok(()), "block {place}");
            let mut expected = vec![0; BLOCK as usize];
            fill(&mut expected, number);
            assert!(*reads[0].bytes == expected, "block {place}");
        }
    }

    fn some_place(&self, rng: &mut Rng) -> Option<u64> {
        let count = self.there.len() as u64;
        let n = (count > 0).then(|| rng.below(count))?;
        self.there.keys().nth(n as usize).copied()
    }
}

fn fill(block: &mut [u8], number: u64) {
    for (at, word) in block.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *word = (number ^ (at as u64) << 41).to_le_bytes();
    }
}

#[test]
fn a_list_needs_a_last_tier_that_keeps_blocks() {
    let tier = Arc::new(Forgetful::default());
    let list = vec![listed("lent", &tier, None, Keeps::Perhaps)];
    let refused = fold(list).err();
    assert!(matches!(refused, Some(OpenError::LastTierLoses { name }) if name == "lent"));
    assert!(fold(Vec::new()).unwrap().is_none());
}

#[test]
fn a_first_tier_that_loses_anything_loses_no_block() {
    let rng = &mut Rng::from_env("cached");
    for _ in 0..20 {
        let (first, second) = (
            Arc::new(Forgetful {
                blocks_max: Some(12),
                ..Forgetful::default()
            }),
            Arc::new(MemoryTier::new(rng.next())),
        );
        let mut driven = Driven::new(vec![
            listed("lent", &first, None, Keeps::Perhaps),
            listed("disk", &second, Some(PLACES), Keeps::Surely),
        ]);
        for _ in 0..400 {
            match rng.below(9) {
                0..3 => _ = driven.write(rng),
                3 => driven.free(rng),
                4 => {
                    let some = rng.below(5);
                    first.forget(|place| place / BLOCK % 5 != some);
                }
                5 => first.fail(rng.below(2) == 0),
                _ => driven.read(rng),
            }
        }
        driven.check();
        assert!(
            first
                .lock()
                .keys()
                .all(|place| driven.there.contains_key(&(place / BLOCK)))
        );
    }
}

#[test]
fn what_a_second_tier_does_not_take_is_not_acknowledged() {
    let rng = &mut Rng::from_env("cached, failing");
    let (first, second) = (Arc::new(Forgetful::default()), Arc::new(MemoryTier::new(1)));
    let mut driven = Driven::new(vec![
        listed("lent", &first, None, Keeps::Perhaps),
        listed("disk", &second, None, Keeps::Surely),
    ]);
    second.set_faults(Faults {
        write_error_rate: u16::MAX,
        ..Faults::default()
    });
    assert_eq!(driven.write(rng), 0);
    assert_eq!(first.len(), 0, "what was not acknowledged is freed");
}

#[test]
fn two_tiers_take_what_fits_into_both_and_lose_nothing() {
    let rng = &mut Rng::from_env("ranked");
    for round in 0..20 {
        let (first, second) = (
            Arc::new(Forgetful {
                blocks_max: Some(10),
                ..Forgetful::default()
            }),
            Arc::new(MemoryTier::new(rng.next())),
        );
        let mut driven = Driven::new(vec![
            listed("lent", &first, Some(10), Keeps::Surely),
            listed("disk", &second, Some(20), Keeps::Surely),
        ]);
        let mut most = 0;
        for _ in 0..400 {
            match rng.below(9) {
                0..4 => _ = driven.write(rng),
                4 => driven.free(rng),
                // Blocks stay where they are while the disk is full or fails.
                5 if round % 2 == 1 => second.set_faults(Faults {
                    sectors_max: (rng.below(2) == 0).then(|| rng.below(80)),
                    write_error_rate: [0, 20_000][rng.below(2) as usize],
                    ..Faults::default()
                }),
                _ => driven.read(rng),
            }
            most = most.max(driven.there.len());
            assert!(first.len() <= 10 && driven.there.len() <= 30);
        }
        assert!(round % 2 == 1 || most == 30, "{most} of 30 blocks fit");
        second.set_faults(Faults::default());
        driven.check();
    }
}

#[test]
fn the_oldest_blocks_go_on_to_the_second_tier() {
    let rng = &mut Rng::new(1);
    let (first, second) = (Arc::new(Forgetful::default()), Arc::new(MemoryTier::new(1)));
    let mut driven = Driven::new(vec![
        listed("lent", &first, Some(8), Keeps::Surely),
        listed("disk", &second, None, Keeps::Surely),
    ]);
    let mut order = Vec::new();
    while driven.there.len() < 30 {
        let before: Vec<u64> = driven.there.keys().copied().collect();
        driven.write(rng);
        order.extend(driven.there.keys().filter(|place| !before.contains(place)));
    }
    let mut youngest: Vec<u64> = order[order.len() - 8..]
        .iter()
        .map(|at| at * BLOCK)
        .collect();
    youngest.sort_unstable();
    let kept: Vec<u64> = first.lock().keys().copied().collect();
    // Within one call there is no order, and blocks go on sixteen at a time.
    assert!(
        kept.iter().all(|place| youngest.contains(place)),
        "{kept:?} of {youngest:?}"
    );
    driven.check();
}

#[test]
fn a_failing_first_tier_leaves_blocks_to_the_second() {
    let rng = &mut Rng::new(2);
    let (first, second) = (Arc::new(Forgetful::default()), Arc::new(MemoryTier::new(1)));
    let mut driven = Driven::new(vec![
        listed("lent", &first, Some(20), Keeps::Surely),
        listed("disk", &second, None, Keeps::Surely),
    ]);
    first.fail(true);
    assert!(driven.write(rng) > 0);
    assert_eq!(first.len(), 0);
    driven.check();
    first.fail(false);
    assert!(driven.write(rng) > 0);
    assert!(first.len() > 0);
    driven.check();
}

#[test]
fn three_tiers_are_one() {
    let rng = &mut Rng::from_env("three tiers");
    let (lent, fast, disk) = (
        Arc::new(Forgetful {
            blocks_max: Some(6),
            ..Forgetful::default()
        }),
        Arc::new(Forgetful::default()),
        Arc::new(MemoryTier::new(1)),
    );
    let mut driven = Driven::new(vec![
        listed("lent", &lent, None, Keeps::Perhaps),
        listed("fast", &fast, Some(10), Keeps::Surely),
        listed("disk", &disk, Some(20), Keeps::Surely),
    ]);
    for _ in 0..1000 {
        match rng.below(8) {
            0..3 => _ = driven.write(rng),
            3 => driven.free(rng),
            4 => lent.forget(|place| (place / BLOCK).is_multiple_of(2)),
            _ => driven.read(rng),
        }
    }
    driven.check();
    assert!(driven.tier.ram_bytes() > 0);
}

/// A tier that takes everything and answers with other bytes.
struct Lying;

impl Tier for Lying {
    fn write(&self, writes: &mut [TierWrite<'_>]) {
        for write in writes {
            write.result = Ok(());
        }
    }

    fn read(&self, reads: &mut [TierRead<'_>]) {
        for read in reads {
            read.bytes.fill(0x5a);
            read.result = Ok(());
        }
    }
}

#[test]
fn a_first_tier_that_lies_loses_no_page() {
    let config = crate::StoreConfig {
        pool_bytes_max: 1 << 20,
        ..crate::StoreConfig::default()
    };
    let (first, second) = (Arc::new(Lying), Arc::new(MemoryTier::new(1)));
    let folded = fold(vec![
        listed("lying", &first, None, Keeps::Perhaps),
        listed("disk", &second, None, Keeps::Surely),
    ]);
    let folded = folded.unwrap().unwrap();
    let store = crate::Store::with_tier(&config, folded.tier, folded.bytes_max).unwrap();
    let insert = |number| store.insert(&crate::testing::page(number)).unwrap();
    let handles: Vec<_> = (0..400).map(insert).collect();
    store.reclaim(u64::MAX);
    for (number, handle) in (0..).zip(handles) {
        let mut out = [0; crate::PAGE_SIZE];
        store.load(handle, &mut out).unwrap();
        assert!(out == crate::testing::page(number), "page {number}");
        store.release(handle);
    }
    assert!(store.stats().swapin_reads > 0);
    assert_eq!(store.stats().lost_pages, 0);
}
