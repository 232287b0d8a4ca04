//! The zbud packing of 2013: at most two zpages in a 4 KiB frame.
//!
//! Stage on the data path: see `packing`. The first zpage is left-justified and the second right-justified. A frame
//! with one zpage is unbuddied and lies in the bin of its free chunks; the tightest fit is taken first. Nothing ever
//! moves within a frame.
//!
//! ```text
//! fill: chunks of the first (bits 0..8), chunks of the second (bits 8..16)
//!       or a whole frame, see `chunks`
//! ```
//!
//! Invariants:
//! - `first + second <= 64` chunks
//! - in a bin exactly when one of the two is absent
//!
//! Does not: reach a density above 2, by construction; it is the reference the default is measured against.

use core::ops::Range;

use super::chunks::{self, CHUNK, CHUNKS, HEADED_MAX, chunks, whole_entry};
use super::{BINS, Candidate, Fill, HEADER, Packing, Placed, Site, read_header, write_header};
use crate::entry::Entries;
use crate::frames::{FRAME_SIZE, Frames, Run};

/// The zbud packing.
pub(super) struct Zbud;

fn parts(fill: Fill) -> (usize, usize) {
    ((fill.0 & 0xff) as usize, (fill.0 >> 8 & 0xff) as usize)
}

fn fill_of(first: usize, second: usize) -> Fill {
    debug_assert!(first + second <= CHUNKS);
    Fill(first as u64 | (second as u64) << 8)
}

fn second_start(second: usize) -> usize {
    (CHUNKS - second) * CHUNK
}

impl Packing for Zbud {
    const RUNS: &'static [Run] = &[Run::FRAME];
    const GROUP_BINS: usize = BINS;

    fn empty(_len: usize) -> Fill {
        Fill(0)
    }

    fn run(_fill: Fill) -> Run {
        Run::FRAME
    }

    fn bins_for(len: usize) -> Range<usize> {
        chunks::bins_for(len)
    }

    fn bin_of(fill: Fill) -> Option<usize> {
        if whole_entry(fill).is_some() {
            return None;
        }
        let (first, second) = parts(fill);
        (first == 0 || second == 0).then_some(CHUNKS - first - second)
    }

    fn used_bytes(fill: Fill) -> u32 {
        if whole_entry(fill).is_some() {
            return FRAME_SIZE as u32;
        }
        let (first, second) = parts(fill);
        ((first + second) * CHUNK) as u32
    }

    fn place<F: Frames>(
        frames: &mut F,
        _entries: &mut Entries,
        site: Site,
        fill: &mut Fill,
        entry: u32,
        len: usize,
    ) -> Placed {
        if len > HEADED_MAX {
            return chunks::place_whole(fill, entry);
        }
        let (first, second) = parts(*fill);
        let need = chunks(len);
        let start = if first == 0 {
            *fill = fill_of(need, second);
            0
        } else {
            assert_eq!(second, 0, "the bins promised room");
            *fill = fill_of(first, need);
            second_start(need)
        };
        write_header(frames.bytes_mut(site.frame, Run::FRAME), start, entry, len);
        Placed {
            offset: start + HEADER,
            compacted: false,
        }
    }

    fn remove(fill: &mut Fill, offset: usize, _len: usize) {
        let (first, second) = parts(*fill);
        *fill = match offset {
            0 => Fill(0),
            HEADER => fill_of(0, second),
            _ => fill_of(first, 0),
        };
    }

    fn walk(fill: Fill, bytes: &[u8], cursor: usize) -> Option<(Candidate, usize)> {
        if let Some(entry) = whole_entry(fill) {
            return chunks::walk_whole(entry, cursor);
        }
        let (first, second) = parts(fill);
        let start = if cursor == 0 && first != 0 {
            0
        } else if cursor < FRAME_SIZE && second != 0 {
            second_start(second)
        } else {
            return None;
        };
        let (entry, _) = read_header(bytes, start)?;
        // After the first zpage any cursor between the two leads to the second.
        let next = if start == 0 && cursor == 0 && first != 0 {
            1
        } else {
            FRAME_SIZE
        };
        Some((
            Candidate {
                entry,
                offset: start + HEADER,
            },
            next,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::chunks::whole;
    use super::*;

    #[test]
    fn the_longest_zpage_with_a_header_is_always_the_first() {
        // 64 chunks begin at byte 0 from either side; placed into an empty frame it is the first.
        let mut fill = fill_of(CHUNKS, 0);
        Zbud::remove(&mut fill, HEADER, HEADED_MAX);
        assert_eq!(fill, Fill(0));
    }

    #[test]
    fn removing_either_leaves_the_other() {
        let both = fill_of(10, 20);
        let mut fill = both;
        Zbud::remove(&mut fill, HEADER, 10 * CHUNK - HEADER);
        assert_eq!(parts(fill), (0, 20));
        let mut fill = both;
        Zbud::remove(&mut fill, second_start(20) + HEADER, 20 * CHUNK - HEADER);
        assert_eq!(parts(fill), (10, 0));
    }

    #[test]
    fn bins_hold_the_unbuddied_only() {
        assert_eq!(Zbud::bin_of(fill_of(10, 20)), None);
        assert_eq!(Zbud::bin_of(fill_of(0, 20)), Some(44));
        assert_eq!(Zbud::bin_of(whole(5)), None);
        assert!(Zbud::bins_for(4089).is_empty());
        assert!(Zbud::bins_for(4088).contains(&CHUNKS));
    }
}
