//! The corpus in zcache: one store for each program, opened and used as each `zcache run` does: a shard
//! for each CPU, pages by handle.

use std::time::Instant;

use zcache::codec::{self, Encoder};
use zcache::{Allocator, Chooser, Codec, CodecChoice, Handle, Store, StoreConfig};

use super::contender::Way;
use super::{Corpus, Page, Run};
use crate::corpus::PAGE_BYTES;
use crate::host::HostError;

/// Pages stored between two looks at whether a dictionary is due.
const PAGES_BETWEEN_TRAININGS: usize = 64;
/// One page in so many is decoded by itself, to know the time of a single one.
const DECODE_STRIDE: usize = 16;

/// Stores the corpus, looks at the stores, and loads it again.
pub(crate) fn run(
    codec: CodecChoice,
    way: Way,
    allocator: Allocator,
    corpus: &Corpus,
) -> Result<Run, HostError> {
    let failed = |said: String| HostError::Command {
        line: format!("zcache with {codec} and {}", allocator.name()),
        detail: said,
    };
    let mut run = Run::new((corpus.pages() * PAGE_BYTES) as u64, corpus.pages() as u64);
    let mut load_ns = Vec::with_capacity(corpus.pages());
    let mut decode_ns = Vec::new();
    let mut by_codec = (0, 0);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let shards = cpus.next_power_of_two().clamp(1, 16);
    for pages in &corpus.sources {
        let bytes = (pages.len() * PAGE_BYTES) as u64;
        let store = Store::open(StoreConfig {
            pool_bytes_max: bytes * 2,
            codec,
            allocator,
            shards,
            dictionaries: way != Way::Plain,
            swap: None,
        });
        let store = store.map_err(|error| failed(error.to_string()))?;
        let mut chooser = Chooser::new();
        let mut handles: Vec<Handle> = Vec::with_capacity(pages.len());
        for some in pages.chunks(PAGES_BETWEEN_TRAININGS) {
            let clock = Instant::now();
            for page in some {
                let handle = store.insert(page);
                handles.push(handle.map_err(|error| failed(error.to_string()))?);
            }
            run.store_seconds += clock.elapsed().as_secs_f64();
            // In a run, threads of their own do this.
            while way != Way::Plain && store.training_due_bytes().is_some() {
                store.train();
            }
            chooser.look(&store);
        }
        while way == Way::Cold
            && let Some(mut cold) = store.begin_cold()
        {
            cold.compress();
            store.finish_cold(cold);
        }
        store.rest_cold();
        let ram_bytes = store.ram_bytes();
        run.sources.push((bytes, ram_bytes));
        run.ram_bytes += ram_bytes;
        let mut out = [0; PAGE_BYTES];
        for (handle, page) in handles.iter().zip(pages) {
            let clock = Instant::now();
            let loaded = store.load(*handle, &mut out);
            let time = clock.elapsed();
            loaded.map_err(|error| failed(error.to_string()))?;
            run.load_seconds += time.as_secs_f64();
            load_ns.push(time.as_nanos() as u64);
            run.wrong_pages += u64::from(out != *page);
        }
        let stats = store.stats();
        by_codec.0 += stats.lz4_pages;
        by_codec.1 += stats.zstd_pages;
        let fresh = store.fresh_codec();
        let dictionary = match fresh {
            Codec::Zstd => store.dictionary(None),
            _ => None,
        };
        let level = if way == Way::Cold { 6 } else { 1 };
        let encoder = dictionary.and_then(|found| Encoder::new(found, level).ok());
        decode_ns.extend(
            pages
                .iter()
                .step_by(DECODE_STRIDE)
                .filter_map(|page| decode(fresh, encoder.as_ref(), page)),
        );
    }
    if codec == CodecChoice::Auto {
        run.detail = format!("{} pages by lz4, {} by zstd", by_codec.0, by_codec.1);
    }
    run.load_ns_p50 = median(&mut load_ns);
    run.decode_ns_p50 = median(&mut decode_ns);
    Ok(run)
}

/// The time to decompress a page alone; none for a page that needs none.
fn decode(codec: Codec, encoder: Option<&Encoder>, page: &Page) -> Option<u64> {
    let take = |zpage: codec::Encoded<'_>| (zpage.kind, zpage.bytes.to_vec());
    let (kind, zpage) = match encoder {
        Some(encoder) => codec::encode_with(encoder, page, take),
        None => codec::encode(codec, page, take),
    };
    let mut out = [0; PAGE_BYTES];
    let clock = Instant::now();
    match (encoder, kind) {
        (Some(encoder), codec::Kind::Zstd) => {
            codec::decode_with(encoder.dictionary(), kind, &zpage, &mut out).ok()?;
        }
        _ => codec::decode(kind, &zpage, &mut out).ok()?,
    }
    let time = clock.elapsed().as_nanos() as u64;
    matches!(kind, codec::Kind::Lz4 | codec::Kind::Zstd).then_some(time)
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}
