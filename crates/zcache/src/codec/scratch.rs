//! The compressors' working memory, one set for each thread, and the two
//! functions that use it. Contexts are made at a thread's first page and reused,
//! because making a zstd context costs more than compressing a page.
//!
//! A thread that gets no memory for a compressor keeps pages as they are. One
//! that gets none for a decompressor uses the spare one of the process, which
//! [`prepare`] made before there was any page: so nothing that was stored is
//! ever out of reach for want of memory.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into};
use zstd_safe::{CCtx, CParameter, DCtx};

#[cfg(feature = "schedules")]
use crate::sync::local::LocalRefCell;

use super::{Codec, DecodeError, Dictionary, Encoder, Kind};
use crate::page::{PAGE_SIZE, Page};

/// The compression level: level 3 gains 2% for 15% more time.
pub(crate) const ZSTD_LEVEL: i32 = 1;

/// Room for the worst expansion of either format on one page: lz4 documents
/// `n + n / 255 + 16`, and lz4_flex asks for 1.1 n + 20.
const OUT_BYTES: usize = PAGE_SIZE + PAGE_SIZE / 8 + 64;

/// The hash table of lz4_flex for inputs below 64 KiB: 4096 entries of 16 bits.
const LZ4_TABLE_BYTES: usize = 4096 * 2;

/// Bytes of every thread's working memory, of all stores of the process.
static CONTEXT_BYTES: AtomicU64 = AtomicU64::new(0);

/// RAM of the codecs of all threads now, in bytes.
pub(crate) fn context_bytes() -> u64 {
    CONTEXT_BYTES.load(Relaxed)
}

/// The decompressor of threads that get no memory for one of their own. Until
/// one does, hardly any of it is touched, so it takes two or three frames of RAM.
static SPARE: Mutex<Option<DCtx<'static>>> = Mutex::new(None);

/// Makes sure that every zpage can be decompressed from now on. False when the
/// system gives no memory.
pub(crate) fn prepare() -> bool {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    if spare.is_none() {
        *spare = DCtx::try_create();
    }
    spare.is_some()
}

struct Scratch {
    /// What this thread added to `CONTEXT_BYTES`.
    counted_bytes: u64,
    /// Of that, what the compressor takes.
    compress_bytes: u64,
    lz4: CompressTable,
    // Contexts are boxed by zstd itself; `None` until this thread needs one.
    compress: Option<CCtx<'static>>,
    decompress: Option<DCtx<'static>>,
    out: Box<[u8; OUT_BYTES]>,
}

crate::sync::thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// A zpage as [`encode`] hands it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encoded<'a> {
    /// What the bytes are.
    pub kind: Kind,
    /// The zpage; 8 bytes for [`Kind::Same`], at most [`PAGE_SIZE`] for others.
    pub bytes: &'a [u8],
}

