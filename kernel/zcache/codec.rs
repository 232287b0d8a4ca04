// SPDX-License-Identifier: GPL-2.0-only

//! Pages to zpages and back, by the kernel's own lz4 and zstd.
//!
//! Invariant: a zpage is decoded only after its checksum was found right.

use zcache_core::{CodecId, Zpage};

use crate::ffi::{self, Cpu, Page};

const RAW: CodecId = CodecId::new(0);
const LZ4: CodecId = CodecId::new(1);
const ZSTD: CodecId = CodecId::new(2);

/// A zpage of more bytes saves less than an eighth of the page: it is stored as it is, and costs nothing to read.
const ZPAGE_MAX: usize = 3584;

/// What became of a page.
pub(crate) enum Encoded {
    Same(u64),
    Bytes { len: usize, codec: CodecId },
    Raw,
}

/// The word that the page is, over and over.
fn same_filled(page: &Page) -> Option<u64> {
    let (words, _) = page.as_chunks::<8>();
    let first = words[0];
    // Most pages that are not differ at their end.
    let same = words[words.len() - 1] == first && words.iter().all(|word| *word == first);
    same.then(|| u64::from_le_bytes(first))
}

/// Compresses a page into the CPU's output.
pub(crate) fn encode(cpu: &mut Cpu, page: &Page) -> Encoded {
    if let Some(word) = same_filled(page) {
        return Encoded::Same(word);
    }
    let (len, codec) = if ffi::wants_zstd() {
        (cpu.zstd(page, ZPAGE_MAX), ZSTD)
    } else {
        (cpu.lz4(page, ZPAGE_MAX), LZ4)
    };
    if len == 0 {
        Encoded::Raw
    } else {
        Encoded::Bytes { len, codec }
    }
}

impl Encoded {
    /// As the core takes it.
    pub(crate) fn zpage<'a>(&self, cpu: &'a Cpu, page: &'a Page) -> Zpage<'a> {
        let (bytes, codec) = match *self {
            Encoded::Same(word) => return Zpage::Same { word },
            Encoded::Bytes { len, codec } => (cpu.output(len), codec),
            Encoded::Raw => (&page[..], RAW),
        };
        Zpage::Bytes {
            bytes,
            codec,
            checksum: ffi::checksum(bytes),
        }
    }
}

/// Fills a page from the first `len` bytes of the CPU's input; false where they are damaged.
pub(crate) fn decode(cpu: &mut Cpu, len: usize, codec: CodecId, checksum: u32, page: &mut Page) -> bool {
    let zpage = cpu.input().get(..len);
    if zpage.map(ffi::checksum) != Some(checksum) {
        return false;
    }
    match codec {
        RAW if len == page.len() => {
            page.copy_from_slice(cpu.input());
            true
        }
        LZ4 => cpu.from_lz4(len, page),
        ZSTD => cpu.from_zstd(len, page),
        _ => false,
    }
}

/// Fills a page with one word.
pub(crate) fn fill(word: u64, page: &mut Page) {
    let (words, _) = page.as_chunks_mut::<8>();
    words.fill(word.to_le_bytes());
}
