//! Measures one thread's insert and load per page for each codec, the metadata
//! per stored page at a million pages, and the density, on pages made from a
//! seed that compress about 2:1 and 3:1 with lz4.
//!
//! `cargo run --release -p zcache --example pages`

use std::time::Instant;

use zcache::tier::TierSource;
use zcache::{Allocator, Codec, Handle, PAGE_SIZE, Page, Store, StoreConfig, SwapConfig};

/// Pages of one measurement.
const PAGES: u64 = 40_000;

/// Different pages that are made before the clock starts.
const SAMPLES: u64 = 4096;

/// Measurements of each case; the median is shown with the spread.
const REPEATS: usize = 5;

fn main() {
    println!("codec  ratio  insert µs       load µs         load from disk µs  density");
    for random_of_16 in [4, 1] {
        let samples: Vec<Page> = (0..SAMPLES).map(|n| sample(n, random_of_16)).collect();
        for codec in Codec::ALL {
            measure(codec, &samples);
        }
    }
    metadata();
    churn();
}

fn open(codec: Codec, allocator: Allocator, swap: bool) -> Store {
    Store::open(StoreConfig {
        pool_bytes_max: 4 << 30,
        codec: codec.into(),
        allocator,
        tiers: Vec::from_iter(swap.then(|| TierSource::disk(SwapConfig::default()))),
        ..StoreConfig::default()
    })
    .expect("a store opens")
}

fn measure(codec: Codec, samples: &[Page]) {
    let (mut insert, mut load, mut disk) = (Vec::new(), Vec::new(), Vec::new());
    let (mut ratio, mut density) = (0.0, 0.0);
    let pages = || (0..PAGES).map(|n| &samples[(n % SAMPLES) as usize]);
    for _ in 0..REPEATS {
        let store = open(codec, Allocator::Block, true);
        let mut out = [0; PAGE_SIZE];
        let clock = Instant::now();
        let handles: Vec<Handle> = pages()
            .map(|page| store.insert(page).expect("there is room"))
            .collect();
        insert.push(clock.elapsed().as_nanos() as f64 / 1e3 / PAGES as f64);
        let clock = Instant::now();
        for handle in &handles {
            store.load(*handle, &mut out).expect("the page is there");
        }
        load.push(clock.elapsed().as_nanos() as f64 / 1e3 / PAGES as f64);
        let stats = store.stats();
        ratio = stats.compression_ratio;
        density = (PAGES * PAGE_SIZE as u64) as f64 / stats.pool_bytes as f64;
        store.reclaim(u64::MAX);
        let mut out = vec![[0; PAGE_SIZE]; 32];
        let mut results = vec![Ok(()); 32];
        let clock = Instant::now();
        for chunk in handles.chunks_exact(32) {
            store.load_many(chunk, &mut out, &mut results);
        }
        disk.push(clock.elapsed().as_nanos() as f64 / 1e3 / PAGES as f64);
        assert!(results.iter().all(Result::is_ok));
        for (n, page) in out.iter().enumerate() {
            let number = PAGES / 32 * 32 - 32 + n as u64;
            assert!(*page == samples[(number % SAMPLES) as usize]);
        }
    }
    println!(
        "{:<5} {ratio:>6.2}  {}  {}  {}  {density:>9.3}",
        codec.name(),
        spread(&mut insert),
        spread(&mut load),
        spread(&mut disk),
    );
}

fn metadata() {
    for allocator in Allocator::ALL {
        let store = open(Codec::FAST, allocator, false);
        let samples: Vec<Page> = (0..256).map(|n| sample(n, 4)).collect();
        for n in 0..1_000_000 {
            store.insert(&samples[n % 256]).expect("there is room");
        }
        let stats = store.stats();
        println!(
            "metadata at {} pages, {}: {:.2} bytes a page, density {:.3} of {:.3}",
            stats.stored_pages,
            allocator.name(),
            stats.metadata_bytes as f64 / stats.stored_pages as f64,
            (stats.stored_pages * PAGE_SIZE as u64) as f64 / stats.pool_bytes as f64,
            stats.compression_ratio,
        );
    }
}

/// Density after random frees, before and after evacuation.
fn churn() {
    let store = open(Codec::FAST, Allocator::Block, false);
    let mut random = 7;
    let density = || {
        let stats = store.stats();
        stats.stored_pages as f64 * PAGE_SIZE as f64 / stats.pool_bytes as f64
    };
    let samples: Vec<Page> = (0..SAMPLES).map(|n| sample(n, n % 9)).collect();
    let handles: Vec<Handle> = (0..200_000)
        .map(|n| store.insert(&samples[n % SAMPLES as usize]).expect("room"))
        .collect();
    let fresh = density();
    for handle in handles {
        if next(&mut random) & 1 == 0 {
            store.release(handle);
        }
    }
    let freed = density();
    let clock = Instant::now();
    let frames = store.compact(usize::MAX);
    println!(
        "density {fresh:.3} fresh, {freed:.3} after half was freed, {:.3} after evacuating {frames} frames in {:.1} ms",
        density(),
        clock.elapsed().as_secs_f64() * 1e3
    );
}

/// A page of which about so many words in 16 are random, the others from a few.
fn sample(number: u64, random_of_16: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    let mut random = number * 3 + 1;
    let base = next(&mut random);
    for word in page.as_chunks_mut::<8>().0 {
        let draw = next(&mut random);
        let value = if draw % 16 < random_of_16 {
            next(&mut random)
        } else {
            base ^ (draw >> 62)
        };
        *word = value.to_le_bytes();
    }
    page
}

fn spread(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    let median = values[values.len() / 2];
    format!(
        "{median:>5.2} ({:.2}-{:.2})",
        values[0],
        values[values.len() - 1]
    )
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
