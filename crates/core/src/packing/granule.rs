//! The default packing: a 16 KiB block filled from the front in 16-byte granules.
//!
//! Stage on the data path: see `packing`.
//!
//! ```text
//! | header 8 | zpage .. pad to 16 | header 8 | zpage .. pad | hole | ...  | free |
//! 0                                                                     tail    16384
//! fill: used granules, tail granule, first granule and granules of the largest known hole (16 bits each)
//! ```
//!
//! A zpage goes into the known hole where it fits, else to the tail. When it would fit the block but neither of them,
//! all holes are closed at once: live zpages slide to the front and their entries are told. What is left of a hole gets
//! a filler header with no entry. Freeing never touches the block's bytes, so a block that is written to a tier keeps
//! valid headers up to its tail.
//!
//! Invariants:
//! - `used <= tail <= 1024`, and `used == tail` after a compaction
//! - headers from 0 to the tail form an unbroken chain, and a header stands at the first granule of the hole
//! - the hole lies below the tail and no live zpage lies in it; no hole is start 0 and length 0
//!
//! Does not: know of more than one hole; one that is forgotten is room again after the next compaction.

use core::ops::Range;

use super::{BINS, Candidate, Fill, HEADER, Packing, Placed, Site, read_header, write_header};
use crate::entry::Entries;
use crate::frames::{Frames, Run};
use crate::ids::NONE;

/// Bytes in a granule.
const GRANULE: usize = 16;
/// Granules in a block.
const GRANULES: usize = Run::BLOCK.bytes() / GRANULE;
/// Below this many free granules every count has its own bin. No zpage needs as many, so above it the coarse bins are
/// only a preference for fuller blocks.
const EXACT: usize = 320;
/// Free granules in one of the bins above.
const COARSE: usize = 64;

const _: () = assert!(granules(4096) < EXACT);
const _: () = assert!(EXACT + (GRANULES - EXACT) / COARSE < BINS);

/// The default packing.
pub(super) struct Granule;

const fn granules(len: usize) -> usize {
    (HEADER + len).div_ceil(GRANULE)
}

/// The fill, in granules.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Parts {
    used: usize,
    tail: usize,
    hole_start: usize,
    hole_len: usize,
}

impl Parts {
    fn of(fill: Fill) -> Parts {
        let part = |shift: u32| (fill.0 >> shift & 0xffff) as usize;
        Parts {
            used: part(0),
            tail: part(16),
            hole_start: part(32),
            hole_len: part(48),
        }
    }

    fn fill(self) -> Fill {
        debug_assert!(self.used <= self.tail && self.tail <= GRANULES);
        debug_assert!(self.hole_start + self.hole_len <= self.tail);
        Fill(
            self.used as u64
                | (self.tail as u64) << 16
                | (self.hole_start as u64) << 32
                | (self.hole_len as u64) << 48,
        )
    }

    /// Remembers dead granules below the tail: joined to the known hole where they touch, else the larger of the two.
    fn note_hole(&mut self, start: usize, len: usize) {
        if self.hole_len != 0 && self.hole_start + self.hole_len == start {
            self.hole_len += len;
        } else if start + len == self.hole_start {
            (self.hole_start, self.hole_len) = (start, self.hole_len + len);
        } else if len > self.hole_len {
            (self.hole_start, self.hole_len) = (start, len);
        }
    }

    /// Takes granules from the front of the hole; without any there is no hole.
    fn shrink_hole(&mut self, need: usize) {
        self.hole_len -= need;
        self.hole_start = if self.hole_len == 0 {
            0
        } else {
            self.hole_start + need
        };
    }

    /// Gives dead granules at the tail back, and the hole with them where it touches.
    fn lower_tail(&mut self, start: usize) {
        self.tail = start;
        if self.hole_len != 0 && self.hole_start + self.hole_len == start {
            self.tail = self.hole_start;
            (self.hole_start, self.hole_len) = (0, 0);
        }
    }
}

impl Packing for Granule {
    const RUNS: &'static [Run] = &[Run::BLOCK];
    const GROUP_BINS: usize = BINS;

    fn empty(_len: usize) -> Fill {
        Fill(0)
    }

    fn run(_fill: Fill) -> Run {
        Run::BLOCK
    }

    fn bins_for(len: usize) -> Range<usize> {
        granules(len)..BINS
    }

    fn bin_of(fill: Fill) -> Option<usize> {
        let free = GRANULES - Parts::of(fill).used;
        Some(if free < EXACT {
            free
        } else {
            EXACT + (free - EXACT) / COARSE
        })
    }

    fn used_bytes(fill: Fill) -> u32 {
        (Parts::of(fill).used * GRANULE) as u32
    }

