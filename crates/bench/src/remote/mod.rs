//! RAM of other machines: servers that this starts, beside the disk, over links with and without a delay.
//!
//! - A page: what one read through the tier takes, beside the bare GETRANGE of as many bytes on the same link and a read
//!   from the disk, in turns of 250.
//! - Eviction: blocks out in batches of 1 MiB until the last is acknowledged; servers on loopback.
//! - A program whose peak is four times its RAM, under `zcache run`.
//!
//! With root, servers are in a network namespace of their own; a delay is a proxy's ([`delay`]). Rounds are interleaved and
//! a ratio is formed within one round. Every byte that comes back is compared.

mod bare;
mod blocks;
mod delay;
mod eviction;
mod page;
mod program;
mod report;
mod server;

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use zcache::SwapConfig;
use zcache::tier::{ListedTier, TierSource};
use zcache_remote::{Address, Durability, Endpoint, RemoteConfig, Sealing};

use crate::host::{HostError, Interrupt, Machine, Namespace, Undo};
use crate::size::Size;
use delay::DelayedLink;
use eviction::{EvictionRun, Way};
use page::PageRun;
use program::{ProgramRun, Where};
use server::{Place, Program, Server};

/// Options of `zcache-bench remote`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Rounds of everything
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Reads of a page in each round, of each kind
    #[arg(long, default_value_t = 10_000)]
    reads: u64,
    /// Bytes that are evicted in each round
    #[arg(long, default_value = "256M")]
    evict: Size,
    /// The program's peak; its RAM is a quarter
    #[arg(long, default_value = "256M")]
    bytes: Size,
    /// Accesses of the program after it has filled its memory
    #[arg(long, default_value_t = 100_000)]
    ops: u64,
    /// Added to each round trip of a link, in microseconds
    #[arg(long, default_value = "0,200,1000", value_delimiter = ',')]
    delays: Vec<u64>,
    /// The server; without this, valkey-server or redis-server
    #[arg(long)]
    server: Option<PathBuf>,
    /// The zcache that runs the program; without this, the one beside this program
    #[arg(long)]
    zcache: Option<PathBuf>,
    /// A directory on a real disk; without this, where zcache would swap
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Keep servers on loopback, which needs no root
    #[arg(long)]
    loopback: bool,
    /// Leave the program out
    #[arg(long)]
    no_program: bool,
    /// Show in seconds that everything works; says nothing about speed
    #[arg(long)]
    quick: bool,
    /// Write every run to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Options {
    /// What is measured in the end.
    fn settled(&self) -> Options {
        let mut options = self.clone();
        if self.quick {
            options.rounds = 1;
            options.reads = 500;
            options.evict = Size(16 << 20);
            options.bytes = Size(64 << 20);
            options.ops = 2000;
        }
        options
    }
}

/// Everything that was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Runs {
    pages: Vec<PageRun>,
    evictions: Vec<EvictionRun>,
    programs: Vec<ProgramRun>,
}

impl Runs {
    fn wrong(&self) -> u64 {
        let pages: u64 = self.pages.iter().map(|run| run.wrong_pages).sum();
        let bytes: u64 = self.programs.iter().map(|run| run.report.wrong_bytes).sum();
        pages + bytes
    }
}

