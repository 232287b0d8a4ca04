//! One server: connections for reads, one for writes, the jobs that wait, and
//! whether it is asked at all.
//!
//! Stage on the data path: between the tier and a link. A reader talks on a
//! link of its own, in its own thread, and so overtakes whatever is written.
//! Writes and chores go through a queue to the node's worker, one turn at a
//! time, with at most a window of bytes under way.
//!
//! - `idle + lent + late <= READERS_MAX`.
//! - A link with an answer outstanding is never lent: it is late, and comes
//!   back when the worker has heard from it.
//! - Every job is reported once, done or failed.
//!
//! - `jobs`: what is asked for, and reports
//! - `reads`, `queue`, `worker`: the ways of a read, of a job, and of what is done with it
//!
//! Lock order: worker, then any one of the others; these are never nested.

mod jobs;
mod queue;
mod reads;
mod worker;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::breaker::Breaker;
use crate::clock::Clock;
use crate::config::Timeouts;
use crate::endpoint::Address;
use crate::latency::Latency;
use crate::link::{Link, Network};
use crate::segment::Keys;

pub(crate) use jobs::{Aftermath, Chore, Done, Job, Put, Report, Work, WriteError};
pub(crate) use reads::Exchange;

/// Connections for reads.
const READERS_MAX: usize = 16;

/// Connections that a tier has to one server, at most: those, and one for writes.
pub const LINKS_MAX: usize = READERS_MAX + 1;

/// Idle ones that are kept.
const IDLE_MAX: usize = 8;

/// Segments of one chore.
pub(crate) const CHORE_MAX: usize = 256;

/// Segments in chores that wait; what is more is left to the lease.
const CHORES_WAITING_MAX: usize = 1 << 18;

/// How often a job follows a redirect.
const HOPS_MAX: u8 = 5;

/// Answers before the hedge follows the measured times.
const SAMPLES_MIN: u32 = 64;

/// The hedge before that.
const HEDGE_UNMEASURED: Duration = Duration::from_millis(20);

/// After how long without a word the worker asks whether the node is there.
const IDLE_PING: Duration = Duration::from_secs(1);

/// How often it is asked for a notice.
const NOTICE_PERIOD: Duration = Duration::from_secs(1);

/// How long a full node is not given more.
const FULL_WAIT: Duration = Duration::from_millis(500);

/// What all nodes of a tier share.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) keys: Keys,
    pub(crate) clock: Clock,
    pub(crate) timeouts: Timeouts,
    pub(crate) lease_s: u64,
    pub(crate) window_bytes_max: u64,
    /// Whether a replica has to acknowledge each write.
    pub(crate) waits: bool,
}

pub(crate) struct Node {
    pub(crate) address: Address,
    pub(crate) site: u8,
    rules: Arc<Rules>,
    network: Arc<dyn Network>,
    readers: Mutex<Readers>,
    readers_changed: Condvar,
    queue: Mutex<Queue>,
    queue_changed: Condvar,
    worker: Mutex<Worker>,
    breaker: Mutex<Breaker>,
    full_until: Mutex<Duration>,
    pub(crate) latency: Latency,
    pub(crate) reads_late: AtomicU64,
    pub(crate) chores_left: AtomicU64,
    /// Whether it has a notice: its lender wants its RAM back.
    leaves: AtomicBool,
}

#[derive(Default)]
struct Readers {
    idle: Vec<Box<dyn Link>>,
    late: Vec<Box<dyn Link>>,
    lent: usize,
    /// Threads that wait for a link.
    waiting: usize,
    /// Grows when all links are given up, so that lent ones do not come back.
    generation: u64,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: u64,
    chores: usize,
    /// Whether the worker is to look, though no job waits.
    nudged: bool,
}

#[derive(Default)]
struct Worker {
    link: Option<Box<dyn Link>>,
    heard_at: Duration,
    /// The tag of the key that tells whether the server was emptied.
    marker: Option<u16>,
    marked_at: Duration,
    noticed_at: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    pub(crate) fn new(
        address: Address,
        site: u8,
        rules: Arc<Rules>,
        network: Arc<dyn Network>,
    ) -> Node {
        Node {
            address,
            site,
            rules,
            network,
            readers: Mutex::default(),
            readers_changed: Condvar::new(),
            queue: Mutex::default(),
            queue_changed: Condvar::new(),
            worker: Mutex::default(),
            breaker: Mutex::new(Breaker::new()),
            full_until: Mutex::default(),
            latency: Latency::new(),
            reads_late: AtomicU64::new(0),
            chores_left: AtomicU64::new(0),
            leaves: AtomicBool::new(false),
        }
    }

    /// Whether its lender wants its RAM back.
    pub(crate) fn leaves(&self) -> bool {
        self.leaves.load(Relaxed)
    }

    pub(crate) fn is_open(&self) -> bool {
        lock(&self.breaker).is_open()
    }

    pub(crate) fn opened(&self) -> u64 {
        lock(&self.breaker).opened
    }

    /// How long it has not been asked.
    pub(crate) fn away_for(&self, now: Duration) -> Duration {
        let since = lock(&self.breaker).open_since();
        since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// Whether its memory was full a moment ago.
    pub(crate) fn is_full(&self) -> bool {
        self.rules.clock.now() < *lock(&self.full_until)
    }

    /// After how long without an answer another copy is the better choice.
    pub(crate) fn hedge_after(&self) -> Duration {
        if self.latency.samples() < SAMPLES_MIN {
            return HEDGE_UNMEASURED.max(self.rules.timeouts.hedge_min);
        }
        let p99 = self.latency.quantile(990);
        p99.clamp(
            self.rules.timeouts.hedge_min,
            self.rules.timeouts.read.max(self.rules.timeouts.hedge_min),
        )
    }
}
