//! Blocks on their way back.
//!
//! Stage on the data path: from names to the bytes of servers. Parts of one
//! segment are one GETRANGE, and those of one node go out at once. A copy that
//! is late, lost or out of reach is followed by the other; where the only
//! copies are remote, they are asked again until patience ends.
//!
//! - Bytes are copied out only when their seals are right.
//! - A read of several blocks has all of them or fails.
//! - A read that finds a segment gone looks up its names again, since the
//!   segment may have been written anew meanwhile: at most REPLANS times.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use zcache::tier::{TierError, TierRead};

use crate::config::Durability;
use crate::index::{Found, Home, Homes, Place, State};
use crate::link::{Command, LinkError, Reply};
use crate::node::{Exchange, Node};
use crate::segment::{Packed, SegmentId, UNIT_BYTES};
use crate::stats::count;
use crate::tier::{Core, lock};

/// How often a read looks its names up.
const REPLANS: usize = 4;

/// Ranges that are asked for at once on one connection.
const DEPTH: usize = 64;

/// Between two rounds for the only copies.
const PAUSE: Duration = Duration::from_millis(20);

/// A part of one block for one read.
struct Piece {
    read: usize,
    /// Where in the read it goes.
    to: usize,
    len: usize,
    /// From where in the block.
    from: usize,
    block: Packed,
}

/// What is fetched of one segment.
struct Fetch {
    id: SegmentId,
    homes: Homes,
    first: u32,
    end: u32,
    segment_bytes: u32,
    pieces: Vec<Piece>,
    outcome: Outcome,
    /// How many copies were asked so far.
    asked: usize,
}

/// What was asked of one node and is not answered yet.
struct UnderWay<'a> {
    node: &'a Arc<Node>,
    batch: Vec<usize>,
    within: Duration,
    exchange: Exchange<'a>,
    began: Duration,
}

enum Outcome {
    Waits,
    Done,
    Gone,
    Failed(LinkError),
}

impl Fetch {
    fn is_settled(&self) -> bool {
        matches!(self.outcome, Outcome::Done | Outcome::Gone)
    }

    /// The copy to ask next: each in turn.
    fn home(&self) -> Option<Home> {
        let homes: Vec<Home> = self.homes.into_iter().flatten().collect();
        (!homes.is_empty()).then(|| homes[self.asked % homes.len()])
    }
}

