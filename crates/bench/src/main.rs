//! `zcache-bench`: zcache beside zram, zswap and plain disk swap, in the same run and at equal RAM.
//!
//! Three commands: `workload` is the measured program, `compare` runs it under every contender, and
//! `cleanup` undoes what an interrupted `compare` left behind. The folders follow the way of a
//! measurement: `workload` (what is measured), `host` (what is set up around it), `compare` (which
//! runs, in which order, and what they say).

mod compare;
mod host;
mod size;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures zcache beside zram, zswap and disk swap
#[derive(Parser)]
#[command(name = "zcache-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the measured program by itself and print one line of JSON
    Workload(workload::Options),
    /// Compare zcache with zram, zswap and disk swap; needs root
    Compare(compare::Options),
    /// Undo what a killed comparison left on the machine
    Cleanup,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Workload(options) => workload::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Cleanup => compare::cleanup(),
    }
}
