//! Size classes: a block is a run of 1 to 8 frames, cut into equal slots.
//!
//! Stage on the data path: see `packing`. A zpage goes into the smallest class that holds it. Sizes rise
//! by 16 bytes; each is cut from the run that wastes least of itself, and neighbouring sizes that give as many slots in
//! as many frames are one class. A slot may lie across frames. Within a class every slot is as good as any other, so
//! nothing ever moves within a block; blocks are emptied into others of their class by evacuation.
//!
//! A class has its own group of bins, by how full its blocks are: the fullest are filled first, the emptiest emptied
//! first.
//!
//! ```text
//! | zpage .. pad | zpage .. pad | ... | waste |
//! 0              size          slots * size   run
//! fill: class (8 bits), live slots (9), marks (46): a bit for each patch of neighbouring slots, set when one is dead
//! ```
//!
//! Invariants:
//! - a slot is live exactly when a zpage of the block begins where it does
//! - the mark of a patch is set when a slot of it is dead, and none is when all slots are live; a patch is one slot in
//!   blocks of at most 46
//! - in a bin exactly when not all slots are live; the class never changes
//!
//! Does not: hold a zpage in a larger class than its own, so a class with few zpages has a block that is mostly empty.

use core::ops::Range;

use super::{BINS, Packing, Placed, Site};
use crate::frames::{FRAME_SIZE, Frames, Run};
use crate::tables::block::Fill;
use crate::tables::entry::Entries;
use crate::tables::members::{Gap, walk_from};
use crate::tables::{Checked, Damaged, ensure};

/// Sizes of slots rise by this many bytes.
const STEP: usize = 16;
/// The smallest slot.
const SIZE_MIN: usize = 32;
/// Sizes before they are merged to classes.
const SIZES: usize = (FRAME_SIZE - SIZE_MIN) / STEP + 1;
/// Classes.
const CLASSES: usize = count_classes();
/// Bins of a class: the fullest third of its blocks to the emptiest.
const FULLNESS: usize = 3;
/// Marks in a fill.
const MARKS: usize = 46;

const CLASS_BITS: u32 = 8;
const LIVE_BITS: u32 = 9;

const _: () = assert!(CLASSES * FULLNESS <= BINS && CLASSES <= 1 << CLASS_BITS);
const _: () = assert!(
    CLASS_BITS + LIVE_BITS + MARKS as u32 <= 64,
    "a fill has 64 bits"
);

/// The size-class packing.
pub(super) struct Zsmalloc;

/// How blocks of a class are cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Class {
    size: usize,
    slots: usize,
    run: Run,
}

/// The classes, the smallest first.
static TABLE: [Class; CLASSES] = classes();
/// The class of each size.
static OF_SIZE: [u8; SIZES] = classes_of_sizes();

/// The run that wastes least of itself in slots of this size, the shortest of several.
const fn cut(size: usize) -> Class {
    let mut best = Class {
        size,
        slots: FRAME_SIZE / size,
        run: Run::FRAME,
    };
    let mut frames = 2;
    while frames <= Run::FRAMES_MAX {
        let run = Run::of_frames(frames);
        let slots = run.bytes() / size;
        // More slots a frame.
        if slots * best.run.bytes() > best.slots * run.bytes() {
            best = Class { size, slots, run };
        }
        frames += 1;
    }
    best
}

const fn is_cut_alike(one: Class, other: Class) -> bool {
    one.slots == other.slots && one.run.frames() == other.run.frames()
}

/// Whether this size is the largest of its class.
const fn ends_class(number: usize) -> bool {
    let size = SIZE_MIN + number * STEP;
    number + 1 == SIZES || !is_cut_alike(cut(size), cut(size + STEP))
}

const fn count_classes() -> usize {
    let (mut number, mut count) = (0, 0);
    while number < SIZES {
        count += ends_class(number) as usize;
        number += 1;
    }
    count
}

const fn classes() -> [Class; CLASSES] {
    let mut table = [cut(SIZE_MIN); CLASSES];
    let (mut number, mut class) = (0, 0);
    while number < SIZES {
        table[class] = cut(SIZE_MIN + number * STEP);
        class += ends_class(number) as usize;
        number += 1;
    }
    table
}

const fn classes_of_sizes() -> [u8; SIZES] {
    let mut table = [0; SIZES];
    let (mut number, mut class) = (0, 0);
    while number < SIZES {
        table[number] = class as u8;
        class += ends_class(number) as usize;
        number += 1;
    }
    table
}

