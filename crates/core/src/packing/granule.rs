//! The default packing: a 16 KiB block filled from the front in 16-byte granules.
//!
//! Stage on the data path: see `packing`.
//!
//! ```text
//! | zpage .. pad to 16 | zpage .. pad | hole | zpage ..  | free |
//! 0                                                      tail    16384
//! fill: used granules, tail granule, first granule and granules of the largest known hole (16 bits each)
//! ```
//!
//! A zpage goes into the known hole where it fits, else to the tail. When it would fit the block but neither of them,
//! all holes are closed at once: live zpages slide to the front and their entries are told.
//!
//! Invariants:
//! - `used <= tail <= 1024`, and `used == tail` after a compaction
//! - the hole lies below the tail and no zpage lies in it; no hole is start 0 and length 0
//!
//! Does not: know of more than one hole; one that is forgotten is room again after the next compaction.

use core::ops::Range;

use super::{BINS, Packing, Placed, Site};
use crate::frames::{Frames, Run};
use crate::tables::block::Fill;
use crate::tables::entry::Entries;
use crate::tables::members::{Gap, walk_from};
use crate::tables::{Checked, Damaged, ensure};

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
    len.div_ceil(GRANULE)
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

    /// Remembers dead granules below the tail, if there are more of them than in the known hole, or they hold that.
    fn note_hole(&mut self, start: usize, end: usize) {
        if end - start > self.hole_len {
            (self.hole_start, self.hole_len) = (start, end - start);
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

    /// Gives dead granules at the tail back, and the hole with them where it lies there.
    fn lower_tail(&mut self, start: usize) {
        self.tail = start;
        if self.hole_start + self.hole_len > start {
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
        len: usize,
    ) -> Checked<Placed> {
        let need = granules(len);
        let mut parts = Parts::of(*fill);
        let compacted = parts.hole_len < need && parts.tail + need > GRANULES;
        if compacted {
            parts = compact(frames, entries, site, parts.used)?;
            ensure(parts.tail + need <= GRANULES)?;
        }
        let start = if parts.hole_len >= need {
            let start = parts.hole_start;
            parts.shrink_hole(need);
            start
        } else {
            parts.tail += need;
            parts.tail - need
        };
        parts.used += need;
        *fill = parts.fill();
        Ok(Placed {
            offset: start * GRANULE,
            compacted,
        })
    }

    fn remove(fill: Fill, offset: usize, len: usize, gap: Gap) -> Checked<Fill> {
        let mut parts = Parts::of(fill);
        parts.used = parts.used.checked_sub(granules(len)).ok_or(Damaged::New)?;
        let start = gap.start.div_ceil(GRANULE);
        ensure(start * GRANULE <= offset)?;
        match gap.end {
            None => parts.lower_tail(start),
            Some(end) => parts.note_hole(start, end / GRANULE),
        }
        Ok(parts.fill())
    }

    fn emptied(_fill: Fill) -> Fill {
        Fill(0)
    }

    fn claim(fill: Fill, offset: usize, len: usize) -> Option<Fill> {
        let mut parts = Parts::of(fill);
        let (start, need) = (offset / GRANULE, granules(len));
        let behind = offset.is_multiple_of(GRANULE) && start >= parts.tail;
        if !behind || start + need > GRANULES {
            return None;
        }
        parts.note_hole(parts.tail, start);
        parts.used += need;
        parts.tail = start + need;
        Some(parts.fill())
    }
}

/// Slides the zpages to the front of the block.
fn compact<F: Frames>(
    frames: &mut F,
    entries: &mut Entries,
    site: Site,
    used: usize,
) -> Checked<Parts> {
    // Nothing moves before it is known where everything lies.
    let mut granules_found = 0;
    for member in walk_from(&*frames, entries, site.block, Ok(site.first)) {
        let (_, span) = member?;
        ensure(span.end() <= Run::BLOCK.bytes())?;
        granules_found += granules(span.len);
    }
    ensure(granules_found == used)?;
    let (mut to, mut next) = (0, site.first);
    while let Some(entry) = next {
        let (span, behind) = entries.slide(frames, entry, site.block, to * GRANULE)?;
        if span.offset != to * GRANULE {
            let bytes = frames.bytes_mut(site.frame, Run::BLOCK);
            bytes.copy_within(span.offset..span.end(), to * GRANULE);
        }
        to += granules(span.len);
        next = behind;
    }
    Ok(Parts {
        used,
        tail: used,
        ..Parts::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(start: usize, end: Option<usize>) -> Gap {
        Gap {
            start: start * GRANULE,
            end: end.map(|end| end * GRANULE),
        }
    }

    #[test]
    fn every_length_has_room_in_an_empty_block() {
        for len in 1..=4096 {
            assert!(granules(len) * GRANULE >= len);
            assert!(Granule::bins_for(len).contains(&Granule::bin_of(Fill(0)).unwrap()));
        }
        assert_eq!(
            granules(4096) * 4,
            GRANULES,
            "pages that do not shrink waste nothing"
        );
    }

    #[test]
    fn removing_the_last_zpage_gives_the_tail_back() {
        let fill = Parts {
            used: 10,
            tail: 12,
            ..Parts::default()
        }
        .fill();
        let fill = Granule::remove(fill, 8 * GRANULE, 64, gap(6, None)).unwrap();
        let expected = Parts {
            used: 6,
            tail: 6,
            ..Parts::default()
        };
        assert_eq!(Parts::of(fill), expected);
        let fill = Granule::remove(fill, 0, 96, gap(0, None));
        assert_eq!(fill, Ok(Fill(0)));
    }

    #[test]
    fn the_hole_is_the_largest_gap_and_goes_with_the_tail() {
        // Ten zpages of two granules each.
        let mut fill = Parts {
            used: 20,
            tail: 20,
            ..Parts::default()
        }
        .fill();
        let mut live: std::vec::Vec<usize> = (0..10).collect();
        let mut remove = |number: usize| {
            let at = live.iter().position(|other| *other == number).unwrap();
            live.remove(at);
            let start = at.checked_sub(1).map_or(0, |before| live[before] * 2 + 2);
            let end = live.get(at).map(|behind| behind * 2);
            fill = Granule::remove(fill, number * 2 * GRANULE, 32, gap(start, end)).unwrap();
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
            (6, 6, 14),
            "what is dead behind the last zpage is free"
        );
        assert_eq!(remove(6), (0, 0, 6), "and the hole with it");
        assert_eq!(remove(1), (0, 4, 6));
    }

    #[test]
    fn claims_in_rising_order_make_a_fill() {
        let fill = Granule::claim(Fill(0), 2 * GRANULE, 20).unwrap();
        let fill = Granule::claim(fill, 9 * GRANULE, 16).unwrap();
        let expected = Parts {
            used: 3,
            tail: 10,
            hole_start: 4,
            hole_len: 5,
        };
        assert_eq!(Parts::of(fill), expected);
        assert_eq!(Granule::claim(fill, 9 * GRANULE, 16), None, "not twice");
        assert_eq!(
            Granule::claim(fill, 12 * GRANULE + 8, 16),
            None,
            "not between granules"
        );
        assert_eq!(
            Granule::claim(fill, 1023 * GRANULE, 17),
            None,
            "not beyond the end"
        );
    }
}
