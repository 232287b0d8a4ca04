//! The zbud packing of 2013: at most two zpages in a 4 KiB frame.
//!
//! Stage on the data path: see `packing`. The first zpage is left-justified and the second right-justified. A frame
//! with one zpage is unbuddied and lies in the bin of its free chunks; the tightest fit is taken first. Nothing ever
//! moves within a frame.
//!
//! ```text
//! fill: chunks of the first (bits 0..8), chunks of the second (bits 8..16)
//! ```
//!
//! Invariants:
//! - `first + second <= 64` chunks, and a second zpage does not begin at byte 0
//! - in a bin exactly when one of the two is absent
//!
//! Does not: reach a density above 2, by construction; it is the reference the default is measured against.

use core::ops::Range;

use super::chunks::{self, CHUNK, CHUNKS, chunks};
use super::{BINS, Packing, Placed, Site};
use crate::frames::{Frames, Run};
use crate::tables::block::Fill;
use crate::tables::entry::Entries;
use crate::tables::members::Gap;
use crate::tables::{Checked, ensure};

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
        let (first, second) = parts(fill);
        (first == 0 || second == 0).then_some(CHUNKS - first - second)
    }

    fn used_bytes(fill: Fill) -> u32 {
        let (first, second) = parts(fill);
        ((first + second) * CHUNK) as u32
    }

    fn place<F: Frames>(
        _frames: &mut F,
        _entries: &mut Entries,
        _site: Site,
        fill: &mut Fill,
        len: usize,
    ) -> Checked<Placed> {
        let (first, second) = parts(*fill);
        let need = chunks(len);
        ensure(first + second + need <= CHUNKS && (first == 0 || second == 0))?;
        let offset = if first == 0 {
            *fill = fill_of(need, second);
            0
        } else {
            *fill = fill_of(first, need);
            second_start(need)
        };
        Ok(Placed {
            offset,
            compacted: false,
        })
    }

    fn remove(fill: Fill, offset: usize, _len: usize, _gap: Gap) -> Checked<Fill> {
        let (first, second) = parts(fill);
        Ok(match offset {
            0 => fill_of(0, second),
            _ => fill_of(first, 0),
        })
    }

    fn emptied(_fill: Fill) -> Fill {
        Fill(0)
    }

    fn claim(fill: Fill, offset: usize, len: usize) -> Option<Fill> {
        let ((first, second), need) = (parts(fill), chunks(len));
        if need > CHUNKS {
            return None;
        }
        match offset {
            0 => (first == 0 && second == 0).then(|| fill_of(need, 0)),
            _ => (second == 0 && first + need <= CHUNKS && offset == second_start(need))
                .then(|| fill_of(first, need)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Gap = Gap {
        start: 0,
        end: None,
    };

    #[test]
    fn the_longest_zpage_is_always_the_first() {
        // 64 chunks begin at byte 0 from either side; placed into an empty frame it is the first.
        assert_eq!(Zbud::remove(fill_of(CHUNKS, 0), 0, 4096, GAP), Ok(Fill(0)));
        assert_eq!(Zbud::claim(Fill(0), 0, 4096), Some(fill_of(CHUNKS, 0)));
    }

    #[test]
    fn removing_either_leaves_the_other() {
        let both = fill_of(10, 20);
        assert_eq!(Zbud::remove(both, 0, 640, GAP), Ok(fill_of(0, 20)));
        let second = Zbud::remove(both, second_start(20), 1280, GAP);
        assert_eq!(second, Ok(fill_of(10, 0)));
        assert_eq!(
            Zbud::claim(fill_of(10, 0), second_start(20), 1280),
            Some(both)
        );
        assert_eq!(
            Zbud::claim(fill_of(10, 0), second_start(20) - 8, 1280),
            None
        );
    }

    #[test]
    fn bins_hold_the_unbuddied_only() {
        assert_eq!(Zbud::bin_of(fill_of(10, 20)), None);
        assert_eq!(Zbud::bin_of(fill_of(0, 20)), Some(44));
        assert_eq!(Zbud::bin_of(fill_of(CHUNKS, 0)), Some(0));
        assert!(Zbud::bins_for(4096).contains(&CHUNKS));
    }
}
