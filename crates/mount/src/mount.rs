//! A mount from its beginning to its end.
//!
//! Stage: around everything. The calling thread mounts, then waits for signals,
//! keeps the budget, and takes the mount away; workers serve meanwhile.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use rustix::fs::{Mode, OFlags};
use zcache::{Chooser, Event, recompress_when_idle};
use zcache_sys::process::{Signals, block_signals};

use crate::budget::{self, Budget};
use crate::cache::Cache;
use crate::config::{MountConfig, RAM_BYTES_MIN, Transport};
use crate::crew::Crew;
use crate::daemon::system_ram_bytes;
use crate::device::Device;
use crate::error::MountError;
use crate::guard::Guard;
use crate::idle::Idle;
use crate::inodes::Inodes;
use crate::limits;
use crate::mountpoint;
use crate::report::MountStats;
use crate::ringworker::{self, Ring, RingWorker};
use crate::serve::Filesystem;
use crate::session::{self, Offer, Transfer};
use crate::watch::Watch;
use crate::worker::{Requests, Worker};

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;
const SIGUSR1: i32 = 10;
const SIGTERM: i32 = 15;

/// Writes a line to standard error, whose absence is no reason to stop.
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "zcache: {}", format_args!($($arg)*));
    }};
}

/// Mounts and serves until the mount is gone: by `zcache umount` or umount(8),
/// or by SIGTERM, SIGINT or SIGHUP. `mounted` is called once the tree is there.
///
/// # Errors
/// [`MountError`] when it could not be mounted.
pub fn mount(config: &MountConfig, mounted: impl FnOnce()) -> Result<(), MountError> {
    let mut serving = Serving::begin(config)?;
    mounted();
    serving.wait();
    Ok(())
}

/// What serves a mount.
struct Serving {
    target: PathBuf,
    stats: Option<PathBuf>,
    /// What the file gets, by the mask of who mounted.
    stats_mode: u32,
    filesystem: Arc<Filesystem>,
    requests: Arc<Requests>,
    budget: Arc<Budget>,
    /// Threads that were asked for.
    threads: usize,
    transfer: Transfer,
    signals: Signals,
    workers: Vec<JoinHandle<io::Result<()>>>,
    /// Those who read from `/dev/fuse`.
    crew: Arc<Crew>,
    /// Those of each of the kernel's queues, if requests come by io_uring.
    ring_crews: BTreeMap<u16, Crew>,
    /// Threads that serve nobody: they end when the mount is `gone`.
    helpers: Vec<JoinHandle<()>>,
    gone: Arc<AtomicBool>,
    /// Workers whose rings the kernel has; with one missing, its queue may have
    /// nobody.
    ring_workers: Vec<JoinHandle<io::Result<()>>>,
    /// Of the device that the mount is to the kernel.
    number: u32,
    _guard: Option<Guard>,
}

impl Serving {
    fn begin(config: &MountConfig) -> Result<Serving, MountError> {
        let system = |what| move |error| MountError::System { what, error };
        let threads = threads(config)?;
        limits::raise()?;
        // What a thread used for a moment must not count for ever.
        zcache_sys::memory::return_freed_blocks();
        let (source, target) = mountpoint::resolve(config)?;
        let cache = Cache::open(config).map_err(MountError::Store)?;
        let inodes = open_source(&source, config.ram_bytes).map_err(|error| MountError::Path {
            role: "SOURCE",
            path: source.clone(),
            error,
        })?;
        let watch = match config.watch {
            // Where it cannot be had, attributes are all that there is.
            true => inodes.watch().ok().map(Watch::new),
            false => None,
        };
        let filesystem = Arc::new(Filesystem::new(inodes, cache, watch));
        // Files get the mode that was asked for less the asker's mask.
        let umask = rustix::process::umask(Mode::empty());
        let _ = block_signals();
        let signals = Signals::new().map_err(system("signals"))?;
        let device = Device::open().map_err(MountError::Device)?;
        mountpoint::mount(&device, &source, &target, config.flags)?;
        let number = match number_of(&source, &target) {
            Ok(number) => number,
            Err(error) => {
                let _ = mountpoint::detach(&target, true);
                return Err(error);
            }
        };
        filesystem.inodes.mounted_as(number);
        let begun = Serving {
            target,
            stats: config.stats.clone(),
            stats_mode: 0o666 & !umask.as_raw_mode(),
            filesystem,
            requests: Arc::default(),
            budget: Arc::new(Budget::new(config.ram_bytes)),
            threads,
            // Each processor has a ring of its own, if there are rings.
            transfer: Transfer::new(config.ram_bytes, threads.max(processors())),
            signals,
            workers: Vec::new(),
            crew: Arc::new(Crew::new(threads, 1, config.ram_bytes)),
            ring_crews: BTreeMap::new(),
            helpers: Vec::new(),
            gone: Arc::default(),
            ring_workers: Vec::new(),
            number,
            // Where there can be none, it is needed in the rarest cases only.
            _guard: Guard::start(&config.guard, number).ok(),
        };
        begun.start(device, config)
    }

