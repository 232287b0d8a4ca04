//! Which codec fresh pages get, where that is left to the engine.
//!
//! Stage on the data path: beside it; a thread of the client looks a few times
//! a second. zstd holds more, lz4 costs less. What either is worth follows from
//! what is measured: how many pages are stored and loaded, what that costs with
//! either codec, what a denser store would spare, and how busy the processors
//! are. From these follows how long the same work would have taken with each:
//!
//! ```text
//! path, then  = path with the codec / threads that wait
//! works, then = time busy + (work with the codec - work as it was) / processors
//! where processors have time: max(time + path, then - path, now; works, then)
//! where they have none:       max(time + works, then - works, now; path, then)
//! ```
//!
//! *path* is what faults wait for (loads, the tier), *work* all processor time
//! of loading and storing. Pages are stored beside the program, so storing is
//! waited for only where the processors have no time left.
//!
//! - zstd, which holds more, unless lz4 is faster by more than [`LZ4_WORTH`];
//!   zstd again when it is not by [`ZSTD_WORTH`]. Without traffic that is zstd.
//! - Either is changed for the other only after [`LOOKS`] looks in a row that
//!   say so.
//!
//! Does not: start threads, or encode anything.

mod costs;
mod processors;

use std::time::{Duration, Instant};

pub use costs::CodecCost;
pub(crate) use costs::{Costs, Turn};

use crate::codec::Codec;
use crate::store::Store;
use processors::Processors;

/// lz4 has to make the work faster by so much before it takes over ...
const LZ4_WORTH: f64 = 0.05;
/// ... and keeps it while it does by so much. Between them neither is changed:
/// the averages move by some percent from look to look.
const ZSTD_WORTH: f64 = 0.02;
/// Processors that are idle for less than this part of the time have less and
/// less time left; above, what is done beside the program costs it nothing.
const IDLE_ENOUGH: f64 = 0.1;
/// Between two looks; one that comes sooner is none. Idle time is counted in
/// hundredths of a second.
const PERIOD: Duration = Duration::from_millis(200);
/// Looks in a row that have to agree. A program that begins by filling its
/// memory is over it by then, and is not packed more loosely for ever.
const LOOKS: u32 = 3;

/// What happened lately, in pages that are not same-filled. Each look counts
/// half of the one before.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Traffic {
    /// The time that this is about.
    pub time_ns: f64,
    /// Time that processors had nothing to do, of all together.
    pub idle_ns: f64,
    /// Pages compressed.
    pub stores: f64,
    /// Pages decompressed.
    pub loads: f64,
}

/// What happened, or would have happened with another codec, for the same work.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Outlook {
    /// Pages compressed.
    pub stores: f64,
    /// Pages decompressed.
    pub loads: f64,
    /// What faults waited for, decompressing left out.
    pub wait_ns: f64,
    /// Processor time, the codec's left out.
    pub work_ns: f64,
}

/// With what a store holds how much.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Holding {
    /// As it was.
    Now,
    /// With all its pages made by one codec: so many times as many pages as now.
    Times(f64),
}

/// Chooses the codec of a store's fresh pages. See the module's description.
#[derive(Debug)]
pub struct Chooser {
    processors: Processors,
    looked: Option<Seen>,
    traffic: Traffic,
    /// Looks in a row that wanted another codec.
    wanted: u32,
}

/// Counts at the last look.
#[derive(Debug)]
struct Seen {
    at: Instant,
    idle: Duration,
    attempts: u64,
    loads: u64,
}

impl Chooser {
    /// For a store, from now on.
    #[must_use]
    pub fn new() -> Chooser {
        Chooser {
            processors: Processors::of_this_process(),
            looked: None,
            traffic: Traffic::default(),
            wanted: 0,
        }
    }

    /// Looks at a store's traffic and changes the codec of its fresh pages if
    /// the other is worth it. Does nothing where the codec was given. For
    /// clients that know nothing of what a denser store would spare them.
    pub fn look(&mut self, store: &Store) {
        self.look_with(store, |traffic, _| Outlook {
            stores: traffic.stores,
            loads: traffic.loads,
            ..Outlook::default()
        });
    }

    /// The same with an outlook of the client's, which is asked what happened
    /// and what would have happened with either codec.
    pub fn look_with(
        &mut self,
        store: &Store,
        mut outlook: impl FnMut(&Traffic, Holding) -> Outlook,
    ) {
        let looked = self.looked.as_ref();
        if !store.chooses_codec() || looked.is_some_and(|seen| seen.at.elapsed() < PERIOD) {
            return;
        }
        let mix = store.codec_mix();
        self.count(store, mix.encoded_share);
        let times = self.times(store, &mix, &mut outlook);
        let now = store.fresh_codec();
        let wanted = choose(now, times);
        self.wanted = if wanted == now { 0 } else { self.wanted + 1 };
        if self.wanted >= LOOKS {
            self.wanted = 0;
            store.set_fresh_codec(wanted);
        }
    }

