//! A run from start to end: the processes of zcache, their threads, the
//! program's launch.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use zcache::{Store, StoreConfig};
use zcache_sys::fd::PidFd;
use zcache_sys::process::{
    self, GuardTable, Launch, LaunchError, Launched, Side, SignalMask, Signals,
};
use zcache_sys::ptrace;
use zcache_sys::seccomp::Filter;

use crate::config::{RAM_BYTES_MIN, RunConfig, StatsTarget};
use crate::error::{EXIT_OWN, StartError};
use crate::pager::{Pager, say, say_line};
use crate::paging::evict::Evictor;
use crate::paging::fault::Handler;
use crate::process::front::{self, Word};
use crate::process::tracer::{End, Tracer};
use crate::process::watch::Watch;
use crate::report;

/// Runs the program of `config` within its budget; returns the exit code that
/// this process shall end with. Must be called while the process has one thread.
#[must_use]
pub fn run(config: RunConfig) -> i32 {
    if let Err(error) = check(&config) {
        say_line(&error.to_string());
        return error.exit_code();
    }
    let mask = process::block_signals();
    match start(config, mask) {
        Ok(code) => code,
        Err(error) => {
            say!("a system call failed: {error}");
            EXIT_OWN
        }
    }
}

fn check(config: &RunConfig) -> Result<(), StartError> {
    if config.ram_bytes < RAM_BYTES_MIN {
        return Err(StartError::TooSmall {
            ram_bytes: config.ram_bytes,
            least_bytes: RAM_BYTES_MIN,
        });
    }
    if let Some(StatsTarget::File(path)) = &config.stats {
        fs::File::create(path).map_err(|error| StartError::Stats {
            path: path.clone(),
            error,
        })?;
    }
    refuse_setuid(config)
}

fn start(config: RunConfig, mask: SignalMask) -> std::io::Result<i32> {
    let signals = Signals::new()?;
    let (front_end, pager_end) = UnixStream::pair()?;
    match process::fork()? {
        Side::Parent(pager) => {
            drop(pager_end);
            Ok(front::stand(front_end, &signals, pager))
        }
        Side::Child => {
            drop(front_end);
            drop(signals);
            let front = std::os::unix::process::parent_id().cast_signed();
            std::process::exit(pager_main(config, mask, pager_end, front));
        }
    }
}

/// The pager process: pages the program, then tells the front how it ended.
fn pager_main(config: RunConfig, mask: SignalMask, mut words: UnixStream, front: i32) -> i32 {
    // What training used for a moment must not count for ever.
    zcache_sys::memory::return_freed_blocks();
    let end = match words.try_clone() {
        Ok(clone) => page(config, mask, clone, front),
        Err(error) => Err(StartError::Own(error)),
    };
    let word = match end {
        Ok(end) => end.word(),
        Err(error) => {
            say_line(&error.to_string());
            Word::Exited(error.exit_code())
        }
    };
    // The front may have left already, when the tree outlived the program.
    let _ = words.write_all(&word.encode());
    0
}

fn page(
    config: RunConfig,
    mask: SignalMask,
    mut words: UnixStream,
    front: i32,
) -> Result<End, StartError> {
    end_with_any_thread();
    process::become_subreaper().map_err(StartError::Own)?;
    process::be_silent_about_stops();
    // The guard is a child; it must not keep what the store has given up.
    zcache_sys::arena::keep_from_children();
    let cpus = process::cpus();
    let store = Store::open(StoreConfig {
        pool_bytes_max: config.ram_bytes,
        codec: config.codec,
        allocator: config.allocator,
        shards: cpus.len().next_power_of_two().clamp(1, 16),
        dictionaries: config.dictionaries,
        tiers: config.tiers.clone(),
    })
    .map_err(StartError::Store)?;
    let secret = process::secret() & !0xfff;
    let launched = launch(&config, mask, secret)?;
    // Each process of the program takes some; it has its own limit already.
    process::raise_own_descriptors();
    // The helpers' code is a file in memory.
    process::raise_limit(0, libc::RLIMIT_FSIZE, zcache_sys::servant::FILE_BYTES);
    let result = attach(config, store, secret, &launched, &cpus, front, &mut words);
    let (pager, tracer) = match result {
        Ok(parts) => parts,
        Err(error) => {
            let _ = process::kill(launched.pid, libc::SIGKILL);
            return Err(error);
        }
    };
    launched.go().map_err(StartError::Own)?;
    let end = tracer.run();
    pager.stopping.store(true, Ordering::Relaxed);
    let end = end?;
    if let Some(error) = launched.exec_error() {
        let program = pager.config.command[0].clone();
        return Err(StartError::Exec { program, error });
    }
    report::write(&pager);
    pager.store.end_tiers();
    Ok(end)
}

/// A thread that panics is missed by all others: the pager says so and ends, and
/// with it, by the guard, the program, before anything is read that is not there.
fn end_with_any_thread() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        say_line("this is a defect of zcache; please report it. The program is killed");
        std::process::abort();
    }));
}

