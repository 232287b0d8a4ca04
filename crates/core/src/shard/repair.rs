//! Repair: what is done when records contradict one another.
//!
//! Stage on the data path: none; long-held memory without error correction changes a bit now and then. An operation that
//! meets a contradiction ends, the shard is repaired, and the operation is tried once more.
//!
//! A repair believes sound records and nothing else: links, lists, bins, chains and counts are made anew from them. A
//! record that is not sound is given up, and so is what cannot be told without it (one that is zeros but for one bit was
//! free, and is again):
//!
//! - an entry: the page. That of a handle stays as lost. Of a key, nobody knows which it was: an object or a pool that has
//!   less in it than it says, or lost its record, remembers that, and what is not found in it is not told to be missing until
//!   it is flushed
//! - a block: its pages, which stay as lost under their handles and keys, and its frames or its slot, which are not used
//!   again
//!
//! Invariants:
//! - no operation panics, ends without an end, or gives out a page that is not its key's or handle's
//! - `lost_pages == stored - entries - all that went otherwise`
//!
//! Does not: find damage; whoever reads records does. Takes time by what is stored.

use super::Shard;
use crate::counters::Usage;
use crate::frames::Frames;
use crate::ids::{BlockToken, CodecId, EntryToken, Kind};
use crate::tables::block::{AGE_LINKS, Block, State};
use crate::tables::entry::{Content, Entry, Owner};
use crate::tables::table::is_free;
use crate::tables::tokens::ObjectToken;
use crate::tables::{Checked, Damaged, ensure, members};

/// Whether there is a record, and it is not free.
fn is_in_use(record: Checked<Option<&[u8]>>) -> bool {
    matches!(record, Ok(Some(record)) if !is_free(record))
}

impl Shard {
    /// Runs an operation; where it meets damage, repairs the shard and runs it once more.
    pub(super) fn sound<F: Frames, T>(
        &mut self,
        frames: &mut F,
        mut operation: impl FnMut(&mut Shard, &mut F) -> Checked<T>,
    ) -> Checked<T> {
        let mut done = operation(self, frames);
        if let Err(Damaged::New) = done {
            self.repair(frames);
            done = operation(self, frames);
            self.rebalance();
        }
        if self.repair_due {
            self.repair(frames);
        }
        done
    }

    fn repair<F: Frames>(&mut self, frames: &mut F) {
        self.counters.repairs += 1;
        self.repair_due = false;
        self.page_index.forget_records(frames);
        self.object_index.forget_records(frames);
        self.pool_index.forget_records(frames);
        self.entries.forget_flipped_free(frames);
        self.objects.forget_flipped_free(frames);
        self.pools.forget_flipped_free(frames);
        self.blocks.forget_flipped_free(frames);
        self.lists.clear();
        self.usage = Usage::ZERO;
        self.codec_zpages = [0; CodecId::COUNT as usize];
        self.forget_members(frames);
        self.forget_owners(frames);
        for token in self.entries.tokens() {
            match self.entries.read(frames, token) {
                Ok(None) => {}
                Ok(Some(entry)) => self.take_in(frames, token, &entry),
                Err(_) => self.give_up(frames, token),
            }
        }
        for token in self.blocks.tokens() {
            if let Ok(Some(block)) = self.blocks.read(frames, token) {
                // A block that contradicts itself after all that is given up with its frames.
                if self.take_in_block(frames, token, &block).is_err() {
                    let _ = self.blocks.bury(frames, token);
                    self.counters.lost_blocks += 1;
                }
            }
        }
        self.end_recount(frames);
        self.count_contents(frames);
        let forgotten = self.entries.rebuild(frames)
            + self.objects.rebuild(frames)
            + self.pools.rebuild(frames)
            + self.blocks.rebuild(frames);
        self.counters.lost_frames += u64::from(forgotten);
        self.rebalance();
    }

    /// Counts as lost what went in no other way.
    fn rebalance(&mut self) {
        let c = &mut self.counters;
        let gone = c.released + c.overwritten + c.put_to_flush + c.flushed + c.evicted_eph_zpages;
        let left = c.stored.saturating_sub(gone);
        c.lost_pages = left.saturating_sub(u64::from(self.usage.entries));
    }

