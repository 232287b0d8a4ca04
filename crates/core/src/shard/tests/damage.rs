//! What one flipped bit costs: the page whose record it is in, and nothing else.

use super::{HANDLE_BYTES, World, is, is_in_slot, is_lost, key, page, raw};
use crate::tables::block::{AGE_LINKS, BIN_LINKS};
use crate::{
    EntryToken, FRAME_SIZE, Found, Key, Kind, PoolId, Slot, WriteFailed, WritebackEnd, Zpage,
};

// Records of entries.

#[test]
fn a_handle_in_whose_record_a_bit_flips_is_never_said_to_be_gone() {
    for bit in 0..HANDLE_BYTES as u32 * 8 {
        let mut world = World::new();
        let token = world.insert(page(1));
        let record = world.record(page(1));
        world.arena.flip(record, bit);
        let found = world.load(token);
        assert!(is_lost(found) || is(found, page(1)), "bit {bit}: {found:?}");
        assert!(world.release(token).is_some(), "bit {bit}");
    }
}

#[test]
fn a_handle_in_whose_record_a_bit_flips_is_not_given_the_page_of_another() {
    for bit in 0..HANDLE_BYTES as u32 * 8 {
        let mut world = World::new();
        let (token, other) = (world.insert(page(1)), world.insert(page(2)));
        let record = world.record(page(1));
        world.arena.flip(record, bit);
        world.release(other);
        let later: Vec<_> = (10..20).map(|value| world.insert(page(value))).collect();
        let found = world.load(token);
        assert!(is_lost(found) || is(found, page(1)), "bit {bit}: {found:?}");
        for (token, value) in later.into_iter().zip(10..) {
            assert!(is(world.load(token), page(value)), "bit {bit}");
        }
    }
}

/// The page of zeros is the one whose record has the fewest bits set, and its seal depends on the references.
#[test]
fn a_page_of_zeros_is_not_freed_by_a_flip_whatever_its_references() {
    let mut world = World::new();
    // Its record lies beside this one.
    world.insert(page(1));
    let zeros = Zpage::Same { word: 0 };
    let token = world.shard.insert(&mut world.arena, zeros).unwrap();
    let record = world.record(page(1)) + HANDLE_BYTES;
    for references in 1..1000 {
        for bit in 0..HANDLE_BYTES as u32 * 8 {
            world.arena.flip(record, bit);
            assert!(world.load(token).is_some(), "{references}, bit {bit}");
            world.arena.flip(record, bit);
        }
        assert_eq!(world.load(token), Some(Found::Same { word: 0 }));
        assert!(world.shard.retain(&mut world.arena, token));
    }
}

#[test]
fn a_bit_that_flips_in_a_free_record_makes_no_page() {
    for bit in 0..HANDLE_BYTES as u32 * 8 {
        let mut world = World::new();
        let token = world.insert(page(1));
        let record = world.record(page(1));
        world.arena.flip(record + HANDLE_BYTES, bit);
        let later: Vec<_> = (2..9).map(|value| world.insert(page(value))).collect();
        assert_eq!(world.shard.usage().lost_pages, 0, "bit {bit}");
        // That fewer free records are threaded than there are does no harm, and is not noticed.
        if bit >= 32 {
            assert_eq!(world.shard.validate(&world.arena), Ok(()), "bit {bit}");
        }
        for (token, value) in [token].into_iter().chain(later).zip(1..) {
            assert!(is(world.load(token), page(value)), "bit {bit}");
        }
    }
}

#[test]
fn a_release_that_meets_a_damaged_head_of_its_frame_is_done_once() {
    let mut world = World::new();
    let (token, other) = (world.insert(page(1)), world.insert(page(2)));
    // The number of the frame.
    let frame = world.record(page(1)) / FRAME_SIZE * FRAME_SIZE;
    world.arena.flip(frame, 3);
    assert_eq!(world.release(token), Some(0));
    assert!(is(world.load(other), page(2)));
    world.shard.validate(&world.arena).unwrap();
}

