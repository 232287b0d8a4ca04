//! Blocks on their way out: packed into segments and handed to nodes.
//!
//! Stage on the data path: from the store's batch to the nodes' queues. Two
//! ways: *through*, where a write is done when every copy is acknowledged, and
//! *posting*, where a copy is taken and nothing is promised.
//!
//! - A name is published when its block is acknowledged, or, posted, when its
//!   copy was taken: from then on it reads as what was written or as lost.
//! - `queued bytes <= queue_bytes_max + one segment`.
//! - A segment that failed may be at a server all the same, so it is unlinked.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use zcache::tier::{TierError, TierWrite};

use crate::index::{BLOCKS_MAX, Home, Homes, Index, State};
use crate::link::LinkError;
use crate::node::{Chore, Done, Job, Put, Report, Work, WriteError};
use crate::segment::{BLOCK_BYTES_MAX, Draft, Packed, SegmentId, UNIT_BYTES};
use crate::stats::count;
use crate::tier::{Core, lock};

/// How often a batch is tried, each time at other nodes if there are any.
const ATTEMPTS: usize = 2;

/// How long a segment may stay half full.
const OPEN_MAX: Duration = Duration::from_millis(5);

/// What is posted and not handed to a node yet.
#[derive(Debug, Default)]
pub(crate) struct Posts {
    pub(crate) draft: Option<Draft>,
    since: Duration,
}

/// A segment that is being stored.
struct Storing {
    draft: usize,
    id: SegmentId,
    homes: Homes,
    blocks: Vec<Packed>,
    copies_left: usize,
    result: Result<(), TierError>,
}

fn tier_error(error: WriteError) -> TierError {
    match error {
        WriteError::Full => TierError::NO_SPACE,
        WriteError::Unreplicated => LinkError::Timeout.as_tier_error(),
        WriteError::Link(error) => error.as_tier_error(),
        WriteError::Refused(_) => TierError::IO,
    }
}

fn homes_of(chosen: &[Home]) -> Homes {
    [chosen.first().copied(), chosen.get(1).copied()]
}

/// The unit a block is named by.
fn unit_of(write: &TierWrite<'_>) -> Result<u32, TierError> {
    let unit = u32::try_from(write.offset_bytes / UNIT_BYTES as u64);
    match unit {
        Ok(unit) if write.bytes.len() <= BLOCK_BYTES_MAX => Ok(unit),
        _ => Err(TierError::TOO_LONG),
    }
}

