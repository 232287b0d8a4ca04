//! What a codec has to be and to do. One file a codec implements it.

use crate::page::Page;

/// What a codec costs, on average.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct CodecCost {
    /// Time to compress a page, in nanoseconds.
    pub encode_ns: f64,
    /// Time to give one back, in nanoseconds.
    pub decode_ns: f64,
    /// Length of a zpage, in bytes. Only the codecs' lengths beside each other
    /// mean something: all are of the same pages.
    pub zpage_bytes: f64,
}

/// One codec. What it needs beside page and zpage it borrows for the call.
pub(super) trait Method: Sync {
    /// The name by which users choose it.
    fn name(&self) -> &'static str;

    /// Why one would choose it, in a few words.
    fn about(&self) -> &'static str;

    /// Whether it makes pages smaller at all.
    fn shrinks(&self) -> bool {
        true
    }

    /// Whether its zpages can be made with a dictionary, and then be recompressed
    /// harder.
    fn has_dictionaries(&self) -> bool {
        false
    }

    /// What it costs, for as long as that has not been measured in the process.
    /// Measured once on pages of eight programs (docs/decisions/dictionaries.md).
    fn first_cost(&self) -> CodecCost;

    /// Makes sure that it can decompress whatever memory there is later. False
    /// when the system gives none now.
    fn prepare(&self) -> bool {
        true
    }

    /// Compresses a page into `out`, which has room for the worst of its results,
    /// and returns the length. `None` when it does not shrink the page or gets no
    /// memory.
    fn compress(&self, page: &Page, out: &mut [u8]) -> Option<usize>;

    /// Decompresses a zpage and returns how many bytes came of it; `None` when it
    /// is none of this codec's.
    fn decompress(&self, bytes: &[u8], out: &mut Page) -> Option<usize>;
}
