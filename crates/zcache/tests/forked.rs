//! A store in forked processes, and one under a limit on the length of files.
//! A program of its own, since only a process with one thread may fork so:
//! `cargo test --test forked [WORDS OF A NAME]`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use zcache::tier::{DiskTier, Tier, TierError, TierRead, TierSource, TierWrite};
use zcache::{
    Codec, Event, Key, LoadError, ObjectId, PAGE_SIZE, Page, PoolId, PoolKind, Rejected, Store,
    StoreConfig, SwapConfig,
};
use zcache_sys::arena::Arena;
use zcache_sys::fork::in_child;
use zcache_sys::swapfile;

fn main() {
    let tests: [(&str, fn()); 6] = [
        (
            "a_store_in_ram_goes_its_own_way_in_each",
            a_store_in_ram_goes_its_own_way_in_each,
        ),
        (
            "the_parent_loses_nothing_and_the_child_is_told",
            the_parent_loses_nothing_and_the_child_is_told,
        ),
        (
            "a_child_reads_what_the_parent_has_not_written_again",
            a_child_reads_what_the_parent_has_not_written_again,
        ),
        (
            "a_store_that_is_opened_in_a_child_swaps",
            a_store_that_is_opened_in_a_child_swaps,
        ),
        (
            "a_disk_tier_writes_nothing_and_uses_no_ring_in_a_child",
            a_disk_tier_writes_nothing_and_uses_no_ring_in_a_child,
        ),
        (
            "a_limit_on_the_length_of_files_ends_nobody",
            a_limit_on_the_length_of_files_ends_nobody,
        ),
    ];
    let filter = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    for (name, test) in tests {
        if filter
            .as_ref()
            .is_none_or(|word| name.contains(word.as_str()))
        {
            println!("test {name}");
            test();
        }
    }
}

/// A store of two MiB of RAM.
fn open(swap: bool) -> (Store, PoolId) {
    let directory = env!("CARGO_MANIFEST_DIR").into();
    let store = Store::open(StoreConfig {
        pool_bytes_max: 2 << 20,
        codec: Codec::Lz4.into(),
        dictionaries: false,
        tiers: Vec::from_iter(swap.then(|| {
            TierSource::disk(SwapConfig {
                path: Some(directory),
                bytes_max: None,
            })
        })),
        ..StoreConfig::default()
    })
    .expect("a store");
    let pool = store.create_pool(PoolKind::Persistent);
    (store, pool)
}

fn key(pool: PoolId, who: u64, number: u64) -> Key {
    Key {
        pool,
        object: ObjectId([who, 0, 0]),
        index: number as u32,
    }
}

/// A page that does not shrink.
fn page(who: u64, number: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    let mut word = (who << 32 | number) * 2 + 1;
    for bytes in page.as_chunks_mut::<8>().0 {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        *bytes = word.to_le_bytes();
    }
    page
}

/// Whether a page is there: an error is none, other bytes never are.
fn holds(store: &Store, pool: PoolId, who: u64, number: u64) -> Result<bool, LoadError> {
    let mut out = [0; PAGE_SIZE];
    let hit = store.get(&key(pool, who, number), &mut out)?;
    assert!(
        !hit || out == page(who, number),
        "other bytes for {who}/{number}"
    );
    Ok(hit)
}

fn put(store: &Store, pool: PoolId, who: u64, number: u64) -> Result<(), Rejected> {
    store.put(&key(pool, who, number), &page(who, number))
}

fn a_store_in_ram_goes_its_own_way_in_each() {
    let (store, pool) = open(false);
    for number in 0..300 {
        put(&store, pool, 0, number).unwrap();
    }
    let go_on = |who| {
        assert!((0..300).all(|number| holds(&store, pool, 0, number) == Ok(true)));
        store.flush_object(pool, ObjectId([0; 3]));
        assert!((0..300).all(|number| put(&store, pool, who, number) == Ok(())));
        assert!((0..300).all(|number| holds(&store, pool, who, number) == Ok(true)));
        assert_eq!(store.validate(), Ok(()));
    };
    let child = in_child(|| {
        go_on(1);
        0
    });
    go_on(2);
    assert_eq!(child.unwrap().wait().unwrap(), 0);
}

