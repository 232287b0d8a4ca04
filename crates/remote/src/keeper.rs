//! What is done in the background: leases, the dead, segments that are worth
//! being written anew, maps of clusters.
//!
//! Stage on the data path: beside it.
//!
//! - Each turn's work has a bound, and the next turn goes on from there.
//! - What is written anew replaces names only where they still lead to the old
//!   segment, and that goes when no name does.

use std::time::Duration;

use zcache::tier::TierRead;

use crate::away::Away;
use crate::fleet::Event;
use crate::index::{Home, Homes, Index};
use crate::node::Chore;
use crate::segment::{Draft, Packed, SegmentId, UNIT_BYTES};
use crate::stats::count;
use crate::tier::{Core, lock};

/// Segments whose lease is renewed in one turn.
const RENEWED_MAX: usize = 2048;

/// Segments that are written anew in one turn.
const REWRITTEN_MAX: usize = 16;

/// After a turn in which nothing could be written anew.
const REWRITE_PAUSE: Duration = Duration::from_millis(500);

/// Between two tries of what servers would not give back.
const UNDONE_PAUSE: Duration = Duration::from_millis(500);

/// Such segments that are remembered; more are left to the lease.
const UNDONE_MAX: usize = 1 << 16;

/// Keys that one pass of giving everything back takes.
const GIVEN_BACK: usize = 16384;

#[derive(Debug, Default)]
pub(crate) struct Keeper {
    /// The next segment whose lease is renewed, within a pass.
    renews_from: Option<SegmentId>,
    renewed_at: Duration,
    rewrites_at: Duration,
    away: Away,
    undone_at: Duration,
}

impl Keeper {
    /// Whether there is more to be done at once.
    pub(crate) fn turn(&mut self, core: &std::sync::Arc<Core>) -> bool {
        let now = core.clock.now();
        core.close_old_draft();
        core.take_note();
        if now >= self.undone_at + UNDONE_PAUSE {
            self.undone_at = now;
            core.try_undone();
        }
        core.fleet.refresh();
        self.renew(core, now);
        self.away.turn(core, now);
        let mut got_on = false;
        if now >= self.rewrites_at {
            match core.rewrite() {
                Some(true) => got_on = true,
                Some(false) => self.rewrites_at = now + REWRITE_PAUSE,
                None => {}
            }
        }
        core.unlink_dead();
        got_on || self.renews_from.is_some()
    }

    fn renew(&mut self, core: &Core, now: Duration) {
        let from = match self.renews_from {
            Some(from) => from,
            None if now >= self.renewed_at + core.config.lease / 3 => {
                self.renewed_at = now;
                SegmentId(0)
            }
            None => return,
        };
        let kept = lock(&core.index).kept_from(from, RENEWED_MAX);
        self.renews_from = kept.last().map(|(id, _)| SegmentId(id.0 + 1));
        core.fleet.submit_chores(Chore::Expire, copies(kept));
    }
}

fn copies(segments: Vec<(SegmentId, Homes)>) -> Vec<(SegmentId, Home)> {
    let copies =
        |(id, homes): (SegmentId, Homes)| homes.into_iter().flatten().map(move |home| (id, home));
    segments.into_iter().flat_map(copies).collect()
}

impl Core {
    /// Takes note of what workers found out.
    fn take_note(&self) {
        for event in self.fleet.take_events() {
            match event {
                Event::Undone(id, home) => {
                    let mut undone = lock(&self.undone);
                    if undone.len() < UNDONE_MAX {
                        undone.push((id, home));
                    }
                }
                Event::Missing(id, home) => self.lose(&[(id, home)]),
                Event::Emptied(node) => {
                    let kept = lock(&self.index).kept_from(SegmentId(0), usize::MAX);
                    let mut gone = copies(kept);
                    gone.retain(|(_, home)| self.fleet.route_index(*home) == Some(node));
                    self.lose(&gone);
                }
                Event::Leaves(node) => {
                    let is_there = |home: &Home| self.fleet.route_index(*home) == Some(node);
                    let mut index = lock(&self.index);
                    index.doom(|homes| homes.iter().flatten().any(is_there));
                }
            }
        }
    }

    /// Notes that servers may have a segment, or get it yet, of whose write they said nothing.
    pub(crate) fn doubt(&self, index: &mut Index, id: SegmentId, homes: Homes) {
        index.bury(id, homes);
        let mut doubtful = lock(&self.doubtful);
        let room = UNDONE_MAX.saturating_sub(doubtful.len());
        doubtful.extend(copies(vec![(id, homes)]).into_iter().take(room));
    }

