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
//! Lock order: worker, then any one of the others; these are never nested.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::breaker::Breaker;
use crate::clock::Clock;
use crate::config::Timeouts;
use crate::endpoint::Address;
use crate::index::Home;
use crate::latency::Latency;
use crate::link::{Command, Link, LinkError, Network, Reply};
use crate::segment::{Keys, SegmentId};

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

/// How a write ended that did not succeed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum WriteError {
    /// The server's memory is full.
    Full,
    /// No replica acknowledged in time.
    Unreplicated,
    /// The link failed; the server may have the segment.
    Link(LinkError),
    /// The server said no otherwise.
    Refused(String),
}

/// What became of one copy of a segment.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) id: SegmentId,
    pub(crate) result: Result<(), WriteError>,
}

/// Whom a write reports to.
pub(crate) type Report = Arc<dyn Fn(Done) + Send + Sync>;

/// A segment to be stored.
#[derive(Clone)]
pub(crate) struct Put {
    pub(crate) id: SegmentId,
    pub(crate) home: Home,
    pub(crate) value: Arc<Vec<u8>>,
    pub(crate) report: Report,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Chore {
    Unlink,
    Expire,
}

pub(crate) enum Work {
    Put(Put),
    Chore(Chore, Vec<(SegmentId, Home)>),
}

pub(crate) struct Job {
    pub(crate) work: Work,
    /// Redirects that it followed.
    hops: u8,
    /// Whether the slot is on its way to this node.
    asking: bool,
}

impl Job {
    pub(crate) fn new(work: Work) -> Job {
        Job {
            work,
            hops: 0,
            asking: false,
        }
    }

    fn bytes(&self) -> u64 {
        match &self.work {
            Work::Put(put) => put.value.len() as u64,
            Work::Chore(_, items) => items.len() as u64 * 64,
        }
    }

    fn fail(self, error: WriteError) {
        if let Work::Put(put) = self.work {
            (put.report)(Done {
                id: put.id,
                result: Err(error),
            });
        }
    }
}

/// What a turn of the worker found out that others must know.
pub(crate) enum Aftermath {
    /// A job belongs to another node.
    Redirected {
        job: Job,
        home: Home,
        asking: bool,
        host: String,
        port: u16,
    },
    /// A server does not have this copy any more.
    Missing(SegmentId, Home),
    /// A server would not do a chore now.
    Undone(Chore, SegmentId, Home),
    /// A server came back without what it had.
    Emptied,
    /// What a server has must go elsewhere, for its lender wants its RAM back.
    Leaves,
    /// The cluster's map may have changed.
    Unsure,
}

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

/// Commands that were sent and whose answers come.
pub(crate) struct Exchange<'a> {
    node: &'a Node,
    link: Option<Box<dyn Link>>,
    outstanding: usize,
    generation: u64,
}

