//! What a shard promises, one promise a test: lengths, watermarks, who displaces whom, age, and what it does with bytes of
//! a slot that are stale or damaged.

mod common;

use common::{Arena, Random};
use zcache_core::{
    Allocator, CodecId, EntryToken, Found, Frames, Key, Kind, ObjectId, PoolId, Refused, Run,
    Shard, Slot, Watermarks, Zpage,
};

/// A zpage whose codec and checksum do not matter.
fn zpage(bytes: &[u8]) -> Zpage<'_> {
    Zpage::Bytes {
        bytes,
        codec: CodecId::new(1),
        checksum: 0,
    }
}

#[test]
fn every_length_is_stored_and_read_back() {
    for allocator in Allocator::ALL {
        let mut random = Random(9);
        let mut arena = Arena::new(100_000);
        let mut shard = Shard::new(allocator);
        let pages: Vec<_> = (1..=4096)
            .map(|len| {
                let bytes = random.bytes(len);
                let page = Zpage::Bytes {
                    bytes: &bytes,
                    codec: CodecId::new(63),
                    checksum: len as u32,
                };
                (shard.insert(&mut arena, page).unwrap(), bytes)
            })
            .collect();
        for (token, expected) in &pages {
            let found = shard.load(&arena, *token);
            let Some(Found::InRam {
                bytes,
                codec,
                checksum,
            }) = found
            else {
                panic!("{found:?}")
            };
            assert_eq!(
                (bytes, codec.get(), checksum),
                (&expected[..], 63, expected.len() as u32)
            );
        }
        shard.validate(&arena).unwrap();
        for bytes in [vec![], vec![0; 4097]] {
            let page = Zpage::Bytes {
                bytes: &bytes,
                codec: CodecId::new(0),
                checksum: 0,
            };
            assert_eq!(
                shard.insert(&mut arena, page),
                Err(Refused::Length {
                    len_bytes: bytes.len()
                })
            );
        }
        assert_eq!(shard.counters().rejected_length, 2);
        shard.destroy(&mut arena);
    }
}

#[test]
fn reclaim_has_hysteresis() {
    let mut random = Random(3);
    let mut arena = Arena::new(100_000);
    let mut shard = Shard::new(Allocator::Block);
    shard.set_watermarks(Watermarks {
        high_frames: 100,
        low_frames: 60,
    });
    let mut goals = 0;
    for slot in 0..50_000u32 {
        let bytes = random.bytes(1000);
        shard.insert(&mut arena, zpage(&bytes)).unwrap();
        if shard.reclaim_goal() == 0 {
            continue;
        }
        goals += 1;
        assert!(
            shard.frames_in_use() > 100,
            "it begins above the high watermark only"
        );
        while shard.reclaim_goal() > 0 {
            // Between the watermarks it goes on.
            let plan = shard.begin_writeback(&mut arena, Kind::Persistent).unwrap();
            shard.finish_writeback(&mut arena, plan.block, Ok(Slot(slot)));
        }
        assert!(
            (57..=60).contains(&shard.frames_in_use()),
            "{} frames",
            shard.frames_in_use()
        );
        if goals == 3 {
            break;
        }
    }
    assert_eq!(goals, 3);
    shard.validate(&arena).unwrap();
    shard.destroy(&mut arena);
}