    /// Makes the mount live; on failure it is taken away again.
    fn start(mut self, device: Device, config: &MountConfig) -> Result<Serving, MountError> {
        match self.answer_and_serve(device, config) {
            Ok(()) => {
                // Slower sweeps are no reason not to mount.
                let _ = mountpoint::widen_readahead(self.number, self.transfer);
                self.budget.enforce(&self.filesystem.cache);
                Ok(self)
            }
            Err(error) => {
                let _ = mountpoint::detach(&self.target, true);
                Err(error)
            }
        }
    }

    fn answer_and_serve(&mut self, device: Device, config: &MountConfig) -> Result<(), MountError> {
        let offer = session::greet(&device)?;
        let rings = rings(&device, &offer, config, self.transfer, self.threads)?;
        let watched = self.filesystem.watch.is_some();
        offer.accept(&device, self.transfer, !rings.is_empty(), watched)?;
        let by_ring = !rings.is_empty();
        let failed = |error| MountError::System {
            what: "the threads that serve the mount",
            error,
        };
        let spare = device.another().map_err(failed)?;
        self.filesystem.kernel.get_or_init(|| spare);
        let threads = match self.start_rings(rings).map_err(failed)? {
            // What does not come by ring is little.
            None if by_ring => 1,
            Some(refused) if config.transport == Transport::Uring => {
                return Err(MountError::Rings(refused));
            }
            // The kernel has gone back to the device.
            _ => self.threads,
        };
        self.crew = Arc::new(Crew::new(threads, 1, config.ram_bytes));
        self.start_helpers(config).map_err(failed)?;
        self.start_workers(device, threads).map_err(failed)
    }

    /// Starts a thread for each ring, and gives a refusal of the kernel's.
    fn start_rings(&mut self, rings: Vec<Ring>) -> io::Result<Option<io::Error>> {
        let spares = rings.iter().filter(|ring| ring.extra).count();
        // What a read brings, and what is kept of it.
        self.budget
            .expect_spares((spares * 2 * self.transfer.bytes()) as u64);
        let queues = rings.iter().filter_map(|ring| ring.queue);
        let queues: std::collections::BTreeSet<u16> = queues.collect();
        let each = ringworker::each(self.threads, queues.len()) + spares / queues.len().max(1);
        let crew = || Crew::new(each, ringworker::PER_HELD_UP, self.budget.ram_bytes());
        self.ring_crews = queues.into_iter().map(|queue| (queue, crew())).collect();
        self.start_more_rings(rings)
    }

    fn start_more_rings(&mut self, rings: Vec<Ring>) -> io::Result<Option<io::Error>> {
        let (registered, answers) = std::sync::mpsc::channel();
        // Processors that may still come share a worker that nobody looks after.
        let later = Crew::new(1, 0, 0);
        for ring in rings {
            let crew = ring.queue.and_then(|queue| self.ring_crews.get(&queue));
            let crew = crew.unwrap_or(&later);
            let worker =
                RingWorker::new(ring, &self.filesystem, &self.requests, self.transfer, crew);
            let number = self.ring_workers.len();
            self.ring_workers
                .push(worker.start(number, registered.clone())?);
        }
        drop(registered);
        Ok(answers.iter().find_map(Result::err))
    }

    /// Has as many workers more as are held up.
    fn replace_held_up(&mut self) {
        for worker in self.workers.extract_if(.., |one| one.is_finished()) {
            tell(worker);
        }
        for _ in 0..self.crew.wanted() {
            let more = self.filesystem.kernel.get().map(Device::another);
            let Some(Ok(device)) = more else { break };
            let worker = self.worker(device, true);
            match worker.start(self.workers.len()) {
                Ok(thread) => self.workers.push(thread),
                Err(_) => break,
            }
        }
        let mut rings = Vec::new();
        for (queue, crew) in &self.ring_crews {
            let device = self.filesystem.kernel.get();
            let make = |_| ringworker::extra_ring(device?, *queue, self.transfer).ok();
            rings.extend((0..crew.wanted()).filter_map(make));
        }
        // Where the kernel takes no more, there are as many as there can be.
        let _ = self.start_more_rings(rings);
    }

