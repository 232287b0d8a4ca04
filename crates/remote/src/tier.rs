//! The tier: what a store writes, reads and frees, in the RAM of other machines.
//!
//! Stage on the data path: the whole of a remote tier; its parts are `write`,
//! `read` and `keeper`.
//!
//! - Whatever comes back is what was written under that name, or an error.
//! - Nothing waits but a write that is to be acknowledged and a read, each for
//!   a bounded time; `free` only notes.
//! - A process forked from this one touches no connection: what they share
//!   would be read by either.
//!
//! Lock order: posts, then index. No link is used under either.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use zcache::tier::{Tier, TierError, TierRead, TierReport, TierWrite};
use zcache_sys::fork::Process;

use crate::cache::{CACHE_BYTES_MAX, Cache};
use crate::check::{Identities, check};
use crate::clock::Clock;
use crate::config::{Durability, RemoteConfig, Sealing};
use crate::endpoint::Endpoint;
use crate::error::OpenError;
use crate::fleet::{Fleet, join_until};
use crate::index::{Home, Index};
use crate::keeper::Keeper;
use crate::link::{LinkError, Network};
use crate::network::{LINK_BYTES, RedisNetwork};
use crate::node::Rules;
use crate::reach::Reach;
use crate::seal::{Seal, random};
use crate::segment::{Keys, SegmentId, UNIT_BYTES};
use crate::stats::{Counts, NodeStats, RemoteStats, counted};
use crate::write::Posts;

/// How often the keeper looks.
const TICK: Duration = Duration::from_millis(5);

/// What the tier's parts share.
pub(crate) struct Core {
    pub(crate) config: RemoteConfig,
    pub(crate) clock: Clock,
    pub(crate) seal: Seal,
    pub(crate) keys: Keys,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) index: Mutex<Index>,
    pub(crate) posts: Mutex<Posts>,
    pub(crate) cache: Mutex<Cache>,
    /// What servers would not give back when asked.
    pub(crate) undone: Mutex<Vec<(SegmentId, Home)>>,
    /// What a server was sent and said nothing of. It may take it later than it is told to
    /// give it back, from a connection that was given up, so it is told again at the end.
    pub(crate) doubtful: Mutex<Vec<(SegmentId, Home)>>,
    pub(crate) counts: Counts,
    pub(crate) next_segment: AtomicU64,
    pub(crate) ends: AtomicBool,
}

/// A tier on Valkey or Redis servers.
pub struct RemoteTier {
    core: Arc<Core>,
    keeper: Mutex<Keeper>,
    threads: Mutex<Threads>,
    /// Held for reading by each write, and for writing by the end: what is written after
    /// it would stay with the servers.
    has_ended: RwLock<bool>,
    opened_in: Process,
}

