//! Files that are read again: a filesystem by itself beside the same one with `zcache mount` before it, in the same RAM.
//!
//! - Alone, the reader has a memory cgroup of the whole RAM, all of which its page cache can take. With zcache it has a cgroup
//!   of the page cache's part, and zcache the rest by `--ram`.
//! - One file of generated data, larger than the RAM. Each run begins with an empty page cache and a fresh mount: a sweep
//!   (cold), another one (which is when pages are seen again), random reads of as many pages as there are, random reads that
//!   are timed, and two sweeps that are timed.
//! - `--iops` limits the disk to so many reads a second, and to 128 KiB for each of them, for reader and zcache alike (blkio
//!   cgroup): a slow source.
//! - The second table asks what a stream costs: a working set that fits is read again and again, then a file ten times as large
//!   as what the cache holds is read once, then the working set once more. Plain LRU is run in this program over the same
//!   reads, with room for as many pages as zcache held.
//!
//! Runs are interleaved; a ratio is formed within one repeat.

mod lru;
mod mounted;
mod reader;
mod report;

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::Serialize;

use crate::host::{Cgroup, Controller, HostError, Interrupt, Machine, Throttle, Undo};
use crate::size::{MIB, Size};
use crate::workload::{PAGE_SIZE, Ratio};
use lru::Lru;
use mounted::Mounted;
use reader::Reading;
pub(crate) use reader::{Options as ReadOptions, run as read};

/// What one run of the reader may take at most.
const RUN_MAX: Duration = Duration::from_secs(900);

/// How much larger than the cache the stream is.
const STREAM_TIMES: u64 = 10;

/// Options of `zcache-bench mount`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Size of the file that is read again
    #[arg(long, default_value = "512M")]
    bytes: Size,
    /// RAM in all
    #[arg(long, default_value = "224M")]
    ram: Size,
    /// Of it, the page cache's part when zcache has the rest
    #[arg(long, default_value = "16M")]
    page_cache: Size,
    /// Runs of each contender
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// How well the data compresses under lz4: 2 or 3 to 1
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..4))]
    ratio: u32,
    /// Reads a second that the disk does at most; without it what it can
    #[arg(long)]
    iops: Option<u64>,
    /// How zcache talks with the kernel: auto, uring, dev; several are compared
    #[arg(long, default_value = "auto", value_delimiter = ',')]
    transport: Vec<String>,
    /// Leave the table of streams out
    #[arg(long)]
    no_stream: bool,
    /// A directory on a real disk
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
    /// Write every run to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Who reads how.
#[derive(Clone, Debug)]
struct Contender {
    name: String,
    /// Of `zcache mount`; `None` is the filesystem by itself.
    options: Option<[String; 4]>,
}

impl Options {
    fn contenders(&self) -> Vec<Contender> {
        let alone = Contender {
            name: "alone".into(),
            options: None,
        };
        let codecs = ["auto", "lz4", "zstd"];
        let zcaches = codecs.iter().flat_map(|codec| {
            self.transport.iter().map(move |transport| Contender {
                name: match transport.as_str() {
                    "auto" => format!("zcache-{codec}"),
                    other => format!("zcache-{codec}-{other}"),
                },
                options: Some(["--codec", codec, "--transport", transport].map(str::to_owned)),
            })
        });
        std::iter::once(alone).chain(zcaches).collect()
    }
}

/// One run of one contender.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    contender: String,
    repeat: u32,
    /// Sweep, sweep, random, timed, sweep, sweep.
    reading: Reading,
    /// What zcache said of itself at the end.
    stats: Option<serde_json::Value>,
}

/// What a stream did to a working set under one policy.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stream {
    policy: &'static str,
    /// Pages of the working set, and of the stream.
    pages: (u64, u64),
    /// The share of the working set's pages that came from RAM, before and after.
    hits: (f64, f64),
}