fn launch(config: &RunConfig, mask: SignalMask, secret: u64) -> Result<Launched, StartError> {
    let text = |argument: &std::ffi::OsString| {
        CString::new(argument.as_bytes())
            .map_err(|_| StartError::Own(std::io::Error::from_raw_os_error(libc::EINVAL)))
    };
    let arguments = config
        .command
        .iter()
        .map(text)
        .collect::<Result<Vec<_>, _>>()?;
    let hidden = config.hidden_variables.iter().map(text);
    let launch = Launch {
        program: arguments[0].clone(),
        arguments,
        hidden: hidden.collect::<Result<Vec<_>, _>>()?,
        mask,
        filter: Filter::new(secret),
    };
    launch.start().map_err(|error| match error {
        LaunchError::Fork(error) => StartError::Own(error),
        LaunchError::Filter(error) => StartError::Filter(error),
    })
}

/// Seizes the program at its door and starts the pager's threads.
fn attach(
    config: RunConfig,
    store: Store,
    secret: u64,
    launched: &Launched,
    cpus: &[usize],
    front: i32,
    words: &mut UnixStream,
) -> Result<(Arc<Pager>, Rc<Tracer>), StartError> {
    process::release_standard_streams().map_err(StartError::Own)?;
    ptrace::seize(launched.pid).map_err(StartError::Attach)?;
    let guard_table = GuardTable::new().map_err(StartError::Own)?;
    let pager =
        Pager::new(config, Arc::new(store), secret, guard_table, cpus).map_err(StartError::Own)?;
    let pager = Arc::new(pager);
    let own = PidFd::open(std::process::id().cast_signed()).map_err(StartError::Own)?;
    let guard = process::start_guard(&pager.guard, &own).map_err(StartError::Own)?;
    pager.own_pids[0].store(front, Ordering::Relaxed);
    pager.own_pids[1].store(guard, Ordering::Relaxed);
    start_threads(&pager, cpus).map_err(StartError::Own)?;
    pager.tracer.receive_here().map_err(StartError::Own)?;
    let watch = Arc::new(Watch::default());
    start_watch(&pager, &watch, words.try_clone().map_err(StartError::Own)?)
        .map_err(StartError::Own)?;
    words
        .write_all(&Word::Started(launched.pid).encode())
        .map_err(StartError::Own)?;
    let clone = words.try_clone().map_err(StartError::Own)?;
    let front = (clone, front);
    let tracer = Tracer::new(Arc::clone(&pager), watch, front, own, guard, launched.pid)
        .map_err(StartError::Own)?;
    Ok((pager, tracer))
}

fn start_watch(pager: &Arc<Pager>, watch: &Arc<Watch>, front: UnixStream) -> std::io::Result<()> {
    let signals = Signals::new()?;
    let (pager, watch) = (Arc::clone(pager), Arc::clone(watch));
    thread::Builder::new()
        .name("watch".to_string())
        .stack_size(256 << 10)
        .spawn(move || watch.run(&pager, &signals, front))
        .map(drop)
}

fn start_threads(pager: &Arc<Pager>, cpus: &[usize]) -> std::io::Result<()> {
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        thread::Builder::new()
            .name(name.to_string())
            .stack_size(256 << 10)
            .spawn(work)
            .map(drop)
    };
    for (index, cpu) in cpus.iter().copied().enumerate() {
        let handler = Handler::new(Arc::clone(pager), index);
        spawn("fault", Box::new(move || handler.run(cpu)))?;
    }
    for _ in 0..cpus.len().min(4) {
        let evictor = Evictor::new(Arc::clone(pager));
        spawn("evict", Box::new(move || evictor.run()))?;
    }
    if pager.config.dictionaries {
        let training = Arc::clone(pager);
        spawn("train", Box::new(move || training.train()))?;
    }
    if pager.config.dictionaries && pager.config.cold_cpu_percent > 0 {
        let pager = Arc::clone(pager);
        spawn("cold", Box::new(move || pager.recompress()))?;
    }
    let ticking = Arc::clone(pager);
    spawn("tick", Box::new(move || ticking.tick()))
}

/// Refuses programs that change their user when executed: an unprivileged
/// tracer would take that from them, and as another user they may not be paged.
fn refuse_setuid(config: &RunConfig) -> Result<(), StartError> {
    let Some(path) = find_program(Path::new(&config.command[0])) else {
        return Ok(());
    };
    let Ok(meta) = fs::metadata(&path) else {
        return Ok(());
    };
    let set_user = meta.mode() & libc::S_ISUID != 0 && meta.uid() != process::effective_user();
    let set_group = meta.mode() & libc::S_ISGID != 0 && meta.mode() & libc::S_IXGRP != 0;
    if set_user || (set_group && process::effective_user() != 0) {
        return Err(StartError::Setuid(path.into_os_string()));
    }
    Ok(())
}

fn find_program(name: &Path) -> Option<PathBuf> {
    if name.as_os_str().as_bytes().contains(&b'/') {
        return Some(name.to_path_buf());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
