//! Hosts that lend and borrow: each has a server and a tier on the servers of others.
//!
//! The tiers are the real ones; servers, links and the clock are simulated. Each tier has a turn every tick. A host that dies
//! takes its server and its tier along, and nothing says goodbye.

use std::sync::Arc;
use std::time::Duration;

use zcache::PAGE_SIZE;
use zcache::tier::{Tier, TierError, TierRead, TierWrite};
use zcache_remote::simulated::SimulatedNetwork;
use zcache_remote::{Durability, Endpoint, RemoteConfig, RemoteStats, RemoteTier};

use super::network::Counted;
use super::{Layout, Plan};
use crate::host::HostError;
use crate::remote::failed;
use crate::workload::Rng;

/// Of the simulated link; short, for hosts here have their turns one after another, not at once.
const ROUND_TRIP: Duration = Duration::from_micros(1);

/// Between two turns of a tier.
const TICK: Duration = Duration::from_millis(250);

/// Names of blocks are so far apart.
const BLOCK_BYTES: u64 = 4 * PAGE_SIZE as u64;

/// What a block has in it; the rest is zeros, which are not sent.
const FILLED_BYTES: usize = 64;

/// Nodes of a cluster that a borrower is told of.
const SEEDS: usize = 3;

pub(super) struct Hosts {
    network: SimulatedNetwork,
    counted: Arc<Counted>,
    /// `None` is dead.
    tiers: Vec<Option<RemoteTier>>,
    blocks: u64,
    /// What the first host's tier counts when it has nothing yet.
    empty_ram_bytes: u64,
    rng: Rng,
}

/// What reading everything found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) right: u64,
    pub(super) lost: u64,
    pub(super) wrong: u64,
}

impl Hosts {
    /// So many hosts, each with its blocks written; a borrower for each, or one alone.
    pub(super) fn start(plan: &Plan, layout: Layout, borrowers: usize) -> Result<Hosts, HostError> {
        let network = SimulatedNetwork::new(plan.seed, plan.hosts, ROUND_TRIP);
        if layout == Layout::Cluster {
            network.cluster();
        }
        let counted = Arc::new(Counted::new(network.clone(), plan.hosts));
        let mut hosts = Hosts {
            network,
            counted,
            tiers: Vec::new(),
            blocks: plan.segments * plan.blocks_each,
            empty_ram_bytes: 0,
            rng: Rng::new(plan.seed),
        };
        for host in 0..borrowers {
            let config = config(plan, layout, host);
            let network = Arc::clone(&hosts.counted);
            let tier = RemoteTier::over(config, network, hosts.network.clock());
            let tier = tier.map_err(|error| failed("a simulated host", error))?;
            hosts.tiers.push(Some(tier));
        }
        hosts.empty_ram_bytes = hosts.tiers[0].as_ref().map_or(0, Tier::ram_bytes);
        for first in (0..hosts.blocks).step_by(plan.blocks_each as usize) {
            for host in 0..borrowers {
                hosts.write(host, first, plan.blocks_each)?;
            }
        }
        Ok(hosts)
    }

    /// Writes blocks together, so that they are one segment.
    fn write(&self, host: usize, first: u64, count: u64) -> Result<(), HostError> {
        let Some(tier) = &self.tiers[host] else {
            return Ok(());
        };
        let blocks: Vec<_> = (first..first + count)
            .map(|block| content(host, block))
            .collect();
        let mut writes: Vec<TierWrite<'_>> = (first..)
            .zip(&blocks)
            .map(|(block, bytes)| TierWrite {
                offset_bytes: block * BLOCK_BYTES,
                bytes,
                result: Err(TierError::IO),
            })
            .collect();
        tier.write(&mut writes);
        let result = writes.iter().try_for_each(|write| write.result);
        result.map_err(|error| failed("a simulated write", error))
    }

