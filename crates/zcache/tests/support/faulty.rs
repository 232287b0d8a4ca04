//! A tier that fails on request: the one seam by which faults come into a test.
//!
//! It wraps a real tier and knows of each sector whether what was written there
//! last can be read. So a test can ask of every error whether a fault explains
//! it.
//!
//! The fault model
//! - a write: an I/O error, or no space, after any prefix of its bytes; acknowledged
//!   and not done; acknowledged and done elsewhere, over another block; one bit
//!   other than was given; slow; a panic before or after it was done.
//! - a read: an I/O error; a prefix only; one wrong bit; zeros; another sector's
//!   bytes; slow; a panic.
//! - the medium: sectors that cannot be read from now on, written again or not;
//!   sectors whose bytes change by a bit, to zeros, or to another sector's.
//!
//! Lock order: none is taken while the state is locked but the wrapped tier's.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use zcache::LoadError;
use zcache::tier::{SECTOR_SIZE, Tier, TierError, TierRead, TierWrite};
use zcache_sys::arena::Arena;

use super::random::Random;

/// What can go wrong with a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WriteFault {
    Error,
    Short,
    NoSpace,
    Lost,
    Astray,
    Flip,
    Slow,
    PanicBefore,
    PanicAfter,
}

/// What can go wrong with a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadFault {
    Error,
    Short,
    Flip,
    Zeros,
    Astray,
    Slow,
    Panic,
}

/// What can become of sectors by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Damage {
    Unreadable,
    Flip,
    Zeros,
    Other,
}

/// Which faults happen how often. The rates are out of 65,536 transfers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Sectors beyond this many end in no space. `None` is no limit.
    pub(crate) sectors_max: Option<u64>,
    pub(crate) writes: Vec<(WriteFault, u16)>,
    pub(crate) reads: Vec<(ReadFault, u16)>,
}

/// The payload of a panic that this tier was asked for.
pub(crate) struct Asked;

/// Why a sector's bytes did not come back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    /// The transfer failed.
    Failed,
    /// Other bytes came.
    Altered,
}

/// A fault of some sectors that is over.
type Past = (Range<u64>, Cause);

/// How long a slow transfer takes.
const SLOW: Duration = Duration::from_millis(1);

/// Sectors that the bytes of one page touch at most.
const PAGE_SECTORS: u64 = 2;

/// A tier with faults around another.
pub(crate) struct FaultyTier {
    inner: Box<dyn Tier>,
    state: Mutex<State>,
    reads: AtomicU64,
    writes: AtomicU64,
}

struct State {
    faults: Faults,
    random: Random,
    /// The end of what was ever written, in sectors.
    end: u64,
    unreadable: BTreeSet<u64>,
    /// Sectors that do not hold what was acknowledged last.
    altered: BTreeSet<u64>,
    past: Vec<Past>,
    write_failed: Option<Instant>,
}

/// What is to be done for one write.
enum Doing {
    Through,
    Copy(Arena),
    Prefix(usize, TierError),
    Nothing,
}

impl FaultyTier {
    pub(crate) fn new(inner: Box<dyn Tier>, seed: u64) -> FaultyTier {
        FaultyTier {
            inner,
            state: Mutex::new(State {
                faults: Faults::default(),
                random: Random(seed),
                end: 0,
                unreadable: BTreeSet::new(),
                altered: BTreeSet::new(),
                past: Vec::new(),
                write_failed: None,
            }),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        }
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// No fault happens from now on, and every sector can be read. What was
    /// altered stays so.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.faults = Faults::default();
        for sector in std::mem::take(&mut state.unreadable) {
            state.past.push((sector..sector + 1, Cause::Failed));
        }
    }

    /// Damages some sectors; false while nothing was written.
    pub(crate) fn damage(&self, damage: Damage, sectors: u64) -> bool {
        let mut state = self.state();
        if state.end == 0 {
            return false;
        }
        let end = state.end;
        let first = state.random.below(end);
        let range = first..(first + sectors).min(end);
        self.damage_locked(&mut state, damage, range);
        true
    }

