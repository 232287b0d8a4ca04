//! The corpus in zcache: one store for each program, opened and used as each `zcache run` does: a shard
//! for each CPU, pages by handle.

use std::time::Instant;

use zcache::codec::{self, Encoder};
use zcache::{Allocator, ByCodec, Chooser, Codec, CodecChoice, Handle, Store, StoreConfig};

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
    let mut pages_by = ByCodec::from_fn(|_| 0);
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
            tiers: Vec::new(),
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
        for (codec, held) in stats.by_codec.iter() {
            pages_by[codec] += held.pages;
        }
        let fresh = store.fresh_codec();
        let dictionary = match fresh.has_dictionaries() {
            true => store.dictionary(None),
            false => None,
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
        let by = |codec| format!("{} pages by {codec}", pages_by[codec]);
        run.detail = Codec::shrinking().map(by).collect::<Vec<_>>().join(", ");
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
    match encoder.filter(|_| kind.has_dictionaries()) {
        Some(encoder) => codec::decode_with(encoder.dictionary(), kind, &zpage, &mut out).ok()?,
        None => codec::decode(kind, &zpage, &mut out).ok()?,
    }
    let time = clock.elapsed().as_nanos() as u64;
    kind.codec().is_some_and(Codec::shrinks).then_some(time)
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}