fn the_parent_loses_nothing_and_the_child_is_told() {
    let (store, pool) = open(true);
    let events = Arc::new(AtomicU64::new(0));
    let heard = Arc::clone(&events);
    store.on_event(move |event| {
        assert!(
            matches!(event, Event::Forked | Event::PageLost(_)),
            "{event}"
        );
        heard.fetch_add(u64::from(*event == Event::Forked), Relaxed);
    });
    for number in 0..1500 {
        put(&store, pool, 0, number).unwrap();
    }
    let child = in_child(|| {
        // What the child frees is the parent's all the same.
        assert_eq!(store.flush_object(pool, ObjectId([0; 3])), 1500);
        let refused = (0..1500).filter(|number| match put(&store, pool, 1, *number) {
            Ok(()) => false,
            Err(why) => {
                assert_eq!(why, Rejected::Forked);
                true
            }
        });
        let refused = refused.count() as u64;
        assert!(refused > 500, "{refused} do not fit into RAM");
        assert_eq!(store.insert(&page(1, 5000)), Err(Rejected::Forked));
        let stats = store.stats();
        assert_eq!(stats.rejected_forked, refused + 1);
        assert_eq!(stats.accepted + stats.rejected(), stats.attempts);
        assert_eq!(events.load(Relaxed), 1, "it is said once");
        assert_eq!(store.swap_trouble(), Some(Event::Forked));
        assert!(store.reclaim(1 << 20).forked);
        // All that was taken is there.
        let there = (0..1500).filter(|number| holds(&store, pool, 1, *number) == Ok(true));
        assert_eq!(there.count() as u64, 1500 - refused);
        assert_eq!(store.validate(), Ok(()));
        0
    });
    for number in 0..1500 {
        put(&store, pool, 2, number).unwrap();
    }
    assert_eq!(child.unwrap().wait().unwrap(), 0);
    for who in [0, 2] {
        assert!((0..1500).all(|number| holds(&store, pool, who, number) == Ok(true)));
    }
    assert_eq!(events.load(Relaxed), 0);
    assert_eq!(store.swap_trouble(), None);
    assert_eq!(store.validate(), Ok(()));
}