    /// Asks servers again that would not give back what they were asked for, but for
    /// those that do not answer; whether there was anything to ask.
    fn try_undone(&self) -> bool {
        let mut undone = lock(&self.undone);
        let is_down = |copy: &(SegmentId, Home)| self.is_down(copy.1);
        let (later, now) = std::mem::take(&mut *undone).into_iter().partition(is_down);
        *undone = later;
        drop(undone);
        let now: Vec<_> = now;
        let is_any = !now.is_empty();
        self.fleet.submit_chores(Chore::Unlink, now);
        is_any
    }

    fn lose(&self, gone: &[(SegmentId, Home)]) {
        let mut index = lock(&self.index);
        for (id, home) in gone {
            let before = index.bytes();
            let blocks = index.lose(*id, *home);
            count(&self.counts.copies_lost, u64::from(index.bytes() < before));
            count(&self.counts.blocks_lost, blocks as u64);
        }
    }

    /// Writes segments anew that lost or will lose a copy, or that are more than half dead
    /// while more than a quarter of everything is. Whether it got on; `None` when
    /// there was nothing to do.
    fn rewrite(&self) -> Option<bool> {
        let worth = {
            let index = lock(&self.index);
            let live = index.live_bytes() * self.config.copies() as u64;
            let much_is_dead = index.bytes() > live + live / 3;
            match index.has_doomed() || much_is_dead {
                true => index.worth_rewriting(REWRITTEN_MAX),
                false => Vec::new(),
            }
        };
        (!worth.is_empty()).then(|| self.rewrite_segments(&worth))
    }

    fn rewrite_segments(&self, worth: &[(SegmentId, Vec<Packed>)]) -> bool {
        let blocks = || worth.iter().flat_map(|(_, blocks)| blocks);
        let len = |block: &Packed| usize::from(block.units) * UNIT_BYTES;
        let mut bytes: Vec<Vec<u8>> = blocks().map(|block| vec![0; len(block)]).collect();
        let reads = blocks().zip(&mut bytes).map(|(block, bytes)| TierRead {
            offset_bytes: u64::from(block.unit) * UNIT_BYTES as u64,
            bytes,
            result: Ok(()),
        });
        let mut reads: Vec<TierRead<'_>> = reads.collect();
        self.read(&mut reads);
        let results: Vec<_> = reads.iter().map(|read| read.result).collect();
        drop(reads);
        let mut came = bytes.iter().zip(results);
        let mut drafts = Vec::with_capacity(worth.len());
        let mut replaced = Vec::with_capacity(worth.len());
        for (id, blocks) in worth {
            let mut draft = Draft::new(self.new_segment());
            for (block, (bytes, result)) in blocks.iter().zip(&mut came) {
                // What was freed meanwhile is not needed; what did not come stays where it is.
                if result.is_ok() {
                    draft.add(&self.seal, block.unit, bytes);
                }
            }
            if !draft.blocks.is_empty() {
                drafts.push(draft);
                replaced.push(*id);
            }
        }
        let stored = self.store(drafts, &replaced);
        let stored = stored.iter().filter(|result| result.is_ok()).count();
        count(&self.counts.rewritten, stored as u64);
        stored > 0
    }

    /// Whether the node of a copy is not asked at the moment.
    fn is_down(&self, home: Home) -> bool {
        self.fleet.route(home).is_none_or(|node| node.is_open())
    }

    /// At the end: no server keeps anything of this run.
    pub(crate) fn give_everything_back(&self) {
        let deadline = self.clock.now() + self.config.timeouts.end;
        for node in self.fleet.nodes().iter() {
            node.probe_soon();
        }
        let doubtful = std::mem::take(&mut *lock(&self.doubtful));
        self.fleet.submit_chores(Chore::Unlink, doubtful);
        let mut from = SegmentId(0);
        loop {
            // A write that is queued is before its unlinking in the same queue.
            let kept = lock(&self.index).sent_from(from, GIVEN_BACK);
            let Some((last, _)) = kept.last() else { break };
            from = SegmentId(last.0 + 1);
            self.fleet.submit_chores(Chore::Unlink, copies(kept));
        }
        // Behind the rest: what is freed meanwhile goes from there to here.
        self.unlink_dead();
        self.fleet.unmark();
        let is_busy = || self.fleet.nodes().iter().any(|node| node.is_busy());
        while self.clock.now() < deadline {
            if self.clock.is_simulated() {
                self.fleet.pump();
            }
            if is_busy() {
                self.clock.sleep(Duration::from_millis(1));
                continue;
            }
            self.take_note();
            if !self.try_undone() {
                break;
            }
            self.clock.sleep(UNDONE_PAUSE / 5);
        }
    }
}
