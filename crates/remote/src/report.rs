//! What a remote tier did, for people and for `--stats`.
//!
//! Off the data path.

use zcache::tier::TierReport;

use crate::stats::RemoteStats;

impl RemoteStats {
    /// The counts under their names, and a line for people.
    pub(crate) fn report(&self) -> TierReport {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let asked = self.nodes.iter().filter(|node| !node.is_open);
        let p50 = asked.clone().map(|node| node.p50).max();
        let p99 = asked.clone().map(|node| node.p99).max();
        let us = |time: Option<std::time::Duration>| time.unwrap_or_default().as_secs_f64() * 1e6;
        let hits = self.reads - self.reads_lost - self.reads_failed;
        let summary = format!(
            "{} of {} servers answer, {:.0} MiB kept; {hits} reads, {} not there, {} failed, p50 {:.0} us, p99 {:.0} us; \
             {} blocks lost",
            asked.count(),
            self.nodes.len(),
            mib(self.kept_bytes),
            self.reads_lost,
            self.reads_failed,
            us(p50),
            us(p99),
            self.blocks_lost,
        );
        let ns = |time: Option<std::time::Duration>| {
            time.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
        };
        let opened = self.nodes.iter().map(|node| node.opened).sum();
        TierReport {
            tier: "remote",
            summary,
            counts: vec![
                ("nodes", self.nodes.len() as u64),
                (
                    "nodes_not_asked",
                    self.nodes.iter().filter(|node| node.is_open).count() as u64,
                ),
                ("nodes_given_up", opened),
                (
                    "nodes_with_notice",
                    self.nodes.iter().filter(|node| node.leaves).count() as u64,
                ),
                ("segments", self.segments),
                ("blocks", self.blocks),
                ("kept_bytes", self.kept_bytes),
                ("live_bytes", self.live_bytes),
                ("queued_bytes", self.queued_bytes),
                ("written_blocks", self.written),
                ("posted_blocks", self.posted),
                ("dropped_busy_blocks", self.dropped_busy),
                ("dropped_failed_blocks", self.dropped_failed),
                ("dropped_old_blocks", self.dropped_old),
                ("refused_blocks", self.refused),
                ("reads", self.reads),
                ("reads_local", self.reads_local),
                ("reads_prefetched", self.reads_prefetched),
                ("reads_lost", self.reads_lost),
                ("reads_failed", self.reads_failed),
                ("reads_hedged", self.hedged),
                ("copies_lost", self.copies_lost),
                ("blocks_lost", self.blocks_lost),
                ("rewritten_segments", self.rewritten),
                ("sent_bytes", self.sent_bytes),
                ("read_ns_p50", ns(p50)),
                ("read_ns_p99", ns(p99)),
            ],
        }
    }
}
