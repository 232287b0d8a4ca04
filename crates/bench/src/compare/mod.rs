//! The comparison: every contender on every cell, interleaved, at equal total RAM.
//!
//! A cell is one choice of data size, ratio, pattern and threads. For each repeat of a cell the
//! contenders run one after the other (A B C D, A B C D, …), so that a change of the machine's speed
//! meets all of them. **Equal total RAM** means two comparisons:
//!
//! - zram runs first, in a memory cgroup limited to a share of the data (half by default). Its limit
//!   plus the peak of its pool, which the cgroup is not charged for, is the total. `zcache-auto`,
//!   `zcache-lz4` and `zcache-zstd` get the total as `--ram`, `disk-total` gets it as its cgroup's limit. zswap gets
//!   the limit and a pool of its own, which is measured; where the kernel charges that pool to the
//!   cgroup (version 2), its limit is the total.
//! - Plain disk swap has no pool: its total is its limit, and `zcache-auto-limit`,
//!   `zcache-lz4-limit` and `zcache-zstd-limit` get exactly that as `--ram`.
//!
//! Invariants: every run's exit code is checked; `ok + oom + failed == repeats` for each contender of
//! a cell; a ratio is formed within one repeat only; nothing stays set up after the end.

mod contender;
mod matrix;
mod record;
pub(crate) mod report;
mod run;
pub(crate) mod statistics;
mod targets;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::host::{HostError, Interrupt, Machine, Undo};
use crate::size::Size;
use crate::workload::Pattern;
use contender::Contender;
use record::Record;

/// Options of `zcache-bench compare`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Sizes of the data
    #[arg(long, value_delimiter = ',', default_values = ["512M", "2G"])]
    bytes: Vec<Size>,
    /// Ratios of the data under lz4
    #[arg(long, value_delimiter = ',', default_values = ["2", "3"], value_parser = clap::value_parser!(u32).range(2..=3))]
    ratio: Vec<u32>,
    /// Orders of accesses
    #[arg(long, value_delimiter = ',', value_enum, default_values = ["seq", "uniform", "zipf"])]
    pattern: Vec<Pattern>,
    /// Numbers of threads
    #[arg(long, value_delimiter = ',', default_values = ["1", "4"], value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: Vec<u32>,
    /// Who runs
    #[arg(long, value_delimiter = ',', value_enum, default_values = ["unlimited", "zram", "zswap", "zcache-auto", "zcache-lz4", "zcache-zstd", "disk", "zcache-auto-limit", "zcache-lz4-limit", "zcache-zstd-limit"])]
    contenders: Vec<Contender>,
    /// Runs of each contender on each cell
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Length of the measured phase in seconds
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Length of the unmeasured phase before it in seconds
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Share of accesses that write, in percent
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=100))]
    writes: u32,
    /// The peers' limit in percent of the data
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100))]
    limit_percent: u64,
    /// A run that takes longer is killed and counted as failed, in seconds
    #[arg(long, default_value_t = 180)]
    time_max: u64,
    /// A directory on a real disk for the peers' swap file
    #[arg(long, default_value = "/var/tmp")]
    swap_dir: PathBuf,
    /// The zcache command; by default the one beside this program
    #[arg(long)]
    zcache: Option<PathBuf>,
    /// More options for `zcache run`, divided by spaces
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    zcache_options: String,
    /// A few seconds on 64 MiB: shows that everything works, says nothing about speed
    #[arg(long)]
    quick: bool,
    /// Write every run to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Compares; exit code 1 when a run returned wrong bytes or zcache did not end well, 2 when the
/// comparison could not be made. Peers that the kernel kills are a result, not an error.
pub(crate) fn run(options: &Options) -> ExitCode {
    let options = if options.quick {
        matrix::quick(options)
    } else {
        options.clone()
    };
    match compare(&options) {
        Ok(records) if records.iter().any(Record::is_wrong) => {
            eprintln!("error: a run returned wrong bytes");
            ExitCode::from(1)
        }
        Ok(records) if records.iter().any(Record::is_zcache_failure) => {
            eprintln!("error: a run of zcache did not end well");
            ExitCode::from(1)
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn compare(options: &Options) -> Result<Vec<Record>, HostError> {
    let machine = Machine::read();
    let interrupt = Interrupt::catch().map_err(|error| HostError::Command {
        line: "catching signals".into(),
        detail: error.to_string(),
    })?;
    let programs = run::Programs::find(options)?;
    let mut undo = Undo::open()?;
    let mut bench = run::Bench::prepare(options, programs, &mut undo, interrupt)?;
    let mut records = Vec::new();
    let result = matrix::walk(options, &mut bench, &mut records);
    drop(bench);
    drop(undo);
    // What was measured before an interruption is still worth reading.
    if !records.is_empty() {
        println!("{}", report::markdown(&machine, options, &records));
    }
    if let Some(path) = &options.json {
        record::write(path, &machine, &records)?;
    }
    result.map(|()| records)
}

/// Undoes what a killed comparison left.
pub(crate) fn cleanup() -> ExitCode {
    match Undo::open() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
