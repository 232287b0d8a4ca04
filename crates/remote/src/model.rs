//! The tier beside a naive model, a map, over simulated servers with faults.
//!
//! Whatever happens, a read gives what was written or fails, and the index is
//! whole. Where only one server fails at a time and two have each block, every
//! read that is given time succeeds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use zcache::tier::{Tier, TierError, TierRead, TierWrite};

use crate::config::{Durability, RemoteConfig, Sealing};
use crate::endpoint::Endpoint;
use crate::simulated::{Faults, SimulatedNetwork};
use crate::tier::{RemoteTier, lock};

const SERVERS: usize = 4;
const NAMES: u64 = 200;
const UNITS: u64 = 8;
const UNIT: u64 = 4096;

/// A seeded generator (SplitMix64); it prints its seed, and `ZCACHE_SEED`
/// replays one.
struct Rng(u64);

impl Rng {
    fn from_env(test: &str) -> Rng {
        let seed = match std::env::var("ZCACHE_SEED") {
            Ok(seed) => seed.parse().expect("ZCACHE_SEED is a number"),
            Err(_) => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(1, |time| time.as_nanos() as u64),
        };
        println!("{test}: ZCACHE_SEED={seed}");
        Rng(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn block(&mut self) -> Vec<u8> {
        let units = 1 + self.below(UNITS);
        let mut block = vec![0; (units * UNIT) as usize];
        let filled = self.below(block.len() as u64 + 1) as usize;
        for chunk in block[..filled].chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        block
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    /// Anything at any time.
    Any,
    /// One server at a time, and time to recover before the next.
    OneAtATime,
}

struct Run {
    rng: Rng,
    network: SimulatedNetwork,
    tier: RemoteTier,
    model: BTreeMap<u64, Vec<u8>>,
    trouble: Trouble,
    cluster: bool,
    reads_ok: u64,
    reads_failed: u64,
}

fn config(durability: Durability, cluster: bool) -> RemoteConfig {
    let addresses = (0..SERVERS).map(SimulatedNetwork::address);
    let endpoints = match cluster {
        true => vec![Endpoint::Cluster(addresses.collect())],
        false => addresses.map(Endpoint::Server).collect(),
    };
    let mut config = RemoteConfig::new(endpoints, durability);
    config.host = "model".to_owned();
    config.bytes_max = Some(3 << 20);
    config.queue_bytes_max = 256 << 10;
    config
}

impl Run {
    fn new(mut rng: Rng, config: RemoteConfig, trouble: Trouble) -> Run {
        let cluster = matches!(config.endpoints[0], Endpoint::Cluster(_));
        let network = SimulatedNetwork::new(rng.next(), SERVERS, Duration::from_micros(20));
        if cluster {
            network.cluster();
        }
        let tier = RemoteTier::over(config, Arc::new(network.clone()), network.clock());
        Run {
            rng,
            network,
            tier: tier.unwrap(),
            model: BTreeMap::new(),
            trouble,
            cluster,
            reads_ok: 0,
            reads_failed: 0,
        }
    }

    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            match self.rng.below(20) {
                0..=6 => self.write(),
                7..=14 => self.read(),
                15..=16 => self.free(),
                17..=18 => {
                    self.network.pass(Duration::from_millis(self.rng.0 % 40));
                    self.tier.turn();
                }
                _ => self.disturb(),
            }
            lock(&self.tier.core().index).validate();
        }
    }

    fn write(&mut self) {
        let mut batch = BTreeMap::new();
        for _ in 0..1 + self.rng.below(12) {
            let name = self.rng.below(NAMES) * UNITS * UNIT;
            if !self.model.contains_key(&name) {
                batch.insert(name, self.rng.block());
            }
        }
        let writes = batch.iter().map(|(name, bytes)| TierWrite {
            offset_bytes: *name,
            bytes,
            result: Err(TierError::IO),
        });
        let mut writes: Vec<_> = writes.collect();
        self.tier.write(&mut writes);
        let results: Vec<_> = writes
            .iter()
            .map(|write| (write.offset_bytes, write.result))
            .collect();
        for (name, result) in results {
            if result.is_ok() {
                self.model.insert(name, batch.remove(&name).unwrap());
            } else {
                let len = batch[&name].len() as u64;
                self.tier.free(name, len);
            }
        }
    }

    fn free(&mut self) {
        let n = self.rng.below(self.model.len().max(1) as u64) as usize;
        if let Some((name, bytes)) = self.model.iter().nth(n).map(|(n, b)| (*n, b.len())) {
            self.tier.free(name, bytes as u64);
            self.model.remove(&name);
        }
    }

    fn read(&mut self) {
        let mut wanted = Vec::new();
        let single = self.rng.below(2) == 0;
        for _ in 0..if single { 1 } else { 1 + self.rng.below(20) } {
            let n = self.rng.below(self.model.len().max(1) as u64) as usize;
            let Some((name, bytes)) = self.model.iter().nth(n) else {
                return;
            };
            let units = bytes.len() as u64 / UNIT;
            let first = self.rng.below(units);
            let count = 1 + self.rng.below(units - first);
            wanted.push((*name, first * UNIT, count * UNIT));
        }
        let mut out: Vec<Vec<u8>> = wanted.iter().map(|want| vec![7; want.2 as usize]).collect();
        let reads = wanted.iter().zip(&mut out).map(|(want, bytes)| TierRead {
            offset_bytes: want.0 + want.1,
            bytes,
            result: Err(TierError::IO),
        });
        let mut reads: Vec<_> = reads.collect();
        self.tier.read(&mut reads);
        for (read, (name, from, len)) in reads.iter().zip(&wanted) {
            let bytes = &self.model[name][*from as usize..(from + len) as usize];
            if read.result.is_ok() {
                assert!(*read.bytes == *bytes, "other bytes of {name}+{from}");
                self.reads_ok += 1;
            } else {
                self.reads_failed += 1;
                let durable = self.trouble == Trouble::OneAtATime;
                assert!(
                    !durable,
                    "{name}+{from} is lost: {:?}\n{:?}",
                    read.result,
                    self.tier.stats()
                );
            }
        }
    }

    fn disturb(&mut self) {
        let server = self.rng.below(SERVERS as u64) as usize;
        let network = self.network.clone();
        let rate = |rng: &mut Rng, max| rng.below(max) as u16;
        match self.rng.below(9) {
            0 => network.restart(server, false),
            1 => network.snapshot(server),
            2 if self.trouble == Trouble::Any => network.restart(server, true),
            3 => {
                network.set_down(server, true);
                self.recover_or(2);
                network.set_down(server, false);
            }
            4 => {
                network.set_hangs(server, true);
                self.recover_or(2);
                network.set_hangs(server, false);
            }
            5 if self.trouble == Trouble::Any => {
                network.set_bytes_max(server, self.rng.below(1 << 20))
            }
            6 => network.set_bytes_max(server, u64::MAX),
            7 if self.trouble == Trouble::Any => network.set_faults(Faults {
                break_before_rate: rate(&mut self.rng, 3000),
                break_after_rate: rate(&mut self.rng, 3000),
                late_rate: rate(&mut self.rng, 3000),
                bit_flip_rate: rate(&mut self.rng, 3000),
            }),
            _ if self.cluster => {
                let first = self.rng.below(16384) as usize;
                let to = self.rng.below(SERVERS as u64) as usize;
                if self.trouble == Trouble::Any {
                    network.move_slots(first, 500, to);
                }
            }
            _ => network.set_faults(Faults::default()),
        }
        self.recover_or(0);
    }

    /// Time to recover where that is the rule; else some steps as they come.
    fn recover_or(&mut self, steps: usize) {
        match self.trouble {
            Trouble::OneAtATime => {
                for _ in 0..60 {
                    self.network.pass(Duration::from_millis(250));
                    self.tier.turn();
                }
            }
            Trouble::Any => {
                for _ in 0..steps {
                    self.write();
                    self.read();
                }
            }
        }
    }

    /// At the end nothing of the run is left.
    fn end(self) -> (u64, u64) {
        self.network.set_faults(Faults::default());
        for server in 0..SERVERS {
            self.network.set_bytes_max(server, u64::MAX);
        }
        for _ in 0..100 {
            self.network.pass(Duration::from_millis(200));
            self.tier.turn();
        }
        for bytes in (0..SERVERS).map(|server| self.network.bytes(server)) {
            assert!(bytes <= 6 << 20, "{bytes} bytes at one server");
        }
        drop(self.tier);
        // What a failure left behind is left to the lease.
        self.network.pass(Duration::from_secs(3 * 24 * 3600));
        let left: usize = (0..SERVERS).map(|server| self.network.keys(server)).sum();
        assert_eq!(left, 0);
        (self.reads_ok, self.reads_failed)
    }
}

#[test]
fn it_gives_what_was_written_or_fails_whatever_happens() {
    let mut rng = Rng::from_env("remote model");
    let mut totals = (0, 0);
    for round in 0..24 {
        let durability = [Durability::Disk, Durability::TwoCopies, Durability::Wait][round % 3];
        let mut config = config(durability, round % 2 == 1);
        config.timeouts.patience = Duration::from_millis(500);
        config.posts = durability == Durability::Disk && round % 4 < 2;
        config.seal = [Sealing::Always, Sealing::Never][round / 6 % 2];
        let rng = Rng(rng.next());
        println!("round {round}: {}", rng.0);
        let mut run = Run::new(rng, config, Trouble::Any);
        run.steps(400);
        let (ok, failed) = run.end();
        totals = (totals.0 + ok, totals.1 + failed);
    }
    println!("{totals:?} reads good and failed");
    assert!(totals.0 > 10_000 && totals.1 > 100, "{totals:?}");
}

#[test]
fn two_copies_survive_one_server_at_a_time() {
    let mut rng = Rng::from_env("two copies");
    for round in 0..8 {
        let rng = Rng(rng.next());
        println!("round {round}: {}", rng.0);
        let mut config = config(Durability::TwoCopies, round % 2 == 1);
        config.bytes_max = None;
        let mut run = Run::new(rng, config, Trouble::OneAtATime);
        run.steps(400);
        assert!(run.reads_ok > 500 && run.reads_failed == 0);
        run.end();
    }
}

#[test]
fn nothing_is_left_of_a_run_that_ends_well() {
    for durability in [Durability::Disk, Durability::TwoCopies, Durability::Wait] {
        for cluster in [false, true] {
            let mut run = Run::new(Rng(5), config(durability, cluster), Trouble::OneAtATime);
            run.write();
            run.tier.turn();
            assert!((0..SERVERS).any(|server| run.network.keys(server) > 0));
            drop(run.tier);
            let left: usize = (0..SERVERS).map(|server| run.network.keys(server)).sum();
            assert_eq!(left, 0, "{durability:?} {cluster}");
        }
    }
}

#[test]
fn a_lease_ends_what_nobody_renews_and_a_renewed_one_does_not() {
    let mut config = config(Durability::TwoCopies, false);
    config.lease = Duration::from_secs(300);
    let mut run = Run::new(Rng(6), config, Trouble::OneAtATime);
    run.write();
    for _ in 0..2000 {
        run.network.pass(Duration::from_secs(1));
        run.tier.turn();
    }
    run.read();
    assert!(run.reads_ok > 0);
    std::mem::forget(run.tier);
    run.network.pass(Duration::from_secs(301));
    let left: usize = (0..SERVERS).map(|server| run.network.keys(server)).sum();
    assert_eq!(left, 0);
}

#[test]
fn posted_blocks_are_bounded_and_the_oldest_go_first() {
    let mut config = config(Durability::Disk, false);
    config.bytes_max = Some(1 << 20);
    let run = Run::new(Rng(7), config, Trouble::Any);
    let block = vec![1; 16384];
    for n in 0..400 {
        run.tier.write(&mut [TierWrite {
            offset_bytes: n * 16384,
            bytes: &block,
            result: Err(TierError::IO),
        }]);
        if n % 8 == 7 {
            run.network.pass(Duration::from_millis(10));
            run.tier.turn();
        }
    }
    let stats = run.tier.stats();
    assert!(stats.kept_bytes <= 1 << 20, "{stats:?}");
    assert!(stats.kept_bytes > 900 << 10, "{stats:?}");
    assert_eq!(
        stats.posted,
        stats.blocks + stats.dropped_old + stats.dropped_busy + stats.dropped_failed
    );
    let read = |n: u64| {
        let mut bytes = vec![0; 4096];
        let mut reads = [TierRead {
            offset_bytes: n * 16384,
            bytes: &mut bytes,
            result: Ok(()),
        }];
        run.tier.read(&mut reads);
        reads[0].result
    };
    assert_eq!((read(0), read(399)), (Err(TierError::Lost), Ok(())));
}
