//! Nodes that do not come back: what they had is written anew from where the
//! other copy is.
//!
//! Stage on the data path: beside it.
//!
//! - Only where two servers have each block; else the disk has it, or a replica.
//! - A node is given AWAY_MAX, because copying costs as much as the writing did.
//! - What has no other copy in reach stays as it is, for its node may come back.

use std::time::Duration;

use crate::index::{Home, Homes};
use crate::segment::SegmentId;
use crate::tier::{Core, RemoteTier, lock};

/// How long a node may not answer.
const AWAY_MAX: Duration = Duration::from_secs(30);

/// Between two looks, while one is away.
const LOOK_PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Away {
    looked_at: Duration,
}

impl Away {
    /// Has segments written anew whose second copy is away.
    pub(crate) fn turn(&mut self, core: &Core, now: Duration) {
        if core.config.copies() < 2 || now < self.looked_at + LOOK_PAUSE {
            return;
        }
        self.looked_at = now;
        let is_away = |home: Home| {
            let node = core.fleet.route(home);
            node.is_none_or(|node| node.away_for(now) >= AWAY_MAX)
        };
        let nodes = core.fleet.nodes();
        if !nodes.iter().any(|node| node.away_for(now) >= AWAY_MAX) {
            return;
        }
        let kept = lock(&core.index).kept_from(SegmentId(0), usize::MAX);
        let halves = kept.into_iter().filter(|(_, homes)| {
            let mut homes = homes.iter().flatten();
            homes.clone().any(|home| is_away(*home)) && homes.any(|home| core.answers(*home))
        });
        let halves: Vec<SegmentId> = halves.map(|(id, _)| id).collect();
        let mut index = lock(&core.index);
        for id in halves {
            index.doom_segment(id);
        }
    }
}

impl Core {
    fn answers(&self, home: Home) -> bool {
        self.fleet.route(home).is_some_and(|node| !node.is_open())
    }
}

impl RemoteTier {
    /// Segments of which fewer copies than wanted can be had at the moment. Looks
    /// at each, so it is for reports.
    #[must_use]
    pub fn short_of_copies(&self) -> usize {
        let core = self.core();
        let kept = lock(&core.index).kept_from(SegmentId(0), usize::MAX);
        let is_short = |(_, homes): &(SegmentId, Homes)| {
            let there = homes.iter().flatten().filter(|home| core.answers(**home));
            there.count() < core.config.copies()
        };
        kept.iter().filter(|segment| is_short(segment)).count()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zcache::tier::{Tier, TierError, TierRead, TierWrite};

    use super::*;
    use crate::config::{Durability, RemoteConfig};
    use crate::endpoint::Endpoint;
    use crate::simulated::SimulatedNetwork;

    #[test]
    fn two_servers_that_never_come_back_lose_nothing_if_one_goes_after_the_other() {
        let network = SimulatedNetwork::new(1, 4, Duration::from_micros(20));
        let servers = (0..4).map(|n| Endpoint::Server(SimulatedNetwork::address(n)));
        let mut config = RemoteConfig::new(servers.collect(), Durability::TwoCopies);
        config.timeouts.patience = Duration::ZERO;
        let tier = RemoteTier::over(config, Arc::new(network.clone()), network.clock()).unwrap();
        let block = |n: u64| vec![n as u8 + 1; 4096];
        for n in 0..100 {
            let mut writes = [TierWrite {
                offset_bytes: n * 4096,
                bytes: &block(n),
                result: Err(TierError::IO),
            }];
            tier.write(&mut writes);
            assert_eq!(writes[0].result, Ok(()));
        }
        for gone in 0..2 {
            network.set_down(gone, true);
            for _ in 0..200 {
                network.pass(Duration::from_millis(250));
                tier.turn();
            }
            assert_eq!(tier.short_of_copies(), 0, "{:?}", tier.stats());
            lock(&tier.core().index).validate();
        }
        let mut bytes = vec![0; 4096];
        for n in 0..100 {
            let mut reads = [TierRead {
                offset_bytes: n * 4096,
                bytes: &mut bytes,
                result: Err(TierError::IO),
            }];
            tier.read(&mut reads);
            assert_eq!(reads[0].result, Ok(()), "block {n}");
            assert!(bytes == block(n), "block {n}");
        }
    }
}