    /// Damages these sectors.
    pub(crate) fn damage_at(&self, damage: Damage, range: Range<u64>) {
        self.damage_locked(&mut self.state(), damage, range);
    }

    fn damage_locked(&self, state: &mut State, damage: Damage, range: Range<u64>) {
        if damage == Damage::Unreadable {
            state.unreadable.extend(range);
            return;
        }
        let end = state.end.max(1);
        state.altered.extend(range.clone());
        for sector in range {
            let from = match damage {
                Damage::Other => state.random.below(end),
                _ => sector,
            };
            let mut memory = Arena::reserve(1).expect("memory for a sector");
            if self.inner_read(from, memory.bytes_mut()).is_err() {
                continue;
            }
            let bytes = memory.bytes_mut();
            match damage {
                Damage::Zeros => bytes.fill(0),
                Damage::Flip => flip(bytes, &mut state.random),
                Damage::Other | Damage::Unreadable => {}
            }
            self.inner_write(sector, memory.bytes());
        }
    }

    /// A moment, to ask later what happened since.
    pub(crate) fn now(&self) -> usize {
        self.state().past.len()
    }

    /// Whether a fault explains this error, one that is or one that was since.
    pub(crate) fn explains(&self, error: &LoadError, since: usize) -> bool {
        let state = self.state();
        let (offset_bytes, causes): (Option<u64>, &[Cause]) = match *error {
            LoadError::Io { offset_bytes, .. } => (Some(offset_bytes), &[Cause::Failed]),
            LoadError::Missing { offset_bytes, .. } => {
                (Some(offset_bytes), &[Cause::Failed, Cause::Altered])
            }
            LoadError::Checksum { offset_bytes, .. } => {
                (Some(offset_bytes.unwrap_or(u64::MAX)), &[Cause::Altered])
            }
            LoadError::Gone | LoadError::Corrupt { .. } | LoadError::Busy { .. } => return false,
            // Says less of what happened: any fault may be it.
            #[allow(unreachable_patterns, reason = "there may be more reasons to come")]
            _ => (None, &[Cause::Failed, Cause::Altered]),
        };
        let sectors = match offset_bytes {
            Some(u64::MAX) => return false,
            Some(bytes) => {
                let first = bytes / SECTOR_SIZE as u64;
                first..first + PAGE_SECTORS
            }
            None => 0..u64::MAX,
        };
        let is_in = |set: &BTreeSet<u64>| set.range(sectors.clone()).next().is_some();
        let overlaps = |past: &Past| past.0.start < sectors.end && sectors.start < past.0.end;
        causes.contains(&Cause::Failed) && is_in(&state.unreadable)
            || causes.contains(&Cause::Altered) && is_in(&state.altered)
            || state.past[since.min(state.past.len())..]
                .iter()
                .any(|past| causes.contains(&past.1) && overlaps(past))
    }

    /// Forgets faults that are over. Only while no transfer is under way.
    pub(crate) fn forget_past(&self) {
        self.state().past.clear();
    }

    /// Whether a write failed within this time.
    pub(crate) fn write_failed_within(&self, time: Duration) -> bool {
        let failed = self.state().write_failed;
        failed.is_some_and(|at| at.elapsed() < time)
    }

    /// Sectors that do not hold what was acknowledged, or cannot be read.
    pub(crate) fn damaged_sectors(&self) -> usize {
        let state = self.state();
        state.altered.union(&state.unreadable).count()
    }

