//! What a run did: the JSON of `--stats` and the summary for people.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap, Serializer};
use zcache::tier::TierReport;
use zcache::{ByCodec, Codec, CodecStats};

use crate::config::StatsTarget;
use crate::pager::{Pager, say};

/// The statistics of a run; the names and units are documented in
/// `docs/stats.md` and stable.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RunStats {
    /// Version of this list of names.
    pub format: u32,
    /// The budget.
    pub ram_bytes_budget: u64,
    /// The highest use of it.
    pub ram_bytes_peak: u64,
    /// Pages of the program in RAM now, in bytes, the shadow included.
    pub resident_bytes: u64,
    /// What cannot be paged: zcache's own memory and private file pages.
    pub fixed_bytes: u64,
    /// Frames that hold compressed pages.
    pub pool_bytes: u64,
    /// The store's metadata.
    pub metadata_bytes: u64,
    /// Pages in the store, on disk included.
    pub stored_pages: u64,
    /// Of these, pages of one repeated word.
    pub same_filled_pages: u64,
    /// Pages that were kept as they are since the start.
    pub incompressible_pages: u64,
    /// Original bytes to compressed bytes of the stored pages.
    pub compression_ratio: f64,
    /// The codec that fresh pages get now.
    pub fresh_codec: &'static str,
    /// How often that was changed.
    pub codec_switches: u64,
    /// Numbers of each codec, under names that begin with its own.
    #[serde(flatten)]
    pub codecs: CodecNumbers,
    /// Pages compressed by both, to know these.
    pub compared_pages: u64,
    /// Time spent on that.
    pub comparing_ns: u64,
    /// Dictionaries that stored pages were made with, or new ones are.
    pub dictionaries: u64,
    /// Their RAM, part of `metadata_bytes`.
    pub dictionary_bytes: u64,
    /// Dictionaries trained or tried.
    pub dictionary_trainings: u64,
    /// Of these, dictionaries that were worth it.
    pub dictionary_adoptions: u64,
    /// Time spent on training.
    pub dictionary_training_ns: u64,
    /// Cold blocks that were looked at for harder compression.
    pub cold_blocks: u64,
    /// Pages that it made smaller.
    pub cold_pages: u64,
    /// Compressed bytes that it saved.
    pub cold_bytes_saved: u64,
    /// CPU time that it took.
    pub cold_cpu_ns: u64,
    /// Faults that the pager answered.
    pub faults: u64,
    /// Median time to answer one.
    pub fault_ns_p50: u64,
    /// 99th percentile of that time.
    pub fault_ns_p99: u64,
    /// Pages given as zeros.
    pub zero_filled_pages: u64,
    /// Pages brought back from the store.
    pub loaded_pages: u64,
    /// Of these, pages brought along in a sweep.
    pub around_pages: u64,
    /// Pages that came back before they were compressed.
    pub second_chances: u64,
    /// Pages put into the store.
    pub evicted_pages: u64,
    /// Faults that had to wait for room.
    pub stalled_faults: u64,
    /// Pages that could not be moved.
    pub unmovable_pages: u64,
    /// Pages that left by the pen, since they are not plain data.
    pub penned_pages: u64,
    /// Batches that a servant did not finish in time.
    pub stuck_batches: u64,
    /// Processes and images that run unpaged.
    pub unpaged: u64,
    /// Pages that the store refused and the program kept.
    pub returned_pages: u64,
    /// Pages lost and reported; touching them raises SIGBUS.
    pub lost_pages: u64,
    /// Faults that were refused since nothing could be freed.
    pub out_of_memory: u64,
    /// Pages written to the swap file.
    pub writeback_pages: u64,
    /// Bytes in use in the swap file.
    pub swap_bytes: u64,
    /// Pages read from the swap file.
    pub swapin_pages: u64,
    /// What tiers say of themselves.
    pub tiers: Vec<TierNumbers>,
    /// Images and forked children taken into care.
    pub spaces: u64,
    /// Forks served.
    pub forks: u64,
    /// Memory-map calls carried out.
    pub mapping_calls: u64,
    /// Pages that the store refused, by reason.
    pub rejected: Rejections,
    /// Where the pages of the store came from and went.
    #[serde(flatten)]
    pub passage: Passage,
}

