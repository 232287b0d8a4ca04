//! A shard and its home, and bits that flip in what the shard keeps there.
//!
//! A record is found from the outside where that can be: by the checksum in it. Links are changed through the tables.

mod damage;

#[path = "../../../tests/common/mod.rs"]
mod common;

use std::vec::Vec;

use common::Arena;

use super::Shard;
use crate::tables::index::Chained;
use crate::{
    Allocator, BlockToken, CodecId, EntryToken, Found, Key, Kind, ObjectId, PoolId, Slot, Zpage,
};

/// Bytes of a handle's record.
const HANDLE_BYTES: usize = 24;
/// Byte of the checksum in an entry's record.
const CHECKSUM: usize = 12;

struct World {
    arena: Arena,
    shard: Shard,
}

/// A page: so many bytes of this value.
#[derive(Clone, Copy)]
struct Page {
    value: u8,
    len: usize,
}

impl Page {
    fn bytes(self) -> Vec<u8> {
        vec![self.value; self.len]
    }

    /// One that no other page has, nor any other word of a table.
    fn checksum(self) -> u32 {
        0xc0de_0000 | (self.len as u32) << 8 & 0xff00 | u32::from(self.value)
    }
}

fn page(value: u8) -> Page {
    Page { value, len: 100 }
}

/// A page that does not shrink: four of them fill a block.
fn raw(value: u8) -> Page {
    Page { value, len: 4096 }
}

fn key(pool: u32, object: u64, index: u32) -> Key {
    Key {
        pool: PoolId::new(pool, Kind::Persistent),
        object: ObjectId([object, 0, 0]),
        index,
    }
}

impl World {
    fn new() -> World {
        World {
            arena: Arena::new(4000),
            shard: Shard::new(Allocator::Block),
        }
    }

    fn insert(&mut self, page: Page) -> EntryToken {
        let zpage = Zpage::Bytes {
            bytes: &page.bytes(),
            codec: CodecId::new(3),
            checksum: page.checksum(),
        };
        self.shard.insert(&mut self.arena, zpage).unwrap()
    }

    /// Four pages that are a block.
    fn insert_block(&mut self, value: u8) -> [EntryToken; 4] {
        [(); 4].map(|()| self.insert(raw(value)))
    }

    fn put(&mut self, key: &Key, page: Page) {
        let zpage = Zpage::Bytes {
            bytes: &page.bytes(),
            codec: CodecId::new(3),
            checksum: page.checksum(),
        };
        self.shard.put(&mut self.arena, key, zpage).unwrap();
    }

    fn load(&self, token: EntryToken) -> Option<Found<'_>> {
        self.shard.load(&self.arena, token)
    }

    fn get(&self, key: &Key) -> Option<Found<'_>> {
        self.shard.get(&self.arena, key)
    }

    fn release(&mut self, token: EntryToken) -> Option<u32> {
        self.shard.release(&mut self.arena, token)
    }

    /// Writes the oldest block to a slot.
    fn write_back(&mut self, slot: u32) -> BlockToken {
        let plan = self
            .shard
            .begin_writeback(&mut self.arena, Kind::Persistent)
            .unwrap();
        self.shard
            .finish_writeback(&mut self.arena, plan.block, Ok(Slot(slot)));
        plan.block
    }

    /// The entry of a key, whose record is sound.
    fn entry(&self, key: &Key) -> EntryToken {
        let found = self.shard.find_page(&self.arena, key).unwrap();
        found.unwrap().0
    }

    /// The record of the only entry with this page.
    fn record(&self, page: Page) -> usize {
        self.arena.find_in_tables(&page.checksum().to_le_bytes()) - CHECKSUM
    }

    /// The frame of this table that a block's record lies in.
    fn frame_of_block(&self, block: BlockToken) -> usize {
        let record = self.shard.blocks.record(&self.arena, block).unwrap();
        self.arena.position(record) / crate::FRAME_SIZE * crate::FRAME_SIZE
    }

    fn flip_block(&mut self, block: BlockToken, at: usize, bit: u32) {
        let word = self.shard.blocks.word(&self.arena, block, at).unwrap();
        let flipped = word ^ 1 << bit;
        self.shard
            .blocks
            .set_word(&mut self.arena, block, at, flipped)
            .unwrap();
    }

    /// Flips a bit of the link from a zpage to the one behind it in their block.
    fn flip_next_of(&mut self, token: EntryToken, bit: u32) {
        let entries = &mut self.shard.entries;
        let [previous, next] = entries.member_links(&self.arena, token).unwrap();
        let next = next.map_or(u32::MAX, |next| next.0) ^ 1 << bit;
        let next = Some(EntryToken(next));
        entries
            .set_member_links(&mut self.arena, token, [previous, next])
            .unwrap();
    }

    /// Flips a bit of the link from a page to the next with a like hash.
    fn flip_chain(&mut self, token: EntryToken, bit: u32) {
        let entries = &mut self.shard.entries;
        let link = entries.link(&self.arena, token).unwrap();
        entries
            .set_link(&mut self.arena, token, link ^ 1 << bit)
            .unwrap();
    }

    fn assert_no_frame_leaked(&self) {
        assert_eq!(self.shard.frames_in_use(), self.arena.frames_used);
    }
}

fn is(found: Option<Found<'_>>, page: Page) -> bool {
    matches!(found, Some(Found::InRam { bytes, .. }) if bytes == page.bytes())
}

fn is_lost(found: Option<Found<'_>>) -> bool {
    found == Some(Found::Damaged)
}

fn is_in_slot(found: Option<Found<'_>>, slot: u32) -> bool {
    matches!(found, Some(Found::InTier { at, .. }) if at.slot == Slot(slot))
}