    fn start_workers(&mut self, device: Device, threads: usize) -> io::Result<()> {
        for number in 1..threads {
            let worker = self.worker(device.another()?, false);
            self.workers.push(worker.start(number)?);
        }
        let worker = self.worker(device, false);
        self.workers.push(worker.start(0)?);
        Ok(())
    }

    fn worker(&self, device: Device, extra: bool) -> Worker {
        Worker::new(
            device,
            &self.filesystem,
            &self.requests,
            self.transfer,
            &self.crew,
            extra,
        )
    }

    fn start_helpers(&mut self, config: &MountConfig) -> io::Result<()> {
        let filesystem = Arc::clone(&self.filesystem);
        self.help("tell", move || filesystem.keep_telling())?;
        let (filesystem, gone) = (Arc::clone(&self.filesystem), Arc::clone(&self.gone));
        self.help("watch", move || filesystem.keep_watching(&gone))?;
        let (filesystem, gone) = (Arc::clone(&self.filesystem), Arc::clone(&self.gone));
        // Nobody waits for it: the source may not answer.
        let look = thread::Builder::new().name("zcache-look".to_owned());
        look.spawn(move || filesystem.keep_looking(&gone))?;
        if !config.tiers.is_empty() {
            let tiers_failed = AtomicBool::new(false);
            let store = &self.filesystem.cache.store;
            store.on_event(move |event| say_of_tiers(event, &tiers_failed));
            let filesystem = Arc::clone(&self.filesystem);
            self.help("ahead", move || filesystem.keep_writing_ahead())?;
        }
        let percent = config.cold_cpu_percent;
        if percent == 0 {
            return Ok(());
        }
        let idle = Idle {
            filesystem: Arc::clone(&self.filesystem),
            requests: Arc::clone(&self.requests),
            budget: Arc::clone(&self.budget),
            gone: Arc::clone(&self.gone),
        };
        self.help("cold", move || {
            if let Err(error) = recompress_when_idle(&idle, percent) {
                say!(
                    "cold pages keep their codec: a thread of the idle class is refused ({error})"
                );
            }
        })
    }

    fn help(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = thread::Builder::new().name(format!("zcache-{name}"));
        self.helpers.push(thread.spawn(work)?);
        Ok(())
    }

    /// Keeps the budget and minds signals until the mount is gone.
    fn wait(&mut self) {
        let mut chooser = Chooser::new();
        while !self.workers.iter().all(JoinHandle::is_finished) {
            let _ = zcache_sys::fd::wait_readable(self.signals.as_fd(), budget::PERIOD);
            while let Some(arrived) = self.signals.next() {
                self.mind(arrived.signal);
            }
            if !self.rings_are_served() {
                // Who waits for this queue would wait for ever. The mount goes
                // with this process, and they get an error.
                say!("{} is taken away", self.target.display());
                let _ = mountpoint::detach(&self.target, true);
                self.gone.store(true, Relaxed);
                self.write_stats();
                self.filesystem.cache.store.end_tiers();
                return;
            }
            self.replace_held_up();
            self.budget.enforce(&self.filesystem.cache);
            self.filesystem.keep_few_inodes();
            self.learn();
            chooser.look(&self.filesystem.cache.store);
        }
        for worker in self.workers.drain(..).chain(self.ring_workers.drain(..)) {
            tell(worker);
        }
        self.gone.store(true, Relaxed);
        self.filesystem.notices.end();
        self.filesystem.cache.ahead.end();
        for helper in self.helpers.drain(..) {
            if helper.join().is_err() {
                say!("a thread that helped the mount failed");
            }
        }
        self.write_stats();
        self.filesystem.cache.store.end_tiers();
    }

    /// Whether no thread of a ring has failed.
    fn rings_are_served(&mut self) -> bool {
        let mut served = true;
        for worker in self
            .ring_workers
            .extract_if(.., |worker| worker.is_finished())
        {
            served &= tell(worker);
        }
        served
    }

    /// Has the store do what is due for its dictionaries, within the budget.
    fn learn(&self) {
        let cache = &self.filesystem.cache;
        if let Some(bytes) = cache.store.training_due_bytes() {
            self.budget
                .within_room(cache, bytes, || cache.store.train());
        }
    }

    fn mind(&self, signal: i32) {
        match signal {
            SIGTERM | SIGINT | SIGHUP | SIGQUIT => self.leave(),
            SIGUSR1 => self.write_stats(),
            _ => {}
        }
    }

