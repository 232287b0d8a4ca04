//! The codec of fresh pages, which may change while the store runs: each zpage
//! says by which it was made.
//!
//! Stage on the data path: before the codec. Whoever is encoding a page while
//! the codec changes ends with the one that it began with.

use crate::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use super::costs::Costs;
use crate::choice::{Chooser, Holding, Outlook, Traffic, View};
use crate::codec::{ByCodec, Codec, CodecCost};
use crate::config::CodecChoice;
use crate::stats::Stats;
use crate::store::Store;
use crate::store::counts::pages_of;

/// Stores with less RAM than this and a tier choose the fast codec once for all:
/// contexts of the dense one, some 180 KiB, are kept for two operations a processor,
/// and more exist while more threads store. Without a tier, density decides whether
/// a page is held at all.
const CHOICE_BYTES_MIN: u64 = 48 << 20;

/// See the module's description.
#[derive(Debug)]
pub(in crate::store) struct Fresh {
    /// Whether a [`Chooser`](crate::Chooser) may change it.
    pub(in crate::store) is_auto: bool,
    /// Where it is in [`Codec::ALL`].
    index: AtomicU8,
    switches: AtomicU64,
    pub(in crate::store) costs: Costs,
}

fn index(codec: Codec) -> u8 {
    let at = Codec::ALL.iter().position(|known| *known == codec);
    at.expect("every codec is one of all") as u8
}

impl Fresh {
    /// For a store that may take so much RAM, with or without a tier.
    pub(in crate::store) fn new(choice: CodecChoice, pool_bytes: u64, has_tier: bool) -> Fresh {
        let (is_auto, first) = match choice {
            CodecChoice::Auto if has_tier && pool_bytes < CHOICE_BYTES_MIN => (false, Codec::FAST),
            CodecChoice::Auto => (true, Codec::DENSE),
            CodecChoice::Always(codec) => (false, codec),
        };
        Fresh {
            is_auto,
            index: AtomicU8::new(index(first)),
            switches: AtomicU64::new(0),
            costs: Costs::new(),
        }
    }

    pub(in crate::store) fn add_to(&self, stats: &mut Stats) {
        stats.fresh_codec = Codec::ALL[usize::from(self.index.load(Relaxed))];
        stats.codec_switches = self.switches.load(Relaxed);
        for codec in Codec::ALL {
            stats.by_codec[codec].cost = self.costs.of(codec);
        }
        stats.compared_pages = self.costs.compared_pages.load(Relaxed);
        stats.comparing_ns = self.costs.comparing_ns.load(Relaxed);
    }
}

impl Store {
    /// The codec that fresh pages get now.
    #[must_use]
    pub fn fresh_codec(&self) -> Codec {
        Codec::ALL[usize::from(self.fresh.index.load(Relaxed))]
    }

    /// Has pages that come from now on be compressed by this codec. Pages that
    /// are there stay as they are. Where the choice is
    /// [`CodecChoice::Auto`], the next look of a [`Chooser`](crate::Chooser) may
    /// change it again.
    pub fn set_fresh_codec(&self, codec: Codec) {
        let before = self.fresh.index.swap(index(codec), Relaxed);
        if before == index(codec) {
            return;
        }
        self.fresh.switches.fetch_add(1, Relaxed);
        for scope in self.scopes() {
            scope.pace.forget_usual();
        }
    }

    /// What a codec costs here and now, as far as it was measured.
    #[must_use]
    pub fn codec_cost(&self, codec: Codec) -> CodecCost {
        self.fresh.costs.of(codec)
    }

    /// Whether the codec is chosen while the store runs.
    pub(crate) fn chooses_codec(&self) -> bool {
        self.fresh.is_auto
    }

    /// What a chooser is told. Locks one shard after the other.
    fn view(&self) -> View {
        let (mut fast, mut dense, mut same, mut all) = (0, 0, 0, 0);
        for number in 0..self.shards.len() {
            let part = self.part(number);
            fast += pages_of(&part.core, Codec::FAST.kind());
            dense += pages_of(&part.core, Codec::DENSE.kind());
            let usage = part.core.usage();
            same += u64::from(usage.same_filled_pages);
            all += u64::from(usage.entries);
        }
        let share = |part: u64, whole: u64| match whole {
            0 => 1.0,
            _ => part as f64 / whole as f64,
        };
        View {
            fresh: self.fresh_codec(),
            attempts: self.counts.attempts.load(Relaxed),
            loads: self.counts.loads.load(Relaxed),
            dense_share: share(dense, fast + dense),
            encoded_share: share(all - same, all),
            costs: ByCodec::from_fn(|codec| self.codec_cost(codec)),
        }
    }
}

impl Chooser {
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
    /// and what would have happened with either codec, the fast one first.
    pub fn look_with(&mut self, store: &Store, outlook: impl FnMut(&Traffic, Holding) -> Outlook) {
        if store.chooses_codec()
            && self.is_due()
            && let Some(codec) = self.judge(&store.view(), outlook)
        {
            store.set_fresh_codec(codec);
        }
    }
}