    /// Reads asked for since the start.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    /// Writes asked for since the start.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inner_read(&self, sector: u64, bytes: &mut [u8]) -> Result<(), TierError> {
        let mut read = [TierRead {
            offset_bytes: sector * SECTOR_SIZE as u64,
            bytes,
            result: Err(TierError::IO),
        }];
        self.inner.read(&mut read);
        read[0].result
    }

    fn inner_write(&self, sector: u64, bytes: &[u8]) {
        let mut write = [TierWrite {
            offset_bytes: sector * SECTOR_SIZE as u64,
            bytes,
            result: Err(TierError::IO),
        }];
        self.inner.write(&mut write);
    }

    /// Decides what becomes of a write, and marks the sectors accordingly
    /// before a byte moves.
    fn plan(&self, state: &mut State, write: &TierWrite<'_>, fault: Option<WriteFault>) -> Doing {
        let range = sectors_of(write.offset_bytes, write.bytes.len());
        let full = state.faults.sectors_max.is_some_and(|max| range.end > max);
        let fault = if full {
            Some(WriteFault::NoSpace)
        } else {
            fault
        };
        let count = range.end - range.start;
        match fault {
            Some(WriteFault::Error | WriteFault::Short | WriteFault::NoSpace) => {
                state.write_failed = Some(Instant::now());
                let prefix = state.random.below(count) as usize;
                return match fault {
                    Some(WriteFault::NoSpace) => Doing::Prefix(prefix, TierError::NO_SPACE),
                    Some(WriteFault::Short) => Doing::Prefix(prefix, TierError::IO),
                    _ => Doing::Prefix(0, TierError::IO),
                };
            }
            Some(WriteFault::Lost) => state.altered.extend(range.clone()),
            Some(WriteFault::Astray) => {
                let last = state.end.max(range.end) - count;
                let other = state.random.below(last + 1);
                state.altered.extend(range.clone());
                state.altered.extend(other..other + count);
                self.inner_write(other, write.bytes);
            }
            Some(WriteFault::Flip) => state.altered.extend(range.clone()),
            _ => {
                for sector in range.clone() {
                    if state.altered.remove(&sector) {
                        state.past.push((sector..sector + 1, Cause::Altered));
                    }
                }
            }
        }
        state.end = state.end.max(range.end);
        match fault {
            Some(WriteFault::Lost | WriteFault::Astray) => Doing::Nothing,
            Some(WriteFault::Flip) => {
                let mut copy = Arena::reserve(count as u32).expect("memory for a transfer");
                copy.bytes_mut().copy_from_slice(write.bytes);
                flip(copy.bytes_mut(), &mut state.random);
                Doing::Copy(copy)
            }
            _ => Doing::Through,
        }
    }

    fn do_writes(&self, writes: &mut [TierWrite<'_>], plans: &[Doing]) {
        let mut inner: Vec<TierWrite<'_>> = Vec::with_capacity(writes.len());
        for (write, plan) in writes.iter().zip(plans) {
            let bytes = match plan {
                Doing::Through => write.bytes,
                Doing::Copy(copy) => copy.bytes(),
                Doing::Prefix(sectors, _) => &write.bytes[..sectors * SECTOR_SIZE],
                Doing::Nothing => &[],
            };
            if !bytes.is_empty() {
                inner.push(TierWrite {
                    offset_bytes: write.offset_bytes,
                    bytes,
                    result: Err(TierError::IO),
                });
            }
        }
        if !inner.is_empty() {
            self.inner.write(&mut inner);
        }
        let results: BTreeMap<u64, _> = inner
            .iter()
            .map(|write| (write.offset_bytes, write.result))
            .collect();
        for (write, plan) in writes.iter_mut().zip(plans) {
            write.result = match plan {
                Doing::Through | Doing::Copy(_) => results[&write.offset_bytes],
                Doing::Prefix(_, error) => Err(*error),
                Doing::Nothing => Ok(()),
            };
        }
    }

    fn spoil_read(&self, read: &mut TierRead<'_>, fault: ReadFault) {
        let mut state = self.state();
        match fault {
            ReadFault::Error => {
                read.bytes.fill(0xee);
                read.result = Err(TierError::IO);
            }
            ReadFault::Short => {
                let sectors = (read.bytes.len() / SECTOR_SIZE) as u64;
                let prefix = state.random.below(sectors) as usize * SECTOR_SIZE;
                read.bytes[prefix..].fill(0xee);
                read.result = Err(TierError::CUT_OFF);
            }
            ReadFault::Flip => flip(read.bytes, &mut state.random),
            ReadFault::Zeros => read.bytes.fill(0),
            ReadFault::Astray => {
                let sectors = (read.bytes.len() / SECTOR_SIZE) as u64;
                let end = state.end.saturating_sub(sectors) + 1;
                let other = state.random.below(end);
                drop(state);
                read.result = self.inner_read(other, read.bytes);
            }
            ReadFault::Slow | ReadFault::Panic => {}
        }
    }
}

