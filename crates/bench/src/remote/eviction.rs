//! How fast blocks go out: to the disk, and to servers in each way that a write is safe.
//!
//! The clock stops when the last block is acknowledged. A tier that posts drops what it has no room for, so it is
//! given a batch only when its queue has room, as a store that waits for its disk does.

use std::time::{Duration, Instant};

use serde::Serialize;
use zcache::tier::Tier;
use zcache_remote::{Durability, RemoteTier};

use super::blocks::{BATCH, BLOCK_BYTES, Blocks};
use super::server::{Place, Program, Server};
use super::{config, failed};
use crate::host::HostError;
use crate::size::MIB;

/// Where blocks go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) enum Way {
    Disk,
    Post,
    TwoCopies,
    Wait,
}

impl Way {
    pub(super) const ALL: [Way; 4] = [Way::Disk, Way::Post, Way::TwoCopies, Way::Wait];

    /// What tables call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Way::Disk => "disk",
            Way::Post => "posting (durability `disk`)",
            Way::TwoCopies => "`two-copies`, two servers",
            Way::Wait => "`wait`, a master and its replica with AOF",
        }
    }
}

/// One round of one way.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct EvictionRun {
    pub(super) way: Way,
    pub(super) sealed: bool,
    pub(super) round: u32,
    pub(super) mib_per_second: f64,
}

/// How long a queue may take to drain.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// MiB a second of one way.
pub(super) fn measure(
    program: &Program,
    way: Way,
    sealed: bool,
    bytes: u64,
    disk: &dyn Tier,
) -> Result<f64, HostError> {
    let blocks = Blocks::generate(11);
    let place = Place::Loopback;
    let start = |options: &[&str]| Server::start(program, &place, options);
    let safe = ["--appendonly", "yes", "--min-replicas-to-write", "1"];
    let mut servers = Vec::new();
    let (addresses, durability) = match way {
        Way::Disk => return write(disk, &blocks, bytes, || true).map(|time| rate(bytes, time)),
        Way::Post => {
            servers.push(start(&[])?);
            (1, Durability::Disk)
        }
        Way::TwoCopies => {
            servers.extend([start(&[])?, start(&[])?]);
            (2, Durability::TwoCopies)
        }
        Way::Wait => {
            let master = start(&safe)?;
            let port = master.address.1.to_string();
            let replica = ["--appendonly", "yes", "--replicaof", "127.0.0.1", &port];
            servers.push(start(&replica)?);
            master.await_replica()?;
            servers.insert(0, master);
            (1, Durability::Wait)
        }
    };
    let addresses: Vec<_> = servers[..addresses]
        .iter()
        .map(|server| server.address.clone())
        .collect();
    let config = config(&addresses, durability, sealed);
    let queue_bytes_max = config.queue_bytes_max;
    let tier = RemoteTier::open(config).map_err(|error| failed("the remote tier", error))?;
    let batch_bytes = (BATCH * BLOCK_BYTES) as u64;
    let has_room = || tier.stats().queued_bytes + 2 * batch_bytes < queue_bytes_max;
    let begun = Instant::now();
    write(&tier, &blocks, bytes, has_room)?;
    while tier.stats().queued_bytes > 0 {
        if begun.elapsed() > DRAIN_MAX {
            return Err(failed(
                "the remote tier",
                "blocks wait to be sent for too long",
            ));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    let time = begun.elapsed();
    let stats = tier.stats();
    let kept = stats.blocks * BLOCK_BYTES as u64;
    if kept < bytes {
        let why = format!("it kept {kept} of {bytes} bytes: {stats:?}");
        return Err(failed("the remote tier", why));
    }
    Ok(rate(bytes, time))
}

/// Writes so many bytes, each batch when there is room; the time that took.
fn write(
    tier: &dyn Tier,
    blocks: &Blocks,
    bytes: u64,
    has_room: impl Fn() -> bool,
) -> Result<Duration, HostError> {
    let count = bytes as usize / BLOCK_BYTES;
    let begun = Instant::now();
    for first in (0..count).step_by(BATCH) {
        while !has_room() {
            if begun.elapsed() > DRAIN_MAX {
                return Err(failed("a tier", "it has no room for too long"));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        let written = blocks.write(tier, first);
        written.map_err(|error| failed("a write", error))?;
    }
    Ok(begun.elapsed())
}

fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / MIB as f64 / time.as_secs_f64()
}
