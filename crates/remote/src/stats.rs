//! What a remote tier did and has.
//!
//! - While nothing is freed and no server loses anything, `posted == blocks + dropped_busy + dropped_failed + dropped_old`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) written: AtomicU64,
    pub(crate) posted: AtomicU64,
    pub(crate) dropped_busy: AtomicU64,
    pub(crate) dropped_failed: AtomicU64,
    pub(crate) dropped_old: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) reads_local: AtomicU64,
    pub(crate) reads_prefetched: AtomicU64,
    pub(crate) reads_lost: AtomicU64,
    pub(crate) reads_failed: AtomicU64,
    pub(crate) hedged: AtomicU64,
    pub(crate) copies_lost: AtomicU64,
    pub(crate) blocks_lost: AtomicU64,
    pub(crate) rewritten: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

pub(crate) fn counted(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

/// One server as the tier sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeStats {
    /// Its address.
    pub address: String,
    /// Whether it is not asked at the moment.
    pub is_open: bool,
    /// How often that began.
    pub opened: u64,
    /// Whether its memory was full a moment ago.
    pub is_full: bool,
    /// Whether its lender wants its RAM back.
    pub leaves: bool,
    /// Half of the reads of one page are answered within this time.
    pub p50: Duration,
    /// All but one of a hundred are.
    pub p99: Duration,
    /// Reads that had no answer in time.
    pub reads_late: u64,
    /// Keys that were left to the lease.
    pub chores_left: u64,
}

/// What a remote tier did and has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteStats {
    /// The servers that are known.
    pub nodes: Vec<NodeStats>,
    /// Segments, those on their way included.
    pub segments: u64,
    /// Blocks.
    pub blocks: u64,
    /// Bytes at servers, each copy counted.
    pub kept_bytes: u64,
    /// Bytes of blocks that are still needed, one copy counted.
    pub live_bytes: u64,
    /// Bytes on their way, in RAM.
    pub queued_bytes: u64,
    /// Blocks that were written and acknowledged by servers.
    pub written: u64,
    /// Blocks of which a copy was taken, to be sent later.
    pub posted: u64,
    /// Of these, not sent because too many waited.
    pub dropped_busy: u64,
    /// Not kept because no server took them.
    pub dropped_failed: u64,
    /// Given up to make room for younger ones.
    pub dropped_old: u64,
    /// Writes that were refused.
    pub refused: u64,
    /// Reads.
    pub reads: u64,
    /// Answered from what had not been sent yet.
    pub reads_local: u64,
    /// Answered from a segment that was fetched whole before.
    pub reads_prefetched: u64,
    /// Of what is not there any more.
    pub reads_lost: u64,
    /// Without an answer.
    pub reads_failed: u64,
    /// Second copies that were asked because the first was late.
    pub hedged: u64,
    /// Copies that servers lost.
    pub copies_lost: u64,
    /// Blocks that went with their last copy.
    pub blocks_lost: u64,
    /// Segments written anew, for their dead blocks or a lost copy.
    pub rewritten: u64,
    /// Bytes sent in segments.
    pub sent_bytes: u64,
}
