//! Blocks whose contents follow from their names, written and verified.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use zcache::tier::{Tier, TierError, TierRead, TierWrite};
use zcache_remote::{Durability, RemoteTier, Sealing};

use crate::server::{Server, config, until};

pub(crate) const BLOCK: usize = 16384;

pub(crate) fn block(name: u64) -> Vec<u8> {
    let mut random = name.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut block = vec![0; BLOCK];
    for word in block[..BLOCK - 500].chunks_exact_mut(8) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        word.copy_from_slice(&random.to_le_bytes());
    }
    block
}

/// Writes blocks of these names in one batch; how each ended.
pub(crate) fn write(tier: &RemoteTier, names: std::ops::Range<u64>) -> Vec<Result<(), TierError>> {
    let blocks: Vec<_> = names.clone().map(block).collect();
    let write = |(name, bytes)| TierWrite {
        offset_bytes: name * BLOCK as u64,
        bytes,
        result: Err(TierError::IO),
    };
    let mut writes: Vec<_> = names
        .zip(blocks.iter().map(Vec::as_slice))
        .map(write)
        .collect();
    tier.write(&mut writes);
    writes.iter().map(|write| write.result).collect()
}

/// Reads a page of a block, and compares.
pub(crate) fn read(tier: &RemoteTier, name: u64, page: usize) -> Result<(), TierError> {
    let mut bytes = vec![0; 4096];
    let mut reads = [TierRead {
        offset_bytes: name * BLOCK as u64 + page as u64 * 4096,
        bytes: &mut bytes,
        result: Err(TierError::IO),
    }];
    tier.read(&mut reads);
    reads[0].result?;
    let expected = block(name);
    assert!(
        bytes == expected[page * 4096..][..4096],
        "other bytes of {name}"
    );
    Ok(())
}

/// Reads all of these; how many came and how many did not.
pub(crate) fn read_all(tier: &RemoteTier, names: std::ops::Range<u64>) -> (usize, usize) {
    let count = (names.end - names.start) as usize;
    let good = names
        .filter(|name| read(tier, *name, *name as usize % 4).is_ok())
        .count();
    (good, count - good)
}

/// Writes without end, and reads what was acknowledged, until told to stop.
/// Gives how many blocks were acknowledged and how often reads failed.
pub(crate) fn load(tier: &RemoteTier, first: u64, stop: &AtomicBool) -> (u64, u64) {
    let acknowledged = AtomicU64::new(first);
    let failed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                let next = acknowledged.load(Relaxed);
                // A batch that fails is written again, as a store does.
                if write(tier, next..next + 16).iter().all(Result::is_ok) {
                    acknowledged.store(next + 16, Relaxed);
                } else {
                    tier.free(next * BLOCK as u64, 16 * BLOCK as u64);
                    std::thread::sleep(Duration::from_millis(20));
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        scope.spawn(|| {
            let mut random = 1u64;
            while !stop.load(Relaxed) {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let end = acknowledged.load(Relaxed);
                let name = (random >> 33) % end.max(1);
                if end > 0 && read(tier, name, name as usize % 4).is_err() {
                    failed.fetch_add(1, Relaxed);
                }
            }
        });
    });
    (acknowledged.into_inner(), failed.into_inner())
}

#[test]
fn blocks_come_back_and_nothing_is_left() {
    let server = Server::start(&[]);
    let unix = format!("unix://{}", server.socket().display());
    for (url, posts, seal) in [
        (unix.as_str(), true, Sealing::Always),
        (unix.as_str(), false, Sealing::Never),
        ("", true, Sealing::Never),
        ("", false, Sealing::Always),
    ] {
        let mut config = config(&[&server], Durability::Disk);
        if !url.is_empty() {
            config.endpoints = vec![zcache_remote::Endpoint::parse(url).unwrap()];
        }
        config.posts = posts;
        config.seal = seal;
        config.timeouts.hedge_min = Duration::from_secs(1);
        let tier = RemoteTier::open(config).unwrap();
        assert!(write(&tier, 0..400).iter().all(Result::is_ok));
        assert_eq!(
            read_all(&tier, 0..400),
            (400, 0),
            "those on their way included"
        );
        until("all is sent", || tier.stats().queued_bytes == 0);
        assert_eq!(read_all(&tier, 0..400), (400, 0));
        let stats = tier.stats();
        assert_eq!(
            (stats.blocks, stats.dropped_busy, stats.dropped_failed),
            (400, 0, 0)
        );
        // Many at once, over several blocks each.
        let mut out = vec![vec![0; BLOCK * 4]; 100];
        let reads = out.iter_mut().enumerate().map(|(n, bytes)| TierRead {
            offset_bytes: (n * 4 * BLOCK) as u64,
            bytes,
            result: Err(TierError::IO),
        });
        let mut reads: Vec<_> = reads.collect();
        tier.read(&mut reads);
        for (n, read) in reads.iter().enumerate() {
            assert_eq!(read.result, Ok(()));
            let expected: Vec<u8> = (0..4).flat_map(|k| block(n as u64 * 4 + k)).collect();
            assert!(*read.bytes == expected, "blocks from {n} on");
        }
        // Most die: the rest is written anew and the dead are given back.
        for name in (0..400).filter(|name| name % 4 != 0) {
            tier.free(name * BLOCK as u64, BLOCK as u64);
        }
        until("it is written anew", || {
            let stats = tier.stats();
            stats.kept_bytes < stats.live_bytes * 4 / 3 + 70_000
        });
        assert!(tier.stats().rewritten > 0);
        assert!((0..400).step_by(4).all(|name| read(&tier, name, 0).is_ok()));
        assert_eq!(read(&tier, 1, 0), Err(TierError::Lost));
        until("servers gave it back", || {
            server.keys().len() as u64 <= tier.stats().segments + 1
        });
        drop(tier);
        assert_eq!(server.keys(), Vec::<String>::new());
    }
}

#[test]
fn a_run_that_is_killed_leaves_nothing_after_its_lease() {
    let server = Server::start(&[]);
    let mut config = config(&[&server], Durability::Disk);
    config.lease = Duration::from_secs(2);
    config.posts = false;
    let tier = RemoteTier::open(config).unwrap();
    assert!(write(&tier, 0..40).iter().all(Result::is_ok));
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(read_all(&tier, 0..40).1, 0, "renewed while it runs");
    let ttl = server.ask(&["PTTL", &server.keys()[0]]);
    let ttl: i64 = ttl[1..].trim().parse().unwrap();
    assert!((1..=2000).contains(&ttl), "{ttl}");
    server.signal("STOP");
    // As a crash: nothing is given back while the server does not hear.
    drop(tier);
    server.signal("CONT");
    until("the lease ended", || server.keys().is_empty());
}
