//! Size classes: a block is a run of 1 to 8 frames, cut into equal slots.
//!
//! Stage on the data path: see `packing`. A zpage with its header goes into the smallest class that holds it. Sizes rise
//! by 16 bytes; each is cut from the run that wastes least of itself, and neighbouring sizes that give as many slots in
//! as many frames are one class. A slot may lie across frames. Within a class every slot is as good as any other, so
//! nothing ever moves within a block; blocks are emptied into others of their class by evacuation.
//!
//! A class has its own group of bins, by how full its blocks are: the fullest are filled first, the emptiest emptied
//! first. A zpage that leaves no room for a header in a frame (4089 to 4096 bytes) has a frame to itself.
//!
//! ```text
//! | header 8 | zpage .. pad | header 8 | zpage .. pad | ... | waste |
//! 0                         size                     slots * size   run
//! fill: class (8 bits), live slots (9), marks (46): a bit for each patch of neighbouring slots, set when one is dead
//!       or a whole frame, see `chunks`
//! ```
//!
//! Invariants:
//! - a slot is live exactly when the entry that its header names lies in it; frames come with any bytes, so a header may
//!   name any entry, and an entry lies in one place only
//! - a mark is set exactly when a slot of its patch is dead; a patch is one slot in blocks of at most 46
//! - in a bin exactly when not all slots are live; the class never changes
//!
//! Does not: hold a zpage in a larger class than its own, so a class with few zpages has a block that is mostly empty.

use core::ops::Range;

use super::chunks::{HEADED_MAX, whole, whole_entry};
use super::{BINS, Candidate, Fill, HEADER, Packing, Placed, Site, write_header};
use crate::entry::Entries;
use crate::frames::{FRAME_SIZE, Frames, Run};
use crate::table::read_word;

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
    CLASS_BITS + LIVE_BITS + MARKS as u32 == 63,
    "the last bit marks a whole frame"
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

/// The class of a zpage; one that has a frame to itself is in the last.
fn class_of(len: usize) -> usize {
    let size = (HEADER + len).clamp(SIZE_MIN, FRAME_SIZE);
    usize::from(OF_SIZE[(size - SIZE_MIN).div_ceil(STEP)])
}

impl Class {
    /// Neighbouring slots that share a mark.
    fn patch(&self) -> usize {
        self.slots.div_ceil(MARKS)
    }
}

/// The fill of a block that is not whole.
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
        match whole_entry(fill) {
            Some(_) => Run::FRAME,
            None => Parts::of(fill).class().run,
        }
    }

    fn bins_for(len: usize) -> Range<usize> {
        if len > HEADED_MAX {
            return 0..0;
        }
        let first = class_of(len) * FULLNESS;
        first..first + FULLNESS
    }

    fn bin_of(fill: Fill) -> Option<usize> {
        if whole_entry(fill).is_some() {
            return None;
        }
        let parts = Parts::of(fill);
        let slots = parts.class().slots;
        let dead = (slots - parts.live).checked_sub(1)?;
        Some(parts.number * FULLNESS + dead * FULLNESS / slots)
    }

    fn used_bytes(fill: Fill) -> u32 {
        if whole_entry(fill).is_some() {
            return FRAME_SIZE as u32;
        }
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
        entry: u32,
        len: usize,
    ) -> Placed {
        let mut parts = Parts::of(*fill);
        if len > HEADED_MAX {
            assert_eq!(*fill, Self::empty(len), "a whole frame was asked for");
            *fill = whole(entry);
            return Placed {
                offset: 0,
                compacted: false,
            };
        }
        let class = parts.class();
        assert_ne!(parts.marks, 0, "the bins promised room");
        let mark = parts.marks.trailing_zeros() as usize;
        let patch = mark * class.patch()..class.slots.min((mark + 1) * class.patch());
        let bytes = frames.bytes(site.frame, class.run);
        let mut dead = patch.filter(|slot| {
            let at = slot * class.size;
            let found = entries.len_at(frames, read_word(bytes, at), site.block, at + HEADER);
            found.is_none()
        });
        let slot = dead.next().expect("a slot of a marked patch is dead");
        if dead.next().is_none() {
            parts.marks &= !(1 << mark);
        }
        parts.live += 1;
        *fill = parts.fill();
        let at = slot * class.size;
        write_header(frames.bytes_mut(site.frame, class.run), at, entry, len);
        Placed {
            offset: at + HEADER,
            compacted: false,
        }
    }

    fn remove(fill: &mut Fill, offset: usize, len: usize) {
        if whole_entry(*fill).is_some() {
            *fill = Self::empty(len);
            return;
        }
        let mut parts = Parts::of(*fill);
        let class = parts.class();
        parts.live -= 1;
        parts.marks |= 1 << (offset / class.size / class.patch());
        *fill = parts.fill();
    }

    fn walk(fill: Fill, bytes: &[u8], cursor: usize) -> Option<(Candidate, usize)> {
        if let Some(entry) = whole_entry(fill) {
            let whole = Candidate { entry, offset: 0 };
            return (cursor == 0).then_some((whole, FRAME_SIZE));
        }
        let class = Parts::of(fill).class();
        // Dead slots are candidates too; what their headers name lies elsewhere.
        if cursor >= class.slots * class.size || cursor + HEADER > bytes.len() {
            return None;
        }
        let candidate = Candidate {
            entry: read_word(bytes, cursor),
            offset: cursor + HEADER,
        };
        Some((candidate, cursor + class.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(TABLE[class].size >= (HEADER + len).min(FRAME_SIZE));
            assert!(class == 0 || TABLE[class - 1].size < HEADER + len);
            let bin = Zsmalloc::bin_of(Zsmalloc::empty(len)).expect("an empty block has room");
            assert_eq!(Zsmalloc::bins_for(len).contains(&bin), len <= HEADED_MAX);
        }
    }

    #[test]
    fn the_awkward_sizes_are_cut_from_eight_and_three_frames() {
        let cut = |len: usize| {
            let class = TABLE[class_of(len)];
            (class.slots, class.run.frames())
        };
        assert_eq!(cut(2049), (15, 8));
        assert_eq!(cut(3073), (9, 7));
        assert_eq!(cut(4088), (1, 1));
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
                Zsmalloc::remove(&mut fill, slot * class.size + HEADER, 1);
            }
            assert_eq!(fill, Parts::empty(number).fill());
        }
    }

    #[test]
    fn short_bytes_end_the_walk() {
        let fill = Zsmalloc::empty(2000);
        assert_eq!(Zsmalloc::walk(fill, &[], 0), None);
        assert_eq!(Zsmalloc::walk(fill, &[1; HEADER - 1], 0), None);
        let (_, next) = Zsmalloc::walk(fill, &[1; HEADER], 0).unwrap();
        assert_eq!(Zsmalloc::walk(fill, &[1; HEADER], next), None);
    }
}
