//! Packings: how zpages lie within one block. This is the seam that the allocators share.
//!
//! Stage on the data path: between the choice of a block and the bytes in it. The shard owns the blocks, their lists and
//! the entries; a packing decides how long the run of a block is, which bin a block belongs to, where in a block a zpage goes, and
//! how to find the zpages again from the block's bytes alone.
//!
//! - `granule`: the default, 16 KiB filled best-fit
//! - `zbud`, `ztri`: two, or three, in a frame of 4 KiB
//! - `zsmalloc`: size classes in runs of 1 to 8 frames
//!
//! Invariants:
//! - a block in a bin of `bins_for(len)` has room for `len` bytes after at most one compaction of that block
//! - the empty block that is made for a length has room for it
//! - `walk` finds every live zpage; what else it finds is told apart by asking the entry it names
//!
//! Does not: choose between blocks, or know about tiers.

mod chunks;
mod granule;
mod zbud;
mod zsmalloc;
mod ztri;

use core::ops::Range;

use crate::entry::Entries;
use crate::frames::{FrameId, Frames, Run};

/// Bins that a packing may use.
pub(crate) const BINS: usize = 384;

/// Bytes before a zpage that name its entry: token (4), length (2), zero (2).
pub(crate) const HEADER: usize = 8;

/// The longest length in a header: that of a filler over all of a block.
const LEN_MAX: usize = Run::BLOCK.bytes() - HEADER;

/// How full a block is, and what kind of block: 64 bits in the block record that only the packing interprets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fill(pub(crate) u64);

/// A block in RAM, as a packing needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// Block token.
    pub(crate) block: u32,
    /// Its bytes.
    pub(crate) frame: FrameId,
}

/// What a walk finds: a zpage that was once placed here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    /// The entry it was placed for.
    pub(crate) entry: u32,
    /// First byte of the zpage.
    pub(crate) offset: usize,
}

/// Where a zpage was placed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Placed {
    /// First byte of the zpage, a multiple of 8 below 32768.
    pub(crate) offset: usize,
    /// Whether the block was compacted for it.
    pub(crate) compacted: bool,
}

/// One way to pack zpages into a block.
trait Packing {
    /// The runs that blocks may be, the longest last.
    const RUNS: &'static [Run];

    /// Bins come in groups of this many: a zpage of a block can move to the blocks in the bins of its group and to no
    /// others.
    const GROUP_BINS: usize;

    /// The fill of an empty block that is made for a zpage of `len` bytes.
    fn empty(len: usize) -> Fill;

    /// The run that a block with this fill is. It is the same as long as the block lives.
    fn run(fill: Fill) -> Run;

    /// The bins whose blocks have room for a zpage of `len` bytes, the tightest first.
    fn bins_for(len: usize) -> Range<usize>;

    /// The bin of a block; `None` when it can take no zpage at all.
    fn bin_of(fill: Fill) -> Option<usize>;

    /// Bytes that live zpages take, with headers and rounding.
    fn used_bytes(fill: Fill) -> u32;

    /// Makes room for a zpage and writes its header. May move other zpages of the block and then tells their entries.
    fn place<F: Frames>(
        frames: &mut F,
        entries: &mut Entries,
        site: Site,
        fill: &mut Fill,
        entry: u32,
        len: usize,
    ) -> Placed;

    /// Accounts for a zpage that went away. Does not touch the block's bytes.
    fn remove(fill: &mut Fill, offset: usize, len: usize);

    /// The first zpage at or after a cursor (0 to begin) and the cursor to go on from. The bytes may come from a tier
    /// and be damaged: the walk ends early rather than panic.
    fn walk(fill: Fill, bytes: &[u8], cursor: usize) -> Option<(Candidate, usize)>;
}

