//! Packings: how zpages lie within one block. This is the seam that the allocators share.
//!
//! Stage on the data path: between the choice of a block and the bytes in it. The shard owns the blocks, their lists and
//! the entries; a packing decides how long the run of a block is, which bin a block belongs to, and where in a block a zpage
//! goes. Where zpages are is said by their entries (`members`); a block's bytes hold nothing else.
//!
//! - `granule`: the default, 16 KiB filled best-fit
//! - `zbud`, `ztri`: two, or three, in a frame of 4 KiB
//! - `zsmalloc`: size classes in runs of 1 to 8 frames
//!
//! Invariants:
//! - a block in a bin of `bins_for(len)` has room for `len` bytes after at most one compaction of that block
//! - the empty block that is made for a length has room for it
//! - a fill is what `claim` makes of an empty one with the zpages of the block in rising order, but for which hole is known
//!
//! Does not: choose between blocks, or know about tiers.

mod chunks;
mod granule;
mod zbud;
mod zsmalloc;
mod ztri;

use core::ops::Range;

use crate::frames::{FrameId, Frames, Run};
use crate::ids::{BlockToken, EntryToken};
use crate::tables::block::Fill;
use crate::tables::entry::Entries;
use crate::tables::members::Gap;
use crate::tables::{Checked, ensure};

/// Bins that a packing may use.
pub(crate) const BINS: usize = 384;

/// A block in RAM, as a packing needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) block: BlockToken,
    /// Its bytes.
    pub(crate) frame: FrameId,
    /// Its first zpage.
    pub(crate) first: Option<EntryToken>,
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

    /// Bytes that live zpages take, with rounding.
    fn used_bytes(fill: Fill) -> u32;

    /// Makes room for a zpage. May move other zpages of the block, in their order, and then tells their entries.
    fn place<F: Frames>(
        frames: &mut F,
        entries: &mut Entries,
        site: Site,
        fill: &mut Fill,
        len: usize,
    ) -> Checked<Placed>;

    /// Accounts for a zpage that went away from between its neighbours. Does not touch the block's bytes.
    fn remove(fill: Fill, offset: usize, len: usize, gap: Gap) -> Checked<Fill>;

    /// The fill of the same block without zpages.
    fn emptied(fill: Fill) -> Fill;

    /// The fill with a zpage that lies here, behind all that were claimed before; `None` where none can.
    fn claim(fill: Fill, offset: usize, len: usize) -> Option<Fill>;
}

/// How zpages are packed into blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Allocator {
    /// 16 KiB blocks filled in 16-byte granules, best fit, the default: 12 zpages a block with lz4, 19 with zstd, 4 that do not shrink.
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
        len: usize,
    ) -> Checked<Placed> {
        let placed = dispatch!(self, P => P::place(frames, entries, site, fill, len))?;
        ensure(placed.offset + len <= self.run(*fill).bytes())?;
        Ok(placed)
    }

    pub(crate) fn remove(self, fill: Fill, offset: usize, len: usize, gap: Gap) -> Checked<Fill> {
        dispatch!(self, P => P::remove(fill, offset, len, gap))
    }

    pub(crate) fn emptied(self, fill: Fill) -> Fill {
        dispatch!(self, P => P::emptied(fill))
    }

    pub(crate) fn claim(self, fill: Fill, offset: usize, len: usize) -> Option<Fill> {
        let within = offset + len <= self.run(fill).bytes();
        dispatch!(self, P => P::claim(fill, offset, len)).filter(|_| within)
    }
}