#[test]
fn a_hole_of_a_directory_that_is_damaged_costs_no_frame() {
    const PER_FRAME: usize = 4080 / HANDLE_BYTES;
    let mut world = World::new();
    let insert = |world: &mut World| {
        let zpage = Zpage::Same { word: 5 };
        world.shard.insert(&mut world.arena, zpage).unwrap()
    };
    let tokens: Vec<_> = (0..PER_FRAME * 70).map(|_| insert(&mut world)).collect();
    // All of the frame with number 66, the third of those that a directory names.
    let (gone, place) = (66 * PER_FRAME..67 * PER_FRAME, 2);
    for token in &tokens[gone.clone()] {
        world.release(*token);
    }
    let hole = [[0xff; 4], [0; 4]].concat();
    let directory = world.arena.find_in_tables(&hole) - place * 8;
    world.arena.flip(directory + place * 8, 0);
    // Needs a frame, whose number is looked for.
    insert(&mut world);
    assert_eq!(world.shard.counters().repairs, 1);
    world.assert_no_frame_leaked();
    for (number, token) in tokens.into_iter().enumerate() {
        assert_eq!(
            world.load(token).is_some(),
            !gone.contains(&number) || number == gone.start
        );
    }
}

// Blocks.

#[test]
fn a_write_that_meets_a_damaged_link_ends_in_its_slot() {
    let mut world = World::new();
    world.insert_block(1);
    let pages = world.insert_block(2);
    let before = world.write_back(1);
    let plan = world
        .shard
        .begin_writeback(&mut world.arena, Kind::Persistent)
        .unwrap();
    // The last of the tier's bin, behind which the next is put.
    world.flip_block(before, BIN_LINKS + 4, 0);
    let end = world
        .shard
        .finish_writeback(&mut world.arena, plan.block, Ok(Slot(2)));
    assert_eq!(end, WritebackEnd::InTier { frames: 4 });
    assert!(pages.iter().all(|page| is_in_slot(world.load(*page), 2)));
    world.assert_no_frame_leaked();
    world.shard.validate(&world.arena).unwrap();
}

#[test]
fn the_end_of_a_write_is_not_that_of_a_later_block() {
    let mut world = World::new();
    let lost = world.insert_block(1);
    let plan = world
        .shard
        .begin_writeback(&mut world.arena, Kind::Persistent)
        .unwrap();
    world
        .shard
        .blocks
        .record_mut(&mut world.arena, plan.block)
        .unwrap()[8] ^= 1;
    let mut pages = world.insert_block(2).to_vec();
    // Meets the damage.
    world.shard.touch(&mut world.arena, lost[0]);
    assert_eq!(world.shard.counters().repairs, 1);
    pages.extend(world.insert_block(3));
    let other = world
        .shard
        .begin_writeback(&mut world.arena, Kind::Persistent)
        .unwrap();
    assert_ne!(other.block, plan.block);
    let end = world
        .shard
        .finish_writeback(&mut world.arena, plan.block, Ok(Slot(9)));
    assert_eq!(end, WritebackEnd::Damaged);
    assert!(
        pages
            .iter()
            .all(|page| matches!(world.load(*page), Some(Found::InRam { .. })))
    );
    assert!(lost.iter().all(|page| is_lost(world.load(*page))));
    world
        .shard
        .finish_writeback(&mut world.arena, other.block, Ok(Slot(9)));
    world.shard.validate(&world.arena).unwrap();
}