/// The class of a zpage.
fn class_of(len: usize) -> usize {
    let size = len.clamp(SIZE_MIN, FRAME_SIZE);
    usize::from(OF_SIZE[(size - SIZE_MIN).div_ceil(STEP)])
}

impl Class {
    /// Neighbouring slots that share a mark.
    fn patch(&self) -> usize {
        self.slots.div_ceil(MARKS)
    }
}

/// The fill of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Parts {
    number: usize,
    live: usize,
    marks: u64,
}

impl Parts {
    fn of(fill: Fill) -> Parts {
        Parts {
            number: (fill.0 & ((1 << CLASS_BITS) - 1)) as usize,
            live: (fill.0 >> CLASS_BITS & ((1 << LIVE_BITS) - 1)) as usize,
            marks: fill.0 >> (CLASS_BITS + LIVE_BITS),
        }
    }

    fn empty(number: usize) -> Parts {
        let class = &TABLE[number];
        Parts {
            number,
            live: 0,
            marks: (1 << class.slots.div_ceil(class.patch())) - 1,
        }
    }

    fn fill(self) -> Fill {
        debug_assert!(self.live <= self.class().slots && self.marks >> MARKS == 0);
        debug_assert_eq!(self.marks == 0, self.live == self.class().slots);
        Fill(
            self.number as u64
                | (self.live as u64) << CLASS_BITS
                | self.marks << (CLASS_BITS + LIVE_BITS),
        )
    }

    fn class(self) -> &'static Class {
        &TABLE[self.number]
    }
}

impl Packing for Zsmalloc {
    const RUNS: &'static [Run] = &[
        Run::of_frames(1),
        Run::of_frames(2),
        Run::of_frames(3),
        Run::of_frames(4),
        Run::of_frames(5),
        Run::of_frames(6),
        Run::of_frames(7),
        Run::of_frames(8),
    ];
    const GROUP_BINS: usize = FULLNESS;

    fn empty(len: usize) -> Fill {
        Parts::empty(class_of(len)).fill()
    }

    fn run(fill: Fill) -> Run {
        Parts::of(fill).class().run
    }

    fn bins_for(len: usize) -> Range<usize> {
        let first = class_of(len) * FULLNESS;
        first..first + FULLNESS
    }

    fn bin_of(fill: Fill) -> Option<usize> {
        let parts = Parts::of(fill);
        let slots = parts.class().slots;
        let dead = (slots - parts.live).checked_sub(1)?;
        Some(parts.number * FULLNESS + dead * FULLNESS / slots)
    }

    fn used_bytes(fill: Fill) -> u32 {
        let parts = Parts::of(fill);
        let class = parts.class();
        // A slot's share of the run, so that free bytes say how many slots are free.
        (parts.live * class.run.bytes() / class.slots) as u32
    }

    fn place<F: Frames>(
        frames: &mut F,
        entries: &mut Entries,
        site: Site,
        fill: &mut Fill,
        len: usize,
    ) -> Checked<Placed> {
        let mut parts = Parts::of(*fill);
        let class = parts.class();
        ensure(len <= class.size)?;
        ensure(parts.live < class.slots)?;
        while parts.marks != 0 {
            let mark = parts.marks.trailing_zeros() as usize;
            let first = mark * class.patch();
            let patch = first..class.slots.min(first + class.patch());
            let live = live_slots(frames, entries, site, class, &patch)?;
            let mut dead = patch.filter(|slot| live >> (slot - first) & 1 == 0);
            let slot = dead.next();
            if dead.next().is_none() {
                parts.marks &= !(1 << mark);
            }
            let Some(slot) = slot else { continue };
            parts.live += 1;
            if parts.live == class.slots {
                parts.marks = 0;
            }
            *fill = parts.fill();
            return Ok(Placed {
                offset: slot * class.size,
                compacted: false,
            });
        }
        Err(Damaged::New)
    }

    fn remove(fill: Fill, offset: usize, _len: usize, _gap: Gap) -> Checked<Fill> {
        let mut parts = Parts::of(fill);
        let class = parts.class();
        parts.live = parts.live.checked_sub(1).ok_or(Damaged::New)?;
        let slot = offset / class.size;
        ensure(slot < class.slots)?;
        parts.marks |= 1 << (slot / class.patch());
        Ok(parts.fill())
    }

    fn emptied(fill: Fill) -> Fill {
        Parts::empty(Parts::of(fill).number).fill()
    }

    fn claim(fill: Fill, offset: usize, len: usize) -> Option<Fill> {
        let mut parts = Parts::of(fill);
        let class = parts.class();
        let slot = offset / class.size;
        if !offset.is_multiple_of(class.size) || slot >= class.slots || len > class.size {
            return None;
        }
        parts.live += 1;
        if class.patch() == 1 {
            parts.marks &= !(1 << slot);
        }
        if parts.live == class.slots {
            parts.marks = 0;
        }
        Some(parts.fill())
    }
}

