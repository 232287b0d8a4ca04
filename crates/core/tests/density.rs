//! How much fits: density fresh, after churn, and after random frees with evacuation; metadata at a million pages.
//!
//! Density here is bytes of zpages over bytes of block frames, so 1 is ideal; the ratio of the codec is not in it.

mod common;

use common::{Arena, Random};
use zcache_core::{
    Allocator, CodecId, EntryToken, Key, Kind, ObjectId, PoolId, Shard, Slot, Zpage,
};

const PAGES: usize = 20_000;

fn insert(shard: &mut Shard, arena: &mut Arena, random: &mut Random) -> EntryToken {
    let bytes = vec![7; random.zpage_len()];
    shard
        .insert(
            arena,
            Zpage::Bytes {
                bytes: &bytes,
                codec: CodecId::new(1),
                checksum: 0,
            },
        )
        .unwrap()
}

fn density(shard: &Shard) -> f64 {
    let usage = shard.usage();
    usage.persistent.zbytes as f64 / (f64::from(usage.block_frames) * 4096.0)
}

/// Density fresh, after six rounds in which 30% of the pages are replaced, after half are freed at random, and after
/// evacuation.
fn densities(allocator: Allocator) -> [f64; 4] {
    let mut random = Random(11);
    let mut arena = Arena::fast(40_000);
    let mut shard = Shard::new(allocator);
    let mut tokens: Vec<_> = (0..PAGES)
        .map(|_| insert(&mut shard, &mut arena, &mut random))
        .collect();
    let fresh = density(&shard);
    for _ in 0..6 {
        for _ in 0..PAGES * 3 / 10 {
            let victim = random.below(PAGES as u64) as usize;
            shard.release(&mut arena, tokens[victim]);
            tokens[victim] = insert(&mut shard, &mut arena, &mut random);
        }
    }
    let churned = density(&shard);
    for _ in 0..PAGES / 2 {
        let victim = random.below(tokens.len() as u64) as usize;
        shard.release(&mut arena, tokens.swap_remove(victim));
    }
    let holed = density(&shard);
    let frames = shard.frames_in_use();
    let done = shard.evacuate(&mut arena, u32::MAX);
    assert_eq!(frames - shard.frames_in_use(), done.frames);
    shard.validate(&arena).unwrap();
    let evacuated = density(&shard);
    println!(
        "{allocator:?}: fresh {fresh:.4}, churned {churned:.4}, half freed {holed:.4}, evacuated {evacuated:.4}"
    );
    shard.destroy(&mut arena);
    [fresh, churned, holed, evacuated]
}

#[test]
fn blocks_are_dense_and_evacuation_restores_it() {
    let [fresh, churned, holed, evacuated] = densities(Allocator::Block);
    assert!(fresh > 0.97, "fresh {fresh}");
    assert!(churned > 0.97 * fresh, "churned {churned}, fresh {fresh}");
    assert!(
        holed < 0.7 * fresh,
        "half freed {holed}: the test has made no holes"
    );
    assert!(
        evacuated > 0.97 * fresh,
        "evacuated {evacuated}, fresh {fresh}"
    );
}

#[test]
fn size_classes_are_dense_and_evacuation_restores_it() {
    let [fresh, churned, holed, evacuated] = densities(Allocator::Zsmalloc);
    // Each of 119 classes keeps a block that is not full, which weighs much among 20,000 pages.
    assert!(fresh > 0.93, "fresh {fresh}");
    assert!(churned > 0.93 * fresh, "churned {churned}, fresh {fresh}");
    assert!(
        holed < 0.7 * fresh,
        "half freed {holed}: the test has made no holes"
    );
    // These weigh twice as much with half of the pages.
    assert!(
        evacuated > 0.95 * fresh,
        "evacuated {evacuated}, fresh {fresh}"
    );
}

#[test]
fn frames_of_two_and_three_are_restored_too_as_far_as_they_go() {
    for allocator in [Allocator::Zbud, Allocator::Ztri] {
        let [fresh, _, holed, evacuated] = densities(allocator);
        assert!(
            holed < 0.8 * fresh,
            "half freed {holed}: the test has made no holes"
        );
        assert!(
            evacuated > 0.97 * fresh,
            "evacuated {evacuated}, fresh {fresh}"
        );
    }
}

/// Bytes of metadata a page at a million pages. Blocks are written back as they age, so that a million zpages need no
/// gigabytes here: the records are the same wherever the block is.
fn metadata_per_page(allocator: Allocator, owner: impl Fn(u32) -> Option<Key>) -> f64 {
    const MILLION: u32 = 1_000_000;
    let mut random = Random(12);
    let mut arena = Arena::fast(40_000);
    let mut shard = Shard::new(allocator);
    let (mut zbytes, mut slot) = (0u64, 0);
    let page = [7; 4096];
    for number in 0..MILLION {
        let bytes = &page[..random.zpage_len()];
        zbytes += bytes.len() as u64;
        let zpage = Zpage::Bytes {
            bytes,
            codec: CodecId::new(1),
            checksum: number,
        };
        match owner(number) {
            None => assert!(shard.insert(&mut arena, zpage).is_ok()),
            Some(key) => shard.put(&mut arena, &key, zpage).unwrap(),
        }
        while shard.usage().block_frames > 1000 {
            let plan = shard.begin_writeback(&mut arena, Kind::Persistent).unwrap();
            shard.finish_writeback(&mut arena, plan.block, Ok(Slot(slot)));
            slot += 1;
        }
    }
    assert_eq!(shard.usage().entries, MILLION);
    let per_page = shard.metadata_bytes() as f64 / f64::from(MILLION);
    let ratio = 4096.0 * f64::from(MILLION) / zbytes as f64;
    println!("{allocator:?}: {per_page:.2} bytes of metadata a page, compression ratio {ratio:.2}");
    shard.destroy(&mut arena);
    per_page
}

/// Objects of 64 pages, 256 KiB: small files.
fn small_file(number: u32) -> Option<Key> {
    let object = ObjectId([u64::from(number / 64), 1, 2]);
    Some(Key {
        pool: PoolId::new(0, Kind::Persistent),
        object,
        index: number % 64,
    })
}

#[test]
fn metadata_of_a_million_handles() {
    let per_page = metadata_per_page(Allocator::Block, |_| None);
    assert!(per_page <= 29.5, "{per_page}");
}

#[test]
fn metadata_of_a_million_keys() {
    let per_page = metadata_per_page(Allocator::Block, small_file);
    assert!(per_page <= 50.0, "{per_page}");
}

#[test]
fn metadata_of_a_million_keys_in_zbud() {
    // Two zpages share a block record of 48 bytes.
    let per_page = metadata_per_page(Allocator::Zbud, small_file);
    assert!(per_page <= 70.0, "{per_page}");
}
