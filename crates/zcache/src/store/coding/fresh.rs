//! The codec of fresh pages, which may change while the store runs: each zpage
//! says by which it was made.
//!
//! Stage on the data path: before the codec. Whoever is encoding a page while
//! the codec changes ends with the one that it began with.

use crate::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use crate::choice::{CodecCost, Costs, Mix};
use crate::codec::{Codec, Kind};
use crate::config::CodecChoice;
use crate::stats::Stats;
use crate::store::Store;
use crate::store::counts::pages_of;

/// Stores with less RAM than this and a tier choose lz4 once for all: each thread
/// that has met zstd keeps a context of it, half a MiB. Without a tier, density
/// decides whether a page is held at all.
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
            CodecChoice::Auto if has_tier && pool_bytes < CHOICE_BYTES_MIN => (false, Codec::Lz4),
            CodecChoice::Auto => (true, Codec::Zstd),
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
        stats.lz4 = self.costs.of(Codec::Lz4);
        stats.zstd = self.costs.of(Codec::Zstd);
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

    /// Pages that came in, and pages given back, since the store was opened.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        let counts = &self.counts;
        (counts.attempts.load(Relaxed), counts.loads.load(Relaxed))
    }

    /// What the pages held now were made by. Locks one shard after the other.
    pub(crate) fn codec_mix(&self) -> Mix {
        let (mut lz4, mut zstd, mut same, mut all) = (0, 0, 0, 0);
        for number in 0..self.shards.len() {
            let part = self.part(number);
            lz4 += pages_of(&part.core, Kind::Lz4);
            zstd += pages_of(&part.core, Kind::Zstd);
            let usage = part.core.usage();
            same += u64::from(usage.same_filled_pages);
            all += u64::from(usage.entries);
        }
        let share = |part: u64, whole: u64| match whole {
            0 => 1.0,
            _ => part as f64 / whole as f64,
        };
        Mix {
            zstd_share: share(zstd, lz4 + zstd),
            encoded_share: share(all - same, all),
        }
    }
}