fn a_child_reads_what_the_parent_has_not_written_again() {
    let (store, pool) = open(true);
    for number in 0..1500 {
        put(&store, pool, 0, number).unwrap();
    }
    store.reclaim(u64::MAX);
    let child = in_child(|| {
        assert!((0..1500).all(|number| holds(&store, pool, 0, number) == Ok(true)));
        0
    });
    assert_eq!(child.unwrap().wait().unwrap(), 0);
    let (go, going) = std::io::pipe().unwrap();
    let child = in_child(|| {
        // Until the parent has written over half of the places.
        std::io::Read::read_exact(&mut &go, &mut [0]).unwrap();
        let (mut there, mut lost) = (0, 0);
        for number in 0..1500 {
            match holds(&store, pool, 0, number) {
                Ok(true) => there += 1,
                // A new block may have only zeros where the old page was.
                Err(LoadError::Checksum { .. } | LoadError::Missing { .. }) => lost += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(there > 300 && lost > 300, "{there} there, {lost} lost");
        0
    });
    for number in 0..750 {
        assert!(store.flush_page(&key(pool, 0, number)));
    }
    // New blocks go behind the old ones until the file's free places come again.
    for round in 0..4 {
        for number in 0..750 {
            put(&store, pool, 3 + round, number).unwrap();
        }
        store.reclaim(u64::MAX);
    }
    std::io::Write::write_all(&mut &going, &[1]).unwrap();
    assert_eq!(child.unwrap().wait().unwrap(), 0);
}

fn a_store_that_is_opened_in_a_child_swaps() {
    let (store, pool) = open(true);
    for number in 0..1500 {
        put(&store, pool, 0, number).unwrap();
    }
    let child = in_child(|| {
        let (own, pool) = open(true);
        assert!((0..1500).all(|number| put(&own, pool, 1, number) == Ok(())));
        assert!((0..1500).all(|number| holds(&own, pool, 1, number) == Ok(true)));
        // And a child of the child is refused in its turn.
        let grandchild = in_child(|| {
            let refused = (0..3000).find_map(|number| put(&own, pool, 2, number).err());
            assert_eq!(refused, Some(Rejected::Forked));
            0
        });
        grandchild.unwrap().wait().unwrap()
    });
    assert_eq!(child.unwrap().wait().unwrap(), 0);
    assert!((0..1500).all(|number| holds(&store, pool, 0, number) == Ok(true)));
}

const BLOCK: usize = 16 << 10;

/// Writes of so many blocks in a row.
fn writes(memory: &Arena) -> Vec<TierWrite<'_>> {
    let blocks = memory.bytes().chunks(BLOCK).enumerate();
    blocks
        .map(|(n, bytes)| TierWrite {
            offset_bytes: (n * BLOCK) as u64,
            bytes,
            result: Err(TierError::IO),
        })
        .collect()
}

fn read_all(tier: &DiskTier, blocks: usize) -> Vec<Result<u8, TierError>> {
    let mut memory = Arena::reserve((blocks * BLOCK / 4096) as u32).unwrap();
    let chunks = memory.bytes_mut().chunks_mut(BLOCK).enumerate();
    let mut reads: Vec<TierRead<'_>> = chunks
        .map(|(n, bytes)| TierRead {
            offset_bytes: (n * BLOCK) as u64,
            bytes,
            result: Err(TierError::IO),
        })
        .collect();
    tier.read(&mut reads);
    reads
        .iter()
        .map(|read| read.result.map(|()| read.bytes[0]))
        .collect()
}

fn a_disk_tier_writes_nothing_and_uses_no_ring_in_a_child() {
    for rings in [true, false] {
        let file = swapfile::open(env!("CARGO_MANIFEST_DIR").as_ref(), true).unwrap();
        let tier = match rings {
            true => DiskTier::new(file),
            false => DiskTier::new(file).without_rings(),
        };
        let mut memory = Arena::reserve(32 * 4).unwrap();
        memory.bytes_mut().fill(1);
        let mut first = writes(&memory);
        tier.write(&mut first);
        assert!(first.iter().all(|write| write.result == Ok(())));
        let child = in_child(|| {
            let mut memory = Arena::reserve(32 * 4).unwrap();
            memory.bytes_mut().fill(2);
            for count in [1, 32] {
                let mut second = writes(&memory);
                tier.write(&mut second[..count]);
                let refused = |write: &TierWrite<'_>| write.result == Err(TierError::Forked);
                assert!(second[..count].iter().all(refused));
            }
            assert_eq!(read_all(&tier, 32), vec![Ok(1); 32]);
            0
        });
        // The ring is the parent's alone, at the same time.
        for _ in 0..50 {
            assert_eq!(read_all(&tier, 32), vec![Ok(1); 32]);
        }
        assert_eq!(child.unwrap().wait().unwrap(), 0);
        assert_eq!(read_all(&tier, 32), vec![Ok(1); 32]);
    }
}

fn a_limit_on_the_length_of_files_ends_nobody() {
    // By signal 25 without the check, which `wait` would give back as 153.
    for limit in [0, 4096, (1 << 20) + 5000] {
        let child = in_child(|| {
            swapfile::set_length_limit(limit).unwrap();
            let (store, pool) = open(true);
            let refused = (0..1500).find(|number| match put(&store, pool, 0, *number) {
                Ok(()) => false,
                Err(why) => {
                    assert_eq!(why, Rejected::TierFull);
                    true
                }
            });
            let taken = refused.expect("no more than RAM and the file");
            let in_file = limit / BLOCK as u64 * BLOCK as u64;
            assert_eq!(store.stats().swap_bytes, in_file);
            let trouble = Event::WritebackFailed { errno: 27 };
            assert_eq!(store.swap_trouble(), Some(trouble));
            assert!((0..taken).all(|number| holds(&store, pool, 0, number) == Ok(true)));
            store.flush_pool(pool);
            // The places below the limit are used again at once.
            let again = (0..taken).filter(|number| put(&store, pool, 1, *number).is_ok());
            let again = again.count() as u64;
            assert!(again * 10 >= taken * 9, "{again} of {taken}");
            assert_eq!(store.stats().swap_bytes, in_file);
            assert_eq!(store.validate(), Ok(()));
            0
        });
        assert_eq!(child.unwrap().wait().unwrap(), 0, "at a limit of {limit}");
    }
    for rings in [true, false] {
        let child = in_child(|| {
            let file = swapfile::open(env!("CARGO_MANIFEST_DIR").as_ref(), true).unwrap();
            let tier = match rings {
                true => DiskTier::new(file),
                false => DiskTier::new(file).without_rings(),
            };
            let memory = Arena::reserve(32 * 4).unwrap();
            // The fourth block would end beyond the limit.
            swapfile::set_length_limit(4 * BLOCK as u64 - 1).unwrap();
            let mut all = writes(&memory);
            tier.write(&mut all);
            for (n, write) in all.iter().enumerate() {
                let expected = if n < 3 {
                    Ok(())
                } else {
                    Err(TierError::TOO_LONG)
                };
                assert_eq!(write.result, expected, "block {n}");
            }
            // The limit is looked up each time.
            swapfile::set_length_limit(BLOCK as u64).unwrap();
            tier.write(&mut all);
            assert_eq!(all[0].result, Ok(()));
            assert_eq!(all[1].result, Err(TierError::TOO_LONG));
            0
        });
        assert_eq!(child.unwrap().wait().unwrap(), 0);
    }
}