#[test]
fn an_evacuation_that_meets_damage_leaves_no_block_handed_out() {
    let mut world = World::new();
    let page = |value| super::Page { value, len: 1024 };
    let mut tokens: Vec<_> = (0..32)
        .map(|value| (value, world.insert(page(value))))
        .collect();
    // Half of the first block stays and a quarter of the second, which is emptied.
    let stays = |value: u8| value.is_multiple_of(if value < 16 { 2 } else { 4 });
    for (_, token) in tokens.extract_if(.., |(value, _)| !stays(*value)) {
        world.release(token);
    }
    let (_, second) = tokens.iter().find(|(value, _)| *value == 20).unwrap();
    world.flip_next_of(*second, 6);
    world.shard.evacuate(&mut world.arena, 8);
    assert_eq!(world.shard.counters().repairs, 1);
    assert_eq!(world.shard.usage().writing_blocks, 0);
    assert!(
        tokens
            .iter()
            .all(|(value, token)| is(world.load(*token), page(*value)))
    );
    world.assert_no_frame_leaked();
    world.shard.validate(&world.arena).unwrap();
}

#[test]
fn a_block_that_is_freed_from_a_damaged_frame_of_records_leaves_no_frames_behind() {
    let mut world = World::new();
    let pages = world.insert_block(1);
    world.insert_block(2);
    let block = world
        .shard
        .begin_writeback(&mut world.arena, Kind::Persistent)
        .unwrap()
        .block;
    world
        .shard
        .finish_writeback(&mut world.arena, block, Err(WriteFailed));
    let frame = world.frame_of_block(block);
    world.arena.flip(frame, 3);
    for page in pages {
        assert_eq!(world.release(page), Some(0));
    }
    assert_eq!(world.shard.counters().lost_blocks, 0);
    world.assert_no_frame_leaked();
    world.shard.validate(&world.arena).unwrap();
}

#[test]
fn a_freed_slot_is_taken_though_the_head_of_its_frame_is_damaged() {
    let mut world = World::new();
    let pages = world.insert_block(1);
    world.insert_block(2);
    let block = world.write_back(1);
    for page in pages {
        world.release(page);
    }
    let frame = world.frame_of_block(block);
    world.arena.flip(frame, 3);
    let taken = world.shard.take_freed_slot(&mut world.arena);
    assert_eq!(taken.map(|(slot, _)| slot), Some(Slot(1)));
    assert_eq!(world.shard.take_freed_slot(&mut world.arena), None);
    world.shard.validate(&world.arena).unwrap();
}

#[test]
fn a_block_whose_state_is_damaged_is_counted_as_lost() {
    let mut world = World::new();
    let pages = world.insert_block(1);
    let block = world
        .shard
        .begin_writeback(&mut world.arena, Kind::Persistent)
        .unwrap()
        .block;
    world
        .shard
        .finish_writeback(&mut world.arena, block, Err(WriteFailed));
    world
        .shard
        .blocks
        .record_mut(&mut world.arena, block)
        .unwrap()[4] ^= 1;
    world.shard.touch(&mut world.arena, pages[0]);
    assert_eq!(world.shard.counters().lost_blocks, 1);
    assert_eq!(world.shard.usage().lost_pages, 4);
    assert!(pages.iter().all(|page| is_lost(world.load(*page))));
    world.shard.validate(&world.arena).unwrap();
    for page in pages {
        assert_eq!(
            world.release(page),
            Some(0),
            "a lost page is released as others"
        );
    }
    assert_eq!(world.shard.counters().repairs, 1);
    world.shard.validate(&world.arena).unwrap();
}

/// A block of sixteen pages without three of them, and the link from the fifth to the sixth leads to a later one.
fn block_with_a_link_that_skips() -> (World, Vec<(u8, EntryToken)>) {
    let mut world = World::new();
    let mut tokens: Vec<_> = (0..16)
        .map(|value| (value, world.insert(super::Page { value, len: 1024 })))
        .collect();
    for (_, token) in tokens.extract_if(.., |(value, _)| [1, 3, 8].contains(value)) {
        world.release(token);
    }
    let of = |wanted| tokens.iter().find(|(value, _)| *value == wanted).unwrap().1;
    let (fifth, sixth) = (of(4), of(5));
    let later = EntryToken(sixth.0 ^ 4);
    assert!(
        tokens
            .iter()
            .any(|(value, token)| *value > 5 && *token == later)
    );
    world.flip_next_of(fifth, 2);
    (world, tokens)
}