// Reads.
impl Node {
    /// Sends commands on a link of the caller's own.
    pub(crate) fn begin(
        &self,
        commands: &[Command],
        within: Duration,
    ) -> Result<Exchange<'_>, LinkError> {
        if self.is_open() {
            return Err(LinkError::Down);
        }
        let (link, generation) = self.borrow(within)?;
        let mut exchange = Exchange {
            node: self,
            link: None,
            outstanding: 0,
            generation,
        };
        let mut link = match link {
            Some(link) => link,
            None => self.connect(within.max(self.rules.timeouts.hedge_min * 20))?,
        };
        if let Err(error) = link.send(commands) {
            self.broken(&error);
            return Err(error);
        }
        exchange.link = Some(link);
        exchange.outstanding = commands.len();
        Ok(exchange)
    }

    /// A link that is idle, or leave to make one.
    fn borrow(&self, within: Duration) -> Result<(Option<Box<dyn Link>>, u64), LinkError> {
        let mut readers = lock(&self.readers);
        if readers.idle.is_empty()
            && readers.lent + readers.late.len() >= READERS_MAX
            && !self.rules.clock.is_simulated()
        {
            let is_full =
                |r: &mut Readers| r.idle.is_empty() && r.lent + r.late.len() >= READERS_MAX;
            readers.waiting += 1;
            let waited = self
                .readers_changed
                .wait_timeout_while(readers, within, is_full);
            readers = waited.unwrap_or_else(PoisonError::into_inner).0;
            readers.waiting -= 1;
        }
        let link = readers.idle.pop();
        if link.is_none() && readers.lent + readers.late.len() >= READERS_MAX {
            return Err(LinkError::Busy);
        }
        readers.lent += 1;
        Ok((link, readers.generation))
    }

    fn connect(&self, within: Duration) -> Result<Box<dyn Link>, LinkError> {
        let within = within.min(self.rules.timeouts.connect);
        let link = self.network.connect(&self.address, within);
        if let Err(error) = &link {
            self.give_back();
            self.failed(error);
        }
        link
    }

    fn give_back(&self) {
        lock(&self.readers).lent -= 1;
        self.readers_changed.notify_one();
    }

    /// A lent link broke: the idle ones are as old.
    fn broken(&self, error: &LinkError) {
        {
            let mut readers = lock(&self.readers);
            readers.lent -= 1;
            readers.idle.clear();
            readers.generation += 1;
        }
        self.readers_changed.notify_one();
        self.failed(error);
    }

    fn failed(&self, _error: &LinkError) {
        let opened = lock(&self.breaker).failed(self.rules.clock.now());
        if opened {
            self.give_up_links();
        }
    }

    fn give_up_links(&self) {
        let (idle, late) = {
            let mut readers = lock(&self.readers);
            readers.generation += 1;
            (
                std::mem::take(&mut readers.idle),
                std::mem::take(&mut readers.late),
            )
        };
        drop((idle, late));
        self.nudge();
    }
}

impl Exchange<'_> {
    /// The answer to the oldest command that has none.
    pub(crate) fn next(&mut self, within: Duration) -> Result<Reply, LinkError> {
        let Some(mut link) = self.link.take() else {
            return Err(LinkError::Broken("the connection is gone".to_owned()));
        };
        match link.receive(within) {
            Ok(reply) => {
                self.outstanding -= 1;
                if self.outstanding == 0 {
                    lock(&self.node.breaker).answered();
                }
                self.link = Some(link);
                Ok(reply)
            }
            Err(LinkError::Timeout) => {
                self.node.late(link, self.outstanding, self.generation);
                Err(LinkError::Timeout)
            }
            Err(error) => {
                self.node.broken(&error);
                Err(error)
            }
        }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        let Some(link) = self.link.take() else {
            return;
        };
        let mut readers = lock(&self.node.readers);
        readers.lent -= 1;
        // With an answer outstanding it would be given to the next reader.
        if self.outstanding == 0
            && readers.generation == self.generation
            && readers.idle.len() < IDLE_MAX
        {
            readers.idle.push(link);
        }
        let is_waited_for = readers.waiting > 0;
        drop(readers);
        // Each page comes by here, and to wake nobody is a system call too.
        if is_waited_for {
            self.node.readers_changed.notify_one();
        }
    }
}

impl Node {
    fn late(&self, link: Box<dyn Link>, outstanding: usize, generation: u64) {
        self.reads_late.fetch_add(1, Relaxed);
        {
            let mut readers = lock(&self.readers);
            readers.lent -= 1;
            if outstanding == 1 && readers.generation == generation {
                readers.late.push(link);
            }
        }
        self.readers_changed.notify_one();
        if lock(&self.breaker).was_late(self.rules.clock.now()) {
            self.give_up_links();
        } else {
            self.nudge();
        }
    }
}