/// How zpages are packed into blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Allocator {
    /// 16 KiB blocks filled in 16-byte granules, best fit: 10 to 15 zpages a block, the default.
    #[default]
    Block,
    /// At most two zpages in a 4 KiB frame, in 64-byte chunks, as zbud did in 2013: the reference.
    Zbud,
    /// At most three zpages in a 4 KiB frame, in 64-byte chunks.
    Ztri,
    /// Size classes, each cut from runs of the 1 to 8 frames that waste least.
    Zsmalloc,
}

macro_rules! dispatch {
    ($allocator:expr, $packing:ident => $body:expr) => {
        match $allocator {
            Allocator::Block => {
                type $packing = granule::Granule;
                $body
            }
            Allocator::Zbud => {
                type $packing = zbud::Zbud;
                $body
            }
            Allocator::Ztri => {
                type $packing = ztri::Ztri;
                $body
            }
            Allocator::Zsmalloc => {
                type $packing = zsmalloc::Zsmalloc;
                $body
            }
        }
    };
}

impl Allocator {
    /// Every allocator, the default first.
    pub const ALL: [Allocator; 4] = [
        Allocator::Block,
        Allocator::Zbud,
        Allocator::Ztri,
        Allocator::Zsmalloc,
    ];

    /// The runs that its blocks may be, the longest last.
    #[must_use]
    pub const fn runs(self) -> &'static [Run] {
        dispatch!(self, P => <P as Packing>::RUNS)
    }

    pub(crate) const fn group_bins(self) -> usize {
        dispatch!(self, P => <P as Packing>::GROUP_BINS)
    }

    pub(crate) fn empty(self, len: usize) -> Fill {
        dispatch!(self, P => P::empty(len))
    }

    pub(crate) fn run(self, fill: Fill) -> Run {
        dispatch!(self, P => P::run(fill))
    }

    pub(crate) fn bins_for(self, len: usize) -> Range<usize> {
        dispatch!(self, P => P::bins_for(len))
    }

    pub(crate) fn bin_of(self, fill: Fill) -> Option<usize> {
        dispatch!(self, P => P::bin_of(fill))
    }

    pub(crate) fn used_bytes(self, fill: Fill) -> u32 {
        dispatch!(self, P => P::used_bytes(fill))
    }

    /// Bytes of the block that no live zpage takes.
    pub(crate) fn free_bytes(self, fill: Fill) -> u32 {
        self.run(fill).bytes() as u32 - self.used_bytes(fill)
    }

    pub(crate) fn place<F: Frames>(
        self,
        frames: &mut F,
        entries: &mut Entries,
        site: Site,
        fill: &mut Fill,
        entry: u32,
        len: usize,
    ) -> Placed {
        dispatch!(self, P => P::place(frames, entries, site, fill, entry, len))
    }

    pub(crate) fn remove(self, fill: &mut Fill, offset: usize, len: usize) {
        dispatch!(self, P => P::remove(fill, offset, len));
    }

    pub(crate) fn walk(
        self,
        fill: Fill,
        bytes: &[u8],
        cursor: usize,
    ) -> Option<(Candidate, usize)> {
        dispatch!(self, P => P::walk(fill, bytes, cursor))
    }
}

/// Writes the header of a zpage.
fn write_header(bytes: &mut [u8], at: usize, entry: u32, len: usize) {
    bytes[at..at + 4].copy_from_slice(&entry.to_le_bytes());
    bytes[at + 4..at + 6].copy_from_slice(&(len as u16).to_le_bytes());
    bytes[at + 6..at + HEADER].fill(0);
}

/// Entry and length from a header, or `None` when the bytes are too short or no header has this length.
fn read_header(bytes: &[u8], at: usize) -> Option<(u32, usize)> {
    let header: &[u8; HEADER] = bytes.get(at..at + HEADER)?.try_into().ok()?;
    let entry = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let len = usize::from(u16::from_le_bytes([header[4], header[5]]));
    (1..=LEN_MAX).contains(&len).then_some((entry, len))
}
