//! What is where: from the store's names to segments, and from segments to
//! servers. Servers know nothing of it.
//!
//! Stage on the data path: first on the way in and out. Held under one lock;
//! nothing here waits.
//!
//! - A name leads to a block of a segment that is here, and that block is live;
//!   each live block has its name lead to it.
//! - `live_bytes <= bytes` for each segment; a kept one without a live block is
//!   not here but among the dead.
//! - A name whose block was lost leads to LOST, until it is freed: what was
//!   written is never mistaken for what was not.
//! - A segment has a home as long as it is here, but for the one being filled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::segment::{Packed, SegmentId};

/// The most blocks of a segment, of which empty ones have no bytes.
pub(crate) const BLOCKS_MAX: usize = 64;

/// RAM for each name, each segment and each block, in bytes, measured with the
/// standard library's trees at two thirds full.
const NAME_RAM_BYTES: usize = 32;
const SEGMENT_RAM_BYTES: usize = 140;

/// Where a name leads whose block is lost; what would be the entry is its length.
const LOST: SegmentId = SegmentId(0);

/// Where a segment's copy is: an endpoint, and the tag in its key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Home {
    pub(crate) site: u8,
    pub(crate) tag: u16,
}

/// Homes of up to two copies.
pub(crate) type Homes = [Option<Home>; 2];

/// Where the bytes of a segment can be had.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// In the draft that is being filled.
    Open,
    /// On their way, and here.
    Pending(Arc<Vec<u8>>),
    /// At its homes.
    Kept,
}

#[derive(Debug)]
struct Segment {
    homes: Homes,
    state: State,
    bytes: u32,
    live_bytes: u32,
    live: u64,
    blocks: Vec<Packed>,
}

/// A block that was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) id: SegmentId,
    pub(crate) block: Packed,
    pub(crate) homes: Homes,
    pub(crate) state: State,
    pub(crate) segment_bytes: u32,
}

/// What a name leads to.
#[derive(Debug)]
pub(crate) enum Place {
    /// A block.
    Block(Found),
    /// What was written and is not there any more.
    Lost,
    /// Nothing was written.
    Nothing,
}

/// Names and segments.
#[derive(Debug, Default)]
pub(crate) struct Index {
    names: BTreeMap<u32, (SegmentId, u8)>,
    segments: BTreeMap<SegmentId, Segment>,
    /// Kept, and more than half dead.
    sparse: BTreeSet<SegmentId>,
    /// Kept, with fewer copies than wanted, or with one that will go.
    doomed: BTreeSet<SegmentId>,
    /// To be given back.
    dead: Vec<(SegmentId, Homes)>,
    /// Bytes of all segments here, each copy counted.
    bytes: u64,
    live_bytes: u64,
    pending_bytes: u64,
    blocks: usize,
    lost: usize,
}

fn copies(homes: &Homes) -> u64 {
    homes.iter().flatten().count() as u64
}

impl Index {
    /// Adds a segment. No name leads to it yet.
    pub(crate) fn insert(&mut self, id: SegmentId, homes: Homes, state: State, bytes: usize) {
        let segment = Segment {
            homes,
            bytes: bytes as u32,
            live_bytes: 0,
            live: 0,
            blocks: Vec::new(),
            state,
        };
        self.bytes += bytes as u64 * copies(&homes);
        self.pending_bytes += bytes as u64;
        let before = self.segments.insert(id, segment);
        debug_assert!(before.is_none(), "{id:?} is used again");
    }

    /// Has a name lead to a block of a segment, and frees what it led to.
    /// Where `only_from` is given, only if it leads there now.
    pub(crate) fn publish(&mut self, id: SegmentId, block: Packed, only_from: Option<SegmentId>) {
        let is_current = |(at, _): &(SegmentId, u8)| Some(*at) == only_from;
        if only_from.is_some() && !self.names.get(&block.unit).is_some_and(is_current) {
            return;
        }
        if !self.segments.contains_key(&id) {
            return;
        }
        self.free(block.unit, u32::from(block.units));
        let Some(segment) = self.segments.get_mut(&id) else {
            return;
        };
        let entry = segment.blocks.len();
        debug_assert!(entry < BLOCKS_MAX);
        segment.blocks.push(block);
        segment.live |= 1 << entry;
        segment.live_bytes += u32::from(block.sent);
        self.live_bytes += u64::from(block.sent);
        self.blocks += 1;
        self.names.insert(block.unit, (id, entry as u8));
    }

    /// The segment that was filled is closed and on its way.
    pub(crate) fn close(&mut self, id: SegmentId, homes: Homes, bytes: Arc<Vec<u8>>) {
        let Some(segment) = self.segments.get_mut(&id) else {
            return;
        };
        segment.homes = homes;
        segment.bytes = bytes.len() as u32;
        self.bytes += bytes.len() as u64 * copies(&homes);
        self.pending_bytes += bytes.len() as u64;
        segment.state = State::Pending(bytes);
    }

