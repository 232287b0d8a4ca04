//! What each codec costs here and now: times and lengths, averaged from real
//! operations and from pages that are compressed by both codecs that are chosen
//! between.
//!
//! Stage on the data path: beside the codec.
//!
//! - Of the operations of a thread, one in [`TIMED_ONE_IN`] is timed.
//! - Of [`COMPARED_IN`] pages that a thread stores, [`COMPARED_RUN`] in a row are
//!   compressed by both codecs: the first ones bring their tables into the
//!   caches, the last is timed. Lengths come from these alone, so they are of
//!   the same pages.
//! - An average starts from what was measured once on pages of eight programs
//!   (docs/decisions/dictionaries.md), which its first samples outweigh.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::codec::{self, ByCodec, Codec, CodecCost, Encoder, Kind};
use crate::lend;
use crate::page::Page;

/// One operation in so many is timed: two looks at the clock are 1% of it.
const TIMED_ONE_IN: u32 = 16;
/// Of so many pages stored a run is compared, for 1% of the time of storing.
const COMPARED_IN: u32 = 1024;
/// Pages of a run. Tables that were not used for a while are four times as slow
/// for one page, and as fast as ever after three.
const COMPARED_RUN: u32 = 4;
/// Weight of an average's start, in samples.
const START_SAMPLES: u64 = 4;
/// Weight of a new sample is at least one part in so many.
const SAMPLES: u64 = 64;
/// A thread that is put aside while it is timed counts at most so many times the average.
const OUTLIER: u64 = 4;
/// Averages are kept in 256ths.
const FRACTION_BITS: u32 = 8;

/// An average in which old samples fade.
#[derive(Debug)]
struct Mean {
    scaled: AtomicU64,
    samples: AtomicU64,
}

impl Mean {
    fn new(start: f64) -> Mean {
        Mean {
            scaled: AtomicU64::new((start as u64) << FRACTION_BITS),
            samples: AtomicU64::new(START_SAMPLES),
        }
    }

    /// Threads that add at once may lose a sample.
    fn add(&self, sample: u64) {
        let old = self.scaled.load(Relaxed);
        let sample = (sample << FRACTION_BITS).min(old * OUTLIER);
        let weight = (self.samples.fetch_add(1, Relaxed) + 1).min(SAMPLES);
        let new = (old * (weight - 1) + sample) / weight;
        // From nothing it could not grow again.
        self.scaled.store(new.max(1 << FRACTION_BITS), Relaxed);
    }

    fn add_time(&self, time: Duration) {
        self.add(time.as_nanos().min(1 << 40) as u64);
    }

    fn get(&self) -> f64 {
        self.scaled.load(Relaxed) as f64 / f64::from(1 << FRACTION_BITS)
    }
}

#[derive(Debug)]
struct Means {
    encode_ns: Mean,
    decode_ns: Mean,
    zpage_bytes: Mean,
}

/// The averages of a store.
#[derive(Debug)]
pub(crate) struct Costs {
    means: ByCodec<Means>,
    pub(crate) compared_pages: AtomicU64,
    pub(crate) comparing_ns: AtomicU64,
}

/// What is measured of a page that is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    Nothing,
    Timed,
    /// Compressed by both codecs.
    Compared {
        timed: bool,
    },
}

crate::sync::thread_local! {
    static STORES: Cell<u32> = const { Cell::new(0) };
    static LOADS: Cell<u32> = const { Cell::new(0) };
}

fn next(ticks: &Cell<u32>) -> u32 {
    let now = ticks.get();
    ticks.set(now.wrapping_add(1));
    now
}

impl Costs {
    pub(crate) fn new() -> Costs {
        Costs {
            means: ByCodec::from_fn(|codec| Means::new(codec.first_cost())),
            compared_pages: AtomicU64::new(0),
            comparing_ns: AtomicU64::new(0),
        }
    }

    /// What is to be measured of the page that this thread stores next.
    pub(crate) fn turn_of_store(&self) -> Turn {
        match STORES.with(next) {
            tick if tick % COMPARED_IN < COMPARED_RUN => Turn::Compared {
                timed: tick % COMPARED_IN == COMPARED_RUN - 1,
            },
            tick if tick.is_multiple_of(TIMED_ONE_IN) => Turn::Timed,
            _ => Turn::Nothing,
        }
    }

    /// Whether this thread's next load is to be timed.
    pub(crate) fn is_load_timed(&self) -> bool {
        LOADS.with(next).is_multiple_of(TIMED_ONE_IN)
    }

    pub(crate) fn encoded(&self, kind: Kind, time: Duration) {
        if let Some(means) = self.of_kind(kind) {
            means.encode_ns.add_time(time);
        }
    }