/// Compresses a page and hands the zpage to `take`, which must not call
/// [`encode`] itself.
///
/// # Panics
/// When `take` calls `encode` on the same thread.
pub fn encode<R>(codec: Codec, page: &Page, take: impl FnOnce(Encoded<'_>) -> R) -> R {
    encode_by(page, take, |scratch| scratch.compress(codec, page))
}

/// The same by Zstandard with a dictionary: a zpage of [`Kind::Zstd`] is read by
/// [`decode_with`] and that dictionary.
///
/// # Panics
/// As [`encode`].
pub fn encode_with<R>(encoder: &Encoder, page: &Page, take: impl FnOnce(Encoded<'_>) -> R) -> R {
    encode_by(page, take, |scratch| scratch.compress_with(encoder, page))
}

fn encode_by<R>(
    page: &Page,
    take: impl FnOnce(Encoded<'_>) -> R,
    compress: impl FnOnce(&mut Scratch) -> Option<(Kind, usize)>,
) -> R {
    if let Some(word) = repeated_word(page) {
        return take(Encoded {
            kind: Kind::Same,
            bytes: &word,
        });
    }
    SCRATCH.with_borrow_mut(|scratch| match compress(scratch) {
        Some((kind, len)) => take(Encoded {
            kind,
            bytes: &scratch.out[..len],
        }),
        None => take(Encoded {
            kind: Kind::Raw,
            bytes: page,
        }),
    })
}

/// Decompresses a zpage into `out`.
///
/// # Errors
/// [`DecodeError`] when the bytes are not a whole page under this kind; `out`
/// then holds bytes of no meaning.
pub fn decode(kind: Kind, bytes: &[u8], out: &mut Page) -> Result<(), DecodeError> {
    decode_by(kind, None, bytes, out)
}

/// Decompresses a zpage that was made with a dictionary.
///
/// With another dictionary than that it was made with, this may give another
/// page: [`Dictionary::checksum`] tells.
///
/// # Errors
/// As [`decode`], and for every kind but [`Kind::Zstd`], which alone has
/// dictionaries.
pub fn decode_with(
    dictionary: &Dictionary,
    kind: Kind,
    bytes: &[u8],
    out: &mut Page,
) -> Result<(), DecodeError> {
    match kind {
        Kind::Zstd => decode_by(kind, Some(dictionary), bytes, out),
        _ => Err(DecodeError),
    }
}

fn decode_by(
    kind: Kind,
    dictionary: Option<&Dictionary>,
    bytes: &[u8],
    out: &mut Page,
) -> Result<(), DecodeError> {
    let len = match kind {
        Kind::Same => fill(bytes, out)?,
        Kind::Raw => {
            *out = *<&Page>::try_from(bytes).map_err(|_| DecodeError)?;
            PAGE_SIZE
        }
        Kind::Lz4 => decompress_into(bytes, out).map_err(|_| DecodeError)?,
        Kind::Zstd => SCRATCH
            .with_borrow_mut(|scratch| scratch.zstd_decompress(dictionary, bytes, out))
            .ok_or(DecodeError)?,
    };
    if len == PAGE_SIZE {
        Ok(())
    } else {
        Err(DecodeError)
    }
}

impl Scratch {
    fn new() -> Scratch {
        let mut scratch = Scratch {
            counted_bytes: 0,
            compress_bytes: 0,
            lz4: CompressTable::small(),
            compress: None,
            decompress: None,
            out: Box::new([0; OUT_BYTES]),
        };
        scratch.count((LZ4_TABLE_BYTES + OUT_BYTES) as u64);
        scratch
    }

    fn count(&mut self, bytes: u64) {
        self.counted_bytes += bytes;
        CONTEXT_BYTES.fetch_add(bytes, Relaxed);
    }

    /// The kind and length of what is now in `out`, or `None` if the page did
    /// not shrink.
    fn compress(&mut self, codec: Codec, page: &Page) -> Option<(Kind, usize)> {
        let (kind, len) = match codec {
            Codec::Lz4 => {
                let out = &mut self.out[..];
                let len = compress_into_with_table(page, out, &mut self.lz4).ok()?;
                (Kind::Lz4, len)
            }
            Codec::Zstd => (Kind::Zstd, self.zstd_compress(page)?),
            Codec::Raw => return None,
        };
        (len < PAGE_SIZE).then_some((kind, len))
    }

    fn zstd_compress(&mut self, page: &Page) -> Option<usize> {
        self.with_compressor(|context, out| context.compress2(out, page).ok())
    }

    fn compress_with(&mut self, encoder: &Encoder, page: &Page) -> Option<(Kind, usize)> {
        let tables = &encoder.tables;
        let len = self
            .with_compressor(|context, out| context.compress_using_cdict(out, page, tables).ok())?;
        (len < PAGE_SIZE).then_some((Kind::Zstd, len))
    }

    fn with_compressor(
        &mut self,
        compress: impl FnOnce(&mut CCtx<'static>, &mut [u8]) -> Option<usize>,
    ) -> Option<usize> {
        if self.compress.is_none() {
            self.compress = Some(compressor()?);
        }
        let context = self.compress.as_mut()?;
        // A page that needs more than this is kept raw, so zstd may give up
        // early.
        let len = compress(context, &mut self.out[..PAGE_SIZE]);
        // Zstd sizes its tables at the first page of a level.
        let bytes = context.sizeof() as u64;
        if bytes > self.compress_bytes {
            self.count(bytes - self.compress_bytes);
            self.compress_bytes = bytes;
        }
        len
    }

    fn zstd_decompress(
        &mut self,
        dictionary: Option<&Dictionary>,
        bytes: &[u8],
        out: &mut Page,
    ) -> Option<usize> {
        if self.decompress.is_none() {
            self.decompress = decompressor();
            let bytes = self.decompress.as_ref().map_or(0, DCtx::sizeof);
            self.count(bytes as u64);
        }
        match &mut self.decompress {
            Some(context) => decompress(context, dictionary, bytes, out),
            None => {
                let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
                decompress(spare.as_mut()?, dictionary, bytes, out)
            }
        }
    }
}

fn decompress(
    context: &mut DCtx<'static>,
    dictionary: Option<&Dictionary>,
    bytes: &[u8],
    out: &mut Page,
) -> Option<usize> {
    let out = &mut out[..];
    match dictionary {
        None => context.decompress(out, bytes).ok(),
        Some(dictionary) => context
            .decompress_using_ddict(out, bytes, dictionary.decoder())
            .ok(),
    }
}

/// A decompressor, unless the system, or a test in its place, gives no memory.
fn decompressor() -> Option<DCtx<'static>> {
    #[cfg(test)]
    if DENIED.get() {
        return None;
    }
    DCtx::try_create()
}

#[cfg(test)]
thread_local! {
    /// Whether this thread gets no memory for a decompressor.
    pub(super) static DENIED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl Drop for Scratch {
    fn drop(&mut self) {
        CONTEXT_BYTES.fetch_sub(self.counted_bytes, Relaxed);
    }
}

/// A zstd context whose frames carry neither checksum nor size, which are kept
/// beside the zpage.
fn compressor() -> Option<CCtx<'static>> {
    let mut context = CCtx::try_create()?;
    for parameter in [
        CParameter::CompressionLevel(ZSTD_LEVEL),
        CParameter::ChecksumFlag(false),
        CParameter::ContentSizeFlag(true),
        CParameter::DictIdFlag(false),
    ] {
        context.set_parameter(parameter).ok()?;
    }
    Some(context)
}

fn repeated_word(page: &Page) -> Option<[u8; 8]> {
    let (words, _) = page.as_chunks::<8>();
    let first = words[0];
    // The middle and the end differ in most pages that are not same-filled.
    if words[words.len() / 2] != first || words[words.len() - 1] != first {
        return None;
    }
    words.iter().all(|word| *word == first).then_some(first)
}

fn fill(bytes: &[u8], out: &mut Page) -> Result<usize, DecodeError> {
    let word = <[u8; 8]>::try_from(bytes).map_err(|_| DecodeError)?;
    out.as_chunks_mut::<8>().0.fill(word);
    Ok(PAGE_SIZE)
}
