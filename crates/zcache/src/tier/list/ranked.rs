//! Two tiers that keep what they have: blocks go to the first, and its oldest ones to the second when it is full.
//!
//! Where the second one's reads cost less, by what was measured, the order is the other way round: blocks go to the
//! second, and to the first what that has no room for.
//!
//! - A block that was acknowledged is in one tier at least. One that moves is in both until its new home has
//!   acknowledged it; the old one is free only then.
//! - `first_bytes <= first_max`, and the second has a map of its own places, so both limits are exact.
//! - A home is told from a later one of the same place by its age, which is used once.
//!
//! Lock order: the state, then what a tier takes to free a place. No tier moves bytes under it.
//!
//! Does not: move blocks back to the first tier. One that is wanted again comes to RAM, and leaves as a new one.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use zcache_core::Run;
use zcache_sys::arena::Arena;

use crate::frames::Budget;
use crate::sync::{Arc, Instant, Mutex, lock};
use crate::tier::cost::{Costs, Side};
use crate::tier::{Places, SECTOR_SIZE, Slots, Tier, TierError, TierRead, TierReport, TierWrite};

/// Blocks that move together.
const MOVED_TOGETHER: usize = 16;

/// How often a block is looked for that moves each time it is read.
const MOVES_MAX: u32 = 8;

/// After the second tier found no room it is not asked to grow for so long.
const GROWS_AGAIN: Duration = Duration::from_millis(100);

/// RAM of an entry of the map of homes, and of one in the queue of ages.
const HOME_BYTES: u64 = 64;
const AGE_BYTES: u64 = 16;

/// Two tiers of which each keeps what it acknowledged.
pub(super) struct Ranked {
    first: Box<dyn Tier>,
    first_max: u64,
    second: Box<dyn Tier>,
    costs: Costs,
    state: Mutex<State>,
}

struct State {
    /// Homes of blocks by their places.
    homes: BTreeMap<u64, Home>,
    /// Blocks that went to the first tier, the oldest at the front; some have left it.
    ages: VecDeque<(u64, u64)>,
    next_age: u64,
    first_bytes: u64,
    /// Which places of the second tier hold a block.
    slots: Slots,
    grows_again: Option<Instant>,
}

/// Where a block is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Home {
    age: u64,
    len_bytes: u64,
    at: At,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// The first tier, which has it at the place that the store named.
    First,
    /// The second one, at the place of this number.
    Second(u32),
}