// The queue.
impl Node {
    /// Queues a job. One that may wait does so for room in the window; others
    /// are bounded by whoever sends them.
    ///
    /// # Errors
    /// The job, when there is no room.
    pub(crate) fn submit(&self, job: Job, may_wait: Duration) -> Result<(), Job> {
        let mut queue = lock(&self.queue);
        let max = self.rules.window_bytes_max * 4;
        if !may_wait.is_zero() && queue.bytes > max {
            if !self.rules.clock.is_simulated() {
                let is_full = |queue: &mut Queue| queue.bytes > max;
                let waited = self
                    .queue_changed
                    .wait_timeout_while(queue, may_wait, is_full);
                queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if queue.bytes > max {
                return Err(job);
            }
        }
        if let Work::Chore(_, items) = &job.work {
            if queue.chores + items.len() > CHORES_WAITING_MAX {
                self.chores_left.fetch_add(items.len() as u64, Relaxed);
                return Ok(());
            }
            queue.chores += items.len();
        }
        queue.bytes += job.bytes();
        queue.jobs.push_back(job);
        drop(queue);
        self.queue_changed.notify_all();
        Ok(())
    }

    /// Sends a job after where the cluster said it belongs.
    pub(crate) fn submit_redirected(&self, mut job: Job, asking: bool) {
        job.hops += 1;
        job.asking = asking;
        if job.hops > HOPS_MAX {
            job.fail(WriteError::Refused("redirected too often".to_owned()));
        } else if let Err(job) = self.submit(job, Duration::ZERO) {
            job.fail(WriteError::Link(LinkError::Busy));
        }
    }

    /// Whether jobs wait or are under way at a node that answers, or it is about to be
    /// known whether it does.
    pub(crate) fn is_busy(&self) -> bool {
        let is_asked = lock(&self.breaker).allows(self.rules.clock.now());
        is_asked && (self.is_open() || self.has_jobs()) || self.worker.try_lock().is_err()
    }

    /// Has the worker find out at once whether a node that is not asked answers again.
    pub(crate) fn probe_soon(&self) {
        lock(&self.breaker).probe_soon(self.rules.clock.now());
        self.nudge();
    }

    pub(crate) fn has_jobs(&self) -> bool {
        !lock(&self.queue).jobs.is_empty()
    }

    /// Has the worker look.
    pub(crate) fn nudge(&self) {
        lock(&self.queue).nudged = true;
        self.queue_changed.notify_all();
    }

    /// Waits until there is something to do, or so long.
    pub(crate) fn wait_for_work(&self, most: Duration) {
        let is_idle = |queue: &mut Queue| queue.jobs.is_empty() && !queue.nudged;
        let waited = self
            .queue_changed
            .wait_timeout_while(lock(&self.queue), most, is_idle);
        waited.unwrap_or_else(PoisonError::into_inner).0.nudged = false;
    }

    fn pop(&self) -> Option<Job> {
        let mut queue = lock(&self.queue);
        let job = queue.jobs.pop_front()?;
        queue.bytes -= job.bytes();
        if let Work::Chore(_, items) = &job.work {
            queue.chores -= items.len();
        }
        drop(queue);
        self.queue_changed.notify_all();
        Some(job)
    }
}

/// A command on its way, and whose it is.
enum Flown {
    Put(Job),
    Item(Chore, SegmentId, Home, u8),
    Items(Vec<(SegmentId, Home)>),
    Asking,
    Wait,
    Mark,
    Notice,
}

// The worker.
impl Node {
    /// Does what there is to do. `marker` gives a tag of this node's.
    pub(crate) fn turn(&self, marker: &dyn Fn() -> Option<u16>) -> Vec<Aftermath> {
        let mut worker = lock(&self.worker);
        let mut after = Vec::new();
        let now = self.rules.clock.now();
        if !lock(&self.breaker).allows(now) {
            worker.link = None;
            self.fail_all(&LinkError::Down, &mut after);
            return after;
        }
        let is_open = self.is_open();
        if (worker.link.is_none() || is_open)
            && let Err(error) = self.greet(&mut worker, marker, &mut after)
        {
            worker.link = None;
            self.failed(&error);
            self.fail_all(&error, &mut after);
            after.push(Aftermath::Unsure);
            return after;
        }
        if is_open {
            lock(&self.breaker).close();
        }
        self.hear_late_ones();
        if let Err(error) = self.work(&mut worker, &mut after) {
            worker.link = None;
            self.failed(&error);
            after.push(Aftermath::Unsure);
        }
        after
    }