/// The threads of a tier, which start with its first write: whoever opened it may fork before.
enum Threads {
    /// There are none; [`turn`](RemoteTier::turn) does their work.
    None,
    NotStarted,
    Keeper(JoinHandle<()>),
    Ended,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RemoteTier {
    /// Connects to the servers and checks them.
    ///
    /// # Errors
    /// [`OpenError`], which says what to do.
    pub fn open(config: RemoteConfig) -> Result<RemoteTier, OpenError> {
        let (username, password) = (config.username.clone(), config.password.clone());
        let network = RedisNetwork::new(username, password, config.tls.clone());
        let tier = RemoteTier::over(config, Arc::new(network), Clock::real())?;
        *lock(&tier.threads) = Threads::NotStarted;
        Ok(tier)
    }

    /// Starts the threads, if that is not done.
    fn start(&self) -> std::io::Result<()> {
        let mut threads = lock(&self.threads);
        if !matches!(*threads, Threads::NotStarted) {
            return Ok(());
        }
        self.core.fleet.start_threads()?;
        let core = Arc::clone(&self.core);
        let run = move || {
            let mut keeper = Keeper::default();
            while !core.ends.load(Relaxed) {
                if !keeper.turn(&core) {
                    core.clock.sleep(TICK);
                }
            }
        };
        let builder = std::thread::Builder::new().name("remote".to_owned());
        *threads = Threads::Keeper(builder.spawn(run)?);
        Ok(())
    }

    /// Over any network, without threads: whoever owns it calls
    /// [`turn`](Self::turn). For simulations.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn over(
        config: RemoteConfig,
        network: Arc<dyn Network>,
        clock: Clock,
    ) -> Result<RemoteTier, OpenError> {
        validate(&config)?;
        let epoch = random().map_err(|_| OpenError::NoRandom)?;
        let keys = Keys::new(&config.prefix, &config.host, epoch);
        let rules = Rules {
            keys: keys.clone(),
            clock: clock.clone(),
            timeouts: config.timeouts,
            lease_s: config.lease.as_secs().max(1),
            window_bytes_max: config.window_bytes_max,
            waits: config.durability == Durability::Wait,
        };
        let fleet = Fleet::new(
            config.endpoints.clone(),
            Arc::new(rules),
            Arc::clone(&network),
            Reach {
                plaintext: config.plaintext_allowed,
                off_host: true,
            },
        );
        let fleet = Arc::new(fleet);
        let mut identities = Identities::default();
        // A server by itself is checked first, because its errors say more than a map's.
        for (site, endpoint) in config.endpoints.iter().enumerate() {
            if let Endpoint::Server(address) = endpoint {
                let home = Home {
                    site: site as u8,
                    tag: 0,
                };
                let trial = Some(keys.trial(home.tag));
                let identity = check(&*network, &config, address, false, trial)?;
                identities.add(address, identity)?;
            } else {
                let reached = endpoint
                    .addresses()
                    .iter()
                    .map(|address| check(&*network, &config, address, true, None));
                let mut failed = None;
                for checked in reached {
                    match checked {
                        Ok(_) => {
                            failed = None;
                            break;
                        }
                        Err(OpenError::Unreachable(address, error)) => {
                            failed = Some(OpenError::Unreachable(address, error));
                        }
                        Err(other) => return Err(other),
                    }
                }
                if let Some(error) = failed {
                    return Err(error);
                }
            }
        }
        fleet
            .learn()
            .map_err(|(address, error)| OpenError::of_link(&address, error))?;
        if let Some(address) = fleet.out_of_reach() {
            return Err(OpenError::Plaintext(address));
        }
        let nodes = fleet.nodes();
        let is_off_host = nodes.iter().any(|node| node.address.is_off_host());
        let is_sealed = config.seals(is_off_host);
        if !is_sealed && config.seal == Sealing::OffHost {
            fleet.stay_on_host();
        }
        let seal = Seal::new(epoch, is_sealed).map_err(|_| OpenError::NoRandom)?;
        let masters = fleet.masters();
        if masters.len() < config.copies() {
            return Err(OpenError::Masters(masters.len()));
        }
        for at in masters {
            let node = &nodes[at];
            if let Endpoint::Cluster(_) = config.endpoints[usize::from(node.site)] {
                let trial = Some(keys.trial(0));
                let identity = check(&*network, &config, &node.address, true, trial)?;
                identities.add(&node.address, identity)?;
            }
        }
        let core = Core {
            config,
            clock,
            seal,
            keys,
            fleet,
            index: Mutex::default(),
            posts: Mutex::default(),
            cache: Mutex::default(),
            undone: Mutex::default(),
            doubtful: Mutex::default(),
            counts: Counts::default(),
            next_segment: AtomicU64::new(1),
            ends: AtomicBool::new(false),
        };
        Ok(RemoteTier {
            core: Arc::new(core),
            keeper: Mutex::default(),
            threads: Mutex::new(Threads::None),
            has_ended: RwLock::new(false),
            opened_in: Process::this(),
        })
    }

    /// One turn of everything in the background, where no threads do it.
    pub fn turn(&self) {
        self.core.fleet.pump();
        lock(&self.keeper).turn(&self.core);
        self.core.fleet.pump();
    }

    /// After how long without an answer another copy, or another tier, is the
    /// better choice: the slowest node's 99th percentile.
    #[must_use]
    pub fn hedge_after(&self) -> Duration {
        let nodes = self.core.fleet.nodes();
        let closed = nodes.iter().filter(|node| !node.is_open());
        let hedges = closed.map(|node| node.hedge_after());
        hedges.max().unwrap_or(self.core.config.timeouts.hedge_min)
    }

    /// Half of the reads of one page are answered within this time; zero when
    /// there were none.
    #[must_use]
    pub fn read_p50(&self) -> Duration {
        let nodes = self.core.fleet.nodes();
        let measured = nodes.iter().filter(|node| !node.is_open());
        let p50s = measured.map(|node| node.latency.quantile(500));
        p50s.max().unwrap_or_default()
    }

    /// Whether any server answers.
    #[must_use]
    pub fn is_up(&self) -> bool {
        let nodes = self.core.fleet.nodes();
        self.core
            .fleet
            .masters()
            .into_iter()
            .any(|at| !nodes[at].is_open())
    }