    /// Leaves every sound block without zpages and in no list.
    fn forget_members<F: Frames>(&mut self, frames: &mut F) {
        for token in self.blocks.tokens() {
            match self.blocks.read(frames, token) {
                Ok(None) => {}
                Ok(Some(Block {
                    state: State::Dead, ..
                })) => {}
                Ok(Some(block)) => {
                    // An evacuation that met damage has ended.
                    let state = match block.state {
                        State::Writing(frame) if block.evacuated => State::InRam(frame),
                        state => state,
                    };
                    let empty = Block {
                        state,
                        evacuated: false,
                        live: 0,
                        fill: self.allocator.emptied(block.fill),
                        cold: false,
                        aside: false,
                        ..block
                    };
                    // The record was just read.
                    let _ = self.blocks.init(frames, token, &empty);
                }
                Err(_) => {
                    let _ = self.blocks.bury(frames, token);
                    self.counters.lost_blocks += 1;
                }
            }
        }
    }

    /// Leaves every object without pages and every pool without objects, so that both can be counted anew.
    fn forget_owners<F: Frames>(&mut self, frames: &mut F) {
        for token in self.pools.tokens() {
            if is_in_use(
                self.pools
                    .find(&*frames, token)
                    .map(|record| record.map(|r| &r[..])),
            ) && self.pools.begin_recount(frames, token) != Ok(true)
            {
                self.pools_lost = true;
            }
        }
        for token in self.objects.tokens() {
            if is_in_use(
                self.objects
                    .find(&*frames, token)
                    .map(|record| record.map(|r| &r[..])),
            ) {
                // The pool of one whose name is lost has one less than it says.
                let _ = self.objects.begin_recount(frames, token);
            }
        }
    }

    /// Frees objects and pools that have nothing in them any more, and has the others remember what they miss.
    fn end_recount<F: Frames>(&mut self, frames: &mut F) {
        for token in self.objects.tokens() {
            let Ok((pool, _)) = self.objects.name(&*frames, token) else {
                continue;
            };
            let is_short = self.objects.end_recount(frames, token).unwrap_or(true);
            if self
                .objects
                .extent(&*frames, token)
                .is_ok_and(|extent| extent.pages > 0)
            {
                continue;
            }
            if is_short {
                let _ = self.pools.set_incomplete(frames, pool);
            }
            let _ = self.objects.clear(frames, token);
        }
        for token in self.pools.tokens() {
            if self.pools.id(&*frames, token).is_err() {
                continue;
            }
            let is_short = self.pools.end_recount(frames, token).unwrap_or(true);
            let is_complete = self.pools.is_complete(&*frames, token).unwrap_or(false);
            if self.pools.objects(&*frames, token) == Ok(0) {
                self.pools_lost |= is_short || !is_complete;
                let _ = self.pools.clear(frames, token);
            }
        }
    }

    /// Makes a sound entry a member of its block and its object again.
    fn take_in<F: Frames>(&mut self, frames: &mut F, token: EntryToken, entry: &Entry) {
        let Ok(kind) = self.own(frames, token, entry) else {
            self.give_up(frames, token);
            return;
        };
        if let Some(span) = entry.span() {
            let block = self.blocks.expect(frames, span.block);
            let fits = block.is_ok_and(|block| {
                !matches!(block.state, State::SlotFreed(_) | State::Dead)
                    && block.kind == kind
                    && span.end() <= self.allocator.run(block.fill).bytes()
            });
            let linked = fits
                && members::link(frames, &mut self.blocks, &mut self.entries, token, span).is_ok();
            if !linked {
                self.lose_content(frames, token);
            }
        }
        self.usage.entries += 1;
        match entry.owner {
            Owner::Handle { .. } => self.usage.handle_pages += 1,
            Owner::Key { .. } => self.usage.tmem_pages += 1,
        }
    }

    /// Puts an entry under its key; the kind of its page.
    fn own<F: Frames>(
        &mut self,
        frames: &mut F,
        token: EntryToken,
        entry: &Entry,
    ) -> Checked<Kind> {
        let Owner::Key { object, index } = entry.owner else {
            return Ok(Kind::Persistent);
        };
        let kind = self.own_object(frames, object)?;
        match self.find_index(frames, object, index) {
            Ok(None) | Err(Damaged::Known) => {}
            // A key has one page.
            _ => return Err(Damaged::New),
        }
        ensure(self.page_index.prepare(frames)?)?;
        self.add_to_object(frames, token, object, index)?;
        self.page_index.insert(frames, &mut self.entries, token)?;
        Ok(kind)
    }