#[test]
fn persistent_displaces_ephemeral_and_never_the_reverse() {
    for allocator in Allocator::ALL {
        let mut random = Random(4);
        let mut arena = Arena::new(200);
        let mut shard = Shard::new(allocator);
        let mut put = |shard: &mut Shard, arena: &mut Arena, kind, index| {
            let bytes = random.bytes(1500);
            let key = Key {
                pool: PoolId::new(0, kind),
                object: ObjectId([1; 3]),
                index,
            };
            shard.put(arena, &key, zpage(&bytes))
        };
        for index in 0..1000 {
            put(&mut shard, &mut arena, Kind::Ephemeral, index).unwrap();
        }
        let ephemeral = shard.usage().ephemeral.zpages;
        assert!(
            ephemeral < 1000 && shard.counters().pers_ate_eph == 0,
            "the young displace the old of their kind"
        );
        let stored = (0..1000)
            .take_while(|i| put(&mut shard, &mut arena, Kind::Persistent, *i).is_ok())
            .count() as u32;
        assert_eq!(
            shard.usage().ephemeral.zpages,
            0,
            "all room went to persistent pages"
        );
        assert!(shard.counters().pers_ate_eph > 0 && shard.usage().persistent.zpages == stored);
        for index in 0..100 {
            let _ = put(&mut shard, &mut arena, Kind::Ephemeral, index);
        }
        assert_eq!(
            shard.usage().persistent.zpages,
            stored,
            "no ephemeral page displaced them"
        );
        shard.validate(&arena).unwrap();
        shard.destroy(&mut arena);
    }
}

#[test]
fn the_oldest_block_is_written_first() {
    let mut random = Random(5);
    let mut arena = Arena::new(1000);
    let mut shard = Shard::new(Allocator::Block);
    let tokens: Vec<_> = (0..60)
        .map(|_| {
            let bytes = random.bytes(4000);
            shard.insert(&mut arena, zpage(&bytes)).unwrap()
        })
        .collect();
    shard.touch(&mut arena, tokens[0]);
    // Four zpages of 4000 bytes fill a block, so the second block is now the oldest.
    let plan = shard.begin_writeback(&mut arena, Kind::Persistent).unwrap();
    shard.finish_writeback(&mut arena, plan.block, Ok(Slot(77)));
    let in_tier = |token| matches!(shard.load(&arena, token), Some(Found::InTier { .. }));
    let gone: Vec<_> = (0..60).filter(|i| in_tier(tokens[*i])).collect();
    assert_eq!(gone, [4, 5, 6, 7]);
    shard.destroy(&mut arena);
}

#[test]
fn bytes_of_a_slot_the_block_has_left_are_not_readmitted() {
    let mut random = Random(8);
    let mut arena = Arena::new(1000);
    let mut shard = Shard::new(Allocator::Block);
    let old = random.bytes(3000);
    let token = shard.insert(&mut arena, zpage(&old)).unwrap();
    let plan = shard.begin_writeback(&mut arena, Kind::Persistent).unwrap();
    let bytes = arena.bytes(plan.frame, plan.run).to_vec();
    shard.finish_writeback(&mut arena, plan.block, Ok(Slot(3)));
    let from = shard.sparsest_tier_block(&arena).unwrap();
    // While the home reads the slot without the lock, the page is released and its entry and block are used again.
    shard.release(&mut arena, token);
    assert_eq!(
        shard.take_freed_slot(&mut arena),
        Some((Slot(3), Run::BLOCK))
    );
    let new = random.bytes(3000);
    let token = shard.insert(&mut arena, zpage(&new)).unwrap();
    let now = shard.live_zpages(&arena, from.block).count();
    assert_eq!(now, 1, "the block's token is used again");
    assert_eq!(shard.readmit(&mut arena, &from, &bytes), Ok(0));
    let plan = shard.begin_writeback(&mut arena, Kind::Persistent).unwrap();
    shard.finish_writeback(&mut arena, plan.block, Ok(Slot(4)));
    assert_eq!(
        shard.readmit(&mut arena, &from, &bytes),
        Ok(0),
        "nor when the block is in another slot"
    );
    assert!(
        matches!(shard.load(&arena, token), Some(Found::InTier { at, .. }) if at.slot == Slot(4))
    );
    shard.validate(&arena).unwrap();
    shard.destroy(&mut arena);
}

