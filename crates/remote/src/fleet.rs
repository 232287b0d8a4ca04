//! All servers of a tier: which of them a copy is on, now.
//!
//! Stage on the data path: between the tier and the nodes. A home names a slot,
//! and the slot's node is looked up each time, so what a cluster moves stays
//! found. Redirects change the map at once; the whole map is fetched when
//! anything was unexpected, from whichever node answers.
//!
//! - Nodes are only added, up to NODES_MAX, so that an index stays one node's.
//! - Two homes of a segment are on two nodes when they are chosen.
//! - Nothing is sent to an address that [`Reach`] does not allow, whoever named it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::endpoint::{Address, Endpoint};
use crate::index::Home;
use crate::link::{Command, LinkError, Network};
use crate::node::{Aftermath, CHORE_MAX, Chore, Job, Node, Rules, Work};
use crate::reach::Reach;
use crate::segment::SegmentId;
use crate::slot_map::{beside, slot_runs};
use crate::slots::{SLOTS, slot_of_tag};

/// Nodes that are ever known.
const NODES_MAX: usize = 1024;

/// The least time between two fetches of a map.
const REFRESH_MIN: Duration = Duration::from_millis(250);

/// The longest.
const REFRESH_MAX: Duration = Duration::from_secs(30);

/// How long a worker waits for work before it looks around.
const TICK: Duration = Duration::from_millis(50);

const NOBODY: u16 = u16::MAX;

/// What a worker found out about copies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Missing(SegmentId, Home),
    Emptied(usize),
    /// Not given back yet.
    Undone(SegmentId, Home),
    Leaves(usize),
}

struct Site {
    endpoint: Endpoint,
    /// For each slot its node; one for all where there is no cluster.
    map: RwLock<Vec<u16>>,
    unsure: AtomicBool,
    refreshed_at: Mutex<Duration>,
}