    fn fail_all(&self, error: &LinkError, after: &mut Vec<Aftermath>) {
        while let Some(job) = self.pop() {
            match job.work {
                Work::Chore(chore, items) => {
                    let undone = |(id, home)| Aftermath::Undone(chore, id, home);
                    after.extend(items.into_iter().map(undone));
                }
                Work::Put(_) => job.fail(WriteError::Link(error.clone())),
            }
        }
    }

    /// Connects, and finds out whether the server still has what it was given.
    fn greet(
        &self,
        worker: &mut Worker,
        marker: &dyn Fn() -> Option<u16>,
        after: &mut Vec<Aftermath>,
    ) -> Result<(), LinkError> {
        let timeouts = &self.rules.timeouts;
        worker.link = None;
        let mut link = self.network.connect(&self.address, timeouts.connect)?;
        link.send(&[Command::Ping])?;
        match link.receive(timeouts.connect)? {
            Reply::Ok => {}
            // The server is there but not yet, or not for us.
            other => return Err(LinkError::unexpected(&other)),
        }
        if let Some(tag) = worker.marker {
            link.send(&[Command::Get(self.rules.keys.marker(tag))])?;
            if link.receive(timeouts.write)? == Reply::Nil {
                after.push(Aftermath::Emptied);
            }
        }
        if let Some(tag) = marker() {
            link.send(&[self.mark(tag)])?;
            worker.marker = (link.receive(timeouts.write)? == Reply::Ok).then_some(tag);
        }
        worker.link = Some(link);
        worker.heard_at = self.rules.clock.now();
        worker.marked_at = worker.heard_at;
        Ok(())
    }

    fn mark(&self, tag: u16) -> Command {
        let key = self.rules.keys.marker(tag);
        Command::Set(key, Arc::new(b"1".to_vec()), self.rules.lease_s)
    }

    /// Links whose answer came too late are idle again once they answered.
    fn hear_late_ones(&self) {
        let late = std::mem::take(&mut lock(&self.readers).late);
        for mut link in late {
            let heard = link.send(&[Command::Ping]);
            let heard = heard.and_then(|()| link.receive(self.rules.timeouts.read));
            if heard == Ok(Reply::Ok) {
                lock(&self.breaker).answered();
                let mut readers = lock(&self.readers);
                if readers.idle.len() < IDLE_MAX {
                    readers.idle.push(link);
                }
            } else if lock(&self.breaker).failed(self.rules.clock.now()) {
                self.give_up_links();
                return;
            }
            self.readers_changed.notify_one();
        }
    }

    fn work(&self, worker: &mut Worker, after: &mut Vec<Aftermath>) -> Result<(), LinkError> {
        let mut flight: VecDeque<Flown> = VecDeque::new();
        let mut unconfirmed: Vec<Job> = Vec::new();
        let worked = self.exchange(worker, &mut flight, &mut unconfirmed, after);
        if let Err(error) = &worked {
            for flown in flight {
                match flown {
                    Flown::Put(job) => job.fail(WriteError::Link(error.clone())),
                    Flown::Item(chore, id, home, _) => {
                        after.push(Aftermath::Undone(chore, id, home));
                    }
                    Flown::Items(items) => {
                        let undone = |(id, home)| Aftermath::Undone(Chore::Unlink, id, home);
                        after.extend(items.into_iter().map(undone));
                    }
                    Flown::Asking | Flown::Wait | Flown::Mark | Flown::Notice => {}
                }
            }
            for job in unconfirmed {
                job.fail(WriteError::Link(error.clone()));
            }
        }
        worked
    }