    /// Lets time pass, with turns of everybody.
    pub(super) fn pass(&self, time: Duration) {
        let until = self.network.clock().now() + time;
        while self.network.clock().now() < until {
            for tier in self.tiers.iter().flatten() {
                tier.turn();
            }
            let now = self.network.clock().now();
            self.network.pass(until.saturating_sub(now).min(TICK));
        }
    }

    /// So many of the living die at once.
    pub(super) fn lose(&mut self, count: usize) {
        for _ in 0..count {
            let living: Vec<usize> = self.living().collect();
            let victim = living[self.rng.below(living.len() as u64) as usize];
            self.network.set_down(victim, true);
            // Without the goodbye that a tier says when it is dropped.
            std::mem::forget(self.tiers[victim].take());
        }
    }

    /// Reads every block of the living and compares it.
    pub(super) fn read_all(&self) -> Found {
        let mut found = Found::default();
        let mut bytes = vec![0; BLOCK_BYTES as usize];
        for (host, tier) in self.tiers.iter().enumerate() {
            let Some(tier) = tier else { continue };
            for block in 0..self.blocks {
                let mut reads = [TierRead {
                    offset_bytes: block * BLOCK_BYTES,
                    bytes: &mut bytes,
                    result: Err(TierError::IO),
                }];
                tier.read(&mut reads);
                match reads[0].result {
                    Ok(()) if bytes == content(host, block) => found.right += 1,
                    Ok(()) => found.wrong += 1,
                    Err(_) => found.lost += 1,
                }
            }
        }
        found
    }

    pub(super) fn living(&self) -> impl Iterator<Item = usize> + '_ {
        let is_alive = |host: &usize| self.tiers[*host].is_some();
        (0..self.tiers.len()).filter(is_alive)
    }

    /// What tiers say of themselves.
    pub(super) fn stats(&self) -> Vec<RemoteStats> {
        self.tiers.iter().flatten().map(RemoteTier::stats).collect()
    }

    /// RAM that a host's tier counts: since it has blocks, and before.
    pub(super) fn ram_bytes(&self, host: usize) -> (u64, u64) {
        let now = self.tiers[host].as_ref().map_or(0, Tier::ram_bytes);
        (
            now.saturating_sub(self.empty_ram_bytes),
            self.empty_ram_bytes,
        )
    }

    /// Segments of the living of which two copies cannot be had at the moment.
    pub(super) fn short_of_copies(&self) -> usize {
        let tiers = self.tiers.iter().flatten();
        tiers.map(RemoteTier::short_of_copies).sum()
    }

    /// Connections that a server has open, and commands that it carried out.
    pub(super) fn load(&self, server: usize) -> (u64, u64) {
        (self.counted.open(server), self.network.load(server).0)
    }
}

fn config(plan: &Plan, layout: Layout, host: usize) -> RemoteConfig {
    let hosts = plan.hosts;
    let server = |n: usize| SimulatedNetwork::address((host + n) % hosts);
    let endpoints = match layout {
        Layout::All => (1..hosts).map(|n| Endpoint::Server(server(n))).collect(),
        Layout::Few(count) => (1..=count.min(hosts - 1))
            .map(|n| Endpoint::Server(server(n * (hosts / (count + 1)).max(1))))
            .collect(),
        Layout::Cluster => vec![Endpoint::Cluster((1..=SEEDS).map(server).collect())],
    };
    let mut config = RemoteConfig::new(endpoints, Durability::TwoCopies);
    config.host = format!("host-{host}");
    config.lease = plan.lease;
    // The simulation has one clock, so that one who waits stops all.
    config.timeouts.patience = Duration::ZERO;
    config
}

/// A block's content, which says whose and which it is.
fn content(host: usize, block: u64) -> Vec<u8> {
    let mut rng = Rng::new((host as u64) << 32 | block);
    let mut bytes = vec![0; BLOCK_BYTES as usize];
    for word in bytes[..FILLED_BYTES].chunks_exact_mut(8) {
        word.copy_from_slice(&(rng.next() | 1).to_le_bytes());
    }
    bytes
}