/// How a tier is asked.
type By = fn(&dyn Tier, &mut [TierRead<'_>]);

/// A part of a read, which lies in one block or in none.
struct Part<'a> {
    /// Where the block begins, and where it is.
    home: Option<(u64, Home)>,
    /// Of which read it is a part.
    of: usize,
    offset_bytes: u64,
    bytes: &'a mut [u8],
    result: Result<(), TierError>,
}

impl Ranked {
    pub(super) fn new(
        first: Box<dyn Tier>,
        first_max: Option<u64>,
        second: Box<dyn Tier>,
        second_max: Option<u64>,
    ) -> Ranked {
        // Its RAM is part of `ram_bytes`, so no budget counts it here.
        let uncounted = Arc::new(Budget::new(0));
        Ranked {
            first,
            first_max: first_max.unwrap_or(u64::MAX),
            second,
            costs: Costs::default(),
            state: Mutex::new(State {
                homes: BTreeMap::new(),
                ages: VecDeque::new(),
                next_age: 0,
                first_bytes: 0,
                slots: Slots::new(&[], second_max, uncounted),
                grows_again: None,
            }),
        }
    }

    /// Writes to the first tier what it has room for, and says which were written.
    fn write_first(&self, writes: &mut [&mut TierWrite<'_>]) {
        let wanted: u64 = writes.iter().map(|write| write.bytes.len() as u64).sum();
        if self.costs.cheaper() == Side::First {
            self.make_room(wanted);
        }
        let mut room = {
            let mut state = lock(&self.state);
            let room = self.first_max.saturating_sub(state.first_bytes).min(wanted);
            // Others must not count on it meanwhile.
            state.first_bytes += room;
            room
        };
        let taken = room;
        let mut fitting: Vec<&mut TierWrite<'_>> = Vec::with_capacity(writes.len());
        for write in writes.iter_mut().filter(|write| write.result.is_err()) {
            if let Some(left) = room.checked_sub(write.bytes.len() as u64) {
                room = left;
                fitting.push(write);
            }
        }
        write_to(&*self.first, &mut fitting, |write| write.offset_bytes);
        let mut state = lock(&self.state);
        state.first_bytes -= taken;
        for write in fitting {
            if write.result.is_ok() {
                let len_bytes = write.bytes.len() as u64;
                state.first_bytes += len_bytes;
                state.settle(write.offset_bytes, len_bytes, At::First);
            }
        }
    }

    /// Writes to the second tier what is not written yet.
    fn write_second(&self, writes: &mut [&mut TierWrite<'_>]) {
        for places in [Places::Any, Places::Backed] {
            let mut state = lock(&self.state);
            let grows = state.grows_again.is_none_or(|at| Instant::now() >= at);
            if places == Places::Any && !grows {
                continue;
            }
            let mut given = Vec::new();
            for write in writes.iter_mut().filter(|write| write.result.is_err()) {
                let run = run_of(write.bytes.len() as u64);
                match state.slots.take(run, places) {
                    Some(slot) => given.push((slot, &mut **write)),
                    None => write.result = Err(TierError::NO_SPACE),
                }
            }
            drop(state);
            let slots: Vec<u32> = given.iter().map(|(slot, _)| *slot).collect();
            let mut next = slots.iter();
            let mut given: Vec<_> = given.into_iter().map(|(_, write)| write).collect();
            write_to(&*self.second, &mut given, |_| {
                next.next().map_or(0, |slot| offset_of(*slot))
            });
            let mut state = lock(&self.state);
            let mut no_room = false;
            for (slot, write) in slots.iter().zip(given) {
                let len_bytes = write.bytes.len() as u64;
                let run = run_of(len_bytes);
                match write.result {
                    Ok(()) => {
                        state.slots.written(*slot, run);
                        state.settle(write.offset_bytes, len_bytes, At::Second(*slot));
                    }
                    Err(error) => {
                        if error.is_no_room() {
                            no_room = true;
                            state.slots.found_no_room(*slot, run);
                        }
                        self.second.free(offset_of(*slot), len_bytes);
                        state.slots.free(*slot, run);
                    }
                }
            }
            if places == Places::Any {
                state.grows_again = no_room.then(|| Instant::now() + GROWS_AGAIN);
            }
            if !no_room && places == Places::Any {
                return;
            }
        }
    }

    /// Moves the oldest blocks of the first tier to the second until the first has room
    /// for so many bytes, or nothing more can be moved.
    fn make_room(&self, bytes: u64) {
        let bytes = bytes.min(self.first_max);
        loop {
            let oldest = {
                let mut state = lock(&self.state);
                if state.first_bytes + bytes <= self.first_max {
                    return;
                }
                state.oldest()
            };
            if oldest.is_empty() || !self.move_blocks(&oldest) {
                return;
            }
        }
    }

    /// Moves blocks from the first tier to the second; whether any went.
    fn move_blocks(&self, blocks: &[(u64, Home)]) -> bool {
        let bytes: u64 = blocks.iter().map(|(_, home)| home.len_bytes).sum();
        let sectors = u32::try_from(bytes / SECTOR_SIZE as u64).unwrap_or(u32::MAX);
        let Ok(mut memory) = Arena::reserve(sectors) else {
            lock(&self.state).put_back(blocks);
            return false;
        };
        let mut rest = memory.bytes_mut();
        let mut reads = Vec::with_capacity(blocks.len());
        for (offset_bytes, home) in blocks {
            let (bytes, later) = rest.split_at_mut(home.len_bytes as usize);
            rest = later;
            reads.push(TierRead {
                offset_bytes: *offset_bytes,
                bytes,
                result: Err(TierError::IO),
            });
        }
        self.first.read(&mut reads);
        let mut writes: Vec<_> = reads
            .iter()
            .filter(|read| read.result.is_ok())
            .map(|read| TierWrite {
                offset_bytes: read.offset_bytes,
                bytes: &*read.bytes,
                result: Err(TierError::IO),
            })
            .collect();
        // Places of the second tier that no block has as its home yet.
        let mut given = Vec::new();
        {
            let mut state = lock(&self.state);
            writes.retain_mut(|write| {
                let run = run_of(write.bytes.len() as u64);
                let slot = state.slots.take(run, Places::Any);
                given.extend(slot.map(|slot| (write.offset_bytes, slot)));
                slot.is_some()
            });
        }
        for (write, (_, slot)) in writes.iter_mut().zip(&given) {
            write.offset_bytes = offset_of(*slot);
        }
        self.second.write(&mut writes);
        let mut state = lock(&self.state);
        let mut moved = 0;
        let mut stayed = Vec::new();
        let mut written = given
            .iter()
            .zip(&writes)
            .map(|((place, slot), write)| (*place, (*slot, write)))
            .collect::<BTreeMap<_, _>>();
        for (place, home) in blocks {
            let is_there = state.homes.get(place) == Some(home);
            let Some((slot, write)) = written.remove(place) else {
                stayed.push((*place, *home));
                continue;
            };
            let run = run_of(home.len_bytes);
            if write.result.is_ok() && is_there {
                state.slots.written(slot, run);
                state.leave_first(&*self.first, *place, *home);
                let age = home.age;
                let at = At::Second(slot);
                state.homes.insert(*place, Home { age, at, ..*home });
                moved += 1;
                continue;
            }
            if write.result.is_err_and(TierError::is_no_room) {
                state.slots.found_no_room(slot, run);
            }
            self.second.free(offset_of(slot), home.len_bytes);
            state.slots.free(slot, run);
            if is_there {
                stayed.push((*place, *home));
            } else {
                // It was freed meanwhile, which made room just the same.
                moved += 1;
            }
        }
        state.put_back(&stayed);
        moved > 0
    }

    /// Cuts reads into parts of one block each.
    fn parts<'a>(&self, reads: &'a mut [TierRead<'_>]) -> Vec<Part<'a>> {
        let state = lock(&self.state);
        let mut parts = Vec::with_capacity(reads.len());
        for (of, read) in reads.iter_mut().enumerate() {
            let mut offset_bytes = read.offset_bytes;
            let mut rest = &mut *read.bytes;
            while !rest.is_empty() {
                let (home, end) = state.home_at(offset_bytes);
                let len = usize::try_from(end - offset_bytes).unwrap_or(usize::MAX);
                let (bytes, later) = rest.split_at_mut(len.min(rest.len()));
                rest = later;
                let len_bytes = bytes.len() as u64;
                parts.push(Part {
                    home,
                    of,
                    offset_bytes,
                    bytes,
                    result: Err(TierError::Lost),
                });
                offset_bytes += len_bytes;
            }
        }
        parts
    }

    /// Reads, each block from where it is.
    fn read_by(&self, reads: &mut [TierRead<'_>], by: By) {
        let mut parts = self.parts(reads);
        for _ in 0..MOVES_MAX {
            self.read_parts(&mut parts, by);
            if !self.look_again(&mut parts) {
                break;
            }
        }
        let results: Vec<_> = parts.iter().map(|part| (part.of, part.result)).collect();
        for read in reads.iter_mut() {
            read.result = Ok(());
        }
        for (of, result) in results {
            if result.is_err() {
                reads[of].result = result;
            }
        }
    }

    /// Reads parts from where their blocks are.
    fn read_parts(&self, parts: &mut [Part<'_>], by: By) {
        for side in [Side::First, Side::Second] {
            let tier = match side {
                Side::First => &self.first,
                Side::Second => &self.second,
            };
            let mut mine: Vec<_> = parts
                .iter_mut()
                .filter(|part| part.result.is_err() && part.side() == Some(side))
                .collect();
            if mine.is_empty() {
                continue;
            }
            let reads = mine.iter_mut().map(|part| TierRead {
                offset_bytes: part.offset_in_tier(),
                bytes: &mut *part.bytes,
                result: Err(TierError::IO),
            });
            let mut reads: Vec<_> = reads.collect();
            let start = Instant::now();
            by(&**tier, &mut reads);
            if let [read] = &reads[..]
                && read.result.is_ok()
            {
                self.costs.learn(side, start.elapsed());
            }
            let results: Vec<_> = reads.iter().map(|read| read.result).collect();
            for (part, result) in mine.into_iter().zip(results) {
                part.result = result;
            }
        }
        for part in parts.iter_mut().filter(|part| part.home.is_none()) {
            // As a hole in a file reads.
            part.bytes.fill(0);
            part.result = Ok(());
        }
    }

    /// Looks again where blocks are; whether any moved while it was read. What was read of
    /// these may be another block's.
    fn look_again(&self, parts: &mut [Part<'_>]) -> bool {
        let state = lock(&self.state);
        let mut moved = false;
        for part in parts {
            let (home, end) = state.home_at(part.offset_bytes);
            let is_whole = end - part.offset_bytes >= part.bytes.len() as u64;
            if home != part.home && is_whole {
                part.home = home;
                part.result = Err(TierError::Lost);
                moved = true;
            }
        }
        moved
    }
}

impl Tier for Ranked {
    fn write(&self, writes: &mut [TierWrite<'_>]) {
        let mut writes: Vec<&mut TierWrite<'_>> = writes.iter_mut().collect();
        for write in &mut writes {
            write.result = Err(TierError::IO);
        }
        match self.costs.cheaper() {
            Side::First => {
                self.write_first(&mut writes);
                self.write_second(&mut writes);
            }
            Side::Second => {
                self.write_second(&mut writes);
                self.write_first(&mut writes);
            }
        }
    }

    fn read(&self, reads: &mut [TierRead<'_>]) {
        self.read_by(reads, |tier, reads| tier.read(reads));
    }

    fn read_again(&self, reads: &mut [TierRead<'_>]) {
        self.read_by(reads, |tier, reads| tier.read_again(reads));
    }

    fn free(&self, offset_bytes: u64, len_bytes: u64) {
        let mut state = lock(&self.state);
        let Some(home) = state.homes.remove(&offset_bytes) else {
            return;
        };
        debug_assert_eq!(home.len_bytes, len_bytes);
        match home.at {
            At::First => state.leave_first(&*self.first, offset_bytes, home),
            At::Second(slot) => {
                self.second.free(offset_of(slot), len_bytes);
                state.slots.free(slot, run_of(len_bytes));
            }
        }
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
        let own = {
            let state = lock(&self.state);
            state.homes.len() as u64 * HOME_BYTES
                + state.ages.capacity() as u64 * AGE_BYTES
                + state.slots.ram_bytes()
        };
        own + self.first.ram_bytes() + self.second.ram_bytes()
    }
}

impl State {
    /// Notes where a block is that was written.
    fn settle(&mut self, place: u64, len_bytes: u64, at: At) {
        let age = self.next_age;
        self.next_age += 1;
        self.homes.insert(place, Home { age, len_bytes, at });
        if at == At::First {
            self.ages.push_back((place, age));
        }
        let first = self.first_bytes / SECTOR_SIZE as u64;
        if self.ages.len() as u64 > 2 * first + 64 {
            let homes = &self.homes;
            self.ages
                .retain(|(place, age)| homes.get(place).is_some_and(|home| home.age == *age));
        }
    }

    /// Takes the oldest blocks of the first tier out of the queue.
    fn oldest(&mut self) -> Vec<(u64, Home)> {
        let mut oldest = Vec::with_capacity(MOVED_TOGETHER);
        while oldest.len() < MOVED_TOGETHER
            && let Some((place, age)) = self.ages.pop_front()
        {
            let home = self.homes.get(&place).copied();
            oldest.extend(
                home.filter(|home| home.age == age && home.at == At::First)
                    .map(|home| (place, home)),
            );
        }
        oldest
    }

    /// Puts blocks that did not move back into the queue, as the oldest.
    fn put_back(&mut self, blocks: &[(u64, Home)]) {
        for (place, home) in blocks.iter().rev() {
            self.ages.push_front((*place, home.age));
        }
    }

    /// Frees what a block had in the first tier.
    fn leave_first(&mut self, first: &dyn Tier, place: u64, home: Home) {
        first.free(place, home.len_bytes);
        self.first_bytes -= home.len_bytes;
    }

    /// The block that a byte lies in, if any, and where that or the gap ends.
    fn home_at(&self, offset_bytes: u64) -> (Option<(u64, Home)>, u64) {
        if let Some((place, home)) = self.homes.range(..=offset_bytes).next_back()
            && offset_bytes < place + home.len_bytes
        {
            return (Some((*place, *home)), place + home.len_bytes);
        }
        let next = self.homes.range((Excluded(offset_bytes), Unbounded)).next();
        (None, next.map_or(u64::MAX, |(place, _)| *place))
    }
}

impl Part<'_> {
    fn side(&self) -> Option<Side> {
        self.home.map(|(_, home)| match home.at {
            At::First => Side::First,
            At::Second(_) => Side::Second,
        })
    }

    /// Where it begins in the tier that its block is in.
    fn offset_in_tier(&self) -> u64 {
        match self.home {
            Some((place, home)) => match home.at {
                At::First => self.offset_bytes,
                At::Second(slot) => offset_of(slot) + (self.offset_bytes - place),
            },
            None => self.offset_bytes,
        }
    }
}

/// Writes blocks to a tier, each at the place that it has there.
fn write_to<'a>(
    tier: &dyn Tier,
    writes: &mut [&mut TierWrite<'a>],
    mut place: impl FnMut(&TierWrite<'a>) -> u64,
) {
    if writes.is_empty() {
        return;
    }
    let requests = writes.iter().map(|write| TierWrite {
        offset_bytes: place(write),
        bytes: write.bytes,
        result: Err(TierError::IO),
    });
    let mut requests: Vec<_> = requests.collect();
    tier.write(&mut requests);
    for (write, request) in writes.iter_mut().zip(requests) {
        write.result = request.result;
    }
}

/// Where a place of the second tier begins.
fn offset_of(slot: u32) -> u64 {
    u64::from(slot) * Run::FRAME.bytes() as u64
}

/// A block of so many bytes.
fn run_of(len_bytes: u64) -> Run {
    Run::of_frames((len_bytes / Run::FRAME.bytes() as u64) as u32)
}