// Through.
impl Core {
    pub(crate) fn write_through(&self, writes: &mut [TierWrite<'_>]) {
        let mut left = Vec::with_capacity(writes.len());
        {
            let mut index = lock(&self.index);
            for (at, write) in writes.iter_mut().enumerate() {
                write.result = unit_of(write).map(|unit| {
                    index.free(unit, write.bytes.len().div_ceil(UNIT_BYTES) as u32);
                    left.push(at);
                });
            }
        }
        for _ in 0..ATTEMPTS {
            if left.is_empty() {
                break;
            }
            let (drafts, owners) = self.pack(writes, &left);
            let results = self.store(drafts, &[]);
            left.clear();
            for (result, owners) in results.into_iter().zip(owners) {
                for at in owners {
                    writes[at].result = result;
                    if result.is_err_and(|error| !error.is_no_room()) {
                        left.push(at);
                    }
                }
            }
        }
        let refused = writes.iter().filter(|write| write.result.is_err()).count();
        count(&self.counts.refused, refused as u64);
        count(&self.counts.written, (writes.len() - refused) as u64);
    }

    /// Packs writes into segments, each where it first has room.
    fn pack(&self, writes: &[TierWrite<'_>], which: &[usize]) -> (Vec<Draft>, Vec<Vec<usize>>) {
        let mut drafts: Vec<Draft> = Vec::new();
        let mut owners: Vec<Vec<usize>> = Vec::new();
        for at in which {
            let write = &writes[*at];
            let Ok(unit) = unit_of(write) else { continue };
            let fits = |draft: &mut Draft| {
                draft.blocks.len() < BLOCKS_MAX && draft.add(&self.seal, unit, write.bytes)
            };
            if let Some(n) = drafts.iter_mut().position(fits) {
                owners[n].push(*at);
                continue;
            }
            let mut draft = Draft::new(self.new_segment());
            let added = draft.add(&self.seal, unit, write.bytes);
            assert!(added, "a block fits an empty segment");
            drafts.push(draft);
            owners.push(vec![*at]);
        }
        (drafts, owners)
    }

    /// Stores segments at as many nodes as copies are wanted, and waits until
    /// all are acknowledged or have failed. Then names lead to them; where each
    /// replaces another, only names that lead to that one still.
    pub(crate) fn store(
        &self,
        drafts: Vec<Draft>,
        replaced: &[SegmentId],
    ) -> Vec<Result<(), TierError>> {
        let mut results = vec![Ok(()); drafts.len()];
        let mut storing: Vec<Storing> = Vec::with_capacity(drafts.len());
        let (sender, receiver) = channel();
        let report: Report = Arc::new(move |done| drop(sender.send(done)));
        for (n, draft) in drafts.into_iter().enumerate() {
            match self.begin_storing(n, draft, &report) {
                Ok(begun) => storing.push(begun),
                Err(error) => results[n] = Err(error),
            }
        }
        drop(report);
        self.await_all(&mut storing, &receiver);
        let mut index = lock(&self.index);
        for begun in storing {
            let result = match begun.copies_left {
                0 => begun.result,
                _ => Err(LinkError::Timeout.as_tier_error()),
            };
            results[begun.draft] = result;
            match result {
                Ok(()) => {
                    for block in begun.blocks {
                        index.publish(begun.id, block, replaced.get(begun.draft).copied());
                    }
                    index.acknowledge(begun.id);
                }
                Err(_) => {
                    index.forget(begun.id);
                    self.doubt(&mut index, begun.id, begun.homes);
                }
            }
        }
        results
    }

    fn begin_storing(&self, n: usize, draft: Draft, report: &Report) -> Result<Storing, TierError> {
        let copies = self.config.copies();
        let Some(chosen) = self.fleet.choose(copies) else {
            return Err(match self.fleet.is_full(copies) {
                true => TierError::NO_SPACE,
                false => LinkError::Down.as_tier_error(),
            });
        };
        let homes = homes_of(&chosen);
        let value = Arc::new(draft.bytes);
        {
            let mut index = lock(&self.index);
            if !self.has_room(&index, value.len() as u64) {
                return Err(TierError::NO_SPACE);
            }
            let state = State::Pending(Arc::clone(&value));
            index.insert(draft.id, homes, state, value.len());
        }
        let mut begun = Storing {
            draft: n,
            id: draft.id,
            homes,
            blocks: draft.blocks,
            copies_left: copies,
            result: Ok(()),
        };
        count(&self.counts.sent_bytes, (value.len() * copies) as u64);
        for home in chosen {
            let put = Put {
                id: draft.id,
                home,
                value: Arc::clone(&value),
                report: Arc::clone(report),
            };
            let node = self.fleet.route(home);
            let job = Job::new(Work::Put(put));
            let may_wait = self.config.timeouts.write;
            if node.is_none_or(|node| node.submit(job, may_wait).is_err()) {
                begun.copies_left -= 1;
                begun.result = Err(LinkError::Busy.as_tier_error());
            }
        }
        Ok(begun)
    }

    fn await_all(&self, storing: &mut [Storing], receiver: &Receiver<Done>) {
        let timeouts = &self.config.timeouts;
        let deadline = self.clock.now() + timeouts.connect + timeouts.write * 3;
        while storing.iter().any(|begun| begun.copies_left > 0) {
            let now = self.clock.now();
            let done = if self.clock.is_simulated() {
                self.fleet.pump();
                receiver.try_recv().map_err(|_| RecvTimeoutError::Timeout)
            } else {
                receiver.recv_timeout(deadline.saturating_sub(now))
            };
            let Ok(done) = done else { return };
            if let Some(begun) = storing.iter_mut().find(|begun| begun.id == done.id) {
                begun.copies_left = begun.copies_left.saturating_sub(1);
                if let Err(error) = done.result {
                    begun.result = Err(tier_error(error));
                }
            }
        }
    }
}

// Posting.
impl Core {
    pub(crate) fn post(self: &Arc<Self>, writes: &mut [TierWrite<'_>]) {
        count(&self.counts.posted, writes.len() as u64);
        for write in writes {
            write.result = unit_of(write).map(|unit| self.post_block(unit, write.bytes));
        }
    }

    /// Takes a copy of a block, unless too much waits.
    fn post_block(self: &Arc<Self>, unit: u32, bytes: &[u8]) {
        let mut guard = lock(&self.posts);
        let posts = &mut *guard;
        let waiting = posts.draft.as_ref().map_or(0, |draft| draft.bytes.len());
        let is_full = {
            let mut index = lock(&self.index);
            let queued = index.pending_bytes() + (waiting + bytes.len()) as u64;
            let is_full = queued > self.config.queue_bytes_max;
            if is_full {
                // What the name led to before is not what it means now.
                index.note_lost(unit, bytes.len().div_ceil(UNIT_BYTES) as u8);
            }
            is_full
        };
        if is_full {
            count(&self.counts.dropped_busy, 1);
            return;
        }
        loop {
            let now = self.clock.now();
            let draft = match &mut posts.draft {
                Some(draft) => draft,
                none => {
                    posts.since = now;
                    let draft = none.insert(Draft::new(self.new_segment()));
                    lock(&self.index).insert(draft.id, [None; 2], State::Open, 0);
                    draft
                }
            };
            if draft.blocks.len() < BLOCKS_MAX && draft.add(&self.seal, unit, bytes) {
                let block = draft.blocks[draft.blocks.len() - 1];
                lock(&self.index).publish(draft.id, block, None);
                return;
            }
            self.close_draft(posts);
        }
    }

    /// Sends a segment that has been half full for long enough.
    pub(crate) fn close_old_draft(self: &Arc<Self>) {
        let mut posts = lock(&self.posts);
        if posts.draft.is_some() && self.clock.now() >= posts.since + OPEN_MAX {
            self.close_draft(&mut posts);
        }
    }

    fn close_draft(self: &Arc<Self>, posts: &mut Posts) {
        let Some(draft) = posts.draft.take() else {
            return;
        };
        let id = draft.id;
        let bytes = Arc::new(draft.bytes);
        let home = self
            .fleet
            .choose(1)
            .and_then(|chosen| chosen.first().copied());
        let home = home.filter(|_| self.make_room(bytes.len() as u64));
        let node = home.and_then(|home| self.fleet.route(home));
        let (Some(home), Some(node)) = (home, node) else {
            self.drop_posted(&mut lock(&self.index), id);
            return;
        };
        lock(&self.index).close(id, [Some(home), None], Arc::clone(&bytes));
        count(&self.counts.sent_bytes, bytes.len() as u64);
        let core = Arc::downgrade(self);
        let put = Put {
            id,
            home,
            value: bytes,
            report: Arc::new(move |done| posted(&core, home, &done)),
        };
        if node
            .submit(Job::new(Work::Put(put)), Duration::ZERO)
            .is_err()
        {
            self.drop_posted(&mut lock(&self.index), id);
        }
    }

    /// Gives the oldest segments up until there is room for a new one.
    fn make_room(&self, bytes: u64) -> bool {
        let mut index = lock(&self.index);
        while !self.has_room(&index, bytes) {
            let Some(blocks) = index.drop_oldest() else {
                return false;
            };
            count(&self.counts.dropped_old, blocks as u64);
        }
        drop(index);
        self.unlink_dead();
        true
    }

    fn drop_posted(&self, index: &mut Index, id: SegmentId) {
        let blocks = index.forget(id);
        count(&self.counts.dropped_failed, blocks as u64);
    }

    /// Has servers give back what is dead.
    pub(crate) fn unlink_dead(&self) {
        let dead = lock(&self.index).take_dead();
        let copies = |(id, homes): (SegmentId, Homes)| {
            homes.into_iter().flatten().map(move |home| (id, home))
        };
        let copies: Vec<_> = dead.into_iter().flat_map(copies).collect();
        if !copies.is_empty() {
            self.fleet.submit_chores(Chore::Unlink, copies);
        }
    }
}

/// What became of a posted segment.
fn posted(core: &Weak<Core>, home: Home, done: &Done) {
    let Some(core) = core.upgrade() else {
        return;
    };
    let mut index = lock(&core.index);
    match &done.result {
        Ok(()) => index.acknowledge(done.id),
        Err(error) => {
            core.drop_posted(&mut index, done.id);
            // A server that was full surely does not have it.
            if *error != WriteError::Full {
                core.doubt(&mut index, done.id, [Some(home), None]);
            }
        }
    }
}