    /// Brings the traffic up to date.
    fn count(&mut self, store: &Store, encoded_share: f64) {
        let (attempts, loads) = store.traffic();
        let seen = Seen {
            at: Instant::now(),
            idle: self.processors.idle(),
            attempts,
            loads,
        };
        if let Some(before) = self.looked.replace(seen)
            && let Some(now) = &self.looked
        {
            let traffic = &mut self.traffic;
            let add = |sum: &mut f64, more: f64| *sum = *sum / 2.0 + more;
            let pages = |now: u64, before: u64| (now - before) as f64 * encoded_share;
            add(&mut traffic.time_ns, ns(now.at - before.at));
            add(
                &mut traffic.idle_ns,
                ns(now.idle.saturating_sub(before.idle)),
            );
            add(&mut traffic.stores, pages(now.attempts, before.attempts));
            add(&mut traffic.loads, pages(now.loads, before.loads));
        }
    }

    /// How long the same work would have taken with lz4 and with zstd.
    fn times(
        &self,
        store: &Store,
        mix: &Mix,
        outlook: &mut impl FnMut(&Traffic, Holding) -> Outlook,
    ) -> [f64; 2] {
        let costs = [Codec::Lz4, Codec::Zstd].map(|codec| store.codec_cost(codec));
        let [lz4, zstd] = &costs;
        let part = mix.zstd_share;
        let average = |of: fn(&CodecCost) -> f64| of(lz4) * (1.0 - part) + of(zstd) * part;
        let mixed = CodecCost {
            encode_ns: store.codec_cost(store.fresh_codec()).encode_ns,
            decode_ns: average(|cost| cost.decode_ns),
            zpage_bytes: average(|cost| cost.zpage_bytes),
        };
        let traffic = &self.traffic;
        let before = (outlook(traffic, Holding::Now), mixed);
        costs.map(|cost| {
            let times = mixed.zpage_bytes / cost.zpage_bytes.max(1.0);
            let then = (outlook(traffic, Holding::Times(times)), cost);
            time_ns(traffic, self.processors.count(), &before, &then)
        })
    }
}

impl Default for Chooser {
    fn default() -> Self {
        Chooser::new()
    }
}

/// What a store's pages were made by.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Mix {
    /// Of the pages that a codec shrank, those that zstd did, from 0 to 1.
    pub(crate) zstd_share: f64,
    /// Of all pages, those that are not same-filled.
    pub(crate) encoded_share: f64,
}

fn ns(time: Duration) -> f64 {
    time.as_nanos() as f64
}

/// How long what took `traffic.time_ns` as it was before would take then.
fn time_ns(
    traffic: &Traffic,
    processors: f64,
    before: &(Outlook, CodecCost),
    then: &(Outlook, CodecCost),
) -> f64 {
    let path =
        |(outlook, cost): &(Outlook, CodecCost)| outlook.wait_ns + outlook.loads * cost.decode_ns;
    let work = |(outlook, cost): &(Outlook, CodecCost)| {
        outlook.work_ns + outlook.loads * cost.decode_ns + outlook.stores * cost.encode_ns
    };
    let time = traffic.time_ns.max(1.0);
    let threads = (path(before) / time).max(1.0);
    let (path_now, path_then) = (path(before) / threads, path(then) / threads);
    let busy = (time - traffic.idle_ns / processors).max(0.0);
    let works_more = (work(then) - work(before)) / processors;
    let roomy = (time + path_then - path_now).max(busy + works_more);
    let crowded = (time + works_more).max(path_then);
    let room = (traffic.idle_ns / processors / time / IDLE_ENOUGH).min(1.0);
    (roomy * room + crowded * (1.0 - room)).max(0.0)
}

/// The codec for fresh pages after `now`, from the times with lz4 and zstd.
fn choose(now: Codec, [lz4, zstd]: [f64; 2]) -> Codec {
    let worth = match now {
        Codec::Zstd => LZ4_WORTH,
        _ => ZSTD_WORTH,
    };
    match lz4 < zstd * (1.0 - worth) {
        true => Codec::Lz4,
        false => Codec::Zstd,
    }
}

#[cfg(test)]
mod tests;
