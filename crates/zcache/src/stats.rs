//! What operators see of a store. A snapshot: fields are read one after the
//! other, so sums that hold at rest may be off by the operations in flight.
//!
//! The equations that hold at rest are those of [`Stats::validate`].

use zcache_core::Broken;

use crate::codec::{ByCodec, Codec, CodecCost};

/// The numbers of a codec in a store at one moment.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct CodecStats {
    /// Pages held now that it made, in RAM and in the tier, fresh or cold.
    pub pages: u64,
    /// What it costs here and now, with the dictionary there is.
    pub cost: CodecCost,
}

/// The numbers of a store at one moment. Names end in their unit; those
/// without one count events since the store was opened or pages held now.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Stats {
    /// Pages held now, in RAM and in the tier, of every kind.
    pub stored_pages: u64,
    /// Of those, pages that repeat one word and need no frame.
    pub same_filled_pages: u64,
    /// Of those, pages that are only in the tier.
    pub swapped_pages: u64,
    /// Pages accepted since opening that were kept as they were because no
    /// codec shrank them.
    pub incompressible_pages: u64,
    /// RAM in frames that hold zpages or wait in the free cache.
    pub pool_bytes: u64,
    /// RAM in tables, maps and buffers of the store, and the codecs' memory of
    /// every thread of the process.
    pub metadata_bytes: u64,
    /// All RAM of the store: see [`Store::ram_bytes`](crate::Store::ram_bytes).
    pub ram_bytes: u64,
    /// Compressed bytes of the pages held now, without packing loss.
    pub compressed_bytes: u64,
    /// Dictionaries that are kept for pages held now or to come.
    pub dictionaries: u64,
    /// RAM of these dictionaries, part of `metadata_bytes`.
    pub dictionary_bytes: u64,
    /// Dictionaries trained, or tried in vain.
    pub dictionary_trainings: u64,
    /// Of these, dictionaries that were worth it and were used.
    pub dictionary_adoptions: u64,
    /// Time spent on training, in nanoseconds.
    pub dictionary_training_ns: u64,
    /// Times that pages were collected to train on and too few came.
    pub dictionary_rounds_given_up: u64,
    /// The codec that fresh pages get now.
    pub fresh_codec: Codec,
    /// How often that was changed.
    pub codec_switches: u64,
    /// What each codec holds and costs.
    pub by_codec: ByCodec<CodecStats>,
    /// Pages compressed by both codecs that are chosen between, to know these costs.
    pub compared_pages: u64,
    /// Time spent on that, in nanoseconds.
    pub comparing_ns: u64,
    /// Page bytes divided by compressed bytes of the pages held now; same-filled
    /// pages are left out. Zero while there are none.
    pub compression_ratio: f64,
    /// Pages that came in: each is stored or rejected.
    pub attempts: u64,
    /// Attempts that were accepted.
    pub accepted: u64,
    /// Attempts refused because the store was full and nothing in it could leave.
    pub rejected_pool_full: u64,
    /// Attempts refused because the store was full, and the tier too.
    pub rejected_tier_full: u64,
    /// Attempts refused because the store was full and the tier failed.
    pub rejected_tier_failing: u64,
    /// Attempts refused because the store was full and the process forked.
    pub rejected_forked: u64,
    /// Attempts refused because the system gave no memory.
    pub rejected_no_memory: u64,
    /// Attempts refused because no entry number was left.
    pub rejected_handles_exhausted: u64,
    /// Attempts refused because the pool was not open.
    pub rejected_no_such_pool: u64,
    /// Attempts refused because records were damaged.
    pub rejected_damaged: u64,
    /// Pages given up by the release of their last reference.
    pub released_pages: u64,
    /// Older pages that went with an accepted put of their key.
    pub overwritten_pages: u64,
    /// Older pages that went although the put of their key was rejected.
    pub put_to_flush_pages: u64,
    /// Pages that went by a flush of a page, an object or a pool.
    pub flushed_pages: u64,
    /// Pages that went by an exclusive get, also those that it found damaged.
    pub taken_pages: u64,
    /// Pages asked for: each is given back, missed or an error.
    pub load_attempts: u64,
    /// Pages given back.
    pub loads: u64,
    /// Pages asked for that there were not.
    pub load_misses: u64,
    /// Loads that gave up because the page moved each time it was read.
    pub busy_errors: u64,
    /// Pages written to the tier and acknowledged.
    pub writeback_pages: u64,
    /// Blocks written to the tier and acknowledged.
    pub writeback_blocks: u64,
    /// Block writes that the tier refused; the pages stayed in RAM.
    pub writeback_failures: u64,
    /// Reclaims that did not try the tier because it had just failed.
    pub writeback_retries_held_back: u64,
    /// Reclaims that found every block on its way out in other threads and
    /// waited for these.
    pub room_waits: u64,
    /// Of those, the ones that the tier did not answer within 10 s.
    pub room_waits_in_vain: u64,
    /// How often a put made room and was refused once more, since other threads
    /// took it or it was not enough.
    pub room_rounds_lost: u64,
    /// Puts that were refused because others took all room for 10 s.
    pub room_time_exceeded: u64,
    /// Bytes of the tier's file in use now.
    pub swap_bytes: u64,
    /// The most bytes of the tier's file that were ever in use.
    pub swap_bytes_peak: u64,
    /// Pages read back from the tier for a client.
    pub swapin_pages: u64,
    /// Reads that the tier was asked for; fewer than pages when neighbours
    /// were merged.
    pub swapin_reads: u64,
    /// Pages moved back from sparse tier blocks into RAM blocks.
    pub swap_compacted_pages: u64,
    /// Pages moved out of half-empty blocks.
    pub evacuated_pages: u64,
    /// Blocks emptied by that.
    pub evacuated_blocks: u64,
    /// Loads that began again because the page had moved while it was read.
    pub relocations: u64,
    /// Ephemeral pages dropped to make room.
    pub evicted_ephemeral_pages: u64,
    /// Pages that went because a bit of RAM changed in the record that named them.
    /// Pages that can still be named are held, and are an error to whoever loads
    /// them.
    pub lost_pages: u64,
    /// How often records contradicted one another and were made good.
    pub repairs: u64,
    /// Ephemeral blocks dropped for a persistent page.
    pub pers_ate_eph: u64,
    /// Cold blocks that were looked at for harder compression.
    pub cold_blocks: u64,
    /// Pages that harder compression made smaller.
    pub cold_pages: u64,
    /// Compressed bytes that it saved.
    pub cold_bytes_saved: u64,
    /// Loads that failed because the tier failed to read.
    pub read_errors: u64,
    /// Loads that failed because the bytes did not match their checksum, or were
    /// no page.
    pub checksum_errors: u64,
}