#[test]
fn a_compaction_loses_no_page_that_a_flipped_link_skips() {
    let (mut world, tokens) = block_with_a_link_that_skips();
    let long = super::Page {
        value: 99,
        len: 3000,
    };
    let last = world.insert(long);
    assert_eq!(world.shard.counters().repairs, 1);
    assert_eq!(world.shard.counters().compactions, 1);
    for (value, token) in tokens {
        let found = world.load(token);
        assert!(
            is(found, super::Page { value, len: 1024 }),
            "{value}: {found:?}"
        );
    }
    assert!(is(world.load(last), long));
    world.shard.validate(&world.arena).unwrap();
}

#[test]
fn a_repair_loses_no_page_that_a_flipped_link_skips() {
    let (mut world, mut tokens) = block_with_a_link_that_skips();
    // The one before it does not point to it.
    let at = tokens.iter().position(|(value, _)| *value == 5).unwrap();
    assert_eq!(world.release(tokens.remove(at).1), Some(0));
    assert_eq!(world.shard.counters().repairs, 1);
    for (value, token) in tokens {
        let found = world.load(token);
        assert!(
            is(found, super::Page { value, len: 1024 }),
            "{value}: {found:?}"
        );
    }
    world.shard.validate(&world.arena).unwrap();
}

// Keys.

#[test]
fn a_chain_that_was_damaged_is_forgotten_with_its_pool() {
    const PAGES: u32 = 300;
    for bit in 1..24 {
        for damaged in [7, PAGES - 1] {
            let mut world = World::new();
            (0..PAGES).for_each(|index| world.put(&key(1, 5, index), page(1)));
            let token = world.entry(&key(1, 5, damaged));
            world.flip_chain(token, bit);
            for index in 0..PAGES * 2 {
                world.shard.touch_page(&mut world.arena, &key(1, 5, index));
            }
            let pool = PoolId::new(1, Kind::Persistent);
            let flushed = world.shard.flush_pool(&mut world.arena, pool);
            assert_eq!(flushed, u64::from(PAGES), "no record was damaged");
            (0..PAGES).for_each(|index| world.put(&key(2, 5, index), page(1)));
            for index in 0..PAGES {
                let missing = world.get(&key(2, 5, PAGES + index));
                assert_eq!(missing, None, "bit {bit} of page {damaged}");
                assert!(is(world.get(&key(2, 5, index)), page(1)));
            }
        }
    }
}

#[test]
fn a_get_finds_the_pages_whose_chain_goes_through_a_damaged_record() {
    const PAGES: u32 = 300;
    for damaged in (0..PAGES).step_by(7) {
        let mut world = World::new();
        (0..PAGES).for_each(|index| world.put(&key(1, 5, index), page(u8::from(index == damaged))));
        let record = world.record(page(1));
        world.arena.flip(record + 12, 3);
        let told = |world: &World| {
            let wrong = |index: &u32| !is(world.get(&key(1, 5, *index)), page(0));
            (0..PAGES).filter(wrong).collect::<Vec<_>>()
        };
        assert_eq!(told(&world), [damaged]);
        assert!(is_lost(world.get(&key(1, 5, damaged))));
        world
            .shard
            .touch_page(&mut world.arena, &key(1, 5, damaged));
        assert_eq!(world.shard.counters().repairs, 1);
        assert_eq!(told(&world), [damaged]);
    }
}