    /// Takes the mount away; files that are open stay usable until they are
    /// closed, and end the mount then.
    fn leave(&self) {
        match mountpoint::detach(&self.target, false) {
            Ok(()) => {}
            Err(MountError::Busy { .. }) => {
                say!(
                    "{} is in use; it is taken away now and ends when it is not",
                    self.target.display()
                );
                if let Err(error) = mountpoint::detach(&self.target, true) {
                    say!("{error}");
                }
            }
            Err(error) => say!("{error}"),
        }
    }

    fn write_stats(&self) {
        let Some(path) = &self.stats else {
            return;
        };
        self.budget.enforce(&self.filesystem.cache);
        let stats = MountStats::gather(&self.filesystem, &self.requests, &self.budget);
        if path.as_os_str() == "-" {
            say!("{}", stats.to_json());
        } else if let Err(error) = write_file(path, self.stats_mode, &stats.to_json()) {
            say!(
                "the statistics cannot be written to {}: {error}",
                path.display()
            );
        }
    }
}

/// Writes a file that has this mode if it is new.
fn write_file(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    options.open(path)?.write_all(text.as_bytes())
}

/// Says what a thread failed of, and whether it did not.
fn tell(worker: JoinHandle<io::Result<()>>) -> bool {
    match worker.join() {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => say!("a request could not be received or answered: {error}"),
        Err(_) => say!("a thread that served the mount failed"),
    }
    false
}

/// The rings that requests are to come by; none when they come by the device.
fn rings(
    device: &Device,
    offer: &Offer,
    config: &MountConfig,
    transfer: Transfer,
    threads: usize,
) -> Result<Vec<Ring>, MountError> {
    let made = match (config.transport, offer.has_rings()) {
        (Transport::Dev, _) | (Transport::Auto, false) => return Ok(Vec::new()),
        (Transport::Uring, false) => return Err(MountError::NoRings),
        (_, true) => match processors().max(threads) > Transfer::workers_max(config.ram_bytes) {
            // Each processor has a queue, and each queue needs its room.
            true => Err(io::ErrorKind::OutOfMemory.into()),
            false => ringworker::rings(device, transfer, threads, config.ram_bytes),
        },
    };
    match made {
        Ok(rings) => Ok(rings),
        Err(error) if config.transport == Transport::Uring => Err(MountError::Rings(error)),
        Err(_) => Ok(Vec::new()),
    }
}

/// The number of the mount that was just made, if it does not show up within its
/// source.
fn number_of(source: &Path, target: &Path) -> Result<u32, MountError> {
    let unknown = |error| MountError::System {
        what: "/proc/self/mountinfo",
        error,
    };
    let number = mountpoint::device_at(target).map_err(unknown)?;
    match mountpoint::is_within(number, source).map_err(unknown)? {
        false => Ok(number),
        true => Err(MountError::Inside {
            source: source.to_owned(),
            target: target.to_owned(),
        }),
    }
}

/// The source's root, and what is kept of inodes.
fn open_source(source: &Path, ram_bytes: u64) -> io::Result<Inodes> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(source, flags, Mode::empty())?;
    Ok(Inodes::new(root, limits::of_inodes(ram_bytes))?)
}

/// How many requests are served at once, if the budget is one: by default two
/// for each processor, so that one can wait for the source while another answers
/// from RAM.
fn threads(config: &MountConfig) -> Result<usize, MountError> {
    let (ram_bytes, machine_bytes) = (config.ram_bytes, system_ram_bytes());
    if ram_bytes < RAM_BYTES_MIN {
        return Err(MountError::RamTooSmall { ram_bytes });
    }
    if ram_bytes > machine_bytes {
        return Err(MountError::RamTooLarge {
            ram_bytes,
            machine_bytes,
        });
    }
    let threads_max = Transfer::workers_max(ram_bytes);
    match config.threads {
        None => Ok((processors() * 2).clamp(4, 16).min(threads_max)),
        Some(threads) if threads > threads_max => Err(MountError::TooManyThreads {
            threads,
            threads_max,
        }),
        Some(threads) => Ok(threads.max(1)),
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// What of the tiers is worth a line. Pages that are lost there are in the source.
fn say_of_tiers(event: &Event, failed: &AtomicBool) {
    match event {
        Event::WritebackFailed { errno } => {
            failed.store(true, Relaxed);
            say!(
                "other machines take no pages now, and those that RAM has no room for are dropped: {}",
                io::Error::from_raw_os_error(*errno)
            );
        }
        Event::WritebackResumed if failed.swap(false, Relaxed) => {
            say!("other machines take pages again");
        }
        _ => {}
    }
}