#[test]
fn what_the_home_finds_bad_or_has_not_read_stays_in_the_tier() {
    for allocator in Allocator::ALL {
        let mut random = Random(6);
        let mut arena = Arena::new(1000);
        let mut shard = Shard::new(allocator);
        for _ in 0..40 {
            let bytes = random.bytes(1900);
            shard.insert(&mut arena, zpage(&bytes)).unwrap();
        }
        let plan = shard.begin_writeback(&mut arena, Kind::Persistent).unwrap();
        shard.finish_writeback(&mut arena, plan.block, Ok(Slot(0)));
        let from = shard.sparsest_tier_block(&arena).unwrap();
        for len in [0, 5, 4096, 16384] {
            for _ in 0..50 {
                let bytes = random.bytes(len);
                let moved = shard.readmit_good(&mut arena, &from, &bytes, |_| false);
                assert_eq!(moved, Ok(0));
                shard.validate(&arena).unwrap();
            }
        }
        assert_eq!(shard.counters().readmitted_zpages, 0);
        assert_eq!(shard.readmit(&mut arena, &from, &[]), Ok(0));
        shard.put_aside(&mut arena, &from);
        assert_eq!(shard.usage().aside_blocks, 1);
        assert_eq!(shard.sparsest_tier_block(&arena), None);
        shard.validate(&arena).unwrap();
        shard.retry_aside(&mut arena);
        assert_eq!(shard.sparsest_tier_block(&arena), Some(from));
        shard.validate(&arena).unwrap();
        shard.destroy(&mut arena);
    }
}

#[test]
fn entries_name_their_keys_and_a_cleared_shard_is_as_new() {
    let mut random = Random(9);
    for allocator in Allocator::ALL {
        let mut arena = Arena::new(10_000);
        let mut shard = Shard::new(allocator);
        let key = |number: u32| Key {
            pool: PoolId::new(number % 3, Kind::Persistent),
            object: ObjectId([u64::from(number % 5), 7, 1 << 63]),
            index: number,
        };
        for round in 0..2 {
            let handle = shard.insert(&mut arena, zpage(&[1; 9])).unwrap();
            for number in 0..300 {
                let bytes = random.bytes(700);
                let page = match number % 7 {
                    0 => Zpage::Same { word: 5 },
                    _ => zpage(&bytes),
                };
                shard.put(&mut arena, &key(number), page).unwrap();
            }
            for number in (0..300).step_by(4) {
                assert!(shard.flush_page(&mut arena, &key(number)));
            }
            let mut found: Vec<u32> = (0..shard.entries_made())
                .filter_map(|token| shard.key(&arena, EntryToken(token)))
                .inspect(|found| assert_eq!(*found, key(found.index)))
                .map(|found| found.index)
                .collect();
            found.sort_unstable();
            let expected: Vec<u32> = (0..300).filter(|number| number % 4 != 0).collect();
            assert_eq!(found, expected, "round {round} of {allocator:?}");
            assert_eq!(shard.key(&arena, handle), None, "a handle has no key");
            assert_eq!(shard.key(&arena, EntryToken(u32::MAX)), None);
            let pages = |number: u32| {
                shard.object_pages(&arena, key(number).pool, key(number).object) as usize
            };
            for number in 0..15 {
                let alike = expected.iter().filter(|other| **other % 15 == number);
                assert_eq!(pages(number), alike.count());
            }
            assert_eq!(pages(3 + 15 * 100), pages(3));
            shard.clear(&mut arena);
            assert_eq!((shard.frames_in_use(), shard.entries_made()), (0, 0));
            shard.validate(&arena).unwrap();
        }
    }
}

#[test]
fn a_page_with_more_references_than_can_be_counted_stays() {
    let mut arena = Arena::new(100);
    let mut shard = Shard::new(Allocator::Block);
    let token = shard.insert(&mut arena, zpage(&[1; 9])).unwrap();
    for _ in 0..1 << 25 {
        assert!(shard.retain(&mut arena, token));
    }
    assert_eq!(shard.release(&mut arena, token), Some((1 << 25) - 2));
    for _ in 0..1 << 25 {
        shard.release(&mut arena, token);
    }
    assert!(shard.load(&arena, token).is_some());
    shard.destroy(&mut arena);
}