#[test]
fn a_lost_page_is_not_said_to_be_missing_once_its_object_is_empty() {
    let mut world = World::new();
    let (lost, other) = (key(1, 5, 0), key(1, 5, 1));
    world.put(&lost, page(1));
    world.put(&other, page(2));
    world.put(&key(1, 6, 0), page(3));
    let record = world.record(page(1));
    world.arena.flip(record + 12, 3);
    world.shard.touch_page(&mut world.arena, &lost);
    assert!(is_lost(world.get(&lost)));
    assert!(world.shard.flush_page(&mut world.arena, &other));
    assert!(is_lost(world.get(&lost)));
    assert_eq!(world.get(&key(2, 5, 0)), None, "of another pool");
    world
        .shard
        .flush_pool(&mut world.arena, PoolId::new(1, Kind::Persistent));
    assert_eq!(world.get(&lost), None, "all of it was flushed");
}

#[test]
fn a_bit_that_flips_in_a_free_record_of_a_pool_or_an_object_loses_no_name() {
    for bit in 32..28 * 8 {
        for of_pools in [true, false] {
            let mut world = World::new();
            world.put(&key(1, 5, 0), page(1));
            let World { arena, shard } = &world;
            let Key { pool, object, .. } = key(1, 5, 0);
            // Behind the only one in use.
            let record = if of_pools {
                let token = shard.find_pool(arena, pool).unwrap().unwrap();
                arena.position(shard.pools.record(arena, token).unwrap()) + 28
            } else {
                let token = shard.find_object(arena, pool, object).unwrap().unwrap();
                arena.position(shard.objects.record(arena, token).unwrap()) + 68
            };
            world.arena.flip(record, bit);
            // Both need a record.
            world.put(&key(2, 5, 0), page(2));
            world.put(&key(1, 6, 0), page(3));
            assert_eq!(world.shard.counters().repairs, 1, "bit {bit}");
            assert_eq!(world.get(&key(3, 5, 0)), None, "bit {bit}");
            assert_eq!(world.get(&key(1, 7, 0)), None, "bit {bit}");
            for (key, value) in [(key(1, 5, 0), 1), (key(2, 5, 0), 2), (key(1, 6, 0), 3)] {
                assert!(is(world.get(&key), page(value)), "bit {bit}");
            }
            world.shard.validate(&world.arena).unwrap();
        }
    }
}

#[test]
fn a_bit_that_flips_in_a_free_record_of_a_block_loses_no_block() {
    for bit in 32..48 * 8 {
        let mut world = World::new();
        let pages = world.insert_block(1);
        let block = world.shard.oldest(Kind::Persistent).unwrap();
        let record = world.shard.blocks.record(&world.arena, block).unwrap();
        let free = world.arena.position(record) + 48;
        world.arena.flip(free, bit);
        let more = world.insert_block(2);
        assert_eq!(world.shard.counters().repairs, 1, "bit {bit}");
        assert_eq!(world.shard.counters().lost_blocks, 0, "bit {bit}");
        assert!(pages.iter().all(|page| is(world.load(*page), raw(1))));
        assert!(more.iter().all(|page| is(world.load(*page), raw(2))));
        world.shard.validate(&world.arena).unwrap();
    }
}

#[test]
fn a_store_that_meets_damage_half_way_leaves_no_second_page() {
    // Where the block is made the youngest, and where the page joins the others of the block.
    for of_ages in [true, false] {
        let mut world = World::new();
        let first = world.insert(page(1));
        let block = world.shard.oldest(Kind::Persistent).unwrap();
        let full = world.insert_block(2);
        if of_ages {
            world.flip_block(block, AGE_LINKS + 4, 3);
        } else {
            // The last of its block.
            world.flip_next_of(full[2], 3);
        }
        let second = world.insert(page(3));
        assert_eq!(world.shard.counters().repairs, 1);
        assert_eq!(world.shard.usage().entries, 6);
        assert!(is(world.load(first), page(1)));
        assert!(is(world.load(second), page(3)));
        assert!(full.iter().all(|page| is(world.load(*page), raw(2))));
        world.shard.validate(&world.arena).unwrap();
    }
}