    /// All homes have the segment.
    pub(crate) fn acknowledge(&mut self, id: SegmentId) {
        let Some(segment) = self.segments.get_mut(&id) else {
            return;
        };
        if !matches!(segment.state, State::Kept) {
            self.pending_bytes -= u64::from(segment.bytes);
        }
        segment.state = State::Kept;
        self.review(id);
    }

    /// A segment is no more, and the names that lead to it are lost; how many
    /// those were.
    pub(crate) fn forget(&mut self, id: SegmentId) -> usize {
        let Some(segment) = self.remove(id) else {
            return 0;
        };
        let live = |entry: &usize| segment.live >> entry & 1 == 1;
        let entries = (0..segment.blocks.len()).filter(live);
        let lost = entries.map(|entry| {
            let block = &segment.blocks[entry];
            self.names.insert(block.unit, (LOST, block.units))
        });
        let lost = lost.count();
        self.lost += lost;
        lost
    }

    /// A block was written that is not kept.
    pub(crate) fn note_lost(&mut self, unit: u32, units: u8) {
        self.free(unit, u32::from(units));
        self.names.insert(unit, (LOST, units));
        self.lost += 1;
    }

    /// Gives the oldest kept segment up, and says how many blocks went with it.
    pub(crate) fn drop_oldest(&mut self) -> Option<usize> {
        let is_kept = |(_, segment): &(&SegmentId, &Segment)| matches!(segment.state, State::Kept);
        let (id, segment) = self.segments.iter().take(64).find(is_kept)?;
        let (id, homes) = (*id, segment.homes);
        let names = self.forget(id);
        self.dead.push((id, homes));
        Some(names)
    }

    /// One home of a kept segment has it no more, or has other bytes; how many blocks that
    /// lost. What is there all the same is to be given back.
    pub(crate) fn lose(&mut self, id: SegmentId, home: Home) -> usize {
        let Some(segment) = self.segments.get_mut(&id) else {
            return 0;
        };
        // The write that is under way says how it ends.
        if !matches!(segment.state, State::Kept) {
            return 0;
        }
        let Some(slot) = segment.homes.iter_mut().find(|at| **at == Some(home)) else {
            return 0;
        };
        *slot = None;
        let is_last = copies(&segment.homes) == 0;
        self.bytes -= u64::from(segment.bytes);
        self.bury(id, [Some(home), None]);
        if is_last {
            return self.forget(id);
        }
        self.doomed.insert(id);
        0
    }

    /// Segments that are kept at such homes will lose a copy.
    pub(crate) fn doom(&mut self, at: impl Fn(&Homes) -> bool) {
        for (id, segment) in &self.segments {
            if matches!(segment.state, State::Kept) && at(&segment.homes) {
                self.doomed.insert(*id);
            }
        }
    }

    /// A block is not needed any more.
    pub(crate) fn free(&mut self, unit: u32, units: u32) {
        let end = unit.saturating_add(units);
        while let Some((unit, (id, entry))) = self.names.range(unit..end).next() {
            let (unit, id, entry) = (*unit, *id, usize::from(*entry));
            self.names.remove(&unit);
            self.lost -= usize::from(id == LOST);
            if let Some(segment) = self.segments.get_mut(&id) {
                let bytes = segment.blocks[entry].sent;
                segment.live &= !(1 << entry);
                segment.live_bytes -= u32::from(bytes);
                self.live_bytes -= u64::from(bytes);
                self.review(id);
            }
        }
    }

    /// What is at this unit.
    pub(crate) fn find(&self, unit: u32) -> Place {
        let Some((begin, (id, entry))) = self.names.range(..=unit).next_back() else {
            return Place::Nothing;
        };
        let Some(segment) = self.segments.get(id) else {
            return match unit - begin < u32::from(*entry) {
                true => Place::Lost,
                false => Place::Nothing,
            };
        };
        let block = segment.blocks[usize::from(*entry)];
        if unit - block.unit >= u32::from(block.units) {
            return Place::Nothing;
        }
        Place::Block(Found {
            id: *id,
            block,
            homes: segment.homes,
            state: segment.state.clone(),
            segment_bytes: segment.bytes,
        })
    }

    /// Whether a name still leads to this segment.
    pub(crate) fn leads_to(&self, unit: u32, id: SegmentId) -> bool {
        self.names.get(&unit).is_some_and(|(at, _)| *at == id)
    }

    /// Segments that are worth being written anew, those with a lost copy or one that will go first:
    /// their live blocks.
    pub(crate) fn worth_rewriting(&self, count: usize) -> Vec<(SegmentId, Vec<Packed>)> {
        let ids = self.doomed.iter().chain(&self.sparse).take(count);
        ids.filter_map(|id| {
            let segment = self.segments.get(id)?;
            let live = |entry: &usize| segment.live >> entry & 1 == 1;
            let entries = (0..segment.blocks.len()).filter(live);
            Some((*id, entries.map(|entry| segment.blocks[entry]).collect()))
        })
        .collect()
    }