/// The engine's account of pages and loads, under the names of [`zcache::Stats`]. At rest its equations hold:
/// see [`zcache::Stats::validate`].
#[derive(Clone, Debug, serde::Serialize)]
pub struct Passage {
    /// Pages that came to the store.
    pub attempts: u64,
    /// Of these, pages that it took.
    pub accepted: u64,
    /// Pages given up by the release of their last reference.
    pub released_pages: u64,
    /// Older pages that went with an accepted put of their key.
    pub overwritten_pages: u64,
    /// Older pages that went although the put of their key was refused.
    pub put_to_flush_pages: u64,
    /// Pages that went by a flush.
    pub flushed_pages: u64,
    /// Pages that went by an exclusive get.
    pub taken_pages: u64,
    /// Ephemeral pages dropped to make room.
    pub evicted_ephemeral_pages: u64,
    /// Pages that damage of RAM took with their names.
    pub store_lost_pages: u64,
    /// How often records were damaged and made good.
    pub repairs: u64,
    /// Pages that the store was asked for.
    pub load_attempts: u64,
    /// Of these, pages that it gave back.
    pub loads: u64,
    /// Of these, pages that there were not.
    pub load_misses: u64,
    /// Of these, pages that moved each time they were read.
    pub busy_errors: u64,
    /// Of these, pages whose bytes or records were damaged.
    pub checksum_errors: u64,
    /// Of these, pages that the swap file failed to read.
    pub read_errors: u64,
    /// Block writes that the swap file refused.
    pub writeback_failures: u64,
    /// Reclaims that left the swap file alone because it had just failed.
    pub writeback_retries_held_back: u64,
    /// Reclaims that waited for blocks that other threads wrote.
    pub room_waits: u64,
    /// Of these, waits that the swap file did not answer.
    pub room_waits_in_vain: u64,
    /// How often room that was made was gone or not enough.
    pub room_rounds_lost: u64,
    /// Puts refused because others took all room for too long.
    pub room_time_exceeded: u64,
    /// Times that too few pages came to train a dictionary on.
    pub dictionary_rounds_given_up: u64,
}

impl Passage {
    fn of(store: &zcache::Stats) -> Passage {
        Passage {
            attempts: store.attempts,
            accepted: store.accepted,
            released_pages: store.released_pages,
            overwritten_pages: store.overwritten_pages,
            put_to_flush_pages: store.put_to_flush_pages,
            flushed_pages: store.flushed_pages,
            taken_pages: store.taken_pages,
            evicted_ephemeral_pages: store.evicted_ephemeral_pages,
            store_lost_pages: store.lost_pages,
            repairs: store.repairs,
            load_attempts: store.load_attempts,
            loads: store.loads,
            load_misses: store.load_misses,
            busy_errors: store.busy_errors,
            checksum_errors: store.checksum_errors,
            read_errors: store.read_errors,
            writeback_failures: store.writeback_failures,
            writeback_retries_held_back: store.writeback_retries_held_back,
            room_waits: store.room_waits,
            room_waits_in_vain: store.room_waits_in_vain,
            room_rounds_lost: store.room_rounds_lost,
            room_time_exceeded: store.room_time_exceeded,
            dictionary_rounds_given_up: store.dictionary_rounds_given_up,
        }
    }
}

/// What each codec that shrinks pages holds and costs. Each number has a name that
/// begins with the codec's.
#[derive(Clone, Copy, Debug)]
pub struct CodecNumbers(pub ByCodec<CodecStats>);