    fn place<F: Frames>(
        frames: &mut F,
        entries: &mut Entries,
        site: Site,
        fill: &mut Fill,
        entry: u32,
        len: usize,
    ) -> Placed {
        let need = granules(len);
        let mut parts = Parts::of(*fill);
        let compacted = parts.hole_len < need && parts.tail + need > GRANULES;
        if compacted {
            parts = compact(frames, entries, site, *fill);
            assert!(parts.tail + need <= GRANULES, "the bins promised room");
        }
        let bytes = frames.bytes_mut(site.frame, Run::BLOCK);
        let start = if parts.hole_len >= need {
            let start = parts.hole_start;
            parts.shrink_hole(need);
            if parts.hole_len != 0 {
                write_header(
                    bytes,
                    parts.hole_start * GRANULE,
                    NONE,
                    parts.hole_len * GRANULE - HEADER,
                );
            }
            start
        } else {
            parts.tail += need;
            parts.tail - need
        };
        parts.used += need;
        *fill = parts.fill();
        write_header(bytes, start * GRANULE, entry, len);
        Placed {
            offset: start * GRANULE + HEADER,
            compacted,
        }
    }

    fn remove(fill: &mut Fill, offset: usize, len: usize) {
        let mut parts = Parts::of(*fill);
        let (start, need) = (offset / GRANULE, granules(len));
        parts.used -= need;
        if parts.used == 0 {
            parts = Parts::default();
        } else if start + need == parts.tail {
            parts.lower_tail(start);
        } else {
            parts.note_hole(start, need);
        }
        *fill = parts.fill();
    }

    fn walk(fill: Fill, bytes: &[u8], cursor: usize) -> Option<(Candidate, usize)> {
        if cursor >= Parts::of(fill).tail * GRANULE {
            return None;
        }
        let (entry, len) = read_header(bytes, cursor)?;
        Some((
            Candidate {
                entry,
                offset: cursor + HEADER,
            },
            cursor + granules(len) * GRANULE,
        ))
    }
}

/// Slides the live zpages to the front of the block.
fn compact<F: Frames>(frames: &mut F, entries: &mut Entries, site: Site, fill: Fill) -> Parts {
    let (mut from, mut to) = (0, 0);
    while let Some((candidate, next)) =
        Granule::walk(fill, frames.bytes(site.frame, Run::BLOCK), from)
    {
        if entries
            .len_at(frames, candidate.entry, site.block, candidate.offset)
            .is_some()
        {
            if from != to {
                frames
                    .bytes_mut(site.frame, Run::BLOCK)
                    .copy_within(from..next, to);
                entries.set_place(frames, candidate.entry, site.block, to + HEADER);
            }
            to += next - from;
        }
        from = next;
    }
    let used = to / GRANULE;
    assert_eq!(
        used,
        Parts::of(fill).used,
        "the walk found every live zpage"
    );
    Parts {
        used,
        tail: used,
        ..Parts::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_has_room_in_an_empty_block() {
        for len in 1..=4096 {
            assert!(granules(len) * GRANULE >= HEADER + len);
            assert!(Granule::bins_for(len).contains(&Granule::bin_of(Fill(0)).unwrap()));
        }
    }

    #[test]
    fn removing_the_last_zpage_gives_the_tail_back() {
        let mut fill = Parts {
            used: 10,
            tail: 12,
            ..Parts::default()
        }
        .fill();
        Granule::remove(&mut fill, 8 * GRANULE + HEADER, 56);
        assert_eq!(
            Parts::of(fill),
            Parts {
                used: 6,
                tail: 8,
                ..Parts::default()
            }
        );
        Granule::remove(&mut fill, HEADER, 88);
        assert_eq!(fill, Fill(0));
    }

    #[test]
    fn the_hole_grows_at_both_ends_and_goes_with_the_tail() {
        // Ten zpages of two granules each.
        let mut fill = Parts {
            used: 20,
            tail: 20,
            ..Parts::default()
        }
        .fill();
        let mut remove = |number: usize| {
            Granule::remove(&mut fill, number * 2 * GRANULE + HEADER, 24);
            let parts = Parts::of(fill);
            (parts.hole_start, parts.hole_len, parts.tail)
        };
        assert_eq!(remove(4), (8, 2, 20));
        assert_eq!(remove(5), (8, 4, 20));
        assert_eq!(remove(3), (6, 6, 20));
        assert_eq!(remove(0), (6, 6, 20), "a smaller one is forgotten");
        assert_eq!(remove(9), (6, 6, 18));
        assert_eq!(remove(7), (6, 6, 18));
        assert_eq!(
            remove(8),
            (6, 6, 16),
            "a dead zpage that is no known hole stays below the tail"
        );
        assert_eq!(remove(6), (6, 8, 16));
    }

    #[test]
    fn damaged_headers_end_the_walk() {
        let fill = Parts {
            used: 100,
            tail: 100,
            ..Parts::default()
        }
        .fill();
        assert_eq!(Granule::walk(fill, &[0; 16384], 0), None);
        assert_eq!(Granule::walk(fill, &[0xff; 16384], 0), None);
        assert_eq!(Granule::walk(fill, &[1; 4], 0), None);
    }
}