impl Stats {
    /// Attempts that were refused, for whatever reason:
    /// `accepted + rejected == attempts`.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejected_pool_full
            + self.rejected_tier_full
            + self.rejected_tier_failing
            + self.rejected_forked
            + self.rejected_no_memory
            + self.rejected_handles_exhausted
            + self.rejected_no_such_pool
            + self.rejected_damaged
    }

    /// Checks the equations that hold at rest, while no call is under way:
    ///
    /// - every page that came in was accepted or rejected for a reason
    /// - every page accepted is held, or went in one way
    /// - every page asked for was given back, missed or an error
    /// - `pool_bytes + metadata_bytes == ram_bytes`
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn validate(&self) -> Result<(), Broken> {
        let rejected = self.rejected();
        let went = self.released_pages
            + self.overwritten_pages
            + self.put_to_flush_pages
            + self.flushed_pages
            + self.taken_pages
            + self.evicted_ephemeral_pages
            + self.lost_pages;
        let errors = self.busy_errors + self.checksum_errors + self.read_errors;
        let equations = [
            (
                "attempts == accepted + sum(rejected_*)",
                self.attempts,
                self.accepted + rejected,
            ),
            (
                "accepted == stored + released + overwritten + put_to_flush + flushed + taken + evicted + lost",
                self.accepted,
                self.stored_pages + went,
            ),
            (
                "load_attempts == loads + load_misses + busy, checksum and read errors",
                self.load_attempts,
                self.loads + self.load_misses + errors,
            ),
            (
                "ram_bytes == pool_bytes + metadata_bytes",
                self.ram_bytes,
                self.pool_bytes + self.metadata_bytes,
            ),
        ];
        let broken = equations.into_iter().find(|(_, left, right)| left != right);
        broken.map_or(Ok(()), |(equation, left, right)| {
            Err(Broken {
                equation,
                left,
                right,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_equation_is_named_when_it_does_not_hold() {
        let whole = Stats {
            attempts: 20,
            accepted: 16,
            rejected_pool_full: 1,
            rejected_no_memory: 1,
            rejected_handles_exhausted: 1,
            rejected_no_such_pool: 1,
            stored_pages: 4,
            released_pages: 2,
            overwritten_pages: 2,
            put_to_flush_pages: 2,
            flushed_pages: 2,
            taken_pages: 2,
            evicted_ephemeral_pages: 2,
            load_attempts: 5,
            loads: 1,
            load_misses: 1,
            busy_errors: 1,
            checksum_errors: 1,
            read_errors: 1,
            ram_bytes: 3,
            pool_bytes: 2,
            metadata_bytes: 1,
            ..Stats::default()
        };
        assert_eq!(whole.validate(), Ok(()));
        let breaks = |change: fn(&mut Stats)| {
            let mut stats = whole;
            change(&mut stats);
            stats.validate().unwrap_err().equation
        };
        assert!(breaks(|s| s.rejected_no_such_pool = 0).starts_with("attempts"));
        assert!(breaks(|s| s.taken_pages += 1).starts_with("accepted"));
        assert!(breaks(|s| s.load_misses = 0).starts_with("load_attempts"));
        assert!(breaks(|s| s.ram_bytes += 1).starts_with("ram_bytes"));
    }
}