    /// Notes that a segment is to be written anew, because a copy cannot be had.
    pub(crate) fn doom_segment(&mut self, id: SegmentId) {
        let is_kept = |segment: &Segment| matches!(segment.state, State::Kept);
        if self.segments.get(&id).is_some_and(is_kept) {
            self.doomed.insert(id);
        }
    }

    pub(crate) fn has_doomed(&self) -> bool {
        !self.doomed.is_empty()
    }

    /// Takes what is to be given back.
    pub(crate) fn take_dead(&mut self) -> Vec<(SegmentId, Homes)> {
        std::mem::take(&mut self.dead)
    }

    /// Notes that a server may have a segment that is not here.
    pub(crate) fn bury(&mut self, id: SegmentId, homes: Homes) {
        self.dead.push((id, homes));
    }

    /// Kept segments from this one on.
    pub(crate) fn kept_from(&self, id: SegmentId, count: usize) -> Vec<(SegmentId, Homes)> {
        let kept = self.segments.range(id..).filter_map(|(id, segment)| {
            matches!(segment.state, State::Kept).then_some((*id, segment.homes))
        });
        kept.take(count).collect()
    }

    /// Segments that servers have or may get, from this one on.
    pub(crate) fn sent_from(&self, id: SegmentId, count: usize) -> Vec<(SegmentId, Homes)> {
        let sent = self.segments.range(id..).filter_map(|(id, segment)| {
            (!matches!(segment.state, State::Open)).then_some((*id, segment.homes))
        });
        sent.take(count).collect()
    }

    /// Bytes at servers, each copy counted, and on their way.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    pub(crate) fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    pub(crate) fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Blocks that are there.
    pub(crate) fn live_blocks(&self) -> usize {
        self.names.len() - self.lost
    }

    pub(crate) fn ram_bytes(&self) -> u64 {
        let bytes = self.names.len() * NAME_RAM_BYTES
            + self.segments.len() * SEGMENT_RAM_BYTES
            + self.blocks * size_of::<Packed>() * 3 / 2
            + self.dead.capacity() * size_of::<(SegmentId, Homes)>();
        bytes as u64
    }

    /// Retires a kept segment without live blocks, or notes that it is sparse.
    fn review(&mut self, id: SegmentId) {
        let Some(segment) = self.segments.get(&id) else {
            return;
        };
        if !matches!(segment.state, State::Kept) {
            return;
        }
        if segment.live == 0 {
            let homes = segment.homes;
            self.remove(id);
            self.dead.push((id, homes));
        } else if u64::from(segment.live_bytes) * 2 < u64::from(segment.bytes) {
            self.sparse.insert(id);
        }
    }

    fn remove(&mut self, id: SegmentId) -> Option<Segment> {
        let segment = self.segments.remove(&id)?;
        self.sparse.remove(&id);
        self.doomed.remove(&id);
        self.bytes -= u64::from(segment.bytes) * copies(&segment.homes);
        self.live_bytes -= u64::from(segment.live_bytes);
        self.blocks -= segment.blocks.len();
        if matches!(segment.state, State::Pending(_)) {
            self.pending_bytes -= u64::from(segment.bytes);
        }
        Some(segment)
    }

    /// Checks every invariant by a full walk.
    #[cfg(test)]
    pub(crate) fn validate(&self) {
        let lost = self.names.values().filter(|(id, _)| *id == LOST).count();
        assert_eq!(lost, self.lost);
        for (unit, (id, entry)) in self.names.iter().filter(|(_, (id, _))| *id != LOST) {
            let segment = &self.segments[id];
            assert_eq!(segment.blocks[usize::from(*entry)].unit, *unit);
            assert!(
                segment.live >> entry & 1 == 1,
                "{unit} leads to a dead block"
            );
        }
        let mut totals = (0, 0, 0, 0, 0);
        for (id, segment) in &self.segments {
            let live = |entry: &usize| segment.live >> entry & 1 == 1;
            let entries: Vec<usize> = (0..segment.blocks.len()).filter(live).collect();
            let bytes: u32 = entries
                .iter()
                .map(|n| u32::from(segment.blocks[*n].sent))
                .sum();
            assert_eq!(bytes, segment.live_bytes);
            let is_kept = matches!(segment.state, State::Kept);
            assert!(
                !is_kept || (!entries.is_empty() && copies(&segment.homes) > 0),
                "{id:?}"
            );
            totals.0 += u64::from(segment.bytes) * copies(&segment.homes);
            totals.1 += u64::from(bytes);
            if matches!(segment.state, State::Pending(_)) {
                totals.2 += u64::from(segment.bytes);
            }
            totals.3 += entries.len();
            totals.4 += segment.blocks.len();
        }
        assert_eq!(totals.3, self.live_blocks());
        let counted = (
            self.bytes,
            self.live_bytes,
            self.pending_bytes,
            self.live_blocks(),
            self.blocks,
        );
        assert_eq!(totals, counted);
        let here = |id: &SegmentId| self.segments.contains_key(id);
        assert!(self.sparse.iter().all(here) && self.doomed.iter().all(here));
    }
}