impl CodecNumbers {
    /// How many stored pages each shrank, in words.
    fn pages_by(&self) -> String {
        let by = |codec| format!("{} by {codec}", self.0[codec].pages);
        Codec::shrinking().map(by).collect::<Vec<_>>().join(", ")
    }
}

impl Serialize for CodecNumbers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for codec in Codec::shrinking() {
            map.serialize_entry(&format!("{codec}_pages"), &self.0[codec].pages)?;
        }
        for codec in Codec::shrinking() {
            let cost = self.0[codec].cost;
            map.serialize_entry(&format!("{codec}_encode_ns"), &(cost.encode_ns as u64))?;
            map.serialize_entry(&format!("{codec}_decode_ns"), &(cost.decode_ns as u64))?;
        }
        let (fast, dense) = (Codec::FAST, Codec::DENSE);
        let [longer, shorter] = [fast, dense].map(|codec| self.0[codec].cost.zpage_bytes);
        map.serialize_entry(&format!("{fast}_bytes_to_{dense}"), &(longer / shorter))?;
        map.end()
    }
}

/// What a tier says of itself: its kind, and its counts by their names.
#[derive(Clone, Debug)]
pub struct TierNumbers(TierReport);

impl Serialize for TierNumbers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("tier", self.0.tier)?;
        for (name, count) in &self.0.counts {
            map.serialize_entry(name, count)?;
        }
        map.end()
    }
}

/// Pages that the store refused, by reason.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Rejections {
    /// The pool was at its limit, and nothing could leave.
    pub pool_full: u64,
    /// And the swap file was full.
    pub tier_full: u64,
    /// And the swap file failed.
    pub tier_failing: u64,
    /// And the swap file was another process's.
    pub forked: u64,
    /// No frame could be had.
    pub no_memory: u64,
    /// No entry number was left.
    pub handles_exhausted: u64,
    /// The pool was not open.
    pub no_such_pool: u64,
    /// Records were damaged.
    pub damaged: u64,
}

impl Rejections {
    fn of(store: &zcache::Stats) -> Rejections {
        Rejections {
            pool_full: store.rejected_pool_full,
            tier_full: store.rejected_tier_full,
            tier_failing: store.rejected_tier_failing,
            forked: store.rejected_forked,
            no_memory: store.rejected_no_memory,
            handles_exhausted: store.rejected_handles_exhausted,
            no_such_pool: store.rejected_no_such_pool,
            damaged: store.rejected_damaged,
        }
    }
}