pub(crate) struct Fleet {
    reach: Mutex<Reach>,
    /// An address that was named and is not asked.
    out_of_reach: Mutex<Option<Address>>,
    sites: Vec<Site>,
    nodes: RwLock<Arc<Vec<Arc<Node>>>>,
    rules: Arc<Rules>,
    network: Arc<dyn Network>,
    next_node: AtomicUsize,
    next_tag: AtomicUsize,
    events: Mutex<Vec<Event>>,
    /// Where keys that mark servers were stored.
    marks: Mutex<BTreeSet<Home>>,
    threads: Mutex<Option<Vec<JoinHandle<()>>>>,
    ends: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleet {
    pub(crate) fn new(
        endpoints: Vec<Endpoint>,
        rules: Arc<Rules>,
        network: Arc<dyn Network>,
        reach: Reach,
    ) -> Fleet {
        let site = |endpoint: Endpoint| Site {
            map: RwLock::new(match endpoint {
                Endpoint::Server(_) => vec![NOBODY],
                Endpoint::Cluster(_) => vec![NOBODY; SLOTS],
            }),
            endpoint,
            unsure: AtomicBool::new(true),
            refreshed_at: Mutex::default(),
        };
        Fleet {
            reach: Mutex::new(reach),
            out_of_reach: Mutex::default(),
            sites: endpoints.into_iter().map(site).collect(),
            nodes: RwLock::default(),
            rules,
            network,
            next_node: AtomicUsize::new(0),
            next_tag: AtomicUsize::new(0),
            events: Mutex::default(),
            marks: Mutex::default(),
            threads: Mutex::new(None),
            ends: AtomicBool::new(false),
        }
    }

    pub(crate) fn nodes(&self) -> Arc<Vec<Arc<Node>>> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&nodes)
    }

    pub(crate) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut lock(&self.events))
    }

    /// Nodes that have slots now, or are servers by themselves.
    pub(crate) fn masters(&self) -> Vec<usize> {
        let mut masters = Vec::new();
        for site in &self.sites {
            let mut at = NOBODY;
            for node in site
                .map
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
            {
                // Slots lie in runs.
                if *node != at {
                    at = *node;
                    if at != NOBODY && !masters.contains(&usize::from(at)) {
                        masters.push(usize::from(at));
                    }
                }
            }
        }
        masters
    }

    /// The node that a copy is on.
    pub(crate) fn route(&self, home: Home) -> Option<Arc<Node>> {
        let at = self.route_index(home)?;
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.get(at).cloned()
    }

    pub(crate) fn route_index(&self, home: Home) -> Option<usize> {
        let site = self.sites.get(usize::from(home.site))?;
        let map = site.map.read().unwrap_or_else(PoisonError::into_inner);
        let slot = match map.len() {
            1 => 0,
            _ => usize::from(slot_of_tag(home.tag)),
        };
        let at = map[slot];
        (at != NOBODY).then_some(usize::from(at))
    }

    /// Homes for copies of a new segment, each on another node that answers, has
    /// room and has no notice; `None` when there are not as many.
    pub(crate) fn choose(&self, copies: usize) -> Option<Vec<Home>> {
        let masters = self.masters();
        let nodes = self.nodes();
        let fit = |at: &usize| {
            let node = &nodes[*at];
            !node.is_open() && !node.is_full() && !node.leaves()
        };
        let fit: Vec<usize> = masters.into_iter().filter(fit).collect();
        if fit.len() < copies {
            return None;
        }
        let first = self.next_node.fetch_add(1, Relaxed);
        (0..copies)
            .map(|n| {
                let at = fit[(first + n) % fit.len()];
                let site = nodes[at].site;
                Some(Home {
                    site,
                    tag: self.tag_of(usize::from(site), at)?,
                })
            })
            .collect()
    }

    /// Whether it is for their memory that nodes cannot take so many copies:
    /// enough of them answer.
    pub(crate) fn is_full(&self, copies: usize) -> bool {
        let nodes = self.nodes();
        let up = self
            .masters()
            .into_iter()
            .filter(|at| !nodes[*at].is_open());
        up.count() >= copies
    }

    /// A tag whose keys are on this node.
    fn tag_of(&self, site: usize, node: usize) -> Option<u16> {
        let map = self.sites[site]
            .map
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if map.len() == 1 {
            return Some(0);
        }
        (0..SLOTS).find_map(|_| {
            let tag = (self.next_tag.fetch_add(1, Relaxed) % SLOTS) as u16;
            let is_there = usize::from(map[usize::from(slot_of_tag(tag))]) == node;
            is_there.then_some(tag)
        })
    }

    /// What servers keep is not sealed: no other machine is asked from now on.
    pub(crate) fn stay_on_host(&self) {
        lock(&self.reach).off_host = false;
    }

    /// An address that somebody named and that is not asked.
    pub(crate) fn out_of_reach(&self) -> Option<Address> {
        lock(&self.out_of_reach).clone()
    }

    /// The node at this address, a new one if need be; none where it may not be asked.
    fn node_at(self: &Arc<Self>, site: u8, address: &Address) -> Option<usize> {
        if !lock(&self.reach).allows(address) {
            *lock(&self.out_of_reach) = Some(address.clone());
            return None;
        }
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let known = nodes
            .iter()
            .position(|node| node.address == *address && node.site == site);
        if known.is_some() || nodes.len() == NODES_MAX {
            return known;
        }
        let node = Node::new(
            address.clone(),
            site,
            Arc::clone(&self.rules),
            Arc::clone(&self.network),
        );
        Arc::make_mut(&mut nodes).push(Arc::new(node));
        let at = nodes.len() - 1;
        drop(nodes);
        let mut threads = lock(&self.threads);
        if let Some(threads) = threads.as_mut() {
            // Without a thread the node is not asked to write; reads work.
            threads.extend(self.start_thread(at).ok());
        }
        Some(at)
    }

    fn start_thread(self: &Arc<Self>, at: usize) -> std::io::Result<JoinHandle<()>> {
        let fleet = Arc::clone(self);
        let node = Arc::clone(&self.nodes()[at]);
        let builder = std::thread::Builder::new().name("zcache-remote".to_owned());
        builder.spawn(move || {
            while !fleet.ends.load(Relaxed) {
                node.wait_for_work(TICK);
                fleet.turn(at, &node);
            }
        })
    }

    /// Gives each node a thread, from now on.
    pub(crate) fn start_threads(self: &Arc<Self>) -> std::io::Result<()> {
        let mut threads = lock(&self.threads);
        let count = self.nodes().len();
        let started = (0..count).map(|at| self.start_thread(at));
        *threads = Some(started.collect::<Result<_, _>>()?);
        Ok(())
    }

    /// Ends the threads, each after its turn; one that a server holds up for longer than
    /// everything may take at the end is left to its own end.
    pub(crate) fn end_threads(&self) {
        self.ends.store(true, Relaxed);
        let threads = lock(&self.threads).take();
        for node in self.nodes().iter() {
            node.nudge();
        }
        let until = Instant::now() + self.rules.timeouts.end;
        for thread in threads.into_iter().flatten() {
            join_until(thread, until);
        }
    }

    /// One turn of a node's worker.
    pub(crate) fn turn(self: &Arc<Self>, at: usize, node: &Arc<Node>) {
        let site = usize::from(node.site);
        let marker = || {
            let tag = self.tag_of(site, at)?;
            let home = Home {
                site: node.site,
                tag,
            };
            lock(&self.marks).insert(home);
            Some(tag)
        };
        for after in node.turn(&marker) {
            match after {
                Aftermath::Redirected {
                    job,
                    home,
                    asking,
                    host,
                    port,
                } => {
                    let to = self.redirected(node, home, asking, host, port);
                    match to {
                        Some(to) => to.submit_redirected(job, asking),
                        None => node.submit_redirected(job, false),
                    }
                }
                Aftermath::Missing(id, home) => lock(&self.events).push(Event::Missing(id, home)),
                Aftermath::Emptied => lock(&self.events).push(Event::Emptied(at)),
                Aftermath::Undone(Chore::Unlink, id, home) => {
                    lock(&self.events).push(Event::Undone(id, home));
                }
                // The next pass renews it.
                Aftermath::Undone(Chore::Expire, ..) => {}
                Aftermath::Leaves => lock(&self.events).push(Event::Leaves(at)),
                Aftermath::Unsure => self.sites[site].unsure.store(true, Relaxed),
            }
        }
    }

    /// Follows a redirect: the node that it leads to, which has the slot from now
    /// on unless it was for once.
    pub(crate) fn redirected(
        self: &Arc<Self>,
        from: &Node,
        home: Home,
        asking: bool,
        host: String,
        port: u16,
    ) -> Option<Arc<Node>> {
        let address = beside(&from.address, host, port)?;
        let at = self.node_at(from.site, &address)?;
        let site = &self.sites[usize::from(from.site)];
        let mut map = site.map.write().unwrap_or_else(PoisonError::into_inner);
        if !asking && map.len() > 1 {
            map[usize::from(slot_of_tag(home.tag))] = at as u16;
            site.unsure.store(true, Relaxed);
        }
        drop(map);
        Some(Arc::clone(&self.nodes()[at]))
    }

    /// Something was unexpected at this home: the map is fetched soon.
    pub(crate) fn doubt(&self, home: Home) {
        if let Some(site) = self.sites.get(usize::from(home.site)) {
            site.unsure.store(true, Relaxed);
        }
    }

    /// Learns the nodes of all sites.
    ///
    /// # Errors
    /// The address that was asked last of a site none of whose nodes answers.
    pub(crate) fn learn(self: &Arc<Self>) -> Result<(), (Address, LinkError)> {
        for at in 0..self.sites.len() {
            self.fetch_map(at)?;
        }
        Ok(())
    }

    /// Fetches maps that are in doubt or old. At most one try for each site.
    pub(crate) fn refresh(self: &Arc<Self>) {
        let now = self.rules.clock.now();
        for (at, site) in self.sites.iter().enumerate() {
            let mut refreshed_at = lock(&site.refreshed_at);
            let age = now.saturating_sub(*refreshed_at);
            let is_due = age >= REFRESH_MAX || (site.unsure.load(Relaxed) && age >= REFRESH_MIN);
            if is_due && matches!(site.endpoint, Endpoint::Cluster(_)) {
                *refreshed_at = now;
                drop(refreshed_at);
                site.unsure.store(false, Relaxed);
                if self.fetch_map(at).is_err() {
                    site.unsure.store(true, Relaxed);
                }
            }
        }
    }

    fn fetch_map(self: &Arc<Self>, at: usize) -> Result<(), (Address, LinkError)> {
        let site = &self.sites[at];
        let seeds = match &site.endpoint {
            Endpoint::Server(address) => {
                let node = self.node_at(at as u8, address);
                let mut map = site.map.write().unwrap_or_else(PoisonError::into_inner);
                map[0] = node.map_or(NOBODY, |node| node as u16);
                return Ok(());
            }
            Endpoint::Cluster(seeds) => seeds,
        };
        let known = self.nodes();
        let known = known
            .iter()
            .filter(|node| usize::from(node.site) == at && !node.is_open());
        let mut asked: Vec<Address> = known.map(|node| node.address.clone()).collect();
        asked.extend(seeds.iter().cloned());
        let mut failed = (seeds[0].clone(), LinkError::Down);
        for address in asked {
            match self.ask_for_map(&address) {
                Ok(runs) => {
                    self.take_map(at, &runs);
                    return Ok(());
                }
                Err(error) => failed = (address, error),
            }
        }
        Err(failed)
    }

    /// Asks on a connection of its own, which a node that hangs may have for a
    /// while.
    fn ask_for_map(&self, address: &Address) -> Result<Vec<(u16, u16, Address)>, LinkError> {
        let within = self.rules.timeouts.connect;
        let mut link = self.network.connect(address, within)?;
        link.send(&[Command::ClusterSlots])?;
        let reply = link.receive(within)?;
        slot_runs(&reply, address).ok_or_else(|| LinkError::unexpected(&reply))
    }

    fn take_map(self: &Arc<Self>, at: usize, runs: &[(u16, u16, Address)]) {
        let nodes: Vec<Option<usize>> = runs
            .iter()
            .map(|(_, _, address)| self.node_at(at as u8, address))
            .collect();
        let mut map = self.sites[at]
            .map
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        map.fill(NOBODY);
        for ((first, last, _), node) in runs.iter().zip(nodes) {
            let node = node.map_or(NOBODY, |node| node as u16);
            map[usize::from(*first)..=usize::from(*last)].fill(node);
        }
    }

    /// Has each node do a chore on its copies.
    pub(crate) fn submit_chores(&self, chore: Chore, copies: Vec<(SegmentId, Home)>) {
        let mut by_node: Vec<Vec<(SegmentId, Home)>> = Vec::new();
        for (id, home) in copies {
            if let Some(at) = self.route_index(home) {
                if by_node.len() <= at {
                    by_node.resize_with(at + 1, Vec::new);
                }
                by_node[at].push((id, home));
            }
        }
        let nodes = self.nodes();
        for (at, mut items) in by_node.into_iter().enumerate() {
            items.sort_by_key(|(_, home)| home.tag);
            for items in items.chunks(CHORE_MAX) {
                let job = Job::new(Work::Chore(chore, items.to_vec()));
                // A chore is taken or left to the lease, never handed back.
                let _ = nodes[at].submit(job, Duration::ZERO);
            }
        }
    }

    /// Has the keys go that mark servers.
    pub(crate) fn unmark(&self) {
        let marks = std::mem::take(&mut *lock(&self.marks)).into_iter();
        self.submit_chores(
            Chore::Unlink,
            marks.map(|home| (SegmentId::MARK, home)).collect(),
        );
    }

    /// Runs every node in this thread until no job is left, at most so often:
    /// for simulations, which have no threads.
    pub(crate) fn pump(self: &Arc<Self>) {
        for _ in 0..64 {
            let nodes = self.nodes();
            for (at, node) in nodes.iter().enumerate() {
                self.turn(at, node);
            }
            if !nodes.iter().any(|node| node.has_jobs()) {
                return;
            }
        }
    }
}