    fn exchange(
        &self,
        worker: &mut Worker,
        flight: &mut VecDeque<Flown>,
        unconfirmed: &mut Vec<Job>,
        after: &mut Vec<Aftermath>,
    ) -> Result<(), LinkError> {
        let timeouts = &self.rules.timeouts;
        let mut bytes = 0;
        loop {
            let mut batch = Vec::new();
            // With replicas to wait for, one batch at a time is confirmed.
            while bytes < self.rules.window_bytes_max
                && (!self.rules.waits || flight.is_empty() || !batch.is_empty())
            {
                let Some(job) = self.pop() else { break };
                bytes += job.bytes();
                self.encode(job, &mut batch, flight);
            }
            self.add_mark(worker, &mut batch, flight);
            if !batch.is_empty() && self.notice_is_due(worker) {
                batch.push(self.ask_for_notice());
                flight.push_back(Flown::Notice);
            }
            if self.rules.waits
                && flight.iter().any(|flown| matches!(flown, Flown::Put(_)))
                && !batch.is_empty()
            {
                let millis = timeouts.write.as_millis() as u64 / 2;
                batch.push(Command::Wait(1, millis.max(1)));
                flight.push_back(Flown::Wait);
            }
            let Some(link) = worker.link.as_mut() else {
                return Err(LinkError::Down);
            };
            if !batch.is_empty() {
                link.send(&batch)?;
            }
            if flight.is_empty() {
                return self.ask_whether_there(worker, after);
            }
            let reply = link.receive(timeouts.write)?;
            worker.heard_at = self.rules.clock.now();
            let Some(flown) = flight.pop_front() else {
                return Ok(());
            };
            bytes -= match &flown {
                Flown::Put(job) => job.bytes(),
                Flown::Item(..) => 64,
                Flown::Items(items) => items.len() as u64 * 64,
                Flown::Asking | Flown::Wait | Flown::Mark | Flown::Notice => 0,
            };
            self.landed(flown, reply, unconfirmed, worker, after);
        }
    }

    fn notice_is_due(&self, worker: &mut Worker) -> bool {
        let now = self.rules.clock.now();
        let is_due = now >= worker.noticed_at + NOTICE_PERIOD;
        if is_due {
            worker.noticed_at = now;
        }
        is_due
    }

    fn ask_for_notice(&self) -> Command {
        Command::Get(self.rules.keys.notice())
    }

    /// Only a notice is one: a cluster has none, and may say that the key is elsewhere.
    fn noticed(&self, reply: &Reply, after: &mut Vec<Aftermath>) {
        let leaves = matches!(reply, Reply::Bytes(_));
        self.leaves.store(leaves, Relaxed);
        if leaves {
            after.push(Aftermath::Leaves);
        }
    }

    fn ask_whether_there(
        &self,
        worker: &mut Worker,
        after: &mut Vec<Aftermath>,
    ) -> Result<(), LinkError> {
        let now = self.rules.clock.now();
        let Some(link) = worker.link.as_mut() else {
            return Ok(());
        };
        if now < worker.heard_at + IDLE_PING {
            return Ok(());
        }
        link.send(&[Command::Ping, self.ask_for_notice()])?;
        let there = link.receive(self.rules.timeouts.read)?;
        if there != Reply::Ok {
            return Err(LinkError::unexpected(&there));
        }
        let notice = link.receive(self.rules.timeouts.read)?;
        worker.heard_at = self.rules.clock.now();
        worker.noticed_at = worker.heard_at;
        lock(&self.breaker).answered();
        self.noticed(&notice, after);
        Ok(())
    }

    fn add_mark(
        &self,
        worker: &mut Worker,
        batch: &mut Vec<Command>,
        flight: &mut VecDeque<Flown>,
    ) {
        let now = self.rules.clock.now();
        let third = Duration::from_secs(self.rules.lease_s) / 3;
        if let Some(tag) = worker.marker
            && now >= worker.marked_at + third
        {
            batch.push(self.mark(tag));
            flight.push_back(Flown::Mark);
            worker.marked_at = now;
        }
    }