    /// Puts an object that has a page under its pool, if it is not there yet.
    fn own_object<F: Frames>(&mut self, frames: &mut F, object: ObjectToken) -> Checked<Kind> {
        let (pool, _) = self.objects.name(frames, object)?;
        let kind = self.pools.id(frames, pool)?.kind();
        if self.objects.extent(frames, object)?.pages != 0 {
            return Ok(kind);
        }
        ensure(self.object_index.prepare(frames)? && self.pool_index.prepare(frames)?)?;
        if self.pools.objects(frames, pool)? == 0 {
            self.pool_index.insert(frames, &mut self.pools, pool)?;
        }
        let head = self.pools.head(frames, pool)?;
        self.objects.set_pool_links(frames, object, [None, head])?;
        if let Some(head) = head {
            let [_, next] = self.objects.pool_links(frames, head)?;
            self.objects
                .set_pool_links(frames, head, [Some(object), next])?;
        }
        self.pools.add_object(frames, pool, object)?;
        self.object_index
            .insert(frames, &mut self.objects, object)?;
        Ok(kind)
    }

    /// Gives up an entry whose page is nobody's any more, or nobody knows whose.
    fn give_up<F: Frames>(&mut self, frames: &mut F, token: EntryToken) {
        if self.entries.give_up(frames, token).is_ok()
            && let Ok(Some(_)) = self.entries.read(frames, token)
        {
            self.usage.entries += 1;
            self.usage.handle_pages += 1;
        }
    }

    fn lose_content<F: Frames>(&mut self, frames: &mut F, token: EntryToken) {
        // The entry was just read.
        let _ = self.entries.set_content(frames, token, Content::Lost);
    }

    /// Counts a block and its zpages, and puts it into the lists of its state.
    fn take_in_block<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        empty: &Block,
    ) -> Checked<()> {
        let mut block = *empty;
        let mut zbytes = 0;
        let mut next = members::first(frames, &self.blocks, token)?;
        while let Some(entry) = next {
            let span = self.entries.span_in(frames, entry, token)?;
            next = self.entries.member_links(frames, entry)?[1];
            match self.allocator.claim(block.fill, span.offset, span.len) {
                Some(fill) => {
                    block.fill = fill;
                    block.live = block.live.checked_add(1).ok_or(Damaged::New)?;
                    zbytes += span.len as u64;
                }
                None => {
                    members::unlink(frames, &mut self.blocks, &mut self.entries, entry, token)?;
                    self.lose_content(frames, entry);
                }
            }
        }
        self.blocks.write(frames, token, &block)?;
        self.enlist(frames, token, &block)?;
        let run = self.allocator.run(block.fill).frames();
        let live = u32::from(block.live);
        match block.state {
            State::InRam(_) | State::Writing(_) => {
                let usage = self.kind_usage(block.kind);
                usage.blocks += 1;
                usage.zpages += live;
                usage.zbytes += zbytes;
                self.usage.block_frames += run;
            }
            State::InTier(_) => {
                self.usage.tier_zpages += live;
                self.usage.tier_zbytes += zbytes;
            }
            State::SlotFreed(_) | State::Dead => {}
        }
        match block.state {
            State::Writing(_) => {
                self.usage.writing_blocks += 1;
                self.usage.writing_frames += run;
            }
            State::InRam(frame) if live == 0 => {
                self.blocks.clear(frames, token)?;
                self.give_frames(frames, &block, frame);
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts a block into the lists of its state.
    fn enlist<F: Frames>(
        &mut self,
        frames: &mut F,
        token: BlockToken,
        block: &Block,
    ) -> Checked<()> {
        let live = block.live;
        match block.state {
            State::InRam(_) if live == 0 => Ok(()),
            State::InRam(_) => {
                let ages = &mut self.lists.ages[block.kind as usize];
                ages.push(frames, &mut self.blocks, AGE_LINKS, token)?;
                self.bin(frames, token, block)
            }
            State::InTier(slot) if live == 0 => self.queue_slot(frames, token, block, slot),
            State::InTier(_) => {
                self.bin_tier(frames, token, block)?;
                self.age_in_tier(frames, token, block)
            }
            State::SlotFreed(_) => {
                ensure(live == 0)?;
                let freed = &mut self.lists.freed;
                freed.push(frames, &mut self.blocks, AGE_LINKS, token)
            }
            State::Writing(_) | State::Dead => Ok(()),
        }
    }

    /// Counts the contents of all entries, once the blocks are settled.
    fn count_contents<F: Frames>(&mut self, frames: &F) {
        for token in self.entries.tokens() {
            if let Ok(Some(entry)) = self.entries.read(frames, token) {
                match entry.content {
                    Content::Same { .. } | Content::Word { .. } => {
                        self.usage.same_filled_pages += 1;
                    }
                    Content::Bytes { codec, .. } => {
                        self.codec_zpages[usize::from(codec.get())] += 1;
                    }
                    Content::Lost => self.usage.lost_pages += 1,
                }
            }
        }
    }
}
