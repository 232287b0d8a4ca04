//! The default packing: a 16 KiB block filled from the front in 16-byte granules.
//!
//! Stage on the data path: see `packing`.
//!
//! ```text
//! | header 8 | zpage .. pad to 16 | header 8 | zpage .. pad | ...  | free |
//! 0                                                         tail    16384
//! fill: used granules (low 16 bits), tail granule (high 16 bits)
//! ```
//!
//! A zpage is appended at the tail. Holes left by freed zpages are closed all at once, when a zpage would fit the block
//! but not its tail: live zpages slide to the front and their entries are told. So freeing never touches the block, and a
//! block that is written to a tier keeps valid headers up to its tail.
//!
//! Invariants:
//! - `used <= tail <= 1024`, and `used == tail` after a compaction
//! - headers from 0 to the tail form an unbroken chain
//!
//! Does not: fill holes without compacting; at 10 to 15 zpages a block the copy is cheaper than the search is long.

use core::ops::Range;

use super::{BINS, Candidate, Fill, HEADER, Packing, Placed, Site, read_header, write_header};
use crate::entry::Entries;
use crate::frames::{Frames, Order};

/// Bytes in a granule.
const GRANULE: usize = 16;
/// Granules in a block.
const GRANULES: usize = Order::BLOCK.bytes() / GRANULE;
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

fn parts(fill: Fill) -> (usize, usize) {
    ((fill.0 & 0xffff) as usize, (fill.0 >> 16) as usize)
}

fn fill_of(used: usize, tail: usize) -> Fill {
    debug_assert!(used <= tail && tail <= GRANULES);
    Fill(used as u32 | (tail as u32) << 16)
}

impl Packing for Granule {
    const ORDER: Order = Order::BLOCK;

    fn bins_for(len: usize) -> Range<usize> {
        granules(len)..BINS
    }

    fn bin_of(fill: Fill) -> Option<usize> {
        let free = GRANULES - parts(fill).0;
        Some(if free < EXACT {
            free
        } else {
            EXACT + (free - EXACT) / COARSE
        })
    }

    fn used_bytes(fill: Fill) -> u32 {
        (parts(fill).0 * GRANULE) as u32
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
        let compacted = parts(*fill).1 + need > GRANULES;
        if compacted {
            *fill = compact(frames, entries, site, *fill);
        }
        let (used, tail) = parts(*fill);
        assert!(tail + need <= GRANULES, "the bins promised room");
        let at = tail * GRANULE;
        write_header(frames.bytes_mut(site.frame, Self::ORDER), at, entry, len);
        *fill = fill_of(used + need, tail + need);
        Placed {
            offset: at + HEADER,
            compacted,
        }
    }

    fn remove(fill: &mut Fill, offset: usize, len: usize) {
        let (mut used, mut tail) = parts(*fill);
        let (start, need) = (offset / GRANULE, granules(len));
        used -= need;
        if used == 0 {
            tail = 0;
        } else if start + need == tail {
            tail = start;
        }
        *fill = fill_of(used, tail);
    }

    fn walk(fill: Fill, bytes: &[u8], cursor: usize) -> Option<(Candidate, usize)> {
        if cursor >= parts(fill).1 * GRANULE {
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
fn compact<F: Frames>(frames: &mut F, entries: &mut Entries, site: Site, fill: Fill) -> Fill {
    let (mut from, mut to) = (0, 0);
    while let Some((candidate, next)) =
        Granule::walk(fill, frames.bytes(site.frame, Order::BLOCK), from)
    {
        if entries
            .len_at(frames, candidate.entry, site.block, candidate.offset)
            .is_some()
        {
            if from != to {
                frames
                    .bytes_mut(site.frame, Order::BLOCK)
                    .copy_within(from..next, to);
                entries.set_place(frames, candidate.entry, site.block, to + HEADER);
            }
            to += next - from;
        }
        from = next;
    }
    let used = to / GRANULE;
    assert_eq!(used, parts(fill).0, "the walk found every live zpage");
    fill_of(used, used)
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
        let mut fill = fill_of(10, 12);
        Granule::remove(&mut fill, 8 * GRANULE + HEADER, 56);
        assert_eq!(parts(fill), (6, 8));
        Granule::remove(&mut fill, HEADER, 88);
        assert_eq!(parts(fill), (0, 0));
    }

    #[test]
    fn damaged_headers_end_the_walk() {
        let fill = fill_of(100, 100);
        assert_eq!(Granule::walk(fill, &[0; 16384], 0), None);
        assert_eq!(Granule::walk(fill, &[0xff; 16384], 0), None);
        assert_eq!(Granule::walk(fill, &[1; 4], 0), None);
    }
}
