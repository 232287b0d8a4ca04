//! LZ4 blocks, by lz4_flex. It decompresses without working memory.

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into};

use super::method::{CodecCost, Method};
use crate::lend::{Lender, Working};
use crate::page::Page;

/// The hash table of lz4_flex for inputs below 64 KiB: 4096 entries of 16 bits.
const TABLE_BYTES: u64 = 4096 * 2;

struct Table(CompressTable);

static TABLES: Lender<Table> = Lender::new();

impl Working for Table {
    fn bytes(&self) -> u64 {
        TABLE_BYTES
    }
}

pub(super) struct Lz4;

impl Method for Lz4 {
    fn name(&self) -> &'static str {
        "lz4"
    }

    fn about(&self) -> &'static str {
        "faster"
    }

    fn first_cost(&self) -> CodecCost {
        CodecCost {
            encode_ns: 5_000.0,
            decode_ns: 1_800.0,
            zpage_bytes: 1_300.0,
        }
    }

    fn compress(&self, page: &Page, out: &mut [u8]) -> Option<usize> {
        let mut table = TABLES.lend(|| Table(CompressTable::small()));
        compress_into_with_table(page, out, &mut table.0).ok()
    }

    fn decompress(&self, bytes: &[u8], out: &mut Page) -> Option<usize> {
        decompress_into(bytes, out).ok()
    }
}
