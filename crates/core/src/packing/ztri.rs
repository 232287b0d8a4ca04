//! Three in a frame: a first, a middle and a last zpage in 4 KiB.
//!
//! Stage on the data path: see `packing`. The first zpage begins where the frame begins, the last ends where it ends, and
//! the middle lies anywhere between them. Where the free room lies on both sides of the middle and neither side is
//! enough, the middle is moved to an end of the frame that is free, which makes all free room one gap: so what counts is
//! how much is free, and not where.
//!
//! ```text
//! | first | free | middle | free | last |
//! fill: chunks of the first, of the middle and of the last, first chunk of the middle (8 bits each)
//! ```
//!
//! Invariants:
//! - `first <= start of the middle`, `start + middle <= 64 - last`; without a middle its start is 0
//! - with a middle `start > 0`, and `last < 64`, so that no two places have the same offset
//! - in a bin, that of its free chunks, exactly when one of the three is absent
//!
//! Does not: move the first or the last zpage, or more than one for a place.

use core::ops::Range;

use super::chunks::{self, CHUNK, CHUNKS, chunks};
use super::{BINS, Packing, Placed, Site};
use crate::frames::{Frames, Run};
use crate::tables::block::Fill;
use crate::tables::entry::Entries;
use crate::tables::members::{Gap, walk_from};
use crate::tables::{Checked, Damaged, ensure};

/// The three-in-a-frame packing.
pub(super) struct Ztri;

/// The fill of a frame, in chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Parts {
    first: usize,
    middle: usize,
    last: usize,
    middle_start: usize,
}

impl Parts {
    fn of(fill: Fill) -> Parts {
        let part = |shift: u32| (fill.0 >> shift & 0xff) as usize;
        Parts {
            first: part(0),
            middle: part(8),
            last: part(16),
            middle_start: part(24),
        }
    }

    fn fill(self) -> Fill {
        debug_assert!(self.first <= self.middle_start || self.middle == 0);
        debug_assert!(self.middle_start + self.middle <= self.last_start());
        debug_assert!(self.first + self.last <= CHUNKS);
        debug_assert_eq!(self.middle == 0, self.middle_start == 0);
        Fill(
            self.first as u64
                | (self.middle as u64) << 8
                | (self.last as u64) << 16
                | (self.middle_start as u64) << 24,
        )
    }

    fn used(self) -> usize {
        self.first + self.middle + self.last
    }

    fn is_full(self) -> bool {
        self.first != 0 && self.middle != 0 && self.last != 0
    }

    fn last_start(self) -> usize {
        CHUNKS - self.last
    }

    /// Where a zpage goes as things lie: the chunk that it begins with, and the parts with it in them.
    fn with(self, need: usize) -> Option<(usize, Parts)> {
        let middle_start = match self.middle {
            0 => self.last_start(),
            _ => self.middle_start,
        };
        let end = self.last_start();
        if self.first == 0 && need <= middle_start {
            Some((
                0,
                Parts {
                    first: need,
                    ..self
                },
            ))
        } else if self.last == 0 && middle_end(self) + need <= end {
            Some((end - need, Parts { last: need, ..self }))
        } else if self.middle == 0 && self.first + need <= end {
            let middle = Parts {
                middle: need,
                middle_start: self.first,
                ..self
            };
            Some((self.first, middle))
        } else {
            None
        }
    }

    /// The parts with the middle at an end that is free, and the chunk that it begins with then.
    fn with_middle_moved(self) -> (usize, Parts) {
        let rest = Parts {
            middle: 0,
            middle_start: 0,
            ..self
        };
        if self.first == 0 {
            (
                0,
                Parts {
                    first: self.middle,
                    ..rest
                },
            )
        } else {
            let last = Parts {
                last: self.middle,
                ..rest
            };
            (last.last_start(), last)
        }
    }

    /// The zpages in rising order: chunk that each begins with and chunks.
    #[cfg(test)]
    fn places(self) -> [(usize, usize); 3] {
        [
            (0, self.first),
            (self.middle_start, self.middle),
            (self.last_start(), self.last),
        ]
    }
}

/// The chunk behind the first and the middle.
fn middle_end(parts: Parts) -> usize {
    match parts.middle {
        0 => parts.first,
        _ => parts.middle_start + parts.middle,
    }
}