impl Pager {
    pub(crate) fn stats(&self) -> RunStats {
        let store = self.store.stats();
        let c = &self.counters;
        RunStats {
            format: 1,
            ram_bytes_budget: self.budget.ram_bytes(),
            ram_bytes_peak: self.budget.peak_bytes(),
            resident_bytes: self.budget.charged_bytes(),
            fixed_bytes: self.budget.fixed_bytes(),
            pool_bytes: store.pool_bytes,
            metadata_bytes: store.metadata_bytes,
            stored_pages: store.stored_pages,
            same_filled_pages: store.same_filled_pages,
            incompressible_pages: store.incompressible_pages,
            compression_ratio: store.compression_ratio,
            fresh_codec: store.fresh_codec.name(),
            codec_switches: store.codec_switches,
            codecs: CodecNumbers(store.by_codec),
            compared_pages: store.compared_pages,
            comparing_ns: store.comparing_ns,
            dictionaries: store.dictionaries,
            dictionary_bytes: store.dictionary_bytes,
            dictionary_trainings: store.dictionary_trainings,
            dictionary_adoptions: store.dictionary_adoptions,
            dictionary_training_ns: store.dictionary_training_ns,
            cold_blocks: store.cold_blocks,
            cold_pages: store.cold_pages,
            cold_bytes_saved: store.cold_bytes_saved,
            cold_cpu_ns: c.cold_cpu_ns.get(),
            faults: c.faults.get(),
            fault_ns_p50: c.fault_ns.percentile_ns(0.5),
            fault_ns_p99: c.fault_ns.percentile_ns(0.99),
            zero_filled_pages: c.zero_filled_pages.get(),
            loaded_pages: c.loaded_pages.get(),
            around_pages: c.around_pages.get(),
            second_chances: c.second_chances.get(),
            evicted_pages: c.evicted_pages.get(),
            stalled_faults: c.stalled_faults.get(),
            unmovable_pages: c.unmovable_pages.get(),
            penned_pages: c.penned_pages.get(),
            stuck_batches: c.stuck_batches.get(),
            unpaged: c.unpaged.get(),
            returned_pages: c.returned_pages.get(),
            lost_pages: c.lost_pages.get(),
            out_of_memory: c.out_of_memory.get(),
            writeback_pages: store.writeback_pages,
            swap_bytes: store.swap_bytes,
            swapin_pages: store.swapin_pages,
            tiers: self
                .store
                .tier_reports()
                .into_iter()
                .map(TierNumbers)
                .collect(),
            spaces: c.spaces.get(),
            forks: c.forks.get(),
            mapping_calls: c.mapping_calls.get(),
            rejected: Rejections::of(&store),
            passage: Passage::of(&store),
        }
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

/// Five lines for people on standard error, and one for each tier that says something of itself.
pub(crate) fn print_summary(pager: &Pager, running: bool) {
    let s = pager.stats();
    let state = if running { "running" } else { "done" };
    say!(
        "{state}: peak {:.0} of {:.0} MiB; resident {:.0}, store {:.0} + {:.0} metadata, unpageable {:.0} MiB",
        mib(s.ram_bytes_peak),
        mib(s.ram_bytes_budget),
        mib(s.resident_bytes),
        mib(s.pool_bytes),
        mib(s.metadata_bytes),
        mib(s.fixed_bytes),
    );
    say!(
        "pages: {} evicted, {} brought back ({} in sweeps), {} second chances, {} zero-filled",
        s.evicted_pages,
        s.loaded_pages,
        s.around_pages,
        s.second_chances,
        s.zero_filled_pages
    );
    say!(
        "store: {} pages at {:.2}:1, {} same-filled, {} incompressible; {}, fresh ones by {}",
        s.stored_pages,
        s.compression_ratio,
        s.same_filled_pages,
        s.incompressible_pages,
        s.codecs.pages_by(),
        s.fresh_codec
    );
    say!(
        "swap: {} pages written, {} read, {:.0} MiB in use",
        s.writeback_pages,
        s.swapin_pages,
        mib(s.swap_bytes)
    );
    for TierNumbers(report) in &s.tiers {
        say!("{}: {}", report.tier, report.summary);
    }
    say!(
        "faults: {}, p50 {:.1} us, p99 {:.1} us, {} waited for room, {} pages lost",
        s.faults,
        us(s.fault_ns_p50),
        us(s.fault_ns_p99),
        s.stalled_faults,
        s.lost_pages
    );
}

/// Looks at the engine's counts until what was under way has ended.
const COUNT_LOOKS: u32 = 20;

/// Says so if the engine's counts do not add up once nothing is under way: the
/// numbers are wrong then, or a page went that no counter knows.
fn check_counts(pager: &Pager) {
    let mut broken = None;
    for _ in 0..COUNT_LOOKS {
        match pager.store.stats().validate() {
            Ok(()) => return,
            Err(error) => broken = Some(error),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    if let Some(broken) = broken {
        say!("the engine's counts do not add up, which is a defect; please report it: {broken}");
    }
}

/// Checks the engine's counts, and writes what `--stats` asked for, at the end.
pub(crate) fn write(pager: &Pager) {
    check_counts(pager);
    let Some(target) = &pager.config.stats else {
        return;
    };
    pager.measure();
    print_summary(pager, pager.stopping.load(Ordering::Relaxed));
    let json = match serde_json::to_string_pretty(&pager.stats()) {
        Ok(json) => json + "\n",
        Err(error) => {
            say!("the statistics cannot be written: {error}");
            return;
        }
    };
    match target {
        StatsTarget::Standard => {
            use std::io::Write;
            let _ = std::io::stderr().write_all(json.as_bytes());
        }
        StatsTarget::File(path) => {
            if let Err(error) = fs::write(path, json) {
                say!(
                    "the statistics cannot be written to {}: {error}",
                    path.display()
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// The whole numbers of a snapshot by the names of their fields.
    fn fields(stats: &zcache::Stats) -> BTreeMap<String, u64> {
        let text = format!("{stats:#?}");
        let fields = text.lines().filter_map(|line| {
            let (name, value) = line.strip_prefix("    ")?.split_once(": ")?;
            Some((name.to_owned(), value.trim_end_matches(',').parse().ok()?))
        });
        fields.collect()
    }

    #[test]
    fn every_reason_to_refuse_a_page_is_reported() {
        let stats = zcache::Stats {
            rejected_pool_full: 1,
            rejected_tier_full: 2,
            rejected_tier_failing: 3,
            rejected_forked: 4,
            rejected_no_memory: 5,
            rejected_handles_exhausted: 6,
            rejected_no_such_pool: 7,
            rejected_damaged: 8,
            ..zcache::Stats::default()
        };
        let reported = serde_json::to_value(Rejections::of(&stats)).unwrap();
        let reported = reported.as_object().unwrap();
        let reasons: Vec<_> = fields(&stats)
            .into_iter()
            .filter_map(|(name, count)| Some((name.strip_prefix("rejected_")?.to_owned(), count)))
            .collect();
        assert_eq!(reasons.len(), reported.len(), "{reported:?}");
        for (reason, count) in reasons {
            assert_eq!(reported.get(&reason), Some(&count.into()), "{reason}");
        }
    }

    #[test]
    fn the_account_of_pages_has_the_names_of_the_engine() {
        let stats = zcache::Stats {
            attempts: 1,
            accepted: 2,
            released_pages: 3,
            taken_pages: 4,
            load_attempts: 5,
            load_misses: 6,
            room_waits: 7,
            repairs: 8,
            lost_pages: 9,
            ..zcache::Stats::default()
        };
        let fields = fields(&stats);
        let reported = serde_json::to_value(Passage::of(&stats)).unwrap();
        for (name, count) in reported.as_object().unwrap() {
            // The pager has lost pages of its own.
            let name = name.strip_prefix("store_").unwrap_or(name);
            assert_eq!(fields.get(name), count.as_u64().as_ref(), "{name}");
        }
    }

    #[test]
    fn numbers_of_codecs_keep_their_names() {
        let mut by_codec = ByCodec::from_fn(|_| CodecStats::default());
        for (codec, some) in Codec::shrinking().zip(1..) {
            by_codec[codec].pages = some * 100;
            by_codec[codec].cost.encode_ns = some as f64 * 10.5;
            by_codec[codec].cost.decode_ns = some as f64;
            by_codec[codec].cost.zpage_bytes = 1000.0 / some as f64;
        }
        let numbers = CodecNumbers(by_codec);
        let json = serde_json::to_string(&numbers).unwrap();
        let [fast, dense] = [Codec::FAST, Codec::DENSE].map(Codec::name);
        let expected = format!(
            r#"{{"{fast}_pages":100,"{dense}_pages":200,"{fast}_encode_ns":10,"{fast}_decode_ns":1,"{dense}_encode_ns":21,"{dense}_decode_ns":2,"{fast}_bytes_to_{dense}":2.0}}"#
        );
        assert_eq!(json, expected);
        let words = format!("100 by {fast}, 200 by {dense}");
        assert_eq!(numbers.pages_by(), words);
    }
}