impl Core {
    pub(crate) fn read(&self, reads: &mut [TierRead<'_>]) {
        count(&self.counts.reads, reads.len() as u64);
        let mut left: Vec<usize> = (0..reads.len()).collect();
        for replan in 0..REPLANS {
            let mut fetches = Vec::new();
            for at in left.drain(..) {
                reads[at].result = self.plan(at, &mut reads[at], &mut fetches);
            }
            self.fetch(&mut fetches, reads);
            for fetch in &fetches {
                let error = match &fetch.outcome {
                    Outcome::Done => continue,
                    Outcome::Gone => TierError::Lost,
                    Outcome::Waits => LinkError::Timeout.as_tier_error(),
                    Outcome::Failed(error) => error.as_tier_error(),
                };
                let index = lock(&self.index);
                for piece in &fetch.pieces {
                    // Failed because it went elsewhere: look again.
                    let moved = !index.leads_to(piece.block.unit, fetch.id)
                        && matches!(index.find(piece.block.unit), Place::Block(_));
                    if moved && replan + 1 < REPLANS && !left.contains(&piece.read) {
                        left.push(piece.read);
                    }
                    reads[piece.read].result = Err(error);
                }
            }
            if left.is_empty() {
                break;
            }
        }
        for read in reads.iter() {
            match read.result {
                Ok(()) => {}
                Err(TierError::Lost) => count(&self.counts.reads_lost, 1),
                Err(_) => count(&self.counts.reads_failed, 1),
            }
        }
    }

    /// Finds what a read is made of; what is here is copied at once.
    fn plan(
        &self,
        at: usize,
        read: &mut TierRead<'_>,
        fetches: &mut Vec<Fetch>,
    ) -> Result<(), TierError> {
        let mut done = 0;
        let mut knows_any = false;
        while done < read.bytes.len() {
            let offset = read.offset_bytes + done as u64;
            let unit = u32::try_from(offset / UNIT_BYTES as u64).map_err(|_| TierError::Lost)?;
            let found = match lock(&self.index).find(unit) {
                Place::Block(found) => found,
                Place::Lost => return Err(TierError::Lost),
                Place::Nothing => {
                    // Nothing is wanted of it; something is of what lies beside it.
                    let end = (offset / UNIT_BYTES as u64 + 1) * UNIT_BYTES as u64;
                    let len = ((end - offset) as usize).min(read.bytes.len() - done);
                    read.bytes[done..done + len].fill(0);
                    done += len;
                    continue;
                }
            };
            knows_any = true;
            let begins = u64::from(found.block.unit) * UNIT_BYTES as u64;
            let from = (offset - begins) as usize;
            let block_len = usize::from(found.block.units) * UNIT_BYTES;
            let len = (block_len - from).min(read.bytes.len() - done);
            let piece = Piece {
                read: at,
                to: done,
                len,
                from,
                block: found.block,
            };
            let out = &mut read.bytes[done..done + len];
            if !self.copy_local(&found, from, out)? {
                self.add_piece(fetches, &found, piece);
            }
            done += len;
        }
        if knows_any {
            Ok(())
        } else {
            Err(TierError::Lost)
        }
    }

    /// Copies what is not at a server yet, or was fetched before.
    fn copy_local(&self, found: &Found, from: usize, out: &mut [u8]) -> Result<bool, TierError> {
        let range = found
            .block
            .range(from, from + out.len(), self.seal.tag_bytes());
        if range.0 == range.1 {
            out.fill(0);
            return Ok(true);
        }
        let part = |bytes: &[u8]| {
            bytes
                .get(range.0 as usize..range.1 as usize)
                .map(<[u8]>::to_vec)
        };
        let (frames, counter) = match &found.state {
            State::Open => {
                let posts = lock(&self.posts);
                let draft = posts.draft.as_ref().filter(|draft| draft.id == found.id);
                match draft.and_then(|draft| part(&draft.bytes)) {
                    Some(frames) => (Some(frames), &self.counts.reads_local),
                    // Closed meanwhile: it is on its way, and here all the same.
                    None => {
                        drop(posts);
                        let again = lock(&self.index).find(found.block.unit);
                        match again {
                            Place::Block(again)
                                if again.id == found.id && !matches!(again.state, State::Open) =>
                            {
                                return self.copy_local(&again, from, out);
                            }
                            _ => return Err(TierError::Lost),
                        }
                    }
                }
            }
            State::Pending(bytes) => (part(bytes), &self.counts.reads_local),
            State::Kept => {
                let cached = lock(&self.cache).get(found.id);
                (
                    cached.and_then(|bytes| part(&bytes)),
                    &self.counts.reads_prefetched,
                )
            }
        };
        let Some(mut frames) = frames else {
            return Ok(false);
        };
        if found
            .block
            .open(&self.seal, found.id, from, &mut frames, out)
        {
            count(counter, 1);
            return Ok(true);
        }
        lock(&self.cache).remove(found.id);
        Ok(false)
    }

    fn add_piece(&self, fetches: &mut Vec<Fetch>, found: &Found, piece: Piece) {
        let tag_bytes = self.seal.tag_bytes();
        let (first, end) = piece
            .block
            .range(piece.from, piece.from + piece.len, tag_bytes);
        if let Some(fetch) = fetches.iter_mut().find(|fetch| fetch.id == found.id) {
            fetch.first = fetch.first.min(first);
            fetch.end = fetch.end.max(end);
            fetch.pieces.push(piece);
            return;
        }
        fetches.push(Fetch {
            id: found.id,
            homes: found.homes,
            first,
            end,
            segment_bytes: found.segment_bytes,
            pieces: vec![piece],
            outcome: Outcome::Waits,
            asked: 0,
        });
    }

    /// Asks until everything is settled or there is no more to be hoped for.
    fn fetch(&self, fetches: &mut [Fetch], reads: &mut [TierRead<'_>]) {
        if fetches.is_empty() {
            return;
        }
        let started = self.clock.now();
        let is_single = fetches.len() == 1 && reads.len() == 1;
        let whole = is_single && lock(&self.cache).note(fetches[0].id);
        if whole {
            fetches[0].first = 0;
            fetches[0].end = fetches[0].segment_bytes;
        }
        self.prefer_up(fetches);
        for round in 0.. {
            self.round(fetches, reads, round, whole);
            let unsettled = fetches.iter().filter(|fetch| !fetch.is_settled());
            let mut unsettled = unsettled.peekable();
            if unsettled.peek().is_none() {
                return;
            }
            let has_other = unsettled
                .clone()
                .any(|fetch| fetch.homes.iter().flatten().count() > 1);
            if round == 0 && has_other {
                count(&self.counts.hedged, unsettled.count() as u64);
                continue;
            }
            // A connection that was idle may have been cut long ago.
            let is_broken =
                |fetch: &Fetch| matches!(fetch.outcome, Outcome::Failed(LinkError::Broken(_)));
            if round == 0 && unsettled.clone().all(is_broken) {
                continue;
            }
            let patience = match self.config.durability {
                Durability::Disk => Duration::ZERO,
                Durability::TwoCopies | Durability::Wait => self.config.timeouts.patience,
            };
            if self.clock.now() >= started + patience {
                return;
            }
            if round > 1 {
                self.clock.sleep(PAUSE);
                if self.clock.is_simulated() {
                    self.fleet.pump();
                    self.fleet.refresh();
                }
            }
        }
    }

    /// Begins with the copy of which the node answers.
    fn prefer_up(&self, fetches: &mut [Fetch]) {
        for fetch in fetches {
            let is_down = |home: Option<Home>| {
                let node = home.and_then(|home| self.fleet.route(home));
                node.is_none_or(|node| node.is_open())
            };
            if fetch.homes[1].is_some() && is_down(fetch.homes[0]) {
                fetch.homes.swap(0, 1);
            }
        }
    }

    /// Asks one copy of each that is not settled.
    fn round(&self, fetches: &mut [Fetch], reads: &mut [TierRead<'_>], round: u32, whole: bool) {
        let mut by_node = self.by_node(fetches);
        while by_node.iter().any(|(_, list)| !list.is_empty()) {
            let mut under_way: Vec<UnderWay<'_>> = Vec::with_capacity(by_node.len());
            for (node, list) in &mut by_node {
                let batch: Vec<usize> = list.drain(..list.len().min(DEPTH)).collect();
                if batch.is_empty() {
                    continue;
                }
                let within = self.within(round, fetches, &batch, node.hedge_after());
                let command = |n: &usize| self.command(&fetches[*n]);
                let commands: Vec<Command> = batch.iter().map(command).collect();
                let began = self.clock.now();
                match node.begin(&commands, within) {
                    Ok(exchange) => under_way.push(UnderWay {
                        node,
                        batch,
                        within,
                        exchange,
                        began,
                    }),
                    Err(error) => self.failed(fetches, &batch, &error),
                }
            }
            for exchange in under_way {
                self.collect(exchange, fetches, reads, whole);
            }
        }
    }

    /// Which fetches go to which node now.
    fn by_node(&self, fetches: &mut [Fetch]) -> Vec<(Arc<Node>, Vec<usize>)> {
        let mut by_node: Vec<(Arc<Node>, Vec<usize>)> = Vec::new();
        for (n, fetch) in fetches.iter_mut().enumerate() {
            if fetch.is_settled() {
                continue;
            }
            let home = fetch.home();
            match home.and_then(|home| self.fleet.route(home)) {
                Some(to) => match by_node.iter_mut().find(|(node, _)| Arc::ptr_eq(node, &to)) {
                    Some((_, list)) => list.push(n),
                    None => by_node.push((to, vec![n])),
                },
                None => {
                    fetch.outcome = Outcome::Failed(LinkError::Down);
                    fetch.asked += 1;
                    if let Some(home) = home {
                        self.fleet.doubt(home);
                    }
                }
            }
        }
        by_node
    }

    /// Takes the answers of one node.
    fn collect(
        &self,
        mut from: UnderWay<'_>,
        fetches: &mut [Fetch],
        reads: &mut [TierRead<'_>],
        whole: bool,
    ) {
        let is_page = fetches.len() == 1 && !whole;
        for (at, n) in from.batch.iter().enumerate() {
            match from.exchange.next(from.within) {
                Ok(reply) => {
                    if is_page {
                        from.node.latency.record(self.clock.now() - from.began);
                    }
                    self.answered(&mut fetches[*n], reply, reads, whole, from.node);
                }
                Err(error) => {
                    if error == LinkError::Timeout {
                        // How late it is, nobody waits to know.
                        from.node.latency.record(from.within * 2);
                    }
                    self.failed(fetches, &from.batch[at..], &error);
                    return;
                }
            }
        }
    }

    /// How long a copy is waited for: as long as it is worth while there is
    /// another way to the block.
    fn within(&self, round: u32, fetches: &[Fetch], batch: &[usize], hedge: Duration) -> Duration {
        let has_other = batch
            .iter()
            .any(|n| fetches[*n].homes.iter().flatten().count() > 1);
        let has_way_out = self.config.durability == Durability::Disk || (has_other && round == 0);
        if has_way_out {
            // Many answers take longer than one.
            let bytes: u32 = batch
                .iter()
                .map(|n| fetches[*n].end - fetches[*n].first)
                .sum();
            return (hedge + Duration::from_nanos(u64::from(bytes) * 10))
                .min(self.config.timeouts.read);
        }
        self.config.timeouts.read
    }

    fn command(&self, fetch: &Fetch) -> Command {
        let tag = fetch.home().map_or(0, |home| home.tag);
        Command::GetRange(self.keys.segment(tag, fetch.id), fetch.first, fetch.end)
    }

    fn failed(&self, fetches: &mut [Fetch], which: &[usize], error: &LinkError) {
        for n in which {
            if let Some(home) = fetches[*n].home() {
                self.fleet.doubt(home);
            }
            fetches[*n].outcome = Outcome::Failed(error.clone());
            fetches[*n].asked += 1;
        }
    }

    /// Takes the answer for one segment.
    fn answered(
        &self,
        fetch: &mut Fetch,
        reply: Reply,
        reads: &mut [TierRead<'_>],
        whole: bool,
        from: &Node,
    ) {
        let Some(home) = fetch.home() else { return };
        let reply = match reply.redirect() {
            None => reply,
            Some((asking, host, port)) => {
                match self.follow(fetch, home, from, asking, host, port) {
                    Ok(reply) => reply,
                    Err(error) => {
                        fetch.outcome = Outcome::Failed(error);
                        fetch.asked += 1;
                        return;
                    }
                }
            }
        };
        match reply {
            Reply::Bytes(bytes) => match self.open_all(fetch, bytes, reads, whole) {
                true => fetch.outcome = Outcome::Done,
                // A key that is not there is an empty range.
                false => self.copy_gone(fetch, home),
            },
            Reply::Nil => self.copy_gone(fetch, home),
            other => {
                self.fleet.doubt(home);
                fetch.outcome = Outcome::Failed(LinkError::unexpected(&other));
                fetch.asked += 1;
            }
        }
    }

    fn follow(
        &self,
        fetch: &Fetch,
        home: Home,
        from: &Node,
        asking: bool,
        host: String,
        port: u16,
    ) -> Result<Reply, LinkError> {
        let to = self.fleet.redirected(from, home, asking, host, port);
        let to = to.ok_or(LinkError::Down)?;
        let within = self.config.timeouts.read;
        let mut commands = vec![self.command(fetch)];
        if asking {
            commands.insert(0, Command::Asking);
        }
        let mut exchange = to.begin(&commands, within)?;
        if asking {
            exchange.next(within)?;
        }
        let reply = exchange.next(within)?;
        match reply.redirect() {
            None => Ok(reply),
            // Slots move right now: the next round sees where to.
            Some(_) => Err(LinkError::Busy),
        }
    }

    fn open_all(
        &self,
        fetch: &mut Fetch,
        mut bytes: Vec<u8>,
        reads: &mut [TierRead<'_>],
        whole: bool,
    ) -> bool {
        if bytes.len() != (fetch.end - fetch.first) as usize {
            return false;
        }
        let kept = whole.then(|| Arc::new(bytes.clone()));
        let tag_bytes = self.seal.tag_bytes();
        for n in 0..fetch.pieces.len() {
            let piece = &fetch.pieces[n];
            let range = piece
                .block
                .range(piece.from, piece.from + piece.len, tag_bytes);
            let range = (range.0 - fetch.first) as usize..(range.1 - fetch.first) as usize;
            // What is opened in place is open: two pieces of one chunk need two copies.
            let mut scratch;
            let frames = if fetch.pieces.len() == 1 {
                &mut bytes[range]
            } else {
                scratch = bytes[range].to_vec();
                &mut scratch[..]
            };
            let out = &mut reads[piece.read].bytes[piece.to..piece.to + piece.len];
            if !piece
                .block
                .open(&self.seal, fetch.id, piece.from, frames, out)
            {
                return false;
            }
        }
        if let Some(kept) = kept {
            lock(&self.cache).put(fetch.id, kept);
        }
        true
    }

    /// A copy is not there, or other bytes are: the next one, if there is one.
    fn copy_gone(&self, fetch: &mut Fetch, home: Home) {
        let mut index = lock(&self.index);
        let is_ours = fetch
            .pieces
            .iter()
            .any(|piece| index.leads_to(piece.block.unit, fetch.id));
        if is_ours {
            self.counts.copies_lost.fetch_add(1, Relaxed);
            let blocks = index.lose(fetch.id, home);
            count(&self.counts.blocks_lost, blocks as u64);
        }
        drop(index);
        for slot in &mut fetch.homes {
            if *slot == Some(home) {
                *slot = None;
            }
        }
        fetch.asked = 0;
        if fetch.homes.iter().flatten().count() == 0 {
            fetch.outcome = Outcome::Gone;
        }
    }
}