    /// Whether peers can read nothing of what they keep.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.core.seal.is_keyed()
    }

    /// What it did and has.
    #[must_use]
    pub fn stats(&self) -> RemoteStats {
        let node_stats = |node: &Arc<crate::node::Node>| NodeStats {
            address: node.address.to_string(),
            is_open: node.is_open(),
            opened: node.opened(),
            is_full: node.is_full(),
            leaves: node.leaves(),
            p50: node.latency.quantile(500),
            p99: node.latency.quantile(990),
            reads_late: counted(&node.reads_late),
            chores_left: counted(&node.chores_left),
        };
        let nodes = self.core.fleet.nodes().iter().map(node_stats).collect();
        let counts = &self.core.counts;
        let index = lock(&self.core.index);
        RemoteStats {
            nodes,
            segments: index.segments() as u64,
            blocks: index.live_blocks() as u64,
            kept_bytes: index.bytes(),
            live_bytes: index.live_bytes(),
            queued_bytes: index.pending_bytes(),
            written: counted(&counts.written),
            posted: counted(&counts.posted),
            dropped_busy: counted(&counts.dropped_busy),
            dropped_failed: counted(&counts.dropped_failed),
            dropped_old: counted(&counts.dropped_old),
            refused: counted(&counts.refused),
            reads: counted(&counts.reads),
            reads_local: counted(&counts.reads_local),
            reads_prefetched: counted(&counts.reads_prefetched),
            reads_lost: counted(&counts.reads_lost),
            reads_failed: counted(&counts.reads_failed),
            hedged: counted(&counts.hedged),
            copies_lost: counted(&counts.copies_lost),
            blocks_lost: counted(&counts.blocks_lost),
            rewritten: counted(&counts.rewritten),
            sent_bytes: counted(&counts.sent_bytes),
        }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

/// What can be refused before anybody is asked.
fn validate(config: &RemoteConfig) -> Result<(), OpenError> {
    if config.endpoints.is_empty() || config.endpoints.len() > usize::from(u8::MAX) {
        return Err(OpenError::NoEndpoint);
    }
    for name in [&config.prefix, &config.host] {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || !name.chars().all(is_plain) {
            return Err(OpenError::Name(name.clone()));
        }
    }
    let mut addresses = config.endpoints.iter().flat_map(Endpoint::addresses);
    match addresses.find(|address| address.is_plaintext_off_host()) {
        Some(address) if !config.plaintext_allowed => Err(OpenError::Plaintext(address.clone())),
        _ => Ok(()),
    }
}

impl Core {
    pub(crate) fn new_segment(&self) -> SegmentId {
        SegmentId(self.next_segment.fetch_add(1, Relaxed))
    }

    /// Whether this many more bytes may be kept.
    pub(crate) fn has_room(&self, index: &Index, bytes: u64) -> bool {
        let max = self.config.bytes_max.unwrap_or(u64::MAX);
        index.bytes() + bytes * self.config.copies() as u64 <= max
    }
}

impl Tier for RemoteTier {
    fn write(&self, writes: &mut [TierWrite<'_>]) {
        if self.opened_in.was_forked() {
            for write in writes {
                write.result = Err(TierError::Forked);
            }
            return;
        }
        let has_ended = self.has_ended.read();
        let has_ended = has_ended.unwrap_or_else(PoisonError::into_inner);
        if *has_ended {
            for write in writes {
                write.result = Err(LinkError::Down.as_tier_error());
            }
            return;
        }
        if let Err(error) = self.start() {
            for write in writes {
                write.result = Err(TierError::from(&error));
            }
            return;
        }
        if self.core.config.posts {
            self.core.post(writes);
        } else {
            self.core.write_through(writes);
        }
    }

    fn read(&self, reads: &mut [TierRead<'_>]) {
        if self.opened_in.was_forked() {
            for read in reads {
                read.result = Err(TierError::Forked);
            }
            return;
        }
        self.core.read(reads);
    }

    fn free(&self, offset_bytes: u64, len_bytes: u64) {
        let unit = UNIT_BYTES as u64;
        if let (Ok(first), Ok(units)) = (
            u32::try_from(offset_bytes / unit),
            u32::try_from(len_bytes.div_ceil(unit)),
        ) {
            lock(&self.core.index).free(first, units);
        }
    }

    fn end(&self) {
        // In a forked process the threads are the other's, and so is what servers keep.
        if self.opened_in.was_forked() {
            return;
        }
        match std::mem::replace(&mut *lock(&self.threads), Threads::Ended) {
            Threads::Ended => return,
            Threads::None | Threads::NotStarted => {}
            Threads::Keeper(thread) => {
                self.core.ends.store(true, Relaxed);
                let until = Instant::now() + self.core.config.timeouts.end;
                join_until(thread, until);
            }
        }
        *self
            .has_ended
            .write()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.core.give_everything_back();
        self.core.fleet.end_threads();
    }

    fn reports(&self) -> Vec<TierReport> {
        vec![self.stats().report()]
    }

    fn ram_bytes(&self) -> u64 {
        let config = &self.core.config;
        let links = self.core.fleet.nodes().len() as u64 * LINK_BYTES;
        let index = lock(&self.core.index);
        let values = match config.posts {
            true => config.queue_bytes_max,
            false => index.pending_bytes(),
        };
        // Copies share their value; a link that sends it has it once more.
        let under_way = values * (1 + config.copies() as u64);
        index.ram_bytes() + CACHE_BYTES_MAX + under_way + links
    }
}

impl Drop for RemoteTier {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for RemoteTier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteTier").finish_non_exhaustive()
    }
}
