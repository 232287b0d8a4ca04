//! Which codec fresh pages get, where that is left to the engine.
//!
//! Stage on the data path: beside it; a thread of the client looks a few times
//! a second. The dense codec holds more, the fast one costs less. What either is
//! worth follows from what is measured: how many pages are stored and loaded,
//! what that costs with either codec, what a denser store would spare, and how
//! busy the processors are. From these follows how long the same work would have
//! taken with each codec, `then`, in place of what there is `now`:
//!
//! ```text
//! path    = what faults wait for: loads, and reads of the tier
//! work    = processor time of all loads and stores
//! waiters = max(1, path(now) / time)
//! wait    = path / waiters
//! more    = (work(then) - work(now)) / processors
//! busy    = time - idle time of a processor
//!
//! roomy   = max(time + wait(then) - wait(now), busy + more)
//! crowded = max(time + more, wait(then))
//! ```
//!
//! Where processors have time left, the work takes `roomy`: pages are stored
//! beside the program, so it waits for loads alone, unless the work no longer fits
//! into the time there is. Where they have none, it takes `crowded`: whatever
//! costs processor time is waited for. In between, it takes a part of each.
//!
//! - The dense codec, unless the fast one makes the work faster by more than
//!   [`FAST_BEGINS`]; the dense one again when it does so by less than
//!   [`FAST_STAYS`]. Without traffic that is the dense one.
//! - Either is changed for the other only after [`LOOKS`] looks in a row that
//!   say so.
//!
//! Does not: know stores (a [`View`] is all that it is told), start threads, or
//! encode anything.

mod processors;

use std::time::{Duration, Instant};

use crate::codec::{ByCodec, Codec, CodecCost};
use processors::Processors;

/// The fast codec has to make the work faster by so much before it takes over ...
const FAST_BEGINS: f64 = 0.05;
/// ... and stays while it does by so much. Between them neither is changed: the
/// averages move by some percent from look to look.
const FAST_STAYS: f64 = 0.02;
/// Processors that are idle for less than this part of the time have less and
/// less time left; above, what is done beside the program costs it nothing.
const IDLE_ENOUGH: f64 = 0.1;
/// Between two looks; one that comes sooner is none. Idle time is counted in
/// hundredths of a second.
pub(crate) const PERIOD: Duration = Duration::from_millis(200);
/// Looks in a row that have to agree. A program that begins by filling its
/// memory is over it by then, and is not packed more loosely for ever.
pub(crate) const LOOKS: u32 = 3;

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

    /// Whether a look now would not come too soon after the last one.
    pub(crate) fn is_due(&self) -> bool {
        let looked = self.looked.as_ref();
        looked.is_none_or(|seen| seen.at.elapsed() >= PERIOD)
    }

    /// Looks: the codec that the store's fresh pages are to get instead of the one
    /// that they get now. `outlook` is asked what happened, and what would have
    /// happened with the fast codec and with the dense one.
    pub(crate) fn judge(
        &mut self,
        view: &View,
        mut outlook: impl FnMut(&Traffic, Holding) -> Outlook,
    ) -> Option<Codec> {
        self.count(view);
        let wanted = choose(view.fresh, self.times(view, &mut outlook));
        self.wanted = match wanted == view.fresh {
            true => 0,
            false => self.wanted + 1,
        };
        if self.wanted < LOOKS {
            return None;
        }
        self.wanted = 0;
        Some(wanted)
    }

    /// Brings the traffic up to date.
    fn count(&mut self, view: &View) {
        let seen = Seen {
            at: Instant::now(),
            idle: self.processors.idle(),
            attempts: view.attempts,
            loads: view.loads,
        };
        if let Some(before) = self.looked.replace(seen)
            && let Some(now) = &self.looked
        {
            let traffic = &mut self.traffic;
            let add = |sum: &mut f64, more: f64| *sum = *sum / 2.0 + more;
            let pages = |now: u64, before: u64| (now - before) as f64 * view.encoded_share;
            add(&mut traffic.time_ns, ns(now.at - before.at));
            add(
                &mut traffic.idle_ns,
                ns(now.idle.saturating_sub(before.idle)),
            );
            add(&mut traffic.stores, pages(now.attempts, before.attempts));
            add(&mut traffic.loads, pages(now.loads, before.loads));
        }
    }

    /// How long the same work would have taken with the fast codec and with the
    /// dense one.
    fn times(
        &self,
        view: &View,
        outlook: &mut impl FnMut(&Traffic, Holding) -> Outlook,
    ) -> [f64; 2] {
        let costs = [Codec::FAST, Codec::DENSE].map(|codec| view.costs[codec]);
        let [fast, dense] = &costs;
        let part = view.dense_share;
        let average = |of: fn(&CodecCost) -> f64| of(fast) * (1.0 - part) + of(dense) * part;
        let mixed = CodecCost {
            encode_ns: view.costs[view.fresh].encode_ns,
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

/// What a chooser is told of a store.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct View {
    /// The codec that fresh pages get now.
    pub(crate) fresh: Codec,
    /// Pages that came in since the store was opened.
    pub(crate) attempts: u64,
    /// Pages given back since the store was opened.
    pub(crate) loads: u64,
    /// Of the pages that either codec shrank, those that the dense one did, from 0
    /// to 1.
    pub(crate) dense_share: f64,
    /// Of all pages, those that are not same-filled.
    pub(crate) encoded_share: f64,
    /// What each codec costs here and now.
    pub(crate) costs: ByCodec<CodecCost>,
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
    let waiters = (path(before) / time).max(1.0);
    let (wait_now, wait_then) = (path(before) / waiters, path(then) / waiters);
    let busy = (time - traffic.idle_ns / processors).max(0.0);
    let more = (work(then) - work(before)) / processors;
    let roomy = (time + wait_then - wait_now).max(busy + more);
    let crowded = (time + more).max(wait_then);
    let room = (traffic.idle_ns / processors / time / IDLE_ENOUGH).min(1.0);
    (roomy * room + crowded * (1.0 - room)).max(0.0)
}

/// The codec for fresh pages after `now`, from the times with the fast codec and
/// with the dense one.
fn choose(now: Codec, [fast, dense]: [f64; 2]) -> Codec {
    let worth = match now == Codec::DENSE {
        true => FAST_BEGINS,
        false => FAST_STAYS,
    };
    match fast < dense * (1.0 - worth) {
        true => Codec::FAST,
        false => Codec::DENSE,
    }
}

#[cfg(test)]
mod tests;