/// Joins a thread; one that does not end in time is left to its own end.
pub(crate) fn join_until(thread: JoinHandle<()>, until: Instant) {
    while !thread.is_finished() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    if thread.is_finished() {
        let _ = thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_may_be_sent_nobody_is_asked_whoever_names_it() {
        use crate::config::{Durability, RemoteConfig};
        use crate::simulated::SimulatedNetwork;
        use crate::tier::RemoteTier;

        let network = SimulatedNetwork::new(1, 1, Duration::from_micros(1));
        let endpoint = Endpoint::Server(SimulatedNetwork::address(0));
        let mut config = RemoteConfig::new(vec![endpoint], Durability::Disk);
        config.plaintext_allowed = true;
        let tier = RemoteTier::over(config, Arc::new(network.clone()), network.clock()).unwrap();
        let fleet = &tier.core().fleet;
        let at = |host: &str, tls| Address::Tcp {
            host: host.to_owned(),
            port: 1,
            tls,
        };
        let reach = |plaintext, off_host| {
            *lock(&fleet.reach) = Reach {
                plaintext,
                off_host,
            };
        };
        reach(false, true);
        assert_eq!(fleet.node_at(0, &at("10.0.0.1", false)), None);
        assert_eq!(fleet.out_of_reach(), Some(at("10.0.0.1", false)));
        assert!(fleet.node_at(0, &at("10.0.0.1", true)).is_some());
        assert!(fleet.node_at(0, &at("127.0.0.1", false)).is_some());
        fleet.stay_on_host();
        assert_eq!(fleet.node_at(0, &at("10.0.0.1", true)), None);
        assert!(fleet.node_at(0, &at("127.0.0.2", false)).is_some());
    }

    #[test]
    fn each_of_a_thousand_masters_is_written_to() {
        use zcache::tier::{Tier, TierError, TierWrite};

        use crate::config::{Durability, RemoteConfig};
        use crate::simulated::SimulatedNetwork;
        use crate::tier::RemoteTier;

        const MASTERS: usize = 1000;
        let network = SimulatedNetwork::new(1, MASTERS, Duration::from_micros(1));
        network.cluster();
        let seeds = (0..3).map(SimulatedNetwork::address).collect();
        let config = RemoteConfig::new(vec![Endpoint::Cluster(seeds)], Durability::TwoCopies);
        let tier = RemoteTier::over(config, Arc::new(network.clone()), network.clock()).unwrap();
        for n in 0..MASTERS as u64 {
            let mut writes = [TierWrite {
                offset_bytes: n * 4096,
                bytes: &[1; 4096],
                result: Err(TierError::IO),
            }];
            tier.write(&mut writes);
            assert_eq!(writes[0].result, Ok(()), "block {n}");
        }
        assert!((0..MASTERS).all(|server| network.bytes(server) > 0));
    }
}
