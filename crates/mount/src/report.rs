//! What a mount did: the JSON of `--stats`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use zcache::tier::TierReport;
use zcache::{ByCodec, Codec, CodecStats};

use crate::budget::Budget;
use crate::serve::Filesystem;
use crate::worker::Requests;

/// The statistics of a mount; the names and units are documented in
/// `docs/mount.md` and stable.
#[derive(Clone, Debug, Serialize)]
pub struct MountStats {
    /// Version of this list of names.
    pub format: u32,
    /// The budget.
    pub ram_bytes_budget: u64,
    /// What of it is in use.
    pub ram_bytes_used: u64,
    /// The most that was measured.
    pub ram_bytes_peak: u64,
    /// Frames that hold compressed pages.
    pub pool_bytes: u64,
    /// The store's metadata.
    pub metadata_bytes: u64,
    /// Memory that remembers pages read once.
    pub ghost_bytes: u64,
    /// Pages that can be remembered so.
    pub ghost_pages_max: u64,
    /// Pages kept now.
    pub stored_pages: u64,
    /// Original bytes to compressed bytes of these.
    pub compression_ratio: f64,
    /// The codec that pages get that come now.
    pub fresh_codec: &'static str,
    /// How often that was changed.
    pub codec_switches: u64,
    /// Pages kept now that each codec shrank, under names that begin with its own.
    #[serde(flatten, serialize_with = "pages_by_name")]
    pub codecs: ByCodec<CodecStats>,
    /// Requests that the kernel made.
    pub requests: u64,
    /// Of these, how many came by io_uring.
    pub ring_requests: u64,
    /// Of `requests`, answered with an error other than in a read.
    pub failed_requests: u64,
    /// Pages asked for that were kept.
    pub hit_pages: u64,
    /// Pages asked for that were not.
    pub missed_pages: u64,
    /// Misses that are kept from then on.
    pub admitted_pages: u64,
    /// Misses that were remembered as read once.
    pub passed_pages: u64,
    /// Misses not kept because they were written while they were read.
    pub changed_pages: u64,
    /// Misses that the store did not take.
    pub refused_pages: u64,
    /// Pages dropped for newer ones.
    pub evicted_pages: u64,
    /// Pages dropped because their file changed.
    pub invalidated_pages: u64,
    /// Whether the source's filesystem is watched.
    pub watched: bool,
    /// Changes beside the mount that were told and mattered.
    pub watched_changes: u64,
    /// Times that some could not be told and everything was looked at anew.
    pub watch_overflows: u64,
    /// Times that the kernel was told that something is outdated.
    pub notices: u64,
    /// Names that it was not told of, for there were too many.
    pub unsent_notices: u64,
    /// Pages found damaged in RAM and read from the source instead.
    pub damaged_pages: u64,
    /// Pages that were written to tiers.
    pub writeback_pages: u64,
    /// Pages kept now that are in a tier and not in RAM.
    pub swapped_pages: u64,
    /// Pages that came from a tier.
    pub swapin_pages: u64,
    /// Pages that a tier had and did not give back, read from the source instead.
    pub unreachable_pages: u64,
    /// What tiers say of themselves.
    #[serde(serialize_with = "tiers_by_name")]
    pub tiers: Vec<TierReport>,
    /// Cold blocks that were looked at for harder compression.
    pub cold_blocks: u64,
    /// Pages that it made smaller, since the start.
    pub cold_pages: u64,
    /// Bytes of them that it saved.
    pub cold_bytes_saved: u64,
    /// CPU time of it.
    pub cold_cpu_ns: u64,
    /// Inodes that the kernel remembers.
    pub inodes: u64,
    /// Files that are open.
    pub open_files: u64,
}

fn pages_by_name<S: Serializer>(
    codecs: &ByCodec<CodecStats>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    for codec in Codec::shrinking() {
        map.serialize_entry(&format!("{codec}_pages"), &codecs[codec].pages)?;
    }
    map.end()
}

fn tiers_by_name<S: Serializer>(tiers: &[TierReport], serializer: S) -> Result<S::Ok, S::Error> {
    let tiers = tiers.iter().map(|report| {
        let counts = report
            .counts
            .iter()
            .map(|(name, count)| (*name, (*count).into()));
        let named = std::iter::once(("tier", report.tier.into())).chain(counts);
        named.collect::<BTreeMap<_, serde_json::Value>>()
    });
    serializer.collect_seq(tiers)
}

impl MountStats {
    pub(crate) fn gather(
        filesystem: &Filesystem,
        requests: &Requests,
        budget: &Budget,
    ) -> MountStats {
        let store = filesystem.cache.store.stats();
        let counts = &filesystem.cache.counts;
        let watch = filesystem.watch.as_ref();
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        MountStats {
            format: 1,
            ram_bytes_budget: budget.ram_bytes(),
            ram_bytes_used: budget.used_bytes(),
            ram_bytes_peak: budget.peak_bytes(),
            pool_bytes: store.pool_bytes,
            metadata_bytes: store.metadata_bytes,
            ghost_bytes: filesystem.cache.ghost_bytes(),
            ghost_pages_max: filesystem.cache.ghost_capacity(),
            stored_pages: store.stored_pages,
            compression_ratio: store.compression_ratio,
            fresh_codec: store.fresh_codec.name(),
            codec_switches: store.codec_switches,
            codecs: store.by_codec,
            requests: count(&requests.served),
            ring_requests: count(&requests.by_ring),
            failed_requests: count(&requests.failed),
            hit_pages: count(&counts.hits),
            missed_pages: count(&counts.misses),
            admitted_pages: count(&counts.admitted),
            passed_pages: count(&counts.passed),
            changed_pages: count(&counts.changed),
            refused_pages: count(&counts.refused),
            evicted_pages: store.evicted_ephemeral_pages,
            invalidated_pages: count(&counts.invalidated),
            watched: watch.is_some_and(|watch| !watch.is_lost()),
            watched_changes: watch.map_or(0, |watch| count(&watch.changes)),
            watch_overflows: watch.map_or(0, |watch| count(&watch.overflows)),
            notices: count(&filesystem.notices.sent),
            unsent_notices: count(&filesystem.notices.unsent),
            damaged_pages: count(&counts.damaged),
            writeback_pages: store.writeback_pages,
            swapped_pages: store.swapped_pages,
            swapin_pages: store.swapin_pages,
            unreachable_pages: count(&counts.unreachable),
            tiers: filesystem.cache.store.tier_reports(),
            cold_blocks: store.cold_blocks,
            cold_pages: store.cold_pages,
            cold_bytes_saved: store.cold_bytes_saved,
            cold_cpu_ns: count(&counts.cold_cpu_ns),
            inodes: filesystem.inodes.len() as u64,
            open_files: filesystem.files.len() as u64,
        }
    }

    /// The statistics as they are written to a file.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Numbers under fixed names always are JSON.
        serde_json::to_string_pretty(self).expect("plain numbers") + "\n"
    }
}