    pub(crate) fn decoded(&self, kind: Kind, time: Duration) {
        if let Some(means) = self.of_kind(kind) {
            means.decode_ns.add_time(time);
        }
    }

    fn of_kind(&self, kind: Kind) -> Option<&Means> {
        let codec = kind.codec().filter(|codec| codec.shrinks())?;
        Some(&self.means[codec])
    }

    /// Compresses a page by both codecs that are chosen between, with this
    /// dictionary if they have any.
    pub(crate) fn compare(&self, page: &Page, encoder: Option<&Encoder>, timed: bool) {
        let start = Instant::now();
        for codec in [Codec::FAST, Codec::DENSE] {
            let encoder = encoder.filter(|_| codec.has_dictionaries());
            if !self.means[codec].measure(codec, encoder, page, timed) {
                return;
            }
        }
        self.compared_pages.fetch_add(1, Relaxed);
        let took = start.elapsed().as_nanos() as u64;
        self.comparing_ns.fetch_add(took, Relaxed);
    }

    pub(crate) fn of(&self, codec: Codec) -> CodecCost {
        let means = &self.means[codec];
        CodecCost {
            encode_ns: means.encode_ns.get(),
            decode_ns: means.decode_ns.get(),
            zpage_bytes: means.zpage_bytes.get(),
        }
    }
}

impl Means {
    fn new(cost: CodecCost) -> Means {
        Means {
            encode_ns: Mean::new(cost.encode_ns),
            decode_ns: Mean::new(cost.decode_ns),
            zpage_bytes: Mean::new(cost.zpage_bytes),
        }
    }

    /// False for a page that no codec sees.
    fn measure(&self, codec: Codec, encoder: Option<&Encoder>, page: &Page, timed: bool) -> bool {
        let (mut zpage, mut out) = (lend::room(), lend::room());
        let zpage = zpage.bytes_mut();
        let start = Instant::now();
        let take = |encoded: codec::Encoded<'_>| {
            let time = start.elapsed();
            zpage[..encoded.bytes.len()].copy_from_slice(encoded.bytes);
            (encoded.kind, encoded.bytes.len(), time)
        };
        let (kind, len, time) = match encoder {
            Some(encoder) => codec::encode_with(encoder, page, take),
            None => codec::encode(codec, page, take),
        };
        if kind == Kind::Same {
            return false;
        }
        self.zpage_bytes.add(len as u64);
        let out = out.page_mut();
        let start = Instant::now();
        let decoded = match encoder.filter(|_| kind.has_dictionaries()) {
            Some(encoder) => codec::decode_with(encoder.dictionary(), kind, &zpage[..len], out),
            None => codec::decode(kind, &zpage[..len], out),
        };
        if timed && decoded.is_ok() && kind == codec.kind() {
            self.decode_ns.add_time(start.elapsed());
            self.encode_ns.add_time(time);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::PAGE_SIZE;
    use crate::testing;

    #[test]
    fn an_average_follows_its_samples_and_forgets_outliers() {
        let mean = Mean::new(1000.0);
        for _ in 0..400 {
            mean.add(5000);
        }
        assert!((4900.0..=5000.0).contains(&mean.get()), "{}", mean.get());
        mean.add(1 << 40);
        assert!(mean.get() < 5300.0, "{}", mean.get());
        for _ in 0..1000 {
            mean.add(0);
        }
        assert!(mean.get() <= 2.0, "{}", mean.get());
        for _ in 0..5000 {
            mean.add(700);
        }
        assert!((650.0..=700.0).contains(&mean.get()), "{}", mean.get());
    }

    #[test]
    fn both_codecs_are_measured_on_the_same_pages() {
        let costs = Costs::new();
        for page in testing::records(200) {
            costs.compare(&page, None, true);
        }
        costs.compare(&[7; PAGE_SIZE], None, true);
        assert_eq!(costs.compared_pages.load(Relaxed), 200);
        assert!(costs.comparing_ns.load(Relaxed) > 0);
        let [fast, dense] = [Codec::FAST, Codec::DENSE].map(|codec| costs.of(codec));
        assert!(dense.zpage_bytes < fast.zpage_bytes, "{fast:?} {dense:?}");
        // The times are measured ones, however long they are.
        let first = Costs::new();
        for codec in [Codec::FAST, Codec::DENSE] {
            let (before, after) = (first.of(codec), costs.of(codec));
            assert_ne!(before.encode_ns, after.encode_ns, "{codec}");
            assert_ne!(before.decode_ns, after.decode_ns, "{codec}");
        }
    }
}