    fn encode(&self, job: Job, batch: &mut Vec<Command>, flight: &mut VecDeque<Flown>) {
        let keys = &self.rules.keys;
        if let Work::Put(put) = &job.work {
            if job.asking {
                batch.push(Command::Asking);
                flight.push_back(Flown::Asking);
            }
            let key = keys.segment(put.home.tag, put.id);
            batch.push(Command::Set(
                key,
                Arc::clone(&put.value),
                self.rules.lease_s,
            ));
            flight.push_back(Flown::Put(job));
            return;
        }
        let Work::Chore(chore, items) = job.work else {
            return;
        };
        // Keys of one tag are in one slot, and of a server by itself all are of one tag.
        let one_tag = items.windows(2).all(|pair| pair[0].1 == pair[1].1);
        if chore == Chore::Unlink && one_tag && !job.asking {
            let names = items.iter().map(|(id, home)| keys.segment(home.tag, *id));
            batch.push(Command::Unlink(names.collect()));
            flight.push_back(match items.as_slice() {
                [(id, home)] => Flown::Item(chore, *id, *home, job.hops),
                _ => Flown::Items(items),
            });
            return;
        }
        for (id, home) in items {
            if job.asking {
                batch.push(Command::Asking);
                flight.push_back(Flown::Asking);
            }
            let key = keys.segment(home.tag, id);
            batch.push(match chore {
                Chore::Unlink => Command::Unlink(vec![key]),
                Chore::Expire => Command::Expire(key, self.rules.lease_s),
            });
            flight.push_back(Flown::Item(chore, id, home, job.hops));
        }
    }

    fn landed(
        &self,
        flown: Flown,
        reply: Reply,
        unconfirmed: &mut Vec<Job>,
        worker: &mut Worker,
        after: &mut Vec<Aftermath>,
    ) {
        let redirect = reply.redirect();
        match flown {
            Flown::Put(job) => {
                let Work::Put(put) = &job.work else { return };
                let home = put.home;
                match (reply, redirect) {
                    (_, Some((asking, host, port))) => after.push(Aftermath::Redirected {
                        job,
                        home,
                        asking,
                        host,
                        port,
                    }),
                    (Reply::Ok, _) if self.rules.waits => unconfirmed.push(job),
                    (Reply::Ok, _) => (put.report)(Done {
                        id: put.id,
                        result: Ok(()),
                    }),
                    (Reply::Refused { code, .. }, _) if code == "OOM" => {
                        *lock(&self.full_until) = self.rules.clock.now() + FULL_WAIT;
                        job.fail(WriteError::Full);
                    }
                    (reply, _) => {
                        after.push(Aftermath::Unsure);
                        job.fail(WriteError::Refused(
                            LinkError::unexpected(&reply).to_string(),
                        ));
                    }
                }
            }
            Flown::Wait => {
                let replicated = matches!(reply, Reply::Int(replicas) if replicas >= 1);
                for job in std::mem::take(unconfirmed) {
                    let Work::Put(put) = &job.work else { continue };
                    let result = match replicated {
                        true => Ok(()),
                        false => Err(WriteError::Unreplicated),
                    };
                    (put.report)(Done { id: put.id, result });
                }
            }
            Flown::Item(chore, id, home, hops) => match (chore, reply, redirect) {
                (_, _, Some((asking, host, port))) => after.push(Aftermath::Redirected {
                    job: Job {
                        work: Work::Chore(chore, vec![(id, home)]),
                        hops,
                        asking: false,
                    },
                    home,
                    asking,
                    host,
                    port,
                }),
                (Chore::Expire, Reply::Int(0), _) => after.push(Aftermath::Missing(id, home)),
                (_, Reply::Refused { .. }, _) => after.push(Aftermath::Undone(chore, id, home)),
                _ => {}
            },
            Flown::Notice => self.noticed(&reply, after),
            Flown::Mark if reply != Reply::Ok => worker.marker = None,
            // Of one slot: each is followed by itself where that has moved.
            Flown::Items(items) if matches!(reply, Reply::Refused { .. }) => {
                let undone = |(id, home)| Aftermath::Undone(Chore::Unlink, id, home);
                after.extend(items.into_iter().map(undone));
            }
            Flown::Items(_) | Flown::Asking | Flown::Mark => {}
        }
    }
}