impl Packing for Ztri {
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
        let parts = Parts::of(fill);
        (!parts.is_full()).then(|| CHUNKS - parts.used())
    }

    fn used_bytes(fill: Fill) -> u32 {
        (Parts::of(fill).used() * CHUNK) as u32
    }

    fn place<F: Frames>(
        frames: &mut F,
        entries: &mut Entries,
        site: Site,
        fill: &mut Fill,
        len: usize,
    ) -> Checked<Placed> {
        let (parts, need) = (Parts::of(*fill), chunks(len));
        ensure(!parts.is_full() && parts.used() + need <= CHUNKS)?;
        let direct = parts.with(need);
        let (start, with) = match direct {
            Some(with) => with,
            None => {
                let moved = move_middle(frames, entries, site, parts)?;
                moved.with(need).ok_or(Damaged::New)?
            }
        };
        *fill = with.fill();
        Ok(Placed {
            offset: start * CHUNK,
            compacted: direct.is_none(),
        })
    }

    fn remove(fill: Fill, offset: usize, _len: usize, _gap: Gap) -> Checked<Fill> {
        let mut parts = Parts::of(fill);
        if offset == 0 {
            parts.first = 0;
        } else if offset == parts.middle_start * CHUNK {
            (parts.middle, parts.middle_start) = (0, 0);
        } else {
            parts.last = 0;
        }
        Ok(parts.fill())
    }

    fn emptied(_fill: Fill) -> Fill {
        Fill(0)
    }

    fn claim(fill: Fill, offset: usize, len: usize) -> Option<Fill> {
        let (mut parts, need) = (Parts::of(fill), chunks(len));
        let start = offset / CHUNK;
        if !offset.is_multiple_of(CHUNK) || parts.last != 0 || middle_end(parts) > start {
            return None;
        }
        if offset == 0 {
            parts.first = need;
        } else if start + need == CHUNKS {
            parts.last = need;
        } else if parts.middle == 0 {
            (parts.middle, parts.middle_start) = (need, start);
        } else {
            return None;
        }
        (start + need <= CHUNKS).then(|| parts.fill())
    }
}

/// Moves the middle zpage to an end of the frame that is free and tells its entry.
fn move_middle<F: Frames>(
    frames: &mut F,
    entries: &mut Entries,
    site: Site,
    parts: Parts,
) -> Checked<Parts> {
    let (start, moved) = parts.with_middle_moved();
    let from = parts.middle_start * CHUNK;
    let middle = walk_from(&*frames, entries, site.block, Ok(site.first))
        .find(|member| member.is_ok_and(|(_, span)| span.offset == from));
    let (entry, _) = middle.ok_or(Damaged::New)??;
    let bytes = frames.bytes_mut(site.frame, Run::FRAME);
    bytes.copy_within(from..from + parts.middle * CHUNK, start * CHUNK);
    entries.set_place(frames, entry, site.block, start * CHUNK)?;
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Gap = Gap {
        start: 0,
        end: None,
    };

    /// Every frame that is not whole: by what is in it and where the middle lies.
    fn all_parts() -> impl Iterator<Item = Parts> {
        let lens = [0, 1, 2, 20, 31, 32, 33, 40, 62, 63, 64];
        let starts = 0..CHUNKS;
        starts.flat_map(move |middle_start| {
            lens.into_iter().flat_map(move |first| {
                lens.into_iter().flat_map(move |middle| {
                    lens.into_iter().filter_map(move |last| {
                        let parts = Parts {
                            first,
                            middle,
                            last,
                            middle_start,
                        };
                        let fits = match middle {
                            0 => middle_start == 0 && first + last <= CHUNKS && last < CHUNKS,
                            _ => {
                                middle_start >= first.max(1)
                                    && middle_start + middle + last <= CHUNKS
                            }
                        };
                        fits.then_some(parts)
                    })
                })
            })
        })
    }

    #[test]
    fn whatever_is_free_can_be_had_after_one_move() {
        let mut moves = 0;
        for parts in all_parts().filter(|parts| !parts.is_full()) {
            for need in 1..=CHUNKS - parts.used() {
                let (start, with) = parts.with(need).unwrap_or_else(|| {
                    moves += 1;
                    assert_ne!(parts.middle, 0, "{parts:?} for {need}");
                    let (_, moved) = parts.with_middle_moved();
                    assert_eq!(moved.used(), parts.used());
                    moved.with(need).expect("room after a move")
                });
                assert_eq!(Parts::of(with.fill()), with);
                assert!(
                    with.places().contains(&(start, need)),
                    "{parts:?} for {need}"
                );
                assert_eq!(with.used(), parts.used() + need);
            }
        }
        assert!(moves > 1000, "{moves}");
    }

    #[test]
    fn removing_one_leaves_the_others() {
        for parts in all_parts() {
            for (number, (start, len)) in parts.places().into_iter().enumerate() {
                if len == 0 {
                    continue;
                }
                let fill = Ztri::remove(parts.fill(), start * CHUNK, len * CHUNK, GAP).unwrap();
                let mut expected = parts;
                match number {
                    0 => expected.first = 0,
                    1 => (expected.middle, expected.middle_start) = (0, 0),
                    _ => expected.last = 0,
                }
                assert_eq!(Parts::of(fill), expected, "{parts:?} without its {number}");
            }
        }
    }

    #[test]
    fn bins_hold_the_frames_with_a_place_left() {
        for parts in all_parts() {
            let free = CHUNKS - parts.used();
            assert_eq!(
                Ztri::bin_of(parts.fill()),
                (!parts.is_full()).then_some(free)
            );
        }
        assert!(Ztri::bins_for(4096).contains(&CHUNKS));
    }

    #[test]
    fn claims_in_rising_order_make_the_same_fill() {
        for parts in all_parts() {
            let mut fill = Fill(0);
            let placed = parts.places().into_iter().filter(|(_, len)| *len != 0);
            for (start, len) in placed {
                fill =
                    Ztri::claim(fill, start * CHUNK, len * CHUNK).expect("room for what was there");
            }
            // A middle that ends where the frame does is as good as a last.
            assert_eq!(Parts::of(fill).used(), parts.used(), "{parts:?}");
        }
    }
}