impl Tier for FaultyTier {
    fn write(&self, writes: &mut [TierWrite<'_>]) {
        self.writes.fetch_add(writes.len() as u64, Relaxed);
        let mut drawn = Vec::with_capacity(writes.len());
        let mut plans = Vec::with_capacity(writes.len());
        let mut state = self.state();
        for write in writes.iter() {
            let rates = std::mem::take(&mut state.faults.writes);
            let fault = draw(&mut state.random, &rates);
            state.faults.writes = rates;
            drawn.extend(fault);
            if fault == Some(WriteFault::PanicBefore) {
                drop(state);
                std::panic::resume_unwind(Box::new(Asked));
            }
            plans.push(self.plan(&mut state, write, fault));
        }
        drop(state);
        if drawn.contains(&WriteFault::Slow) {
            std::thread::sleep(SLOW);
        }
        self.do_writes(writes, &plans);
        if drawn.contains(&WriteFault::PanicAfter) {
            std::panic::resume_unwind(Box::new(Asked));
        }
    }

    fn read(&self, reads: &mut [TierRead<'_>]) {
        self.reads.fetch_add(reads.len() as u64, Relaxed);
        let mut state = self.state();
        let mut drawn = Vec::with_capacity(reads.len());
        for read in reads.iter() {
            let range = sectors_of(read.offset_bytes, read.bytes.len());
            let rates = std::mem::take(&mut state.faults.reads);
            let mut fault = draw(&mut state.random, &rates);
            state.faults.reads = rates;
            if state.unreadable.range(range.clone()).next().is_some() {
                fault = Some(ReadFault::Error);
            }
            let cause = match fault {
                None | Some(ReadFault::Slow | ReadFault::Panic) => None,
                Some(ReadFault::Error | ReadFault::Short) => Some(Cause::Failed),
                Some(ReadFault::Flip | ReadFault::Zeros | ReadFault::Astray) => {
                    Some(Cause::Altered)
                }
            };
            state.past.extend(cause.map(|cause| (range, cause)));
            drawn.push(fault);
        }
        drop(state);
        if drawn.contains(&Some(ReadFault::Panic)) {
            std::panic::resume_unwind(Box::new(Asked));
        }
        if drawn.contains(&Some(ReadFault::Slow)) {
            std::thread::sleep(SLOW);
        }
        self.inner.read(reads);
        for (read, fault) in reads.iter_mut().zip(drawn) {
            if let Some(fault) = fault {
                self.spoil_read(read, fault);
            }
        }
    }
}

fn sectors_of(offset_bytes: u64, bytes: usize) -> Range<u64> {
    let first = offset_bytes / SECTOR_SIZE as u64;
    first..first + (bytes / SECTOR_SIZE) as u64
}

fn flip(bytes: &mut [u8], random: &mut Random) {
    let at = random.below(bytes.len() as u64) as usize;
    bytes[at] ^= 1 << random.below(8);
}

/// Draws a fault by its rate.
fn draw<T: Copy>(random: &mut Random, rates: &[(T, u16)]) -> Option<T> {
    let mut left = random.below(1 << 16);
    for (fault, rate) in rates {
        match left.checked_sub(u64::from(*rate)) {
            Some(rest) => left = rest,
            None => return Some(*fault),
        }
    }
    None
}
