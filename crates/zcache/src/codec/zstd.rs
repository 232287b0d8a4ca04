//! Zstandard frames, by the reference library, with a dictionary or without. Its
//! contexts are lent, because making one costs more than compressing a page.
//!
//! Whoever gets no memory for a compressor keeps the page as it is. Whoever gets
//! none for a decompressor waits for the spare one of the process, which
//! [`Method::prepare`] made before there was any page: so nothing that was stored
//! is ever out of reach for want of memory. Nothing but decompressing is done
//! with the spare one locked.

use std::sync::{Mutex, PoisonError};

use zstd_safe::{CCtx, CDict, CParameter, DCtx, DDict};

use super::method::{CodecCost, Method};
use crate::lend::{Lender, Lent, Working};
use crate::page::{PAGE_SIZE, Page};

/// The compression level of fresh pages: level 3 gains 2% for 15% more time.
pub(super) const LEVEL_FRESH: i32 = 1;

struct Compressor(CCtx<'static>);
struct Decompressor(DCtx<'static>);

static COMPRESSORS: Lender<Compressor> = Lender::new();
static DECOMPRESSORS: Lender<Decompressor> = Lender::new();

/// Until somebody gets no memory for a decompressor, hardly any of it is touched,
/// so it takes two or three frames of RAM.
static SPARE: Mutex<Option<Decompressor>> = Mutex::new(None);

pub(super) struct Zstd;

impl Method for Zstd {
    fn name(&self) -> &'static str {
        "zstd"
    }

    fn about(&self) -> &'static str {
        "smaller"
    }

    fn has_dictionaries(&self) -> bool {
        true
    }

    fn first_cost(&self) -> CodecCost {
        CodecCost {
            encode_ns: 10_000.0,
            decode_ns: 4_600.0,
            zpage_bytes: 850.0,
        }
    }

    fn prepare(&self) -> bool {
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.is_none() {
            *spare = DCtx::try_create().map(Decompressor);
        }
        spare.is_some()
    }

    fn compress(&self, page: &Page, out: &mut [u8]) -> Option<usize> {
        let mut compressor = compressor()?;
        // A page that needs more than its own length is kept raw, so zstd may
        // give up early.
        compressor.0.compress2(&mut out[..PAGE_SIZE], page).ok()
    }

    fn decompress(&self, bytes: &[u8], out: &mut Page) -> Option<usize> {
        decompress(None, bytes, out)
    }
}

/// Compresses a page with a dictionary's tables.
pub(super) fn compress_with(tables: &CDict<'_>, page: &Page, out: &mut [u8]) -> Option<usize> {
    let out = &mut out[..PAGE_SIZE];
    let mut compressor = compressor()?;
    compressor.0.compress_using_cdict(out, page, tables).ok()
}

/// Decompresses a zpage that was made with a dictionary.
pub(super) fn decompress_with(
    dictionary: &DDict<'_>,
    bytes: &[u8],
    out: &mut Page,
) -> Option<usize> {
    decompress(Some(dictionary), bytes, out)
}

fn decompress(dictionary: Option<&DDict<'_>>, bytes: &[u8], out: &mut Page) -> Option<usize> {
    if let Some(mut lent) = decompressor() {
        return lent.decompress(dictionary, bytes, out);
    }
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    spare.as_mut()?.decompress(dictionary, bytes, out)
}

/// A context whose frames carry neither checksum nor a dictionary's number, which
/// are kept beside the zpage.
fn compressor() -> Option<Lent<'static, Compressor>> {
    COMPRESSORS.try_lend(|| {
        let mut context = CCtx::try_create()?;
        for parameter in [
            CParameter::CompressionLevel(LEVEL_FRESH),
            CParameter::ChecksumFlag(false),
            CParameter::ContentSizeFlag(true),
            CParameter::DictIdFlag(false),
        ] {
            context.set_parameter(parameter).ok()?;
        }
        Some(Compressor(context))
    })
}

/// A decompressor, unless the system, or a test in its place, gives no memory.
fn decompressor() -> Option<Lent<'static, Decompressor>> {
    #[cfg(test)]
    if DENIED.get() {
        return None;
    }
    DECOMPRESSORS.try_lend(|| DCtx::try_create().map(Decompressor))
}

#[cfg(test)]
thread_local! {
    /// Whether this thread gets no memory for a decompressor.
    pub(super) static DENIED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl Decompressor {
    fn decompress(
        &mut self,
        dictionary: Option<&DDict<'_>>,
        bytes: &[u8],
        out: &mut Page,
    ) -> Option<usize> {
        let out = &mut out[..];
        match dictionary {
            None => self.0.decompress(out, bytes).ok(),
            Some(dictionary) => self.0.decompress_using_ddict(out, bytes, dictionary).ok(),
        }
    }
}

impl Working for Compressor {
    /// Zstd sizes its tables at the first page of a level.
    fn bytes(&self) -> u64 {
        self.0.sizeof() as u64
    }
}

impl Working for Decompressor {
    fn bytes(&self) -> u64 {
        self.0.sizeof() as u64
    }
}
