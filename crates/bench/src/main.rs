//! `zcache-bench`: zcache beside zram, zswap and plain disk swap, in the same run and at equal RAM.
//!
//! `workload` is the measured program, `compare` runs it under every contender, `corpus` makes pages of
//! live programs, `density` writes them into every contender, `allocators` packs them by every allocator,
//! `pages` says what a page of each kind costs, `mount` reads files again and again, `remote` measures RAM of
//! other machines, `growth` simulates many of them, and `cleanup` undoes what an interrupted `compare`, `density`, `mount` or `remote` left behind. The folders follow the way of a
//! measurement: `workload` (what is measured), `host` (what is set up around it), `compare` (which
//! runs, in which order, and what they say).

mod allocators;
mod compare;
mod corpus;
mod density;
mod growth;
mod host;
mod pages;
mod remote;
mod reread;
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
    /// Make a corpus of real pages from live programs; may need root
    Corpus(corpus::Options),
    /// Write a corpus into zram, zswap and zcache and compare the memory that they use; needs root
    Density(density::Options),
    /// Pack a corpus by every allocator and compare density, eviction and CPU time
    Allocators(allocators::Options),
    /// Say how much RAM a page takes in a store, by kind of page and by how it is addressed
    Pages(pages::Options),
    /// Compare re-reads of files with and without `zcache mount`; needs root
    Mount(reread::Options),
    /// Compare RAM of other machines with the disk: a page, eviction, a program; starts the servers itself
    Remote(remote::Options),
    /// Simulate many hosts that lend and borrow RAM, and say what that comes to
    Growth(growth::Options),
    /// What `mount` runs to read
    #[command(hide = true)]
    Read(reread::ReadOptions),
    /// What `density` starts to be swapped out
    #[command(hide = true)]
    Hold(density::HoldOptions),
    /// Undo what a killed comparison left on the machine
    Cleanup,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Workload(options) => workload::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Corpus(options) => corpus::run(&options),
        Command::Density(options) => density::run(&options),
        Command::Allocators(options) => allocators::run(&options),
        Command::Pages(options) => pages::run(&options),
        Command::Mount(options) => reread::run(&options),
        Command::Remote(options) => remote::run(&options),
        Command::Growth(options) => growth::run(&options),
        Command::Read(options) => reread::read(&options),
        Command::Hold(options) => density::hold(&options),
        Command::Cleanup => compare::cleanup(),
    }
}
