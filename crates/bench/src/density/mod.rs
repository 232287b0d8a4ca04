//! The very same pages written into zram, zswap and zcache, read back and compared, and all the memory
//! that each of them uses for it.
//!
//! - Density is bytes of pages held by a byte of RAM: zram's `mem_used_total`, zswap's pool as
//!   `/proc/meminfo` has it, zcache's frames, tables, codecs and dictionaries. zram's and the kernel's
//!   tables of swapped pages are not in their numbers, which is to their advantage.
//! - Every contender holds the pages of all programs at once, but for zcache, which has one store a
//!   program, as each `zcache run` has; the sum counts.
//! - One thread bound to one CPU stores and loads. zram is written and read by direct I/O of 64 KiB,
//!   zswap by MADV_PAGEOUT and page faults of a process of its own, zcache by `insert` and `load`, as `zcache run` does.
//! - A page that does not come back as it was is an error of the whole comparison.
//!
//! Contenders run interleaved; a ratio is formed within one repeat.

pub(crate) mod contender;
mod holder;
pub(crate) mod report;
pub(crate) mod zcache_store;
mod zram;
mod zswap;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use crate::corpus::{self, Manifest, PAGE_BYTES};
use crate::host::{HostError, Interrupt, Machine, Undo};
use contender::Contender;
pub(crate) use holder::{Options as HoldOptions, run as hold};

/// Options of `zcache-bench density`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// A folder that `zcache-bench corpus` has made
    corpus: PathBuf,
    /// Runs of each contender
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Who runs; all unless given
    #[arg(long, value_delimiter = ',')]
    contenders: Vec<Contender>,
    /// A directory on a real disk for the swap file that zswap needs
    #[arg(long, default_value = "/var/tmp")]
    swap_dir: PathBuf,
    /// The CPU that stores and loads
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Write every run to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Pages of one program.
pub(crate) type Page = [u8; PAGE_BYTES];

/// A corpus in memory.
pub(crate) struct Corpus {
    pub(crate) manifest: Manifest,
    /// The pages of each program.
    pub(crate) sources: Vec<Vec<Page>>,
}

impl Corpus {
    /// Reads a folder that `zcache-bench corpus` has made.
    ///
    /// # Errors
    /// [`HostError::File`] or [`HostError::Format`].
    pub(crate) fn read(folder: &std::path::Path) -> Result<Corpus, HostError> {
        let manifest = Manifest::read(folder)?;
        let sources = manifest
            .sources
            .iter()
            .map(|entry| corpus::read(folder, entry));
        let sources = sources.collect::<Result<Vec<_>, _>>()?;
        Ok(Corpus { manifest, sources })
    }

    /// Pages of all programs.
    pub(crate) fn pages(&self) -> usize {
        self.sources.iter().map(Vec::len).sum()
    }
}

/// What one contender made of the corpus.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    contender: String,
    repeat: u32,
    /// What it is made of, where the name does not say.
    detail: String,
    /// Bytes of pages that it held in RAM.
    held_bytes: u64,
    /// All RAM that it used for them.
    ram_bytes: u64,
    /// Bytes of pages that it held, and RAM, by program, where that can be told.
    sources: Vec<(u64, u64)>,
    pub(crate) store_seconds: f64,
    pub(crate) load_seconds: f64,
    /// Pages that it stored and loaded.
    pub(crate) pages: u64,
    /// The median time to load a page by itself; zero where it is not measured.
    load_ns_p50: u64,
    /// The median time to decompress one; zero where it is not measured.
    decode_ns_p50: u64,
    /// Pages that came back wrong.
    pub(crate) wrong_pages: u64,
}

impl Run {
    /// A run that has held so much and measured nothing yet.
    fn new(held_bytes: u64, pages: u64) -> Run {
        Run {
            contender: String::new(),
            repeat: 0,
            detail: String::new(),
            held_bytes,
            ram_bytes: 0,
            sources: Vec::new(),
            store_seconds: 0.0,
            load_seconds: 0.0,
            pages,
            load_ns_p50: 0,
            decode_ns_p50: 0,
            wrong_pages: 0,
        }
    }

    fn density(&self) -> f64 {
        self.held_bytes as f64 / self.ram_bytes.max(1) as f64
    }
}

/// Compares; exit code 1 when a page came back wrong, 2 when the comparison could not be made.
pub(crate) fn run(options: &Options) -> ExitCode {
    match compare(options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(wrong) => {
            eprintln!("error: {wrong} pages came back wrong");
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns how many pages came back wrong.
fn compare(options: &Options) -> Result<u64, HostError> {
    let machine = Machine::read();
    let interrupt = Interrupt::catch().map_err(|error| HostError::Command {
        line: "catching signals".into(),
        detail: error.to_string(),
    })?;
    let corpus = Corpus::read(&options.corpus)?;
    zcache_sys::process::run_on(&[options.cpu]).map_err(|error| HostError::Command {
        line: format!("--cpu {}", options.cpu),
        detail: error.to_string(),
    })?;
    let contenders = match options.contenders.is_empty() {
        true => Contender::all(),
        false => options.contenders.clone(),
    };
    let mut undo = Undo::open()?;
    let mut runs = Vec::new();
    let result = repeat(
        options,
        &contenders,
        &corpus,
        &mut undo,
        &interrupt,
        &mut runs,
    );
    drop(undo);
    // What was measured before an interruption is still worth reading.
    if !runs.is_empty() {
        print!(
            "{}",
            report::markdown(&machine, options, &corpus, &contenders, &runs)
        );
    }
    if let Some(path) = &options.json {
        let text =
            serde_json::json!({ "machine": machine, "corpus": corpus.manifest, "runs": runs });
        std::fs::write(path, text.to_string() + "\n").map_err(HostError::file(path))?;
    }
    result?;
    Ok(runs.iter().map(|run| run.wrong_pages).sum())
}

fn repeat(
    options: &Options,
    contenders: &[Contender],
    corpus: &Corpus,
    undo: &mut Undo,
    interrupt: &Interrupt,
    runs: &mut Vec<Run>,
) -> Result<(), HostError> {
    for repeat in 0..options.repeats {
        for contender in contenders {
            if interrupt.came() {
                return Err(HostError::Interrupted);
            }
            eprintln!("repeat {} of {}: {contender}", repeat + 1, options.repeats);
            let mark = undo.mark();
            let run = contender.run(options, corpus, undo);
            undo.undo_to(mark);
            match run {
                Ok(run) => runs.push(Run {
                    contender: contender.to_string(),
                    repeat,
                    ..run
                }),
                Err(HostError::Missing { what }) => eprintln!("{contender} is left out: {what}"),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Pages stored or loaded in a second, as MiB.
fn mib_per_second(pages: u64, time: Duration) -> f64 {
    (pages * PAGE_BYTES as u64) as f64 / (1 << 20) as f64 / time.as_secs_f64().max(1e-9)
}
