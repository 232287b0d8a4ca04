//! The corpus in zcache: one store for each program, as each `zcache run` has one.

use std::time::Instant;

use zcache::codec;
use zcache::{Allocator, Codec, Key, ObjectId, PoolKind, Store, StoreConfig};

use super::{Corpus, Page, Run};
use crate::corpus::PAGE_BYTES;
use crate::host::HostError;

/// One page in so many is decoded by itself, to know the time of a single one.
const DECODE_STRIDE: usize = 16;

/// Puts the corpus, looks at the stores, and gets it back.
pub(super) fn run(codec: Codec, allocator: Allocator, corpus: &Corpus) -> Result<Run, HostError> {
    let failed = |said: String| HostError::Command {
        line: format!("zcache with {codec} and {}", allocator.name()),
        detail: said,
    };
    let mut run = Run::new((corpus.pages() * PAGE_BYTES) as u64, corpus.pages() as u64);
    let mut load_ns = Vec::with_capacity(corpus.pages());
    let mut decode_ns = Vec::new();
    for pages in &corpus.sources {
        let bytes = (pages.len() * PAGE_BYTES) as u64;
        let store = Store::open(StoreConfig {
            pool_bytes_max: bytes * 2,
            codec,
            allocator,
            ..StoreConfig::default()
        });
        let store = store.map_err(|error| failed(error.to_string()))?;
        let pool = store.create_pool(PoolKind::Persistent);
        let key = |index: usize| Key {
            pool,
            object: ObjectId([0, 0, 1]),
            index: index as u32,
        };
        let clock = Instant::now();
        for (index, page) in pages.iter().enumerate() {
            store
                .put(&key(index), page)
                .map_err(|error| failed(error.to_string()))?;
        }
        run.store_seconds += clock.elapsed().as_secs_f64();
        let ram_bytes = store.ram_bytes();
        run.sources.push((bytes, ram_bytes));
        run.ram_bytes += ram_bytes;
        let mut out = [0; PAGE_BYTES];
        for (index, page) in pages.iter().enumerate() {
            let clock = Instant::now();
            let found = store
                .get(&key(index), &mut out)
                .map_err(|error| failed(error.to_string()))?;
            let time = clock.elapsed();
            run.load_seconds += time.as_secs_f64();
            load_ns.push(time.as_nanos() as u64);
            run.wrong_pages += u64::from(!found || out != *page);
        }
        decode_ns.extend(
            pages
                .iter()
                .step_by(DECODE_STRIDE)
                .filter_map(|page| decode(codec, page)),
        );
    }
    run.load_ns_p50 = median(&mut load_ns);
    run.decode_ns_p50 = median(&mut decode_ns);
    Ok(run)
}

/// The time to decompress a page alone; none for a page that needs none.
fn decode(codec: Codec, page: &Page) -> Option<u64> {
    let (kind, zpage) = codec::encode(codec, page, |zpage| (zpage.kind, zpage.bytes.to_vec()));
    let mut out = [0; PAGE_BYTES];
    let clock = Instant::now();
    codec::decode(kind, &zpage, &mut out).ok()?;
    let time = clock.elapsed().as_nanos() as u64;
    matches!(kind, codec::Kind::Lz4 | codec::Kind::Zstd).then_some(time)
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}