/// Measures; exit code 1 when a page was wrong, 2 when it could not be measured.
pub(crate) fn run(options: &Options) -> ExitCode {
    match measure(options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(wrong) => {
            eprintln!("error: {wrong} pages were wrong");
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Everything that the runs share.
struct Bench<'a> {
    options: &'a Options,
    undo: Undo,
    interrupt: Interrupt,
    controller: Controller,
    throttle: Option<Throttle>,
    folder: PathBuf,
    program: PathBuf,
}

/// Returns how many pages were wrong.
fn measure(options: &Options) -> Result<u64, HostError> {
    let machine = Machine::read();
    let failed = |error: std::io::Error| HostError::Command {
        line: "zcache-bench mount".into(),
        detail: error.to_string(),
    };
    let interrupt = Interrupt::catch().map_err(failed)?;
    let mut undo = Undo::open()?;
    let folder = options.folder.join("zcache-bench-mount");
    let throttle = match options.iops {
        Some(iops) => Some(Throttle::create(&mut undo, &options.folder, iops)?),
        None => None,
    };
    let mut bench = Bench {
        options,
        undo,
        interrupt,
        controller: Controller::find()?,
        throttle,
        program: std::env::current_exe().map_err(failed)?,
        folder: folder.clone(),
    };
    let (mut runs, mut streams) = (Vec::new(), Vec::new());
    let result = bench.all(&mut runs, &mut streams);
    drop(bench);
    // It holds generated data only.
    let _ = std::fs::remove_dir_all(&folder);
    print!("{}", report::markdown(&machine, options, &runs, &streams));
    if let Some(path) = &options.json {
        let text = serde_json::json!({ "machine": machine, "runs": runs, "streams": streams });
        std::fs::write(path, text.to_string() + "\n").map_err(HostError::file(path))?;
    }
    result?;
    Ok(runs.iter().map(|run| run.reading.wrong_pages).sum())
}

impl Bench<'_> {
    fn all(&mut self, runs: &mut Vec<Run>, streams: &mut Vec<Stream>) -> Result<(), HostError> {
        let source = self.folder.join("source");
        std::fs::create_dir_all(&source).map_err(HostError::file(&source))?;
        let file = source.join("file");
        self.make(&file, self.options.bytes.0)?;
        for repeat in 0..self.options.repeats {
            for Contender { name, options } in self.options.contenders() {
                eprintln!("repeat {} of {}: {name}", repeat + 1, self.options.repeats);
                drop_pages(&file)?;
                let (reading, stats) = self.reread(&source, options)?;
                runs.push(Run {
                    contender: name,
                    repeat,
                    reading,
                    stats,
                });
            }
        }
        if !self.options.no_stream {
            self.streams(&source, streams)?;
        }
        Ok(())
    }

    fn reread(
        &mut self,
        source: &Path,
        options: Option<[String; 4]>,
    ) -> Result<(Reading, Option<serde_json::Value>), HostError> {
        const STEPS: [&str; 6] = ["sweep", "sweep", "random", "timed", "sweep", "sweep"];
        let Options {
            ram, page_cache, ..
        } = self.options;
        let Some(options) = options else {
            return Ok((self.read(&source.join("file"), &STEPS, ram.0)?, None));
        };
        let mut mounted = self.mount(source, ram.0 - page_cache.0, &options)?;
        let reading = self.read(&mounted.target().join("file"), &STEPS, page_cache.0)?;
        let stats = mounted.stats()?;
        Ok((reading, Some(stats)))
    }

    fn mount(&self, source: &Path, ram: u64, options: &[String]) -> Result<Mounted, HostError> {
        let zcache = self.program.with_file_name("zcache");
        let mut all = vec!["--ram".to_owned(), Size(ram).to_string()];
        all.extend_from_slice(options);
        let mounted = Mounted::start(&zcache, &all, source, &self.folder)?;
        if let Some(throttle) = &self.throttle {
            throttle.add(mounted.pid())?;
        }
        Ok(mounted)
    }

    /// Runs the reader in a cgroup of its own.
    fn read(&mut self, file: &Path, steps: &[&str], ram: u64) -> Result<Reading, HostError> {
        let mark = self.undo.mark();
        let cgroup = Cgroup::create(&mut self.undo, &self.controller, Some(ram))?;
        let mut line: Vec<OsString> = vec![self.program.clone().into(), "read".into(), file.into()];
        line.extend(steps.iter().map(OsString::from));
        if let Some(throttle) = &self.throttle {
            line.extend(["--join".into(), throttle.procs().into()]);
        }
        let ended = crate::host::run(&cgroup.procs(), &line, RUN_MAX, &self.interrupt, || ());
        self.undo.undo_to(mark);
        let ended = ended?;
        serde_json::from_str(&ended.stdout).map_err(|_| HostError::Command {
            line: "zcache-bench read".into(),
            detail: format!("{:?} {}", ended.end, ended.stderr),
        })
    }

    /// What a stream costs under each policy, and would cost under plain LRU.
    fn streams(&mut self, source: &Path, streams: &mut Vec<Stream>) -> Result<(), HostError> {
        // Small, for the stream is ten times what it holds.
        let ram = 32 * MIB;
        let (set_bytes, stream_bytes) = (ram, ram * 3 * STREAM_TIMES);
        self.make(&source.join("set"), set_bytes)?;
        self.make(&source.join("stream"), stream_bytes)?;
        let pages = (
            set_bytes / PAGE_SIZE as u64,
            stream_bytes / PAGE_SIZE as u64,
        );
        let mut held = 0;
        for policy in ["seen-again", "all"] {
            eprintln!("a stream past a working set: {policy}");
            let mut mounted = self.mount(source, ram, &["--admit".into(), policy.into()])?;
            let hits = self.stream(&mut mounted)?;
            // Full of the stream's pages by now, or of as many as it took.
            held = held.max(mounted.stats()?["stored_pages"].as_u64().unwrap_or(0));
            streams.push(Stream {
                policy,
                pages,
                hits,
            });
        }
        streams.push(Stream {
            policy: "plain LRU",
            pages,
            hits: stream_past_lru(held, pages),
        });
        Ok(())
    }

    fn stream(&mut self, mounted: &mut Mounted) -> Result<(f64, f64), HostError> {
        // Next to no page cache, so that zcache is what is measured.
        let cache = 4 * MIB;
        let (set, stream) = (
            mounted.target().join("set"),
            mounted.target().join("stream"),
        );
        self.read(&set, &["shuffle", "shuffle", "shuffle"], cache)?;
        let before = self.round(mounted, &set, cache)?;
        self.read(&stream, &["sweep"], cache)?;
        let after = self.round(mounted, &set, cache)?;
        Ok((before, after))
    }

    /// Reads each page of the working set once; the share that zcache had.
    fn round(&mut self, mounted: &mut Mounted, set: &Path, cache: u64) -> Result<f64, HostError> {
        let count =
            |stats: &serde_json::Value, name: &str| stats[name].as_u64().unwrap_or(0) as f64;
        let before = mounted.stats()?;
        self.read(set, &["shuffle"], cache)?;
        let after = mounted.stats()?;
        let gained = |name| count(&after, name) - count(&before, name);
        let (hits, misses) = (gained("hit_pages"), gained("missed_pages"));
        Ok(hits / (hits + misses).max(1.0))
    }

    /// Writes a file of generated data, and leaves none of it in the page cache.
    fn make(&mut self, path: &Path, bytes: u64) -> Result<(), HostError> {
        let ratio = Ratio::from_number(self.options.ratio).unwrap_or(Ratio::Three);
        let data = reader::data(ratio);
        let write = || -> std::io::Result<()> {
            let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
            for number in 0..bytes / PAGE_SIZE as u64 {
                file.write_all(&reader::page(data, number))?;
            }
            file.into_inner()
                .map_err(std::io::IntoInnerError::into_error)?
                .sync_all()
        };
        write().map_err(HostError::file(path))?;
        drop_pages(path)
    }
}

/// What plain LRU of so many pages makes of the reads of [`Bench::stream`].
fn stream_past_lru(held: u64, (set, stream): (u64, u64)) -> (f64, f64) {
    let mut lru = Lru::new(held as usize);
    for _ in 0..3 {
        lru.read_all(0, reader::shuffled(set));
    }
    let before = lru.read_all(0, reader::shuffled(set));
    lru.read_all(1, 0..stream);
    (before, lru.read_all(0, reader::shuffled(set)))
}

/// Takes a file out of the page cache.
fn drop_pages(path: &Path) -> Result<(), HostError> {
    let drop = || -> std::io::Result<()> {
        let file = File::open(path)?;
        Ok(posix_fadvise(
            &file,
            0,
            0,
            PosixFadviseAdvice::POSIX_FADV_DONTNEED,
        )?)
    };
    drop().map_err(HostError::file(path))
}