/// Measures; exit code 1 when anything was wrong, 2 when it could not be measured.
pub(crate) fn run(options: &Options) -> ExitCode {
    match measure(&options.settled()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(wrong) => {
            eprintln!("error: {wrong} pages or bytes were wrong");
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

pub(crate) fn failed(what: &str, why: impl Display) -> HostError {
    HostError::Command {
        line: what.to_owned(),
        detail: why.to_string(),
    }
}

/// A tier on these servers.
fn config(addresses: &[(String, u16)], durability: Durability, sealed: bool) -> RemoteConfig {
    let endpoint = |(host, port): &(String, u16)| {
        Endpoint::Server(Address::Tcp {
            host: host.clone(),
            port: *port,
            tls: false,
        })
    };
    let mut config = RemoteConfig::new(addresses.iter().map(endpoint).collect(), durability);
    config.plaintext_allowed = true;
    // As `zcache run` has it with much RAM.
    config.window_bytes_max = config.queue_bytes_max / 4;
    config.seal = match sealed {
        true => Sealing::Always,
        false => Sealing::Never,
    };
    config
}

/// Two servers and the links to them.
struct Links {
    delay_us: u64,
    addresses: Vec<(String, u16)>,
    _proxies: Vec<DelayedLink>,
}

struct Bench<'a> {
    options: &'a Options,
    interrupt: Interrupt,
    program: Program,
    disk: ListedTier,
    links: Vec<Links>,
}

/// Returns how much was wrong.
fn measure(options: &Options) -> Result<u64, HostError> {
    let machine = Machine::read();
    let interrupt = Interrupt::catch().map_err(|error| failed("signals", error))?;
    let program = Program::find(options.server.as_deref())?;
    let source = TierSource::disk(SwapConfig {
        path: options.folder.clone(),
        bytes_max: None,
    });
    let disk = source.open().map_err(|error| failed("the disk", error))?;
    let mut undo = None;
    let place = if options.loopback || !nix::unistd::geteuid().is_root() {
        Place::Loopback
    } else {
        let undo = undo.insert(Undo::open()?);
        Place::Behind(Namespace::create(undo)?)
    };
    let servers = [(); 2].map(|()| Server::start(&program, &place, &[]));
    let [first, second] = servers;
    let servers = [first?, second?];
    let mut links = Vec::new();
    for delay_us in &options.delays {
        let delay = Duration::from_micros(*delay_us);
        let proxies: Vec<DelayedLink> = match delay_us {
            0 => Vec::new(),
            _ => servers
                .iter()
                .map(|server| DelayedLink::before(&server.address, delay))
                .collect::<Result<_, _>>()?,
        };
        let direct = servers.iter().map(|server| server.address.clone());
        links.push(Links {
            delay_us: *delay_us,
            addresses: match proxies.is_empty() {
                true => direct.collect(),
                false => proxies.iter().map(|proxy| proxy.address.clone()).collect(),
            },
            _proxies: proxies,
        });
    }
    let bench = Bench {
        options,
        interrupt,
        program,
        disk,
        links,
    };
    let mut runs = Runs::default();
    let result = bench.all(&mut runs);
    print!("{}", report::markdown(&machine, &bench, &place, &runs));
    if let Some(path) = &options.json {
        let text = serde_json::json!({ "machine": machine, "runs": runs });
        std::fs::write(path, text.to_string() + "\n").map_err(HostError::file(path))?;
    }
    drop(bench);
    drop(servers);
    drop(undo);
    result?;
    Ok(runs.wrong())
}

impl Bench<'_> {
    fn all(&self, runs: &mut Runs) -> Result<(), HostError> {
        for round in 0..self.options.rounds {
            self.pages(round, &mut runs.pages)?;
            self.evictions(round, &mut runs.evictions)?;
            if !self.options.no_program {
                self.programs(round, &mut runs.programs)?;
            }
        }
        Ok(())
    }

    /// Says what is done next, unless it is not to be done.
    fn next(&self, round: u32, what: &str) -> Result<(), HostError> {
        if self.interrupt.came() {
            return Err(HostError::Interrupted);
        }
        eprintln!("round {} of {}: {what}", round + 1, self.options.rounds);
        Ok(())
    }

    fn pages(&self, round: u32, runs: &mut Vec<PageRun>) -> Result<(), HostError> {
        for links in &self.links {
            for sealed in [false, true] {
                self.next(round, &format!("a page, {} µs", links.delay_us))?;
                let disk = &*self.disk.tier;
                let measured = page::measure(&links.addresses, sealed, self.options.reads, disk)?;
                let (bare, page, disk, wrong_pages) = measured;
                runs.push(PageRun {
                    delay_us: links.delay_us,
                    sealed,
                    round,
                    bare,
                    page,
                    disk,
                    wrong_pages,
                });
            }
        }
        Ok(())
    }

    fn evictions(&self, round: u32, runs: &mut Vec<EvictionRun>) -> Result<(), HostError> {
        for way in Way::ALL {
            for sealed in [false, true] {
                if sealed && way == Way::Disk {
                    continue;
                }
                self.next(round, &format!("eviction, {}", way.name()))?;
                let bytes = self.options.evict.0;
                let measured =
                    eviction::measure(&self.program, way, sealed, bytes, &*self.disk.tier);
                runs.push(EvictionRun {
                    way,
                    sealed,
                    round,
                    mib_per_second: measured?,
                });
            }
        }
        Ok(())
    }

    fn programs(&self, round: u32, runs: &mut Vec<ProgramRun>) -> Result<(), HostError> {
        let zcache = match &self.options.zcache {
            Some(path) => path.clone(),
            None => std::env::current_exe()
                .map_err(|error| failed("zcache-bench", error))?
                .with_file_name("zcache"),
        };
        for links in &self.links {
            for place in Where::ALL {
                self.next(round, &format!("{}, {} µs", place.name(), links.delay_us))?;
                let (wall_seconds, report) = program::measure(
                    &zcache,
                    place,
                    &links.addresses,
                    self.options.bytes,
                    self.options.ops,
                    &self.interrupt,
                )?;
                runs.push(ProgramRun {
                    delay_us: links.delay_us,
                    place,
                    round,
                    wall_seconds,
                    report,
                });
            }
        }
        Ok(())
    }
}