/// The slots of a patch that a zpage lies in, a bit each.
fn live_slots<F: Frames>(
    frames: &F,
    entries: &Entries,
    site: Site,
    class: &Class,
    patch: &Range<usize>,
) -> Checked<u64> {
    if patch.len() == 1 {
        return Ok(0);
    }
    let mut live = 0;
    for member in walk_from(frames, entries, site.block, Ok(site.first)) {
        let (_, span) = member?;
        let slot = span.offset / class.size;
        if patch.contains(&slot) {
            live |= 1 << (slot - patch.start);
        } else if slot >= patch.end {
            break;
        }
    }
    Ok(live)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Gap = Gap {
        start: 0,
        end: None,
    };

    #[test]
    fn the_classes_rise_and_waste_little() {
        for (number, class) in TABLE.iter().enumerate() {
            assert!(class.slots * class.size <= class.run.bytes());
            assert!(class.slots < 1 << LIVE_BITS);
            assert!(class.slots.div_ceil(class.patch()) <= MARKS);
            if number > 0 {
                assert!(TABLE[number - 1].size < class.size);
            }
            // No run of another length holds more of them in a frame.
            for frames in 1..=Run::FRAMES_MAX {
                let run = Run::of_frames(frames);
                let slots = run.bytes() / class.size;
                assert!(slots * class.run.bytes() <= class.slots * run.bytes());
            }
        }
        let last = TABLE[CLASSES - 1];
        assert_eq!(
            (last.size, last.slots, last.run),
            (FRAME_SIZE, 1, Run::FRAME)
        );
    }

    #[test]
    fn every_length_has_the_smallest_class_that_holds_it() {
        for len in 1..=4096 {
            let class = class_of(len);
            assert!(TABLE[class].size >= len);
            assert!(class == 0 || TABLE[class - 1].size < len);
            let bin = Zsmalloc::bin_of(Zsmalloc::empty(len)).expect("an empty block has room");
            assert!(Zsmalloc::bins_for(len).contains(&bin));
        }
    }

    #[test]
    fn the_awkward_sizes_are_cut_from_eight_and_three_frames() {
        let cut = |len: usize| {
            let class = TABLE[class_of(len)];
            (class.slots, class.run.frames())
        };
        assert_eq!(cut(2057), (15, 8));
        assert_eq!(cut(3081), (9, 7));
        assert_eq!(cut(4096), (1, 1));
        assert_eq!(cut(1), (128, 1));
    }

    #[test]
    fn fuller_blocks_have_lower_bins_and_full_ones_none() {
        for (number, class) in TABLE.iter().enumerate() {
            let mut fill = Parts::empty(number).fill();
            assert_eq!(Zsmalloc::used_bytes(fill), 0);
            let group = number * FULLNESS..(number + 1) * FULLNESS;
            let mut before = group.end - 1;
            for slot in 0..class.slots {
                let bin = Zsmalloc::bin_of(fill).expect("there is room");
                assert!(group.contains(&bin) && bin <= before, "{class:?}");
                before = bin;
                let mut parts = Parts::of(fill);
                parts.live += 1;
                if (slot + 1) % class.patch() == 0 || slot + 1 == class.slots {
                    parts.marks &= !(1 << (slot / class.patch()));
                }
                fill = parts.fill();
                assert_eq!(Zsmalloc::run(fill), class.run);
            }
            assert_eq!(Zsmalloc::bin_of(fill), None);
            assert_eq!(Zsmalloc::used_bytes(fill) as usize, class.run.bytes());
            for slot in 0..class.slots {
                fill = Zsmalloc::remove(fill, slot * class.size, 1, GAP).unwrap();
            }
            assert_eq!(fill, Parts::empty(number).fill());
        }
    }
}
